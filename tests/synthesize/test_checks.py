"""What is checked before images are made."""

import pytest

from discl_ray.data.config import ImageFolderConfig
from discl_ray.errors import DataError, ModelError
from discl_ray.synthesize.checks import check_plumbing, judging_crew, scoring, stages
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


def test_plumbing_says_whether_the_images_mean_something(small):
    config = small()
    assert check_plumbing(config) == "fits the data set"
    generator = config.generator.model_copy(update={"allow_embedded": True})
    other = config.model_copy(
        update={"data": ImageFolderConfig(root="/birds/of/nowhere"), "generator": generator}
    )
    assert "mean nothing" in check_plumbing(other)


@pytest.mark.model
def test_a_stage_asks_for_what_is_configured(small):
    config = small("generator.actors=2", "scorer.actors=1", "scorer.num_gpus=0")
    generator, scorer = stages(config)
    assert (generator.actors, scorer.actors) == (2, 1)
    assert scorer == scoring(config)
    assert generator.memory > scorer.memory > 0  # its weights beside a process's own
    assert judging_crew(config).parts[0].actors == 1
