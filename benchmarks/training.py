"""What the training loop costs beside a plain one, and where an epoch's time goes.

Also what a change of λ and the probes cost.

    python benchmarks/training.py --images 40000

An epoch of 40,000 images of 32 x 32 pixels (noise over gradients, ten classes, two of them hard,
three synthetic levels) from a table of segments on disk. The plain loop has the images as one
tensor in memory, its own augmentation of the same kind, the same model, optimizer and batch, and
nothing else: no order by role and level, no finite check, no evaluation, no checkpoint. The two
take turns, and only ratios of neighbours count. Without Ray: what it adds to a report is a copy of
the checkpoint, which is made here, too.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch.profiler import ProfilerActivity, profile, record_function

from discl_ray.core.lam import REAL
from discl_ray.core.storage import Store
from discl_ray.curriculum.config import CurriculumConfig
from discl_ray.curriculum.controller import LocalController
from discl_ray.evaluate.held_out import commit
from discl_ray.train import batches
from discl_ray.train import loop as loop_module
from discl_ray.train.checkpoint import save_checkpoint
from discl_ray.train.config import TrainConfig
from discl_ray.train.images import segments, table
from discl_ray.train.images.segments import ROWS, SEGMENT_ROWS, write_segment
from discl_ray.train.images.table import INDEX, ImageTable, TableRef, open_table
from discl_ray.train.job import history_rows
from discl_ray.train.learners import classifier
from discl_ray.train.learners.learner import TrainJob
from discl_ray.train.learners.resnet import resnet
from discl_ray.train.loop import Report, learning_rate_factor, loop

RESULT = Path(__file__).parent / "results" / "training.md"
SIDE, CLASSES, HARD, LEVELS = 32, 10, (0, 1), (0, 30, 60)
BATCH = 128


# -- the table


def make_rows(images: int) -> list[tuple[int, int, str, bool]]:
    """(label, λ, role, hard) of every image: an epoch has `images`.

    D_h, D_nh and the synthetic ones together have as many.
    """
    hard, probes, val = (
        images // 20,
        45 * images // 1000,
        images // 40,
    )  # with hard val images 2,000 probes of 40,000
    rows = [(HARD[i % len(HARD)], REAL, "train", True) for i in range(hard)]
    rows += [(2 + i % (CLASSES - 2), REAL, "train", False) for i in range(16 * hard)]
    rows += [(HARD[i % len(HARD)], level, "train", False) for level in LEVELS for i in range(hard)]
    rows += [(HARD[i % len(HARD)], LEVELS[i % len(LEVELS)], "probe", False) for i in range(probes)]
    return rows + [(i % CLASSES, REAL, "val", i % CLASSES in HARD) for i in range(val)]


def make_table(root: Path, images: int) -> TableRef:
    """A decoded table on disk, in segments as large as a real one's."""
    rng, rows = np.random.default_rng(0), make_rows(images)
    ramp = np.linspace(-80, 80, SIDE)

    def image(label: int) -> dict[str, Any]:
        angle = 2 * np.pi * label / CLASSES
        pixels = (
            128
            + np.cos(angle) * ramp[:, None, None]
            + np.sin(angle) * ramp[:, None]
            + rng.normal(0, 50, (SIDE, SIDE, 3))
        )
        out = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "BMP")
        return {"bytes": out.getvalue(), "path": None}

    store, parts = Store.at(root), []
    length = min(SEGMENT_ROWS, -(-len(rows) // 10))
    for at in range(0, len(rows), length):
        part = rows[at : at + length]
        columns = dict(
            zip(("label", "lam_pct", "role", "hard"), zip(*part, strict=True), strict=True)
        )
        ids = [f"{role} {label} {(at + i) // 20}" for i, (label, _, role, _) in enumerate(part)]
        whole = (
            pa.table({**columns, "domain": [""] * len(part), "sample_id": ids})
            .select(ROWS.names)
            .cast(ROWS)
        )
        parts.append(
            write_segment(
                store,
                whole,
                ((i, image(label)) for i, (label, *_) in enumerate(part)),
                SIDE,
                "decoded",
            )
        )
    return TableRef(
        store=store, name=INDEX, side=SIDE, mode="decoded", segments=tuple(parts)
    ).write({})


def make_job(strategy: str, width: int, threads: int, opened: ImageTable) -> TrainJob:
    real = (opened.role == "train") & (opened.lam_pct == REAL)
    return TrainJob(
        seed=0,
        train=TrainConfig(
            width=width, batch=BATCH, epochs=len(LEVELS), eval_every=1, threads=threads
        ),
        curriculum=CurriculumConfig.model_validate({"strategy": strategy, "epochs": len(LEVELS)}),
        names=tuple(map(str, range(CLASSES))),
        groups={c: "few" if c in HARD else "many" for c in range(CLASSES)},
        counts=tuple(np.bincount(opened.label[real], minlength=CLASSES).tolist()),
        levels=(*LEVELS, REAL),
    )


# -- the two loops


def run_loop(job: TrainJob, opened: ImageTable, epochs: int = 1) -> list[dict[str, float]]:
    """The package's loop with reports as the trainer makes them."""
    metrics: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store.at(folder)

        def report(result: Report) -> None:
            rows = history_rows(result.state.history)
            store.write("metrics.jsonl", "\n".join(map(json.dumps, rows)).encode())
            with tempfile.TemporaryDirectory() as checkpoint:
                save_checkpoint(Path(checkpoint), result.state)
                shutil.copytree(checkpoint, Path(folder) / f"checkpoint {result.epoch}")
            metrics.append(result.metrics)

        loop(
            job,
            opened,
            LocalController(job.curriculum, job.levels, job.seed),
            report,
            epochs=epochs,
        )
    return metrics


def run_plain(job: TrainJob, images: torch.Tensor, labels: torch.Tensor) -> float:
    """One epoch by hand over uint8 (N, H, W, 3) in memory; the mean loss."""
    train = job.train
    model = resnet(train.model, num_classes=CLASSES, width=train.width, seed=job.seed).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.Adam(
        model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
    )
    total, order = torch.zeros(()), torch.randperm(len(images))
    model.train()
    for at in range(0, len(images), BATCH):
        rows = order[at : at + BATCH]
        optimizer.param_groups[0]["lr"] = train.learning_rate * learning_rate_factor(
            at / len(images), len(rows) / len(images), warmup=0.0
        )
        x = jittered(shifted(normalised(images[rows]), train.augment.shift), train.augment.jitter)
        loss = F.cross_entropy(model(x.to(memory_format=torch.channels_last)), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
    return float(total) / len(images)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """As `to_tensor`: each image with zero mean and unit variance."""
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-2)


def shifted(x: torch.Tensor, shift: int) -> torch.Tensor:
    """Each image moved by up to `shift` pixels."""
    n, _, height, width = x.shape
    padded = F.pad(x, (shift,) * 4, mode="replicate")
    down = torch.randint(2 * shift + 1, (n, 1)) + torch.arange(height)
    across = torch.randint(2 * shift + 1, (n, 1)) + torch.arange(width)
    image, channel = torch.arange(n).view(-1, 1, 1, 1), torch.arange(3).view(1, -1, 1, 1)
    return padded[image, channel, down.view(n, 1, -1, 1), across.view(n, 1, 1, -1)]


def jittered(x: torch.Tensor, jitter: float) -> torch.Tensor:
    """Gain and offset of each image changed."""
    gain, offset = ((2 * torch.rand(len(x), 1, 1, 1) - 1) * jitter for _ in range(2))
    return x * (1 + gain) + offset


# -- taking time


class Clock:
    """Seconds by section, each without those inside it; also marks them for torch.profiler."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[list[Any]] = []

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """What runs inside counts as `name`."""
        began = time.perf_counter()
        self._open.append([name, 0.0])
        try:
            with record_function(f"# {name}"):
                yield
        finally:
            taken = time.perf_counter() - began
            _, inside = self._open.pop()
            self.seconds[name] += taken - inside
            if self._open:
                self._open[-1][1] += taken

    def around(self, owner: Any, attribute: str, name: str) -> Any:
        """A patch that puts every call of a function into a section."""
        real: Callable[..., Any] = getattr(owner, attribute)

        def timed(*args: Any, **more: Any) -> Any:
            with self.section(name):
                return real(*args, **more)

        return patch.object(owner, attribute, timed)


SECTIONS = [
    (segments.DecodedSegments, "__getitem__", "gather"),
    (classifier, "augment", "augmentation"),
    (classifier.Classifier, "logits", "forward"),
    (torch.Tensor, "backward", "backward"),
    (torch.optim.Adam, "step", "optimizer"),
    (batches, "draw_parameters", "random numbers"),
    (loop_module, "epoch_order", "order of the epoch"),
    (loop_module.TrainingRun, "true_class", "probes, besides gather and forward"),
    (loop_module.TrainingRun, "evaluate", "val, besides gather and forward"),
    (loop_module.TrainingRun, "state", "state for the checkpoint"),
]


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure_loops(
    job: TrainJob, opened: ImageTable, repeats: int
) -> tuple[list[float], list[float]]:
    """Seconds of an epoch, plain and the package's, by turns."""
    rows = np.flatnonzero(opened.role == "train")
    images, labels = torch.from_numpy(opened.images[rows]), torch.from_numpy(opened.label[rows])
    plain, ours = [], []
    for number in range(repeats):
        one = lambda: plain.append(seconds_of(lambda: run_plain(job, images, labels)))  # noqa: E731
        other = lambda: ours.append(seconds_of(lambda: run_loop(job, opened)))  # noqa: E731
        for turn in (one, other) if number % 2 == 0 else (other, one):
            turn()
    return plain, ours


def measure_change(job: TrainJob, opened: ImageTable) -> list[float]:
    """Seconds from the choice of a level not used before to its first augmented batch, by level."""
    run = loop_module.TrainingRun(
        job,
        opened,
        LocalController(job.curriculum, job.levels, 0),
        loop_module.ALONE,
        torch.device("cpu"),
        4,
    )

    def change(epoch: int) -> None:
        choice = run.choose(epoch, None)
        order = loop_module.epoch_order(run.pools, choice, job.curriculum, seed=0, epoch=epoch)
        stage = batches.Pass(
            epoch=epoch, choice=choice, order=order, before=0, total=len(order.rows)
        )
        shares = batches.Batches(
            job, opened, stage, strength=run.strength, world=loop_module.ALONE, whole=False
        )
        batch = shares.share(0)
        assert batch is not None
        classifier.augment(batch.images, batch.parameters, batch.strength, job.train.augment)

    found = []
    for epoch in range(1, len(LEVELS) + 1):
        found.append(seconds_of(lambda epoch=epoch: change(epoch)))
        run.controller.record(epoch, {"lam_pct": 0})
    return found


def measure_probes(job: TrainJob, opened: ImageTable) -> tuple[float, float, int]:
    """(seconds of the probes, seconds of the epoch, probes) of an adaptive epoch."""
    spent, sizes = [], []
    real = loop_module.TrainingRun.true_class

    def timed(self: Any, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        began = time.perf_counter()
        found = real(self, rows)
        spent.append(time.perf_counter() - began)
        sizes.append(len(rows))
        return found

    with patch.object(loop_module.TrainingRun, "true_class", timed):
        epoch = seconds_of(lambda: run_loop(job, opened))
    return sum(spent), epoch, sizes[0]


def measure_profile(job: TrainJob, opened: ImageTable) -> tuple[dict[str, float], str]:
    """Seconds of an adaptive epoch by section, from a run without the profiler.

    Also the profiler's dearest operations.
    """
    with ExitStack() as patches:
        clock = Clock()
        for owner, attribute, name in SECTIONS:
            patches.enter_context(clock.around(owner, attribute, name))
        with clock.section("the rest"):
            run_loop(job, opened)
        by_section = dict(clock.seconds)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            run_loop(job, opened)
    averages = [e for e in profiler.key_averages() if not e.key.startswith("# ")]
    total = sum(e.self_cpu_time_total for e in averages)
    dearest = sorted(averages, key=lambda e: -e.self_cpu_time_total)[:15]
    lines = [
        f"| `{e.key}` | {100 * e.self_cpu_time_total / total:.1f} | {e.count} |" for e in dearest
    ]
    return by_section, "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=40_000, help="of an epoch")
    parser.add_argument("--width", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        opened_files: list[Path] = []
        real_map = table.map_segment
        with patch.object(
            table, "map_segment", lambda path: (opened_files.append(path), real_map(path))[1]
        ):
            ref = make_table(Path(folder), args.images)
            opened = open_table(ref)
            job, adaptive = (
                make_job(name, args.width, args.threads, opened)
                for name in ("easy_to_hard", "adaptive")
            )
            run_loop(job, opened)  # warm
            plain, ours = measure_loops(job, opened, args.repeats)
            changes = measure_change(job, opened)
            probing, with_probes, probes = measure_probes(adaptive, opened)
            by_section, dearest = measure_profile(adaptive, opened)
    assert len(opened_files) == len(ref.segments)  # nothing was opened again on the way
    ratios = sorted(p / o for p, o in zip(plain, ours, strict=True))
    epoch = float(np.median(ours))
    whole = sum(by_section.values())
    sections = "\n".join(
        f"| {name} | {s:.2f} | {100 * s / whole:.1f} |"
        for name, s in sorted(by_section.items(), key=lambda x: -x[1])
    )
    text = (
        f"# Training: {args.images} images of {SIDE} x {SIDE} pixels an epoch\n\n"
        f"ResNet-10 of width {args.width}, batch {BATCH}, Adam, shift and jitter, "
        f"{args.threads} threads of {os.cpu_count()} CPUs, fp32; "
        f"{len(ref.segments)} segments on disk. Load average before the start: {load:.2f}.\n\n"
        "| what | figure | bar |\n|---|---|---|\n"
        f"| an epoch, val ({int((opened.role == 'val').sum())} images) and report included "
        f"| {epoch:.1f} s ({args.images / epoch:.0f} images/s) "
        "| >= 60 s, so that the shares mean something |\n"
        f"| throughput against a plain loop over tensors in memory "
        f"({float(np.median(plain)):.1f} s), median of {args.repeats} pairs "
        f"| {100 * float(np.median(ratios)):.1f} % "
        f"({100 * ratios[0]:.1f} to {100 * ratios[-1]:.1f}) | >= 90 % |\n"
        f"| change of λ: choice, order, random numbers, first batch "
        f"| {1000 * max(changes):.1f} ms, {100 * max(changes) / epoch:.3f} % of an epoch; "
        f"{len(opened_files)} segments opened once, none again | <= 1 %, no loader rebuilt |\n"
        f"| adaptive: {probes} probes, twice an epoch | {probing:.2f} s, "
        f"{100 * probing / with_probes:.2f} % of an epoch | <= 10 % |\n\n"
        "## Where an adaptive epoch's time goes\n\n"
        "Each section without those inside it; gather and forward are those of val and probes, "
        "too.\n\n"
        f"| section | s | % |\n|---|---|---|\n{sections}\n\n"
        "| operation (torch.profiler, self time on the CPU) | % | calls |\n"
        f"|---|---|---|\n{dearest}\n\n"
        f"Command: `python benchmarks/training.py --images {args.images} --width {args.width} "
        f"--threads {args.threads} --repeats {args.repeats}`, commit {commit()}.\n"
    )
    print(text)
    args.out.write_text(text)


if __name__ == "__main__":
    main()
