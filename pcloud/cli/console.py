"""A person's terminal, tied to a server's serial console."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pcloud.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcloud.hypervisor import Hypervisor

LEAVE = b"\x1d"
_CHUNK = 4096


def attach(hypervisor: Hypervisor, name: str) -> None:
    """Copies both ways until Ctrl-] or until the server goes away."""
    if not sys.stdin.isatty():
        raise BadInput("a console needs a terminal", next="run it from one")
    stream = hypervisor.console(name)
    with _raw(sys.stdin.fileno()), suppress(KeyboardInterrupt):
        _copy(stream, sys.stdin.fileno(), sys.stdout.fileno())
    stream.abort()


def _copy(stream: Any, keyboard: int, screen: int) -> None:
    while True:
        data = stream.recv(_CHUNK)
        if data == b"":
            return
        if isinstance(data, bytes):  # -2 when there is nothing yet
            os.write(screen, data)
            continue
        readable, _, _ = select.select([keyboard], [], [], 0.05)
        if readable:
            typed = os.read(keyboard, _CHUNK)
            if LEAVE in typed:
                return
            stream.send(typed)


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
