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
from typing import Any

from discl_ray.cluster.start import (
    OWN,
    TOKEN_ADVICE,
    check_ray_start,
    cluster_address,
    set_environment,
    token_file,
)
from discl_ray.errors import SetupError
from discl_ray.process.stopping import hold, muted


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


def joining() -> bool:
    """Whether a cluster is joined; else a local Ray is started."""
    return cluster_address() is not None


def local_cpus(num_cpus: int | None) -> int:
    """Logical CPUs of a local Ray: beside as many generators as there are cores, the driver and a scorer, which wait for most of
    the time.
    """
    return num_cpus or max(4, (os.cpu_count() or 1) + 2)


@contextmanager
def ray_session(
    *, num_cpus: int | None, needs: dict[str, float], dashboard: bool = False
) -> Iterator[None]:
    """Ray for the length of a job; `needs` is what the job places at once ({"CPU": 2, "GPU": 1}).

    Raises SetupError if the cluster has less than that, or cannot be started or joined.
    """
    set_environment()
    import ray

    joined = ray.is_initialized()
    if not joined:
        check_ray_start()
        _start(num_cpus, dashboard)
    try:
        have = ray.cluster_resources()
        short = {k: (v, have.get(k, 0.0)) for k, v in needs.items() if v > have.get(k, 0.0)}
        if short:
            asked = ", ".join(f"{v:g} {k} asked for and {h:g} there" for k, (v, h) in short.items())
            raise SetupError(
                f"not enough resources: {asked}; lower actors, workers or num_gpus, or join a larger cluster"
            )
        yield
    finally:
        if not joined:
            ray.shutdown()


def _start(num_cpus: int | None, dashboard: bool) -> None:
    """Joins the cluster, or starts a local one; raises SetupError if neither can be."""
    import ray

    address = cluster_address()
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is not None:
            ray.init(**quiet)
        else:
            with muted():  # Ray's dump, should a signal come before it is taken back
                cpus = local_cpus(num_cpus)
                ray.init(address="local", num_cpus=cpus, include_dashboard=dashboard, **quiet)
                hold()
    except Exception as error:
        raise SetupError(_connection_advice(error)) from error
    hold()
    file = token_file()
    if file is not None and address is None and file.is_file():
        file.chmod(0o600)  # Ray writes it readable for everyone on the machine
    _hear_once()


class _Nothing:
    def __init__(self, _: Any) -> None: ...


def _hear_once() -> None:
    """Lets Ray say here, where nobody hears it, what it says once in a process: that arguments of an actor that is restarted must not
    go away meanwhile. Ray Data, whose actors it means, holds on to them.
    """
    import ray

    with muted():
        actor: Any = ray.remote(num_cpus=0, max_restarts=1)(_Nothing)
        ray.kill(actor.remote(ray.put(None)))


def start_beside_driver(kind: type) -> Any:
    """An actor for the driver's own use, on the driver's node: on another one it could be lost and take the job with it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(kind)
    return actor.options(scheduling_strategy=here).remote()


def _connection_advice(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    address = cluster_address()
    if address is None:
        return f"Ray could not be started: {text}"
    if "uthent" in text or "401" in text:
        return (
            f"RAY_ADDRESS = '{address}': Ray refused the connection: {text}; {TOKEN_ADVICE}; {OWN}"
        )
    return f"RAY_ADDRESS = '{address}': cannot be joined: {text}; start the cluster, correct the address, {OWN}"
