"""An open_clip folder, name or checkpoint, checked without loading it."""

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
"""What open_clip takes from a folder before it looks at pickled weights."""

QUICKGELU = "-quickgelu"
"""Ends the name of a definition with that activation."""

CHECKED = {"19f4dabd20bb3986e09986578aeb7fb5", "0c7e3dfa5e3f825d4051c5cf48b1dd62"}
"""What was found in order: outlines of the embedded CLIPs, when they were committed, and this process's folders, files and tags."""

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
"""Definitions with GELU -> the tags whose weights open_clip 3.3 says were trained with QuickGELU. Scores made before that was heeded
are others, and go by another fingerprint."""


def open_clip_name(config: ScorerConfig) -> str:
    """What open_clip calls the configured model.

    Raises ModelError for a folder without an open_clip config or without safetensors, and for a checkpoint that is not there or
    of another kind.
    """
    folder = SCORER if config.model == "embedded" else Path(config.model)
    if not folder.is_dir():
        if config.model.startswith((".", "/", "~")):
            raise ModelError(f"scorer.model = '{config.model}': no such folder")
        _check_checkpoint(config.pretrained)
        return config.model
    if not (folder / "open_clip_config.json").is_file():
        raise ModelError(f"{folder}: no open_clip_config.json; an open_clip folder has one")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder}: no *.safetensors file; pickled weights are not loaded, convert them first"
        )
    pickles = sorted(path.name for kind in ("*.bin", "*.pth") for path in folder.glob(kind))
    if pickles and not any((folder / name).is_file() for name in FIRST):
        raise ModelError(
            f"{folder}: open_clip might load {pickles[0]}, which is pickled; remove it or name the weights {FIRST[0]}"
        )
    return f"local-dir:{folder}"


def check_scorer(config: ScorerConfig) -> None:
    """Raises ModelError unless the configured model is there and complete, and its weights are its own; loads nothing.

    What a tag names is downloaded if it is not on this machine yet.
    """
    name = open_clip_name(config)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        read_json(folder / "open_clip_config.json")
        for file in folder.glob("*.safetensors"):
            read_header(file)
    elif config.pretrained and Path(config.pretrained).is_file():
        read_header(Path(config.pretrained))
        _check_activation(config.model, Path(config.pretrained))
    files = _files(config, name)
    known = (
        outline(files)
        if name.startswith("local-dir:")
        else stable_id(name, config.pretrained, outline(files))
    )
    if known in CHECKED:
        return
    where = f"scorer.model = '{config.model}'" + (
        f", pretrained = {config.pretrained}" if config.pretrained else ""
    )
    check_apart("discl_ray.models.clip:check_clip", name, config.pretrained, where)
    CHECKED.add(known)


def scorer_warnings(config: ScorerConfig) -> list[str]:
    """What is allowed but worth knowing."""
    name, file = definition(config.model), Path(config.pretrained or "")
    if config.model == "embedded" or Path(config.model).is_dir():
        what = "the CLIP for digits" if config.model == "embedded" else "a folder"
        own = f"scorer.model = {config.model} is {what}, with weights of its own"
        return (
            [f"scorer.pretrained = {config.pretrained} is not used: {own}"]
            if config.pretrained
            else []
        )
    if not file.is_file() or name.removesuffix(QUICKGELU) not in QUICK:
        return []
    if (file.parent / "open_clip_config.json").is_file():
        return []
    quick = name.endswith(QUICKGELU)
    other = name.removesuffix(QUICKGELU) if quick else name + QUICKGELU
    return [
        f"scorer.pretrained is a file, which does not say what it was trained with; scorer.model = {config.model} takes "
        f"{'QuickGELU, as OpenAI and MetaCLIP did' if quick else 'GELU, as LAION and DataComp did'}; else set scorer.model={other}"
    ]


def definition(model: str) -> str:
    """What open_clip calls a name: `ViT-B/32` is ViT-B-32 there."""
    return model.replace("/", "-")


def scorer_fingerprint(config: ScorerConfig) -> str:
    """Everything that decides a score: the weights if they are here, else the name they are loaded under.

    Raises ModelError like `open_clip_name`.
    """
    name = open_clip_name(config)
    contents = {file.name: file_hash(file) for file in _files(config, name).values()}
    version = importlib.metadata.version("open_clip_torch")
    tag = (config.pretrained or "").lower().replace("-", "_")
    if tag in QUICK.get(definition(name), ()):
        name += QUICKGELU
    return stable_id(contents or [name, config.pretrained], version)


def _files(config: ScorerConfig, name: str) -> dict[str, Path]:
    """The files here that decide a score."""
    files = (
        sorted(Path(name.removeprefix("local-dir:")).iterdir())
        if name.startswith("local-dir:")
        else []
    )
    files += (
        [Path(config.pretrained)] if config.pretrained and Path(config.pretrained).is_file() else []
    )
    return {file.name: file for file in files if file.is_file()}


def _check_activation(model: str, file: Path) -> None:
    """A file beside an open_clip_config.json was trained with what that says."""
    beside = file.parent / "open_clip_config.json"
    if not beside.is_file():
        return
    said = bool(read_json(beside).get("model_cfg", {}).get("quick_gelu", False))
    if (
        said != definition(model).endswith(QUICKGELU)
        and definition(model).removesuffix(QUICKGELU) in QUICK
    ):
        raise ModelError(
            f"scorer.pretrained = '{file}': {beside.name} beside it says quick_gelu = {str(said).lower()}, and scorer.model = "
            f"'{model}' is another activation; set scorer.model={file.parent}, which has both"
        )


def _check_checkpoint(pretrained: str | None) -> None:
    """Lets pass open_clip's tags, which are plain words, and *.safetensors files that are there."""
    path = Path(pretrained or "")
    if pretrained is None or (path.name == pretrained and not path.suffix and not path.is_file()):
        return
    if path.suffix != ".safetensors":
        raise ModelError(
            f"scorer.pretrained = '{pretrained}': neither a tag of open_clip nor a *.safetensors file; "
            "pickled weights are not loaded, convert them first"
        )
    if not path.is_file():
        raise ModelError(f"scorer.pretrained = '{pretrained}': no such file")
