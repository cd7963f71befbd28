"""Arithmetic from measured costs: what saturates first with 8, 1,000 and 10,000 GPUs."""

from __future__ import annotations

from dataclasses import dataclass

IMAGES_S = 8.0
"""Images a second of one GPU: Stable Diffusion 1.5, 512 x 512, ten levels, T = 50, one H200."""

STEPS_A_IMAGE = 27.5
"""UNet steps of an image, the mean over ten levels from 0 to .9 at T = 50."""

SHARD_STEPS = 15_000
"""`plan.shard_steps` for a GPU of that speed: a shard of a minute."""

IMAGE_MB = 0.1

PLAN_BYTES = 600
"""Of a row of the plan, in memory."""

FLEETS = (8, 1_000, 10_000)

S3_PUTS = 3_500
"""Requests a second that write below one prefix of S3, as its documentation has it."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a fleet asks of everything beside the GPUs."""

    gpus: int
    driver_s: float
    """CPU seconds of the driver a shard."""

    @property
    def images_s(self) -> float:
        """Images made a second."""
        return self.gpus * IMAGES_S

    @property
    def shards_s(self) -> float:
        """Shards committed a second."""
        return self.images_s * STEPS_A_IMAGE / SHARD_STEPS

    def cells(self) -> list[str]:
        """A line of the table."""
        cores = self.shards_s * self.driver_s
        puts = 2 * self.shards_s  # the shard's file and its record
        a_day = self.images_s * 86_400
        return [
            f"{self.gpus:,}",
            f"{self.images_s:,.0f}",
            f"{self.shards_s:,.2f}",
            f"{100 * cores:,.1f} %",
            f"{puts:,.1f} ({100 * puts / S3_PUTS:.2g} %)",
            f"{self.images_s * IMAGE_MB:,.1f}",
            f"{a_day / 1e6:,.1f}",
            f"{a_day * PLAN_BYTES / 1e9:,.1f}",
        ]


HEADS = (
    "GPUs",
    "images/s",
    "shards/s",
    "of a driver's core",
    "writes/s (of an S3 prefix's)",
    "MB/s written",
    "million images a day",
    "GB of plan a day, if it were whole in memory",
)


def saturation(driver_s: float) -> str:
    """The table as markdown, and what it says; `driver_s` are a driver's CPU seconds a shard."""
    loads = [Load(gpus=gpus, driver_s=driver_s) for gpus in FLEETS]
    lines = [_line(HEADS), "|---" * len(HEADS) + "|", *[_line(load.cells()) for load in loads]]
    first = 1 / driver_s * SHARD_STEPS / STEPS_A_IMAGE / IMAGES_S
    table = "\n".join(lines)
    return (
        "## Many GPUs, by arithmetic\n\n"
        f"From {1000 * driver_s:.0f} ms of the driver's CPU a shard (measured above: the graph "
        f"with generators that make nothing), {IMAGES_S:g} images/s a GPU and shards of "
        f"{SHARD_STEPS:,} steps (`plan.shard_steps={SHARD_STEPS}`, "
        f"{SHARD_STEPS / STEPS_A_IMAGE / IMAGES_S:.0f} s each).\n\n{table}\n\n"
        f"The driver saturates first, with about {first:,.0f} GPUs: Ray Data's executor is one "
        "thread, and each shard costs it that much whatever the shard holds. Longer shards move "
        "the limit in proportion, at the price of more work lost by a kill; several drivers, each "
        "with a part of the sources and a run.name of its own, remove it. Writes come next, and "
        "object stores spread them over prefixes by themselves.\n"
    )


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"
