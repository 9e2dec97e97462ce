"""Real servers on free loopback ports: S3 (moto in its own process) and an HTTP proxy that makes faults.

from tests.servers import faulty_proxy, s3_server

@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server
"""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAOVSOPSTESTING000",
    "AWS_SECRET_ACCESS_KEY": "ovsops-tests-secret-do-not-log-0123456789",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Credentials that moto accepts (it accepts any) and that tests look for in messages."""


@dataclass(frozen=True)
class S3Server:
    """An S3 server of our own."""

    endpoint: str
    process_id: int

    def client(self) -> Any:
        """A boto3 client with the credentials of `S3_ENVIRONMENT`."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=S3_ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=S3_ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        )

    def make_bucket(self, name: str) -> str:
        """A bucket, new or known, and its URL."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"


@contextmanager
def s3_server(*, start_timeout_s: float = 60.0) -> Iterator[S3Server]:
    """moto as a process of its own on a free port, with `S3_ENVIRONMENT` set here and in children started
    meanwhile.
    """
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = {name: os.environ.get(name) for name in S3_ENVIRONMENT}
    os.environ.update(S3_ENVIRONMENT)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(endpoint, process, start_timeout_s)
        yield S3Server(endpoint, process.pid)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        process.kill()
        process.wait()


@dataclass
class Fault:
    """What happens to the next requests that match, each `times` times."""

    kind: str
    """`status` (answer `status`), `cut` (close after `at` body bytes), `stall` (silence of `seconds` after
    `at` body bytes), `trickle` (`at` body bytes, then one a second), `lose` (forward, then close without an
    answer).
    """
    times: int = 1
    status: int = 503
    at: int = 0
    seconds: float = 0.0
    method: str = "GET"
    path: str = ""
    """Text that the request's path must contain."""


@dataclass
class FaultyProxy:
    """A proxy whose faults are a list that tests append to."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range header of every request."""
    before_request: Callable[[str, str], None] | None = None
    """Called with method and path before a request is passed on."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, used up."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def faulty_proxy(target: str) -> Iterator[FaultyProxy]:
    """A proxy in front of `target`, in threads of this process."""

    class Handler(_ProxyHandler):
        upstream = urlsplit(target)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = FaultyProxy(f"http://127.0.0.1:{server.server_address[1]}")
    Handler.proxy = proxy
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy
    upstream: Any

    def log_message(self, format: str, *args: Any) -> None:
        """Tests print nothing."""

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.proxy.lock:
            self.proxy.requests.append((self.command, self.path, self.headers.get("Range", "")))
        if self.proxy.before_request is not None:
            self.proxy.before_request(self.command, self.path)
        fault = self.proxy.take(self.command, self.path)
        if fault is not None and fault.kind == "status":
            self._answer(fault.status, _error_body(fault.status))
            return
        status, headers, data = self._forward(body)
        if fault is not None and fault.kind == "lose":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                self.send_header(name, value)
        length = next((v for n, v in headers if n.lower() == "content-length"), str(len(data)))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self._send(data, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=60)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in ("connection", "expect", "host")}
        connection.request(
            self.command, self.path, body=body, headers=headers | {"Host": self.upstream.netloc}
        )
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response.getheaders(), data

    def _send(self, data: bytes, fault: Fault | None) -> None:
        if fault is None:
            self.wfile.write(data)
            return
        self.wfile.write(data[: fault.at])
        self.wfile.flush()
        self.close_connection = True
        if fault.kind == "stall":
            time.sleep(fault.seconds)
            self.wfile.write(data[fault.at :])
        elif fault.kind == "trickle":
            for byte in data[fault.at :]:
                time.sleep(0.2)
                self.wfile.write(bytes([byte]))
                self.wfile.flush()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _error_body(status: int) -> bytes:
    code = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}.get(status, "Error")
    key = S3_ENVIRONMENT["AWS_ACCESS_KEY_ID"]
    return (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>refused for {key} Signature=abc123</Message></Error>"
    ).encode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(endpoint: str, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server at {endpoint} did not start") from None
            time.sleep(0.1)
