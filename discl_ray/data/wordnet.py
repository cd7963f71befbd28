"""What WordNet ids are called: `n01440764` is a tench. The words come with timm, which open_clip brings; nothing is downloaded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

SUBSET = "imagenet22k"
"""The largest of timm's lists of WordNet ids."""


def wordnet_names(ids: Sequence[str]) -> dict[str, str]:
    """WordNet id -> name, no two of them alike, for the ids that are known; the others are left out.

    A name is the first lemma. Where several of the ids share it (a crane is a bird and a machine), each has another lemma or the
    beginning of its definition in brackets, whichever only it has. What an id is called depends on which others are given.
    """
    from timm.data.imagenet_info import ImageNetInfo  # brings torch, which takes seconds

    info = ImageNetInfo(SUBSET)
    alike: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for wordnet_id in dict.fromkeys(ids):
        try:
            lemmas = info.label_name_to_description(wordnet_id)
            detailed = info.label_name_to_description(wordnet_id, detailed=True)
        except KeyError:
            continue
        first, *others = [lemma.strip() for lemma in lemmas.split(",")]
        gloss = detailed.removeprefix(f"{lemmas}: ").split(";")[0].strip()
        options = [f"{first} ({word})" for word in (*others, gloss, wordnet_id) if word]
        alike[first.casefold()].append((wordnet_id, [first, *options]))
    names = dict(pair for group in alike.values() for pair in _apart(group))
    return {wordnet_id: names[wordnet_id] for wordnet_id in ids if wordnet_id in names}


def _apart(group: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, str]]:
    """The first of each id's options that no other id has; the last one holds the id itself."""
    known_as = Counter(option.casefold() for _, options in group for option in set(options))
    return [
        (wordnet_id, next(option for option in options if known_as[option.casefold()] == 1))
        for wordnet_id, options in group
    ]
