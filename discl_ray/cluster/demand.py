"""How many worker processes a job needs, and on which GPUs, computed from what the cluster has.

Pure. `auto` uses the whole cluster: as many generators as the GPUs hold, generators first, with
scorers in the space left; without a GPU, as many single-threaded processes as CPUs and memory
allow. A number is used as given, or rejected together with one that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from discl_ray.errors import SetupError

WHOLE = 10_000
"""Parts of a GPU: Ray counts fractions to four digits, and sums of floats would miss a whole."""

PER_SCORER = 16
"""On a CPU: generators that one scorer keeps up with.

The embedded scorer would keep up with 63: it takes 3.4 s of CPU time for the 1,951 images that one
generator makes in 214 s (`python benchmarks/engine_cpu.py`, line d). A quarter of that leaves room
for a larger CLIP.
"""

SCHEDULABLE = 0.8
"""Share of a node's memory that processes reserve, at most; Ray measures what is there when it
starts, some time after it was asked here."""

UNBOUNDED = 64
"""Nodes assumed of a type that a cluster may start any number of; chosen, not measured."""

FALLBACK = {"dtype": "float16", "vae_dtype": "float32"}
"""Precisions on a GPU without bfloat16; some VAEs overflow in float16."""

Auto = Literal["auto"]


class Card(NamedTuple):
    """Published properties of a GPU model."""

    gigabytes: float
    bf16: bool = True


CARDS = {
    "K80": Card(12, bf16=False),
    "P4": Card(8, bf16=False),
    "P40": Card(24, bf16=False),
    "P100": Card(16, bf16=False),
    "V100": Card(16, bf16=False),
    "T4": Card(16, bf16=False),
    "A10": Card(24),
    "A10G": Card(24),
    "A40": Card(48),
    "A100": Card(40),
    "A100-40G": Card(40),
    "A100-80G": Card(80),
    "L4": Card(24),
    "L40": Card(48),
    "L40S": Card(48),
    "H100": Card(80),
    "H200": Card(141),
    "B200": Card(180),
}
"""By Ray's name of the accelerator: the smallest memory it is sold with, and whether it computes in
bfloat16 (compute capability 8 and later).
"""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node, or `count` equal ones."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory: float = 0.0
    """Bytes for workers; 0 if unknown."""
    card: str = ""
    """Ray's name of its GPUs; empty if unknown."""
    count: int = 1

    def rooms(self, memory: float) -> int:
        """How many processes of one CPU and `memory` bytes fit on one such node."""
        by_cpu = int(self.cpus)
        if not (self.memory and memory):
            return by_cpu
        return min(by_cpu, int(self.memory // memory))


@dataclass(frozen=True)
class Cluster:
    """The nodes that are up, and those that may still be started."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> int:
        """How many processes of one CPU fit."""
        return sum(int(node.cpus) * node.count for node in self.nodes)

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return sum(int(node.gpus) * node.count for node in self.nodes)

    @property
    def cards(self) -> list[str]:
        """Known GPU models."""
        return sorted({node.card for node in self.nodes if node.gpus and node.card})

    def rooms(self, memory: float) -> int:
        """How many processes of one CPU and `memory` bytes fit; unknown memory is no bound."""
        return sum(node.rooms(memory) * node.count for node in self.nodes)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Worker processes of one kind, as configured."""

    name: str
    """The section of the configuration."""
    actors: int | Auto = "auto"
    most: int | None = None
    """Upper bound of `actors="auto"`."""
    num_gpus: float | Auto = "auto"
    share: float = 1.0
    """Share of a GPU that `num_gpus="auto"` becomes if there is one."""
    memory: float = 0.0
    """Bytes of one process, beside a GPU's own."""

    @property
    def least(self) -> int:
        """How many processes there have to be."""
        return 1 if self.actors == "auto" else self.actors

    def at_most(self, limit: int | None) -> int | None:
        """Upper bound of `actors="auto"` in a job of `limit` parts; None if there is none."""
        bounds = [bound for bound in (self.most, limit) if bound is not None]
        return max(1, min(bounds)) if bounds else None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Worker processes of one kind, as placed."""

    actors: int
    num_gpus: float
    memory: float = 0.0
    """Bytes that Ray reserves for each process; 0 for none."""


@dataclass(frozen=True)
class Demand:
    """How many processes of each stage there are, and how many of each on every GPU."""

    parts: tuple[Part, ...]
    gpus: tuple[tuple[int, ...], ...] = ()
    """One row per GPU in use, one number per stage."""

    def words(self, *names: str) -> str:
        """How many of each there are, and on what: "2 generators and 2 scorers on 2 GPUs"."""
        named = zip(self.parts, names, strict=True)
        counts = " and ".join(counted(part.actors, name) for part, name in named)
        where = counted(len(self.gpus), "GPU") if self.gpus else "the CPU"
        return f"{counts} on {where}"


def counted(count: int, name: str) -> str:
    """A number of things: "1 GPU", "2 GPUs"."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


@dataclass(frozen=True)
class _Sized:
    """A stage, and the share of a GPU that each of its processes gets; 0 on the CPU."""

    stage: Stage
    share: float

    @property
    def size(self) -> int:
        """`share` in parts of a GPU."""
        return round(self.share * WHOLE)


def demand(stages: Sequence[Stage], cluster: Cluster, limit: int | None = None) -> Demand:
    """Places one or two stages; the first is the one whose speed matters.

    `limit` bounds stages of `actors="auto"`: more processes than parts of the work would idle.
    Raises SetupError if the stages do not fit, with values that would.
    """
    sized = _sized(stages, cluster)
    on_gpu = any(of.share > 0 for of in sized)
    if on_gpu and not cluster.gpus:
        raise SetupError(_no_gpu(sized))
    packed = _pack(sized, cluster.gpus, limit) if on_gpu else _Packed()
    return _with_cpus(sized, cluster, limit, packed)


def _sized(stages: Sequence[Stage], cluster: Cluster) -> list[_Sized]:
    """The stages with their shares of a GPU."""
    sized = [_Sized(stage, _share(stage, cluster)) for stage in stages]
    if len(sized) == 1 or cluster.gpus != 1:
        return sized
    first, second = sized
    if second.stage.num_gpus == "auto" and first.share + second.share > 1:
        # the first stage asks for the only GPU as a whole: the second runs on the CPU
        return [first, _Sized(second.stage, 0.0)]
    return sized


def _share(stage: Stage, cluster: Cluster) -> float:
    if stage.num_gpus != "auto":
        return stage.num_gpus
    return stage.share if cluster.gpus else 0.0


class _Packed(NamedTuple):
    """Processes placed on GPUs."""

    counts: tuple[int, ...] = ()
    """Of the stages on GPUs, in their order."""
    gpus: tuple[tuple[int, ...], ...] = ()
    """As in `Demand`."""


def _pack(sized: Sequence[_Sized], gpus: int, limit: int | None) -> _Packed:
    """Places processes on GPUs: the first stage evenly, then the second in the space left."""
    first = sized[0]
    if not first.size:
        return _pack_second_alone(sized, gpus, limit)
    rooms = gpus * (WHOLE // first.size)
    if first.stage.actors == "auto":
        start, least = min(rooms, first.stage.at_most(limit) or rooms), 1
    else:
        start = least = first.stage.actors
    if start <= rooms:
        for count in range(start, least - 1, -1):
            packed = _pack_both(sized, gpus, count, limit)
            if packed is not None:
                return packed
    raise SetupError(_too_many(sized, gpus))


def _pack_both(sized: Sequence[_Sized], gpus: int, count: int, limit: int | None) -> _Packed | None:
    """`count` processes of the first stage, the second's beside them; None if they do not fit."""
    first = sized[0]
    bins = _spread(count, gpus)
    if len(sized) == 1:
        return _Packed((count,), tuple((n,) for n in bins if n))
    second = sized[1]
    if not second.size:
        return _Packed((count,), tuple((n, 0) for n in bins if n))
    most = second.stage.least
    if second.stage.actors == "auto":
        most = min(count, second.stage.at_most(limit) or count)
    free = [WHOLE - n * first.size for n in bins]
    placed = _fill(free, second.size, most)
    if sum(placed) < second.stage.least:
        return None
    pairs = zip(bins, placed, strict=True)
    return _Packed((count, sum(placed)), tuple(pair for pair in pairs if any(pair)))


def _pack_second_alone(sized: Sequence[_Sized], gpus: int, limit: int | None) -> _Packed:
    """Scorers on GPUs whose generators are on CPUs: one per GPU."""
    second = sized[1]
    count = second.stage.least
    if second.stage.actors == "auto":
        count = min(gpus, second.stage.at_most(limit) or gpus)
    if count > gpus * (WHOLE // second.size):
        raise SetupError(_too_many(sized, gpus))
    return _Packed((count,), tuple((0, n) for n in _spread(count, gpus) if n))


def _spread(count: int, gpus: int) -> list[int]:
    """`count` processes over the GPUs, evenly."""
    each, rest = divmod(count, gpus)
    return [each + (gpu < rest) for gpu in range(gpus)]


def _fill(free: Sequence[int], size: int, most: int) -> list[int]:
    """Up to `most` processes of `size` in the free space of each GPU, evenly."""
    placed = [0] * len(free)
    while sum(placed) < most:
        fitting = [gpu for gpu, room in enumerate(free) if room >= (placed[gpu] + 1) * size]
        if not fitting:
            break
        emptiest = min(fitting, key=lambda gpu: placed[gpu])
        placed[emptiest] += 1
    return placed


def _with_cpus(
    sized: Sequence[_Sized], cluster: Cluster, limit: int | None, packed: _Packed
) -> Demand:
    """Adds the stages that run on CPUs.

    The second stage comes first: `auto` gives the first stage all CPUs that are left.
    """
    on_gpu = [of.stage.name for of in sized if of.share]
    counts = dict(zip(on_gpu, packed.counts, strict=True))
    left = cluster.cpus - 1  # one is the driver's, which also writes
    for of in reversed(sized):
        if of.share:
            continue
        count = _on_cpu(of, sized, cluster, left, limit, counts)
        counts[of.stage.name] = count
        left -= count
    if left < 0:
        raise SetupError(_too_few_cpus(sized, cluster))
    parts: list[Part] = []
    for of in sized:
        memory = _reserved(of, sized, cluster)
        parts.append(Part(actors=counts[of.stage.name], num_gpus=of.share, memory=memory))
    return Demand(tuple(parts), packed.gpus)


def _reserved(of: _Sized, sized: Sequence[_Sized], cluster: Cluster) -> float:
    """Bytes that Ray reserves for each process of a stage.

    What a process needs, but no more than the share of the node's memory that goes with its CPU or
    its part of a GPU: where CPUs and GPUs suffice, no process waits for memory.
    """
    both_kinds = len({bool(one.share) for one in sized}) > 1
    usable = SCHEDULABLE / 2 if both_kinds else SCHEDULABLE
    reserved = of.stage.memory
    for node in cluster.nodes:
        rooms = node.gpus / of.share if of.share else node.cpus
        if rooms:  # a node whose memory is unknown may have none to reserve
            reserved = min(reserved, usable * node.memory / rooms)
    return float(int(reserved))


def _on_cpu(
    of: _Sized,
    sized: Sequence[_Sized],
    cluster: Cluster,
    left: int,
    limit: int | None,
    counts: dict[str, int],
) -> int:
    """Processes of a stage on CPUs, `left` of which are free."""
    stage = of.stage
    if stage.actors != "auto":
        return stage.actors
    count = min(left, cluster.rooms(stage.memory))
    if of is not sized[0]:
        count = min(count, _scorers(sized, left, counts))
    most = stage.at_most(limit)
    return max(1, count if most is None else min(count, most))


def _scorers(sized: Sequence[_Sized], left: int, counts: dict[str, int]) -> int:
    """Scorers on CPUs: one per generator on a GPU, or per PER_SCORER generators on CPUs.

    They use at most half of the CPUs that are left.
    """
    first = sized[0].stage
    if first.name in counts:
        needed = counts[first.name]
    else:
        generators = left if first.actors == "auto" else first.actors
        needed = -(-generators // PER_SCORER)  # rounded up
    return min(needed, max(1, left // 2))


# -- messages of what does not fit


def _no_gpu(sized: Sequence[_Sized]) -> str:
    on_gpu = [of for of in sized if of.share]
    asked = ", ".join(f"{of.stage.name}.num_gpus = {of.share:g}" for of in on_gpu)
    on_cpu = " ".join(f"{of.stage.name}.num_gpus=0" for of in on_gpu)
    return (
        f"{asked}: there is no GPU, and none that the cluster says it may start. Join a cluster "
        "that has one (RAY_ADDRESS), set run.gpus=N if it starts them by itself, or run on the "
        f"CPU, which is slow: {on_cpu}"
    )


def _too_many(sized: Sequence[_Sized], gpus: int) -> str:
    on_gpu = [of for of in sized if of.share]
    asked = ", ".join(
        f"{of.stage.name}.actors = {of.stage.actors} of num_gpus = {of.share:g}" for of in on_gpu
    )
    return f"{asked}: do not fit on {counted(gpus, 'GPU')}; {_fitting(on_gpu, gpus)} would"


def _fitting(on_gpu: Sequence[_Sized], gpus: int) -> str:
    """Values that fit."""
    first, last = on_gpu[0], on_gpu[-1]
    needed = sum(of.size for of in on_gpu)
    if needed > WHOLE * gpus:  # no room for one of each
        return f"{first.stage.name}.num_gpus={1 - last.share:g}"
    open_ = [_Sized(Stage(name=of.stage.name), of.share) for of in on_gpu]
    counts = _pack(open_, gpus, None).counts
    named = zip(on_gpu, counts, strict=True)
    fitting = " ".join(f"{of.stage.name}.actors={count}" for of, count in named)
    return f"{fitting}, or auto for both," if len(counts) > 1 else f"{fitting}, or auto,"


def _too_few_cpus(sized: Sequence[_Sized], cluster: Cluster) -> str:
    on_cpu = [of.stage for of in sized if not of.share]
    asked = " and ".join(f"{stage.name}.actors = {stage.actors}" for stage in on_cpu)
    needed = 1 + sum(stage.least for stage in on_cpu)
    short = f"{asked} need {needed} CPUs with the driver's, and there are {cluster.cpus}"
    if cluster.cpus <= len(on_cpu):
        return f"{short}; run.num_cpus={needed} would do"
    lower = " ".join(f"{stage.name}.actors=auto" for stage in on_cpu if stage.actors != "auto")
    return f"{short}; {lower}, or run.num_cpus={needed}, would do"


# -- training


class Workers(NamedTuple):
    """How many processes a training run has, and where."""

    number: int
    gpu: bool

    def __str__(self) -> str:
        where = counted(self.number, "GPU") if self.gpu else "the CPU"
        return f"{counted(self.number, 'worker')} on {where}"


def workers(
    asked: int | Auto,
    use_gpu: bool | Auto,
    batch: int,
    cluster: Cluster,
    begun: Workers | None = None,
) -> Workers:
    """The workers of a training run.

    `auto` is one worker on the CPU and, on GPUs, the largest number that divides the batch; a
    resumed run keeps the number it was `begun` with if that fits.
    Raises SetupError if what is asked for does not fit, with values that would.
    """
    gpu = cluster.gpus > 0 if use_gpu == "auto" else use_gpu
    if gpu and not cluster.gpus:
        raise SetupError(
            "train.use_gpu = true: there is no GPU, and none that the cluster says it may start; "
            "set train.use_gpu=auto or false, join a cluster that has one (RAY_ADDRESS), or set "
            "run.gpus=N if it starts them by itself"
        )
    room = cluster.gpus if gpu else max(1, cluster.cpus - 1)
    most = max(n for n in range(1, min(room, batch) + 1) if batch % n == 0)
    if asked == "auto":
        if begun is not None and begun.number <= room:
            return Workers(begun.number, gpu)
        return Workers(most if gpu else 1, gpu)
    if asked > room:
        available = f"{cluster.cpus} CPUs, of which the driver needs one"
        if gpu:
            available = counted(room, "GPU")
        raise SetupError(
            f"train.workers = {asked}: there are {available}; "
            f"train.workers={most}, or auto, would do"
        )
    return Workers(asked, gpu)
