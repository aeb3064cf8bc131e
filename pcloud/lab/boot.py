"""Starts one part of a lab, its fabric or one host: the only code that makes namespaces and mounts.

Run as a script by a Python without site packages (`python -I -S boot.py`), one JSON object on
stdin; exit 0 means that the part's own PID 1 is running, 1 that it is not, with the reason on
stderr. Standard library only: eight of these start at once, so each must cost milliseconds.

The fabric is a network namespace with one bridge, and a PID namespace in which every host
lives: when its PID 1 dies, the kernel kills the whole data centre with it.

    this process ──setns(fabric)── fork ──unshare(net, mount, uts, ipc)── fork ── PID 1 of the host
    (joins the port to the fabric's bridge)   (makes the veth)     unshare(pid)  (mounts, pivot_root, exec)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

FABRIC = "fabric"
BRIDGE = "lab0"
LIMIT_S = 60

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The devices of a machine that runs guests: name, major, minor (admin-guide/devices.txt of the kernel).
DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("net/tun", 10, 200),
)

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        shown = ", ".join(a.decode() if isinstance(a, bytes) else str(a) for a in arguments)
        raise OSError(number, f"{name}({shown}): {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags, options.encode() or None)


def _enter(pid: int, kind: str, flag: int) -> None:
    fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
    try:
        _call("setns", fd, flag)
    finally:
        os.close(fd)


def _ip(lines: list[str]) -> None:
    """Runs the lines as one `ip -batch`, in the network namespace of the caller."""
    done = subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode != 0:
        raise OSError(errno.EIO, f"ip: {done.stderr.strip()}")


def _no_ipv6() -> None:
    """A lab is IPv4; without this every interface spends its first seconds on address detection."""
    for name in ("all", "default"):
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1\n")


def _become(argv: list[str], spec: dict[str, Any]) -> NoReturn:
    """Replaces this process by a part's PID 1, marked so that the lab finds it again from /proc."""
    environ = {
        "PATH": PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PCLOUD_LAB": spec["lab"],
        "PCLOUD_LAB_PART": spec["part"],
    }
    signal.alarm(0)
    os.umask(0o022)
    os.closerange(3, spec["report"])
    os.closerange(spec["report"] + 1, 4096)
    os.execve(argv[0], spec.get("title", argv), environ)  # noqa: S606 - an argv, no shell


def _fabric(spec: dict[str, Any]) -> None:
    _call("unshare", NEWNET)
    _no_ipv6()
    _ip(
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"address add {spec['address']} dev {BRIDGE}",
            f"link set {BRIDGE} up",
        ]
    )
    _call("unshare", NEWPID)
    if os.fork() == 0:
        with _reported(spec):
            os.setsid()
            os.chdir("/")
            tini: str = spec["tini"]
            _become([tini, "--", "sleep", "infinity"], spec)


def _host(spec: dict[str, Any]) -> None:
    fabric: int = spec["fabric"]
    port: str = spec["port"]
    _enter(fabric, "net", NEWNET)
    with contextlib.suppress(OSError):
        # The port of a host whose power was cut: the kernel takes it away by itself, but later.
        socket.if_nametoindex(port)
        _ip([f"link delete {port}"])
    _enter(fabric, "pid", NEWPID)
    middle = os.fork()
    if middle == 0:
        with _reported(spec):
            _call("unshare", NEWNET | NEWNS | NEWUTS | NEWIPC)
            _host_network(spec)
            _call("unshare", NEWPID)
            if os.fork() == 0:
                _host_root(spec)
        os._exit(0)
    os.waitpid(middle, 0)
    _ip([f"link set {port} master {BRIDGE}", f"link set {port} {'down' if spec['cut'] else 'up'}"])


def _host_network(spec: dict[str, Any]) -> None:
    """The host's side of its cable. `netns 1` is the fabric: this process is in its PID namespace."""
    _no_ipv6()
    bridge = spec["bridge"]
    tail = ":".join(f"{int(part):02x}" for part in spec["address"].partition("/")[0].split("."))
    _ip(
        [
            "link set lo up",
            f"link add eth0 address 06:01:{tail} type veth peer name {spec['port']} netns 1",
            # A fixed address: left alone, a bridge takes the lowest of its ports and changes with each guest.
            f"link add {bridge} address 06:00:{tail} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set eth0 master {bridge} up",
            f"address add {spec['address']} dev {bridge}",
            f"link set {bridge} up",
            f"route add default via {spec['gateway']}",
        ]
    )


def _host_root(spec: dict[str, Any]) -> NoReturn:
    with _reported(spec):
        os.setsid()
        os.chdir(spec["disk"])
        socket.sethostname(spec["part"])
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
        _mount("root", "root", None, MS_BIND)
        for layer in spec["layers"]:
            _overlay(layer)
        for shown in spec["shown"]:
            _mount(f"/{shown}", f"root/{shown}", None, MS_BIND)
            _mount("none", f"root/{shown}", None, MS_BIND | MS_REMOUNT | MS_RDONLY)
        for hidden in spec["hidden"]:
            _mount("hidden", f"root{hidden}", "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,size=64k")
        _mount("proc", "root/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("sysfs", "root/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("tmpfs", "root/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=256m")
        _mount("tmpfs", "root/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=1g")
        _devices(spec["extra_devices"])
        for folder in ("run/sshd", "run/lock"):
            Path("root", folder).mkdir(mode=0o755)
        # The old root is stacked under the new one and dropped from there: pivot_root(2), "pivot_root(".", ".")".
        os.chdir("root")
        _call("pivot_root", b".", b".")
        _call("umount2", b".", MNT_DETACH)
        os.chdir("/")
        _become([spec["init"]], {**spec, "title": ["init"]})
    raise AssertionError("unreachable")


def _overlay(layer: str) -> None:
    """The machine's folder, read through this host's own upper one. Relative paths need no escapes."""
    options = f"lowerdir=/{layer},upperdir={layer}.upper,workdir={layer}.work"
    for left in range(50, -1, -1):
        try:
            _mount("overlay", f"root/{layer}", "overlay", 0, options)
            return
        except OSError as error:
            # After a power cut the kernel may still be taking the last mount of these folders apart.
            if error.errno != errno.EBUSY or left == 0:
                raise
            time.sleep(0.1)


def _devices(extra: list[str]) -> None:
    _mount("tmpfs", "root/dev", "tmpfs", MS_NOSUID, "mode=755,size=1m")
    dev = Path("root/dev")
    for folder in ("net", "pts", "shm"):
        (dev / folder).mkdir()
    for name, major, minor in DEVICES:
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for path in extra:
        os.mknod(dev / Path(path).name, stat.S_IFCHR | 0o666, Path(path).stat().st_rdev)
    for node in dev.rglob("*"):
        if node.is_char_device():
            node.chmod(0o666)  # mknod obeys the umask
    _mount("devpts", "root/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    _mount("tmpfs", "root/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")


@contextlib.contextmanager
def _reported(spec: dict[str, Any]) -> Any:
    """In a child: whatever goes wrong travels through the pipe, and the child ends there."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - a forked child: it reports and ends, it cannot raise
        os.write(spec["report"], f"{spec['part']}: {error}".encode()[:4000])
        os._exit(1)


def main() -> int:
    signal.alarm(LIMIT_S)
    spec = json.load(sys.stdin)
    reading, spec["report"] = os.pipe()  # closed on exec: its end says that PID 1 runs
    console = os.open(spec["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    said = os.dup(2)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(console, 1)
    os.dup2(console, 2)
    try:
        _fabric(spec) if spec["part"] == FABRIC else _host(spec)
        problem = b""
    except OSError as error:
        problem = f"{spec['part']}: {error}".encode()
    os.close(spec["report"])
    with os.fdopen(reading, "rb") as report:
        problem = report.read() or problem
    if problem:
        os.write(said, problem + b"\n")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
