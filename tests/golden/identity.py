"""What names things on disk: gids, seeds and the hashes in the names of runs.

    # says what has changed against identity.json
    python -m tests.golden.identity
    # makes identity.json again: every run that a changed hash names is orphaned
    python -m tests.golden.identity --write

Hashes are computed at made-up fingerprints. `configs/` holds the presets as they were at 155df47,
every value written out. A field that is added later is not in them, so their hashes show that it
enters none.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from discl_ray.config import PHASE_1, PHASE_2, Config, load_config, part_hash
from discl_ray.core.ids import stable_id
from discl_ray.core.schema import SAMPLES
from discl_ray.core.settings import identity
from discl_ray.core.storage import Store
from discl_ray.data import read_samples
from discl_ray.experiments.rows import START
from discl_ray.plan.config import PlanConfig, PromptConfig
from discl_ray.plan.grid import make_plan
from discl_ray.plan.prompts import load_prompts

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIGS = HERE / "configs"
GOLDEN = HERE / "identity.json"
FINGERPRINT = "0123456789abcdef0123456789abcdef"
"""A generator that never was."""

FOLDER_HASHES = ("data", "generate", "start", "train")


def sources() -> pa.Table:
    """Three hard images: two to train on, one to probe with."""
    rows = [
        ("fox/1", 0, "red fox", "train"),
        ("fox/2", 0, "red fox", "train"),
        ("otter/1", 1, "otter", "val"),
    ]
    columns = dict(
        zip(("sample_id", "label", "class_name", "split"), zip(*rows, strict=True), strict=True)
    )
    sha256 = [stable_id("bytes", sample_id) for sample_id in columns["sample_id"]]
    blank = {name: [None] * len(rows) for name in SAMPLES.names}
    return pa.Table.from_pydict({**blank, **columns, "sha256": sha256}, schema=SAMPLES)


def plan_rows() -> list[dict[str, object]]:
    """gid and seed of every planned image."""
    config = PlanConfig(replicas=2, num_steps=20, lams=(0.0, 0.3, 0.9), shard_steps=50)
    prompts = load_prompts(
        PromptConfig(generation=("a photo of a {name}",), filter="a photo of a {name}")
    )
    plan = make_plan(sources(), config, prompts, fingerprint=FINGERPRINT, base_seed=5)
    return plan.select(["sample_id", "lam_pct", "replica", "num_steps", "seed", "gid"]).to_pylist()


def step_hashes(config: Config) -> dict[str, str]:
    """What a configuration adds to the name of each step's folder."""
    start = config.model_copy(update={"curriculum": START, "train": config.train.start()})
    return {
        "data": stable_id(identity(config.data)),
        "generate": part_hash(config, PHASE_1, FINGERPRINT),
        "start": part_hash(start, ("seed", "train"), FINGERPRINT, "start"),
        "train": part_hash(config, PHASE_2, FINGERPRINT, "row"),
    }


def folder_samples(root: Path) -> dict[str, str]:
    """Split by sample of a small folder of images, and the fingerprint of it all."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(24):
        path = root / "images" / ("red fox", "otter")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    config = load_config(ROOT / "conf" / "imagefolder.yaml", [f"data.root={root / 'images'}"])
    samples = read_samples(config.data, config.seed, Store.at(root / "runs"))
    rows = zip(
        samples.table["sample_id"].to_pylist(), samples.table["split"].to_pylist(), strict=True
    )
    return {"fingerprint": samples.fingerprint, **dict(sorted(rows))}


def digits_samples(root: Path) -> str:
    """Fingerprint of the embedded data set."""
    config = load_config(ROOT / "conf" / "digits_lt.yaml")
    return read_samples(config.data, config.seed, Store.at(root)).fingerprint


def compute() -> dict[str, object]:
    """Everything that is pinned."""
    with tempfile.TemporaryDirectory() as root:
        return {
            "plan": plan_rows(),
            "steps": {
                file.stem: step_hashes(load_config(file)) for file in sorted(CONFIGS.glob("*.yaml"))
            },
            "samples_of_a_folder": folder_samples(Path(root) / "folder"),
            "samples_of_digits_lt": digits_samples(Path(root) / "digits"),
        }


def changes(old: object, new: object, where: str = "") -> list[str]:
    """Where two computed values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [
            line for key in keys for line in changes(old.get(key), new.get(key), f"{where}/{key}")
        ]
    return [] if old == new else [f"{where}: was {old}, is {new}"]


def main() -> None:
    """Says what has changed; with --write, pins it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="pin what is computed now")
    write = parser.parse_args().write
    new = compute()
    old = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for line in changes(old, new):
        print(line)
    if write:
        GOLDEN.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
        print("written; say in CHANGELOG.md which folders are orphaned by the lines above")


if __name__ == "__main__":
    main()
