import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from discl_ray.core.images import encode_image
from discl_ray.core.schema import SCORED, SPECTRUM
from discl_ray.core.storage import Store
from discl_ray.report.card import COLUMNS, OPEN, front_matter, write_card, write_verdicts
from discl_ray.spectrum.commit import write_shard
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.read import open_spectrum
from tests.golden.test_golden import GENERATED, OLD

ODD = [
    'it\'s a "cat": #1, [a] {b} & *c | d > e % @ `f` \\',
    "Füchsin, 狐 und 🦊",
    "of two\nlines",
    "a\n---\nb",
    "\x85 and \u2028 \u2029 \x0b\x1c end a line for Python",
    "null",
    "yes",
    "1e3",
    "0x10",
    "2026-11-27",
    "- item",
    "? key",
    "~",
    "=",
    "<<",
    " ",
    "\t",
]


@pytest.fixture
def few(tmp_path) -> Store:
    """A run of one shard.

    Three images of class 0, one of the last of 8,142, and a row without one.
    """
    run = Store.at(tmp_path / "run")
    pixels = encode_image(np.full((8, 8, 3), 90, np.uint8), "png")
    rows = [
        {
            "gid": f"g{i}",
            "sample_id": f"s{i}",
            "label": label,
            "lam_pct": 30,
            "replica": 0,
            "attempt": 0,
            "role": "train",
        }
        | (
            {"status": "ok", "image": {"bytes": pixels}, "text_rank": i + 1}
            if i < 4
            else {"status": "error", "error": "truncated"}
        )
        for i, label in enumerate([0, 0, 0, 8141, 1])
    ]
    write_shard(run, "shard", pa.Table.from_pylist(rows, schema=SCORED), many())
    return run


def many() -> list[str]:
    return [*ODD, *(f"class {i}" for i in range(8142 - len(ODD)))]


@pytest.fixture
def load(monkeypatch, tmp_path):
    """load_dataset in a folder that has nothing but itself."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return lambda *args, **kwargs: datasets.load_dataset(
        *args, split="train", cache_dir=str(tmp_path / "cache"), **kwargs
    )


def test_datasets_finds_images_and_class_names_by_the_card(few, small, load):
    from datasets import ClassLabel

    few.write_table(
        "plan.parquet", pa.table({"gid": ["another table"]})
    )  # a run holds more than its spectrum
    write_card(few, small(), many())
    loaded = load(few.base)
    assert isinstance(loaded.features["label"], ClassLabel)
    assert loaded.features["label"].names == many()
    assert loaded.column_names == SPECTRUM.names
    assert (
        loaded["class_name"]
        == [many()[label] for label in loaded["label"]]
        == [ODD[0]] * 3 + [many()[-1], ODD[1]]
    )
    assert isinstance(loaded[0]["image"], Image.Image)
    assert loaded[0]["image"].getpixel((0, 0)) == (90, 90, 90)
    assert loaded[4]["image"] is None


def test_a_single_file_opens_without_its_card(few, load):
    loaded = load("parquet", data_files=[few.path("spectrum/shard.parquet")])
    assert isinstance(loaded[3]["image"], Image.Image)
    assert loaded["label"] == [0, 0, 0, 8141, 1]


def test_class_names_come_back_from_yaml_and_stand_once():
    read = yaml.safe_load(front_matter(ODD, ["spectrum/*.parquet"]))
    label = next(f for f in read["dataset_info"]["features"] if f["name"] == "label")
    assert list(label["dtype"]["class_label"]["names"].values()) == ODD
    assert [f["name"] for f in read["dataset_info"]["features"]] == SPECTRUM.names
    assert "狐" in front_matter(ODD, [])  # readable where it can be


def test_the_card_explains_every_column_and_names_the_filter(few, small):
    assert list(COLUMNS) == SPECTRUM.names
    write_card(few, small("filter.mode=absolute", "filter.threshold=0.25"), ["a"], "PLUMBING TEST")
    text = few.read("README.md").decode()
    assert "**PLUMBING TEST**" in text
    assert "`absolute` (text_sim ≥ 0.25)" in text
    assert "partitioning" not in text


def test_verdicts_are_those_of_the_filter_and_written_only_when_they_change(few, small):
    def written(rank):
        write_card(few, small(f"filter.rank={rank}"), many())
        write_verdicts(few, open_spectrum(few, FilterConfig(rank=rank), columns=[]))
        return {
            name: Path(few.path(name)).stat().st_mtime_ns
            for name in ("README.md", "verdicts.parquet")
        }

    first = written(2)
    assert few.read_table("verdicts.parquet").to_pylist() == [
        {"gid": "g0", "kept": True, "reason": ""},
        {"gid": "g1", "kept": True, "reason": ""},
        {"gid": "g2", "kept": False, "reason": "rank"},
        {"gid": "g3", "kept": False, "reason": "rank"},
        {"gid": "g4", "kept": False, "reason": "truncated"},
    ]
    assert written(2) == first
    other = written(3)
    assert all(other[name] != first[name] for name in first)
    assert few.read_table("verdicts.parquet")["kept"].to_pylist() == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_run_of_the_earlier_layout_has_a_card_that_fits_it_also_when_it_was_resumed(
    few, small, tmp_path, load
):
    run = Store.at(shutil.copytree(OLD / "digits_lt" / GENERATED, tmp_path / "old"))
    write_card(run, small(), list("0123456789"))
    assert "`partitioning=None`" in run.read("README.md").decode()
    loaded = load(run.base)
    assert loaded.num_rows == 28
    assert isinstance(loaded[0]["image"], Image.Image)
    assert set(loaded["lam_pct"]) == {0, 50}
    for name in ("spectrum/shard.parquet", "commits/shard.json"):
        run.write(name, few.read(name))
    write_card(run, small(), many())
    both = load(run.base)
    assert set(both["gid"]) == {*loaded["gid"], *(f"g{i}" for i in range(5))}
    assert {row["gid"][0] == "g" for row in both if row["class_name"]} == {True}


def test_what_the_card_says_how_to_open_it_works(spectrum_run, tmp_path, monkeypatch):
    config, prepared = spectrum_run
    run = Store.at(shutil.copytree(prepared.store.base, tmp_path / "run"))
    write_card(run, config, prepared.samples.classes)
    write_verdicts(run, open_spectrum(run, config.filter, columns=[]))
    code = re.search(r"```python\n(.*?)```", run.read("README.md").decode(), re.DOTALL)
    assert code is not None
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.chdir(run.base)
    found: dict = {}
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    exec(code[1], found)
    count = prepared.plan.num_rows
    assert os.getcwd() == run.base
    assert (
        found["rows"].num_rows
        == len(found["frame"])
        == found["table"].num_rows
        == found["blocks"].count()
        == count
    )
    assert found["lazy"].collect().height == count
    verdicts = open_spectrum(run, config.filter, columns=[])
    kept = sum(
        k and role == "train"
        for k, role in zip(*(verdicts[n].to_pylist() for n in ("kept", "role")), strict=True)
    )
    assert len(found["kept"]) == kept > 0


def test_what_the_card_says_joins_no_cluster_that_is_named_or_found(spectrum_run, tmp_path):
    """The snippet as a whole in a process of its own, where an address of Ray leads nowhere."""
    config, prepared = spectrum_run
    run = Store.at(shutil.copytree(prepared.store.base, tmp_path / "run"))
    write_card(run, config, prepared.samples.classes)
    write_verdicts(run, open_spectrum(run, config.filter, columns=[]))
    code = re.search(r"```python\n(.*?)```", OPEN, re.DOTALL)
    assert code is not None
    environment = {
        **os.environ,
        "RAY_ADDRESS": "127.0.0.1:1",
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
    }
    script = f"{code[1]}\nprint('counted', blocks.count(), len(rows))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=run.base, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    count = prepared.plan.num_rows
    assert f"counted {count} {count}" in done.stdout
