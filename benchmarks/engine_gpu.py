"""The engine on one GPU against stock diffusers, its own bound and the hardware.

Needs neither Ray nor a download.

    PYTHONPATH=. python benchmarks/engine_gpu.py --models sd15 --lines a,b,c,compile --rows 64,128

    a          stock img2img pipeline, one image at a time, float16: the official style
    b          stock img2img pipeline in batches of one level each, at the batch size that suits it
               best
    b-compile  the same at the first of --rows, UNet in channels_last and compiled, VAE decoder
               compiled (only when asked for)
    c          our engine, all levels in one batch
    compile    our engine with torch.compile (--compile-mode)

The models have the architectures of the real ones and random weights, made on the device: speed
does not depend on what they draw. The engine loads them with its own code from a folder that holds
configs only, `from_pretrained` being replaced.

Grid: λ = 0, .1, ..., .9. A stock pipeline's time at one level is linear in its steps; levels that
do not fit in the time are read off that line. The bound is the UNet forwards at B and the decodes
that the engine cannot do without, measured before and after it and averaged. FLOPs are counted on
the meta device; MFU counts those an image needs (two forwards a step, one decode, one encode per
source) and none of the padding.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from gpu_models import (
    Config,
    Flops,
    Spec,
    count_flops,
    random_weights,
    real_specs,
    tiny_specs,
    write_folder,
)
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from discl_ray.core.lam import num_denoising_steps
from discl_ray.generate.config import GeneratorConfig
from discl_ray.generate.diffusion import StableDiffusion, load_model
from discl_ray.generate.engine import Engine
from discl_ray.generate.rows import Row
from discl_ray.generate.samplers import SAMPLERS

LEVELS = tuple(range(0, 100, 10))
ORDER = (90, 50, 0, 70, 20, 80, 30, 60, 10, 40)
"""Levels as a stock pipeline measures them: the ends and the middle of the line first."""
LINES = ("a", "b", "b-compile", "c", "compile")
CFG_SCALE = 7.5
PEAK = {"NVIDIA H200": 989.0, "NVIDIA H100 80GB HBM3": 989.0}
"""Dense bf16 TFLOP/s by the datasheet."""
MAMF = {"NVIDIA H200": 794.5}
"""Largest TFLOP/s reached by a bf16 matrix product."""
INT32 = 2**31
RESULT = Path(__file__).parent / "results" / "engine_gpu.md"


def make_rows(
    spec: Spec, count: int, num_steps: int, replicas: int, levels: Sequence[int] = LEVELS
) -> list[Row]:
    """`count` rows: level by level, then seed by seed, then source by source."""
    each = len(levels) * replicas
    sources = [
        np.random.default_rng(i).integers(0, 256, (*spec.size, 3), np.uint8)
        for i in range(math.ceil(count / each))
    ]
    return [
        Row(
            gid=str(i),
            source_id=str(i // each),
            source=sources[i // each],
            prompt=f"a photo of animal {i // each}",
            negative_prompt="",
            seed=i,
            num_steps=num_denoising_steps(levels[i % len(levels)], num_steps),
        )
        for i in range(count)
    ]


class Clock:
    """Seconds on a device that runs behind the host."""

    def __init__(self, device: torch.device, round_s: float) -> None:
        self.device, self.round_s = device, round_s

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def once(self, work: Callable[[], object]) -> float:
        """Of one call."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def call(self, work: Callable[[], object], rounds: int = 3) -> float:
        """Of a call when many follow one another: the median of rounds of about `round_s`."""
        work()
        calls = min(100, max(1, round(self.round_s / self.once(work))))
        return statistics.median(
            self.once(lambda: [work() for _ in range(calls)]) / calls for _ in range(rounds)
        )

    def peak_gib(self) -> float | None:
        """Most memory held since `forget`."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None

    def forget(self) -> None:
        """Begins to look for the peak anew."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()


class Stock:
    """diffusers' own pipeline, called as its documentation shows."""

    def __init__(
        self, spec: Spec, folder: Path, device: torch.device, dtype: torch.dtype, num_steps: int
    ) -> None:
        with random_weights(device):

            def part(cls, name: str):
                return cls.from_pretrained(folder / name, dtype=dtype)[0].eval()

            parts: Config = {
                "unet": part(UNet2DConditionModel, "unet"),
                "vae": part(AutoencoderKL, "vae"),
            }
            for i, (suffix, config) in enumerate(zip(("", "_2"), spec.text, strict=True)):
                cls = CLIPTextModelWithProjection if i else CLIPTextModel
                name = f"text_encoder{suffix}"
                there = config is not None
                if there or spec.xl:
                    parts[name] = part(cls, name) if there else None
                    parts[f"tokenizer{suffix}"] = (
                        CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
                        if there
                        else None
                    )
        scheduler = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}[spec.sampler]
        parts["scheduler"] = scheduler.from_config(
            json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        )
        if spec.xl:
            more = {
                "requires_aesthetics_score": spec.refiner,
                "force_zeros_for_empty_prompt": not spec.refiner,
            }
            self.pipe = StableDiffusionXLImg2ImgPipeline(**parts, **more, add_watermarker=False)
        else:
            self.pipe = StableDiffusionImg2ImgPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
        self.pipe.set_progress_bar_config(disable=True)
        self.spec, self.num_steps, self.dtype, self.device = spec, num_steps, dtype, device
        self.sliced = False

    def suit(self, images: int) -> None:
        """Decodes image by image where the whole batch has more elements than kernels index.

        As diffusers advises.
        """
        height, width = self.spec.size
        self.sliced = (
            images > 1
            and images * 2 * self.spec.vae["block_out_channels"][0] * height * width >= INT32
        )
        self.pipe.vae.use_slicing = self.sliced

    def compile(self) -> None:
        """What diffusers' page on speed advises."""
        self.pipe.unet.to(memory_format=torch.channels_last)
        self.pipe.vae.to(memory_format=torch.channels_last)
        self.pipe.unet.compile(dynamic=False)
        self.pipe.vae.decoder.compile(dynamic=False)

    def __call__(self, rows: Sequence[Row]) -> None:
        """Makes rows of one level in one call."""
        (steps,) = {row.num_steps for row in rows}
        self.pipe(
            prompt=[row.prompt for row in rows],
            image=[Image.fromarray(row.source) for row in rows],
            strength=(steps + 1e-6) / self.num_steps if steps < self.num_steps else 1.0,
            num_inference_steps=self.num_steps,
            guidance_scale=CFG_SCALE,
            generator=[torch.Generator().manual_seed(row.seed) for row in rows],
            output_type="np",
        )
        # diffusers rounds the strength; it must not lose a step
        assert self.pipe.num_timesteps == steps

    @torch.no_grad()
    def decode(self, images: int) -> None:
        """The decode inside a call; SDXL's VAE goes to float32 and back when it is in float16."""
        vae = self.pipe.vae
        up = self.spec.xl and self.dtype == torch.float16
        z = torch.randn(
            images, *self.spec.latent, device=self.device, dtype=torch.float32 if up else self.dtype
        )
        if up:
            vae.to(torch.float32)
        vae.decode(z)
        if up:
            vae.to(self.dtype)


# --- Lines ---


@dataclass(frozen=True)
class Setting:
    """What all lines share."""

    args: argparse.Namespace
    device: torch.device
    clock: Clock


def stock_line(name: str, spec: Spec, folder: Path, flops: Flops, setting: Setting) -> Config:
    """(a), (b) or (b-compile)."""
    args, clock = setting.args, setting.clock
    dtype = getattr(torch, args.official_dtype if name == "a" else args.dtype)
    stock = Stock(spec, folder, setting.device, dtype, args.num_steps)
    if name == "b-compile":
        stock.compile()
    candidates = {"a": [2], "b": args.stock_rows, "b-compile": args.rows[:1]}[name]
    probed: dict[int, dict[int, float]] = {}
    about: dict[int, tuple[float, float | None]] = {}
    notes: list[str] = []
    for rows in candidates:
        clock.forget()
        stock.suit(rows // 2)
        try:
            cold = clock.once(lambda rows=rows: stock(level_rows(spec, rows // 2, ORDER[0], args)))
            probed[rows] = level_seconds(stock, rows // 2, 0, {}, setting)
            about[rows] = cold, clock.peak_gib()
        except RuntimeError as error:  # out of memory is one
            notes.append(f"B = {rows}: {reason(error)}")
        free()
    if not probed:
        return {"error": "; ".join(notes)}

    def rate(rows: int) -> float:
        return 10 * rows / 2 / sum(whole_grid(probed[rows], args.num_steps)[0].values())

    best = max(probed, key=rate)
    stock.suit(best // 2)
    notes += [f"B = {rows}: {rate(rows):.3g}/s" for rows in probed if rows != best]
    known = level_seconds(stock, best // 2, args.seconds, probed[best], setting)
    levels, per_step = whole_grid(known, args.num_steps)
    notes += [f"{len(known)} of 10 levels measured"] if len(known) < 10 else []
    notes += ["VAE sliced"] if stock.sliced else []
    per_source = len(LEVELS) * args.replicas
    steps = statistics.mean(num_denoising_steps(pct, args.num_steps) for pct in LEVELS)
    return {
        "rows": best,
        "dtype": str(dtype).removeprefix("torch."),
        "step_ms": 1e3 * per_step,
        "decode_ms": 1e3 * clock.call(lambda: stock.decode(best // 2)) / (best // 2),
        "slots": 1.0,
        "images": len(known) * best // 2,
        "images_s": 10 * best / 2 / sum(levels.values()),
        "tflop_image": flops.image(steps, per_source),
        "cold_s": about[best][0],
        "peak_gib": about[best][1],
        "note": "; ".join(notes),
    }


def level_rows(spec: Spec, images: int, pct: int, args: argparse.Namespace) -> list[Row]:
    return make_rows(spec, images, args.num_steps, args.replicas, [pct])


def level_seconds(
    stock: Stock, images: int, budget: float, known: dict[int, float], setting: Setting
) -> dict[int, float]:
    """Seconds of a batch by level: two levels at least, then as many as fit in the budget."""
    known, spent = dict(known), 0.0
    for pct in ORDER:
        if pct in known:
            continue
        expected = whole_grid(known, setting.args.num_steps)[0][pct] if len(known) >= 2 else 0
        if len(known) >= 2 and spent + expected > budget:
            continue
        rows = level_rows(stock.spec, images, pct, setting.args)
        known[pct] = setting.clock.once(lambda rows=rows: stock(rows))
        spent += known[pct]
    return known


def whole_grid(known: dict[int, float], num_steps: int) -> tuple[dict[int, float], float]:
    """Seconds at every level, from the line through those measured where none was measured.

    Also the line's slope.
    """
    steps = {pct: num_denoising_steps(pct, num_steps) for pct in LEVELS}
    slope, start = np.polyfit([steps[pct] for pct in known], list(known.values()), 1)
    return {pct: known.get(pct, float(start + slope * steps[pct])) for pct in LEVELS}, float(slope)


# as in the engine's thread; outside it a compiled UNet would be compiled again
@torch.inference_mode()
def parts_of_engine(engine: Engine, row: Row, clock: Clock) -> dict[str, float]:
    """Seconds of a forward at B, a decoded chunk, an encoded source and a pair of prompts."""
    model, batch = engine.model, engine.micro_batch
    told = model.encode_prompts("", row.prompt)
    conditioning = tuple(t.repeat_interleave(batch, 0) for t in told)
    latents = torch.randn(2 * batch, *model.latent_shape, device=model.device)
    timesteps = torch.full((2 * batch,), 500.0, device=model.device)
    finished = torch.randn(engine.decode_batch, *model.latent_shape, device=model.device)
    return {
        "unet": clock.call(lambda: model.denoise(latents, timesteps, conditioning)),
        "decode": clock.call(lambda: model.decode(finished)),
        "encode": clock.call(lambda: model.encode_source(row.source)),
        "text": clock.call(lambda: model.encode_prompts("", row.prompt)),
    }


@contextmanager
def running_engine(
    model: StableDiffusion, spec: Spec, batch: int, args: argparse.Namespace
) -> Iterator[Engine]:
    """An engine whose thread is gone afterwards, and with it what it holds."""
    table = SAMPLERS[spec.sampler](model.scheduler, args.num_steps)
    decode = args.decode_batch or spec.decode_batch
    engine = Engine(model, table, cfg_scale=CFG_SCALE, micro_batch=batch, decode_batch=decode)
    try:
        yield engine
    finally:
        engine.close()
        for thread in threading.enumerate():
            if thread.name == "engine":
                thread.join(60)


def engine_line(
    name: str, rows: int, spec: Spec, folder: Path, flops: Flops, setting: Setting
) -> Config:
    """(c) or (compile) at `rows` UNet rows."""
    args, clock, batch = setting.args, setting.clock, rows // 2
    mode = args.compile_mode if name == "compile" else "none"
    config = GeneratorConfig(
        model=str(folder),
        size=spec.size,
        sampler=spec.sampler,
        dtype=args.dtype,
        vae_dtype=args.dtype,
        compile=mode,
    )
    clock.forget()
    with random_weights(setting.device):
        model = load_model(folder, config, setting.device)
    usual, again, good = model.decode, 0, 0

    def decode(latents: Tensor, *, safe: bool = False) -> tuple[Tensor, Tensor]:
        nonlocal again
        again += safe
        return usual(latents, safe=safe)

    def run(rows: Sequence[Row]) -> None:
        nonlocal good
        good = sum(made.pixels is not None for made in engine.run(rows))
        if engine.micro_batch != batch:
            raise torch.OutOfMemoryError("the engine halved its batch")

    model.decode = decode
    with running_engine(model, spec, batch, args) as engine:
        first = level_rows(spec, 1, ORDER[0], args)
        cold = clock.once(lambda: run(first))
        before = parts_of_engine(engine, first[0], clock)
        mean = statistics.mean(num_denoising_steps(pct, args.num_steps) for pct in LEVELS)
        expected = args.seconds / (
            mean / batch * before["unet"] + before["decode"] / engine.decode_batch
        )
        todo = make_rows(
            spec, 10 * math.ceil(max(2 * batch, expected) / 10), args.num_steps, args.replicas
        )
        useful, total = engine.useful_rows, engine.total_rows
        wall = clock.once(lambda: run(todo))
        useful, total = engine.useful_rows - useful, engine.total_rows - total
        after = parts_of_engine(engine, first[0], clock)
        chunk = engine.decode_batch
    parts = {part: (before[part] + after[part]) / 2 for part in before}
    bound = (
        sum(row.num_steps for row in todo) / batch * parts["unet"]
        + math.ceil(len(todo) / chunk) * parts["decode"]
    )
    steps = sum(row.num_steps for row in todo) / len(todo)
    notes = [f"{len(todo) - good} images broken"] * (good != len(todo)) + [
        f"{again} decoded again"
    ] * bool(again)
    return {
        "rows": rows,
        "dtype": args.dtype,
        "mode": mode,
        "step_ms": 1e3 * parts["unet"],
        "decode_ms": 1e3 * parts["decode"] / chunk,
        "encode_ms": 1e3 * parts["encode"],
        "text_ms": 1e3 * parts["text"],
        "slots": useful / total,
        "images": len(todo),
        "images_s": len(todo) / wall,
        "bound_s": len(todo) / bound,
        "tflop_image": flops.image(steps, len(todo) / len({row.source_id for row in todo})),
        "cold_s": cold,
        "peak_gib": clock.peak_gib(),
        "note": "; ".join([f"decodes {chunk}", *notes]),
    }


def free() -> None:
    """Gives back what a line held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reason(error: BaseException) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    first = (str(error).strip().splitlines() or [""])[0][:100].replace("|", "/")
    return f"failed: {type(error).__name__} {first}"


def measure(
    model: str, line: str, rows: int | None, spec: Spec, flops: Flops, setting: Setting
) -> Config:
    """A line's record; an error is one too."""
    args = setting.args
    dtype = args.official_dtype if line == "a" else args.dtype
    identity = {
        "model": model,
        "line": line,
        "mode": args.compile_mode if line == "compile" else "none",
    }
    blank = identity | {"rows": rows, "dtype": dtype}
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_folder(spec, Path(folder))
            if rows is None:
                found = stock_line(line, spec, Path(folder), flops, setting)
            else:
                found = engine_line(line, rows, spec, Path(folder), flops, setting)
    except Exception as error:  # whatever it is, the other lines are still to be measured
        traceback.print_exc()
        found = {"error": reason(error)}
    torch._dynamo.reset()
    free()
    key = [model, line, str(rows or ""), dtype, identity["mode"]]
    return {"key": "/".join(key)} | blank | found | {"flops": asdict(flops)}


# --- The table ---

COLUMNS = (
    "model",
    "line",
    "B (rows)",
    "dtype",
    "ms/step",
    "UNet TFLOP/s",
    "MFU",
    "MAMF use",
    "VAE ms/image",
    "slots used",
    "images/s",
    "ideal images/s",
    "of ideal",
    "bound images/s",
    "of bound",
    "× (a)",
    "× (b)",
    "images",
    "first s",
    "peak GiB",
    "note",
)


class Report:
    """Records by key, in a JSON-lines file and as a Markdown table beside it.

    A record replaces the one of its key.
    """

    def __init__(self, path: Path, specs: dict[str, Spec], about: Config) -> None:
        self.path, self.specs, self.about = path, specs, about
        self.lines = path.with_suffix(".jsonl")
        found = (
            [json.loads(line) for line in self.lines.read_text().splitlines()]
            if self.lines.exists()
            else []
        )
        if any(record["about"]["tiny"] != about["tiny"] for record in found):
            raise SystemExit(
                f"{self.lines}: tiny records and measured ones do not mix; name another --out"
            )
        self.records: dict[str, Config] = {record["key"]: record for record in found}

    def add(self, record: Config) -> None:
        """Takes a record in and writes both files."""
        self.records[record["key"]] = record | {"about": self.about}
        self.path.parent.mkdir(parents=True, exist_ok=True)

        def order(record: Config) -> tuple[int, int, str, int]:
            model = list(self.specs).index(record["model"])
            return model, LINES.index(record["line"]), record["mode"], record["rows"] or 0

        records = sorted(self.records.values(), key=order)
        for path, text in (
            (self.lines, "".join(json.dumps(r) + "\n" for r in records)),
            (self.path, self.markdown(records)),
        ):
            part = path.with_name(path.name + ".part")
            part.write_text(text)
            os.replace(part, path)

    def markdown(self, records: Sequence[Config]) -> str:
        """The whole page."""
        rate = {
            (r["model"], r["line"]): r.get("images_s") for r in records if r["line"] in ("a", "b")
        }
        text = ["# The engine on a GPU", ""]
        if self.about["tiny"]:
            text += ["**TINY: plumbing only, no measurement**", ""]
        for about in {json.dumps(r["about"]): r["about"] for r in records}.values():
            text += [f"`{about['command']}` at {about['commit']}: {about['setting']}", ""]
        text += self._table(COLUMNS, [self._row(r, rate) for r in records], left=4)
        text += [
            "",
            "ms/step: (a) and (b) a step of the pipeline, CFG pair and scheduler; else a UNet "
            "forward at B. MFU and MAMF use: FLOPs that the images need over those the device "
            "could have done. Slots used: (a) and (b) are given full batches only. Ideal: the "
            "images' FLOPs at the MAMF rate (at the peak where it is unknown). Bound: UNet "
            "forwards at B and decodes. Images: how many were made for this line. First: seconds "
            "until the first image, compiling included.",
            "",
        ]
        parts = [r for r in records if "text_ms" in r]
        heads = (
            "model",
            "line",
            "B (rows)",
            "UNet ms",
            "decode ms/image",
            "encode ms/source",
            "prompts ms/pair",
        )
        names = ("step_ms", "decode_ms", "encode_ms", "text_ms")
        rows = [
            [self._title(r), self._line(r), str(r["rows"]), *(f"{r[name]:.4g}" for name in names)]
            for r in parts
        ]
        text += [*self._table(heads, rows, left=2), ""] if parts else []
        heads = ("TFLOP", "UNet row", "decode", "encode", "known: UNet row", "decode", "encode")
        flops = {self._title(r): (r["flops"], self.specs[r["model"]].known or ()) for r in records}
        rows = [
            [t, *(f"{x:.3g}" for x in (*f.values(), *known)), *["–"] * (3 - len(known))]
            for t, (f, known) in flops.items()
        ]
        return "\n".join(text + self._table(heads, rows, left=1)) + "\n"

    def _title(self, record: Config) -> str:
        spec = self.specs[record["model"]]
        return f"{spec.title} {spec.size[1]}×{spec.size[0]}"

    def _line(self, record: Config) -> str:
        return record["line"] + (f", {record['mode']}" if record["line"] == "compile" else "")

    def _row(self, r: Config, rate: dict[tuple[str, str], float | None]) -> list[str]:
        head = [self._title(r), f"({self._line(r)})", str(r["rows"] or "–"), r["dtype"]]
        if "error" in r:
            return [*head, *["–"] * (len(COLUMNS) - len(head) - 1), r["error"]]
        peak, mamf, done = r["about"]["peak"], r["about"]["mamf"], r["images_s"] * r["tflop_image"]
        ideal = (mamf or peak) / r["tflop_image"]
        percent = lambda x: f"{100 * x:.1f} %"  # noqa: E731
        times = [
            f"{r['images_s'] / other:.2f}×" if (other := rate.get((r["model"], line))) else "–"
            for line in ("a", "b")
        ]
        return [
            *head,
            f"{r['step_ms']:.4g}",
            f"{r['rows'] * r['flops']['unet'] / r['step_ms'] * 1e3:.3g}",
            percent(done / peak),
            percent(done / mamf) if mamf else "–",
            f"{r['decode_ms']:.4g}",
            percent(r["slots"]),
            f"{r['images_s']:.4g}",
            f"{ideal:.4g}",
            percent(r["images_s"] / ideal),
            f"{r['bound_s']:.4g}" if "bound_s" in r else "–",
            percent(r["images_s"] / r["bound_s"]) if "bound_s" in r else "–",
            *times,
            str(r["images"]),
            f"{r['cold_s']:.1f}",
            f"{r['peak_gib']:.1f}" if r["peak_gib"] else "–",
            r["note"],
        ]

    @staticmethod
    def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
        rule = ["---"] * left + ["---:"] * (len(heads) - left)
        return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


# --- Command ---


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def revision() -> str:
    """The commit the numbers are of."""
    ask = lambda *words: subprocess.run(  # noqa: E731
        ("git", *words), cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = ask("status", "--porcelain", "--untracked-files=no")
    return (ask("rev-parse", "--short", "HEAD") or "unknown") + (
        " with uncommitted changes" if changed else ""
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = lambda text: [word.strip() for word in text.split(",")]  # noqa: E731
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    dtypes = ("float32", "bfloat16", "float16")
    parser.add_argument(
        "--models", type=names, default=list(real_specs()), help="of " + ", ".join(real_specs())
    )
    parser.add_argument(
        "--lines", type=names, default=["a", "b", "c", "compile"], help="of " + ", ".join(LINES)
    )
    parser.add_argument(
        "--rows",
        type=numbers,
        help="B of the engine in UNet rows, two an image; several: 64,128 (default 64)",
    )
    parser.add_argument(
        "--stock-rows", type=numbers, help="B that (b) chooses from (default 16,32,64)"
    )
    parser.add_argument(
        "--decode-batch", type=int, help="images the engine decodes at once (default: by model)"
    )
    parser.add_argument("--dtype", choices=dtypes, default="bfloat16", help="of all lines but (a)")
    parser.add_argument("--official-dtype", choices=dtypes, default="float16", help="of (a)")
    parser.add_argument("--compile-mode", choices=("default", "max-autotune"), default="default")
    parser.add_argument(
        "--seconds",
        type=float,
        help="about how long a line is measured, warming up aside (default 60)",
    )
    parser.add_argument("--num-steps", type=int, help="T (default 50)")
    parser.add_argument("--replicas", type=int, default=8, help="images per source and level")
    parser.add_argument(
        "--peak-tflops", type=float, help="dense TFLOP/s in --dtype (default: by device name)"
    )
    parser.add_argument(
        "--mamf-tflops",
        type=float,
        help="largest TFLOP/s reached by a matrix product (default: by device name)",
    )
    parser.add_argument("--commit", help="what the numbers are of, where git cannot tell")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"the table; its JSON lines lie beside it (default {RESULT.name} in results)",
    )
    parser.add_argument("--flops", action="store_true", help="only count FLOPs")
    parser.add_argument(
        "--tiny", action="store_true", help="everything end to end on a CPU; measures nothing"
    )
    args = parser.parse_args(argv)
    for given, allowed in ((args.models, tuple(real_specs())), (args.lines, LINES)):
        if unknown := set(given) - set(allowed):
            parser.error(f"{', '.join(sorted(unknown))}: allowed are {', '.join(allowed)}")
    usual = {
        "rows": [8],
        "stock_rows": [4, 8],
        "seconds": 0.5,
        "num_steps": 10,
        "peak_tflops": 1.0,
        "mamf_tflops": 1.0,
    }
    real = {"rows": [64], "stock_rows": [16, 32, 64], "seconds": 60.0, "num_steps": 50}
    for name, value in (usual if args.tiny else real).items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    if any(rows < 2 or rows % 2 for rows in (*args.rows, *args.stock_rows)) or args.num_steps < 10:
        parser.error("rows come in pairs, and λ = .9 needs T of at least 10 to have a step")
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    if name == "CPU" and not (args.tiny or args.flops):
        parser.error("no GPU here; --tiny tries the plumbing without one")
    args.peak_tflops = args.peak_tflops or PEAK.get(name)
    args.mamf_tflops = args.mamf_tflops or MAMF.get(name)
    if args.peak_tflops is None and not args.flops:
        parser.error(f"--peak-tflops: {name} is not in the list; give its dense {args.dtype} rate")
    args.out = args.out or (
        Path(tempfile.gettempdir()) / "engine_gpu_tiny.md" if args.tiny else RESULT
    )
    return args


def main() -> None:
    args = parse()
    diffusers_logging.set_verbosity_error()  # (a) would warn at every image
    if args.tiny:
        torch.set_num_threads(1)
        torch.compile = partial(
            torch.compile, backend="eager"
        )  # Dynamo, guards and threads as ever, without the C++ compiler
    device = torch.device("cuda" if torch.cuda.is_available() and not args.tiny else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    specs = tiny_specs() if args.tiny else real_specs()
    flops = {model: count_flops(specs[model]) for model in args.models}
    for model in args.models if args.flops else ():
        f, known = flops[model], specs[model].known
        say(
            f"{model}: UNet row {f.unet:.4g}, decode {f.decode:.4g}, encode {f.encode:.4g} TFLOP; "
            f"known {known}"
        )
    if args.flops:
        return
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in ("torch", "diffusers", "transformers")
    )
    grid = (
        f"λ = 0, .1, ..., .9, T = {args.num_steps}, CFG {CFG_SCALE:g}, "
        f"{args.replicas} images per source and level"
    )
    rates = f"peak {args.peak_tflops:g} TFLOP/s" + (
        f", MAMF {args.mamf_tflops:g}" if args.mamf_tflops else ""
    )
    about = {
        "command": " ".join(["python benchmarks/engine_gpu.py", *sys.argv[1:]]),
        "commit": args.commit or revision(),
        "setting": f"{name}, {versions}, {grid}, {rates}",
        "peak": args.peak_tflops,
        "mamf": args.mamf_tflops,
        "tiny": args.tiny,
    }
    report = Report(args.out, specs, about)
    setting = Setting(args, device, Clock(device, 0.05 if args.tiny else 0.5))
    failed = False
    for model in args.models:
        for line in args.lines:
            for rows in args.rows if line in ("c", "compile") else [None]:
                start = time.perf_counter()
                record = measure(model, line, rows, specs[model], flops[model], setting)
                report.add(record)
                failed |= "failed" in record.get("error", "")
                result = record.get("error") or f"{record['images_s']:.4g} images/s"
                say(f"{record['key']}: {result} ({time.perf_counter() - start:.0f} s)")
    print(args.out.read_text())
    sys.exit(failed)


if __name__ == "__main__":
    main()
