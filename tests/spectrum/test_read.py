"""Committed rows with scores and verdicts.

Images are read only where they are asked for; other programs read the folder.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from discl_ray.core.schema import SCORED
from discl_ray.core.storage import Store
from discl_ray.embedded.digits import NAMES
from discl_ray.errors import DataError
from discl_ray.spectrum.commit import write_shard
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.files import committed_files, content_of
from discl_ray.spectrum.fold import drop_folds, fold
from discl_ray.spectrum.read import count_verdicts, grid_of, open_spectrum, with_images
from discl_ray.spectrum.verify import check_planned, drop_damaged, drop_strays
from tests.support.counted import counted
from tests.support.spectra import LAX, dates

pytestmark = pytest.mark.timeout(600)


def test_every_image_decodes_and_has_its_scores(spectrum_run):
    _, run = spectrum_run
    for row in open_spectrum(run.store, LAX).to_pylist():
        assert row["status"] == "ok"
        assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (32, 32)
        assert -1 <= row["text_sim"] <= 1
        assert -1 <= row["image_sim"] <= 1
        assert 1 <= row["text_rank"] <= 10
        assert -1 <= row["source_text_sim"] <= 1
        assert 1 <= row["source_text_rank"] <= 10


def test_a_source_has_one_score_in_all_its_rows(spectrum_run):
    rows = open_spectrum(spectrum_run[1].store, LAX, columns=[]).to_pylist()
    pairs = {(r["sample_id"], r["source_text_sim"], r["source_text_rank"]) for r in rows}
    assert len(pairs) == len({r["sample_id"] for r in rows})


def test_a_spectrum_scored_before_a_column_was_added_opens_without_it(copy):
    config = FilterConfig(mode="quantile", quantile=0.5)
    assert any(open_spectrum(copy, config, columns=[])["kept"].to_pylist())
    drop_folds(copy)  # that version made none, and it has the column
    for file in Path(copy.path("spectrum")).rglob("*.parquet"):
        name = str(file.relative_to(copy.base))
        copy.write_table(name, copy.read_table(name).drop_columns(["source_text_sim"]))
    for columns in ([], None):
        old = open_spectrum(copy, LAX, columns)
        assert old["source_text_sim"].null_count == old.num_rows
        assert sum(old["kept"].to_pylist()) == old.num_rows
    with pytest.raises(DataError, match="source_text_sim"):
        open_spectrum(copy, config, columns=[])


def test_a_higher_level_looks_more_like_its_source(spectrum_run):
    _, run = spectrum_run
    table = open_spectrum(run.store, LAX, columns=["image_sim"]).to_pylist()
    mean = {lam: np.mean([r["image_sim"] for r in table if r["lam_pct"] == lam]) for lam in (0, 50)}
    assert mean[50] > mean[0]


def test_images_are_read_only_when_they_are_asked_for(copy, monkeypatch):
    """And of a file only the row groups that hold one of them."""
    asked, read, group = [], pq.ParquetFile.read, pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read",
        lambda file, columns=None, **more: asked.append(columns) or read(file, columns, **more),
    )
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda file, i, columns, **more: (
            asked.append((i, columns)) or group(file, i, columns, **more)
        ),
    )
    whole = open_spectrum(copy, LAX)
    asked.clear()
    rows = open_spectrum(copy, LAX, columns=["file"])
    assert asked
    assert all("image" not in columns for columns in asked)
    assert "image" not in rows.column_names
    asked.clear()
    some = rows.slice(rows.num_rows // 2, 3)
    got = with_images(copy, some)
    assert got["gid"].to_pylist() == some["gid"].to_pylist()
    images = dict(zip(whole["gid"].to_pylist(), whole["image"].to_pylist(), strict=True))
    assert got["image"].to_pylist() == [images[gid] for gid in some["gid"].to_pylist()]
    with_image = [i for i, columns in asked if "image" in columns]
    assert len(with_image) <= len(set(some["file"].to_pylist()))
    assert with_images(copy, rows.slice(0, 0)).num_rows == 0


def opened_by_pandas(folder):
    import pandas

    return pandas.read_parquet(folder)[["gid", "lam_pct", "class_name"]].to_dict("list")


def opened_by_pyarrow(folder):
    return pq.read_table(folder).select(["gid", "lam_pct", "class_name"]).to_pydict()


def opened_by_duckdb(folder):
    import duckdb

    names, session = ("gid", "lam_pct", "class_name"), duckdb.connect()
    rows = session.sql(f"select {', '.join(names)} from '{folder}/*.parquet'").fetchall()
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def opened_by_polars(folder):
    import polars

    return (
        polars.read_parquet(folder)
        .select(["gid", "lam_pct", "class_name"])
        .to_dict(as_series=False)
    )


def opened_by_datasets(folder):
    from datasets import load_dataset

    loaded = load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    assert isinstance(loaded[0]["image"], Image.Image)
    return loaded.select_columns(["gid", "lam_pct", "class_name"]).to_dict()


def opened_by_ray(folder):
    import ray

    rows = ray.data.read_parquet(str(folder), columns=["gid", "lam_pct", "class_name"]).take_all()
    return {name: [row[name] for row in rows] for name in ("gid", "lam_pct", "class_name")}


@pytest.mark.parametrize(
    "opened",
    [
        opened_by_pandas,
        opened_by_pyarrow,
        opened_by_duckdb,
        opened_by_polars,
        opened_by_datasets,
        opened_by_ray,
    ],
)
def test_anyone_opens_the_folder_as_it_lies(copy, spectrum_run, opened):
    found = opened(Path(copy.path("spectrum")))
    plan = spectrum_run[1].plan
    planned = {
        gid: (lam, NAMES[label])
        for gid, lam, label in zip(
            *(plan[n].to_pylist() for n in ("gid", "lam_pct", "label")), strict=True
        )
    }
    rows = list(zip(found["gid"], found["lam_pct"], found["class_name"], strict=True))
    assert len(rows) == len(planned)
    assert {gid: (lam, name) for gid, lam, name in rows} == planned


def test_hundreds_of_shards_open_as_one_spectrum(tmp_path):
    run = Store.at(tmp_path)
    rows = 2
    for shard in range(200):
        made = [
            {
                "gid": f"{shard:03}-{row}",
                "sample_id": f"s{shard:03}",
                "label": 0,
                "lam_pct": 10 * row,
                "replica": 0,
                "status": "ok",
            }
            for row in reversed(range(rows))
        ]
        write_shard(
            run,
            f"{shard:016x}",
            pa.Table.from_pylist(made, schema=SCORED),
            ["a 'class': “ü”\nof two lines"],
        )
    table = open_spectrum(run, LAX)
    assert table["gid"].to_pylist() == [
        f"{shard:03}-{row}" for shard in range(200) for row in range(rows)
    ]
    assert pq.read_table(run.path("spectrum")).num_rows == 200 * rows


def test_another_filter_keeps_other_rows_drops_none_and_writes_nothing(spectrum_run):
    _, run = spectrum_run
    before = dates(run.store)
    sims = sorted(open_spectrum(run.store, LAX, columns=[])["text_sim"].to_pylist())
    for threshold, kept in ((-1.0, len(sims)), (sims[len(sims) // 2], None), (1.0, 0)):
        config = FilterConfig(mode="absolute", threshold=threshold)
        table = open_spectrum(run.store, config, columns=[])
        assert table.num_rows == run.plan.num_rows
        expected = (
            sum(np.float32(s) >= np.float32(threshold) for s in sims) if kept is None else kept
        )
        assert sum(table["kept"].to_pylist()) == expected
        assert set(table["reason"].to_pylist()) <= {"", "text_sim"}
        assert sum(c.total() for c in count_verdicts(table).values()) == run.plan.num_rows
    assert dates(run.store) == before


PIXELS = 200_000
"""Bytes of an image below: random, so that none is compressed."""


@pytest.fixture
def photographs(tmp_path):
    """A spectrum of four shards of large images."""
    run = Store.at(tmp_path)
    rng = np.random.default_rng(0)
    for shard in range(4):
        made = [
            {
                "gid": f"{shard}-{row:02}",
                "sample_id": f"s{shard}-{row // 10}",
                "label": 0,
                "role": "train",
                "lam_pct": 10 * (row % 5),
                "replica": row % 2,
                "attempt": 0,
                "status": "ok",
                "text_sim": 0.3,
                "text_rank": 1,
                "image": {"bytes": rng.bytes(PIXELS), "path": None},
            }
            for row in range(60)
        ]
        write_shard(run, f"{shard:016x}", pa.Table.from_pylist(made, schema=SCORED), ["a class"])
    return run


def test_scores_are_read_without_a_byte_of_the_images(photographs):
    """Also on a file system that is not local, where checksums of pages are verified as well."""
    size = sum(Path(photographs.path(n)).stat().st_size for n in committed_files(photographs))
    assert size > 240 * PIXELS
    run, reads = counted(photographs)
    name = committed_files(photographs)[0]
    table = run.read_table(name, ["gid", "text_sim"])
    assert table.num_rows == 60
    assert reads.total < 70_000  # the footer is read with the 64 KiB it may take
    reads.sizes.clear()
    whole = open_spectrum(run, LAX, ["file"])
    assert reads.of("/spectrum/") < 0.01 * size
    fold(run)
    reads.sizes.clear()
    for opened in (
        lambda: open_spectrum(run, LAX, ["file"]),
        lambda: count_verdicts(open_spectrum(run, LAX, [])),
        lambda: grid_of(run),
        lambda: content_of(run),
        lambda: check_planned(run, whole),
        lambda: drop_damaged(run),
        lambda: drop_strays(run),
    ):
        opened()
        assert reads.of("/spectrum/") == 0
        assert reads.of("/commits/") == 0
        assert 0 < reads.total < 0.002 * size
        reads.sizes.clear()
    assert open_spectrum(run, LAX, ["file"]).equals(whole)


def test_a_sheet_reads_the_row_groups_of_what_it_shows(photographs):
    run, reads = counted(photographs)
    rows = open_spectrum(run, LAX, ["file"])
    shown = rows.filter(pc.equal(rows["sample_id"], "s2-3"))
    reads.sizes.clear()
    with_images(run, shown)
    assert reads.of("/spectrum/") == reads.of(f"{2:016x}")
    assert 10 * PIXELS < reads.total < 11 * 2**20  # a row group is full with 8 MB
