"""The one place that starts or joins Ray.

Inside a submitted job, or with RAY_ADDRESS set, the cluster is joined; otherwise a local Ray is started, without a dashboard unless
one is needed, and ended again. Resources are checked before anything is placed, so that a job is refused with numbers instead of
waiting for ever.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from discl_ray.errors import SetupError

ENVIRONMENT = {
    "RAY_DATA_USE_DATASOURCE_V2": "0",  # its reader starts 32 actors per execution
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report blocks until the controller polls; the default is 2 s
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would copy the working directory
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # we print our own
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What Ray and the model libraries are told, unless the user's environment says otherwise."""

UNSAFE = ("RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR", "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA")
"""Variables that let Ray unpickle what a Parquet file holds."""


def check_versions(version_of: Callable[[str], str] = importlib.metadata.version) -> None:
    """Raises SetupError unless torch and torchvision are a pair: torch 2.N goes with torchvision 0.(N+15), of one build."""
    torch, vision = version_of("torch"), version_of("torchvision")
    minor = lambda version: int(version.split(".")[1])  # noqa: E731
    build = lambda version: version.partition("+")[2]  # noqa: E731
    if minor(torch) + 15 != minor(vision) or build(torch) != build(vision):
        raise SetupError(
            f"torch {torch} and torchvision {vision} are not a pair (2.N goes with 0.(N+15), both of one build); "
            f"install both in one command: pip install 'torch==2.{minor(torch)}.*' 'torchvision==0.{minor(torch) + 15}.*'"
        )


@contextmanager
def ray_session(*, num_cpus: int | None, needs: dict[str, float], dashboard: bool = False) -> Iterator[None]:
    """Ray for the length of a job; `needs` is what the job places at once ({"CPU": 2, "GPU": 1}).

    Raises SetupError if the cluster has less than that, or refuses the connection.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in UNSAFE:
        if os.environ.get(name):
            raise SetupError(f"{name} is set: it lets Ray run code found in data files; unset it")
    import ray

    joined = ray.is_initialized()
    if not joined:
        joining = "RAY_ADDRESS" in os.environ
        try:
            if joining:
                ray.init(logging_level=logging.ERROR, log_to_driver=False)
            else:
                cpus = num_cpus or max(4, os.cpu_count() or 1)
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=dashboard,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        except Exception as error:
            raise SetupError(_connection_advice(error)) from error
        token = Path.home() / ".ray" / "auth_token"
        if token.is_file():
            token.chmod(0o600)  # Ray writes it readable for everyone on the machine
    try:
        have = ray.cluster_resources()
        short = {k: (v, have.get(k, 0.0)) for k, v in needs.items() if v > have.get(k, 0.0)}
        if short:
            asked = ", ".join(f"{v:g} {k} asked for and {h:g} there" for k, (v, h) in short.items())
            raise SetupError(f"not enough resources: {asked}; lower actors, workers or num_gpus, or join a larger cluster")
        yield
    finally:
        if not joined:
            ray.shutdown()


def start_beside_driver(kind: type) -> Any:
    """An actor for the driver's own use, on the driver's node: on another one it could be lost and take the job with it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(kind)
    return actor.options(scheduling_strategy=here).remote()


def _connection_advice(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    if "uthent" in text or "401" in text:
        return f"Ray refused the connection: {text} -- export RAY_AUTH_MODE=token (or disabled, if the cluster runs open) and retry"
    return f"Ray could not be started or joined: {text}"
