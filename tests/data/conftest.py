import fsspec
import pytest
from PIL import Image

from discl_ray.data.root import open_root
from tests.support.samples import picture


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for c, name in enumerate(("ant", "bee")):
        (root / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(picture(100 * c + i)).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture
def root(tmp_path):
    """A root with a file in a folder, and a secret beside it."""
    (tmp_path / "base" / "a" / "b").mkdir(parents=True)
    (tmp_path / "base" / "a" / "b" / "x.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"s")
    return open_root(str(tmp_path / "base"))


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe(
        {
            "/walked/b/2.png": b"22",
            "/walked/b-c/1.png": b"1",
            "/walked/.hidden/x.png": b"",
            "/walked/b/.x": b"",
        }
    )
    yield open_root("memory://walked")
    filesystem.rm("/walked", recursive=True)
