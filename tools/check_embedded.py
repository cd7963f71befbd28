"""Measures what the embedded models are worth; writes benchmarks/results/embedded.md.

    python tools/check_embedded.py --seeds 5
    python tools/check_embedded.py --seeds 5 --look sepia   # benchmarks/results/embedded-sepia.md

About ten minutes on two cores. Recognition: λ = 0 images of every class, read by the independent
judge. Gap: on the dev writers, a classifier trained on λ = 0 images against one trained on the same
number of real task images per class, everything else equal.
"""

from discl_ray.process.stopping import listen

if __name__ == "__main__":
    listen()  # before the imports, which take their time

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from discl_ray.cli import finished
from discl_ray.embedded import digits
from discl_ray.embedded.judge import load_judge, read
from discl_ray.evaluate.held_out import commit
from discl_ray.experiments.statistics import over_seeds
from discl_ray.generate.actor import build_engine
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.engine import Engine
from discl_ray.generate.rows import Row
from discl_ray.score.clip import ClipScorer
from discl_ray.score.config import ScorerConfig
from discl_ray.train.augment.augment import AugmentConfig, augment, draw_parameters, to_tensor
from discl_ray.train.learners.resnet import resnet

STEPS = 30
PROMPTS = [f"a photo of the digit {name}" for name in digits.NAMES]


@dataclass(frozen=True)
class Dev:
    """The dev writers' scans in a look."""

    scans: list[digits.Scan]
    truth: np.ndarray
    """Their digits, shape (N,)."""
    images: np.ndarray
    """uint8, shape (N, 32, 32, 3)."""


def dev_in(look: str) -> Dev:
    """All scans of the dev writers in a look."""
    scans = digits.scans_of((digits.DEV_BLOCK,))
    truth = np.array([scan.label for scan in scans])
    return Dev(scans, truth, rendered(scans, look))


def rendered(scans: list[digits.Scan], look: str) -> np.ndarray:
    """Scans in a look, uint8 (N, 32, 32, 3)."""
    images = [digits.render(scan, look) for scan in scans]
    return np.stack(images)


def text_typical(engine: Engine, scans: list[digits.Scan], look: str, seed: int) -> np.ndarray:
    """λ = 0 images of real task images, in order; uint8 (N, 32, 32, 3)."""
    rows: list[Row] = []
    for number, scan in enumerate(scans):
        row = Row(
            gid=str(number),
            source_id=str(number),
            source=digits.render(scan, look),
            prompt=PROMPTS[scan.label],
            negative_prompt="",
            seed=seed * 100_000 + number,
            num_steps=STEPS,
        )
        rows.append(row)
    made = {image.gid: image.pixels for image in engine.run(rows) if image.pixels is not None}
    return np.stack([made[row.gid] for row in rows])


def train_plain(images: np.ndarray, labels: np.ndarray, *, steps: int, seed: int) -> nn.Module:
    """ResNet-10 from scratch for a number of steps of 32."""
    model = resnet("resnet10", num_classes=10, width=24, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        rows = rng.choice(len(images), 32)
        parameters = draw_parameters(32, seed=seed, epoch=step)
        x = augment(images[rows], parameters, np.zeros(32, dtype=int), AugmentConfig())
        logits = model.train()(x)
        loss = F.cross_entropy(logits, torch.from_numpy(labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def guess(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Its classes, shape (N,)."""
    classes: list[torch.Tensor] = []
    for part in np.array_split(images, 4):
        logits = model(to_tensor(part))
        classes.append(logits.argmax(1))
    return torch.cat(classes).numpy()


def zero_shot(scorer: ClipScorer, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose own class prompt is the closest of the PROMPTS."""
    texts = scorer.embed_texts(PROMPTS)
    similarities = scorer.embed_images(list(images)) @ texts.T
    right = similarities.argmax(1) == labels
    return float(right.mean())


def round_trip(engine: Engine, images: np.ndarray) -> float:
    """Mean absolute error of the first 200 images, encoded and decoded; pixels in [0, 1]."""
    model = engine.model
    encoded = [model.encode_source(image)[0] for image in images[:200]]
    latents = torch.stack(encoded) * model.scaling
    decoded = [model.decode(part) for part in latents.split(50)]
    back = np.concatenate(decoded)
    error = np.abs(back.astype(float) - images[: len(back)])
    return float(error.mean() / 255)


def drawn_scans(per_class: int, seed: int) -> list[digits.Scan]:
    """As many scans of each digit by the task's writers, without replacement."""
    rng = np.random.default_rng([seed, 7])
    pool = digits.scans_of(digits.TASK_BLOCKS)
    picked: list[digits.Scan] = []
    for label in range(10):
        members = [number for number, scan in enumerate(pool) if scan.label == label]
        chosen = rng.choice(members, per_class, replace=False)
        picked.extend(pool[number] for number in chosen)
    return picked


def gap(engine: Engine, dev: Dev, args: argparse.Namespace) -> dict[str, list[float]]:
    """Accuracy on the dev writers in percent by what was trained on, a value per seed."""
    accuracy: dict[str, list[float]] = {"λ = 0": [], "real": []}
    for seed in range(args.seeds):
        picked = drawn_scans(args.per_class, seed)
        labels = np.array([scan.label for scan in picked])
        kinds = {
            "λ = 0": text_typical(engine, picked, args.look, seed=seed + 1),
            "real": rendered(picked, args.look),
        }
        for kind, images in kinds.items():
            model = train_plain(images, labels, steps=args.steps, seed=seed)
            right = guess(model, dev.images) == dev.truth
            accuracy[kind].append(100 * float(right.mean()))
        made = accuracy["λ = 0"][-1]
        real = accuracy["real"][-1]
        print(f"seed {seed}: λ = 0 {made:.1f} %, real {real:.1f} %", flush=True)
    return accuracy


def listed(values: Mapping[str, float], form: str, unit: str = "") -> str:
    """Names and their values in a format, with a unit."""
    parts = [f"{name} {value:{form}}{unit}" for name, value in values.items()]
    return ", ".join(parts)


def recognition_lines(engine: Engine, dev: Dev, look: str) -> list[str]:
    """What the judge reads of λ = 0 images and of real dev images, a line each."""
    judge = load_judge()
    samples = text_typical(engine, dev.scans, look, seed=0)
    right = read(judge, samples) == dev.truth
    by_class: dict[str, float] = {}
    for label, name in enumerate(digits.NAMES):
        of_class = right[dev.truth == label]
        by_class[name] = 100 * of_class.mean()
    by_look: dict[str, float] = {}
    for shown in ("web", look):
        said = read(judge, rendered(dev.scans, shown))
        by_look[shown] = 100 * (said == dev.truth).mean()
    classes = listed(by_class, ".0f")
    return [
        f"- λ = 0 images read by the judge: {100 * right.mean():.1f} % of {len(dev.scans)} "
        f"({classes}).",
        f"- Dev images read by the judge: {listed(by_look, '.1f', ' %')}.",
    ]


def model_lines(engine: Engine, dev: Dev) -> list[str]:
    """What the VAE loses and what the scorer knows, a line each."""
    web = digits.web_images(1000, seed=4711)
    scorer = ClipScorer(ScorerConfig())
    known = {
        "web": 100 * zero_shot(scorer, web.images, web.labels),
        "task, dev": 100 * zero_shot(scorer, dev.images, dev.truth),
    }
    errors = {"web": round_trip(engine, web.images), "task, dev": round_trip(engine, dev.images)}
    of_vae = listed(errors, ".4f")
    of_scorer = listed(known, ".1f", " %")
    return [
        f"- VAE round trip, mean absolute error of pixels in [0, 1]: {of_vae}.",
        f"- Scorer, zero-shot top-1 over ten class prompts: {of_scorer}.",
    ]


def gap_lines(engine: Engine, dev: Dev, args: argparse.Namespace) -> list[str]:
    """What training on λ = 0 images costs, in three lines."""
    accuracy = gap(engine, dev, args)
    real = np.array(accuracy["real"])
    made = np.array(accuracy["λ = 0"])
    mean, low, high = over_seeds(real - made)
    return [
        f"- Gap on the dev writers ({len(dev.scans)} images): ResNet-10, "
        f"{args.per_class} images per class, {args.steps} steps of 32, {args.seeds} seeds.",
        f"  Trained on real task images {np.mean(real):.1f} %, "
        f"on λ = 0 images {np.mean(made):.1f} %;",
        f"  paired difference {mean:.1f} points [{low:.1f}, {high:.1f}] "
        "(95 % bootstrap over seeds; a seed redraws images, noise, initialisation).",
    ]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--look", choices=sorted(digits.LOOKS), default="ochre", help="how the task's digits look"
    )
    parser.add_argument(
        "--per-class", type=int, default=20, help="training images per class for the gap"
    )
    parser.add_argument(
        "--steps", type=int, default=250, help="optimizer steps of each classifier for the gap"
    )
    return parser.parse_args()


def main() -> None:
    """Measures everything and writes the page."""
    args = arguments()
    look = args.look
    title = "# The embedded models"
    name = "embedded.md"
    if look != "ochre":
        title += f", the task in the look {look}"
        name = f"embedded-{look}.md"
    engine = build_engine(GeneratorConfig(), STEPS)
    dev = dev_in(look)
    of_models = model_lines(engine, dev)
    recognition = recognition_lines(engine, dev, look)
    measured = gap_lines(engine, dev, args)
    command = (
        f"check_embedded.py --look {look} --seeds {args.seeds} "
        f"--per-class {args.per_class} --steps {args.steps}"
    )
    lines = [title, "", *recognition, *of_models, *measured, ""]
    lines.append(f"Command: `python tools/{command}`, commit {commit()}.")
    text = "\n".join(lines) + "\n"
    path = Path("benchmarks/results") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    finished(main)
