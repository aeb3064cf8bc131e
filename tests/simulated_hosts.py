"""Simulated hosts: what libvirt and a shell would find and do on each, with nothing behind it but two dictionaries."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from pcloud.desired import Names
from pcloud.errors import CommandFailed, HostUnreachable, HypervisorError
from pcloud.observed import Mark, Power, SeenServer
from pcloud.steps.relay import DIFFERENT, PROGRAM, SENDER_GONE
from tests.simulated_data import Said, SimData
from tests.simulated_power import Bmc

if TYPE_CHECKING:
    from tests.simulation import SimWorld

EFFECT_S = 0.1


@dataclass
class SimDomain:
    mark: Mark | None
    uuid: str
    memory_mib: int
    macs: tuple[str, ...]
    power: Power = Power.OFF
    started_at: float = 0.0
    broken: bool = False
    """It boots, and never answers."""
    refuses: bool = False
    """Its MariaDB runs, and does not let the monitor in: it has another password."""
    full: bool = False
    """Its disk has no room: its MariaDB does not say what it holds."""
    busy: int = 0
    """So many looks at it come to nothing: it is slow, and sells."""
    hung: bool = False
    """It stands still until it is switched off and on."""


@dataclass
class SimHost:
    domains: dict[str, SimDomain] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Path to the digest of its content."""
    texts: dict[str, str] = field(default_factory=dict)
    """Path to the content of what was written whole."""
    away: bool = False
    """It does not answer us, whatever the reason."""
    powered: bool = True
    frozen: bool = False
    """It has power and stands still, with all that runs on it."""
    bmc: Bmc = Bmc.WELL
    full: bool = False
    """Nothing more can be written to its disk."""
    bmc_since: float = 0.0
    """When its controller became what it is."""
    seen: bool = False
    """Other hosts still reach it while we do not."""

    @property
    def on_network(self) -> bool:
        """Shoppers and other servers reach what runs on it."""
        return self.powered and not self.frozen and (not self.away or self.seen)


@dataclass
class SimHypervisor:
    world: SimWorld
    name: str

    @property
    def me(self) -> SimHost:
        return self.world.hosts[self.name]

    def servers(self) -> tuple[SeenServer, ...]:
        now = self.world.clock.now()
        with self.world.lock:
            return tuple(
                SeenServer(name, d.uuid, d.power, d.mark, d.memory_mib, d.macs, (), now - d.started_at)
                for name, d in sorted(self.me.domains.items())
            )

    def server(self, name: str) -> SeenServer | None:
        return next((s for s in self.servers() if s.name == name), None)

    def power(self, name: str) -> Power | None:
        found = self.me.domains.get(name)
        return found.power if found else None

    def cpu_s(self, name: str) -> float:
        return 12.0

    def stopped(self, name: str) -> str | None:
        return None

    def define(self, xml: str) -> None:
        self.world.effect(self.name)
        tag = re.match(r'<pcloud:server generation="(\d+)"/>', xml)
        data = json.loads(xml[tag.end() :] if tag else xml)
        data["mark"]["generation"] = int(tag[1]) if tag else data["mark"]["generation"]
        data["mark"]["addresses"] = tuple(data["mark"]["addresses"])
        with self.world.lock:
            old = self.me.domains.get(data["name"])
            if old is not None and old.mark is None:
                raise HypervisorError("a domain of that name exists", where=self.name)
            self.me.domains[data["name"]] = SimDomain(
                Mark(**data["mark"]), data["uuid"], data["memory"], (data["mac"],)
            )
        self.world.effect(self.name)

    def start(self, name: str) -> None:
        self.world.effect(self.name)
        with self.world.lock:
            domain = self.me.domains[name]
            mark = domain.mark
            assert mark is not None
            names = Names(mark.site, mark.server, mark.generation)
            pool = self.world.host(self.name).pool
            for file in (names.disk, names.seed):
                if f"{pool}/{file}" not in self.me.files:
                    raise HypervisorError(f"{file} is not there", where=self.name)
            self.world.judge_start(mark, self.name)
            domain.power, domain.hung, domain.started_at = Power.RUNNING, False, self.world.clock.now()
            self.me.files[f"{pool}/{names.console}"] = "log"
            if self.me.files.get(f"{pool}/{names.disk}") == "fresh":
                self.world.disks[self.name, names.disk] = SimData()
                self.me.files[f"{pool}/{names.disk}"] = "used"
            self.world.boots(mark.server, self.world.disks.setdefault((self.name, names.disk), SimData()))
        self.world.effect(self.name)

    def power_off(self, name: str) -> None:
        self.world.effect(self.name)
        if name in self.me.domains:
            self.me.domains[name].power = Power.OFF
        self.world.effect(self.name)

    def definition(self, name: str) -> str | None:
        """As libvirt would print it: the mark in a tag of its own, the rest as the simulation defines it."""
        found = self.me.domains.get(name)
        if found is None or found.mark is None:
            return None
        data = {"name": name, "uuid": found.uuid, "mac": found.macs[0], "memory": found.memory_mib}
        return (
            f'<pcloud:server generation="{found.mark.generation}"/>{json.dumps({**data, "mark": asdict(found.mark)})}'
        )

    def undefine(self, name: str) -> None:
        self.world.effect(self.name)
        domain = self.me.domains.get(name)
        assert domain is None or domain.mark is not None, f"{name} is not pcloud's"
        self.me.domains.pop(name, None)
        self.world.effect(self.name)

    def volumes(self, pool: str) -> tuple[str, ...]:
        if self.me.away:
            raise HostUnreachable("no answer", where=self.name)
        return tuple(sorted(PurePosixPath(p).name for p in self.me.files))

    def _needs_room(self) -> None:
        if self.me.full:
            raise HypervisorError("No space left on device", where=self.name)

    def create_overlay(self, pool: str, name: str, *, backing: str, size_gib: int) -> None:
        self.world.effect(self.name)
        self._needs_room()
        if backing not in self.me.files:
            raise HypervisorError(f"{backing} is not there", where=self.name)
        self.me.files[f"{pool}/{name}"] = "fresh"
        self.world.effect(self.name)


@dataclass
class SimShell:
    """A host's shell: the few commands that steps use, on the simulated files."""

    world: SimWorld
    name: str

    @property
    def files(self) -> dict[str, str]:
        return self.world.hosts[self.name].files

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | BinaryIO | None = None,
        stdout: Callable[[bytes], None] | None = None,
        **_: Any,
    ) -> Said:
        if self.world.hosts[self.name].away:
            raise HostUnreachable("no answer", where=self.name)
        match list(argv):
            case ["nice", "-n", "19", *words]:
                return self._gently(words, stdin, stdout)
            case ["rm", "-f", *paths]:
                self.world.effect(self.name)
                for path in paths:
                    self.files.pop(path, None)
                self.world.effect(self.name)
            case ["mv", "-n" | "-f", old, new]:
                self.world.effect(self.name)
                self._move(old, new)
                self.world.effect(self.name)
            case ["stat", "-c", "%s", "--", _]:
                return Said(1)
            case ["test", "-e", path]:
                return Said(0 if path in self.files else 1)
            case ["true"]:
                self.world.effect(self.name)
            case words:
                return self._read(words)
        return Said()

    def _move(self, old: str, new: str) -> None:
        self.files[new] = self.files.pop(old)
        if ".tombstone-" in old and old.endswith(".qcow2"):
            mine = self.world.disks.pop((self.name, _disk_of(old)), None)
            self.world.disks |= {(self.name, PurePosixPath(new).name): mine} if mine is not None else {}

    def _read(self, words: Sequence[str]) -> Said:
        match list(words):
            case ["cat", "--", path]:
                return Said(0, self.world.hosts[self.name].texts[path])
            case ["sh", "-c", _, "whole", disk, xml]:
                gone = next((p for p in (disk, xml) if p not in self.files), "")
                return Said(1, f"{gone} is gone") if gone else Said()
            case _:
                raise AssertionError(f"the simulation knows no {shlex.join(words)}")

    def _gently(
        self, words: Sequence[str], stdin: bytes | BinaryIO | None, stdout: Callable[[bytes], None] | None
    ) -> Said:
        match list(words):
            case ["sha256sum", "--", *paths]:
                return Said(0, "".join(f"{self.files[p]}  {p}\n" for p in paths if p in self.files))
            case ["perl", "-e", program] if program == PROGRAM:
                return self._relay(stdin)
            case ["sh", "-c", _, "salvage", "look", disk, *_] if stdout is not None:
                stdout(self._look(PurePosixPath(disk).name))
                return Said()
            case _:
                raise AssertionError(f"the simulation knows no {shlex.join(words)}")

    def _look(self, disk: str) -> bytes:
        """What `salvage.sh` tells of a disk."""
        data, living = self.world.disks.get((self.name, _disk_of(disk)), SimData()), self.world.at_address("")
        missing = set(data.orders) - set(living.orders if living is not None else ())
        at = data.reached if data.reached or not data.state else "unknown"
        return f"at {at}\nmissing {len(missing)}\n--\n".encode()

    def _relay(self, stdin: bytes | BinaryIO | None) -> Said:
        """What `relay.PROGRAM` does: takes the bytes, keeps them, passes them on."""
        order, rest = _read_order(stdin)
        path, _, sha, source, after = order[:5]
        data: bytes | None = None
        try:
            self.world.effect(self.name)
            data = self._source(source, rest)
            if data is None:
                return Said(SENDER_GONE, "", "the sender went away")
            if source != "have":
                if hashlib.sha256(data).hexdigest() != sha:
                    return Said(DIFFERENT, "", "it arrived as something else")
                self.files[f"{path}.part"] = sha
                self.world.effect(self.name)
                self.files[path] = self.files.pop(f"{path}.part")
            self.world.effect(self.name)
        finally:
            if after != "-":
                self.world.wire(after).put(data)
        return Said()

    def _source(self, source: str, rest: bytes) -> bytes | None:
        match source:
            case "stdin":
                return rest
            case "have":
                return self.world.image_file.read_bytes()
            case _:
                return self.world.wire(source).get(timeout=10)

    def write(self, path: str, data: bytes, **_: Any) -> None:
        self.world.effect(self.name)
        if self.world.hosts[self.name].full:
            raise CommandFailed("No space left on device", where=self.name)
        self.files[path] = hashlib.sha256(data).hexdigest()
        self.world.hosts[self.name].texts[path] = data.decode("utf-8", "replace")
        self.world.effect(self.name)

    def tail(self, path: str, **_: Any) -> str:
        return "Kernel panic - not syncing"


def _disk_of(path: str) -> str:
    """The name under which a disk's data are kept, also while it is put away."""
    return re.sub(r"\.tombstone-[0-9-]+", "", PurePosixPath(path).name)


def _read_order(stdin: bytes | BinaryIO | None) -> tuple[list[str], bytes]:
    """The words of a relay's order, and the bytes after it."""
    assert stdin is not None
    data = stdin if isinstance(stdin, bytes) else b"".join(iter(lambda: stdin.read(1 << 16), b""))
    line, _, rest = data.partition(b"\n")
    return line.decode().split(), rest
