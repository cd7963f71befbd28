"""Tables speak of the data they are about."""

import pytest

from discl_ray.data import READERS
from discl_ray.data.notes import EMBEDDED, NOTES, notes_on


@pytest.mark.parametrize("name", READERS)
def test_only_the_embedded_tasks_speak_of_digits_and_writers(name: str) -> None:
    found = notes_on(name)
    said = f"{found.caveat} {found.redrawn}".lower()
    embedded = name in NOTES
    assert embedded is name.startswith("digits")
    assert (found.caveat == EMBEDDED) is embedded
    for word in ("digit", "writer", "typeface"):
        assert embedded or word not in said
    assert "a seed redraws" in found.redrawn
    assert "generation noise" in found.redrawn
