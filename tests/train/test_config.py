import pytest
from pydantic import ValidationError

from discl_ray.config import Config, with_values
from discl_ray.core.settings import identity
from discl_ray.data.config import DIGIT_CAPTIONS, NEUTRAL_CAPTIONS
from discl_ray.train.config import AUGMENT_OF_START, OF_START, TrainConfig


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"batch": 5, "workers": 2}, "cannot be divided"),
        ({"model": "clip"}, "start_steps = 400: a CLIP is trained from its own weights"),
        (
            {"model": "clip", "start_steps": 0, "loss": "balanced_softmax"},
            "loss = balanced_softmax",
        ),
        ({"model": "clip", "start_steps": 0, "augment": {"mix": "mixup"}}, "cropped and no more"),
        ({"captions": ["a photo"]}, "says the same of every class"),
        ({"captions": ["{name} {0}"]}, "only {name} is filled in"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_what_is_allowed(settings_, words) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainConfig.model_validate(settings_)


OTHER = {
    **{
        "model": "resnet34",
        "width": 8,
        "stem": "imagenet",
        "norm": "group",
        "clip": "a/folder",
        "captions": ("a {name}",),
    },
    **{
        "image_size": 64,
        "batch": 64,
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "warmup": 0.2,
        "precision": "bf16",
    },
    **{"compile": True, "start_steps": 7, "start_learning_rate": 0.5},
    **{
        "loss": "balanced_softmax",
        "tau": 2.0,
        "prior": "effective",
        "epochs": 9,
        "keep": "best",
        "eval_every": 1,
    },
    "learning_rate": 0.3,
}
OTHER_AUGMENT = {
    **{"shift": 1, "jitter": 0.2, "flip": True, "crop": 0.5},
    **{"kind": "strong", "mix": "mixup", "mix_alpha": 0.2, "strong_ops": 3},
    **{"cuda_gamma": 0.5, "cuda_probes": 3, "cuda_max": 4},
}


def test_a_start_is_decided_by_the_fields_it_names_and_by_no_others() -> None:
    plain = TrainConfig()
    assert set(OTHER) | {"augment"} == set(
        identity(plain)
    )  # a new field has to be in one list or the other
    assert set(OTHER_AUGMENT) == set(identity(plain.augment))
    for name, value in OTHER.items():
        assert (TrainConfig.model_validate({name: value}).start() != plain.start()) == (
            name in OF_START
        ), name
    for name, value in OTHER_AUGMENT.items():
        changed = TrainConfig.model_validate({"augment": {name: value}})
        assert (changed.start() != plain.start()) == (name in AUGMENT_OF_START), name
    start = TrainConfig(
        loss="balanced_softmax", learning_rate=0.3, start_learning_rate=0.5, batch=64, workers=2
    ).start()
    assert (start.loss, start.learning_rate, start.batch, start.workers) == ("ce", 0.5, 64, 2)


FOLDER = {"data": {"name": "imagefolder", "root": "/nowhere"}, "generator": {"model": "a/model"}}
CLIP = {"train.model": "clip", "train.start_steps": 0}


def test_captions_that_are_not_named_are_the_data_sets_own() -> None:
    digits, folder = Config(), Config.model_validate(FOLDER)
    assert with_values(digits, CLIP).train.captions == DIGIT_CAPTIONS
    assert with_values(folder, CLIP).train.captions == NEUTRAL_CAPTIONS
    own = with_values(folder, {**CLIP, "train.captions": ("an X-ray of {name}",)})
    assert own.train.captions == ("an X-ray of {name}",)


def test_runs_without_a_clip_and_runs_on_digits_keep_their_names() -> None:
    digits, folder = Config(), Config.model_validate(FOLDER)
    before = {"train.captions": DIGIT_CAPTIONS}  # the default of earlier versions
    for config in (digits, folder, with_values(digits, CLIP)):
        assert identity(config.train) == identity(with_values(config, before).train)
    back = with_values(with_values(folder, CLIP), {"train.model": "resnet10"})
    assert identity(back.train)["captions"] == list(DIGIT_CAPTIONS)
    assert identity(with_values(folder, CLIP).train)["captions"] == list(NEUTRAL_CAPTIONS)
