"""What a spectrum was made with is recorded; other versions here are one sentence."""

from discl_ray.core.storage import Store
from discl_ray.spectrum.made_with import (
    FILE,
    LIBRARIES,
    MadeWith,
    installed,
    other_versions,
    read_made_with,
    write_made_with,
)


def test_what_was_recorded_is_read(tmp_path):
    made = MadeWith(generator="g" * 64, scorer="s" * 64, versions=installed())
    assert "torch" in made.versions
    assert set(made.versions) <= set(LIBRARIES)
    run = Store.at(tmp_path)
    assert read_made_with(run) is None
    write_made_with(run, made)
    assert read_made_with(run) == made
    run.write(FILE, b"{")  # nothing depends on it
    assert read_made_with(run) is None


def test_only_other_versions_are_named():
    here = installed()
    same = MadeWith(generator="g", scorer="s", versions=here)
    assert other_versions(None) == other_versions(same) == ""
    other = MadeWith(generator="g", scorer="s", versions={**here, "torch": "0.1", "gone": "2"})
    words = other_versions(other)
    assert f"torch 0.1 (here {here['torch']})" in words
    assert "gone 2 (here none)" in words
    assert "pillow" not in words
