"""What WordNet ids are called: `n01440764` is a tench.

The words come with timm, which open_clip depends on; nothing is downloaded.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

SUBSET = "imagenet22k"
"""The largest of timm's lists of WordNet ids."""


def wordnet_names(ids: Sequence[str]) -> dict[str, str]:
    """WordNet id -> name, all of them different; unknown ids are left out.

    A name is the first lemma. Where several of the ids share it (a crane is a bird and a machine),
    each has another lemma or the beginning of its definition in brackets, whichever only it has. So
    what an id is called depends on which others are given.
    """
    options = _name_options(ids)
    alike: dict[str, list[str]] = defaultdict(list)
    for wordnet_id, (lemma, *_) in options.items():
        alike[lemma.casefold()].append(wordnet_id)
    names: dict[str, str] = {}
    for group in alike.values():
        names |= _different({wordnet_id: options[wordnet_id] for wordnet_id in group})
    return {wordnet_id: names[wordnet_id] for wordnet_id in ids if wordnet_id in names}


def _name_options(ids: Sequence[str]) -> dict[str, list[str]]:
    """The names that each known id may have, the best first; the last holds the id itself."""
    from timm.data.imagenet_info import ImageNetInfo  # imports torch, which takes seconds

    info = ImageNetInfo(SUBSET)
    options: dict[str, list[str]] = {}
    for wordnet_id in ids:
        try:
            description = info.label_name_to_description(wordnet_id)
            detailed = info.label_name_to_description(wordnet_id, detailed=True)
        except KeyError:
            continue
        lemmas = [word.strip() for word in description.split(",")]
        definition = detailed.removeprefix(f"{description}: ")
        gloss = definition.split(";")[0].strip()
        first = lemmas[0]
        words = [word for word in (*lemmas[1:], gloss, wordnet_id) if word]
        longer = [f"{first} ({word})" for word in words]
        options[wordnet_id] = [first, *longer]
    return options


def _different(options: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The first of each id's options that no other id has."""
    counts: Counter[str] = Counter()
    for names in options.values():
        counts.update(name.casefold() for name in set(names))
    chosen: dict[str, str] = {}
    for wordnet_id, names in options.items():
        own = (name for name in names if counts[name.casefold()] == 1)
        chosen[wordnet_id] = next(own)
    return chosen
