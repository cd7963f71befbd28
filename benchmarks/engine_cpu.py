"""The engine and the Ray pipeline on a CPU against stock diffusers and against their bound.

    python benchmarks/engine_cpu.py --images 256 --pipeline-images 2000

    (a) stock img2img pipeline, one image at a time, as the paper's code does; on a subset that
        holds every level equally
    (b) stock img2img pipeline in batches of one level each, at the batch size that suits it best
    (c) our engine, all levels in one batch
    (d) our Ray pipeline in its steady state, the scorer's CPU time subtracted
    (e) the bound: the UNet forwards that (c) cannot do without, at its batch, and the decodes;
        nothing else

The embedded model, float32, λ = 0, 0.1, 0.3, 0.5. Ratios are measured in one run. Loading and
warming up are not counted. (b) and the bound are measured before and after (c) and averaged, (c)
before and after (d). Ratios hold for a machine that does nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from discl_ray.core.images import decode_image
from discl_ray.core.lam import lam_to_pct, num_denoising_steps
from discl_ray.data.config import DigitsLTConfig
from discl_ray.data.digits_lt import digits_lt
from discl_ray.generate.actor import build_engine
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.engine import Engine
from discl_ray.generate.model_folder import find_model
from discl_ray.generate.rows import Row
from discl_ray.plan.config import PromptConfig
from discl_ray.plan.prompts import Prompts

LAMS = (0.0, 0.1, 0.3, 0.5)
STOCK_BATCHES = (16, 32, 64)
HERE = Path(__file__).parent
RESULT = HERE / "results" / "engine_cpu.md"


def make_rows(count: int, num_steps: int) -> list[Row]:
    """`count` rows over real training digits, the same number at every level."""
    samples = [s for s in digits_lt(DigitsLTConfig(), 0).table.to_pylist() if s["split"] == "train"]
    prompts = Prompts(config=PromptConfig().with_template(DigitsLTConfig.template))
    rows: list[Row] = []
    for i in range(count):
        lam, sample = LAMS[i % len(LAMS)], samples[(i // len(LAMS)) % len(samples)]
        rows.append(
            Row(
                gid=str(i),
                source_id=sample["sample_id"],
                source=decode_image(sample["bytes"]),
                prompt=prompts.generation(sample["class_key"], 0),
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
        self.pipe = StableDiffusionImg2ImgPipeline.from_pretrained(
            find_model(config.model), **options
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.cfg_scale, self.num_steps = config.cfg_scale, num_steps

    def __call__(self, rows: Sequence[Row]) -> None:
        """Makes rows of one level in one call."""
        assert len({row.num_steps for row in rows}) == 1
        self.pipe(
            prompt=[row.prompt for row in rows],
            negative_prompt=[row.negative_prompt for row in rows],
            image=[Image.fromarray(row.source) for row in rows],
            strength=min(1.0, (rows[0].num_steps + 0.5) / self.num_steps),
            num_inference_steps=self.num_steps,
            guidance_scale=self.cfg_scale,
            generator=[torch.Generator().manual_seed(row.seed) for row in rows],
            output_type="np",
        )
        assert (
            self.pipe.num_timesteps == rows[0].num_steps
        )  # diffusers rounds the strength; it must not lose a step


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


class Bound:
    """Milliseconds of the parts nothing can do without, at the engine's shapes."""

    def __init__(self, engine: Engine, row: Row, forwards: int) -> None:
        model, batch = engine.model, engine.micro_batch
        latents = torch.randn(2 * batch, *model.latent_shape)
        timesteps = torch.full((2 * batch,), 500.0)
        told = tuple(t.repeat_interleave(batch, 0) for t in model.encode_prompts("", row.prompt))
        finished = torch.randn(engine.decode_batch, *model.latent_shape)
        parts = {
            "UNet forward": (lambda: model.denoise(latents, timesteps, told), forwards, batch),
            "VAE decode": (lambda: model.decode(finished), 5, engine.decode_batch),
            "VAE encode": (lambda: model.encode_source(row.source), 10, 1),
            "text": (lambda: model.encode_prompts("", row.prompt), 10, 1),
        }
        self.ms: dict[str, float] = {}
        """Per row of a step, per image, per source, per prompt pair."""
        with torch.inference_mode():
            for name, (work, times, share) in parts.items():
                work()
                self.ms[name] = (
                    1000
                    * seconds_of(lambda w=work, n=times: [w() for _ in range(n)])
                    / times
                    / share
                )
        self.decode_batch = engine.decode_batch

    def seconds(self, rows: Sequence[Row]) -> float:
        """Time the rows' forwards and whole chunks of decodes take."""
        decoded = math.ceil(len(rows) / self.decode_batch) * self.decode_batch
        return (
            sum(row.num_steps for row in rows) * self.ms["UNet forward"]
            + decoded * self.ms["VAE decode"]
        ) / 1000


def pipeline_rate(images: int, config: GeneratorConfig, num_steps: int) -> dict[str, Any]:
    """Images per second of `jobs/generate.py` between its first commit and its last.

    And the scorer's CPU time in between. One actor. The job runs in a process of its own; commits
    are read from the run's directory, the scorer's time from /proc.
    """
    with tempfile.TemporaryDirectory() as root:
        sources = 14  # of digits_lt with its default tail
        replicas = math.ceil(images / sources / len(LAMS))
        command = [
            sys.executable,
            HERE.parent / "jobs" / "generate.py",
            f"run.root={root}",
            f"plan.replicas={replicas}",
            f"plan.num_steps={num_steps}",
            "hard.probe_sources=0",
            f"generator.micro_batch={config.micro_batch}",
            f"generator.threads={config.threads}",
            f"generator.compile={config.compile}",
            "generator.actors=1",
        ]
        job = subprocess.Popen(
            command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seen: list[tuple[float, int, float]] = []
        commits: dict[Path, int] = {}
        while job.poll() is None:
            new = set(Path(root).glob("digits_lt/generate-*/commits/*.json")) - commits.keys()
            for file in sorted(new, key=lambda f: f.stat().st_mtime):
                commits[file] = sum(part["rows"] for part in json.loads(file.read_text())["files"])
                seen.append(
                    (file.stat().st_mtime, sum(commits.values()), cpu_seconds("ScoreStage"))
                )
            time.sleep(1)
        assert job.stdout is not None
        assert job.returncode == 0, job.stdout.read()
    if len(commits) < 2:
        sys.exit(
            f"--pipeline-images {images}: one shard, which has no steady state; take more, or 0 to "
            f"leave it out"
        )
    start, end = seen[0], seen[-1]
    seconds, made, scoring = (end[i] - start[i] for i in range(3))
    return {
        "images": made,
        "seconds": seconds,
        "scoring": scoring,
        "rate": made / (seconds - scoring / config.threads),
    }


def cpu_seconds(name: str) -> float:
    """CPU time of the processes whose command line holds `name`."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if name in (stat.parent / "cmdline").read_text():
                fields = stat.read_text().rsplit(") ", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / 100
        except OSError:  # it has ended
            continue
    return total


def measure(args: argparse.Namespace, config: GeneratorConfig) -> str:
    """All five, as a Markdown table with the ratios below."""
    images, steps = args.images, args.num_steps
    rows = make_rows(images, steps)
    engine, stock = build_engine(config, steps), Stock(config, steps)
    run_engine(engine, rows[: len(LAMS)])  # warm
    stock(rows[:1])
    a = args.subset / seconds_of(lambda: one_at_a_time(stock, rows[: args.subset]))
    by_batch = {
        b: images / seconds_of(lambda b=b: level_by_level(stock, rows, b)) for b in STOCK_BATCHES
    }
    best = max(by_batch, key=lambda b: by_batch[b])
    before = Bound(engine, rows[0], args.forwards)
    engine.useful_rows = engine.total_rows = 0
    c_before = images / seconds_of(lambda: run_engine(engine, rows))
    after = Bound(engine, rows[0], args.forwards)
    used, total = engine.useful_rows, engine.total_rows
    e = images / ((before.seconds(rows) + after.seconds(rows)) / 2)
    b = (by_batch[best] + images / seconds_of(lambda: level_by_level(stock, rows, best))) / 2
    lines = [
        "| | images/s | engine is |",
        "|---|---:|---:|",
        f"| (a) stock img2img, one at a time ({args.subset} images) "
        f"| {a:.2f} | {c_before / a:.2f}× |",
        f"| (b) stock img2img, one level a batch, best B = {best} "
        f"| {b:.2f} | {c_before / b:.2f}× |",
        f"| (c) engine, B = {config.micro_batch} | {c_before:.2f} | |",
        f"| (e) bound: forwards at B and decodes | {e:.2f} | {100 * c_before / e:.1f} % |",
        "",
        f"Row use of the engine: {used} of {total} UNet rows belonged to an image "
        f"({100 * used / total:.1f} %).",
        "Stock by batch size: "
        + ", ".join(f"B = {k}: {v:.2f} images/s" for k, v in by_batch.items())
        + ".",
        "Components: "
        + ", ".join(f"{name} {(before.ms[name] + after.ms[name]) / 2:.2f} ms" for name in before.ms)
        + " (per row and step, image, source, prompt pair).",
    ]
    if args.pipeline_images:
        d = pipeline_rate(args.pipeline_images, config, steps)
        c_after = images / seconds_of(lambda: run_engine(engine, rows))
        c = (c_before + c_after) / 2
        lines += [
            "",
            f"(d) Ray pipeline, steady state over {d['images']} images in {d['seconds']:.0f} s: "
            f"{d['images'] / d['seconds']:.2f} images/s; "
            f"with the scorer's {d['scoring']:.1f} s of CPU time subtracted "
            f"{d['rate']:.2f} images/s, which is {100 * d['rate'] / c:.1f} % of (c) "
            f"measured before ({c_before:.2f}) and after it ({c_after:.2f}).",
        ]
    return "\n".join(lines)


def revision() -> str:
    """The commit the numbers are of."""

    def ask(*words: str) -> str:
        done = subprocess.run(("git", *words), cwd=HERE, capture_output=True, text=True)
        return done.stdout.strip()

    changed = ask("status", "--porcelain", "--untracked-files=no")
    return (ask("rev-parse", "--short", "HEAD") or "unknown") + (
        " with uncommitted changes" if changed else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = GeneratorConfig()
    parser.add_argument(
        "--images", type=int, default=256, help="images of (b) and (c); a multiple of the levels"
    )
    parser.add_argument("--subset", type=int, default=16, help="images of (a)")
    parser.add_argument(
        "--pipeline-images", type=int, default=2000, help="images of (d); 0 leaves it out"
    )
    parser.add_argument("--num-steps", type=int, default=30, help="T")
    parser.add_argument(
        "--forwards", type=int, default=10, help="forwards timed for (e), before and after (c)"
    )
    parser.add_argument(
        "--micro-batch", type=int, default=defaults.micro_batch, help="B of the engine"
    )
    parser.add_argument(
        "--threads", type=int, default=defaults.threads, help="CPU threads of every one of the five"
    )
    parser.add_argument(
        "--compile", choices=["none", "default", "max-autotune"], default=defaults.compile
    )
    parser.add_argument("--out", type=Path, default=RESULT, help="where the table goes")
    args = parser.parse_args()
    if args.images % len(LAMS) or args.subset % len(LAMS) or not 0 < args.subset <= args.images:
        parser.error(
            f"--images and --subset: multiples of {len(LAMS)}, the subset no larger than the whole"
        )
    config = GeneratorConfig(
        micro_batch=args.micro_batch, threads=args.threads, compile=args.compile
    )
    table = measure(args, config)
    command = " ".join(["python benchmarks/engine_cpu.py", *sys.argv[1:]])
    setting = (
        f"{args.images} images of 32², λ = {', '.join(f'{lam:g}' for lam in LAMS)}, "
        f"T = {args.num_steps}, cfg_scale {config.cfg_scale:g}, float32, {args.threads} threads, "
        f"compile {args.compile}, torch {torch.__version__}"
    )
    text = f"# The engine on a CPU\n\n`{command}` at {revision()}\n\n{setting}\n\n{table}\n"
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)


if __name__ == "__main__":
    main()
