"""A chat endpoint on loopback that does what a test tells it to, request by request."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler"], None]


@dataclass
class ChatServer:
    """What was asked, when, and what to do about it."""

    url: str
    script: list[Act]
    """One for each request in the order they come; the last one stays."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    models: Act = field(default_factory=lambda: sends(404))
    """What is done when the list of models is asked for."""
    probes: list[dict[str, str]] = field(default_factory=list)
    """Headers of those who did."""
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """Notes the request and acts."""

    protocol_version = "HTTP/1.1"
    chat: ChatServer
    body: dict[str, Any]
    """Of the request that is being answered."""

    def do_POST(self) -> None:
        body = self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.chat
        with chat.lock:
            place = len(chat.bodies)
            chat.bodies.append(body)
            chat.headers.append(dict(self.headers))
            chat.times.append(time.monotonic())
            chat.at_once += 1
            chat.most_at_once = max(chat.most_at_once, chat.at_once)
        try:
            chat.script[min(place, len(chat.script) - 1)](self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client had enough
        finally:
            with chat.lock:
                chat.at_once -= 1

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            raise AssertionError("the client followed a redirect")
        self.chat.probes.append(dict(self.headers))
        self.chat.models(self)

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def send(self, status: int, data: bytes, **headers: str) -> None:
        """A whole reply."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


def completion(content: Any, usage: Any = None) -> bytes:
    """A chat completion with these words."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def says(content: Any, usage: Any = None) -> Act:
    return lambda handler: handler.send(200, completion(content, usage))


def sends(status: int, data: bytes = b"", **headers: str) -> Act:
    return lambda handler: handler.send(status, data, **headers)


def stalls(handler: Handler) -> None:
    """Says nothing until the test ends."""
    handler.chat.closing.wait(20)
    handler.close_connection = True


def drips(handler: Handler) -> None:
    """One byte every tenth of a second: never silent, never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.chat.closing.wait(0.1):
        handler.wfile.write(b" ")
        handler.wfile.flush()
    handler.close_connection = True


def closes(handler: Handler) -> None:
    """Hangs up in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.close_connection = True


def floods(handler: Handler) -> None:
    """A body without an end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    while not handler.chat.closing.is_set():
        handler.wfile.write(b"x" * 65536)


@contextmanager
def chat_server(*script: Act) -> Iterator[ChatServer]:
    """Runs until the block ends."""
    handler = type("OwnHandler", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    chat = ChatServer(url=f"http://127.0.0.1:{server.server_port}/v1", script=list(script))
    handler.chat = chat  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        chat.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
