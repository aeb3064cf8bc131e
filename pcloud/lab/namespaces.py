"""Stepping into the fabric's network namespace: for one call, or for the whole process."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pcloud import places
from pcloud.errors import Blocked
from pcloud.lab.boot import NEWNET
from pcloud.lab.processes import find_fabric
from pcloud.model import Site

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


def join_network(pid: int) -> None:
    """Moves the calling thread, and only it, into the network namespace of a process. Raises `OSError`."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def call_in_network(pid: int, function: Callable[[], T]) -> T:
    """The function's result, computed in a thread of its own inside that network namespace.

    A network namespace belongs to a thread, and a socket keeps the one it was made in
    (network_namespaces(7)), so the rest of the process notices nothing.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            join_network(pid)
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def enter(site: Site) -> None:
    """Puts this process into the site's lab, when it has one and is not in it yet; else does nothing.

    Only the network changes: files, process numbers, arguments and environment stay. While the
    process has one thread, that thread moves and every later one follows it; a process that has
    more is started again from its own command line, through nsenter.
    Raises `Blocked` when the lab is not up or the caller is not root.
    """
    if site.lab is None:
        return
    if os.geteuid() != 0:
        raise Blocked("the lab belongs to root", where=f"lab {site.site}", next="run the same command as root")
    fabric = find_fabric(places.lab_dir(site.site))
    if fabric is None:
        raise Blocked("the lab is not up", where=f"lab {site.site}", next=f"pcloud lab up {site.site}")
    if str(Path("/proc/thread-self/ns/net").readlink()) == fabric.net_ns:
        return
    if len(list(Path("/proc/self/task").iterdir())) == 1:
        join_network(fabric.pid)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(  # noqa: S606 - the same command line, no shell
        "nsenter", ["nsenter", f"--net=/proc/{fabric.pid}/ns/net", "--", sys.executable, *sys.orig_argv[1:]]
    )
