"""Steps that `benchmarks/scale.py` measures on fabricated tables: plan, splits, verdicts, graph.

The other steps are made from the same tables: `scale_data`, `scale_runs`, `scale_train`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from discl_ray.cluster.demand import Cluster, Node, Stage, demand
from discl_ray.cluster.placement import Placement
from discl_ray.config import Config, load_config
from discl_ray.core.images import encode_image
from discl_ray.core.lam import REAL
from discl_ray.core.schema import PLAN, SAMPLES, SCORED
from discl_ray.core.storage import Store
from discl_ray.data.config import ImageFolderConfig
from discl_ray.data.listing import LISTING, Listing, read_files
from discl_ray.data.scan import SCANNED
from discl_ray.data.verdicts import judge_rows
from discl_ray.plan.grid import (
    Grid,
    PlanSize,
    next_attempt,
    plan_of_blocks,
    plan_of_sources,
    source_blocks,
)
from discl_ray.plan.prompts import Prompts
from discl_ray.spectrum.commit import write_shard
from discl_ray.spectrum.filter import judge
from discl_ray.spectrum.fold import fold
from discl_ray.spectrum.read import count_verdicts, open_spectrum
from discl_ray.spectrum.records import committed_ids
from discl_ray.synthesize.graph import Step as GraphStage
from discl_ray.synthesize.graph import quiet_ray_data, spectrum_graph
from discl_ray.synthesize.planned import plan_part, write_part

LEVELS = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90)
CLASSES = 1000
IMAGE_BYTES = 100_000
"""Of an encoded photograph."""

SMALL_BYTES = IMAGE_BYTES // 10
"""Of an image of the run that is made with smaller ones, to compare."""


def nothing(folder: Path, count: int) -> None:
    """A step that makes what it needs in `load`."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the path, at two counts."""

    name: str
    title: str
    count: int
    """The smaller count; the larger is ten times it."""
    unit: str = "rows"
    prepare: Callable[[Path, int], None] = nothing
    """Writes files, in another process."""
    load: Callable[[Path, int], Any]
    """What the step gets; not measured."""
    run: Callable[[Any], Any]


def config() -> Config:
    """The default configuration with the ten levels of the paper's grids, one replica."""
    return load_config(CONF / "digits_lt.yaml", list(GRID))


CONF = Path(__file__).resolve().parents[1] / "conf"

GRID = (
    f"plan.lams=[{','.join(f'{level / REAL:g}' for level in LEVELS)}]",
    "plan.num_steps=50",
    "plan.replicas=1",
    # About 310 images a shard.
    "plan.shard_steps=8500",
)
"""Overrides of a plan that makes ten images of a real one."""


def hexes(count: int, digits: int, salt: int) -> pa.Array:
    """Distinct hexadecimal texts."""
    rng = np.random.default_rng([count, digits, salt])
    numbers = rng.integers(2**62, size=(count, 2))
    return pa.array([f"{a:032x}{b:032x}"[:digits] for a, b in numbers.tolist()])


def hard_samples(count: int) -> pa.Table:
    """SAMPLES rows of sources, by path."""
    label = np.arange(count) % CLASSES
    paths = pa.array([f"/photographs/class_{c:04d}/{i:08d}.jpg" for i, c in enumerate(label)])
    image = pa.StructArray.from_arrays(
        [pa.nulls(count, pa.binary()), paths], fields=list(SAMPLES.field("image").type)
    )
    columns = {
        "sample_id": paths.cast(pa.string()),
        "image": image,
        "label": pa.array(label, pa.int32()),
        "class_name": pa.array([f"class {c:04d}" for c in label.tolist()]),
        "split": pa.repeat("train", count),
        "domain": pa.nulls(count, pa.string()),
        "group": pa.nulls(count, pa.string()),
        "width": pa.array(np.full(count, 500), pa.int32()),
        "height": pa.array(np.full(count, 375), pa.int32()),
        "sha256": hexes(count, 64, 1),
    }
    return pa.table(columns, schema=SAMPLES)


def plan_of(sources: pa.Table) -> pa.Table:
    """The PLAN of some sources at every level."""
    return plan_of_blocks(sources, grid_of(config()))


def scored(plan: pa.Table, *, image: bytes | None) -> pa.Table:
    """SCORED of a plan: every image made, half of them with a low score."""
    rows = plan.num_rows
    rng = np.random.default_rng(rows)
    similar = rng.uniform(0, 0.4, rows).astype(np.float32)
    encoded = pa.nulls(rows, pa.binary()) if image is None else pa.repeat(image, rows)
    image_type = SCORED.field("image").type
    images = pa.StructArray.from_arrays(
        [encoded.cast(pa.binary()), pa.nulls(rows, pa.string())], fields=list(image_type)
    )
    made: dict[str, Any] = {
        "image": images,
        "status": pa.repeat("ok", rows),
        "error": pa.nulls(rows, pa.string()),
        "generator": pa.repeat("model", rows),
        "revision": pa.repeat("main", rows),
        "dtype": pa.repeat("bfloat16", rows),
        "micro_batch": pa.array(np.full(rows, 64), pa.int32()),
    }
    for name in ("text_sim", "image_sim", "source_text_sim"):
        made[name] = pa.array(similar)
    for name in ("text_rank", "source_text_rank"):
        made[name] = pa.array(rng.integers(1, 9, rows), pa.int32())
    columns = {name: plan[name] for name in PLAN.names} | made
    return pa.table(columns, schema=SCORED)


def photograph(size: int) -> bytes:
    """An image of noise, of `size` bytes or a little more."""
    side = math.ceil(math.sqrt(size / 3))
    pixels = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    return encode_image(pixels, "png")


def write_shards(folder: Path, shards: int) -> None:
    """A run of many shards of one source each without images, 99 of 100 folded."""
    store = Store.at(folder / "generate-00000000")
    plan = plan_of(hard_samples(shards))
    names = tuple(f"class {c:04d}" for c in range(CLASSES))
    made = scored(plan, image=None)
    for number in range(shards):
        part = made.slice(number * len(LEVELS), len(LEVELS))
        write_shard(store, f"{number:016x}", part, names)
        if number == shards * 99 // 100:
            fold(store)


def written_run(folder: Path, _count: int) -> Store:
    """The run that `write_run` made."""
    return Store.at(folder / "generate-00000000")


def open_for_scores(store: Store) -> None:
    """Counts of verdicts, as the summary shows them."""
    committed_ids(store)
    count_verdicts(open_spectrum(store, config().filter, columns=[]))


def plan_in_parts(work: tuple[Store, pa.Table]) -> None:
    """A plan made, written and read again, of which no two parts are in memory at once."""
    store, sources = work
    grid = grid_of(config())
    sizes = grid.block_sizes(sources.num_rows)
    for number, block in enumerate(source_blocks(sources, sizes)):
        write_part(store, plan_part(number), plan_of_sources(block, grid))
    for name in store.list("plan", ".parquet"):
        store.read_table(name)


def grid_of(whole: Config) -> Grid:
    """What is made of each source."""
    prompts = Prompts(config=whole.prompts)
    return Grid(config=whole.plan, prompts=prompts, fingerprint="f" * 32, base_seed=0)


def listed(_folder: Path, count: int) -> tuple[Listing, pa.Table]:
    """A listing of files without splits, and what reading them found: one in twenty is a copy."""
    samples = hard_samples(count)
    classes = np.arange(count) % CLASSES
    columns = {
        "sample_id": samples["sample_id"],
        "path": samples["sample_id"],
        "row": pa.nulls(count, pa.int64()),
        "class_key": pa.array([f"class {c:04d}" for c in classes.tolist()]),
        **{name: pa.nulls(count, pa.string()) for name in ("split", "domain", "group")},
    }
    rows = np.arange(count)
    # A copy lies in the same class, a thousand files before.
    copied = (rows % 20 == 19) & (rows >= CLASSES)
    original = np.where(copied, rows - CLASSES, rows)
    found = {
        "sample_id": samples["sample_id"],
        "width": samples["width"],
        "height": samples["height"],
        "sha256": samples["sha256"].take(pa.array(original)),
        "reason": pa.nulls(count, pa.string()),
        "detail": pa.nulls(count, pa.string()),
    }
    listing = Listing(
        table=pa.table(columns, schema=LISTING),
        root=Store.at("/photographs"),
        read=read_files,
        stamp="",
    )
    return listing, pa.table(found, schema=SCANNED)


def draw_splits(work: tuple[Listing, pa.Table]) -> None:
    """Which files are used, and in which split."""
    listing, found = work
    verdicts = judge_rows(ImageFolderConfig(root="/photographs"), listing, found, listing.keys, 0)
    verdicts.rejects(listing)


def _again(made: pa.Table) -> pa.Table:
    plan = config().plan.model_copy(update={"until_text_sim": 0.2})
    return next_attempt(made, plan, fingerprint="f" * 32, base_seed=0)


def _made_without_images(_folder: Path, count: int) -> pa.Table:
    return scored(plan_of(hard_samples(count // len(LEVELS))), image=None)


class Passing:
    """A generator or scorer that makes nothing."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The shard as it came."""
        return batch


def rows_of(batch: pa.Table) -> pa.Table:
    """What a commit answers."""
    return pa.table({"rows": [batch.num_rows]})


def graph_of(_folder: Path, shards: int) -> Any:
    """The graph of phase 1 over so many shards, with one process a stage."""
    import ray

    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        ignore_reinit_error=True,
    )
    quiet_ray_data()
    stages = (Stage(name="generator", actors=1), Stage(name="scorer", actors=1))
    crew = demand(stages, Cluster((Node(cpus=3),)))
    blocks = [pa.table({"shard_id": [f"{number:016x}"]}) for number in range(shards)]
    passing = GraphStage(Passing, ())
    return spectrum_graph(
        blocks, make=passing, score=passing, commit=rows_of, in_flight=2, placement=Placement(crew)
    )


def follow_graph(graph: Any) -> None:
    """Runs a graph to its end, as a job's driver does."""
    for _ in graph.iter_rows():
        pass


PLANS = (
    Step(
        name="graph",
        title="the driver of a graph whose generators make nothing",
        count=100,
        unit="shards",
        load=graph_of,
        run=follow_graph,
    ),
    Step(
        name="plan",
        title="plan, by columns",
        count=100_000,
        load=lambda _folder, count: hard_samples(count // len(LEVELS)),
        run=lambda sources: PlanSize.of(plan_of(sources)),
    ),
    Step(
        name="plan_in_parts",
        title="a plan made, written and read again, in parts",
        count=100_000,
        load=lambda folder, count: (Store.at(folder), hard_samples(count // len(LEVELS))),
        run=plan_in_parts,
    ),
    Step(
        name="splits",
        title="splits, duplicates and rejects of a listing",
        count=100_000,
        unit="files",
        load=listed,
        run=draw_splits,
    ),
    Step(
        name="next_attempt",
        title="the next attempt's plan, half of the images fell short",
        count=100_000,
        load=_made_without_images,
        run=_again,
    ),
    Step(
        name="judge",
        title="verdicts and their counts",
        count=100_000,
        load=_made_without_images,
        run=lambda made: count_verdicts(judge(made, config().filter)),
    ),
    Step(
        name="open_shards",
        title="opening a run of many shards for its scores, the last hundredth not folded",
        count=1_000,
        unit="shards",
        prepare=write_shards,
        load=written_run,
        run=open_for_scores,
    ),
)
