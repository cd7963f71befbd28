import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file

from discl_ray.embedded import SCORER
from discl_ray.embedded.digits import NAMES, render, scans_of, web_images
from discl_ray.errors import ModelError
from discl_ray.score.clip import ClipScorer, middle_part, rank_of
from discl_ray.score.config import ScorerConfig
from discl_ray.score.model_folder import open_clip_name

PROMPTS = [f"a photo of the digit {name}" for name in NAMES]
SIZES = (
    (64, 64),
    (32, 32),
    (33, 57),
    (80, 40),
    (20, 20),
    (11, 26),
    (224, 300),
    (512, 512),
    (100, 333),
)
LEVELS, COSINE = 2, 0.006
"""The tolerance that ClipScorer.pixels states."""
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def embedded() -> ClipScorer:
    torch.set_num_threads(1)
    return ClipScorer(ScorerConfig())


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(SCORER, tmp_path / "model"))


def edit(folder: Path, part: str, **values: object) -> Path:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config[part].update(values)
    path.write_text(json.dumps(config))
    return folder


def natural(height: int, width: int, seed: int) -> np.ndarray:
    """Clouds at every scale, a few hard edges, some grain: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for octave in range(6):
        noise = (rng.random((2 + 2**octave, 2 + 2**octave, 3)) * 255).astype(np.uint8)
        image += (
            np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
            * 0.6**octave
        )
    image = (image - image.min()) / np.ptp(image)
    for _ in range(4):
        top, left = rng.integers(height), rng.integers(width)
        image[top : top + height // 3, left : left + width // 3] = rng.random(3).round()
    return ((image + rng.normal(0, 0.02, image.shape)).clip(0, 1) * 255).round().astype(np.uint8)


def by_open_clip(scorer: ClipScorer, images: list[np.ndarray]) -> torch.Tensor:
    return torch.stack([scorer.transform(Image.fromarray(image)) for image in images])


def levels_apart(scorer: ClipScorer, images: list[np.ndarray]) -> float:
    """Greatest difference of the two preprocessings in pixel levels."""
    std = torch.tensor(scorer.steps["std"]).view(3, 1, 1)
    return float(((scorer.pixels(images) - by_open_clip(scorer, images)) * std * 255).abs().max())


def model_of(side: int, interpolation: str, folder: Path) -> ClipScorer:
    """A scorer of random weights for images of `side` x `side` pixels."""
    shutil.copytree(SCORER, folder)
    edit(folder, "preprocess_cfg", interpolation=interpolation)
    edit(
        folder,
        "model_cfg",
        vision_cfg={"image_size": side, "layers": 1, "width": 64, "patch_size": 16},
    )
    torch.manual_seed(0)
    model = CLIP(**json.loads((folder / "open_clip_config.json").read_text())["model_cfg"])
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS
    )
    return ClipScorer(ScorerConfig(model=str(folder)))


@pytest.fixture(
    scope="module",
    params=[(32, "embedded"), (64, "bicubic"), (224, "bicubic"), (64, "bilinear")],
    ids=str,
)
def scorer(request, embedded, tmp_path_factory) -> ClipScorer:
    side, kind = request.param
    return (
        embedded
        if kind == "embedded"
        else model_of(side, kind, tmp_path_factory.mktemp("scorer") / "model")
    )


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_open_clips_own_transform(scorer, size):
    images = [natural(*size, seed) for seed in range(4)]
    assert scorer.side == scorer.pixels(images).shape[-1]
    assert levels_apart(scorer, images) <= LEVELS + 0.01
    new, old = (
        scorer.model.encode_image(x, normalize=True).detach()
        for x in (scorer.pixels(images), by_open_clip(scorer, images))
    )
    assert float((new - old).norm(dim=1).max()) <= COSINE  # by which no cosine can move further


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1.5, 1)])
def test_pixels_are_the_same_bits_where_nothing_is_resized(scorer, size):
    images = [
        natural(int(scorer.side * size[0]), int(scorer.side * size[1]), seed) for seed in range(3)
    ]
    assert torch.equal(scorer.pixels(images), by_open_clip(scorer, images))


def test_tall_images_shrink_by_rows_first_whatever_pillow_does(scorer):
    height, width = scorer.side * 4, int(scorer.side * 1.25)
    image, tall = natural(height, width, 0), (scorer.side, int(scorer.side * height / width))
    how = Image.Resampling[scorer.steps["interpolation"].upper()]
    by_rows = Image.fromarray(image).resize((tall[0], height), how).resize(tall, how)
    expected = by_open_clip(scorer, [np.asarray(by_rows)])
    std = torch.tensor(scorer.steps["std"]).view(3, 1, 1)
    assert float(((scorer.pixels([image]) - expected) * std * 255).abs().max()) <= LEVELS + 0.01


def test_images_of_several_sizes_keep_their_order(scorer, monkeypatch):
    monkeypatch.setattr(scorer, "config", scorer.config.model_copy(update={"batch": 4}))
    images = [
        natural(*size, seed) for seed, size in enumerate(itertools.chain(SIZES, reversed(SIZES)))
    ]
    one_by_one = torch.cat([scorer.pixels([image]) for image in images])
    assert torch.equal(scorer.pixels(images), one_by_one)
    expected = scorer.model.encode_image(one_by_one, normalize=True).detach().numpy()
    np.testing.assert_allclose(scorer.embed_images(images), expected, atol=1e-5)
    assert len({row.tobytes() for row in expected.round(4)}) == len(
        images
    )  # otherwise order would not show


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (44, 32), (20, 20), (224, 224)])
def test_ranks_of_digits_are_those_of_open_clips_own_transform(embedded, size):
    web = web_images(60, 7)
    digits = [
        *zip(web.images, web.labels, strict=True),
        *((render(scan, "ochre"), scan.label) for scan in scans_of((8,))[:60]),
    ]
    images = [
        np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        for image, _ in digits
    ]
    texts = embedded.embed_texts(PROMPTS)
    old = (
        embedded.model.encode_image(by_open_clip(embedded, images), normalize=True).detach().numpy()
    )
    ranks = [
        [rank_of(label, texts @ v) for v, (_, label) in zip(found, digits, strict=True)]
        for found in (embedded.embed_images(images), old)
    ]
    assert ranks[0] == ranks[1]
    assert len(set(ranks[0])) > 1


@pytest.mark.parametrize(
    "steps", [{"resize_mode": "squash"}, {"resize_mode": "longest"}, {"interpolation": "random"}]
)
def test_what_is_not_done_on_the_batch_is_left_to_open_clip(folder, steps):
    scorer = ClipScorer(ScorerConfig(model=str(edit(folder, "preprocess_cfg", **steps))))
    images = [natural(*size, 0) for size in SIZES]
    assert scorer.side is None
    assert torch.equal(scorer.pixels(images), by_open_clip(scorer, images))


def refusal(**config: object) -> str:
    with pytest.raises(ModelError) as caught:
        ClipScorer(ScorerConfig(**config)).embed_texts(PROMPTS)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_tokenizer_of_another_vocabulary_is_named(folder):
    text = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    edit(
        folder, "model_cfg", text_cfg={**text, "hf_tokenizer_name": ""}
    )  # open_clip's own, of 49408 tokens
    message = refusal(model=str(folder))
    assert f"scorer.model = '{folder}'" in message
    assert "tokenizer does not fit its text tower" in message


def test_a_tokenizer_of_another_length_is_named(embedded, monkeypatch):
    monkeypatch.setattr(
        embedded, "tokenizer", lambda texts: torch.zeros(len(texts), 77, dtype=torch.long)
    )
    with pytest.raises(ModelError, match=r"'embedded'.*tokenizer does not fit its text tower"):
        embedded.embed_texts(PROMPTS)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1000], lambda data: b"no weights", lambda data: b""]
)
def test_weights_that_cannot_be_read_are_named(folder, damage):
    file = folder / WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    assert f"scorer.model = '{folder}'" in refusal(model=str(folder))


def test_weights_of_another_model_are_named(folder):
    edit(folder, "model_cfg", embed_dim=32)
    assert f"scorer.model = '{folder}'" in refusal(model=str(folder))


def test_a_checkpoint_file_is_loaded_into_a_known_architecture(embedded, folder, tmp_path):
    config = json.loads((SCORER / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_tokenizer_name"] = str(SCORER)
    (tmp_path / "digits-tower.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "digits-tower.json")
    file = folder / WEIGHTS
    scorer = ClipScorer(ScorerConfig(model="digits-tower", pretrained=str(file)))
    np.testing.assert_array_equal(scorer.embed_texts(PROMPTS), embedded.embed_texts(PROMPTS))
    assert scorer.embed_images([natural(40, 40, 0)]).shape == (1, 64)
    file.write_bytes(file.read_bytes()[:-1000])
    assert f"pretrained = {file}" in refusal(model="digits-tower", pretrained=str(file))
    assert "scorer.model = 'digits-tower'" in refusal(model="digits-tower")


@pytest.mark.parametrize(
    "name", ["weights.pt", "weights.bin", "./weights.ckpt", "folder/weights", "weights"]
)
def test_pickled_checkpoints_are_refused_by_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / name).touch()
    with pytest.raises(ModelError, match="pickled weights are not loaded") as caught:
        open_clip_name(ScorerConfig(model="ViT-B-32", pretrained=name))
    assert f"scorer.pretrained = '{name}'" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["nowhere.safetensors", "/no/such/weights.safetensors", "~/weights.safetensors"]
)
def test_a_missing_checkpoint_is_named(name):
    with pytest.raises(ModelError, match="no such file"):
        open_clip_name(ScorerConfig(model="ViT-B-32", pretrained=name))


def test_all_tags_of_open_clip_are_let_through():
    for model, tag in open_clip.list_pretrained():
        assert open_clip_name(ScorerConfig(model=model, pretrained=tag)) == model


def test_pickled_weights_in_a_folder_are_refused_unless_open_clip_takes_others(folder):
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"pickle")
    ClipScorer(ScorerConfig(model=str(folder)))
    (folder / WEIGHTS).rename(folder / "weights.safetensors")
    assert "open_clip_pytorch_model.bin" in refusal(model=str(folder))
    (folder / "weights.safetensors").unlink()
    assert "no *.safetensors file" in refusal(model=str(folder))


def test_a_strip_is_cut_before_it_is_scaled_and_looks_the_same(scorer, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [(40, 9001), (9003, 40), (1, 500), (2, 601), (700, 3), (7, 2003), (50, 50)]
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    whole = scorer.pixels(images)
    monkeypatch.setattr("discl_ray.score.clip.MAX_PIXELS", 200 * scorer.side**2)
    assert all(
        max(middle_part(image, scorer.side).shape) < max(image.shape) for image in images[:-1]
    )
    cut = scorer.pixels(images)
    std = torch.tensor(scorer.steps["std"]).view(3, 1, 1)
    assert float(((cut - whole) * std * 255).abs().max()) <= LEVELS + 0.01
    assert torch.equal(cut[-1], whole[-1])


def test_a_strip_takes_no_memory(scorer):
    strips = [np.zeros((2, 30_000, 3), np.uint8), np.zeros((30_000, 2, 3), np.uint8)]
    assert scorer.pixels(strips).shape == (2, 3, scorer.side, scorer.side)
