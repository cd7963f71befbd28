"""A folder of ours is mended by a command, another tool's by that tool."""

import pytest

from discl_ray.core.storage import Store
from discl_ray.spectrum.remedies import (
    OWN_FILES,
    again,
    find_damage,
    images_again,
    is_of_another_tool,
    remake,
)


def test_only_a_folder_with_images_and_nothing_of_ours_is_of_another_tool(tmp_path):
    run = Store.at(tmp_path)
    assert not is_of_another_tool(run)
    run.write("spectrum/a.parquet", b"")
    assert is_of_another_tool(run)
    run.write("commits/a.json", b"{}")
    assert not is_of_another_tool(run)


@pytest.mark.parametrize("name", sorted(OWN_FILES))
def test_one_file_of_ours_is_enough(tmp_path, name):
    run = Store.at(tmp_path)
    run.write("spectrum/a.parquet", b"")
    run.write(name, b"")
    assert not is_of_another_tool(run)


def test_the_remedy_is_a_command_for_ours_and_none_for_theirs(tmp_path):
    ours, theirs = Store.at(tmp_path / "generate-0"), Store.at(tmp_path / "theirs")
    ours.write("config.yaml", b"")
    theirs.write("spectrum/a.parquet", b"")
    assert "generate" in remake(ours)
    assert ours.path("config.yaml") in remake(ours)
    assert again(ours).endswith(", which makes it again")
    assert images_again(ours).endswith(", which makes its images again")
    assert remake(theirs) == again(theirs) == images_again(theirs)
    assert "the tool that wrote it" in remake(theirs)
    assert "generate" not in remake(theirs)


def test_a_copy_is_mended_where_it_lies(tmp_path, monkeypatch):
    """Its recorded configuration names the root and the run it was copied from."""
    monkeypatch.setattr("sys.argv", ["jobs/train.py", f"spectrum.path={tmp_path}"])
    copied = Store.at(tmp_path / "my runs" / "digits" / "generate-00000000")
    copied.write("config.yaml", b"run: {root: elsewhere, name: other}")
    place = f"'run.root={tmp_path}/my runs' run.name=digits"
    assert remake(copied).endswith(f"--config '{copied.path('config.yaml')}' {place}`")
    assert f"verify.py 'spectrum.path={copied.base}'`" in find_damage(copied)
    renamed = Store.at(tmp_path / "mine")
    renamed.write("config.yaml", b"")
    assert remake(renamed) == "copy it again, under the name that generate gave it"


def test_nothing_is_listed_for_a_remedy_unless_something_fails(tmp_path):
    run = Store.at(tmp_path)
    run.write_json("sound.json", {})
    asked = []

    def remedy() -> str:
        asked.append(1)
        return "do this"

    assert run.read_json("sound.json", remedy) == {}
    assert not asked
    with pytest.raises(Exception, match=r"gone\.json: is gone; do this"):
        run.read_json("gone.json", remedy)
    assert asked
