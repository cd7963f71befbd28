"""Object stores: one PUT writes an object whole, and conditional PUTs decide between two writers.

pyarrow's file systems read and list; they have no conditional writes, which go through obstore. It
is imported with the first write, so that local runs do without it.

Address, region and keys come from the URI's options or from the variables that all S3 tools read.
A process that is sent a file system opens it with its own variables.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import pyarrow.fs as pafs

T = TypeVar("T")

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

ATTEMPTS = 10
"""How often a request is sent to a server that fails it, ever later."""

REQUEST_S = 300.0
"""Seconds that one request may take: a shard of photographs over a slow line."""

LOOK_S = 20.0
"""Seconds within which a server must answer the first request."""

PART = 64 * 2**20
"""Bytes from which on an object is written in parts of this size, if nothing depends on it."""


GUARDS: dict[str, Callable[[], None]] = {}
"""Beginnings of paths -> a check before anything is written there, which raises."""


class Keys(NamedTuple):
    """Credentials of S3; empty where the machine's role or nothing is to be used."""

    access: str = ""
    secret: str = ""
    token: str = ""


class Version(NamedTuple):
    """Of an object, as its store counts them."""

    e_tag: str | None
    version: str | None


class PatientS3(pafs.S3FileSystem):
    """An S3 file system that asks again, in the processes it is sent to as well.

    Pickled by its address: a plain one would lose its patience, and carry the keys along.
    """

    address: tuple[str, str]
    """Server and options."""
    arguments: dict[str, Any]
    """Of its constructor."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open_s3, self.address


def keys_of_environment() -> Keys:
    """The keys in the variables of this process, or in the file of the AWS tools."""
    given = Keys(*(os.environ.get(name, "") for name in KEY_VARIABLES))
    if given.access:
        return given
    usual = os.path.expanduser("~/.aws/credentials")
    file = configparser.RawConfigParser()
    try:
        file.read(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", usual))
        profile = file[os.environ.get("AWS_PROFILE", "default")]
    except (configparser.Error, KeyError, OSError, ValueError):
        return Keys()
    return Keys(
        access=profile.get("aws_access_key_id", ""),
        secret=profile.get("aws_secret_access_key", ""),
        token=profile.get("aws_session_token", ""),
    )


def open_s3(server: str, options: str) -> PatientS3:
    """The file system of a bucket, perhaps with keys before it, and a URI's options."""
    given = options.split("&") if options else []
    for name, variables in (("endpoint_override", ENDPOINTS), ("region", REGIONS)):
        values = [os.environ.get(variable, "") for variable in variables]
        value = next(filter(None, values), "")
        if value and f"{name}=" not in options:
            given.append(f"{name}={quote(value, safe=':/')}")
    whole = "&".join(given)
    return _connected(server, whole, keys_of_environment())


@lru_cache(maxsize=64)
def _connected(server: str, options: str, keys: Keys) -> PatientS3:
    """Connected once by each process, and anew with other keys."""
    uri = f"s3://{server}?{options}" if options else f"s3://{server}"
    plain, _ = pafs.FileSystem.from_uri(uri)
    # What pyarrow read from the URI, and the region that it asked the bucket for.
    arguments = _arguments(plain)
    if keys.access and not arguments.get("access_key"):
        arguments["access_key"] = keys.access
        arguments["secret_key"] = keys.secret
        arguments["session_token"] = keys.token
    scheme, separator, host = arguments["endpoint_override"].partition("://")
    if separator:
        arguments["scheme"] = scheme
        arguments["endpoint_override"] = host.rstrip("/")
    patience = pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
    opened = PatientS3(**arguments, retry_strategy=patience)
    opened.address = (server, options)
    opened.arguments = arguments
    return opened


def _arguments(filesystem: Any) -> dict[str, Any]:
    """What a file system of pyarrow was opened with: texts, numbers and booleans."""
    if isinstance(filesystem, PatientS3):
        return filesystem.arguments
    arguments: dict[str, Any] = filesystem.__reduce__()[1][0]
    plain = (str, int, float, bool)
    return {name: value for name, value in arguments.items() if isinstance(value, plain)}


@dataclass(frozen=True)
class Objects:
    """Writing into the buckets of one file system; paths begin with the bucket, as pyarrow's do.

    Errors are OSErrors, with the words of the server.
    """

    filesystem: Any
    timeout_s: float = REQUEST_S

    @classmethod
    def of(cls, filesystem: pafs.FileSystem) -> Objects | None:
        """None for a file system that is no object store with conditional writes."""
        kinds = (pafs.S3FileSystem, pafs.GcsFileSystem)
        return cls(filesystem) if isinstance(filesystem, kinds) else None

    def put(self, path: str, data: bytes) -> None:
        """Writes an object, in place of one of that name."""
        _check_guards(path)
        many = len(data) > PART

        def write(client: Any, key: str) -> None:
            _obstore().put(client, key, data, use_multipart=many, chunk_size=PART)

        self._call(path, write)

    def create(self, path: str, data: bytes) -> bool:
        """Writes an object unless there is one of that name; whether it holds these bytes then.

        An answer that was lost is no matter: the request is sent again, and the bytes compared.
        """
        _check_guards(path)

        def write(client: Any, key: str) -> None:
            _obstore().put(client, key, data, mode="create", use_multipart=False)

        try:
            self._call(path, write)
            return True
        except _Refused:
            there = self.get(path)
            return there is not None and there[0] == data

    def replace(self, path: str, data: bytes, version: Version) -> Version | None:
        """Writes an object in place of one version; None if there is another one, or none.

        `data` must differ from what anybody else writes there.
        """
        condition = {name: value for name, value in version._asdict().items() if value}

        def write(client: Any, key: str) -> Version:
            done = _obstore().put(client, key, data, mode=condition, use_multipart=False)
            return Version(done["e_tag"], done["version"])

        try:
            return self._call(path, write)
        except _Refused:
            there = self.get(path)
            return there[1] if there is not None and there[0] == data else None

    def get(self, path: str) -> tuple[bytes, Version] | None:
        """An object and its version; None if there is none."""

        def read(client: Any, key: str) -> tuple[bytes, Version]:
            found = _obstore().get(client, key)
            version = Version(found.meta["e_tag"], found.meta["version"])
            return found.bytes().to_bytes(), version

        try:
            return self._call(path, read)
        except FileNotFoundError:
            return None

    def refusal(self, path: str) -> OSError | None:
        """Why the objects below a path cannot be listed; None if they can."""

        def first(client: Any, key: str) -> None:
            prefix = f"{key}/" if key else None
            next(iter(_obstore().list(client, prefix, chunk_size=1)), None)

        try:
            Objects(self.filesystem, LOOK_S)._call(path, first)
        except OSError as error:
            return error
        return None

    def delete(self, path: str) -> None:
        """Deletes an object; does nothing if there is none."""
        _check_guards(path)

        def remove(client: Any, key: str) -> None:
            _obstore().delete(client, key)

        try:
            self._call(path, remove)
        except FileNotFoundError:
            return

    def _call(self, path: str, call: Callable[[Any, str], T]) -> T:
        """The result of a call with the bucket's client and the object's key."""
        bucket, _, key = path.partition("/")
        with _as_oserror(path):
            return call(self._client(bucket), key)

    def _client(self, bucket: str) -> Any:
        """obstore's client of a bucket."""
        arguments = tuple(_arguments(self.filesystem).items())
        is_s3 = isinstance(self.filesystem, pafs.S3FileSystem)
        connect = _s3_client if is_s3 else _gcs_client
        return connect(bucket, self.timeout_s, arguments)


@lru_cache(maxsize=64)
def _s3_client(bucket: str, timeout_s: float, arguments: tuple[tuple[str, Any], ...]) -> Any:
    from obstore.store import S3Store

    given = dict(arguments)
    host = given["endpoint_override"]
    config: dict[str, Any] = {
        "region": given["region"],
        "endpoint": f"{given['scheme']}://{host}" if host else "",
        "access_key_id": given.get("access_key"),
        "secret_access_key": given.get("secret_key"),
        "session_token": given.get("session_token"),
        "skip_signature": given["anonymous"],
    }
    # What is not given, obstore finds out: a role of the machine, or of the account in Kubernetes.
    known = {name: value for name, value in config.items() if value}
    return S3Store(bucket, **known, **_patience(timeout_s, given))


@lru_cache(maxsize=64)
def _gcs_client(bucket: str, timeout_s: float, arguments: tuple[tuple[str, Any], ...]) -> Any:
    from obstore.store import GCSStore

    given = dict(arguments)
    config: dict[str, Any] = {"skip_signature": True} if given["anonymous"] else {}
    return GCSStore(bucket, **config, **_patience(timeout_s, given))


def _patience(timeout_s: float, arguments: dict[str, Any]) -> dict[str, Any]:
    """How long a client of obstore waits, and whether it may do without encryption."""
    return {
        "client_options": {
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=min(10.0, timeout_s)),
            "allow_http": arguments["scheme"] == "http",
        },
        "retry_config": {"max_retries": ATTEMPTS, "retry_timeout": timedelta(seconds=timeout_s)},
    }


def _check_guards(path: str) -> None:
    """Raises what a guard of this path raises."""
    for begin, check in list(GUARDS.items()):
        if path.startswith(begin):
            check()


class _Refused(Exception):
    """A condition did not hold."""


@contextmanager
def _as_oserror(path: str) -> Generator[None]:
    """Raises what obstore raises as OSError, or _Refused."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise _Refused from error
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise OSError(_words(path, error)) from None
        raise
    except exceptions.BaseError as error:
        raise OSError(_words(path, error)) from None


def _words(path: str, error: Exception) -> str:
    """What the server said, without what obstore adds for its own developers."""
    text = str(error).partition("Debug source")[0]
    return f"{path}: {' '.join(text.split())}"


def _obstore() -> Any:
    import obstore

    return obstore
