"""What the cluster is made of: its nodes, and those that it may still start. A local Ray is described without starting it.

Ray knows of nodes to come where the platform has told it (its cluster configuration), and on the head node of a cluster made by
`ray up` from the file that made it. KubeRay tells it neither: there `run.gpus` says it.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from discl_ray.cluster.demand import UNBOUNDED, Cluster, Node
from discl_ray.cluster.session import joining, local_cpus, ray_session
from discl_ray.cluster.start import set_environment
from discl_ray.config import RunConfig

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves its file on the head node."""

CARD = "accelerator_type:"
"""Begins the resource by which Ray names a node's GPUs."""

GROUP = "ray.io/node-group"
"""The label that names the type of a node."""


def present(run: RunConfig) -> Cluster:
    """The cluster that a job would run on; it is joined for a moment if it is not yet."""
    set_environment()
    import ray

    if ray.is_initialized():
        return _joined(run)
    if not joining():
        return Cluster((_local(run.num_cpus),))
    with ray_session(num_cpus=None, needs={}):
        return _joined(run)


def _local(num_cpus: int | None) -> Node:
    """This machine as Ray would describe it."""
    from ray._private.resource_and_label_spec import ResourceAndLabelSpec

    found: dict[str, Any] = (
        ResourceAndLabelSpec(num_cpus=local_cpus(num_cpus)).resolve(is_head=True).to_resource_dict()
    )
    if importlib.metadata.version("torch").endswith("+cpu"):  # a build that cannot use a GPU
        found.pop("GPU", None)
    return node_of(found)


def node_of(resources: Mapping[str, float], count: int = 1) -> Node:
    """A node from Ray's resources."""
    card = next((name.removeprefix(CARD) for name in resources if name.startswith(CARD)), "")
    amounts = {
        name: float(resources.get(key, 0))
        for name, key in (("cpus", "CPU"), ("gpus", "GPU"), ("memory", "memory"))
    }
    return Node(**amounts, card=card, count=count)


def _joined(run: RunConfig) -> Cluster:
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [node_of(node["Resources"]) for node in alive]
    groups = Counter(node.get("Labels", {}).get(GROUP, "") for node in alive)
    nodes += to_come(_groups(), groups)
    gpus = Cluster(tuple(nodes)).gpus
    if joining() and run.gpus is not None and run.gpus > gpus:
        nodes.append(Node(gpus=1.0, count=run.gpus - gpus))
    return Cluster(tuple(nodes))


def to_come(
    groups: Iterable[tuple[str, Mapping[str, float], int]], alive: Mapping[str, int]
) -> list[Node]:
    """Nodes that may still be started, of (type, resources, how many at most; -1 any number), beside those of each type alive."""
    found = []
    for name, resources, most in groups:
        count = (UNBOUNDED if most < 0 else most) - alive.get(name, 0)
        if count > 0:
            found.append(node_of(resources, count))
    return found


def _groups() -> list[tuple[str, Mapping[str, float], int]]:
    import ray._private.state

    config: Any = ray._private.state.state.get_cluster_config()
    if config is not None and config.node_group_configs:
        return [(g.name, dict(g.resources), g.max_count) for g in config.node_group_configs]
    file = BOOTSTRAP.expanduser()
    if not joining() or not os.access(file, os.R_OK):
        return []
    return read_node_types(yaml.safe_load(file.read_text()))


def read_node_types(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float], int]]:
    """Types of workers of a file for `ray up`: name, resources and how many there may be."""
    most = config.get("max_workers", 2)
    head = config.get("head_node_type")
    types = config.get("available_node_types") or {}
    return [
        (n, t.get("resources") or {}, min(t.get("max_workers", most), most))
        for n, t in types.items()
        if n != head
    ]
