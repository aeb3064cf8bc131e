"""Which hosts a lab has, and where their files are.

<lab folder>/operator_key, known_hosts, secrets.yaml
<lab folder>/hosts/<host>/host.json     as it was made
                          made          it has answered once: from now on it is switched by a person
                          cut           its cable is cut: both, in or out
                          bmc           what its controller does wrong: refuse, hang, late or dead
                          console.log   what its services print
                          disk/         its disk
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from pydantic import ValidationError

from pcloud import places
from pcloud.clock import Deadline
from pcloud.errors import BadInput, Blocked, DeadlineExceeded
from pcloud.model import Host, Site

REMOVED = ".removed-"


@dataclass(frozen=True)
class HostFolder:
    path: Path

    @property
    def disk(self) -> Path:
        return self.path / "disk"

    @property
    def root(self) -> Path:
        """The host's `/`, as far as it is the host's own."""
        return self.disk / "root"

    @property
    def console(self) -> Path:
        return self.path / "console.log"

    @property
    def record(self) -> Path:
        return self.path / "host.json"

    @property
    def made(self) -> Path:
        return self.path / "made"

    @property
    def cut(self) -> Path:
        return self.path / "cut"

    @property
    def bmc(self) -> Path:
        return self.path / "bmc"

    def console_tail(self, lines: int = 15) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])
        return ""


@dataclass(frozen=True)
class LabFolder:
    path: Path

    @classmethod
    def of(cls, site: Site) -> LabFolder:
        return cls(places.lab_dir(site.site))

    @property
    def key(self) -> Path:
        return self.path / "operator_key"

    @property
    def known_hosts(self) -> Path:
        return self.path / "known_hosts"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets.yaml"

    def host(self, name: str) -> HostFolder:
        return HostFolder(self.path / "hosts" / name)

    def recorded(self) -> tuple[Host, ...]:
        """The hosts that were made here, by address, whatever the inventory says now."""
        hosts = []
        for record in self.path.glob("hosts/*/host.json"):
            with contextlib.suppress(OSError, ValidationError):
                hosts.append(Host.model_validate_json(record.read_text()))
        return tuple(sorted(hosts, key=lambda host: host.address))


@contextlib.contextmanager
def locked(folder: LabFolder, deadline: Deadline) -> Iterator[int]:
    """Makes the lab's folder (0700) and holds it: one change of a lab at a time.

    Yields the lock's descriptor, for children that must keep the lock when pcloud is killed.
    The folder may be removed while somebody waits for it, so what was locked is compared
    with what is there. Raises `DeadlineExceeded`.
    """
    while True:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = -1
        try:
            fd = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), folder.path.stat()):
                break
            os.close(fd)
        except (FileNotFoundError, BlockingIOError):
            if fd >= 0:
                os.close(fd)
        if deadline.passed():
            raise DeadlineExceeded(
                "another pcloud is changing this lab",
                where=str(folder.path),
                next="wait for it, or end it, and try again",
            )
        time.sleep(0.05)
    try:
        yield fd
    finally:
        os.close(fd)


def remove(folder: LabFolder) -> None:
    """Removes the lab's folder. Renamed first, so that a crash never leaves half a disk to boot from."""
    if folder.path.exists():
        folder.path.rename(folder.path.with_name(f"{REMOVED}{folder.path.name}.{os.getpid()}.{time.monotonic_ns()}"))
    for old in folder.path.parent.glob(f"{REMOVED}{folder.path.name}.*"):
        _refuse_mounts(old)
        shutil.rmtree(old, ignore_errors=False)


def _refuse_mounts(path: Path) -> None:
    """Deleting through a mount would delete the machine's own files."""
    under = f"{path.resolve()}/"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4])
        if f"{target}/".startswith(under):
            raise Blocked("something is mounted in the lab's folder", where=target, next=f"umount {target}")


def members(site: Site, folder: LabFolder) -> tuple[Host, ...]:
    """The inventory's hosts, then those that `lab up --hosts N` made in addition."""
    known = {host.name for host in site.hosts}
    return site.hosts + tuple(host for host in folder.recorded() if host.name not in known)


def find_member(site: Site, folder: LabFolder, name: str) -> Host:
    for host in members(site, folder):
        if host.name == name:
            return host
    names = ", ".join(host.name for host in members(site, folder))
    raise BadInput(f"there is no host {name}", where=f"lab {site.site}", next=f"its hosts are {names}")


def require_host(site: Site, name: str) -> None:
    """Raises `BadInput` for a name that no host of the lab has."""
    find_member(site, LabFolder.of(site), name)


def extended(site: Site, hosts: tuple[Host, ...], count: int) -> tuple[Host, ...]:
    """`count` hosts in all: the first ones, or all and new ones with the next free names and addresses.

    Raises `BadInput` when the network has no address left.
    """
    if count < 1:
        raise BadInput("a lab has at least one host", where="--hosts", next="give a number from 1")
    result = list(hosts[:count])
    taken = _taken(site) | {int(host.address) for host in hosts}
    names = {host.name for host in hosts}
    stem, number = _numbered(hosts[-1].name)
    address = int(hosts[-1].address)
    while len(result) < count:
        number += 1
        address = _next_free(site, address, taken)
        taken.add(address)
        name = f"{stem}{number}"
        if name in names:
            raise BadInput(f"host {name} exists already", where="--hosts", next="number the inventory's hosts in order")
        racks = Counter(host.rack for host in result)
        rack = min(racks, key=lambda r: (racks[r], r))
        last = hosts[-1]
        result.append(Host(name=name, address=IPv4Address(address), rack=rack, pool=last.pool, bridge=last.bridge))
    return tuple(result)


def _numbered(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d+)", name)
    return (match[1], int(match[2])) if match else (f"{name}-", 1)


def _next_free(site: Site, address: int, taken: set[int]) -> int:
    first, last = int(site.network.cidr.network_address), int(site.network.cidr.broadcast_address)
    for candidate in itertools.chain(range(address + 1, last), range(first + 1, address)):
        if candidate not in taken:
            return candidate
    raise BadInput(
        f"{site.network.cidr} has no free address", where="--hosts", next="ask for fewer, or widen the network"
    )


def _taken(site: Site) -> set[int]:
    """Every address that the inventory speaks of: gateway, services and the groups' ranges."""
    taken = {int(site.network.gateway), *(int(s.address) for s in site.services.values())}
    for group in site.groups:
        for text in group.addresses:
            first, _, last = text.partition("-")
            low, high = int(ip_address(first.strip())), int(ip_address((last or first).strip()))
            taken.update(range(low, min(high, low + 65_536) + 1))
    return taken


def inventory_line(host: Host) -> str:
    """The line that makes the host part of an inventory."""
    rest = "".join(
        f", {key}: {getattr(host, key)}"
        for key in ("pool", "bridge")
        if getattr(host, key) != Host.model_fields[key].default
    )
    return f"  - {{name: {host.name}, address: {host.address}, rack: {host.rack}{rest}}}"
