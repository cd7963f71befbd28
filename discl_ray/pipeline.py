# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""Phase 1 as one Ray Data graph: PLAN shards -> generator actors -> scorer actors -> committed Parquet.

Rerunning is resuming: shards with a commit record are left out, the others are made whole, and their bytes are the same whoever
makes them and whenever. When every shard is committed, nothing is started at all.
"""

from __future__ import annotations

import logging
import uuid
import warnings as warnings_
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from discl_ray.calls import AGAIN
from discl_ray.checks import MODELS, Check, crew, refuse
from discl_ray.config import PHASE_1, Config, dump_config, part_hash
from discl_ray.core.filter import FilterConfig
from discl_ray.core.lam import pct_to_lam
from discl_ray.core.schema import PLAN
from discl_ray.core.settings import identity
from discl_ray.core.shards import pack, unpack
from discl_ray.core.storage import Store
from discl_ray.data import Samples, read_samples
from discl_ray.demand import Demand
from discl_ray.errors import IntegrityError
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.folder import (
    check_steps,
    cut_prompts,
    find_model,
    fingerprint,
    native_side,
    scheduler_notes,
    working_size,
)
from discl_ray.generate.journal import Life
from discl_ray.generate.reuse import FILE as REUSED_FILE
from discl_ray.generate.reuse import REUSED, gids_by_file
from discl_ray.hard import hard_samples, predictions_folder, read_predictions
from discl_ray.nearest import CONFIG
from discl_ray.nearest import PLAN as PLAN_FILE
from discl_ray.placement import Placement, placed
from discl_ray.plan import PlanSize, make_plan, next_attempt
from discl_ray.preview import pick_sources, preview_plan
from discl_ray.prompts import Prompts, load_prompts
from discl_ray.run import MANIFEST, run_store
from discl_ray.runtime import ray_session, start_beside_driver
from discl_ray.score.folder import scorer_fingerprint, scorer_warnings
from discl_ray.spectrum import (
    SAMPLES_AT,
    committed,
    committed_ids,
    count_verdicts,
    drop_damaged,
    drop_strays,
    open_spectrum,
    verify,
    write_shard,
)
from discl_ray.watch import Progress, Pulse, Sight, Watchdog, sight_of

SOURCES = "sources.parquet"

REWRITTEN = "is cut short or garbled, and written again"

RATES = "rates.json"
"""UNet steps per second measured in earlier runs under one root, by generator fingerprint and micro-batch."""

NAMED, BEGINNING = 3, 60
"""Prompts that are too long which a warning names, and their first characters that it shows."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A generate run that has been planned: where it lies, its samples, sources and plan."""

    store: Store
    samples: Samples
    prompts: Prompts
    hard: pa.Table
    """SAMPLES rows of the sources, with bytes or a path."""
    plan: pa.Table
    class_prompts: tuple[str, ...]
    fingerprint: str


class Ready(NamedTuple):
    """A run that can be planned."""

    store: Store
    fingerprint: str
    """Of the generator."""
    samples: Samples
    prompts: Prompts


def prepare(config: Config, also: Sequence[tuple[str, Check]] = ()) -> Ready:
    """The run's store, the generator's fingerprint and the samples; first what the job refuses (`also` its own checks), then the data.

    Raises ModelError, SetupError, DataError, or ConfigError if the prompts' file or the class names cannot be used.
    """
    refuse(config, (*MODELS, *also))
    prompts = load_prompts(config.prompts)
    folder = find_model(config.generator.model, config.generator.revision, config.generator.variant)
    print_ = fingerprint(config.generator, folder, config.plan.num_steps)
    scorer = scorer_fingerprint(config.scorer)
    runs = run_store(config.run.root, config.run.name, "")
    samples = read_samples(config.data, config.seed, runs, num_cpus=config.run.num_cpus)
    prompts.check(samples.classes)
    before = [print_, scorer, samples.fingerprint, prompts.fingerprint]
    if config.hard.rule == "confidence":
        before.append(predictions_store(config, samples, prompts).name)
    hash8 = _hash8(config, *before)
    return Ready(run_store(config.run.root, config.run.name, f"generate-{hash8}"), print_, samples, prompts)


def predictions_store(config: Config, samples: Samples, prompts: Prompts) -> Store:
    """Where the predictions lie that hardness by confidence goes by."""
    folder = predictions_folder(
        config.hard,
        samples=samples.fingerprint,
        scorer=scorer_fingerprint(config.scorer),
        prompts=[prompts.filter(name) for name in samples.classes],
        classifier={**identity(config.train.start()), "seed": config.seed},
    )
    return run_store(config.run.root, config.run.name, folder)


def _hash8(config: Config, *before: str) -> str:
    """Names what phase 1 makes: its configuration, both models' contents and the samples'."""
    return part_hash(config, PHASE_1, *before)[:8]


def draft(config: Config, store: Store, generator_fingerprint: str, samples: Samples, prompts: Prompts) -> Prepared:
    """Hard samples and plan of a run; writes nothing.

    Raises DataError if there is nothing to make.
    """
    by_confidence = config.hard.rule == "confidence"
    predictions = read_predictions(predictions_store(config, samples, prompts)) if by_confidence else None
    hard = samples.with_images(hard_samples(samples.table, config.hard, predictions))
    plan = make_plan(hard, config.plan, prompts, fingerprint=generator_fingerprint, base_seed=config.seed)
    return Prepared(
        store=store,
        samples=samples,
        prompts=prompts,
        hard=hard,
        plan=plan,
        class_prompts=tuple(prompts.filter(name) for name in samples.classes),
        fingerprint=generator_fingerprint,
    )


def draft_preview(full: Prepared, config: Config) -> tuple[Prepared, Config]:
    """A small run out of the drafted full one, in a directory of its own, and the configuration it is made with; writes nothing.

    Raises ConfigError if its levels do not fit the plan's steps, or ModelError if they do not fit the model's.
    """
    sources = pick_sources(full.hard, config.preview.sources)
    parts = {
        "plan": preview_plan(config.plan, config.preview),
        "hard": config.hard.model_copy(update={"probe_sources": 0}),
    }
    small = config.model_copy(update=parts)
    generator = config.generator
    folder = find_model(generator.model, generator.revision, generator.variant)
    check_steps(generator, folder, small.plan.num_steps, small.plan.levels)
    plan = make_plan(sources, small.plan, full.prompts, fingerprint=full.fingerprint, base_seed=small.seed)
    before = (full.fingerprint, scorer_fingerprint(config.scorer), full.samples.fingerprint, full.prompts.fingerprint)
    hash8 = _hash8(small, *before, str(config.preview.sources))  # the grid is in small.plan
    store = run_store(config.run.root, config.run.name, f"preview-{hash8}")
    return replace(full, store=store, hard=sources, plan=plan), small


def write_layout(prepared: Prepared, config: Config) -> None:
    """Writes what a run is made from: configuration, where its samples lie, sources, and last the plan. The plan is written once.

    All of it follows from the data and the configuration, so what has been damaged is written again.

    Raises IntegrityError if the directory holds another plan.
    """
    store, plan = prepared.store, prepared.plan
    planned = _stands(store, PLAN_FILE)
    if planned:
        _check_plan(store, plan)
        planned = _holds(store, PLAN_FILE, plan)
    place = {"directory": prepared.samples.store.name}
    placed = _stands(store, SAMPLES_AT) and store.read_json(SAMPLES_AT) == place  # moved data is the same, at other paths
    if not (placed and _holds(store, SOURCES, prepared.hard)):
        store.write_json(SAMPLES_AT, place)
        store.write_table(SOURCES, prepared.hard)
    if not (planned and _is_mapping(store, CONFIG)):
        store.write(CONFIG, dump_config(config).encode())
    if not (planned and _stands(store, REUSED_FILE)):
        store.write_table(REUSED_FILE, find_reusable(prepared))
    if not planned:
        store.write_table(PLAN_FILE, plan)


def _check_plan(store: Store, plan: pa.Table) -> None:
    """Raises IntegrityError if the run was made by another plan."""
    there = store.read_table(PLAN_FILE)
    if "gid" in there.column_names and not there["gid"].equals(plan["gid"]):
        raise IntegrityError(
            f"{store.path(PLAN_FILE)}: holds another plan than this data gives; delete it if it was damaged and "
            f"{AGAIN}, or name another run.name"
        )


def _holds(store: Store, name: str, table: pa.Table) -> bool:
    """Whether a file is there and holds a table, columns that it was written without left out; says so where it does not."""
    if not _stands(store, name):
        return False
    there = store.read_table(name)
    known = set(there.column_names) <= set(table.column_names)
    if known and there.equals(table.select(there.column_names)):
        return True
    print(f"  {store.path(name)}: {REWRITTEN}", flush=True)
    return False


def _stands(store: Store, name: str) -> bool:
    """Whether a file is there and whole; says so where it is not whole."""
    if not store.exists(name):
        return False
    sound = store.sound(name)
    if not sound:
        print(f"  {store.path(name)}: {REWRITTEN}", flush=True)
    return sound


def _says(store: Store, name: str, known: Mapping[str, Any]) -> bool:
    """Whether a file of JSON is there and says what is known, maybe among other things."""
    said = store.read_json(name) if _stands(store, name) else None
    return isinstance(said, dict) and {**said, **known} == said


def _is_mapping(store: Store, name: str) -> bool:
    """Whether a file of YAML is there and says something."""
    try:
        return store.exists(name) and isinstance(yaml.safe_load(store.read(name)), dict)
    except (yaml.YAMLError, ValueError):
        return False


def find_reusable(prepared: Prepared) -> pa.Table:
    """REUSED: planned images that another run of this name has made; what is damaged there is left out, and made again here."""
    runs = Store(prepared.store.filesystem, prepared.store.base.rsplit("/", 1)[0])
    wanted, found = set(prepared.plan["gid"].to_pylist()), {}
    for directory in runs.folders():
        if not directory.startswith(("generate-", "preview-")):
            continue
        for file, gids in gids_by_file(runs.within(directory)):
            found.update((gid, (directory, file)) for gid in gids if gid in wanted)
    rows = [{"gid": gid, "directory": directory, "file": file} for gid, (directory, file) in sorted(found.items())]
    return pa.Table.from_pylist(rows, schema=REUSED)


def lay_out(config: Config, store: Store, generator_fingerprint: str, samples: Samples, prompts: Prompts) -> Prepared:
    """Drafts a run and writes its layout."""
    prepared = draft(config, store, generator_fingerprint, samples, prompts)
    write_layout(prepared, config)
    return prepared


def describe(prepared: Prepared, config: Config, hands: Demand | None = None) -> str:
    """The plan in words: rows by role, and of what is not made yet the steps and the time with so many generators; disk."""
    size = PlanSize.of(prepared.plan)
    generator = config.generator
    height, width = working_size(generator, find_model(generator.model, generator.revision, generator.variant))
    megabytes = size.rows * height * width * 3 / 1e6  # an upper bound: margins are cut off, and pixels are compressed
    levels = ", ".join(f"{pct_to_lam(p):g}" for p in config.plan.levels)
    return (
        f"  {size.rows} images of {size.sources} real ones at λ = {levels} in {size.shards} shards: {_roles(prepared.plan)}\n"
        f"  {_work(prepared, config, hands)} · at most {megabytes:.1f} MB of pixels on disk"
    )


def _roles(plan: pa.Table) -> str:
    """What a plan's images are for, and of how many real ones they are made."""
    trains, probes = (PlanSize.of(plan.filter(pc.equal(plan["role"], role))) for role in ("train", "probe"))
    words = f"{trains.rows} of {trains.sources} train images to train on"
    return f"{words}, {probes.rows} of {probes.sources} val images as probes" if probes.rows else f"{words}, no probes"


def _work(prepared: Prepared, config: Config, hands: Demand | None) -> str:
    """What of a plan is left to make, and how long that takes."""
    size = PlanSize.of(prepared.plan)
    left = PlanSize.of(_without(prepared.plan, committed_ids(prepared.store)))
    steps = f"{size.unet_steps} guided UNet steps"
    if not left.rows:
        return f"{steps} · all of them are made"
    if left.rows < size.rows:
        steps = f"{steps}, {left.unet_steps} of them left"
    rate = _rates(config).get(rate_key(prepared, config, hands)) if hands else None
    if rate:
        return f"{steps} · about {left.unet_steps / rate:.0f} s at {rate:.0f} steps/s, measured here before with these settings"
    return f"{steps} · time: the first shard will tell (not measured here yet with these settings)"


def _without(plan: pa.Table, shards: Collection[str]) -> pa.Table:
    """The rows of a plan that are in none of these shards."""
    return plan.filter(pc.invert(pc.is_in(plan["shard_id"], pa.array(sorted(shards), pa.string()))))


def warnings(prepared: Prepared, config: Config) -> list[str]:
    """What is allowed but worth knowing before a long job, in sentences."""
    folder = find_model(config.generator.model, config.generator.revision, config.generator.variant)
    side = native_side(folder) or min(working_size(config.generator, folder))
    shorter = [min(w, h) for w, h in zip(*(prepared.hard[c].to_pylist() for c in ("width", "height")), strict=True)]
    found = [*scheduler_notes(config.generator, folder), *scorer_warnings(config.scorer)]
    if small := sum(s < side / 2 for s in shorter):
        found.append(f"{small} of {len(shorter)} sources are smaller than half the generator's native side of {side} pixels")
    return [*found, *_long_prompts(prepared, folder)]


def _long_prompts(prepared: Prepared, folder: Path) -> list[str]:
    """Which prompts the generator's tokenizer cuts, in a sentence; none if it cuts none."""
    of_class: dict[str, str] = {}
    for row in prepared.plan.group_by(["prompt", "label"], use_threads=False).aggregate([]).to_pylist():
        of_class.setdefault(row["prompt"], f"class '{prepared.samples.classes[row['label']]}'")
    for negative in prepared.plan["negative_prompt"].unique().to_pylist():
        of_class.setdefault(negative, "prompts.negative")
    long, limit = cut_prompts(folder, of_class)
    if not long:
        return []
    several = len(long) > 1
    count = f"{len(long)} prompts are" if several else "1 prompt is"
    named = "; ".join(f"{of_class[text]}, '{_beginning(text)}'" for text in long[:NAMED])
    more = f"; and {len(long) - NAMED} more" if len(long) > NAMED else ""
    rest = "the rest of each" if several else "its rest"
    return [f"{count} longer than the {limit} tokens the generator takes, and {rest} is ignored: {named}{more}"]


def _beginning(text: str) -> str:
    return text if len(text) <= BEGINNING else f"{text[:BEGINNING]}…"


def round_plan(prepared: Prepared, config: Config, attempt: int) -> pa.Table:
    """The plan of one round of attempts: the first is the plan, the next what failed in the committed one before. Written once."""
    if attempt == 0:
        return prepared.plan
    store, name = prepared.store, f"plan-{attempt}.parquet"
    if not _stands(store, name):
        made = open_spectrum(store, FilterConfig(), columns=PLAN.names)
        before = made.filter(pc.equal(made["attempt"], attempt - 1))
        plan = next_attempt(before, config.plan, fingerprint=prepared.fingerprint, base_seed=config.seed)
        store.write_table(name, plan)
    return store.read_table(name)


def generate(prepared: Prepared, config: Config) -> list[dict[str, Any]]:
    """Makes, scores and commits every shard that is not committed yet, round by round, then verifies and closes the run.

    Returns what the generators said last (phase, images, steps, seconds, peak_bytes, ...), one dict each; none if nothing was made.
    """
    store, plans, signs = prepared.store, [prepared.plan], []
    whole = drop_damaged(store)
    with ExitStack() as session:
        for attempt in range(config.plan.attempts):
            plan = round_plan(prepared, config, attempt)
            if not plan.num_rows:
                break
            plans += [plan] if attempt else []
            done = set(committed(store))
            todo = _without(plan, done)
            if not todo.num_rows:
                continue
            if not attempt and not done and (reused := store.read_table(REUSED_FILE).num_rows):
                print(f"  {reused} of {plan.num_rows} images were made by earlier runs and are taken over")
            if todo.num_rows < plan.num_rows:
                print(f"  resuming: {plan.num_rows - todo.num_rows} images are committed, {todo.num_rows} are left")
            if attempt:
                print(f"  attempt {attempt + 1} of {config.plan.attempts}: {todo.num_rows} images fell short")
            if not signs:
                session.enter_context(ray_session(num_cpus=config.run.num_cpus, needs={}))
            hands = crew(config, limit=len(todo["shard_id"].unique()))
            print(f"  {hands.words('generator', 'scorer')}", flush=True)
            signs = _run_graph(prepared, todo, staffed(config, hands), hands)
            _note_rate(prepared, config, hands, signs)
    everything = pa.concat_tables(plans)
    verify(store, everything, () if signs else whole)
    drop_strays(store)
    record = {"rows": everything.num_rows, "rounds": len(plans), "shards": len(committed(store))}
    if not _says(store, MANIFEST, record):
        table = open_spectrum(store, config.filter, columns=[])
        counts = {str(lam): dict(count) for lam, count in count_verdicts(table).items()}
        store.write_json(MANIFEST, {**record, "verdicts_at_first": counts})
    return signs


def staffed(config: Config, hands: Demand) -> Config:
    """The configuration with numbers where it leaves open how many processes there are, and on what."""
    generator, scorer = ({"actors": part.actors, "num_gpus": part.num_gpus} for part in hands.parts)
    parts = {
        "generator": config.generator.model_copy(update=generator),
        "scorer": config.scorer.model_copy(update=scorer),
    }
    return config.model_copy(update=parts)


def rate_key(prepared: Prepared, config: Config, hands: Demand) -> str:
    """What a measured rate is of: weights, micro-batch, number of generators."""
    return f"{prepared.fingerprint[:16]}-b{config.generator.micro_batch}-a{hands.parts[0].actors}"


def _note_rate(prepared: Prepared, config: Config, hands: Demand, signs: list[dict[str, Any]]) -> None:
    """Keeps the steps per second of the generators' working time, for the next estimate."""
    rate = sum(s["steps"] / s["seconds"] for s in signs if s.get("seconds"))
    if rate:
        Store.at(config.run.root).write_json(RATES, {**_rates(config), rate_key(prepared, config, hands): round(rate, 1)})


def _rates(config: Config) -> dict[str, float]:
    """What was measured before; a damaged record is begun anew."""
    root = Store.at(config.run.root)
    known = root.read_json(RATES) if root.sound(RATES) else {}
    return {key: rate for key, rate in known.items() if isinstance(rate, float)} if isinstance(known, dict) else {}


def _node_lives(node: str) -> bool:
    """Whether Ray still counts on a node."""
    import ray

    return any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())


class GenerateStage:
    """The generator in its worker, which imports PyTorch and diffusers; the driver, which would wait seconds for them, does not."""

    def __init__(self, config: GeneratorConfig, num_steps: int, run: Store, session: str, pulse: Any) -> None:
        import ray

        from discl_ray.generate.actor import GenerateActor

        life = Life(session=session, node=ray.get_runtime_context().get_node_id(), node_lives=_node_lives)
        self.actor = GenerateActor(config, num_steps, run, life, pulse)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A packed shard with images."""
        return self.actor(batch)


class ScoreStage:
    """The scorer in its worker, likewise."""

    def __init__(self, *arguments: Any) -> None:
        from discl_ray.score.actor import ScoreActor

        self.actor = ScoreActor(*arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The packed shard with scores."""
        return self.actor(batch)


class Step(NamedTuple):
    """A class that Ray Data makes actors of, and what it is made with."""

    kind: Any
    arguments: tuple[Any, ...]


def spectrum_graph(
    blocks: list[pa.Table], *, make: Step, score: Step, commit: Any, in_flight: int, placement: Placement
) -> Any:
    """The Ray Data graph over packed shards: generators, scorers, and what writes; each process on its place."""
    import ray
    from ray.data import ActorPoolStrategy

    generators, scorers = placement.demand.parts
    making = ActorPoolStrategy(
        min_size=generators.actors,
        max_size=generators.actors,
        max_tasks_in_flight_per_actor=in_flight,
        max_concurrent_calls_per_actor=in_flight,
        enable_true_multi_threading=True,
    )
    scoring = ActorPoolStrategy(min_size=scorers.actors, max_size=scorers.actors)
    # said of the places of each actor; Ray 2.60 has nothing in its stead
    warnings_.filterwarnings("ignore", message=".*ray_remote_args_fn.*")
    shards: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    return (
        ray.data.from_arrow(blocks)
        .map_batches(make.kind, fn_constructor_args=make.arguments, compute=making, **shards, **placement.resources(0))
        .map_batches(score.kind, fn_constructor_args=score.arguments, compute=scoring, **shards, **placement.resources(1))
        .map_batches(commit, **shards, num_cpus=0.5)
    )


def _run_graph(prepared: Prepared, todo: pa.Table, config: Config, hands: Demand) -> list[dict[str, Any]]:
    """Executes the Ray Data graph over whole shards; returns the generators' last signs."""
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it raises is raised
    context.execution_options.preserve_order = False
    store, generator, scorer = prepared.store, config.generator, config.scorer
    shards = [(s, todo.filter(pc.equal(todo["shard_id"], s))) for s in todo["shard_id"].unique().to_pylist()]
    pulse, session = start_beside_driver(Pulse), uuid.uuid4().hex

    classes = prepared.samples.classes

    def commit(batch: pa.Table) -> pa.Table:
        shard_id, table = unpack(batch)
        write_shard(store, shard_id, table, classes)
        status = Counter(table["status"].to_pylist())
        smallest = min(table["micro_batch"].to_pylist())
        return pa.table({"rows": [table.num_rows], "failed": [table.num_rows - status["ok"]], "micro_batch": [smallest]})

    progress, batch = Progress(todo.num_rows, "images"), generator.micro_batch

    def look() -> Sight:
        signs, refusal = ray.get([pulse.read.remote(), pulse.refusal.remote()], timeout=10)
        return sight_of(signs, progress.done, config.run.stall_warning_s)._replace(refusal=refusal)

    make = Step(GenerateStage, (generator, config.plan.num_steps, store, session, pulse))
    score = Step(ScoreStage, (scorer, prepared.class_prompts, store, pulse))
    blocks = [pack(shard_id, table) for shard_id, table in shards]
    try:
        with (
            placed(hands) as placement,
            Watchdog(look, warning_s=config.run.stall_warning_s, limit_s=config.run.stall_limit_s),
        ):
            in_flight = generator.shards_in_flight
            dataset = spectrum_graph(blocks, make=make, score=score, commit=commit, in_flight=in_flight, placement=placement)
            for row in dataset.iter_rows():
                if row["micro_batch"] < batch:
                    batch = row["micro_batch"]
                    print(
                        f"  out of memory: some images were made at generator.micro_batch={batch}; set it and save the retries"
                    )
                progress.advance(row["rows"], f"· {row['failed']} failed" if row["failed"] else "")
    finally:
        progress.close()
    return [s for s in ray.get(pulse.read.remote()).values() if "steps" in s]


def summarize(prepared: Prepared, config: Config) -> str:
    """Made, kept and rejected by λ of what may be trained on, and the number of probes, from what is committed."""
    spectrum = open_spectrum(prepared.store, config.filter, columns=[])
    trains, probes = (count_verdicts(spectrum.filter(pc.equal(spectrum["role"], role))) for role in ("train", "probe"))
    lines = [
        "  images to train on; probes only measure progress, are not filtered and never trained on",
        f"  {'λ':>4} {'made':>6} {'kept':>6} {'kept %':>7} {'probes':>7}  rejected",
    ]
    for lam_pct in sorted({*trains, *probes}):
        count, beside = trains.get(lam_pct, Counter()), probes.get(lam_pct, Counter())
        made, kept = count.total(), count["kept"]
        share = f"{100 * kept / made:.1f}%" if made else "–"
        rejected = ", ".join(f"{reason} {n}" for reason, n in sorted(count.items()) if reason != "kept") or "–"
        lines.append(f"  {pct_to_lam(lam_pct):>4g} {made:>6} {kept:>6} {share:>7} {beside.total():>7}  {rejected}")
    return "\n".join(lines)
