"""What makes the bound itself lower on a CPU: one guided UNet forward, done in several ways.

The embedded model at B rows:

    python benchmarks/bound_cpu.py --micro-batch 32 --threads 2

Every way is timed once a round, round after round, so that a machine that slows down slows all of
them; the table gives the median and each way's ratio to the first in the same round. How far the
outputs are from the first way's is in it, too: all ways compute the same function. Below, the first
way's profile by operator.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from engine_cpu import HERE, revision
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from discl_ray.generate.actor import build_engine
from discl_ray.generate.config import GeneratorConfig

RESULT = HERE / "results" / "bound_cpu.md"


def ways(unet: torch.nn.Module, told: Tensor) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Name -> forward; each on a copy of its own."""

    def plain(module: torch.nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: module(x, t, encoder_hidden_states=told).sample

    last, fused, naive = (copy.deepcopy(unet) for _ in range(3))
    last.to(memory_format=torch.channels_last)
    fused.fuse_qkv_projections()
    naive.set_attn_processor(AttnProcessor())
    frozen = torch.compile(copy.deepcopy(unet), dynamic=False, options={"freezing": True})
    channels_last = plain(last)
    return {
        "eager": plain(unet),
        "channels_last": lambda x, t: channels_last(x.to(memory_format=torch.channels_last), t),
        "query, key and value in one product": plain(fused),
        "attention as matrix products, not SDPA": plain(naive),
        "compiled": plain(torch.compile(copy.deepcopy(unet), dynamic=False)),
        "compiled, weights frozen": plain(frozen),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--micro-batch",
        type=int,
        default=GeneratorConfig().micro_batch,
        help="B; the UNet sees twice as many",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    model = build_engine(
        GeneratorConfig(threads=args.threads, micro_batch=args.micro_batch), 30
    ).model
    rows = 2 * args.micro_batch
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(rows, *model.latent_shape, generator=generator), torch.full((rows,), 500.0)
    (told,) = (
        part.repeat_interleave(args.micro_batch, 0)
        for part in model.encode_prompts("", "a photo of the digit three")
    )
    forwards = ways(model.unet, told)  # pyright: ignore[reportAttributeAccessIssue]
    with FlopCounterMode(display=False) as counter:
        expected = forwards["eager"](x, t)
    difference, seconds = {}, {name: [] for name in forwards}
    for (
        name,
        forward,
    ) in forwards.items():  # the first call of a way compiles it, the second warms it up
        difference[name] = max(float((forward(x, t) - expected).abs().max()) for _ in range(2))
    for _ in range(args.rounds):
        for name, forward in forwards.items():
            start = time.perf_counter()
            forward(x, t)
            seconds[name].append(time.perf_counter() - start)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            forwards["eager"](x, t)
    events = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
    whole = sum(e.self_cpu_time_total for e in events)
    gflop = counter.get_total_flops() / 1e9
    lines = [
        "| one guided forward | median [ms] | × eager | GFLOP/s | largest difference |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, times in seconds.items():
        ratio = statistics.median(e / s for e, s in zip(seconds["eager"], times, strict=True))
        middle = statistics.median(times)
        lines.append(
            f"| {name} | {1000 * middle:.1f} | {ratio:.2f} | {gflop / middle:.0f} "
            f"| {difference[name]:.1e} |"
        )
    lines += ["", "| operator (eager) | share of its time |", "|---|---:|"]
    lines += [f"| `{e.key}` | {100 * e.self_cpu_time_total / whole:.1f} % |" for e in events[:10]]
    text = (
        f"# The bound on a CPU\n\n"
        f"`python benchmarks/bound_cpu.py --micro-batch {args.micro_batch} "
        f"--threads {args.threads} --rounds {args.rounds}` at {revision()}, "
        f"torch {torch.__version__}\n\n" + "\n".join(lines) + "\n"
    )
    print(text)
    args.out.write_text(text)


if __name__ == "__main__":
    main()
