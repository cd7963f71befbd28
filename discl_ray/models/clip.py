"""open_clip's models: loaded with the activation they were trained with, or only checked.

open_clip has a table of definitions and one of tags: `ViT-B-32` is built with GELU, and OpenAI's
weights for it were trained with QuickGELU, which only their tag says. For a file, the name has to
say it (`ViT-B-32-quickgelu`), for a folder its config does.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, cast

import open_clip
import torch
from open_clip import factory
from safetensors import SafetensorError
from torch import Tensor, nn

from discl_ray.core.weights import Weight, compare, read_header, vocabulary_fits
from discl_ray.errors import ModelError
from discl_ray.models.finite import check_finite

LOCAL, HUB = "local-dir:", "hf-hub:"
"""open_clip's prefixes of a folder and of a hub id; anything else is a definition's name."""

REFUSED = (
    RuntimeError,
    ValueError,
    OSError,
    SafetensorError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""What open_clip raises for a model it cannot load."""

META = torch.device("meta")
"""The device on which tensors have a shape and a type only."""


def trained_with_quick_gelu(name: str, pretrained: str | None) -> bool:
    """Whether open_clip's table of tags says so; it does not know files and folders."""
    return bool(_tag(name, pretrained).get("quick_gelu", False))


def _tag(name: str, pretrained: str | None) -> dict[str, Any]:
    """open_clip's entry of a definition's tag; empty if it has none."""
    return open_clip.get_pretrained_cfg(name.replace("/", "-"), pretrained or "")


class Loaded(NamedTuple):
    """A model with all its weights, and how its inputs are prepared."""

    model: nn.Module
    transform: Any
    """A Pillow image -> float32 (3, S, S)."""
    tokenizer: Any
    """A list of texts -> tokens, int64 (texts, length)."""


def load(name: str, pretrained: str | None, device: torch.device | str) -> Loaded:
    """A model by open_clip's name for it, or from a checkpoint.

    Raises what open_clip raises, see REFUSED, and ValueError for weights that are not finite.
    """
    with _without(logging.ERROR):
        model, _, transform = open_clip.create_model_and_transforms(
            name,
            pretrained=pretrained,
            device=device,
            force_quick_gelu=trained_with_quick_gelu(name, pretrained),
            require_pretrained=True,
        )
    check_finite(model)
    tokenizer = open_clip.get_tokenizer(name)
    return Loaded(model, transform, tokenizer)


def check_clip(name: str, pretrained: str | None, where: str) -> None:
    """Raises ModelError unless the weights are those the definition asks for, by name and shape,
    and the tokenizer fits.

    Nothing is computed: the model is built on the meta device. What a tag names is downloaded if it
    is not here yet.
    """
    _check_name(name, pretrained, where)
    try:
        with META, _without(logging.WARNING, logging.ERROR):
            model = open_clip.create_model(
                name,
                pretrained=pretrained,
                device=META,
                load_weights=False,
                pretrained_text=False,
                force_quick_gelu=trained_with_quick_gelu(name, pretrained),
            ).eval()
        file = _file_of(name, pretrained)
        taken = _as_taken(model, file) if file.suffix == ".safetensors" else None
    except REFUSED as error:
        remedy = _offline(name, pretrained)
        raise ModelError(f"{where}: {_line(error)}{remedy}") from error
    if taken is not None:
        compare(where, _weights(model.state_dict()), taken)
    _check_tokenizer(name, model, where)


@contextmanager
def _without(*levels: int) -> Iterator[None]:
    """Hides what open_clip logs at some levels: errors, which it raises as well, and the warning
    that a model has no weights where it is meant to have none.
    """

    def shown(record: logging.LogRecord) -> bool:
        return record.levelno not in levels

    root = logging.getLogger()  # open_clip has no logger of its own
    root.addFilter(shown)
    try:
        yield
    finally:
        root.removeFilter(shown)


def _check_name(name: str, pretrained: str | None, where: str) -> None:
    """Raises ModelError for a definition or a tag that open_clip does not have."""
    if name.startswith((LOCAL, HUB)):
        return
    definition = name.replace("/", "-")
    if open_clip.get_model_config(definition) is None:
        near = get_close_matches(definition, open_clip.list_models(), 3, 0.3)
        raise ModelError(
            f"{where}: no such folder, and open_clip has no such model; near are {', '.join(near)}"
        )
    tag = open_clip.get_pretrained_cfg(definition, pretrained or "")
    if not tag and not Path(pretrained or "").is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(definition)) or "none"
        raise ModelError(
            f"{where}: no such weights; open_clip's tags for it are {tags}, and a *.safetensors "
            "file can be given"
        )


def _file_of(name: str, pretrained: str | None) -> Path:
    """Where open_clip takes the weights from; downloaded if need be."""
    if name.startswith(LOCAL):
        found = factory._find_checkpoint_in_dir(Path(name.removeprefix(LOCAL)))
    elif name.startswith(HUB):
        found = factory.download_pretrained_from_hf(name.removeprefix(HUB))
    elif tag := _tag(name, pretrained):
        found = open_clip.download_pretrained(tag)
    else:
        found = pretrained
    if not found:
        raise ValueError("no weights are there")
    return Path(found)


def _offline(name: str, pretrained: str | None) -> str:
    """How to get a tag's weights onto a machine that cannot download them."""
    repository = _tag(name, pretrained).get("hf_hub", "").strip("/")
    if not repository:
        return ""
    return (
        f"; on a connected machine run `hf download {repository}`, copy the folder, and set "
        "scorer.model=/path/to/folder scorer.pretrained=null"
    )


def _weights(tensors: Mapping[str, Tensor]) -> dict[str, Weight]:
    """Name -> shape and kind."""
    weights: dict[str, Weight] = {}
    for name, tensor in tensors.items():
        weights[name] = Weight(tuple(tensor.shape), tensor.is_floating_point())
    return weights


class _Recorder:
    """A model that records what it is given to load, and loads nothing."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.given: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def load_state_dict(self, tensors: Mapping[str, Tensor], strict: bool = True) -> None:
        """Records them."""
        self.given = dict(tensors)


def _as_taken(model: nn.Module, file: Path) -> dict[str, Weight]:
    """Name -> weight as the model gets them, after open_clip's renaming and conversion.

    The file is mapped into memory, and hardly a tensor of it is read.
    """
    header = read_header(file)
    # a parallel wrapper's prefix, which open_clip removes
    if next(iter(header), "").startswith("module"):
        header = {name[7:]: weight for name, weight in header.items()}
    recorder = _Recorder(model)
    open_clip.load_checkpoint(cast(Any, recorder), str(file))
    taken = _weights(recorder.given)
    return taken | _positions(header, taken)


def _positions(header: Mapping[str, Weight], taken: Mapping[str, Weight]) -> dict[str, Weight]:
    """Position embeddings as in the file: open_clip would interpolate them to another size."""
    positions: dict[str, Weight] = {}
    for name in (
        "visual.positional_embedding",
        "positional_embedding",
        "text.positional_embedding",
    ):
        stored = name.removeprefix("text.")
        if name in taken and stored in header:
            positions[name] = header[stored]
    return positions


def _check_tokenizer(name: str, model: nn.Module, where: str) -> None:
    """Checks that the tokenizer fits, and that a prompt and an image pass through both towers.

    Only a folder's vocabulary is checked: a name's tokenizer is open_clip's own choice.
    """
    try:
        tokenizer = cast(Any, open_clip.get_tokenizer(name))
        tokens: Tensor = tokenizer(["a photo of a dog"])
        words = _words(tokenizer)
        vectors = _vectors(model)
    except (*REFUSED, ImportError) as error:
        raise ModelError(f"{where}: no tokenizer can be made for it ({_line(error)})") from error
    if name.startswith(LOCAL) and not vocabulary_fits(words, vectors):
        raise ModelError(
            f"{where}: its tokenizer does not fit its text tower ({words} tokens, vectors for "
            f"{vectors}); copy both from one model"
        )
    clip = cast(Any, model)
    sides = clip.visual.preprocess_cfg["size"]
    height, width = (sides, sides) if isinstance(sides, int) else sides
    try:
        clip.encode_text(tokens.to(META))
        clip.encode_image(torch.zeros(1, 3, height, width, device=META))
    except Exception as error:  # the actor would raise the same
        raise ModelError(
            f"{where}: its tokenizer, towers and image size do not fit together ({_line(error)})"
        ) from error


def _words(tokenizer: Any) -> int:
    """Tokens of the vocabulary."""
    inner = getattr(tokenizer, "tokenizer", None)
    return len(inner) if inner is not None else tokenizer.vocab_size


def _vectors(model: Any) -> int:
    """Tokens the text tower has a vector for."""
    text = getattr(model, "text", model)
    table = getattr(text, "token_embedding", None)
    return (table or text.transformer.get_input_embeddings()).num_embeddings


def _line(error: BaseException) -> str:
    """An error on one line, cut after a word."""
    cut = textwrap.shorten(str(error), 300, placeholder="…")
    return cut.rstrip(".") or type(error).__name__
