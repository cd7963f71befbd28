import shutil
from pathlib import Path

import pytest
import torch  # noqa: F401, so that each check runs here, in no process of its own

from discl_ray.embedded import GENERATOR
from discl_ray.errors import ModelError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.model_checks import check_generator
from discl_ray.generate.model_settings import native_side, scheduler_notes, working_size
from tests.generate.folders import edited


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(GENERATOR, tmp_path / "model"))


@pytest.mark.parametrize(
    ("change", "sampler", "words"),
    [
        ({}, "ddim", []),
        ({"clip_sample": True}, "ddim", ["clip_sample = True: not followed"]),
        ({"clip_sample": True, "_class_name": "EulerDiscreteScheduler"}, "euler", []),
        (
            {"thresholding": True},
            "ddpm_large",
            ["is of a DDIMScheduler", "thresholding = True: not followed"],
        ),
        (
            {"_class_name": "PNDMScheduler", "steps_offset": 0},
            "ddim",
            ["is of a PNDMScheduler", "steps_offset = 0: 1 is taken"],
        ),
        (
            {"_class_name": "DDPMScheduler", "steps_offset": None},
            "ddpm_small",
            ["steps_offset = 0: 1 is taken"],
        ),
        (
            {"_class_name": "UniPCMultistepScheduler", "solver_type": "bh2"},
            "dpm++2m",
            ["is of a UniPCMultistepScheduler"],
        ),
        ({"_class_name": None, "steps_offset": 0, "timestep_spacing": "trailing"}, "ddim", []),
    ],
)
def test_what_the_sampler_does_not_take_from_the_scheduler_is_said_once(
    folder, change, sampler, words
):
    config = GeneratorConfig(model=str(edited(folder, **change)), sampler=sampler)
    assert check_generator(config, 30, (0, 50)) == folder
    notes = scheduler_notes(config, folder)
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.parametrize("size", [30, (32, 33), 2, (0, 32)])
def test_a_size_the_vae_cannot_make_is_refused_with_the_nearest(size):
    with pytest.raises(ModelError, match=r"multiples of 4 are needed; the nearest is"):
        working_size(GeneratorConfig(size=size), GENERATOR)


def test_the_working_size_is_the_native_one_unless_asked():
    assert native_side(GENERATOR) == 32
    assert working_size(GeneratorConfig(), GENERATOR) == (32, 32)
    assert working_size(GeneratorConfig(size=64), GENERATOR) == (64, 64)
    assert working_size(GeneratorConfig(size=(24, 40)), GENERATOR) == (24, 40)
