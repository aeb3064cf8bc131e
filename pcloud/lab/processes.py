"""Finds a lab's processes again, from /proc alone, and signals them without ever hitting another.

Each part's PID 1 carries the lab's folder and its own name in its environment, and is number 1
of a PID namespace of its own; no file remembers a number that the kernel may have given away.
A signal goes through a pidfd whose process has been looked at again after it was opened.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pcloud.clock import Deadline
from pcloud.errors import DeadlineExceeded
from pcloud.lab.boot import FABRIC

BMC = "bmc"
"""The mark of the process that serves the hosts' controllers: it is no part, as it is in no namespace of its own."""
STOPPED = ("T", "t")
DEAD = ("Z", "X", "")


@dataclass(frozen=True)
class Part:
    """A running part of a lab. `pid_ns` and `net_ns` are the kernel's names of its namespaces."""

    name: str
    pid: int
    frozen: bool
    pid_ns: str
    net_ns: str


def find_parts(lab: Path) -> dict[str, Part]:
    """The running parts of the lab in this folder, by host name, the fabric as `fabric`."""
    parts = {}
    for pid in _pids():
        part = _find_part(lab, pid)
        if part is not None:
            parts[part.name] = part
    return parts


def find_fabric(lab: Path) -> Part | None:
    return find_parts(lab).get(FABRIC)


@dataclass(frozen=True)
class Controllers:
    """The process that serves the hosts' controllers. `digest` names what it serves."""

    pid: int
    digest: str


def find_controllers(lab: Path) -> list[Controllers]:
    return [found for pid in _pids() if (found := _find_controllers(lab, pid)) is not None]


def _find_controllers(lab: Path, pid: int) -> Controllers | None:
    try:
        environ = Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    if b"PCLOUD_LAB=" + os.fsencode(lab) not in environ or b"PCLOUD_LAB_PART=" + BMC.encode() not in environ:
        return None
    return Controllers(pid, next((item[15:].decode() for item in environ if item.startswith(b"PCLOUD_LAB_BMC=")), ""))


def kill_controllers(lab: Path, controllers: Controllers, deadline: Deadline) -> None:
    """SIGKILL, then waits until the process is gone. Raises `DeadlineExceeded`."""
    with _pidfd(controllers.pid) as fd:
        if fd is None or _find_controllers(lab, controllers.pid) != controllers:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        if not select.select([fd], [], [], deadline.left())[0]:
            next_step = f"look at /proc/{controllers.pid}/status"
            raise DeadlineExceeded("they do not die", where="the lab's controllers", next=next_step)


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - numbers, not paths
        if name.isdigit():
            yield int(name)


def _find_part(lab: Path, pid: int) -> Part | None:
    proc = Path("/proc", str(pid))
    try:
        environ = (proc / "environ").read_bytes().split(b"\0")
        if b"PCLOUD_LAB=" + os.fsencode(lab) not in environ:
            return None
        name = next((item[16:].decode() for item in environ if item.startswith(b"PCLOUD_LAB_PART=")), "")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
        numbers, state = status["NSpid"].split(), status["State"][:1]
        if not name or state in DEAD or len(numbers) < 2 or numbers[-1] != "1":
            return None
        pid_ns, net_ns = _link(pid, "pid"), _link(pid, "net")
        return Part(name, pid, state in STOPPED, pid_ns, net_ns) if pid_ns and net_ns else None
    except (OSError, KeyError):
        return None


def kill(lab: Path, part: Part, deadline: Deadline) -> None:
    """SIGKILL to the part's PID 1, then waits until it and all its processes are gone.

    The kernel lets PID 1 go only after every process of its namespace is reaped.
    Raises `DeadlineExceeded`.
    """
    with _pidfd(part.pid) as fd:
        current = _find_part(lab, part.pid)
        if fd is None or current is None or current.pid_ns != part.pid_ns:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        if not select.select([fd], [], [], deadline.left())[0]:
            raise DeadlineExceeded("its processes do not die", where=part.name, next=f"look at /proc/{part.pid}/status")


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def members(part: Part) -> list[int]:
    """Every process in the part's PID namespace (not those of namespaces within it)."""
    return [pid for pid in _pids() if _link(pid, "pid") == part.pid_ns]


def in_network(net_ns: str) -> list[int]:
    """Every process in that network namespace."""
    return [pid for pid in _pids() if _link(pid, "net") == net_ns]


def signal_all(part: Part, number: signal.Signals, deadline: Deadline) -> None:
    """Signals every process of the part until all have followed (a fork may outrun one round).

    `number` is SIGSTOP or SIGCONT. Raises `DeadlineExceeded`.
    """
    stop = number == signal.SIGSTOP
    while True:
        pending = [pid for pid in members(part) if (state := _state(pid)) not in DEAD and (state in STOPPED) != stop]
        if not pending:
            return
        if deadline.passed():
            word = "stop" if stop else "go on"
            raise DeadlineExceeded(f"{len(pending)} processes do not {word}", where=part.name, next="try again")
        for pid in pending:
            with _pidfd(pid) as fd:
                if fd is not None and _link(pid, "pid") == part.pid_ns:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(fd, number)
        time.sleep(0.01)


def guests(parts: dict[str, Part]) -> dict[str, int]:
    """How many guests run in each part: QEMU processes that libvirt gave a guest's name."""
    by_namespace = {part.pid_ns: name for name, part in parts.items()}
    counts = dict.fromkeys(parts, 0)
    for pid in _pids():
        with contextlib.suppress(OSError):
            argv = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
            name = by_namespace.get(_link(pid, "pid"))
            if name and b"qemu-system" in argv[0] and any(a.startswith(b"guest=") for a in argv):
                counts[name] += _state(pid) not in DEAD
    return counts


def _link(pid: int, kind: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def _state(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""
