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


def text_typical(engine: Engine, scans: list[digits.Scan], look: str, seed: int) -> np.ndarray:
    """λ = 0 images of real task images, in order; uint8 (N, 32, 32, 3)."""
    rows = [
        Row(
            gid=str(i),
            source_id=str(i),
            source=digits.render(scan, look),
            prompt=PROMPTS[scan.label],
            negative_prompt="",
            seed=seed * 100_000 + i,
            num_steps=STEPS,
        )
        for i, scan in enumerate(scans)
    ]
    made = {image.gid: image.pixels for image in engine.run(rows) if image.pixels is not None}
    return np.stack([made[row.gid] for row in rows])


def train_plain(images: np.ndarray, labels: np.ndarray, *, steps: int, seed: int) -> nn.Module:
    """ResNet-10 from scratch for a number of steps of 32."""
    model = resnet("resnet10", num_classes=10, width=24, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        rows = rng.choice(len(images), 32)
        x = augment(
            images[rows],
            draw_parameters(32, seed=seed, epoch=step),
            np.zeros(32, dtype=int),
            AugmentConfig(),
        )
        loss = F.cross_entropy(model.train()(x), torch.from_numpy(labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def guess(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Its classes, shape (N,)."""
    return torch.cat(
        [model(to_tensor(part)).argmax(1) for part in np.array_split(images, 4)]
    ).numpy()


def main() -> None:
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
    args = parser.parse_args()
    engine = build_engine(GeneratorConfig(), STEPS)
    dev = digits.scans_of((digits.DEV_BLOCK,))
    truth = np.array([scan.label for scan in dev])
    real_dev = np.stack([digits.render(scan, args.look) for scan in dev])
    judge, scorer = load_judge(), ClipScorer(ScorerConfig())

    web = digits.web_images(1000, seed=4711)
    texts = scorer.embed_texts(PROMPTS)
    zero_shot = {
        "web": float(
            (((scorer.embed_images(list(web.images)) @ texts.T).argmax(1)) == web.labels).mean()
        ),
        "task, dev": float(
            (((scorer.embed_images(list(real_dev)) @ texts.T).argmax(1)) == truth).mean()
        ),
    }
    errors = {}
    for name, images in (("web", web.images), ("task, dev", real_dev)):
        latents = (
            torch.stack([engine.model.encode_source(image)[0] for image in images[:200]])
            * engine.model.scaling
        )
        back = np.concatenate([engine.model.decode(part) for part in latents.split(50)])
        errors[name] = float(np.abs(back.astype(float) - images[: len(back)]).mean() / 255)
    samples = text_typical(engine, dev, args.look, seed=0)
    right = read(judge, samples) == truth
    by_class = ", ".join(
        f"{digits.NAMES[c]} {100 * right[truth == c].mean():.0f}" for c in range(10)
    )

    accuracy = {"λ = 0": [], "real": []}
    for seed in range(args.seeds):
        rng = np.random.default_rng([seed, 7])
        pool = digits.scans_of(digits.TASK_BLOCKS)
        picked = [
            pool[i]
            for c in range(10)
            for i in rng.choice(
                [i for i, s in enumerate(pool) if s.label == c], args.per_class, replace=False
            )
        ]
        labels = np.array([s.label for s in picked])
        kinds = {
            "λ = 0": text_typical(engine, picked, args.look, seed=seed + 1),
            "real": np.stack([digits.render(s, args.look) for s in picked]),
        }
        for kind, images in kinds.items():
            model = train_plain(images, labels, steps=args.steps, seed=seed)
            accuracy[kind].append(100 * float((guess(model, real_dev) == truth).mean()))
        print(
            f"seed {seed}: λ = 0 {accuracy['λ = 0'][-1]:.1f} %, real {accuracy['real'][-1]:.1f} %",
            flush=True,
        )
    mean, low, high = over_seeds(np.array(accuracy["real"]) - np.array(accuracy["λ = 0"]))
    read_dev = {
        look: read(judge, np.stack([digits.render(s, look) for s in dev]))
        for look in ("web", args.look)
    }
    command = f"check_embedded.py --look {args.look} --seeds {args.seeds} --per-class {args.per_class} --steps {args.steps}"
    text = f"""# The embedded models{"" if args.look == "ochre" else f", the task in the look {args.look}"}

- λ = 0 images read by the judge: {100 * right.mean():.1f} % of {len(dev)} ({by_class}).
- Dev images read by the judge: {", ".join(f"{look} {100 * (said == truth).mean():.1f} %" for look, said in read_dev.items())}.
- VAE round trip, mean absolute error of pixels in [0, 1]: {", ".join(f"{k} {v:.4f}" for k, v in errors.items())}.
- Scorer, zero-shot top-1 over ten class prompts: {", ".join(f"{k} {100 * v:.1f} %" for k, v in zero_shot.items())}.
- Gap on the dev writers ({len(dev)} images): ResNet-10, {args.per_class} images per class, {args.steps} steps of 32, {args.seeds} seeds.
  Trained on real task images {np.mean(accuracy["real"]):.1f} %, on λ = 0 images {np.mean(accuracy["λ = 0"]):.1f} %;
  paired difference {mean:.1f} points [{low:.1f}, {high:.1f}] (95 % bootstrap over seeds; a seed redraws images, noise, initialisation).

Command: `python tools/{command}`, commit {commit()}.
"""
    path = Path("benchmarks/results") / (
        "embedded.md" if args.look == "ochre" else f"embedded-{args.look}.md"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    finished(main)
