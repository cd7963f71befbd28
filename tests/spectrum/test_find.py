"""A spectrum is found by what was recorded.

It is opened by path, and trained on without anything of phase 1.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from discl_ray.config import ALIASES, Config, dump_config, recorded_config, renamed, with_values
from discl_ray.core.settings import Settings, added, identity, with_values_before
from discl_ray.core.storage import Store
from discl_ray.curriculum.controller import LocalController
from discl_ray.errors import ConfigError, IntegrityError, SetupError
from discl_ray.experiments.spectra import open_for, samples_today, since_made, with_recorded
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.find import find_spectrum
from discl_ray.spectrum.made_with import (
    MadeWith,
    installed,
    other_versions,
    read_made_with,
    write_made_with,
)
from discl_ray.spectrum.open import Spectrum
from discl_ray.synthesize.run import prepare
from discl_ray.train.images.table import build_table, open_table, table_rows
from discl_ray.train.job import make_job
from discl_ray.train.loop import loop

ROOT = Path(__file__).resolve().parents[2]


def another(store: Store, name: str) -> Store:
    """A second spectrum made with the same configuration."""
    shutil.copytree(store.local, store.local.with_name(name))
    return store.parent.within(name)


def test_the_only_one_is_found_and_knows_what_training_needs(run):
    config, store = run
    spectrum = find_spectrum(config)
    assert (spectrum.store.base, spectrum.name) == (store.base, store.name)
    assert spectrum.grid == config.plan.levels
    assert len(spectrum.classes) == 10
    sources = spectrum.sources()
    assert set(sources["split"].to_pylist()) == {"train", "val"}
    assert set(spectrum.table(FilterConfig(), [])["sample_id"].to_pylist()) == set(
        sources["sample_id"].to_pylist()
    )


def test_neither_weights_nor_prompts_nor_data_are_looked_at(run, monkeypatch):
    config, store = run
    for name in (
        "generate.model_checks.fingerprint",
        "score.model_folder.scorer_fingerprint",
        "plan.prompts.load_prompts",
    ):
        monkeypatch.setattr(f"discl_ray.{name}", lambda *_: pytest.fail("phase 1 was prepared"))
    assert find_spectrum(config).store == store
    other = with_values(
        config, {"generator.micro_batch": 3, "run.stall_warning_s": 7}
    )  # nothing that decides an image
    assert find_spectrum(other).store == store


def test_one_key_that_decides_images_is_another_spectrum(run):
    config, store = run
    for key, value in {
        "seed": 1,
        "plan.replicas": 5,
        "generator.cfg_scale": 3.25,
        "data.per_class_test": 11,
    }.items():
        if key.startswith("data"):
            continue
        with pytest.raises(
            SetupError, match=f"the nearest is {store.name}, which differs in {key}"
        ) as caught:
            find_spectrum(with_values(config, {key: value}))
        assert "\n" not in str(caught.value)


def test_of_several_none_is_chosen_in_silence(run):
    config, store = run
    twin = another(store, "generate-ffffffff")
    with pytest.raises(ConfigError) as caught:
        find_spectrum(config)
    for made in (store, twin):
        assert f"spectrum.path={made.base} " in str(caught.value)
    rows = store.read_json("MANIFEST.json")["rows"]
    weights = read_made_with(store).generator[:8]
    assert str(caught.value).count(f"weights {weights}, {rows} images") == 2
    assert find_spectrum(with_values(config, {"spectrum.path": twin.base})).store == twin


def test_of_several_the_one_that_was_made_from_the_data_of_today_is_meant(run):
    config, store = run
    twin = another(store, "generate-ffffffff")
    today = Spectrum.open(store).samples.name
    assert samples_today(config) == today
    shutil.copytree(store.parent.within(today).local, store.parent.within("samples-00000000").local)
    twin.write_json("samples.json", {"directory": "samples-00000000"})
    assert find_spectrum(config, today).store == store
    assert find_spectrum(config, "samples-00000000").store == twin
    with pytest.raises(ConfigError):
        find_spectrum(config, "samples-11111111")  # made from neither: nobody knows which is meant


def test_data_that_changed_since_is_said_and_the_spectrum_is_used_as_it_is(run, capsys):
    config, store = run
    opened, spectrum = open_for(config)
    assert opened == config
    first, *others = capsys.readouterr().out.splitlines()
    assert first.strip() == f"spectrum · {store.base}"
    assert others == []
    assert "the data has changed since" in since_made(spectrum, "samples-00000000")[0]


def test_an_unfinished_one_and_a_foreign_folder_are_named(run, tmp_path):
    config, store = run
    store.delete("MANIFEST.json")
    with pytest.raises(SetupError, match="shards of it are committed: run `make generate`"):
        find_spectrum(config)
    with pytest.raises(SetupError, match="shards are committed, and more are missing"):
        Spectrum.open(store.base)
    with pytest.raises(SetupError, match=f"a spectrum lies in one of its folders {store.name}"):
        Spectrum.open(store.parent.base)
    with pytest.raises(SetupError, match="no spectrum lies there"):
        Spectrum.open(str(tmp_path))


def test_lost_samples_are_named(run):
    _, store = run
    shutil.rmtree(Spectrum.open(store).samples.local)
    with pytest.raises(
        IntegrityError,
        match=(
            r"no table of the real training images.*reads the data again.*copy the folder samples-"
        ),
    ):
        Spectrum.open(store)


def test_a_path_brings_the_configuration_that_made_it(run):
    config, store = run
    elsewhere = with_values(
        Config(), {"spectrum.path": store.base, "run.root": config.run.root, "run.name": "mine"}
    )
    opened = with_recorded(elsewhere, find_spectrum(elsewhere))
    assert (opened.data, opened.plan) == (config.data, config.plan)
    assert (opened.run, opened.seed, opened.train) == (
        elsewhere.run,
        elsewhere.seed,
        elsewhere.train,
    )


def test_another_tools_spectrum_is_trained_on(run, of_another_tool):
    config, store = run
    ours, theirs = Spectrum.open(store), Spectrum.open(of_another_tool.base)
    assert theirs.classes == ours.classes
    assert theirs.grid == ours.grid
    assert theirs.name.startswith("spectrum-")
    assert theirs.name == Spectrum.open(of_another_tool).name
    assert theirs.recorded is None
    assert "not recorded" in since_made(theirs, "")[0]
    columns = ["label", "lam_pct", "role", "hard", "domain", "sample_id"]
    sorts = [(name, "ascending") for name in ("sample_id", "lam_pct", "role", "hard")]
    mine, other = (
        table_rows(s, config.filter).select(columns).sort_by(sorts) for s in (ours, theirs)
    )
    assert mine.equals(other)
    table = open_table(build_table(theirs, config.filter, config.train.image_size))
    job = make_job(
        theirs, seed=0, data=config.data, train=config.train, curriculum=config.curriculum
    )
    reports = []
    loop(
        job, table, LocalController(job.curriculum, job.levels, job.seed), reports.append, epochs=1
    )
    assert [report.epoch for report in reports] == [1]


def changed(table: pa.Table, column: str, values: object) -> pa.Table:
    """A table with other values in a column; None takes it away."""
    at = table.column_names.index(column)
    if values is None:
        return table.remove_column(at)
    array = pa.array([values] * table.num_rows) if not callable(values) else values(table[column])
    return table.set_column(at, column, array)


SPECTRA = {
    "lam_pct": (150, "lam_pct holds 150; allowed: whole percents from 0 to 99"),
    "role": ("training", "role holds 'training'; allowed: train or probe"),
    "status": ("OK", "status holds 'OK'"),
    "label": (99, "label holds 99; allowed: 0 to 9"),
    "gid": ("one", "a gid is duplicated"),
    "text_rank": (None, "no column text_rank"),
    "text_sim": (lambda c: pa.nulls(len(c)), "text_sim is null in "),
    "sample_id": ("nobody", "'nobody' is no real image"),
    "image": (b"bytes", "column image is binary"),
    "replica": ("first", "column replica is string; values of type int32 are needed"),
}


@pytest.mark.parametrize("column", SPECTRA)
def test_what_cannot_be_trained_on_is_named(of_another_tool, column):
    values, said = SPECTRA[column]
    name = of_another_tool.list("spectrum", ".parquet")[0]
    of_another_tool.write_table(name, changed(of_another_tool.read_table(name), column, values))
    with pytest.raises(IntegrityError) as caught:
        Spectrum.open(of_another_tool)
    assert said in str(caught.value)
    assert of_another_tool.path(name) in str(caught.value)
    assert "generate" not in str(caught.value)  # which does not write this folder


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("split", "val", "another split than train"),
        ("class_name", None, "no column class_name"),
        ("image", b"bytes", "column image is binary"),
        ("sample_id", "one", "sample_id one is duplicated"),
    ],
)
def test_real_images_that_cannot_be_trained_on_are_named(of_another_tool, column, values, said):
    name = of_another_tool.list("samples/train", ".parquet")[0]
    of_another_tool.write_table(name, changed(of_another_tool.read_table(name), column, values))
    with pytest.raises(IntegrityError, match=said):
        Spectrum.open(of_another_tool)


def test_the_types_that_other_libraries_write_are_read(run, of_another_tool):
    config, _ = run
    columns = ["sample_id", "label", "lam_pct", "role"]
    spectrum = Spectrum.open(of_another_tool)
    before, rows = (
        spectrum.table(FilterConfig(), []),
        table_rows(spectrum, config.filter).select(columns),
    )
    for name in of_another_tool.list("spectrum", ".parquet"):
        table = of_another_tool.read_table(name)
        for column in ("label", "lam_pct", "replica", "attempt"):
            table = changed(table, column, lambda c: c.cast(pa.int64()))
        table = changed(table, "text_sim", lambda c: c.cast(pa.float64()))
        table = changed(table, "sample_id", lambda c: c.cast(pa.large_string()))
        table = changed(table, "role", lambda c: c.dictionary_encode())
        of_another_tool.write_table(name, table)
    for name in of_another_tool.list("samples/train", ".parquet"):
        table = of_another_tool.read_table(name)
        of_another_tool.write_table(
            name, changed(changed(table, "label", lambda c: c.cast(pa.int64())), "domain", None)
        )
    spectrum = Spectrum.open(of_another_tool)
    assert spectrum.table(FilterConfig(), []).equals(before)
    assert table_rows(spectrum, config.filter).select(columns).equals(rows)


def test_a_configuration_that_cannot_be_read_is_named(run):
    config, store = run
    store.write("config.yaml", b"{")
    with pytest.raises(
        SetupError, match=f"its config.yaml is gone or cannot be read.*spectrum.path={store.base};"
    ):
        find_spectrum(config)


def test_what_makes_images_takes_no_path(run):
    config, store = run
    with pytest.raises(ConfigError, match=r"spectrum\.path = .*names a spectrum to train on"):
        prepare(with_values(config, {"spectrum.path": store.base}))


def test_labels_without_names_or_with_two_are_refused(of_another_tool):
    name = of_another_tool.list("samples/train", ".parquet")[0]
    table = of_another_tool.read_table(name)
    labels = pa.array([label + 1 for label in table["label"].to_pylist()], table["label"].type)
    at = table.column_names.index("label")
    of_another_tool.write_table(name, table.set_column(at, table.schema.field("label"), labels))
    with pytest.raises(IntegrityError, match="each with one class_name"):
        Spectrum.open(of_another_tool)


def test_other_versions_are_one_sentence(run):
    _, store = run
    made = read_made_with(store)
    assert made.versions == installed()
    assert other_versions(made) == ""
    write_made_with(
        store, MadeWith(generator="g", scorer="s", versions={**installed(), "torch": "1.0"})
    )
    assert other_versions(read_made_with(store)).startswith(
        "the spectrum was made with torch 1.0 (here "
    )
    store.write("made_with.json", b"{")
    assert read_made_with(store) is None
    assert other_versions(None) == ""


def test_a_recorded_configuration_has_the_values_of_its_time(run):
    class Inner(Settings):
        kept: int = 1
        how: str = added("new", before="old")

    class Outer(Settings):
        inner: Inner = Inner()
        name: str = "x"

    recorded = {"inner": {"kept": 2}, "name": "y"}
    then = Outer.model_validate(with_values_before(Outer, recorded))
    assert then.inner.how == "old"
    assert identity(then) == recorded
    assert (
        Outer.model_validate(recorded).inner.how == "new"
    )  # what a person writes today means today's default
    config, store = run
    assert recorded_config(dump_config(config)) == config
    assert recorded_config(store.read("config.yaml").decode()).plan == config.plan


def test_a_renamed_key_is_read_under_both_names():
    aliases = {"plan.copies": "plan.replicas", "train.colour": "filter.mode"}
    assert renamed({"plan": {"copies": 3, "lams": [0]}}, aliases) == {
        "plan": {"lams": [0], "replicas": 3}
    }
    assert renamed({"train": {"colour": "rank"}}, aliases) == {
        "train": {},
        "filter": {"mode": "rank"},
    }
    both = {"plan": {"copies": 3, "replicas": 4}}
    assert renamed(both, aliases) == both  # which is then refused as an unknown key
    for new in ALIASES.values():
        part, key = new.split(".")
        assert key in type(getattr(Config(), part)).model_fields


TRAINS_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("diffusers", "transformers"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_train_runs_where_phase_1_cannot(run, tmp_path):
    """No diffusers, no transformers, weights and prompts that are gone.

    The images lie in another run root.
    """
    config, store = run
    recorded = json.loads(config.model_dump_json())
    recorded["generator"]["model"], recorded["prompts"]["scenes"] = (
        str(tmp_path / "gone"),
        str(tmp_path / "gone.yaml"),
    )
    made = Config.model_validate(recorded)
    store.write("config.yaml", dump_config(made).encode())
    small = with_values(
        made,
        {
            "train.width": 4,
            "train.epochs": 2,
            "curriculum.epochs": 1,
            "train.start_steps": 0,
            "train.batch": 8,
        },
    )
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(small))
    command = [
        sys.executable,
        "-c",
        TRAINS_WITHOUT,
        str(ROOT / "jobs" / "train.py"),
        "--config",
        str(file),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"spectrum · {store.base}" in done.stdout
    assert "trained · look at" in done.stdout
