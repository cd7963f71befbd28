"""What a job's workers need and what a cluster can bring, as numbers: how many processes of each stage there are, and on which GPU.

Pure. `auto` takes everything: as many generators as the GPUs hold, generators first, with scorers in what is left; without a GPU,
as many processes of one thread as there are CPUs and memory. A number is taken at its word, or refused with one that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from discl_ray.errors import SetupError

WHOLE = 10_000
"""A GPU in the parts that Ray counts it in."""


PER_SCORER = 16
"""On a CPU: generators that one scorer keeps up with. The embedded one would with 63: 3.4 s of CPU time for the 1,951 images of 214 s
of one generator (`python benchmarks/engine_cpu.py`, line d). A quarter of that leaves room for a larger CLIP.
"""


UNBOUNDED = 64
"""Nodes taken of a type of which a cluster may start any number: chosen, not measured, as there is no number to go by."""


Auto = Literal["auto"]


class Card(NamedTuple):
    """What is published of a kind of GPU."""

    gigabytes: float
    bf16: bool = True


CARDS = {
    "K80": Card(12, bf16=False), "P4": Card(8, bf16=False), "P40": Card(24, bf16=False), "P100": Card(16, bf16=False),
    "V100": Card(16, bf16=False), "T4": Card(16, bf16=False), "A10": Card(24), "A10G": Card(24), "A40": Card(48),
    "A100": Card(40), "A100-40G": Card(40), "A100-80G": Card(80), "L4": Card(24), "L40": Card(48), "L40S": Card(48),
    "H100": Card(80), "H200": Card(141), "B200": Card(180),
}  # fmt: skip
"""Ray's name of an accelerator -> the smallest memory it is sold with, and whether it computes in bfloat16 (compute capability 8)."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node, or `count` of one kind."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory: float = 0.0
    """Bytes for workers; 0 is not known."""
    card: str = ""
    """What Ray calls its GPUs; empty is not known."""
    count: int = 1


@dataclass(frozen=True)
class Cluster:
    """The nodes that are up, and those that may still be started."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> int:
        """Processes of one CPU that have room."""
        return sum(int(node.cpus) * node.count for node in self.nodes)

    @property
    def gpus(self) -> int:
        """GPUs."""
        return sum(int(node.gpus) * node.count for node in self.nodes)

    @property
    def cards(self) -> list[str]:
        """Kinds of GPUs that are known."""
        return sorted({node.card for node in self.nodes if node.gpus and node.card})

    def rooms(self, memory: float) -> int:
        """Processes of one CPU and `memory` bytes that have room; memory that is not known bounds nothing."""
        return sum(_rooms(node, memory) * node.count for node in self.nodes)


def _rooms(node: Node, memory: float) -> int:
    by_memory = int(node.memory // memory) if node.memory and memory else int(node.cpus)
    return min(int(node.cpus), by_memory)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Processes of one kind, as they are asked for."""

    name: str
    """The section of the configuration."""
    actors: int | Auto = "auto"
    most: int | None = None
    """At most so many if that is left open."""
    num_gpus: float | Auto = "auto"
    share: float = 1.0
    """Of a GPU, where `num_gpus` is left open and there is one."""
    memory: float = 0.0
    """Bytes of one process on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Processes of one kind, as they are placed."""

    actors: int
    num_gpus: float


@dataclass(frozen=True)
class Demand:
    """How many processes of each stage there are, and for each GPU how many of each stage are on it."""

    parts: tuple[Part, ...]
    gpus: tuple[tuple[int, ...], ...] = ()

    def words(self, *names: str) -> str:
        """How many of each, and on what."""
        counts = [
            f"{part.actors} {name}{'s' * (part.actors > 1)}"
            for name, part in zip(names, self.parts, strict=True)
        ]
        where = f"{len(self.gpus)} GPU{'s' * (len(self.gpus) > 1)}" if self.gpus else "the CPU"
        return f"{' and '.join(counts)} on {where}"


def demand(stages: Sequence[Stage], cluster: Cluster, limit: int | None = None) -> Demand:
    """Places one or two stages, the first of them the one that matters; `limit` bounds what is left open (parts of the work).

    Raises SetupError if it does not fit, with values that would.
    """
    shares = [_share(stage, cluster) for stage in stages]
    if (
        len(stages) > 1
        and stages[1].num_gpus == "auto"
        and cluster.gpus == 1
        and shares[0] + shares[1] > 1
    ):
        shares[1] = 0.0  # a whole GPU is asked for, and there is one
    on_gpu = [share > 0 for share in shares]
    if any(on_gpu) and not cluster.gpus:
        raise SetupError(_no_gpu(stages, shares))
    first, *others = [_most(stage, limit) for stage in stages]
    packed = (
        _pack(stages, shares, cluster.gpus, first, others[0] if others else None)
        if any(on_gpu)
        else _Packed()
    )
    return _with_cpus(stages, shares, cluster, limit, packed)


class _Packed(NamedTuple):
    counts: tuple[int, ...] = ()
    """Of the stages on GPUs, in their order."""
    gpus: tuple[tuple[int, ...], ...] = ()


def _share(stage: Stage, cluster: Cluster) -> float:
    if stage.num_gpus != "auto":
        return stage.num_gpus
    return stage.share if cluster.gpus else 0.0


def _most(stage: Stage, limit: int | None) -> int | None:
    """What bounds a stage whose number is left open."""
    bounds = [bound for bound in (stage.most, limit) if bound is not None]
    return max(1, min(bounds)) if bounds else None


def _pack(
    stages: Sequence[Stage],
    shares: Sequence[float],
    gpus: int,
    first_most: int | None,
    second_most: int | None,
) -> _Packed:
    """Processes on GPUs: the first stage spread evenly, then the second in what is left."""
    sizes = [round(share * WHOLE) for share in shares]
    if not sizes[0]:
        return _second_alone(stages, sizes, gpus, second_most)
    rooms = gpus * (WHOLE // sizes[0])
    asked = stages[0].actors
    second = sizes[1] if len(sizes) > 1 else 0
    wanted = _wanted(stages[1]) if second else 0
    least = asked if asked != "auto" else 1
    start = asked if asked != "auto" else min(rooms, first_most or rooms)
    for count in range(start, least - 1, -1):
        if count > rooms:
            break
        bins = [count // gpus + (i < count % gpus) for i in range(gpus)]
        free = [WHOLE - n * sizes[0] for n in bins]
        if not second:
            return _Packed((count,), tuple((n, 0) if len(stages) > 1 else (n,) for n in bins if n))
        most = min(count, second_most or count) if stages[1].actors == "auto" else wanted
        placed = _fill(free, second, most)
        if sum(placed) >= wanted:
            pairs = tuple((n, m) for n, m in zip(bins, placed, strict=True) if n or m)
            return _Packed((count, sum(placed)), pairs)
    raise SetupError(_too_many(stages, shares, gpus))


def _wanted(stage: Stage) -> int:
    return 1 if stage.actors == "auto" else stage.actors


def _second_alone(
    stages: Sequence[Stage], sizes: Sequence[int], gpus: int, most: int | None
) -> _Packed:
    """Scorers on GPUs whose generators are on CPUs: one a GPU."""
    asked = stages[1].actors
    count = min(gpus, most or gpus) if asked == "auto" else asked
    if count > gpus * (WHOLE // sizes[1]):
        raise SetupError(_too_many(stages, [size / WHOLE for size in sizes], gpus))
    bins = [count // gpus + (i < count % gpus) for i in range(gpus)]
    return _Packed((count,), tuple((0, n) for n in bins if n))


def _fill(free: Sequence[int], size: int, most: int) -> list[int]:
    """Up to `most` processes in what is free of each GPU, evenly."""
    placed = [0] * len(free)
    while sum(placed) < most:
        open_ = [i for i, room in enumerate(free) if room - placed[i] * size >= size]
        if not open_:
            break
        placed[min(open_, key=lambda i: placed[i])] += 1
    return placed


def _with_cpus(
    stages: Sequence[Stage],
    shares: Sequence[float],
    cluster: Cluster,
    limit: int | None,
    packed: _Packed,
) -> Demand:
    """Adds the stages that run on CPUs: beside the driver, the second stage first, then as many of the first as have room."""
    counts: dict[str, int] = {}
    on_gpu = [stage for stage, share in zip(stages, shares, strict=True) if share]
    counts.update((stage.name, count) for stage, count in zip(on_gpu, packed.counts, strict=True))
    left = cluster.cpus - 1  # the driver's, and what writes
    for stage, share in reversed(list(zip(stages, shares, strict=True))):
        if share:
            continue
        counts[stage.name] = count = _on_cpu(stage, stages, cluster, left, limit, counts)
        left -= count
    if left < 0:
        raise SetupError(_too_few_cpus(stages, shares, cluster))
    parts = tuple(
        Part(actors=counts[s.name], num_gpus=share) for s, share in zip(stages, shares, strict=True)
    )
    return Demand(parts, packed.gpus)


def _on_cpu(
    stage: Stage,
    stages: Sequence[Stage],
    cluster: Cluster,
    left: int,
    limit: int | None,
    counts: dict[str, int],
) -> int:
    if stage.actors != "auto":
        return stage.actors
    count = (
        min(left, cluster.rooms(stage.memory))
        if stage is stages[0]
        else _scorers(stages, cluster, left, counts)
    )
    most = _most(stage, limit)
    return max(1, count if most is None else min(count, most))


def _scorers(stages: Sequence[Stage], cluster: Cluster, left: int, counts: dict[str, int]) -> int:
    """On CPUs: one for each generator on a GPU, and for PER_SCORER generators on CPUs, in at most half the room."""
    first = stages[0]
    generators = counts.get(first.name) or (left if first.actors == "auto" else first.actors)
    each = 1 if first.name in counts else PER_SCORER
    return min(-(-generators // each), max(1, left // 2), cluster.rooms(stages[1].memory))


# -- refusals


def _no_gpu(stages: Sequence[Stage], shares: Sequence[float]) -> str:
    asked = [
        f"{s.name}.num_gpus = {share:g}" for s, share in zip(stages, shares, strict=True) if share
    ]
    cpu = " ".join(f"{s.name}.num_gpus=0" for s, share in zip(stages, shares, strict=True) if share)
    return (
        f"{', '.join(asked)}: there is no GPU, and none that the cluster says it may start. Join a cluster that has one "
        f"(RAY_ADDRESS), say run.gpus=N if it starts them by itself, or run on the CPU, which is slow: {cpu}"
    )


def _too_many(stages: Sequence[Stage], shares: Sequence[float], gpus: int) -> str:
    on_gpu = [(s, share) for s, share in zip(stages, shares, strict=True) if share]
    asked = ", ".join(
        f"{s.name}.actors = {s.actors} of num_gpus = {share:g}" for s, share in on_gpu
    )
    plural = "GPU" if gpus == 1 else "GPUs"
    return f"{asked}: do not fit on {gpus} {plural}; {_fitting(on_gpu, gpus)} would"


def _fitting(on_gpu: Sequence[tuple[Stage, float]], gpus: int) -> str:
    """Values that fit."""
    autos = [(Stage(name=s.name, num_gpus=share), share) for s, share in on_gpu]
    stages, shares = [s for s, _ in autos], [share for _, share in autos]
    first = round(shares[0] * WHOLE)
    if first + round(shares[-1] * WHOLE) * (len(stages) - 1) > WHOLE * gpus:
        return f"{stages[0].name}.num_gpus={1 - shares[-1]:g}"  # no room for one of each
    counts = _pack(stages, shares, gpus, None, None).counts
    fitting = " ".join(f"{s.name}.actors={n}" for s, n in zip(stages, counts, strict=True))
    return f"{fitting}, or auto for both," if len(counts) > 1 else f"{fitting}, or auto,"


def _too_few_cpus(stages: Sequence[Stage], shares: Sequence[float], cluster: Cluster) -> str:
    on_cpu = [s for s, share in zip(stages, shares, strict=True) if not share]
    asked = " and ".join(f"{s.name}.actors = {s.actors}" for s in on_cpu)
    needed = 1 + sum(1 if s.actors == "auto" else s.actors for s in on_cpu)
    if cluster.cpus <= len(on_cpu):
        return f"{asked} need {needed} CPUs with the driver's, and there are {cluster.cpus}; run.num_cpus={needed} would do"
    lower = " ".join(f"{s.name}.actors=auto" for s in on_cpu if s.actors != "auto")
    return f"{asked} need {needed} CPUs with the driver's, and there are {cluster.cpus}; {lower}, or run.num_cpus={needed}, would do"


# -- training


class Workers(NamedTuple):
    """How a training run is divided."""

    number: int
    gpu: bool

    def __str__(self) -> str:
        where = "the CPU"
        if self.gpu:
            where = f"{self.number} GPU{'s' * (self.number > 1)}"
        return f"{self.number} worker{'s' * (self.number > 1)} on {where}"


def workers(
    asked: int | Auto,
    use_gpu: bool | Auto,
    batch: int,
    cluster: Cluster,
    begun: Workers | None = None,
) -> Workers:
    """The workers of a training run: one on the CPU, on GPUs the most that divide the batch; what it was begun with if that fits.

    Raises SetupError if what is asked for does not fit, with values that would.
    """
    gpu = cluster.gpus > 0 if use_gpu == "auto" else use_gpu
    if gpu and not cluster.gpus:
        raise SetupError(
            "train.use_gpu = true: there is no GPU, and none that the cluster says it may start; train.use_gpu=auto or false, "
            "join a cluster that has one (RAY_ADDRESS), or say run.gpus=N if it starts them by itself"
        )
    room = cluster.gpus if gpu else max(1, cluster.cpus - 1)
    most = max(n for n in range(1, min(room, batch) + 1) if batch % n == 0)
    if asked == "auto":
        if begun is not None and begun.number <= room:
            return Workers(begun.number, gpu)
        return Workers(most if gpu else 1, gpu)
    if asked > room:
        there = (
            f"{room} GPU{'s' * (room > 1)}"
            if gpu
            else f"{cluster.cpus} CPUs, of which the driver needs one"
        )
        raise SetupError(
            f"train.workers = {asked}: there are {there}; train.workers={most}, or auto, would do"
        )
    return Workers(asked, gpu)


FALLBACK = {"dtype": "float16", "vae_dtype": "float32"}
"""Precisions on a card that does not compute in bfloat16; some VAEs overflow in float16."""
