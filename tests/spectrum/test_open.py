"""A spectrum is opened by its folder alone, if it is complete and whole; anything else is named."""

import re

import pytest

from discl_ray.core.storage import Store
from discl_ray.errors import DataError, IntegrityError, SetupError
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.open import Spectrum, check_complete, read_recorded
from discl_ray.spectrum.verify import verify

pytestmark = pytest.mark.timeout(600)


def test_an_open_spectrum_says_what_training_needs(run):
    config, store = run
    spectrum = Spectrum.open(store.base)
    assert spectrum == Spectrum.open(store)
    assert not spectrum.of_another_tool
    assert spectrum.name == store.name
    assert spectrum.files == tuple(store.list("spectrum", ".parquet"))
    assert spectrum.grid == config.plan.levels
    assert spectrum.recorded is not None
    assert spectrum.recorded.plan == config.plan
    assert spectrum.classes[spectrum.split("train", ["label"])["label"][0].as_py()] == (
        spectrum.split("train", ["class_name"])["class_name"][0].as_py()
    )
    scores = spectrum.table(FilterConfig(), [])
    assert "image" not in scores.column_names
    assert scores["kept"].null_count == 0
    assert spectrum.table(FilterConfig())["image"].null_count == 0


def test_sources_are_the_real_images_that_have_a_spectrum_whoever_wrote_it(run, of_another_tool):
    ours = Spectrum.open(run[1]).sources()
    theirs = Spectrum.open(of_another_tool).sources()
    made = Spectrum.open(run[1]).table(FilterConfig(), [])["sample_id"].unique()
    assert set(ours["sample_id"].to_pylist()) == set(made.to_pylist())
    assert ours.column_names == theirs.column_names == ["sample_id", "split", "domain"]
    assert ours.sort_by("sample_id").equals(theirs.sort_by("sample_id"))


def test_a_configuration_that_cannot_be_read_is_none(run):
    config, store = run
    recorded = read_recorded(store)
    assert recorded is not None
    assert recorded.data == config.data
    for content in (b"{", b"\xff\xfe", b"plan: {replicas: many}", b"no_such_section: {}"):
        store.write("config.yaml", content)
        assert read_recorded(store) is None
    store.delete("config.yaml")
    assert read_recorded(store) is None


def test_a_damaged_manifest_is_named_and_no_complete_spectrum(run, of_another_tool):
    _, store = run
    check_complete(store)
    check_complete(of_another_tool)  # which has no manifest
    for content in (b"{", b"{}", b'{"shards": "some"}'):
        store.write("MANIFEST.json", content)
        with pytest.raises(IntegrityError, match=re.escape(store.path("MANIFEST.json"))) as caught:
            check_complete(store)
        assert "without making an image again" in str(caught.value)


def test_what_lies_there_instead_is_said(run, tmp_path):
    _, store = run
    with pytest.raises(SetupError, match=f"a spectrum lies in one of its folders {store.name}"):
        check_complete(store.parent)
    other = Store.at(tmp_path / "train-1a2b3c4d")
    other.write("MANIFEST.json", b"{}")  # a training's
    other.write("config.yaml", b"")
    with pytest.raises(SetupError, match="no spectrum lies there"):
        check_complete(other)
    with pytest.raises(SetupError, match="no spectrum lies there"):
        check_complete(Store.at(tmp_path / "empty"))
    store.delete("MANIFEST.json")
    first, *others = store.list("commits", ".json")
    for name in others:
        store.delete(name)
    with pytest.raises(SetupError, match=r"1 shard is committed, and more are missing"):
        check_complete(store)
    assert store.exists(first)


def test_a_lost_commit_is_named(run):
    _, store = run
    store.delete(store.list("commits", ".json")[0])
    with pytest.raises(SetupError, match=r"1 of .* shards have no commit record any more"):
        Spectrum.open(store)


def test_without_an_image_to_judge_by_it_is_refused(run):
    _, store = run
    spectrum = Spectrum.open(store)
    spectrum.check_judged("test")
    for name in spectrum.samples.list("test", ".parquet"):
        spectrum.samples.delete(name)
    with pytest.raises(DataError, match=r"no test image .*data\.test_fraction"):
        spectrum.check_judged("test")
    spectrum.check_judged("val")


def test_other_real_images_are_another_spectrum(of_another_tool):
    before = Spectrum.open(of_another_tool).name
    name = of_another_tool.list("samples/test", ".parquet")[0]
    table = of_another_tool.read_table(name)
    of_another_tool.write_table(name, table.slice(0, table.num_rows - 1))
    assert Spectrum.open(of_another_tool).name != before


@pytest.mark.parametrize("content", [b"", b"{}", b"learning_rate: 0.1"])
def test_another_tool_may_have_a_config_of_its_own(of_another_tool, content):
    name = Spectrum.open(of_another_tool).name
    of_another_tool.write("config.yaml", content)
    spectrum = Spectrum.open(of_another_tool)
    assert spectrum.of_another_tool
    assert spectrum.recorded is None
    assert spectrum.name == name


def test_a_broken_link_among_another_tools_files_is_named(of_another_tool):
    folder = of_another_tool.local / "spectrum"
    (folder / "lost.parquet").symlink_to("nowhere")
    said = r"spectrum/lost\.parquet: a link to a file that cannot be found"
    with pytest.raises(IntegrityError, match=said):
        Spectrum.open(of_another_tool)
    damaged = verify(of_another_tool).damaged
    assert list(damaged) == ["spectrum/lost.parquet"]
    for file in of_another_tool.list("spectrum"):
        of_another_tool.delete(file)
    with pytest.raises(IntegrityError, match=said):
        Spectrum.open(of_another_tool)


def test_a_place_that_cannot_be_looked_at_is_named(run, tmp_path):
    _, store = run
    (tmp_path / "link").symlink_to(store.base)
    assert Spectrum.open(str(tmp_path / "link")).store.base == store.base
    assert Spectrum.open(f"file://{store.base}").name == store.name
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (
        str(tmp_path / "nowhere"),
        str(tmp_path / "file"),
        str(tmp_path / "loop"),
        "bogus://x/y",
        "file://elsewhere/x",
        "s3://",
        "s4://runs",
        "dropbox://runs",
    ):
        with pytest.raises(SetupError, match=re.escape(f"spectrum.path = '{place}'")) as caught:
            Spectrum.open(place)
        assert "\n" not in str(caught.value)
    with pytest.raises(SetupError, match=f"name the folder above, {store.base}"):
        Spectrum.open(store.path("spectrum"))
