"""Small real servers on 127.0.0.1 for tests, which can answer as badly as a test wants."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One HTTP request as it came; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = bytes | Iterable[bytes]


def page(
    body: str | bytes,
    *,
    status: int = 200,
    content_type: str = "text/html; charset=utf-8",
    headers: tuple[str, ...] = (),
) -> bytes:
    """A whole HTTP answer; each of `headers` is a line."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


def redirect(location: str, *, status: int = 302, headers: tuple[str, ...] = ()) -> bytes:
    return page("", status=status, headers=(f"Location: {location}", *headers))


@contextlib.contextmanager
def serve_raw(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that gives each connection to `talk`; yields its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(30)
            with contextlib.suppress(OSError):
                talk(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 50

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@contextlib.contextmanager
def serve(answer: Callable[[Request], Answer]) -> Iterator[int]:
    """A server that answers each request by what `answer` gives, in pieces when that is iterable."""

    def talk(sock: socket.socket) -> None:
        given = answer(_read_request(sock))
        for piece in (given,) if isinstance(given, bytes) else given:
            sock.sendall(piece)

    with serve_raw(talk) as port:
        yield port


def _read_request(sock: socket.socket) -> Request:
    with sock.makefile("rb") as lines:
        method, path, _ = lines.readline().decode().split(" ", 2)
        headers = {}
        while line := lines.readline().decode().strip():
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        body = lines.read(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)
