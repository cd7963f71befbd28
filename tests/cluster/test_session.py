"""Versions and resources that a job needs, and the Ray it starts."""

import os

import pytest

from discl_ray.cluster.session import (
    STORE_VARIABLES,
    check_resources,
    check_versions,
    joining,
    local_cpus,
    ray_session,
    start_beside_driver,
    store_environment,
)
from discl_ray.errors import SetupError


@pytest.mark.parametrize(
    ("torch", "vision"),
    [
        ("2.11.0", "0.26.0"),
        ("2.11.0+cpu", "0.26.0+cpu"),
        ("2.12.1", "0.27.0"),
        ("2.15.0", "0.29.2"),
    ],
)
def test_versions_that_belong_together_are_accepted(torch, vision):
    check_versions({"torch": torch, "torchvision": vision}.__getitem__)


@pytest.mark.parametrize(
    ("torch", "vision"),
    [("2.11.0", "0.25.0"), ("2.11.0+cpu", "0.26.0"), ("2.11.0", "0.26.0+cu130")],
)
def test_versions_that_do_not_are_named_with_the_command_that_mends_it(torch, vision):
    expected = r"pip install 'torch==2\.11\.\*' 'torchvision==0\.26\.\*'"
    with pytest.raises(SetupError, match=expected):
        check_versions({"torch": torch, "torchvision": vision}.__getitem__)


def test_what_is_installed_here_belongs_together():
    check_versions()


def test_a_cluster_is_joined_only_by_its_address(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not joining()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert joining()


def test_a_local_ray_has_room_for_driver_and_scorer_unless_it_is_told_a_number():
    assert local_cpus(3) == 3
    assert local_cpus(None) == max(4, (os.cpu_count() or 1) + 2)


def test_resources_that_are_short_are_all_named_with_numbers():
    check_resources({"CPU": 2}, {"CPU": 2.0})
    check_resources({}, {})
    with pytest.raises(SetupError, match="4 CPU needed and 2 available, 1 GPU needed and 0 avail"):
        check_resources({"CPU": 4, "GPU": 1}, {"CPU": 2.0})


class Place:
    """Tells the node it is on."""

    def node(self):
        import ray

        return ray.get_runtime_context().get_node_id()


@pytest.mark.slow
def test_a_session_starts_ray_ends_it_and_uses_one_that_runs(without_ray):
    import ray

    with ray_session(num_cpus=3, needs={"CPU": 3}):
        assert ray.cluster_resources()["CPU"] == 3
        actor = start_beside_driver(Place)
        assert ray.get(actor.node.remote()) == ray.get_runtime_context().get_node_id()
        with (
            pytest.raises(SetupError, match="9 CPU needed and 3 available"),
            ray_session(num_cpus=9, needs={"CPU": 9}),
        ):
            pytest.fail("a job that does not fit was started")
        assert ray.is_initialized()  # the outer session's
    assert not ray.is_initialized()


def test_the_keys_of_an_object_store_go_along_to_a_cluster_but_not_twice(monkeypatch):
    for name in STORE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert store_environment() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_REGION", "here")
    wanted = {"env_vars": {"AWS_ACCESS_KEY_ID": "a", "AWS_REGION": "here"}}
    assert store_environment() == wanted
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert store_environment() is None
