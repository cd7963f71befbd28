import numpy as np
import pytest
import torch

from discl_ray.embedded.digits import NAMES, render, scans_of, web_images
from discl_ray.score.class_audit import class_ranks, unknown_classes
from discl_ray.score.clip import ClipScorer
from discl_ray.score.config import ScorerConfig

PROMPTS = {name: f"a photo of the digit {name}" for name in NAMES}


class Told:
    """Embeds the i-th text as the i-th axis and an image as its first row.

    So a test writes the similarities down.
    """

    def __init__(self):
        self.batches = []

    def embed_texts(self, texts):
        return np.eye(len(texts), 3, dtype=np.float32)

    def embed_images(self, images):
        self.batches.append(len(images))
        return np.stack([image[0, :3, 0].astype(np.float32) for image in images])


def image(*similarities):
    return np.array([[[s] * 3 for s in similarities]], np.uint8)


def test_ranks_are_medians_over_a_class_images_in_any_order():
    images = [
        ("b", image(9, 5, 1)),
        ("a", image(9, 5, 1)),
        ("b", image(9, 5, 7)),
        ("b", image(1, 5, 1)),
        ("a", image(4, 4, 4)),
        ("a", image(1, 2, 3)),
    ]
    ranks = class_ranks(images, {"a": "A", "b": "B", "none": "N"}, Told())
    assert ranks == {"a": 1.0, "b": 2.0}
    assert list(ranks) == ["a", "b"]
    assert class_ranks([], {"a": "A"}, Told()) == {}
    with pytest.raises(KeyError):
        class_ranks([("c", image(1, 2, 3))], {"a": "A"}, Told())


def test_images_are_taken_one_at_a_time():
    scorer, underway = Told(), []

    def photographs():
        for i in range(5):
            underway.append(len(scorer.batches))
            assert underway[-1] == i
            yield "a", image(1, 2, 3)

    class_ranks(photographs(), {"a": "A", "b": "B"}, scorer)
    assert scorer.batches == [1] * 5


@pytest.mark.parametrize(("count", "highest"), [(2, 3), (10, 3), (12, 3), (60, 15), (200, 50)])
def test_a_class_is_unknown_beyond_the_third_and_the_best_quarter(count, highest):
    assert unknown_classes({"a": highest}, count) == {}
    assert list(unknown_classes({"a": highest + 1, "b": highest, "c": highest + 2}, count)) == [
        "c",
        "a",
    ]


def test_chance_is_called_unknown_five_times_in_six():
    ranks = np.median(np.random.default_rng(0).integers(1, 201, (20_000, 3)), axis=1)
    assert len(
        unknown_classes({str(i): rank for i, rank in enumerate(ranks)}, 200)
    ) / 20_000 == pytest.approx(5 / 6, abs=0.02)


def test_the_embedded_scorer_knows_the_digits_by_their_names_and_not_by_others():
    torch.set_num_threads(1)
    scorer = ClipScorer(ScorerConfig())
    web = web_images(60, seed=5)
    images = [(NAMES[label], pixels) for label, pixels in zip(web.labels, web.images, strict=True)]
    known = class_ranks(images, PROMPTS, scorer)
    assert unknown_classes(known, 10) == {}
    swapped = {
        name: PROMPTS[other] for name, other in zip(NAMES, NAMES[5:] + NAMES[:5], strict=True)
    }
    assert len(unknown_classes(class_ranks(images, swapped, scorer), 10)) > 5
    task = [(NAMES[s.label], render(s, "ochre")) for s in scans_of((7,))[:60]]
    assert len(unknown_classes(class_ranks(task, PROMPTS, scorer), 10)) <= 3
