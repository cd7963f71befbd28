"""What Ray needs is looked at before any work.

What is wrong is said with its variable, its value and what to do.
"""

import os
import socket
import time

import pytest

from discl_ray.cluster import start as ray_start
from discl_ray.cluster.start import (
    check_address,
    check_ray_start,
    check_temporary_folder,
    check_token,
    cluster_address,
    set_environment,
)
from discl_ray.errors import SetupError

VARIABLES = (
    "RAY_ADDRESS",
    "RAY_TMPDIR",
    "TMPDIR",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://10.0.0.1:10001", "ray:// addresses are not joined"),
        ("http://127.0.0.1:8265", "ray job submit --address http://127.0.0.1:8265"),
        ("nonsense", "needed is host:port"),
        ("127.0.0.1:0", "needed is host:port"),
        ("127.0.0.1:port", "needed is host:port"),
        ("127.0.0.1:99999", "needed is host:port"),
        ("a b:6379", "needed is host:port"),
        ("no-such-host.invalid:6379", "nothing answers there"),
    ],
)
def test_an_address_that_cannot_be_joined_is_named_with_a_way_out(address, said):
    with pytest.raises(SetupError, match="unset RAY_ADDRESS") as caught:
        check_address(address)
    assert str(caught.value).startswith(f"RAY_ADDRESS = '{address}': ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(SetupError, match="ray start --head"):
        check_ray_start()
    assert time.monotonic() - began < 5


def test_what_listens_but_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(ray_start, "ANSWER_S", 2.0)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(SetupError, match="does not answer"):
            check_address(f"127.0.0.1:{deaf.getsockname()[1]}")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("refused AuthenticationError invalid token", "RAY_AUTH_MODE=token"),
        (
            "refused ConnectionError Could not find any running Ray instance",
            "no Ray runs on this machine",
        ),
        ("", "no Ray there"),
        ("answered", None),
    ],
)
def test_a_clusters_answer_is_understood(said, named):
    answer = ray_start.problem_of("auto", f"print({said!r})")
    assert (answer is None) if named is None else (named in str(answer))


def test_an_empty_address_and_local_are_a_ray_of_ones_own(monkeypatch):
    for value in ("", " ", "local"):
        monkeypatch.setenv("RAY_ADDRESS", value)
        assert cluster_address() is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert cluster_address() == "auto"


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_refused_by_as_much_as_ray_refuses(
    monkeypatch, variable
):
    from ray._private.utils import validate_socket_filepath

    for length in range(20, 60):
        folder = "/tmp/" + "x" * (length - 5)
        monkeypatch.setenv(variable, folder)
        path = f"{folder}/ray/session_2026-11-27_03-25-22_123456_{os.getpid()}/sockets/plasma_store"
        try:
            validate_socket_filepath(path)
        except OSError:
            with pytest.raises(
                SetupError,
                match=rf"{variable} = '/tmp/x+': \d+ characters too long.*RAY_TMPDIR=/tmp",
            ):
                check_temporary_folder()
        else:
            check_temporary_folder()


def test_a_temporary_folder_that_cannot_be_written_or_is_full_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nowhere")
    with pytest.raises(
        SetupError, match=r"RAY_TMPDIR = '/proc/nowhere': cannot be written .*set RAY_TMPDIR"
    ):
        check_temporary_folder()
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(ray_start, "ROOM", 1e18)
    with pytest.raises(SetupError, match="MB free, at least"):
        check_temporary_folder()


def test_without_a_home_ray_has_no_place_for_its_token(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/proc/nowhere")
    with pytest.raises(
        SetupError,
        match=(
            r"HOME = '/proc/nowhere'.*set HOME to a folder you may write, or "
            r"RAY_AUTH_MODE=disabled"
        ),
    ):
        check_token()
    for name, value in (
        ("RAY_AUTH_MODE", "disabled"),
        ("RAY_AUTH_TOKEN", "x"),
        ("HOME", str(tmp_path)),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            check_token()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="RAY_AUTH_TOKEN_PATH"):
        check_token()


def test_ray_train_v2_is_on_whatever_the_environment_says_and_other_settings_are_the_users(
    monkeypatch,
):
    monkeypatch.setattr(
        os, "environ", {"RAY_TRAIN_V2_ENABLED": "0", "TRANSFORMERS_VERBOSITY": "debug"}
    )
    set_environment()
    assert os.environ["RAY_TRAIN_V2_ENABLED"] == "1"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "debug"
    os.environ["RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR"] = "1"
    with pytest.raises(SetupError, match="unset it"):
        set_environment()
