"""Shared fixtures: one local Ray, tiny configurations, and one spectrum made once."""

import os
import signal
import uuid

for _name, _value in {
    "RAY_AUTH_MODE": "disabled",
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # 15 by default: beside another test's process a worker would hardly run
    "RAY_worker_niceness": "0",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(_name, _value)
os.environ.pop("RAY_ADDRESS", None)  # tests never join a cluster that happens to run here

from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from discl_ray.config import Config  # noqa: E402
from discl_ray.process import logs  # noqa: E402
from tests.support import tiers  # noqa: E402
from tests.support.runs import tiny_config  # noqa: E402

# The same examples on every machine, however slow it is;
# `pytest --hypothesis-profile explore` draws others.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", _patient, derandomize=True)
settings.register_profile("explore", _patient, max_examples=2000)
settings.load_profile("same")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell that runs the tests behind itself ignores it for them, and for all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

logs.show()  # as a job does: what is logged is in `capsys`


def pytest_configure(config: pytest.Config) -> None:
    if _pure(config):
        tiers.block()


class Impure(pytest.File):
    """A file that cannot be imported without torch or Ray: it has no pure test."""

    def collect(self) -> list[pytest.Item]:
        return []


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Impure | None:
    """In the pure tier, files of other tiers are not imported."""
    is_test = module_path.name.startswith("test_")
    if _pure(parent.config) and is_test and tiers.tier_of_file(module_path) != "pure":
        return Impure.from_parent(parent, path=module_path)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives every test its tier, unless it is marked with one."""
    for item in items:
        assert isinstance(item, pytest.Function)
        if not any(item.get_closest_marker(tier) for tier in tiers.TIERS):
            slow = item.get_closest_marker("slow") is not None
            item.add_marker(tiers.tier_of(item.path, item.originalname, slow=slow))
    if hasattr(config, "workerinput"):  # of several processes: the longest files first
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _pure(config: pytest.Config) -> bool:
    return config.option.markexpr == "pure"


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Config]:
    return lambda *overrides: tiny_config(tmp_path, *overrides)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory) -> Iterator[str]:
    """Host and port of an S3 server on loopback."""
    from tests.support.s3_server import s3_server

    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3_root(s3_endpoint, monkeypatch) -> str:
    """URI of an empty folder on it; this process and those that it starts find it."""
    from tests.support.s3_server import BUCKET, environment

    for name, value in environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


def _start_ray() -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    import ray

    _start_ray()
    yield
    ray.shutdown()


@pytest.fixture
def without_ray() -> Iterator[None]:
    """No Ray in this process: `ray_local`, if it runs, is ended, and started again afterwards."""
    import ray

    running = ray.is_initialized()
    ray.shutdown()
    yield
    if running:
        _start_ray()


@pytest.fixture(scope="session")
def spectrum_run(ray_local, tmp_path_factory):
    """(config, prepared) of a complete tiny generate run; treat its directory as read-only."""
    from discl_ray.core.run_directory import locked
    from discl_ray.synthesize.layout import lay_out
    from discl_ray.synthesize.rounds import generate
    from discl_ray.synthesize.run import prepare

    config = tiny_config(tmp_path_factory.mktemp("spectrum"))
    run = prepare(config)
    with locked(run.store):
        generate(lay_out(run))
    return config, run
