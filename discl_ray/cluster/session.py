"""The one place that starts or joins Ray.

Inside a submitted job, or with RAY_ADDRESS set, the cluster is joined. Otherwise a local Ray is
started, without a dashboard unless one is needed, and shut down again. Resources are checked before
anything is placed: a job that does not fit fails with numbers instead of waiting forever.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Callable, Iterator, Mapping
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
from discl_ray.core.objects import ENDPOINTS, KEY_VARIABLES, REGIONS
from discl_ray.errors import SetupError
from discl_ray.process.calls import in_submitted_job
from discl_ray.process.stopping import hold, muted

STORE_VARIABLES = (*KEY_VARIABLES, *ENDPOINTS, *REGIONS)
"""What workers on other machines need to open an object store."""

OWN_ABI = 29
"""torchvision 0.29 requires torch>=2.14, where older ones required one release of torch."""


def check_versions(version_of: Callable[[str], str] = importlib.metadata.version) -> None:
    """Raises SetupError unless torch and torchvision belong together.

    torch 2.N belongs with torchvision 0.(N+15), both of one build (the part after "+"). Others fail
    later, with an operator that is missing. From OWN_ABI on a torchvision works with newer torch.
    """
    torch, vision = version_of("torch"), version_of("torchvision")
    minor = int(torch.split(".")[1])
    release = int(vision.split(".")[1])
    same_release = minor + 15 == release or minor + 15 > release >= OWN_ABI
    same_build = torch.partition("+")[2] == vision.partition("+")[2]
    if not (same_release and same_build):
        install = f"pip install 'torch==2.{minor}.*' 'torchvision==0.{minor + 15}.*'"
        raise SetupError(
            f"torch {torch} and torchvision {vision} are not a pair (2.N goes with 0.(N+15), both "
            f"of one build); install both in one command: {install}"
        )


def joining() -> bool:
    """Whether jobs join a cluster; otherwise they start a local Ray."""
    return cluster_address() is not None


def local_cpus(num_cpus: int | None) -> int:
    """Logical CPUs of a local Ray.

    Two more than there are cores: the driver and a scorer mostly wait, so that there can still be a
    generator per core.
    """
    return num_cpus or max(4, (os.cpu_count() or 1) + 2)


@contextmanager
def ray_session(
    *, num_cpus: int | None, needs: dict[str, float], dashboard: bool = False
) -> Iterator[None]:
    """Keeps Ray running during a job; one that already runs is used, and left running.

    `needs` are the resources the job uses at once ({"CPU": 2, "GPU": 1}). Raises SetupError if the
    cluster has less, or cannot be started or joined.
    """
    set_environment()
    import ray

    joined = ray.is_initialized()
    if not joined:
        check_ray_start()
        _start(num_cpus, dashboard)
    try:
        check_resources(needs, ray.cluster_resources())
        yield
    finally:
        if not joined:
            ray.shutdown()


def check_resources(needs: Mapping[str, float], available: Mapping[str, float]) -> None:
    """Raises SetupError unless a cluster has the resources a job needs."""
    short: list[str] = []
    for name, amount in needs.items():
        there = available.get(name, 0.0)
        if amount > there:
            short.append(f"{amount:g} {name} needed and {there:g} available")
    if short:
        raise SetupError(
            f"not enough resources: {', '.join(short)}; "
            "lower actors, workers or num_gpus, or join a larger cluster"
        )


def _start(num_cpus: int | None, dashboard: bool) -> None:
    """Joins the cluster, or starts a local one; raises SetupError if that fails."""
    import ray

    address = cluster_address()
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is not None:
            ray.init(**quiet, runtime_env=store_environment())
        else:
            with muted():  # a signal before `hold` makes Ray's handler print a stack dump
                cpus = local_cpus(num_cpus)
                ray.init(address="local", num_cpus=cpus, include_dashboard=dashboard, **quiet)
                hold()
    except Exception as error:
        raise SetupError(_connection_advice(error)) from error
    hold()
    file = token_file()
    if file is not None and address is None and file.is_file():
        file.chmod(0o600)  # Ray makes it readable for every user of the machine
    _mute_restart_warning()


def store_environment() -> dict[str, dict[str, str]] | None:
    """A runtime environment with this process's address and keys of object stores, if it has any.

    The processes of a cluster were started without them. None in a submitted job, where Ray hands
    over what the job was submitted with, and refuses to be told twice.
    """
    if in_submitted_job():
        return None
    found = {name: os.environ[name] for name in STORE_VARIABLES if os.environ.get(name)}
    return {"env_vars": found} if found else None


class _Nothing:
    def __init__(self, _: Any) -> None: ...


def _mute_restart_warning() -> None:
    """Makes Ray print a warning while output is muted that it prints once per process.

    It warns that the arguments of an actor that may be restarted must stay alive. Ray Data, whose
    actors it is about, keeps them alive.
    """
    import ray

    with muted():
        actor: Any = ray.remote(num_cpus=0, max_restarts=1)(_Nothing)
        ray.kill(actor.remote(ray.put(None)))


def start_beside_driver(kind: type) -> Any:
    """An actor for the driver's own use, on the driver's node.

    On another node it could be lost, and the job with it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(kind)
    return actor.options(scheduling_strategy=here).remote()


def _connection_advice(error: Exception) -> str:
    """What went wrong when Ray was started or joined, and what to do."""
    text = " ".join(str(error).split())[:300]
    address = cluster_address()
    if address is None:
        return f"Ray could not be started: {text}"
    named = f"RAY_ADDRESS = '{address}'"
    if "uthent" in text or "401" in text:
        return f"{named}: Ray refused the connection: {text}; {TOKEN_ADVICE}; {OWN}"
    return f"{named}: cannot be joined: {text}; start the cluster, correct the address, {OWN}"
