"""Simulated hosts on virtual time: what the planner and the executor are proven against.

Not a double of any module: `SimWorld` keeps what hosts, disks, a database and an index would
hold, answers the questions steps ask, and can die or fail at any effect. The idea is Proxmox
ha-manager's simulated hardware; the lab's tests do the same with real guests.
"""

from __future__ import annotations

import hashlib
import json
import queue
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from pcloud.desired import Desired, ImageSpec, Names, ServerSpec
from pcloud.errors import CommandFailed, HostUnreachable, HypervisorError
from pcloud.identity import carrier_names
from pcloud.model import Check, Host, Journey, Site, Visit
from pcloud.observed import Data, Health, HostPower, Mark, Observed, Power, SeenHost, SeenServer, Witness
from pcloud.steps.relay import DIFFERENT, PROGRAM, SENDER_GONE
from tests.simulated_data import Said, SimData, SimGuest, seen_database

HOST_MEMORY_MIB = 16_384
BOOT_S = 20.0


class Died(BaseException):
    """The operator's process was killed: nothing after this happens."""


class SimClock:
    """Time passes only when somebody sleeps."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return datetime.fromtimestamp(1_353_100_000 + self._now, UTC)

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds


@dataclass
class SimDomain:
    mark: Mark | None
    uuid: str
    memory_mib: int
    macs: tuple[str, ...]
    power: Power = Power.OFF
    started_at: float = 0.0
    broken: bool = False


@dataclass
class SimHost:
    domains: dict[str, SimDomain] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Path to the digest of its content."""
    away: bool = False
    """It does not answer us, whatever the reason."""
    powered: bool = True
    controller: bool = True
    """Its management controller answers."""
    seen: bool = False
    """Other hosts still reach it while we do not."""


@dataclass
class SimPower:
    """A host's controller: a power cut stops everything on the host at once."""

    world: SimWorld
    name: str

    def read(self) -> SimReading:
        host = self.world.hosts[self.name]
        if not host.controller:
            raise HostUnreachable("its controller does not answer", where=self.name)
        return SimReading(HostPower.ON if host.powered else HostPower.OFF)

    def force_off(self) -> SimReading:
        self.read()
        self.world.effect()
        self.world.cut(self.name)
        self.world.effect()
        return self.read()

    def force_on(self) -> SimReading:
        raise AssertionError("no plan turns a host on")


@dataclass(frozen=True)
class SimReading:
    power: HostPower
    way: str = "redfish"


@dataclass
class SimWorld:
    desired: Desired
    image_file: Path
    clock: SimClock = field(default_factory=SimClock)
    hosts: dict[str, SimHost] = field(default_factory=dict)
    disks: dict[tuple[str, str], SimData] = field(default_factory=dict)
    """Host and disk file to the data on it."""
    effects: int = 0
    die_at: int | None = None
    fail_at: int | None = None
    answers: bool = True
    confirmed: dict[str, str] = field(default_factory=dict)
    """Hosts of which a person said that they have no power."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    wires: dict[str, queue.SimpleQueue[bytes | None]] = field(default_factory=dict)
    """Where hosts listen for one another, by address, port and token."""

    def __post_init__(self) -> None:
        self.hosts = self.hosts or {h.name: SimHost() for h in self.desired.site.hosts}

    @property
    def site(self) -> Site:
        return self.desired.site

    # -- faults

    def effect(self, host: str = "") -> None:
        """Called before and after every change: both are moments to die or to fail in."""
        if host and self.hosts[host].away:
            raise HostUnreachable("no answer", where=host)
        with self.lock:
            self.effects += 1
            if self.die_at is not None and self.effects >= self.die_at:
                raise Died
            if self.fail_at == self.effects:
                raise HypervisorError("it failed, as the test wanted", where=host)

    def wire(self, end: str) -> queue.SimpleQueue[bytes | None]:
        with self.lock:
            return self.wires.setdefault(end, queue.SimpleQueue())

    # -- what the steps ask

    def host(self, name: str) -> Host:
        return self.site.host(name)

    def hypervisor(self, host: str) -> SimHypervisor:
        return SimHypervisor(self, host)

    def shell(self, host: str) -> SimShell:
        return SimShell(self, host)

    def server_shell(self, server: str) -> SimGuest:
        return SimGuest(self, server)

    def power(self, host: str) -> SimPower:
        return SimPower(self, host)

    def confirmed_off(self, host: str) -> str:
        return self.confirmed.get(host, "")

    def cut(self, host: str) -> None:
        """The host loses its power, and all that runs on it stops."""
        with self.lock:
            self.hosts[host].powered, self.hosts[host].away, self.hosts[host].seen = False, True, False
            for domain in self.hosts[host].domains.values():
                domain.power = Power.OFF

    def image_path(self, digest: str, file: str) -> Path:
        return self.image_file

    def seed(self, server: str, generation: int) -> bytes:
        return f"{server} {generation} {self.desired.server(server).spec}".encode()

    def domain_xml(self, spec: ServerSpec, host: str, generation: int) -> str:
        names = Names(self.site.site, spec.name, generation)
        mark = Mark(self.site.site, spec.name, spec.role, spec.spec, spec.image.digest, generation)
        return json.dumps(
            {"name": names.domain, "uuid": spec.uuid, "mac": spec.mac, "memory": spec.memory_mib, "mark": mark.__dict__}
        )

    def running(self, server: str) -> list[tuple[str, SimDomain]]:
        """Every running copy, on whichever host, whether anybody sees it or not."""
        name = Names(self.site.site, server).domain
        return [
            (h, d)
            for h, host in self.hosts.items()
            for n, d in host.domains.items()
            if n == name and d.mark and d.power is Power.RUNNING
        ]

    def reached(self, server: str) -> list[tuple[str, SimDomain]]:
        """The running copies on hosts that answer us."""
        return [(h, d) for h, d in self.running(server) if not self.hosts[h].away]

    def answering(self, server: str) -> bool:
        found = self.reached(server)
        return bool(found) and not found[0][1].broken and self.clock.now() - found[0][1].started_at >= BOOT_S

    def probe(self, check: Check, server: str, address: str) -> Verdict:
        if not self.answering(server):
            return Verdict(False, "connection refused")
        if check.search is not None and not self._has_index(server):
            return Verdict(False, "no such index")
        return Verdict(True, "")

    def walk(self, journey: Journey, on_visit: Callable[[Visit, float], None]) -> Verdict:
        for visit, needs in zip(journey.steps, ("balancer", "frontend", "database", "indexer"), strict=False):
            servers = [s.name for s in self.desired.servers if s.role == needs]
            if not any(self.answering(s) for s in servers):
                return Verdict(False, f"{visit.name}: 503")
            on_visit(visit, 0.1)
        holders = self.holders()
        if not holders or self.source_of(holders[0]).state != "restored":
            return Verdict(False, "product: an empty shop, or none")
        return Verdict(self.indexed, "" if self.indexed else "search: no hits")

    # -- the data

    def find_data(self, server: str) -> SimData | None:
        """Of the running copy that answers."""
        for host, domain in self.reached(server):
            assert domain.mark is not None
            return self.disks.get((host, Names(self.site.site, server, domain.mark.generation).disk))
        return None

    def carriers(self) -> tuple[str, ...]:
        return carrier_names(self.site)

    def holders(self) -> list[str]:
        """The servers that have the service address: those that run and have the role."""
        return [s for s in self.carriers() if self.answering(s) and (d := self.find_data(s)) and d.primary]

    def at_address(self, address: str) -> SimData | None:
        return next((self.find_data(s) for s in self.holders()), None)

    def source_of(self, server: str) -> SimData:
        """What an index on this server is made from: its own data, or the primary's."""
        own = self.find_data(server) if server in self.carriers() else self.at_address("")
        if own is None:
            raise CommandFailed("cannot connect to the database", where=server)
        return own

    def followers(self, server: str) -> list[SimData]:
        data = [d for s in self.carriers() if s != server and self.answering(s) and (d := self.find_data(s))]
        return [d for d in data if d.running and d.source]

    def replicate(self) -> None:
        """Whoever follows the primary has what it has."""
        source = self.at_address("")
        for server in self.carriers():
            data = self.find_data(server)
            if source is not None and data is not None and data.running and self.answering(server):
                data.position = data.received = max(data.position, source.position)

    def order(self) -> int:
        """A shopper's order: the position that was acknowledged to him, 0 when it was not accepted."""
        source = self.at_address("")
        if source is None:
            return 0
        source.position += 1
        self.replicate()
        return source.position

    @property
    def database(self) -> tuple[str, str]:
        """State and token of what the primary holds, as in `pcloud.restored`."""
        found = self.at_address("")
        return (found.state, found.token) if found else ("", "")

    @property
    def indexed(self) -> bool:
        return all(self._has_index(s.name) for s in self.desired.members(self.site.search.group))

    def _has_index(self, server: str) -> bool:
        data = self.find_data(server)
        return data is not None and data.index >= 0

    def ask(self, question: str) -> bool:
        return self.answers

    def observe(self) -> Observed:
        hosts = []
        for name, host in self.hosts.items():
            if host.away:
                hosts.append(self._observe_silent(name))
                continue
            volumes = tuple(sorted(PurePosixPath(p).name for p in host.files))
            servers = self.hypervisor(name).servers()
            hosts.append(SeenHost(name, "", HOST_MEMORY_MIB, "tcg", servers, volumes))
        up = {
            s.name: Health(self.answering(s.name), "connection refused")
            for s in self.desired.everyone
            if self.reached(s.name)
        }
        return Observed(tuple(hosts), up, self._observe_data())

    def _observe_data(self) -> Data:
        up = {s: d for s in self.carriers() if self.answering(s) and (d := self.find_data(s))}
        holders = self.holders()
        seen = {s: seen_database(d, follows=bool(holders)) for s, d in up.items()}
        idx_up = all(self.answering(s.name) for s in self.desired.members(self.site.search.group))
        tokens = [d.restored for d in seen.values() if d.restored]
        return Data(
            tokens[0] if tokens else "", indexed=self.indexed and idx_up, databases=seen, holder=(holders or [""])[0]
        )

    def _observe_silent(self, name: str) -> SeenHost:
        host = self.hosts[name]
        asked = tuple(n for n, h in self.hosts.items() if not h.away)[:2]
        power, proof = HostPower.UNKNOWN, ""
        if host.controller:
            power = HostPower.ON if host.powered else HostPower.OFF
            proof = "" if host.powered else "redfish, read twice"
        elif word := self.confirmed_off(name):
            power, proof = HostPower.OFF, word
        return SeenHost(
            name,
            "no answer",
            silent=True,
            power=power,
            proof=proof,
            witnesses=tuple(Witness(n, host.seen) for n in asked),
        )


@dataclass(frozen=True)
class Verdict:
    ok: bool
    detail: str
    name: str = ""

    @property
    def failed(self) -> Verdict | None:
        return None if self.ok else self


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
        data = json.loads(xml)
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
            elsewhere = [h for h, _ in self.world.running(mark.server)]
            assert not elsewhere, f"{name} would run twice: {elsewhere} and {self.name}"
            domain.power, domain.started_at = Power.RUNNING, self.world.clock.now()
            self.me.files[f"{pool}/{names.console}"] = "log"
            if self.me.files.get(f"{pool}/{names.disk}") == "fresh":
                self.world.disks[self.name, names.disk] = SimData()
                self.me.files[f"{pool}/{names.disk}"] = "used"
            self.world.disks.setdefault((self.name, names.disk), SimData()).starts()
        self.world.effect(self.name)

    def power_off(self, name: str) -> None:
        self.world.effect(self.name)
        if name in self.me.domains:
            self.me.domains[name].power = Power.OFF
        self.world.effect(self.name)

    def definition(self, name: str) -> str | None:
        return "<domain/>" if name in self.me.domains else None

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

    def create_overlay(self, pool: str, name: str, *, backing: str, size_gib: int) -> None:
        self.world.effect(self.name)
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

    def run(self, argv: Sequence[str], *, stdin: bytes | BinaryIO | None = None, **_: Any) -> Said:
        if self.world.hosts[self.name].away:
            raise HostUnreachable("no answer", where=self.name)
        match list(argv):
            case ["sha256sum", "--", *paths]:
                return Said(0, "".join(f"{self.files[p]}  {p}\n" for p in paths if p in self.files))
            case ["rm", "-f", *paths]:
                self.world.effect(self.name)
                for path in paths:
                    self.files.pop(path, None)
                self.world.effect(self.name)
            case ["mv", "-n" | "-f", old, new]:
                self.world.effect(self.name)
                self.files[new] = self.files.pop(old)
                self.world.effect(self.name)
            case ["stat", "-c", "%s", "--", _]:
                return Said(1)
            case ["perl", "-e", program] if program == PROGRAM:
                return self._relay(stdin)
            case ["test", "-e", path]:
                return Said(0 if path in self.files else 1)
            case ["true"]:
                self.world.effect(self.name)
            case _:
                raise AssertionError(f"the simulation knows no {shlex.join(argv)}")
        return Said()

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
        self.files[path] = hashlib.sha256(data).hexdigest()
        self.world.effect(self.name)

    def tail(self, path: str, **_: Any) -> str:
        return "Kernel panic - not syncing"


def _read_order(stdin: bytes | BinaryIO | None) -> tuple[list[str], bytes]:
    """The words of a relay's order, and the bytes after it."""
    assert stdin is not None
    data = stdin if isinstance(stdin, bytes) else b"".join(iter(lambda: stdin.read(1 << 16), b""))
    line, _, rest = data.partition(b"\n")
    return line.decode().split(), rest


def image_spec(name: str, file: Path) -> ImageSpec:
    """An image whose only file is `file`."""
    from pcloud.desired import ImageFile

    data = file.read_bytes()
    one = ImageFile("disk.qcow2", hashlib.sha256(data).hexdigest(), len(data))
    return ImageSpec(name, name, hashlib.sha256(name.encode()).hexdigest(), "quiet", one, None, None)


def with_options(desired: Desired, **options: Any) -> Desired:
    return replace(desired, options=replace(desired.options, **options))


def marks_of(world: SimWorld) -> Mapping[str, list[str]]:
    """Server to the hosts on which a copy of it runs."""
    return {s.name: [h for h, _ in world.running(s.name)] for s in world.desired.everyone}
