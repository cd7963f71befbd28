"""open_clip's models, built with the activation they were trained with.

They are refused before anything starts if they are not whole.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from discl_ray.config import load_config
from discl_ray.core.weights import outline
from discl_ray.embedded import SCORER, STUDENT
from discl_ray.errors import ModelError
from discl_ray.models.clip import META, check_clip, load, trained_with_quick_gelu
from discl_ray.score.clip import ClipScorer
from discl_ray.score.config import ScorerConfig
from discl_ray.score.model_folder import (
    CHECKED,
    QUICK,
    check_scorer,
    scorer_fingerprint,
    scorer_warnings,
)
from discl_ray.synthesize.run import prepare
from discl_ray.train.learners.flyp import check_student
from tests.support.runs import ROOT

WEIGHTS = "open_clip_model.safetensors"
PRESETS = ("sd15", "sdxl", "sdxl-refiner")


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(SCORER, tmp_path / "model"))


def rewrite(folder, change):
    file = folder / WEIGHTS
    save_file({k: v.contiguous() for k, v in change(load_file(file)).items()}, file)


def edit(folder, part, **values):
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"][part] = {**config["model_cfg"][part], **values}
    path.write_text(json.dumps(config))


def refusal(**config):
    with pytest.raises(ModelError) as caught:
        check_scorer(ScorerConfig(**config))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory) -> Path:
    """Random weights of the real ViT-B/32 in half precision, as published."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-quickgelu")
    file = tmp_path_factory.mktemp("openai") / WEIGHTS
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, file)
    return file


def preset_config(preset, *overrides):
    files = [ROOT / "conf" / "imagefolder.yaml", ROOT / "conf" / f"{preset}.yaml"]
    return load_config(files, ["data.root=photos", *overrides])


def test_every_tag_that_says_quickgelu_is_in_our_table_and_no_other():
    said = {}
    for name, tag in open_clip.list_pretrained():
        wants = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
        assert trained_with_quick_gelu(name, tag) == wants
        if wants and not open_clip.get_model_config(name).get("quick_gelu", False):
            said.setdefault(name, set()).add(tag)
    assert said == {name: set(tags) for name, tags in QUICK.items()}


def test_the_fingerprint_changes_where_the_activation_does_and_only_there():
    """As it was, it named the definition and the tag, whatever they came to."""
    from importlib.metadata import version

    from discl_ray.core.ids import stable_id

    for name, tag in open_clip.list_pretrained():
        before = stable_id([name, tag], version("open_clip_torch"))
        now = scorer_fingerprint(ScorerConfig(model=name, pretrained=tag))
        assert (now != before) == (tag in QUICK.get(name, ()))
    named = scorer_fingerprint(ScorerConfig(model="ViT-B-32-quickgelu", pretrained="openai"))
    for name, tag in (
        ("ViT-B-32", "openai"),
        ("ViT-B/32", "OpenAI"),
        ("ViT-B-32", "laion400m-e32"),
    ):
        now = scorer_fingerprint(ScorerConfig(model=name, pretrained=tag))
        assert now != stable_id([name, tag], version("open_clip_torch"))
        assert (now == named) == ((name, tag) == ("ViT-B-32", "openai"))


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_own_path_passes_the_checks(clip_file, monkeypatch, tmp_path, preset):
    """`conf/imagefolder.yaml conf/sd15.yaml` with fp16 files.

    They have the real classes and the real ViT-B/32's names and shapes.
    """
    from PIL import Image

    from tests.generate.families import make_folder

    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: str(clip_file))
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(clip_file))
    family = {"sd15": "sd1"}.get(preset, preset)
    model = make_folder(family, tmp_path / "model")
    for file in model.glob("*/*.safetensors"):
        save_file(
            {name: value.half() for name, value in load_file(file).items()},
            file.with_suffix(".fp16.safetensors"),
        )
        file.unlink()
    for i in range(12):
        place = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)).save(
            place
        )
    places = [
        f"data.root={tmp_path / 'photos'}",
        f"run.root={tmp_path / 'runs'}",
        f"generator.model={model}",
    ]
    run = prepare(preset_config(preset, *places))
    assert run.samples.table.num_rows == 12


@pytest.mark.parametrize(
    ("name", "tag", "kind"),
    [
        ("ViT-B-32", "openai", "QuickGELU"),
        ("ViT-B/32", "openai", "QuickGELU"),
        ("ViT-B-32-quickgelu", "openai", "QuickGELU"),
        ("ViT-B-32", "laion400m_e32", "QuickGELU"),
        ("ViT-B-16", "dfn2b", "QuickGELU"),
        ("ViT-L-14", "metaclip_fullcc", "QuickGELU"),
        ("ViT-B-32", "laion2b_s34b_b79k", "GELU"),
        ("ViT-B-16", "laion400m_e32", "GELU"),
        ("ViT-L-14", "datacomp_xl_s13b_b90k", "GELU"),
    ],
)
def test_both_towers_have_the_activation_the_weights_were_trained_with(
    monkeypatch, tmp_path, name, tag, kind
):
    from discl_ray.models.clip import load

    monkeypatch.setattr(
        open_clip.factory, "download_pretrained", lambda *_, **__: str(tmp_path / "w.safetensors")
    )
    monkeypatch.setattr(open_clip.factory, "load_checkpoint", lambda *_, **__: None)
    with META:
        model, _, _ = load(name, tag, META)
    for tower in (model.visual.transformer, model.transformer):
        assert type(tower.resblocks[0].mlp.gelu).__name__ == kind


@pytest.mark.slow
def test_the_presets_cosines_are_those_of_transformers(clip_file, monkeypatch):
    from transformers import CLIPConfig, CLIPModel

    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(clip_file))
    first, *others = (preset_config(preset).scorer for preset in PRESETS)
    assert others == [first] * 2
    scorer = ClipScorer(first.model_copy(update={"num_gpus": 0.0}))
    texts = ["a photo of a dog", "a photo of a red fox in the snow, at night", ""]
    images = [np.random.default_rng(i).integers(0, 256, (224, 224, 3), np.uint8) for i in range(3)]
    ours = scorer.embed_texts(texts) @ scorer.embed_images(images).T
    with torch.no_grad():
        state = as_transformers_names(load_file(clip_file))
        theirs, info = CLIPModel.from_pretrained(
            None, config=CLIPConfig(), state_dict=state, output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert (
            theirs.config.text_config.hidden_act
            == theirs.config.vision_config.hidden_act
            == "quick_gelu"
        )
        said = theirs(input_ids=scorer.tokenizer(texts), pixel_values=scorer.pixels(images))
    cosines = (said.text_embeds @ said.image_embeds.T).numpy()
    assert np.abs(ours - cosines).max() <= 1e-5
    assert np.ptp(cosines) > 1e-3


def as_transformers_names(state):
    """open_clip's names for the towers -> transformers'."""
    state = {name: value.float() for name, value in state.items()}
    out = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].T,
        "visual_projection.weight": state["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    inner = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    inner["attn.out_proj"] = "self_attn.out_proj"
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if module in norms:
            out[f"{norms[module]}.{kind}"] = value
        if ".resblocks." not in f".{module}":
            continue
        tower = "vision_model" if module.startswith("visual.") else "text_model"
        number, _, layer = module.partition("resblocks.")[2].partition(".")
        place = f"{tower}.encoder.layers.{number}"
        if layer in inner:
            out[f"{place}.{inner[layer]}.{kind}"] = value
        else:  # attn.in_proj_weight and _bias hold query, key and value
            parts = zip("qkv", value.chunk(3), strict=True)
            out |= {
                f"{place}.self_attn.{which}_proj.{kind.removeprefix('in_proj_')}": part
                for which, part in parts
            }
    return out


def test_the_embedded_clips_need_not_be_looked_at_again_and_are_in_order():
    """If this fails because they were made anew, their outlines are to be put into CHECKED."""
    for folder in (SCORER, STUDENT):
        assert outline({file.name: file for file in sorted(folder.iterdir())}) in CHECKED
        check_clip(f"local-dir:{folder}", None, "scorer")
    check_student("embedded")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.", "clip."])
def test_a_foreign_prefix_is_named(folder, prefix):
    rewrite(folder, lambda state: {prefix + name: value for name, value in state.items()})
    said = refusal(model=str(folder))
    assert "153 of 153 weights are missing" in said
    assert f"prefix '{prefix}'" in said
    with pytest.raises(ModelError, match=r"train\.clip = .*weights are missing"):
        check_student(str(folder))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {k: v.half() for k, v in s.items()},
        lambda s: {k: v.reshape(1) if k == "logit_scale" else v for k, v in s.items()},
    ],
)
def test_what_open_clip_mends_is_harmless(folder, change):
    rewrite(folder, change)
    check_scorer(ScorerConfig(model=str(folder)))
    ours, plain = (
        ClipScorer(ScorerConfig(model=str(f))).embed_texts(["the digit two"])
        for f in (folder, SCORER)
    )
    np.testing.assert_allclose(ours, plain, atol=5e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: {k: v for k, v in s.items() if k != "logit_scale"},
            "1 of 153 weights are missing (logit_scale)",
        ),
        (lambda s: {**s, "ema.x": torch.zeros(2)}, "1 are not the model's (ema.x)"),
        (
            lambda s: {**s, "text_projection": torch.zeros(3, 3)},
            "text_projection is [3, 3], not [64, 64]",
        ),
        (
            lambda s: {k: v.to(torch.int8) if v.ndim == 2 else v for k, v in s.items()},
            "hold integers",
        ),
    ],
)
def test_weights_of_another_kind_are_refused(folder, change, words):
    rewrite(folder, change)
    assert words in refusal(model=str(folder))


def test_positions_are_not_stretched_in_silence(folder):
    edit(folder, "text_cfg", context_length=20)
    assert "positional_embedding is [16, 64], not [20, 64]" in refusal(model=str(folder))


def test_a_tokenizer_of_another_model_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    assert "its tokenizer does not fit its text tower" in refusal(model=str(folder))


@pytest.mark.parametrize(
    "text", ["nope", "[]", '{"embed_dim": 3}', '{"model_cfg": {"text_cfg": 3, "vision_cfg": {}}}']
)
def test_a_config_that_is_none_is_named(folder, text):
    (folder / "open_clip_config.json").write_text(text)
    assert str(folder) in refusal(model=str(folder))


def test_an_unknown_name_or_tag_is_told_the_known_ones():
    assert "near are ViT-B-32" in refusal(model="ViT-B-23", pretrained="openai")
    assert "laion2b_s34b_b79k" in refusal(model="ViT-B-32", pretrained="opennai")
    assert "open_clip's tags for it are openai" in refusal(model="ViT-B-32")


def test_weights_that_cannot_be_downloaded_are_told_where_they_are():
    said = refusal(model="ViT-L-14", pretrained="openai")  # the tests' hub is offline
    assert "hf download timm/vit_large_patch14_clip_224.openai" in said
    assert said.endswith("set scorer.model=/path/to/folder scorer.pretrained=null")


def test_a_long_reason_is_cut_after_a_word_and_said_once(capsys, caplog):
    said = refusal(model="ViT-L-14", pretrained="openai")
    reason = said.partition("; on a connected machine")[0]
    assert reason.endswith("…")
    with pytest.raises(RuntimeError) as caught:
        load("ViT-L-14", "openai", "cpu")
    last = reason.removesuffix("…").split()[-1]
    assert last in str(caught.value).split()
    assert not caplog.records
    assert not capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_when_they_are_loaded(folder, value):
    def change(state):
        state["text_projection"][0, 0] = value
        return state

    rewrite(folder, change)
    with pytest.raises(
        ModelError, match=r"1 of \d+ weights hold NaN or infinity \(text_projection\)"
    ):
        ClipScorer(ScorerConfig(model=str(folder)))


def test_weights_beside_a_folder_are_said_not_to_be_used(folder):
    for model in (str(folder), "embedded"):
        (said,) = scorer_warnings(ScorerConfig(model=model, pretrained="openai"))
        assert f"scorer.pretrained = openai is not used: scorer.model = {model} " in said
        assert not scorer_warnings(ScorerConfig(model=model))


def test_a_file_says_nothing_of_its_activation_unless_a_config_lies_beside_it(folder, tmp_path):
    file = tmp_path / "some.safetensors"
    shutil.copy(folder / WEIGHTS, file)
    for name, says in (("ViT-B-32", "takes GELU"), ("ViT-B-32-quickgelu", "takes QuickGELU")):
        (said,) = scorer_warnings(ScorerConfig(model=name, pretrained=str(file)))
        assert says in said
    assert not scorer_warnings(ScorerConfig(model="EVA02-B-16", pretrained=str(file)))
    assert not scorer_warnings(ScorerConfig())
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    said = refusal(model="ViT-B-32", pretrained=str(folder / WEIGHTS))
    assert "says quick_gelu = true" in said
    assert f"scorer.model={folder}" in said
