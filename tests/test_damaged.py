"""Every file of a run's folder, damaged in every way.

It is made again, or named with what to delete; nothing wrong passes.
"""

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from discl_ray.cluster.demand import Workers
from discl_ray.config import Config, dump_config, load_config
from discl_ray.core.run_directory import CONFIG, locked
from discl_ray.core.storage import Store
from discl_ray.errors import DisclError, SetupError
from discl_ray.experiments.run_workers import WORKERS, read_workers
from discl_ray.spectrum.find import find_spectrum
from discl_ray.spectrum.open import Spectrum
from discl_ray.spectrum.read import open_spectrum
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.run import prepare
from discl_ray.train.images.table import build_table, open_table
from discl_ray.train.job import make_job
from tests.golden.test_golden import GENERATED, OLD, VERSIONS

SAMPLES = "samples-313c0f92"
FILES = sorted(
    str(path.relative_to(OLD / "digits_lt"))
    for folder in (GENERATED, SAMPLES)
    for path in (OLD / "digits_lt" / folder).rglob("*.*")
)
SAMPLED = [name for name in FILES if "spectrum/" not in name and "commits/" not in name]
SAMPLED += [
    next(name for name in FILES if part in name)
    for part in ("lam_pct=0/", "lam_pct=50/", "commits/")
]


KEPT, WHOLE_TABLE = 25, 170


class MustStartRay(Exception):
    """Images have to be made."""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Path]:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: VERSIONS.get(name) or version(name)
    )

    def refuse(**_: object) -> None:
        raise MustStartRay

    monkeypatch.setattr("discl_ray.synthesize.rounds.ray_session", refuse)
    shutil.copytree(OLD, tmp_path / "runs")
    file = tmp_path / "recorded.yaml"
    file.write_text(
        yaml.safe_dump(yaml.safe_load((OLD / "digits_lt" / GENERATED / "config.yaml").read_text()))
    )
    return load_config(file, [f"run.root={tmp_path / 'runs'}"]), tmp_path / "runs" / "digits_lt"


def made(config: Config) -> int:
    """What `make generate` does, as far as it gets without Ray."""
    run = prepare(config)
    with locked(run.store):
        generate(lay_out(run))
        return sum(open_spectrum(run.store, config.filter)["kept"].to_pylist())


def trained(config: Config) -> int:
    """What `make train` reads; images in its table."""
    store = prepare(config).store
    spectrum = Spectrum.open(store)
    make_job(
        spectrum,
        seed=config.seed,
        data=config.data,
        train=config.train,
        curriculum=config.curriculum,
    )
    return len(open_table(build_table(spectrum, config.filter, config.train.image_size)).label)


def outcome(job: Callable[[Config], int], config: Config) -> int | str:
    """What a job came to: a number, what it refused, or that it would start Ray.

    Anything else is a fault.
    """
    try:
        return job(config)
    except DisclError as error:
        return str(error)
    except MustStartRay:
        return "Ray"


JOBS = (trained, made)


@pytest.mark.parametrize("damage", ["gone", "garbled"])
@pytest.mark.parametrize("name", SAMPLED)
def test_a_damaged_file_is_made_again_or_named(
    runs: tuple[Config, Path], name: str, damage: str
) -> None:
    config, root = runs
    path = root / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(os.urandom(200))
    said = [outcome(job, config) for job in JOBS]
    expected = {
        trained: WHOLE_TABLE,
        made: "Ray" if "commits/" in name or "spectrum/" in name else KEPT,
    }
    for job, found in zip(JOBS, said, strict=True):
        named = (GENERATED in str(found) or SAMPLES in str(found)) and (
            "again" in str(found) or "make generate" in str(found)
        )
        assert found == expected[job] or (named and job is trained), found


def test_the_nearest_spectrum_is_named_with_the_keys_that_differ(runs: tuple[Config, Path]) -> None:
    config, _ = runs
    other = config.model_copy(update={"plan": config.plan.model_copy(update={"replicas": 7})})
    with pytest.raises(SetupError) as caught:
        find_spectrum(other)
    assert f"the nearest is {GENERATED}, which differs in plan.replicas (1 there, 7 here)" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_who_is_making_the_spectrum_is_named(runs: tuple[Config, Path]) -> None:
    config, _ = runs
    other = config.model_copy(update={"plan": config.plan.model_copy(update={"replicas": 7})})
    store = Store.at(config.run.root).within("digits_lt/generate-00000000")
    store.write(CONFIG, dump_config(other).encode())
    with locked(store), pytest.raises(SetupError, match=f"process {os.getpid()} on"):
        find_spectrum(other)
    store.write_json(
        ".holder", {"pid": 2**22 + 1, "host": os.uname().nodename, "since": "then"}
    )  # was killed
    with pytest.raises(SetupError) as caught:
        find_spectrum(other)
    assert "process" not in str(caught.value)


@pytest.mark.parametrize(
    "garbled", [b"\xff", b'{"starts": []}', b'{"starts": [{"number": "2", "gpu": false}]}']
)
def test_workers_that_cannot_be_read_are_those_of_the_configuration(
    tmp_path: Path, garbled: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Store.at(tmp_path)
    run.write(WORKERS, garbled)
    run.write("config.yaml", b"train: {workers: 3, use_gpu: false}")
    assert read_workers(run) == (Workers(3, False),)
    assert capsys.readouterr().out.rstrip().endswith("what config.yaml says is taken")
    run.write("config.yaml", b"train: [")
    assert read_workers(run) == ()
    assert "it counts as begun now" in capsys.readouterr().out
