"""How fast a folder of small images becomes SAMPLES, and what that takes of the driver's memory.

    python benchmarks/samples.py --images 100000

Writes the images into a temporary folder first (JPEG, 32 to 64 pixels a side, noise over a
gradient, 50 classes). The driver's memory is its own, without what it shares with Ray's object
store: private pages, looked at while the job runs.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from discl_ray.cluster.session import ray_session
from discl_ray.core.storage import Store
from discl_ray.data import list_dataset, read_samples
from discl_ray.data.config import ImageFolderConfig
from discl_ray.evaluate.held_out import commit

RESULT = Path(__file__).parent / "results" / "samples.md"


def make_images(root: Path, count: int, classes: int = 50) -> None:
    """Images that differ; most of the time goes into writing them."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (256, 64, 64, 3), dtype=np.uint8)
    ramp = np.linspace(0, 180, 64, dtype=np.uint8)
    for c in range(classes):
        (root / f"class {c:02d}").mkdir(parents=True)
    for i in range(count):
        side = 32 + i % 33
        pixels = noise[i % 256] + np.roll(ramp, i // 256)[:, None, None]
        pixels[:4, :4] = [i % 256, i // 256 % 256, i // 65536]
        Image.fromarray(pixels[:side, :side]).save(
            root / f"class {i % classes:02d}" / f"{i:06d}.jpg", quality=85
        )


def private_bytes() -> int:
    """Memory that is this process's alone."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/smaps_rollup: no Private_Dirty")


class Highest(threading.Thread):
    """Looks at `private_bytes` ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self._stop_it = private_bytes(), threading.Event()

    def run(self) -> None:
        """Until `end`."""
        while not self._stop_it.wait(0.1):
            self.bytes = max(self.bytes, private_bytes())

    def end(self) -> int:
        """The most that was seen."""
        self._stop_it.set()
        self.join()
        return self.bytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--num-cpus", type=int, default=2)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ray_session(num_cpus=args.num_cpus, needs={"CPU": 1.0}),
    ):
        root = Path(folder) / "images"
        make_images(root, args.images)
        config, run = ImageFolderConfig(root=str(root)), Store.at(Path(folder) / "run")
        before, highest = private_bytes(), Highest()
        highest.start()
        began = time.monotonic()
        listing = list_dataset(config, 0)
        listed = time.monotonic() - began
        samples = read_samples(config, 0, run, num_cpus=args.num_cpus)
        seconds = time.monotonic() - began - listed
        growth = highest.end() - before
        began = time.monotonic()
        read_samples(config, 0, run)
        again = time.monotonic() - began
    assert (
        samples.table.num_rows + samples.rejects.num_rows == args.images == listing.table.num_rows
    )
    text = (
        f"# SAMPLES of {args.images} small images\n\n"
        f"JPEG, 32 to 64 pixels a side, in 50 class folders on a local disk, "
        f"{args.num_cpus} CPUs.\n\n"
        "| what | figure |\n|---|---|\n"
        f"| listing | {listed:.1f} s |\n"
        f"| listing, reading, hashing, decoding, drawing splits, writing "
        f"| {seconds:.1f} s, {args.images / seconds:.0f} images/s |\n"
        f"| the same again, nothing changed | {again:.1f} s |\n"
        f"| the driver's own memory, highest above the start | {growth / 1e6:.0f} MB |\n\n"
        f"Command: `python benchmarks/samples.py --images {args.images}`, commit {commit()}.\n"
    )
    print(text)
    RESULT.write_text(text)


if __name__ == "__main__":
    main()
