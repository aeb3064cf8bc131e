"""The data centre: up, down, power, cables and cold.

What runs is found in /proc, what is cut is asked of the fabric; files only say what was made.
One change of a lab at a time: each holds the lock of the lab's folder, and so does every
process it starts, until that process has become a part of the lab.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pcloud import places
from pcloud.clock import Deadline
from pcloud.errors import Blocked, CommandFailed, DeadlineExceeded
from pcloud.lab import bmc, boot, capabilities, disk, keys, kvm, network, processes, ready
from pcloud.lab.bmc import Fault
from pcloud.lab.boot import FABRIC
from pcloud.lab.layout import LabFolder, extended, find_member, locked, members, remove
from pcloud.lab.namespaces import call_in_network
from pcloud.lab.network import Direction, Link, port_name
from pcloud.lab.processes import Part
from pcloud.lab.requirements import find_program, require_lab, require_machine, require_root
from pcloud.model import Host, Site

LOCK_S = 60
READY_S = 90
WARM_S = 300
KILL_S = 30
Power = Literal["on", "off", "frozen", "absent"]


@dataclass(frozen=True)
class UpReport:
    """Host names: `started` now, `running` before, `off` and left so; `extra` are not in the inventory."""

    started: tuple[str, ...]
    running: tuple[str, ...]
    off: tuple[str, ...]
    extra: tuple[Host, ...]
    elapsed_s: float


@dataclass(frozen=True)
class DownReport:
    """`removed` is false when there was nothing; `inside` are processes, not of the lab, still in its network."""

    removed: bool
    inside: tuple[int, ...] = ()


@dataclass(frozen=True)
class HostStatus:
    """`power` is `absent` for a host that was never made; `link` is `-` without power."""

    name: str
    address: str
    rack: str
    power: Power
    link: Link
    guests: int
    spare: bool = False
    bmc: Fault = "ok"


def up(site: Site, hosts: int | None = None, timeout_s: float = READY_S) -> UpReport:
    """Makes and starts the lab's hosts, `hosts` in all (default: the inventory's and those made before).

    On a lab that runs, adds what is missing and changes nothing else: a host that was switched off
    stays off. When nothing runs, everything starts. Returns once every host's sshd and libvirtd answer.
    Raises `Blocked` when the machine lacks something, `DeadlineExceeded` with the host's own last words.
    """
    require_lab(site)
    folder = LabFolder.of(site)
    require_machine(folder.path)
    began = time.monotonic()
    with locked(folder, Deadline.after(LOCK_S)) as lock:
        everyone = members(site, folder)
        wanted = everyone if hosts is None else extended(site, everyone, hosts)
        operator = keys.operator_line(folder)
        keys.write_secrets(site, folder)
        parts = processes.find_parts(folder.path)
        nothing_runs = FABRIC not in parts
        fabric = parts[FABRIC] if not nothing_runs else _start_fabric(site, folder, lock)
        served = tuple({h.name: h for h in (*everyone, *wanted)}.values())
        controllers = bmc.start(site, folder, fabric, served)
        running = tuple(h.name for h in wanted if h.name in parts and folder.host(h.name).made.exists())
        rest = [h for h in wanted if h.name not in running]
        off = () if nothing_runs else tuple(h.name for h in rest if folder.host(h.name).made.exists())
        start = [h for h in rest if h.name not in off]
        for host in start:
            place = folder.host(host.name)
            if host.name not in parts and not place.made.exists():
                disk.make(site, host, place, wanted, operator)
        keys.write_known_hosts(folder, served)
        _start_hosts(site, folder, fabric, [h for h in start if h.name not in parts], lock)
        _wait_ready(folder, fabric, start, Deadline.after(timeout_s))
        bmc.finish(controllers)
        bmc.apply_faults(folder, fabric, served)
    known = {host.name for host in site.hosts}
    extra = tuple(host for host in wanted if host.name not in known)
    return UpReport(tuple(h.name for h in start), running, off, extra, time.monotonic() - began)


def _start_fabric(site: Site, folder: LabFolder, lock: int) -> Part:
    for name, stray in processes.find_parts(folder.path).items():
        if name != FABRIC:
            processes.kill(folder.path, stray, Deadline.after(KILL_S))
    spec = {
        "part": FABRIC,
        "lab": str(folder.path),
        "console": str(folder.path / "fabric.log"),
        "address": f"{site.network.gateway}/{site.network.cidr.prefixlen}",
        "tini": find_program("tini"),
    }
    _finish(_launch(spec, lock), FABRIC)
    fabric = processes.find_fabric(folder.path)
    if fabric is None:
        raise CommandFailed("the fabric ended at once", where=str(folder.path), next=f"pcloud lab down {site.site}")
    return fabric


def _start_hosts(site: Site, folder: LabFolder, fabric: Part, hosts: list[Host], lock: int) -> None:
    """Starts the hosts together; the first one alone when nobody has asked QEMU what it can do yet."""
    if not hosts:
        return
    show_kvm = kvm.usable()
    learned = capabilities.kept(show_kvm)
    if not learned.exists():
        first, *hosts = hosts
        _boot(site, folder, fabric, [first], show_kvm, lock)
        _wait_ready(folder, fabric, [first], Deadline.after(READY_S))
        _warm(folder, first, learned)
    for host in hosts:
        capabilities.give(learned, folder.host(host.name))
    _boot(site, folder, fabric, hosts, show_kvm, lock)


def _warm(folder: LabFolder, host: Host, learned: Path) -> None:
    argv = shell_argv(folder, host, ["virsh", "--connect", "qemu:///system", "capabilities"])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=WARM_S, check=False)
    if done.returncode != 0 or not capabilities.keep(folder.host(host.name), learned):
        raise CommandFailed(
            f"libvirt does not say what QEMU can do: {done.stderr.strip()}",
            where=host.name,
            next="read its console.log",
        )


def _boot(site: Site, folder: LabFolder, fabric: Part, hosts: list[Host], show_kvm: bool, lock: int) -> None:
    launched = []
    for host in hosts:
        place = folder.host(host.name)
        spec = {
            "part": host.name,
            "lab": str(folder.path),
            "console": str(place.console),
            "fabric": fabric.pid,
            "port": port_name(host),
            "bridge": host.bridge,
            "address": f"{host.address}/{site.network.cidr.prefixlen}",
            "gateway": str(site.network.gateway),
            "disk": str(place.disk),
            "layers": disk.layers(),
            "shown": disk.shown(),
            "hidden": _hidden(),
            "extra_devices": ["/dev/kvm"] if show_kvm else [],
            "init": find_program("busybox"),
            "cut": place.cut.exists(),
        }
        launched.append((host, _launch(spec, lock)))
    for host, launch in launched:
        _finish(launch, host.name)
        with contextlib.suppress(FileNotFoundError):
            direction = folder.host(host.name).cut.read_text().strip()
            network.cut_port(fabric, host, _direction(direction))


def _hidden() -> list[str]:
    """The operator's folders, where they are in a folder of the machine that hosts can read."""
    found = []
    state, cache = places.lab_dir("x").parent.parent, places.images_dir().parent
    for path in (state, cache, places.config_dir()):
        inside = path.resolve()
        if any(inside.is_relative_to(f"/{layer}") for layer in disk.layers()) and inside.is_dir():
            found.append(str(inside))
    return sorted(set(found))


def _launch(spec: dict[str, Any], lock: int) -> subprocess.Popen[str]:
    launch = subprocess.Popen(
        [sys.executable, "-I", "-S", str(boot.__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(lock,),
        start_new_session=True,
    )
    assert launch.stdin is not None
    launch.stdin.write(json.dumps(spec))
    launch.stdin.close()
    launch.stdin = None
    return launch


def _finish(launch: subprocess.Popen[str], name: str) -> None:
    try:
        _, said = launch.communicate(timeout=boot.LIMIT_S + 5)
    except subprocess.TimeoutExpired as error:
        launch.kill()
        raise DeadlineExceeded("it does not start", where=name, next="pcloud lab down, then up") from error
    if launch.returncode != 0:
        raise CommandFailed(f"it does not start: {said.strip()}", where=name, next="pcloud lab down, then up")


def _wait_ready(folder: LabFolder, fabric: Part, hosts: list[Host], deadline: Deadline) -> None:
    """Until sshd and libvirtd of every host answer; then the host counts as made."""

    def wait(host: Host) -> None:
        place = folder.host(host.name)
        ssh = libvirt = False
        while not (ssh and libvirt):
            part = processes.find_parts(folder.path).get(host.name)
            if part is None:
                raise CommandFailed("it stopped while starting", where=host.name, next=place.console_tail())
            ssh = ssh or place.cut.exists() or call_in_network(fabric.pid, lambda: ready.ssh_answers(str(host.address)))
            libvirt = libvirt or ready.libvirt_answers(part.pid)
            if not (ssh and libvirt) and deadline.passed():
                silent = " and ".join(["sshd"] * (not ssh) + ["libvirtd"] * (not libvirt))
                raise DeadlineExceeded(f"{silent} did not answer", where=host.name, next=place.console_tail())
            time.sleep(0.0 if ssh and libvirt else 0.1)
        place.made.touch()

    if hosts:
        with ThreadPoolExecutor(max_workers=min(32, len(hosts))) as pool:
            list(pool.map(wait, hosts))


def down(site: Site) -> DownReport:
    """Ends everything of the lab at once and removes its folder. Safe after a crash, and twice."""
    require_root()
    folder = LabFolder.of(site)
    running = processes.find_parts(folder.path)
    if not folder.path.exists() and not running and not processes.find_controllers(folder.path):
        remove(folder)
        return DownReport(False)
    with locked(folder, Deadline.after(LOCK_S)):
        parts = processes.find_parts(folder.path)
        for part in sorted(parts.values(), key=lambda p: p.name != FABRIC):
            processes.kill(folder.path, part, Deadline.after(KILL_S))
        bmc.stop(folder)
        inside = processes.in_network(parts[FABRIC].net_ns) if FABRIC in parts else []
        remove(folder)
    return DownReport(True, tuple(inside))


def status(site: Site) -> tuple[HostStatus, ...]:
    """Every host of the lab as it is now."""
    require_lab(site)
    require_root()
    folder = LabFolder.of(site)
    hosts = members(site, folder)
    parts = processes.find_parts(folder.path)
    links = network.links(parts[FABRIC], hosts) if FABRIC in parts else {}
    guests = processes.guests(parts)
    rows = []
    for host in hosts:
        part = parts.get(host.name)
        power: Power = "off" if folder.host(host.name).record.exists() else "absent"
        if part is not None:
            power = "frozen" if part.frozen else "on"
        link = links.get(host.name, "-") if part else "-"
        running, fault = guests.get(host.name, 0), bmc.fault_of(folder, host.name)
        rows.append(HostStatus(host.name, str(host.address), host.rack, power, link, running, host.spare, fault))
    return tuple(rows)


@contextlib.contextmanager
def _changing(site: Site, name: str) -> Iterator[tuple[LabFolder, Host, Part, Part | None, int]]:
    """The lab's folder, the host, the fabric, and the host's part when it has power; under the lock."""
    require_lab(site)
    require_root()
    folder = LabFolder.of(site)
    host = find_member(site, folder, name)
    if processes.find_fabric(folder.path) is None:
        raise Blocked("the lab is not up", where=f"lab {site.site}", next=f"pcloud lab up {site.site}")
    with locked(folder, Deadline.after(LOCK_S)) as lock:
        parts = processes.find_parts(folder.path)
        if FABRIC not in parts:
            raise Blocked("the lab is not up", where=f"lab {site.site}", next=f"pcloud lab up {site.site}")
        yield folder, host, parts[FABRIC], parts.get(name), lock


def _require_made(site: Site, folder: LabFolder, name: str) -> None:
    if not folder.host(name).made.exists():
        raise Blocked("it was never made", where=f"host {name}", next=f"pcloud lab up {site.site}")


def power_off(site: Site, name: str) -> bool:
    """A power cut: everything of the host dies at once. False when it was off. Its disk stays.

    Its cable goes first: the kernel keeps the network of a host that died for as long as one of its TCP
    sockets sends again, which is minutes, and in them the dead host would answer.
    """
    with _changing(site, name) as (folder, host, fabric, part, _):
        if part is None:
            return False
        network.take_port(fabric, host)
        processes.kill(folder.path, part, Deadline.after(KILL_S))
        return True


def power_on(site: Site, name: str, timeout_s: float = READY_S) -> bool:
    """Starts the host from its own disk, until it answers. False when it was on. A cut cable stays cut."""
    with _changing(site, name) as (folder, host, fabric, part, lock):
        if part is not None:
            return False
        _require_made(site, folder, name)
        _start_hosts(site, folder, fabric, [host], lock)
        _wait_ready(folder, fabric, [host], Deadline.after(timeout_s))
        return True


def _direction(text: str) -> Direction:
    return "in" if text == "in" else "out" if text == "out" else "both"


def cut(site: Site, name: str, direction: Direction = "both") -> None:
    """Cuts the host's cable: `in` is what the host would receive, `out` what it sends.

    It stays cut until it is mended, also while the host has no power.
    """
    with _changing(site, name) as (folder, host, fabric, part, _):
        folder.host(name).cut.write_text(f"{direction}\n")
        if part is not None:
            network.cut_port(fabric, host, direction)


def mend(site: Site, name: str) -> None:
    """Puts the host's cable back."""
    with _changing(site, name) as (folder, host, fabric, part, _):
        folder.host(name).cut.unlink(missing_ok=True)
        if part is not None:
            network.mend_port(fabric, host)
        else:
            network.drop_filters(fabric, host)


def set_bmc(site: Site, name: str, fault: Fault) -> None:
    """What the host's controller does wrong (`bmc.Fault`) until it is told otherwise."""
    with _changing(site, name) as (folder, host, fabric, _, _):
        _require_made(site, folder, name)
        bmc.set_fault(folder, fabric, members(site, folder), host, fault)


def freeze_host(site: Site, name: str) -> None:
    """Stops every process of the host (SIGSTOP): it keeps its power, and answers nothing."""
    _signal(site, name, signal.SIGSTOP)


def thaw_host(site: Site, name: str) -> None:
    """Lets every process of the host go on (SIGCONT)."""
    _signal(site, name, signal.SIGCONT)


def _signal(site: Site, name: str, number: signal.Signals) -> None:
    with _changing(site, name) as (_, _, _, part, _):
        if part is None:
            raise Blocked("it has no power", where=f"host {name}", next=f"pcloud lab power-on {site.site}/{name}")
        processes.signal_all(part, number, Deadline.after(KILL_S))


def shell_argv(folder: LabFolder, host: Host, command: list[str]) -> list[str]:
    """The argv that runs a command inside the host, as its root. Raises `Blocked` when it has no power."""
    part = processes.find_parts(folder.path).get(host.name)
    if part is None:
        raise Blocked("it has no power", where=f"host {host.name}", next="pcloud lab status")
    environ = ["env", "-i", f"PATH={boot.PATH}", "HOME=/root", "LANG=C.UTF-8", f"TERM={os.environ.get('TERM', 'dumb')}"]
    inside = ["--mount", "--uts", "--ipc", "--net", "--pid", f"--target={part.pid}", f"--wd=/proc/{part.pid}/root/root"]
    return ["nsenter", *inside, "--", *environ, *command]


def shell(site: Site, name: str, command: list[str]) -> list[str]:
    """`shell_argv` for a host of the site's lab, by name."""
    require_lab(site)
    require_root()
    folder = LabFolder.of(site)
    return shell_argv(folder, find_member(site, folder, name), command)
