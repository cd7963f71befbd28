"""What is checked before images are made."""

import pytest

from discl_ray.data.config import ImageFolderConfig
from discl_ray.errors import DataError, ModelError
from discl_ray.synthesize.run import prepare

pytestmark = pytest.mark.timeout(600)


def test_the_embedded_generator_refuses_another_data_set_unless_it_is_told(small):
    config = small()
    other = config.model_copy(update={"data": ImageFolderConfig(root="/birds/of/nowhere")})
    with pytest.raises(
        ModelError,
        match=r"embedded knows only digits, data\.name = imagefolder.*allow_embedded=true",
    ):
        prepare(other)
    allowed = other.model_copy(
        update={"generator": other.generator.model_copy(update={"allow_embedded": True})}
    )
    with pytest.raises(DataError, match=r"data\.root = '/birds/of/nowhere': no such folder"):
        prepare(allowed)
