import errno
import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from discl_ray.core.images import encode_image
from discl_ray.core.run_directory import MANIFEST
from discl_ray.core.schema import SCORED, SPECTRUM
from discl_ray.core.storage import ROW_GROUP, Store
from discl_ray.data import READERS
from discl_ray.data.config import ImageFolderConfig
from discl_ray.data.digits_lt import digits_lt
from discl_ray.data.listing import inline
from discl_ray.embedded import GENERATOR
from discl_ray.embedded.digits import NAMES
from discl_ray.errors import DataError, IntegrityError, ModelError, UnreadableError
from discl_ray.report.acceptance import made_words
from discl_ray.spectrum.commit import (
    committed,
    committed_files,
    drop_damaged,
    drop_strays,
    group_starts,
    verify,
    write_shard,
)
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.read import count_verdicts, open_spectrum, with_images
from discl_ray.spectrum.samples import read_split, samples_of
from discl_ray.synthesize.checks import check_diffusion
from discl_ray.synthesize.layout import draft, find_reusable, lay_out, prepare
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.summary import describe, summarize, warnings
from tests.conftest import tiny_config

pytestmark = pytest.mark.timeout(600)
LAX = FilterConfig(mode="absolute", threshold=-1.0)


@pytest.fixture
def copy(spectrum_run, tmp_path) -> Store:
    return Store.at(shutil.copytree(spectrum_run[1].store.base, tmp_path / "copy"))


def dates(store):
    return {p: p.stat().st_mtime_ns for p in Path(store.base).rglob("*") if p.is_file()}


def test_every_planned_image_is_there_once(spectrum_run):
    _, prepared = spectrum_run
    verify(prepared.store, prepared.plan)
    table = open_spectrum(prepared.store, LAX)
    assert Counter(table["gid"].to_pylist()) == Counter(prepared.plan["gid"].to_pylist())
    planned = {r["gid"]: r for r in prepared.plan.to_pylist()}
    for row in table.select(prepared.plan.column_names).to_pylist():
        assert row == planned[row["gid"]]
    assert set(committed(prepared.store)) == set(prepared.plan["shard_id"].to_pylist())
    assert len(committed(prepared.store)) > 1


def test_every_image_decodes_and_has_its_scores(spectrum_run):
    _, prepared = spectrum_run
    for row in open_spectrum(prepared.store, LAX).to_pylist():
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
    _, prepared = spectrum_run
    table = open_spectrum(prepared.store, LAX, columns=["image_sim"]).to_pylist()
    mean = {lam: np.mean([r["image_sim"] for r in table if r["lam_pct"] == lam]) for lam in (0, 50)}
    assert mean[50] > mean[0]


def test_a_shard_is_one_file_and_its_rows_lie_by_source_and_level(spectrum_run):
    store = spectrum_run[1].store
    assert (
        committed_files(store)
        == store.list("spectrum", ".parquet")
        == [f"spectrum/{s}.parquet" for s in committed(store)]
    )
    for name in committed_files(store):
        table = store.read_table(name)
        assert table.schema.equals(SPECTRUM, check_metadata=True)
        rows = table.select(["sample_id", "lam_pct", "replica", "attempt"]).to_pylist()
        assert rows == sorted(rows, key=lambda row: tuple(row.values()))
        assert [NAMES[label] for label in table["label"].to_pylist()] == table[
            "class_name"
        ].to_pylist()


@given(
    st.lists(st.tuples(st.integers(1, 150), st.sampled_from([0, 10, 400])), min_size=1, max_size=12)
)
@settings(max_examples=30)
def test_a_row_group_divides_no_source_and_takes_none_when_it_is_full(sources):
    ids = np.repeat([f"s{i:02}" for i in range(len(sources))], [rows for rows, _ in sources])
    sizes = np.repeat([size for _, size in sources], [rows for rows, _ in sources])
    images = pa.array(
        [{"bytes": bytes(size) if size else None} for size in sizes], SPECTRUM.field("image").type
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("discl_ray.spectrum.commit.GROUP_BYTES", 20_000)
        starts = group_starts(pa.table({"sample_id": ids, "image": images}))
    assert starts == sorted(set(starts))
    assert starts[0] == 0

    def full(part):
        return part.sum() >= ROW_GROUP or sizes[part].sum() >= 20_000

    for begin, end in pairwise([*starts, len(ids)]):
        inside = (np.arange(len(ids)) >= begin) & (np.arange(len(ids)) < end)
        assert not set(ids[inside]) & set(ids[~inside])
        assert not full(inside & (ids != ids[end - 1]))
        assert full(inside) or end == len(ids)


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


def test_what_no_commit_names_is_dropped(copy):
    before = open_spectrum(copy, LAX)
    copy.write_table("spectrum/lam_pct=50/ffff.parquet", before.slice(0, 1))
    copy.write_table("spectrum/ffff.parquet", before.slice(0, 1))
    copy.write("spectrum/note.txt", b"of a user")
    drop_strays(copy)
    assert copy.list("spectrum", ".parquet") == committed_files(copy)
    assert copy.list("spectrum/lam_pct=50") == []
    assert copy.exists("spectrum/note.txt")
    assert open_spectrum(copy, LAX).equals(before)


def test_another_filter_keeps_other_rows_drops_none_and_writes_nothing(spectrum_run):
    _, prepared = spectrum_run
    before = dates(prepared.store)
    sims = sorted(open_spectrum(prepared.store, LAX, columns=[])["text_sim"].to_pylist())
    for threshold, kept in ((-1.0, len(sims)), (sims[len(sims) // 2], None), (1.0, 0)):
        config = FilterConfig(mode="absolute", threshold=threshold)
        table = open_spectrum(prepared.store, config, columns=[])
        assert table.num_rows == prepared.plan.num_rows
        expected = (
            sum(np.float32(s) >= np.float32(threshold) for s in sims) if kept is None else kept
        )
        assert sum(table["kept"].to_pylist()) == expected
        assert set(table["reason"].to_pylist()) <= {"", "text_sim"}
        assert sum(c.total() for c in count_verdicts(table).values()) == prepared.plan.num_rows
    assert dates(prepared.store) == before


def test_a_finished_run_makes_nothing_and_rewrites_nothing(spectrum_run, monkeypatch, capsys):
    from discl_ray.synthesize import rounds

    config, prepared = spectrum_run
    before = dates(prepared.store)
    monkeypatch.setattr(rounds, "run_graph", lambda *_: pytest.fail("started the generator"))
    generate(prepared, config)
    assert dates(prepared.store) == before
    assert "resuming" not in capsys.readouterr().out


def test_the_summary_and_the_plan_in_words_have_the_right_numbers(spectrum_run):
    config, prepared = spectrum_run
    rows = prepared.plan.num_rows
    role = prepared.plan["role"].to_pylist()
    words = describe(prepared, config)
    assert f"{rows} images of {rows // 2} real ones at λ = 0, 0.5 in" in words
    trains, probes = role.count("train"), role.count("probe")
    assert (
        f": {trains} of {trains // 2} train images to train on, {probes} of {probes // 2} val images as probes"
        in words
    )
    assert f"{rows // 2 * 6} guided UNet steps · all of them are made" in words
    assert "time" not in words
    spectrum = open_spectrum(prepared.store, config.filter, columns=[])
    told = made_words(spectrum, made_now=False)
    kept = spectrum.filter(pc.equal(spectrum["role"], "train"))["kept"].to_pylist().count(True)
    assert (
        told
        == f"nothing was left to make: {trains} images to train on, {kept} of them kept, and {probes} probes"
    )
    larger = config.model_copy(
        update={"generator": config.generator.model_copy(update={"size": (64, 320)})}
    )
    assert f"at most {rows * 64 * 320 * 3 / 1e6:.1f} MB of pixels" in describe(prepared, larger)
    table = [line.split() for line in summarize(prepared, config).splitlines()[2:]]
    assert [(line[0], line[1], line[4]) for line in table] == [
        (lam, str(trains // 2), str(probes // 2)) for lam in ("0", "0.5")
    ]
    assert sum(int(line[2]) for line in table) == kept
    assert prepared.store.read_json(MANIFEST)["rows"] == rows


def test_a_changed_byte_is_found(copy, spectrum_run):
    record = next(iter(committed(copy).values()))
    file = Path(copy.path(record["files"][0]["name"]))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"bytes differ from its commit") as caught:
        verify(copy, spectrum_run[1].plan)
    assert str(file) in str(caught.value)
    assert record["shard_id"] in str(caught.value)


def test_shards_that_are_damaged_are_made_again_and_others_are_whole(copy, capsys):
    """Not where the disk fails: what it does not give may be whole."""
    flipped, gone, garbled, *rest = sorted(committed(copy))
    assert drop_damaged(copy) == {flipped, gone, garbled, *rest}
    assert capsys.readouterr().out == ""
    file = Path(copy.path(f"spectrum/{flipped}.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    copy.delete(f"spectrum/{gone}.parquet")
    copy.write(f"commits/{garbled}.json", b'{"shard_id": "another", "files": []}')
    assert drop_damaged(copy) == set(rest)
    (line,) = capsys.readouterr().out.splitlines()
    assert "its images are made again (likewise 2 shards more)" in line
    assert sorted(committed(copy)) == rest


def test_a_disk_that_fails_costs_no_shard(copy, monkeypatch):
    before = sorted(committed(copy))

    def read(self, name):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Store, "read", read)
    with pytest.raises(UnreadableError):
        drop_damaged(copy)
    monkeypatch.undo()
    assert sorted(committed(copy)) == before


def test_a_missing_commit_is_found_and_its_rows_do_not_exist(copy, spectrum_run):
    plan = spectrum_run[1].plan
    shard_id, record = next(iter(committed(copy).items()))
    Path(copy.path(f"commits/{shard_id}.json")).unlink()
    lost = sum(f["rows"] for f in record["files"])
    with pytest.raises(IntegrityError, match=f"{lost} planned images are not committed"):
        verify(copy, plan)
    assert open_spectrum(copy, LAX).num_rows == plan.num_rows - lost
    assert Path(copy.path(record["files"][0]["name"])).exists()


def test_foreign_and_doubled_rows_are_found(copy, spectrum_run):
    plan = spectrum_run[1].plan
    with pytest.raises(IntegrityError, match="1 committed images are not in the plan"):
        verify(copy, plan.slice(1))
    record = next(iter(committed(copy).values()))
    copy.write_json("commits/ffff.json", {**record, "shard_id": "ffff"})
    with pytest.raises(IntegrityError, match="committed twice"):
        verify(copy, plan)


def test_a_directory_with_another_plan_is_refused(copy, spectrum_run):
    from discl_ray.synthesize.layout import lay_out, prepare

    config, prepared = spectrum_run
    ready = prepare(config)._replace(store=copy)
    assert lay_out(config, *ready).plan.equals(prepared.plan)
    with pytest.raises(IntegrityError, match="another plan"):
        lay_out(config, *ready._replace(fingerprint="other"))


def test_test_images_are_neither_sources_nor_planned(spectrum_run):
    store, plan = spectrum_run[1].store, spectrum_run[1].plan
    test = set(read_split(samples_of(store), "test", ["sample_id"])["sample_id"].to_pylist())
    assert test
    assert not test & set(store.read_table("sources.parquet")["sample_id"].to_pylist())
    assert not test & set(plan["sample_id"].to_pylist())


def test_a_source_that_cannot_be_decoded_becomes_rows_with_a_reason(copy, spectrum_run):
    from discl_ray.core.shards import pack, unpack
    from discl_ray.generate.actor import GenerateActor
    from discl_ray.score.actor import ScoreActor

    config, prepared = spectrum_run
    sources = copy.read_table("sources.parquet")
    rows = sources.to_pylist()
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:300]
    rows[1]["image"]["bytes"] = b"no image"
    copy.write_table("sources.parquet", pa.Table.from_pylist(rows, schema=sources.schema))
    plan = prepared.plan.filter(
        pa.compute.is_in(prepared.plan["sample_id"], sources["sample_id"][:3])
    )
    generator = config.generator.model_copy(update={"micro_batch": 4, "threads": 1})
    made = GenerateActor(generator, config.plan.num_steps, copy)(pack("s", plan))
    whole = GenerateActor(generator, config.plan.num_steps, prepared.store)(pack("s", plan))
    shard_id, table = unpack(ScoreActor(config.scorer, prepared.class_prompts, copy)(made))
    assert shard_id == "s"
    assert table.schema.equals(SCORED)
    expected = dict(
        zip(sources["sample_id"].to_pylist(), ["truncated", "not_an_image", None], strict=False)
    )
    for row in table.to_pylist():
        reason = expected[row["sample_id"]]
        assert (row["status"], row["error"]) == (("error", reason) if reason else ("ok", None))
        values = (row["image"]["bytes"], row["text_sim"], row["image_sim"], row["source_text_sim"])
        assert [value is None for value in values] == [reason is not None] * 4
    good = [row["gid"] for row in table.to_pylist() if row["status"] == "ok"]
    with_broken, without = (
        {r["gid"]: r["image"]["bytes"] for r in unpack(m)[1].to_pylist()} for m in (made, whole)
    )
    assert good
    assert all(
        with_broken[gid] == without[gid] for gid in good
    )  # the neighbours of a broken image are as they were


def test_the_plan_of_another_grid_lies_in_another_directory(spectrum_run):
    from discl_ray.synthesize.layout import prepare

    config, prepared = spectrum_run
    assert prepare(config)[0].base == prepared.store.base
    plan = config.plan.model_copy(update={"lams": (0.0, 0.25)})
    assert prepare(config.model_copy(update={"plan": plan}))[0].base != prepared.store.base
    execution = config.generator.model_copy(update={"micro_batch": 2, "actors": 2})
    assert (
        prepare(config.model_copy(update={"generator": execution}))[0].base == prepared.store.base
    )


def test_attempts_make_again_what_fell_short_and_the_best_of_them_is_kept(
    spectrum_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("the driver touched CUDA"))
    first = {
        r["gid"]: r
        for r in open_spectrum(spectrum_run[1].store, LAX, columns=["image"]).to_pylist()
    }
    until = float(np.median([r["text_sim"] for r in first.values()]))
    config = tiny_config(
        tmp_path,
        "plan.attempts=2",
        f"plan.until_text_sim={until}",
        "filter.mode=absolute",
        "filter.threshold=-1",
    )
    ready = prepare(config)
    store = ready.store
    prepared = lay_out(config, *ready)
    signs = generate(prepared, config)
    assert signs
    assert signs[0].peak_bytes > 0
    rows = open_spectrum(store, config.filter, columns=["image", "attempt", "seed"]).to_pylist()
    short = {gid for gid, r in first.items() if np.float32(r["text_sim"]) <= np.float32(until)}
    again = [r for r in rows if r["attempt"] == 1]
    assert {r["gid"] for r in rows if r["attempt"] == 0} == set(first)
    assert all(first[r["gid"]]["image"] == r["image"] for r in rows if r["attempt"] == 0)
    place = lambda r: (r["sample_id"], r["role"], r["lam_pct"], r["replica"])  # noqa: E731
    assert sorted(map(place, again)) == sorted(place(first[gid]) for gid in short)
    best = {}
    for r in rows:
        best[place(r)] = max(best.get(place(r), -2), r["text_sim"])
    assert all((r["text_sim"] == best[place(r)]) == r["kept"] for r in rows)
    assert any(r["kept"] for r in again)
    assert {r["reason"] for r in rows if not r["kept"]} == {"attempt"}
    assert store.read_json(MANIFEST)["rows"] == len(rows)
    assert f"attempt 2 of 2: {len(short)} images fell short" in capsys.readouterr().out
    before = dates(store)
    assert generate(prepared, config) == []
    assert dates(store) == before


def test_what_an_earlier_run_made_is_taken_over_and_only_the_rest_is_made(
    tmp_path, ray_local, capsys, monkeypatch
):
    """One source edited, one gone, one level more: equal gids keep their images, nothing else is made but what is new."""
    from discl_ray.spectrum.reuse import FILE, Reuse

    config = tiny_config(tmp_path)
    first = lay_out(config, *prepare(config))
    generate(first, config)
    images = {
        r["gid"]: r["image"] for r in open_spectrum(first.store, LAX, columns=["image"]).to_pylist()
    }

    def edited(seed, *_):
        listing = digits_lt(config.data, seed)
        rows = [row for row in listing.table.to_pylist() if row["sample_id"] != gone]
        next(r for r in rows if r["sample_id"] == other)["bytes"] = encode_image(
            np.full((32, 32, 3), 90, np.uint8), "png"
        )
        return inline(rows, listing.root, listing.classes)

    sources = sorted(set(first.plan["sample_id"].to_pylist()))
    gone, other = sources[0], sources[1]
    monkeypatch.setitem(READERS, "digits_lt", lambda _config, seed: edited(seed))
    more = tiny_config(tmp_path, "plan.lams=[0,0.25,0.5]")
    second = lay_out(more, *prepare(more))
    kept = {r["gid"] for r in first.plan.to_pylist() if r["sample_id"] not in (gone, other)}
    assert set(second.plan["gid"].to_pylist()) & set(images) == kept
    assert set(second.store.read_table(FILE)["gid"].to_pylist()) == kept
    assert second.store.base != first.store.base
    signs = generate(second, more)
    # said once a second: the last may be missing
    assert 0 < sum(s.images for s in signs) <= second.plan.num_rows - len(kept)
    assert (
        f"{len(kept)} of {second.plan.num_rows} images were made by earlier runs"
        in capsys.readouterr().out
    )
    rows = open_spectrum(second.store, LAX, columns=["image", "text_sim", "status"]).to_pylist()
    assert {r["gid"]: r["image"] for r in rows if r["gid"] in kept} == {
        gid: images[gid] for gid in kept
    }
    assert all(r["status"] == "ok" and r["text_sim"] is not None for r in rows)
    shutil.rmtree(first.store.base)
    assert Reuse.open(second.store).take(kept) == {}  # deleted since: made again


def test_a_damaged_run_beside_it_lends_what_is_whole_and_stops_nothing(spectrum_run, tmp_path):
    prepared = spectrum_run[1]
    lender = Store.at(shutil.copytree(prepared.store.base, tmp_path / "generate-lender"))
    here = replace(prepared, store=Store.at(tmp_path / "generate-here"))
    assert find_reusable(here)["gid"].to_pylist() == sorted(prepared.plan["gid"].to_pylist())
    cut, gone, *whole = committed_files(lender)
    lender.write(cut, lender.read(cut)[:-9])
    lender.delete(gone)
    assert set(find_reusable(here)["file"].to_pylist()) == set(whole)
    lender.write(lender.list("commits")[0], b"{")
    assert find_reusable(here).num_rows == 0


def test_what_is_worth_knowing_before_a_long_job_is_said(small, tmp_path):
    config = small("prompts.negative=" + "blurry " * 100)
    prepared = draft(config, *prepare(config))
    shown = "blurry " * 8 + "blur…"  # 60 characters
    assert warnings(prepared, config) == [
        f"1 prompt is longer than the 16 tokens the generator takes, and its rest is ignored: prompts.negative, '{shown}'"
    ]
    assert warnings(draft(small(), *prepare(small())), small()) == []
    wordy = small('prompts.generation=["the digit {name}' + " on paper" * 20 + '"]', "hard.below=9")
    (told,) = warnings(draft(wordy, *prepare(wordy)), wordy)
    count = len(draft(wordy, *prepare(wordy)).plan["prompt"].unique())
    assert told.startswith(
        f"{count} prompts are longer than the 16 tokens the generator takes, and the rest of each is ignored: class '"
    )
    assert told.count("'the digit ") == min(count, 3)
    assert told.endswith("more") is (count > 3)
    large = small("generator.size=128")
    assert warnings(draft(large, *prepare(large)), large) == []
    folder = shutil.copytree(GENERATOR, tmp_path / "model")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(
        json.dumps(
            {**json.loads(file.read_text()), "_class_name": "PNDMScheduler", "clip_sample": True}
        )
    )
    other = small(f"generator.model={folder}")
    kind, clipped = warnings(draft(other, *prepare(other)), other)
    assert "is of a PNDMScheduler: generator.sampler = ddim takes its noise schedule" in kind
    assert "clip_sample = True: not followed" in clipped
    assert check_diffusion(other).split("\n") == [
        str(folder),
        kind,
        clipped,
    ]  # what the doctor says


def test_the_embedded_generator_refuses_another_data_set_unless_it_is_told(small):
    config = small()
    other = config.model_copy(update={"data": ImageFolderConfig(root="/birds/of/nowhere")})
    with pytest.raises(
        ModelError,
        match=r"embedded knows only digits, data\.name = imagefolder.*allow_embedded=true",
    ):
        prepare(other)
    allowed = other.model_copy(
        update={"generator": other.generator.model_copy(update={"allow_embedded": True})}
    )
    with pytest.raises(DataError, match=r"data\.root = '/birds/of/nowhere': no such folder"):
        prepare(allowed)
