"""Whole runs of phase 1 on disk: laid out, committed, resumed, opened, folded, verified."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.scale_steps import (
    CLASSES,
    CONF,
    GRID,
    IMAGE_BYTES,
    LEVELS,
    SMALL_BYTES,
    Step,
    config,
    hard_samples,
    open_for_scores,
    photograph,
    plan_of,
    scored,
    write_shards,
    written_run,
)
from discl_ray.commands.generate import job
from discl_ray.config import Config, load_config
from discl_ray.core.ids import sha256
from discl_ray.core.run_directory import CONFIG, MANIFEST, SHARDS_FILE, SOURCES, locked
from discl_ray.core.schema import FILE, SAMPLES
from discl_ray.core.shards import Shard
from discl_ray.core.storage import Store, parquet_bytes
from discl_ray.data.listing import REJECTS, read_files, set_column
from discl_ray.data.samples import PART, Samples
from discl_ray.data.scan import scan
from discl_ray.plan.prompts import Prompts
from discl_ray.report.card import VERDICTS, write_verdicts
from discl_ray.report.sheet import contact_sheet, made_from, pick_shown
from discl_ray.spectrum.commit import spectrum_rows, write_shard
from discl_ray.spectrum.fold import drop_folds, fold
from discl_ray.spectrum.open import Spectrum
from discl_ray.spectrum.read import open_spectrum, with_images
from discl_ray.spectrum.records import Commit, CommittedFile, record_name
from discl_ray.spectrum.remedies import DATA
from discl_ray.spectrum.reuse import FILE as REUSED_FILE
from discl_ray.spectrum.verify import drop_damaged, verify
from discl_ray.synthesize.layout import find_reusable, lay_out
from discl_ray.synthesize.planned import read_planned
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.run import Run, prepare
from discl_ray.synthesize.summary import summarize
from discl_ray.train.images.table import table_rows

FOLDERS = 99
"""Classes of a data set on disk; every tenth photograph is of val, of whatever class."""

REUSED_SHARE = 0.9
"""Of the images of a run that an earlier one has made."""

OLDER_ROWS = 10_000
"""Images of a file of that run."""


# -- a run as `make generate` makes it, all of whose images are committed


def run_config(folder: Path) -> Config:
    """A run on the image folder that `write_run` makes."""
    overrides = [
        f"data.root={folder / 'data'}",
        "data.test_fraction=0",
        f"run.root={folder / 'runs'}",
        "hard.below=1000000",
        "hard.probe_sources=1000000",
        "generator.allow_embedded=true",
        "prompts.force=true",
        *GRID,
    ]
    return load_config(CONF / "imagefolder.yaml", overrides)


def write_photographs(folder: Path, count: int, image: bytes) -> None:
    """Class folders of train and val; all images differ, by bytes that no decoder looks at."""
    for number in range(count):
        split = "val" if number % 10 == 9 else "train"
        name = f"{split}/class {number % FOLDERS:02d}/{number:08d}.png"
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image + number.to_bytes(8, "big"))


def write_run(folder: Path, rows: int, size: int = IMAGE_BYTES) -> None:
    """Photographs, the plan of `rows` images of them, and all of these committed."""
    image = photograph(size)
    write_photographs(folder / "data", max(1, rows // len(LEVELS)), image)
    run = lay_out(prepare(run_config(folder)))
    for shard in _shards(run.store):
        made = scored(shard.plan.read(run.store), image=image)
        write_shard(run.store, shard.shard_id, made, run.samples.classes)


def write_small_run(folder: Path, rows: int) -> None:
    """The same with smaller images."""
    write_run(folder, rows, SMALL_BYTES)


def _shards(store: Store) -> Iterator[Shard]:
    shards = read_planned(store).shards
    for row in range(shards.num_rows):
        yield Shard.of(shards.slice(row, 1))


def _unplanned(folder: Path, _count: int) -> Config:
    """The configuration of a run of which nothing is left but the commits and their files."""
    whole = run_config(folder)
    run = prepare(whole)
    for name in (SHARDS_FILE, CONFIG, REUSED_FILE, MANIFEST, VERDICTS):
        run.store.delete(name)
    for name in (*run.store.list("plan"), *run.store.list(SOURCES)):
        run.store.delete(name)
    drop_folds(run.store)
    return whole


def _closed(folder: Path, _count: int) -> Run:
    """The run, finished, as generate leaves it."""
    run = prepare(run_config(folder))
    if not run.store.exists(MANIFEST):
        with locked(run.store):
            generate(lay_out(run))
    fold(run.store)
    return run


def _closed_store(folder: Path, count: int) -> Store:
    return _closed(folder, count).store


def _unfolded_store(folder: Path, count: int) -> Store:
    store = _closed_store(folder, count)
    drop_folds(store)
    return store


def _to_show(folder: Path, count: int) -> tuple[Store, pa.Table]:
    """A run, and the real images of its contact sheet."""
    run = _closed(folder, count)
    run.store.delete(VERDICTS)
    return run.store, run.samples.with_images(pick_shown(run.hard))


def show_sheet(work: tuple[Store, pa.Table]) -> None:
    """The end of `make generate`: what was made is opened, counted and shown."""
    store, shown = work
    spectrum = open_spectrum(store, config().filter, [FILE.name])
    write_verdicts(store, spectrum)
    made = made_from(spectrum, shown)
    contact_sheet(with_images(store, made), shown)
    summarize(spectrum)


def verify_whole(store: Store) -> None:
    """Every byte read and compared."""
    if verify(store).damaged:
        raise AssertionError("a fabricated run is damaged")


def _to_scan(folder: Path, count: int) -> tuple[pa.Table, Store]:
    """Listed photographs and their root."""
    root = Store.at(folder / "data")
    samples = prepare(run_config(folder)).samples.table
    images = samples.slice(0, count // len(LEVELS))
    paths = [image["path"] for image in images["image"].to_pylist()]
    inside = [path.removeprefix(f"{root.base}/") for path in paths]
    return pa.table({"sample_id": images["sample_id"], "path": inside}), root


# -- a run whose real images are files that nobody reads


def fresh_run(folder: Path, count: int) -> Run:
    """A run of `count` images to make, of which nothing is on disk."""
    sources = hard_samples(max(1, count // len(LEVELS)))
    return _run_of(folder, Store.at(folder / "samples-00000000"), sources)


def _run_of(folder: Path, samples: Store, sources: pa.Table) -> Run:
    whole = config()
    store = Store.at(folder / "generate-00000000")
    if store.local is not None:
        shutil.rmtree(store.local, ignore_errors=True)
    read = Samples(
        store=samples,
        table=sources,
        classes=_class_names(),
        fingerprint="f" * 64,
        rejects=REJECTS.empty_table(),
    )
    return Run(
        config=whole,
        store=store,
        fingerprint="f" * 32,
        samples=read,
        prompts=Prompts(config=whole.prompts),
        picked=sources,
    )


def laid_out(folder: Path, count: int) -> None:
    """A run that is planned."""
    lay_out(fresh_run(folder, count))


def read_slices(store: Store) -> None:
    """What the workers read of plan and sources, one shard after the other."""
    for shard in _shards(store):
        shard.plan.read(store)
        if shard.sources is not None:
            shard.sources.read(store, ["sample_id", "image"])


def write_older_run(folder: Path, count: int) -> None:
    """A run beside the one to make, that has made nine tenths of its images."""
    store = Store.at(folder / "generate-ffffffff")
    sources = fresh_run(folder, count).hard
    part = max(1, int(REUSED_SHARE * sources.num_rows))
    made = spectrum_rows(scored(plan_of(sources.slice(0, part)), image=None), _class_names())
    for number, begin in enumerate(range(0, made.num_rows, OLDER_ROWS)):
        _commit(store, f"{number:016x}", made.slice(begin, OLDER_ROWS))
    fold(store)


def _commit(store: Store, shard_id: str, rows: pa.Table) -> None:
    """A shard in one row group: written sooner than as it should be, and the fold is the same."""
    data = parquet_bytes(rows, [0])
    file = CommittedFile(f"{DATA}/{shard_id}.parquet", rows.num_rows, sha256(data), len(data))
    store.write(file.name, data)
    record = Commit(shard_id, (file,), {"ok": rows.num_rows})
    store.write_json(record_name(shard_id), asdict(record))


def _class_names() -> tuple[str, ...]:
    """Of fabricated tables, by label."""
    return tuple(f"class {number:04d}" for number in range(CLASSES))


def reuse(run: Run) -> None:
    """What an earlier run has made of a new run's images."""
    if not find_reusable(run).num_rows:
        raise AssertionError("nothing is reusable")


# -- a run whose data set holds the bytes of its images


def write_bytes(folder: Path, count: int) -> None:
    """SAMPLES with bytes, as a reader of Parquet files leaves them."""
    store = Store.at(folder / "samples-00000000")
    image = photograph(IMAGE_BYTES)
    sources = hard_samples(count)
    for number, begin in enumerate(range(0, count, PART)):
        rows = sources.slice(begin, PART)
        images = _image_column(pa.repeat(image, rows.num_rows))
        part = set_column(rows, "image", images).cast(SAMPLES)
        store.write_table(f"train/part-{number:05d}.parquet", part)


def _image_column(encoded: pa.Array) -> pa.StructArray:
    paths = pa.nulls(len(encoded), pa.string())
    columns = [encoded.cast(pa.binary()), paths]
    return pa.StructArray.from_arrays(columns, fields=list(SAMPLES.field("image").type))


def _with_bytes(folder: Path, count: int) -> Run:
    """The run of a data set that holds bytes, of which nothing is on disk."""
    sources = hard_samples(count)
    nowhere = _image_column(pa.nulls(count, pa.binary()))
    held = set_column(sources, "image", nowhere).cast(SAMPLES)
    return _run_of(folder, Store.at(folder / "samples-00000000"), held)


def _copied(folder: Path, count: int) -> Store:
    return lay_out(_with_bytes(folder, count)).store


def _of_run(name: str, title: str, load: Any, run: Any) -> Step:
    """A step on the run that `write_run` makes."""
    return Step(
        name=name, title=title, count=13_100, unit="images", prepare=write_run, load=load, run=run
    )


RUNS = (
    _of_run(
        "driver",
        "generate's driver, images of 100 KB: draft, nothing left to make, sheet, summary",
        _unplanned,
        job,
    ),
    _of_run("open_scores", "opening it for its scores", _closed_store, open_for_scores),
    _of_run("open_unfolded", "the same without a fold", _unfolded_store, open_for_scores),
    _of_run("sheet", "the end of generate: scores, verdicts, sheet, summary", _to_show, show_sheet),
    _of_run("fold", "folding all of its shards", _unfolded_store, fold),
    _of_run("verify", "verifying every byte of it", _closed_store, verify_whole),
    _of_run(
        "index",
        "the index of the training table",
        lambda folder, count: Spectrum.open(_closed_store(folder, count)),
        lambda spectrum: table_rows(spectrum, config().filter),
    ),
    _of_run(
        "scan",
        "its real images, a tenth as many, read, hashed and decoded by one process",
        _to_scan,
        lambda work: scan(work[0], work[1], read_files),
    ),
    Step(
        name="small_driver",
        title="generate's driver, images of 10 KB",
        count=13_100,
        unit="images",
        prepare=write_small_run,
        load=_unplanned,
        run=job,
    ),
    Step(
        name="resume",
        title="sizes and footers of many shards compared, the last hundredth not folded",
        count=1_000,
        unit="shards",
        prepare=write_shards,
        load=written_run,
        run=drop_damaged,
    ),
    Step(
        name="lay_out",
        title="sources, plan and shards written in parts",
        count=100_000,
        load=fresh_run,
        run=lay_out,
    ),
    Step(
        name="slices",
        title="plan and sources of every shard, read one by one",
        count=100_000,
        prepare=laid_out,
        load=written_run,
        run=read_slices,
    ),
    Step(
        name="reuse",
        title="what an earlier run has made already, nine tenths",
        count=100_000,
        prepare=write_older_run,
        load=fresh_run,
        run=reuse,
    ),
    Step(
        name="copy",
        title="plan and sources of a data set that holds bytes, 100 KB each, in one process",
        count=500,
        unit="real images",
        prepare=write_bytes,
        load=_with_bytes,
        run=lay_out,
    ),
    Step(
        name="slices_bytes",
        title="plan and sources of every shard of it, read one by one",
        count=500,
        unit="real images",
        prepare=write_bytes,
        load=_copied,
        run=read_slices,
    ),
)
