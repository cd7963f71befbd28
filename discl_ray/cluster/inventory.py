"""What a cluster consists of: its nodes, and those it may still start.

A local Ray is described without being started. Ray knows of nodes to come where the platform
declared them (its cluster configuration), and on the head node of a cluster made by `ray up`, from
the file it was made from. KubeRay declares neither: `run.gpus` does instead.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from discl_ray.cluster.demand import UNBOUNDED, Cluster, Node
from discl_ray.cluster.session import joining, local_cpus, ray_session
from discl_ray.cluster.start import set_environment
from discl_ray.config import RunConfig

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves its file on the head node."""

CARD = "accelerator_type:"
"""Prefix of the resource that names a node's GPU model."""

GROUP = "ray.io/node-group"
"""The label that names a node's type."""

MAX_WORKERS = 2
"""`ray up`'s own default of `max_workers`."""


class NodeType(NamedTuple):
    """A type of nodes that the cluster may start."""

    name: str
    resources: Mapping[str, float]
    most: int
    """At most so many; -1 is any number."""


def present(run: RunConfig) -> Cluster:
    """The cluster that a job would run on; joins it for a moment if it is not joined yet."""
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

    spec = ResourceAndLabelSpec(num_cpus=local_cpus(num_cpus)).resolve(is_head=True)
    resources: dict[str, Any] = spec.to_resource_dict()
    if importlib.metadata.version("torch").endswith("+cpu"):  # this build cannot use a GPU
        resources.pop("GPU", None)
    return node_of(resources)


def node_of(resources: Mapping[str, float], count: int = 1) -> Node:
    """A node, or `count` equal ones, from Ray's resources."""
    cards = [name.removeprefix(CARD) for name in resources if name.startswith(CARD)]
    return Node(
        cpus=float(resources.get("CPU", 0)),
        gpus=float(resources.get("GPU", 0)),
        memory=float(resources.get("memory", 0)),
        card=cards[0] if cards else "",
        count=count,
    )


def _joined(run: RunConfig) -> Cluster:
    """The cluster that this process has joined."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [node_of(node["Resources"]) for node in alive]
    types_alive = Counter(node.get("Labels", {}).get(GROUP, "") for node in alive)
    nodes += to_come(_declared_types(), types_alive)
    gpus = Cluster(tuple(nodes)).gpus
    if joining() and run.gpus is not None and run.gpus > gpus:
        nodes.append(Node(gpus=1.0, count=run.gpus - gpus))
    return Cluster(tuple(nodes))


def to_come(types: Iterable[NodeType], alive: Mapping[str, int]) -> list[Node]:
    """Nodes that may still be started, with `alive` nodes of each type running already."""
    found: list[Node] = []
    for node_type in types:
        most = UNBOUNDED if node_type.most < 0 else node_type.most
        count = most - alive.get(node_type.name, 0)
        if count > 0:
            found.append(node_of(node_type.resources, count))
    return found


def _declared_types() -> list[NodeType]:
    import ray._private.state

    config: Any = ray._private.state.state.get_cluster_config()
    if config is not None and config.node_group_configs:
        groups = config.node_group_configs
        return [NodeType(of.name, dict(of.resources), of.max_count) for of in groups]
    file = BOOTSTRAP.expanduser()
    if not joining() or not os.access(file, os.R_OK):
        return []
    return read_node_types(yaml.safe_load(file.read_text()))


def read_node_types(config: Mapping[str, Any]) -> list[NodeType]:
    """The worker types in a file for `ray up`, as parsed from YAML."""
    most = config.get("max_workers", MAX_WORKERS)
    head = config.get("head_node_type")
    found: list[NodeType] = []
    for name, declared in (config.get("available_node_types") or {}).items():
        if name == head:
            continue
        of_type = min(declared.get("max_workers", most), most)
        found.append(NodeType(name, declared.get("resources") or {}, of_type))
    return found
