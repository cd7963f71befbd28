"""What WordNet ids are called: `n01440764` is a tench.

The words come with timm, which open_clip depends on; nothing is downloaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

Options = Mapping[str, Sequence[str]]
"""WordNet id -> the names that it may have, the best first."""

SUBSET = "imagenet22k"
"""The largest of timm's lists of WordNet ids."""


def wordnet_names(ids: Sequence[str]) -> dict[str, str]:
    """WordNet id -> name, all of them different; unknown ids are left out.

    A name is the first lemma. Where several of the ids share it (a crane is a bird and a machine),
    each has another lemma or the beginning of its definition in brackets, whichever only it has. So
    what an id is called depends on which others are given.
    """
    options = _name_options(ids)
    names: dict[str, str] = {}
    for group in _alike(options):
        names |= _different(group)
    ordered: dict[str, str] = {}
    for wordnet_id in ids:
        if wordnet_id in names:
            ordered[wordnet_id] = names[wordnet_id]
    return ordered


def _alike(options: Options) -> Iterable[Options]:
    """The options in groups of ids whose first lemma is the same."""
    groups: dict[str, dict[str, Sequence[str]]] = {}
    for wordnet_id, names in options.items():
        lemma = names[0].casefold()
        group = groups.setdefault(lemma, {})
        group[wordnet_id] = names
    return groups.values()


def _name_options(ids: Sequence[str]) -> Options:
    """The options of each known id; the last of them holds the id itself."""
    from timm.data.imagenet_info import ImageNetInfo  # imports torch, which takes seconds

    info = ImageNetInfo(SUBSET)
    options: dict[str, list[str]] = {}
    for wordnet_id in ids:
        try:
            description = info.label_name_to_description(wordnet_id)
            detailed = info.label_name_to_description(wordnet_id, detailed=True)
        except KeyError:
            continue
        # timm puts the description before the definition: "tench, Tinca tinca: a fish; …"
        definition = detailed.removeprefix(f"{description}: ")
        lemmas = description.split(",")
        options[wordnet_id] = _options_of(wordnet_id, lemmas, definition)
    return options


def _options_of(wordnet_id: str, lemmas: Sequence[str], definition: str) -> list[str]:
    """The first lemma, and the same with another lemma, the definition or the id in brackets."""
    first, *others = lemmas
    gloss, *_ = definition.split(";")
    name = first.strip()
    options = [name]
    for words in (*others, gloss, wordnet_id):
        plain = words.strip()
        if plain:
            options.append(f"{name} ({plain})")
    return options


def _different(options: Options) -> dict[str, str]:
    """The first of each id's options that no other id has.

    There always is one: the last option holds the id.
    """
    counts: Counter[str] = Counter()
    for names in options.values():
        different = set(names)
        counts.update(name.casefold() for name in different)
    chosen: dict[str, str] = {}
    for wordnet_id, names in options.items():
        for name in names:
            if counts[name.casefold()] == 1:
                chosen[wordnet_id] = name
                break
    return chosen
