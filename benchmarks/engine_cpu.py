"""The engine on a CPU against stock diffusers and against its own bound, as ratios measured in one run.

    python benchmarks/engine_cpu.py --images 128

    (a) stock img2img pipeline, one image at a time, on a subset that holds every level equally
    (b) stock img2img pipeline in batches of one level each, at the batch size that suits it best
    (c) our engine, all levels in one batch
    (e) the bound: the UNet forwards that (c) cannot do without, at its batch, and the decodes; nothing else

The embedded model, float32, λ = 0, 0.1, 0.3, 0.5. Loading and warming up are not counted. The bound is measured before and
after (c) and averaged. Ratios hold for a machine that does nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from discl_ray.core.images import decode_image
from discl_ray.core.lam import lam_to_pct, num_denoising_steps
from discl_ray.data import DataConfig, read_samples
from discl_ray.generate.actor import build_engine
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.engine import Engine, Row
from discl_ray.generate.folder import find_model
from discl_ray.prompts import PromptConfig, generation_prompt

LAMS = (0.0, 0.1, 0.3, 0.5)
STOCK_BATCHES = (16, 32, 64)
RESULT = Path(__file__).parent / "results" / "engine_cpu.md"


def make_rows(count: int, num_steps: int) -> list[Row]:
    """`count` rows over real training digits, the same number at every level."""
    samples = [s for s in read_samples(DataConfig(), 0).to_pylist() if s["split"] == "train"]
    rows: list[Row] = []
    for i in range(count):
        lam, sample = LAMS[i % len(LAMS)], samples[(i // len(LAMS)) % len(samples)]
        rows.append(
            Row(
                gid=str(i),
                source_id=sample["sample_id"],
                source=decode_image(sample["image"]["bytes"]),
                prompt=generation_prompt(PromptConfig(), sample["class_name"], 0),
                negative_prompt="",
                seed=i,
                num_steps=num_denoising_steps(lam_to_pct(lam), num_steps),
            )
        )
    return rows


class Stock:
    """diffusers' own pipeline, called as its documentation shows."""

    def __init__(self, config: GeneratorConfig, num_steps: int) -> None:
        options = {"use_safetensors": True, "low_cpu_mem_usage": False, "dtype": torch.float32}
        self.pipe = StableDiffusionImg2ImgPipeline.from_pretrained(find_model(config.model), **options)
        self.pipe.set_progress_bar_config(disable=True)
        self.cfg_scale, self.num_steps = config.cfg_scale, num_steps

    def __call__(self, rows: Sequence[Row]) -> None:
        """Makes rows of one level in one call."""
        assert len({row.num_steps for row in rows}) == 1
        self.pipe(
            prompt=[row.prompt for row in rows],
            negative_prompt=[row.negative_prompt for row in rows],
            image=[Image.fromarray(row.source) for row in rows],
            strength=(rows[0].num_steps + 1e-6) / self.num_steps if rows[0].num_steps < self.num_steps else 1.0,
            num_inference_steps=self.num_steps,
            guidance_scale=self.cfg_scale,
            generator=[torch.Generator().manual_seed(row.seed) for row in rows],
            output_type="np",
        )
        assert self.pipe.num_timesteps == rows[0].num_steps  # diffusers rounds the strength; it must not lose a step


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_at_a_time(stock: Stock, rows: Sequence[Row]) -> None:
    for row in rows:
        stock([row])


def level_by_level(stock: Stock, rows: Sequence[Row], batch: int) -> None:
    for steps in sorted({row.num_steps for row in rows}):
        level = [row for row in rows if row.num_steps == steps]
        for i in range(0, len(level), batch):
            stock(level[i : i + batch])


def run_engine(engine: Engine, rows: Sequence[Row]) -> None:
    assert sum(1 for _ in engine.run(rows)) == len(rows)


def bound(engine: Engine, rows: Sequence[Row], forwards: int) -> float:
    """Seconds that the rows' UNet forwards (two a step, for guidance) and decodes take at the engine's shapes."""
    model, batch = engine.model, engine.micro_batch
    latents = torch.randn(2 * batch, *model.latent_shape)
    timesteps = torch.full((2 * batch,), 500)
    text = model.encode_text(rows[0].prompt)[None].repeat(2 * batch, 1, 1)
    finished = torch.randn(engine.decode_batch, *model.latent_shape)
    model.denoise(latents, timesteps, text)
    model.decode(finished)
    unet = seconds_of(lambda: [model.denoise(latents, timesteps, text) for _ in range(forwards)]) / forwards
    vae = seconds_of(lambda: [model.decode(finished) for _ in range(5)]) / 5
    return sum(row.num_steps for row in rows) / batch * unet + math.ceil(len(rows) / engine.decode_batch) * vae


def measure(images: int, subset: int, num_steps: int, forwards: int, config: GeneratorConfig) -> str:
    """All four, as a Markdown table with the ratios below."""
    rows = make_rows(images, num_steps)
    engine, stock = build_engine(config, num_steps), Stock(config, num_steps)
    run_engine(engine, rows[: len(LAMS)])  # warm
    stock(rows[:1])
    a = subset / seconds_of(lambda: one_at_a_time(stock, rows[:subset]))
    by_batch = {b: images / seconds_of(lambda b=b: level_by_level(stock, rows, b)) for b in STOCK_BATCHES}
    best = max(by_batch, key=lambda b: by_batch[b])
    before = bound(engine, rows, forwards)
    engine.useful_rows = engine.total_rows = 0
    c = images / seconds_of(lambda: run_engine(engine, rows))
    e = images / ((before + bound(engine, rows, forwards)) / 2)
    b = by_batch[best]
    return "\n".join(
        [
            "| | images/s | engine is |",
            "|---|---:|---:|",
            f"| (a) stock img2img, one at a time ({subset} images) | {a:.2f} | {c / a:.2f}× |",
            f"| (b) stock img2img, one level a batch, best B = {best} | {b:.2f} | {c / b:.2f}× |",
            f"| (c) engine, B = {config.micro_batch} | {c:.2f} | |",
            f"| (e) bound: forwards at B and decodes | {e:.2f} | {100 * c / e:.1f} % |",
            "",
            f"Row use of the engine: {engine.useful_rows} of {engine.total_rows} UNet rows belonged to an image "
            f"({100 * engine.useful_rows / engine.total_rows:.1f} %).",
            "Stock by batch size: " + ", ".join(f"B = {k}: {v:.2f} images/s" for k, v in by_batch.items()) + ".",
        ]
    )


def revision() -> str:
    """The commit the numbers are of."""
    here = Path(__file__).parent
    ask = lambda *words: subprocess.run(("git", *words), cwd=here, capture_output=True, text=True).stdout.strip()  # noqa: E731
    changed = ask("status", "--porcelain", "--untracked-files=no")
    return (ask("rev-parse", "--short", "HEAD") or "unknown") + (" with uncommitted changes" if changed else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = GeneratorConfig()
    parser.add_argument("--images", type=int, default=128, help="images of (b) and (c); a multiple of the levels")
    parser.add_argument("--subset", type=int, default=16, help="images of (a)")
    parser.add_argument("--num-steps", type=int, default=30, help="T")
    parser.add_argument("--forwards", type=int, default=10, help="forwards timed for (e), before and after (c)")
    parser.add_argument("--micro-batch", type=int, default=defaults.micro_batch, help="B of the engine")
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--out", type=Path, default=RESULT, help="where the table goes")
    args = parser.parse_args()
    if args.images % len(LAMS) or args.subset % len(LAMS) or not 0 < args.subset <= args.images:
        parser.error(f"--images and --subset: multiples of {len(LAMS)}, the subset no larger than the whole")
    config = GeneratorConfig(micro_batch=args.micro_batch, threads=args.threads)
    table = measure(args.images, args.subset, args.num_steps, args.forwards, config)
    command = " ".join(["python benchmarks/engine_cpu.py", *sys.argv[1:]])
    setting = (
        f"{args.images} images of 32², λ = {', '.join(f'{lam:g}' for lam in LAMS)}, T = {args.num_steps}, "
        f"cfg_scale {config.cfg_scale:g}, float32, {args.threads} threads, torch {torch.__version__}"
    )
    text = f"# The engine on a CPU\n\n`{command}` at {revision()}\n\n{setting}\n\n{table}\n"
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)


if __name__ == "__main__":
    main()
