"""Checks of what Ray needs to be started or joined, before any work, without importing Ray.

Variables, a folder for its sockets, a home folder for its token, an address that answers. Ray by
itself waits for minutes at an address where nothing answers, and names neither variable nor remedy.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from discl_ray.core.storage import probe
from discl_ray.errors import SetupError

ENVIRONMENT = {
    "RAY_DATA_USE_DATASOURCE_V2": "0",  # its reader starts 32 actors per execution
    # a report blocks until the controller polls; the default is 2 s
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # an actor per run, to tell workers that their node will be taken away: ours do not ask
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would copy the working directory
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # the package shows its own
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Variables for Ray and the model libraries, unless the user has set them."""

REQUIRED = {"RAY_TRAIN_V2_ENABLED": "1"}
"""Variables that are always set: training needs Ray Train V2, which other projects switch off."""

UNSAFE = ("RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR", "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA")
"""Variables that let Ray unpickle what a Parquet file holds."""

SOCKET = "ray/session_2000-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
"""The longest path of a socket below Ray's temporary folder, with a date of fixed width."""

SOCKET_LIMIT = 103 if sys.platform == "darwin" else 107
"""Bytes that the system allows for a socket's path."""

ROOM = 100e6
"""Bytes that must be free in Ray's temporary folder, for logs and objects spilled from memory."""

CONNECT_S, ANSWER_S = 5.0, 30.0
"""Seconds within which a cluster has to accept a connection, and to answer a request."""

OWN = "or unset RAY_ADDRESS, for a Ray of this job's own"


def set_environment() -> None:
    """Sets ENVIRONMENT and REQUIRED, which Ray's modules read when they are imported.

    Raises SetupError if a variable of UNSAFE is set.
    """
    for name in UNSAFE:
        if os.environ.get(name):
            raise SetupError(f"{name} is set: it lets Ray run code found in data files; unset it")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(REQUIRED)


def cluster_address() -> str | None:
    """Address of the cluster to join; None to start a local Ray."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def check_ray_start() -> str:
    """Where Ray will run, in a sentence.

    Raises SetupError with variable, value and remedy if Ray can be neither started nor joined.
    """
    address = cluster_address()
    if address is not None:
        check_address(address)
        return f"joins the cluster at RAY_ADDRESS = {address}"
    folder = check_temporary_folder()
    check_token()
    return f"started by each job, with its files in {folder}"


def check_temporary_folder() -> Path:
    """Ray's temporary folder.

    Raises SetupError if it cannot be written, is full, or makes paths too long for sockets.
    """
    variables = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    variable = next((name for name in variables if name in os.environ), None)
    folder = os.environ[variable] if variable else "/tmp"
    setting = f"{variable} = '{folder}'" if variable else folder
    named = f"Ray's temporary folder, {setting}"
    remedy = (
        "set RAY_TMPDIR to a short folder on a local disk that you may write, e.g. RAY_TMPDIR=/tmp"
    )
    socket_path = os.path.join(folder, SOCKET.format(pid=os.getpid()))
    over = len(os.fsencode(socket_path)) - SOCKET_LIMIT
    if over > 0:
        raise SetupError(
            f"{named}: {over} characters too long for the paths of Ray's sockets; {remedy}"
        )
    try:
        place = probe(Path(folder))
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise SetupError(f"{named}: cannot be written ({error.strerror}); {remedy}") from error
    if free < ROOM:
        raise SetupError(
            f"{named}: {free / 1e6:.0f} MB free, at least {ROOM / 1e6:.0f} needed; "
            f"make room, or {remedy}"
        )
    return Path(folder)


def token_file() -> Path | None:
    """File with the token by which Ray's processes authenticate; None if no file is needed.

    Raises SetupError if there is no home folder.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return None
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return Path(path)
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError as error:
        raise SetupError(
            f"Ray keeps its token in the home folder, and there is none; {_TOKEN_REMEDY}"
        ) from error


_TOKEN_REMEDY = (
    "set HOME to a folder you may write, or RAY_AUTH_MODE=disabled if nobody else uses this machine"
)


def check_token() -> None:
    """Raises SetupError if Ray can neither read nor write the token of a local cluster."""
    file = token_file()
    if file is None or os.access(file, os.R_OK):
        return
    if "RAY_AUTH_TOKEN_PATH" in os.environ:
        raise SetupError(
            f"RAY_AUTH_TOKEN_PATH = '{file}': cannot be read; unset it, or write a token there"
        )
    try:
        if file.exists():
            raise PermissionError(0, "cannot be read", str(file))
        probe(file.parent)
    except OSError as error:
        home = f"HOME = '{file.parent.parent}'"
        raise SetupError(
            f"Ray keeps its token in {file}, which cannot be written "
            f"({error.strerror}; {home}); {_TOKEN_REMEDY}"
        ) from error


def check_address(address: str) -> None:
    """Raises SetupError unless a Ray cluster answers at an address within a minute."""
    named = f"RAY_ADDRESS = '{address}'"
    _check_scheme(address, named)
    if address != "auto":
        _check_connection(address, named)
    why = problem_of(address)
    if why is not None:
        raise SetupError(f"{named}: {why}; {OWN}")


def _check_scheme(address: str, named: str) -> None:
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme in ("http", "https"):
        submit = f"ray job submit --address {address} --working-dir . -- python jobs/..."
        raise SetupError(f"{named}: that is the dashboard's address: {submit}; {OWN}")
    if scheme:
        raise SetupError(
            f"{named}: Ray Client and other {scheme}:// addresses are not joined; name the head's "
            "host:port and call the job on a machine of the cluster, or use ray job submit; "
            f"{OWN}"
        )


def _check_connection(address: str, named: str) -> None:
    found = re.fullmatch(r"\[?([^\[\]\s/]+?)\]?:(\d{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise SetupError(
            f"{named}: is no address; needed is host:port, e.g. 10.0.0.1:6379, or auto; {OWN}"
        )
    try:
        socket.create_connection((found[1], int(found[2])), CONNECT_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        start = "start the cluster (ray start --head --port=6379), correct the address"
        raise SetupError(f"{named}: nothing answers there ({why}); {start}, {OWN}") from error


PROBE = """
import sys
from ray._private import services
from ray._private.authentication import authentication_token_setup as token
from ray._raylet import GcsClient
try:
    address = services.canonicalize_bootstrap_address(sys.argv[1])
    if sys.argv[1] == "auto":
        token.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    token.ensure_token_if_auth_enabled(None, create_token_if_missing=False)
    GcsClient(address=address).internal_kv_get(b"discl_ray", None, timeout=10)
except Exception as error:
    print("refused", type(error).__name__, error)
else:
    print("answered")
"""
"""Sends a request to a cluster, in a process of its own: where nothing answers, Ray's C++ code ends
or hangs the process it is in.
"""


@functools.cache
def problem_of(address: str, probe: str = PROBE) -> str | None:
    """What is wrong with the cluster at an address, with a remedy; None if it answers `probe`."""
    seconds = f"{CONNECT_S:g}"
    quick = {
        "RAY_gcs_rpc_server_connect_timeout_s": seconds,
        "RAY_gcs_rpc_server_reconnect_timeout_s": seconds,
    }
    command = [sys.executable, "-c", probe, address]
    try:
        done = subprocess.run(
            command, env={**os.environ, **quick}, capture_output=True, text=True, timeout=ANSWER_S
        )
    except subprocess.TimeoutExpired:
        return (
            f"what listens there does not answer as Ray does, for {ANSWER_S:g} s; "
            "correct the address or start the cluster"
        )
    output = " ".join(done.stdout.split())
    if output == "answered":
        return None
    if re.search("uthent|oken|401", output + done.stderr):
        return f"the cluster refuses this job's token; {TOKEN_ADVICE}"
    if address == "auto" and "ConnectionError" in output:
        return "no Ray runs on this machine; start one (ray start --head), name its host:port"
    why = output.removeprefix("refused ")[:200] or "no Ray there"
    return f"the cluster does not answer ({why}); start it, correct the address"


TOKEN_ADVICE = (
    "export RAY_AUTH_MODE=token, with the cluster's token in ~/.ray/auth_token, RAY_AUTH_TOKEN or "
    "RAY_AUTH_TOKEN_PATH (RAY_AUTH_MODE=disabled if it runs without)"
)
