"""What a cluster consists of, from Ray's resources, a `ray up` file and this machine."""

import pytest

from discl_ray.cluster import inventory
from discl_ray.cluster.demand import UNBOUNDED, Node
from discl_ray.cluster.inventory import NodeType, node_of, present, read_node_types, to_come
from discl_ray.config import RunConfig


def test_a_node_is_read_from_rays_resources():
    resources = {
        "CPU": 8.0,
        "GPU": 2.0,
        "memory": 5e9,
        "accelerator_type:A100": 1.0,
        "node:__internal_head__": 1.0,
    }
    assert node_of(resources, 3) == Node(cpus=8, gpus=2, memory=5e9, card="A100", count=3)
    assert node_of({}) == Node()


def test_nodes_alive_count_against_what_may_be_started():
    gpu, cpu = NodeType("gpu", {"CPU": 8, "GPU": 1}, 3), NodeType("cpu", {"CPU": 8}, 4)
    assert to_come([gpu, cpu], {"gpu": 1, "cpu": 4}) == [Node(cpus=8, gpus=1, count=2)]
    any_number = NodeType("gpu", {"GPU": 1}, -1)
    assert to_come([any_number], {"gpu": 4}) == [Node(gpus=1, count=UNBOUNDED - 4)]


def test_worker_types_are_read_from_a_file_for_ray_up():
    types = {
        "head": {"resources": {"CPU": 2}},
        "gpu": {"resources": {"GPU": 4}, "max_workers": 5},
        "cpu": {"max_workers": 1},
    }
    config = {"max_workers": 3, "head_node_type": "head", "available_node_types": types}
    assert read_node_types(config) == [NodeType("gpu", {"GPU": 4}, 3), NodeType("cpu", {}, 1)]
    assert read_node_types({"available_node_types": {"gpu": {}}}) == [NodeType("gpu", {}, 2)]
    assert read_node_types({}) == []


def test_a_local_ray_is_described_without_starting_it(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    import ray

    # another file of tests in this process may have started one
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("started Ray"))
    cluster = present(RunConfig(num_cpus=7))
    assert cluster.cpus == 7
    assert cluster.nodes[0].memory > 1e8


@pytest.mark.slow
def test_a_running_ray_is_asked_and_gpus_that_will_be_started_are_added(monkeypatch, without_ray):
    from discl_ray.cluster.session import ray_session

    with ray_session(num_cpus=5, needs={}):
        cluster = present(RunConfig(num_cpus=64, gpus=2))
        assert (cluster.cpus, cluster.gpus) == (5, 0)  # a local Ray starts none
        monkeypatch.setattr(inventory, "joining", lambda: True)
        assert present(RunConfig(gpus=2)).gpus == 2
