import pytest
from PIL import Image

from tests.support.samples import picture


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for c, name in enumerate(("ant", "bee")):
        (root / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(picture(100 * c + i)).save(root / name / f"{i:02d}.png")
    return root
