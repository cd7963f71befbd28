"""Checks of an open_clip folder, name or checkpoint, without loading it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from discl_ray.core.apart import check_apart
from discl_ray.core.ids import file_hash, stable_id
from discl_ray.core.weights import outline, read_header, read_json
from discl_ray.embedded import SCORER
from discl_ray.errors import ModelError
from discl_ray.score.config import ScorerConfig

FIRST = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""What open_clip loads from a folder before it looks for pickled weights."""

QUICKGELU = "-quickgelu"
"""Ends the name of a definition with that activation."""

CHECKED = {"19f4dabd20bb3986e09986578aeb7fb5", "0c7e3dfa5e3f825d4051c5cf48b1dd62"}
"""Outlines of models that passed: the embedded CLIPs, and what this process checked."""

QUICK = {
    "RN50": ("openai", "yfcc15m", "cc12m"),
    "RN101": ("openai", "yfcc15m"),
    "RN50x4": ("openai",),
    "RN50x16": ("openai",),
    "RN50x64": ("openai",),
    "ViT-B-32": ("openai", "laion400m_e31", "laion400m_e32", "metaclip_400m", "metaclip_fullcc"),
    "ViT-B-16": ("openai", "dfn2b", "metaclip_400m", "metaclip_fullcc"),
    "ViT-L-14": ("openai", "dfn2b", "metaclip_400m", "metaclip_fullcc"),
    "ViT-L-14-336": ("openai",),
    "ViT-H-14": ("metaclip_fullcc", "dfn5b"),
    "ViT-H-14-378": ("dfn5b",),
    "ViT-bigG-14": ("metaclip_fullcc",),
    "ViT-H-14-worldwide": ("metaclip2_worldwide",),
}
"""Definitions with GELU -> tags whose weights open_clip 3.3 says were trained with QuickGELU.

Scores with the wrong activation, by earlier versions, are others and have another fingerprint.
"""

LOCAL = "local-dir:"
"""open_clip's prefix of a folder."""


def open_clip_name(config: ScorerConfig) -> str:
    """What open_clip calls the configured model.

    Raises ModelError for a folder without an open_clip config or without safetensors, and for a
    checkpoint that is not there or of another kind.
    """
    folder = SCORER if config.model == "embedded" else Path(config.model)
    if folder.is_dir():
        _check_folder(folder)
        return f"{LOCAL}{folder}"
    if config.model.startswith((".", "/", "~")):
        raise ModelError(f"scorer.model = '{config.model}': no such folder")
    _check_checkpoint(config.pretrained)
    return config.model


def _check_folder(folder: Path) -> None:
    """Raises ModelError unless open_clip would load safetensors from this folder."""
    if not (folder / "open_clip_config.json").is_file():
        raise ModelError(f"{folder}: no open_clip_config.json; an open_clip folder has one")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: no *.safetensors file; pickled weights are not loaded, convert them first"
        )
    pickles = [*folder.glob("*.bin"), *folder.glob("*.pth")]
    loaded_first = any((folder / name).is_file() for name in FIRST)
    if pickles and not loaded_first:
        names = sorted(path.name for path in pickles)
        raise ModelError(
            f"{folder}: open_clip might load {names[0]}, which is pickled; remove it or name the "
            f"weights {FIRST[0]}"
        )


def _weights_file(config: ScorerConfig) -> Path | None:
    """The file that `scorer.pretrained` names; None if it is a tag or nothing."""
    file = Path(config.pretrained) if config.pretrained else None
    return file if file and file.is_file() else None


def check_scorer(config: ScorerConfig) -> None:
    """Raises ModelError unless the configured model is available, complete and consistent.

    Loads nothing; downloads what a tag names if it is not on this machine.
    """
    name = open_clip_name(config)
    file = _weights_file(config)
    local = name.startswith(LOCAL)
    if local:
        folder = Path(name.removeprefix(LOCAL))
        read_json(folder / "open_clip_config.json")
        for weights in folder.glob("*.safetensors"):
            read_header(weights)
    elif file is not None:
        read_header(file)
        _check_activation(config.model, file)
    found = outline(_files(config, name))
    checked = found if local else stable_id(name, config.pretrained, found)
    if checked in CHECKED:
        return
    where = f"scorer.model = '{config.model}'"
    if config.pretrained:
        where += f", pretrained = {config.pretrained}"
    check_apart("discl_ray.models.clip:check_clip", name, config.pretrained, where)
    CHECKED.add(checked)


def scorer_warnings(config: ScorerConfig) -> list[str]:
    """What is allowed but may not be intended, in sentences."""
    if config.model == "embedded" or Path(config.model).is_dir():
        return [_unused(config)] if config.pretrained else []
    name = definition(config.model)
    base = name.removesuffix(QUICKGELU)
    file = _weights_file(config)
    if file is None or base not in QUICK:
        return []
    if (file.parent / "open_clip_config.json").is_file():
        return []  # it says which activation, and is checked against
    if name.endswith(QUICKGELU):
        activation, other = "QuickGELU, as OpenAI and MetaCLIP did", base
    else:
        activation, other = "GELU, as LAION and DataComp did", name + QUICKGELU
    return [
        "scorer.pretrained is a file, which does not say what it was trained with; "
        f"scorer.model = {config.model} takes {activation}; else set scorer.model={other}"
    ]


def _unused(config: ScorerConfig) -> str:
    what = "the CLIP for digits" if config.model == "embedded" else "a folder"
    return (
        f"scorer.pretrained = {config.pretrained} is not used: scorer.model = {config.model} is "
        f"{what}, with weights of its own"
    )


def definition(model: str) -> str:
    """What open_clip calls a name: `ViT-B/32` is ViT-B-32 there."""
    return model.replace("/", "-")


def scorer_fingerprint(config: ScorerConfig) -> str:
    """Hash of all that decides a score: the weights if they are here, else their name.

    Raises ModelError like `open_clip_name`.
    """
    name = open_clip_name(config)
    files = _files(config, name)
    contents = {name_of_file: file_hash(file) for name_of_file, file in files.items()}
    version = importlib.metadata.version("open_clip_torch")
    tag = (config.pretrained or "").lower().replace("-", "_")
    if tag in QUICK.get(definition(name), ()):
        name += QUICKGELU
    return stable_id(contents or [name, config.pretrained], version)


def _files(config: ScorerConfig, name: str) -> dict[str, Path]:
    """The local files that decide a score."""
    files: list[Path] = []
    if name.startswith(LOCAL):
        files += sorted(Path(name.removeprefix(LOCAL)).iterdir())
    file = _weights_file(config)
    if file is not None:
        files.append(file)
    return {file.name: file for file in files if file.is_file()}


def _check_activation(model: str, file: Path) -> None:
    """Raises ModelError if an open_clip_config.json beside a file names another activation."""
    beside = file.parent / "open_clip_config.json"
    if not beside.is_file():
        return
    settings = read_json(beside).get("model_cfg", {})
    quick = bool(settings.get("quick_gelu", False))
    name = definition(model)
    base = name.removesuffix(QUICKGELU)
    # a definition that open_clip has with one activation only says nothing by its name
    if base in QUICK and quick != name.endswith(QUICKGELU):
        raise ModelError(
            f"scorer.pretrained = '{file}': {beside.name} beside it says quick_gelu = "
            f"{str(quick).lower()}, and scorer.model = '{model}' is another activation; set "
            f"scorer.model={file.parent}, which has both"
        )


def _check_checkpoint(pretrained: str | None) -> None:
    """Raises ModelError for what is neither a tag of open_clip nor a *.safetensors file."""
    if pretrained is None:
        return
    path = Path(pretrained)
    is_tag = path.name == pretrained and not path.suffix and not path.is_file()
    if is_tag:
        return
    if path.suffix != ".safetensors":
        raise ModelError(
            f"scorer.pretrained = '{pretrained}': neither a tag of open_clip nor a *.safetensors "
            "file; pickled weights are not loaded, convert them first"
        )
    if not path.is_file():
        raise ModelError(f"scorer.pretrained = '{pretrained}': no such file")
