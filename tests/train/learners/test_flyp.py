"""FLYP: the student, its head, and the loop over CLIP's own loss."""

import numpy as np
import open_clip
import pytest
import torch
from torchvision.transforms.v2 import functional as V

from discl_ray.core.lam import REAL
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.data.config import DIGIT_CAPTIONS
from discl_ray.embedded import SCORER, STUDENT
from discl_ray.embedded.digits import NAMES, web_images
from discl_ray.errors import DisclError, ModelError
from discl_ray.evaluate.ensemble import choose_alpha, ensembled
from discl_ray.score.clip import ClipScorer
from discl_ray.score.config import ScorerConfig
from discl_ray.train.augment.augment import CROP
from discl_ray.train.augment.crop import draw_boxes
from discl_ray.train.config import TrainConfig
from discl_ray.train.images.table import ImageTable
from discl_ray.train.learners.flyp import Clip, Flyp, load_clip, predict, text_head
from discl_ray.train.learners.learner import ALONE, Batch, TrainJob
from discl_ray.train.loop import loop, predictor_of

WEB = web_images(100, seed=77)
TEMPLATES = DIGIT_CAPTIONS
CLIP = {
    "model": "clip",
    "captions": TEMPLATES,
    "start_steps": 0,
    "optimizer": "adamw",
    "warmup": 0.1,
    "epochs": 2,
    "batch": 32,
    "learning_rate": 1e-3,
}


def make_job(seed: int = 3, names: tuple[str, ...] = NAMES, **train) -> TrainJob:
    return TrainJob(
        seed=seed,
        train=TrainConfig.model_validate(CLIP | train),
        curriculum=CurriculumConfig(strategy="real_only", epochs=0, share=None),
        names=names,
        groups=dict.fromkeys(range(len(names)), "many"),
        counts=(10,) * len(names),
    )


def make_table(labels: np.ndarray = WEB.labels, val: int = 0) -> ImageTable:
    count = len(labels)
    return ImageTable(
        images=WEB.images,
        label=labels,
        lam_pct=np.full(count, REAL),
        role=np.array(["val"] * val + ["train"] * (count - val)),
        hard=np.zeros(count, bool),
        domain=np.array(["id", "ood"] * (count // 2)),
    )


def tuned(
    job: TrainJob, table: ImageTable
) -> tuple[dict[str, torch.Tensor], dict[int, dict[str, float]]]:
    controller = LocalController(job.curriculum, job.levels, job.seed)
    return loop(job, table, controller, lambda _: None), controller.history


def accuracy(clip: Clip) -> float:
    guess = predict(clip, text_head(clip, NAMES, TEMPLATES), WEB.images).argmax(1).numpy()
    return float((guess == WEB.labels).mean())


def test_the_student_is_another_clip_than_the_one_that_filters_and_knows_digits() -> None:
    student, scorer = load_clip().model.state_dict(), load_clip(str(SCORER)).model.state_dict()
    assert student.keys() == scorer.keys()
    assert not torch.equal(student["visual.conv1.weight"], scorer["visual.conv1.weight"])
    assert accuracy(load_clip()) > 0.85


def test_images_and_texts_are_embedded_as_the_scorers_adapter_does() -> None:
    clip, adapter = load_clip(), ClipScorer(ScorerConfig(model=str(STUDENT)))
    clip.model.eval()
    texts = text_head(clip, NAMES, ["the digit {name}"]).numpy()
    assert texts == pytest.approx(adapter.embed_texts([f"the digit {n}" for n in NAMES]), abs=1e-5)
    for images in (WEB.images[:4], np.kron(WEB.images[:4], np.ones((1, 2, 3, 1), np.uint8))):
        assert torch.equal(clip.pixels(images), adapter.pixels(list(images)))


def test_the_head_is_the_renormalised_mean_over_templates() -> None:
    clip, templates = load_clip(), ("the digit {name}", "a handwritten {name}")
    head = text_head(clip, NAMES, templates)
    one, two = (text_head(clip, NAMES, [t]) for t in templates)
    assert torch.allclose(head, torch.nn.functional.normalize((one + two) / 2, dim=-1), atol=1e-6)
    assert torch.allclose(head.norm(dim=-1), torch.ones(10))


def test_predictions_are_probabilities_at_the_current_scale_and_do_not_touch_the_model() -> None:
    clip = load_clip()
    before = {k: v.clone() for k, v in clip.model.state_dict().items()}
    head = text_head(clip, NAMES, TEMPLATES)
    probabilities = predict(clip, head, WEB.images, batch=10)
    assert torch.allclose(probabilities.sum(1), torch.ones(len(WEB.images)))
    assert torch.allclose(probabilities, predict(clip, head, WEB.images), atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in clip.model.state_dict().items())
    with torch.no_grad():
        clip.model.logit_scale.fill_(0.0)
    assert (
        predict(clip, head, WEB.images).max() < 0.3
    )  # at scale 1, cosines leave the classes nearly alike


def test_fine_tuning_is_a_function_of_its_seed_and_moves_both_towers() -> None:
    start = load_clip().model.state_dict()
    first, again, other = (tuned(make_job(seed), make_table())[0] for seed in (3, 3, 4))
    assert all(torch.equal(first[k], again[k]) for k in first)
    for key in ("visual.conv1.weight", "text_projection", "logit_scale"):
        assert not torch.equal(first[key], start[key])
        assert not torch.equal(first[key], other[key])
    assert float(first["logit_scale"]) <= np.log(100) + 1e-6


def test_fine_tuning_learns_a_class_the_student_has_no_word_for() -> None:
    labels, names = np.where(WEB.labels < 5, 0, 1), ("qux", "zyx")
    job = make_job(0, names, epochs=8, learning_rate=2e-3, captions=["a {name}", "the {name}"])
    weights, history = tuned(job, make_table(labels))
    assert (predictor_of(job, weights)(WEB.images).argmax(1).numpy() == labels).mean() > 0.9
    losses = [history[e]["loss"] for e in range(1, 9)]
    assert losses[-1] < losses[0]


def test_the_loss_is_clips_own_on_drawn_captions_of_the_image_s_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[float] = []
    real = open_clip.ClipLoss.forward
    said: set[str] = set()

    def spy(
        self: open_clip.ClipLoss, image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        assert image.shape == text.shape == (32, 64)
        loss = real(self, image, text, scale)
        calls.append(float(loss.detach()))
        return loss

    backward = Flyp.backward

    def heard(self, batch, world):
        number = (batch.parameters[:, -1] * len(TEMPLATES)).astype(int)
        said.update(
            TEMPLATES[n].format(name=NAMES[label])
            for n, label in zip(number, batch.labels, strict=True)
        )
        return backward(self, batch, world)

    monkeypatch.setattr(open_clip.ClipLoss, "forward", spy)
    monkeypatch.setattr(Flyp, "backward", heard)
    _, history = tuned(make_job(), make_table())
    assert len(calls) == 2 * (100 // 32)  # what does not fill a batch waits for the next epoch
    assert history[1]["loss"] == pytest.approx(np.mean(calls[:3]), rel=1e-6)
    assert said == {t.format(name=n) for t in TEMPLATES for n in NAMES}


def test_val_is_scored_by_the_head_of_that_moment_and_by_domain() -> None:
    job, table = make_job(epochs=1), make_table(val=40)
    weights, history = tuned(job, table)
    clip = load_clip()
    clip.model.load_state_dict(weights)
    guess = predict(clip, text_head(clip, NAMES, TEMPLATES), WEB.images[:40]).argmax(1).numpy()
    for offset, name in enumerate(("id", "ood")):
        right = (guess == WEB.labels[:40])[offset::2]
        assert history[1][f"val_top1_{name}"] == pytest.approx(100 * right.mean())


def test_weights_are_averaged_in_proportion_and_the_share_is_chosen_on_val() -> None:
    job, table = make_job(epochs=1), make_table(val=40)
    start = load_clip().model.state_dict()
    wrecked = {
        k: torch.randn_like(v) if v.is_floating_point() and v.ndim else v for k, v in start.items()
    }
    assert choose_alpha(job, start, wrecked, table) == 0.0
    assert choose_alpha(job, start, start, table) == 1.0  # of equals the largest
    half = ensembled(start, wrecked, 0.5)
    assert torch.allclose(
        half["text_projection"], (start["text_projection"] + wrecked["text_projection"]) / 2
    )


def test_refusals_say_what_is_wrong() -> None:
    with pytest.raises(ModelError, match=r"train.clip = '/nowhere'.*lacks open_clip_config.json"):
        load_clip("/nowhere")
    with pytest.raises(
        DisclError, match=r"train.batch = 101 is more than the 100 images of an epoch"
    ):
        tuned(make_job(batch=101), make_table())


def test_training_images_are_flyps_crops_and_others_are_whole() -> None:
    """RandomResizedCrop(0.9, 1) by the numbers of each image's place.

    In the model's own resize and normalisation.
    """
    learner, calls = Flyp(make_job(), torch.device("cpu")), []
    uniform = np.random.default_rng(0).random((4, 60))
    batch = Batch(
        images=WEB.images[:4],
        labels=WEB.labels[:4],
        parameters=uniform,
        strength=np.zeros(4, np.int64),
        partner=None,
        mix=None,
        counts=torch.ones(10),
        size=4,
    )
    learner.model.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0]))
    learner.backward(batch, ALONE)
    boxes = draw_boxes(uniform[:, CROP], 0.9, 32, 32)
    assert (boxes.height * boxes.width < 32 * 32).sum() == 3
    for i, box in enumerate(zip(*(side.tolist() for side in boxes), strict=True)):
        whole = torch.from_numpy(WEB.images[i]).permute(2, 0, 1)
        cut = V.resized_crop(
            whole, *box, size=[32, 32], interpolation=V.InterpolationMode.BICUBIC, antialias=True
        )
        assert torch.allclose(
            calls[0][i],
            V.normalize(cut.float() / 255, [0.5] * 3, [0.25] * 3),
            atol=1.01 / 255 / 0.25,
        )
    uncropped = Flyp(make_job(augment={"crop": 1.0}), torch.device("cpu"))
    assert torch.equal(uncropped.pixels(batch), uncropped.clip.pixels(WEB.images[:4]))


def test_a_clip_that_names_no_crop_has_flyps_and_what_was_recorded_without_one_stays_so() -> None:
    assert TrainConfig.model_validate(CLIP).augment.crop == 0.9
    assert TrainConfig.model_validate(CLIP | {"augment": {"crop": 1.0}}).augment.crop == 1.0
    assert TrainConfig().augment.crop == 1.0
    recorded = TrainConfig.model_validate(CLIP).model_dump()
    assert TrainConfig.model_validate(recorded) == TrainConfig.model_validate(CLIP)
