"""Simulated hosts on virtual time: what the planner and the executor are proven against.

Not a double of any module: `SimWorld` keeps what hosts, disks, a database and an index would
hold, answers the questions steps ask, and can die or fail at any effect. The idea is Proxmox
ha-manager's simulated hardware; the lab's tests do the same with real guests.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pcloud.desired import Desired, ImageSpec, Names, ServerSpec
from pcloud.dumps import look as look_at_dump
from pcloud.errors import CommandFailed, HostUnreachable, HypervisorError
from pcloud.identity import carrier_names
from pcloud.inventory import defaults_dir
from pcloud.kept import Heard, Shelf, Sighting, Witnesses
from pcloud.model import Check, Host, Journey, SecretRef, Site, Visit
from pcloud.observed import Mark, Observed, Power
from pcloud.power import PowerControl
from tests.simulated_data import SimData, SimGuest
from tests.simulated_hearing import Hearing
from tests.simulated_hosts import EFFECT_S, SimDomain, SimHost, SimHypervisor, SimShell
from tests.simulated_look import look
from tests.simulated_power import control
from tests.simulated_time import Died, SimClock

BOOT_S = 20.0
HOST_BOOT_S = 30.0
OBSERVE_S = 1.0
SILENCE_S = 5.0
"""Until a connection to a host that does not answer is given up."""

__all__ = ["BOOT_S", "Died", "SimClock", "SimDomain", "SimHost", "SimWorld", "image_spec", "marks_of", "with_options"]


DEMO_DUMP = look_at_dump(defaults_dir("templates") / "shop" / "dump" / "shop.sql.gz", "shop")
"""The demonstration shop's own, as a plan that restores it knows it."""


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
    by_hand: list[tuple[float, float]] = field(default_factory=list)
    """From when to when a person had switched the waiting for a replica off and nobody had seen it."""
    lied: set[str] = field(default_factory=set)
    """Hosts that have power, of which a person said that they have none: nothing can be promised then."""
    undone: set[int] = field(default_factory=set)
    """Orders that a person gave up with an undo, by its question."""
    shelves: tuple[Shelf, ...] = ()
    """What hosts keep of the database; looked at when nobody has it."""
    keeping: tuple[str, ...] = ()
    """The hosts that kept backups by the last journal."""
    machines: dict[str, str] = field(default_factory=dict)
    """Address to the host that has it, where the inventory does not say so (any more)."""
    newest: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Server to the newest generation that ever ran, and its host; what `judge_start` allows goes by the orders."""
    controls: dict[str, PowerControl] = field(default_factory=dict)
    """What the command that runs knows of controllers."""
    on_effect: Callable[[int], None] = lambda _: None
    """Told of each effect's number before it counts."""

    def __post_init__(self) -> None:
        self.hosts = self.hosts or {h.name: SimHost() for h in self.desired.site.hosts}
        self.hearing = Hearing(self)

    @property
    def site(self) -> Site:
        return self.desired.site

    # -- faults

    def effect(self, host: str = "") -> None:
        """Called before and after every change: both are moments to die or to fail in."""
        self.clock.work(EFFECT_S)
        self.answers_us(host)
        with self.lock:
            self.effects += 1
            self.on_effect(self.effects)
            if self.die_at is not None and self.effects >= self.die_at:
                raise Died
            if self.fail_at == self.effects:
                raise HypervisorError("it failed, as the test wanted", where=host)
        self.answers_us(host)

    def answers_us(self, host: str) -> None:
        """Raises `HostUnreachable`, after a while, when it does not."""
        if host and self.hosts[host].away:
            self.clock.work(SILENCE_S)
            raise HostUnreachable("no answer", where=host)

    def judge_start(self, mark: Mark, host: str) -> None:
        """What must never happen to any server, whether anybody can see it or not."""
        elsewhere = [h for h, _ in self.running(mark.server) if h not in self.lied]
        assert not elsewhere, f"{mark.server} would run twice: {elsewhere} and {host}"
        same = [s for s in self.at_addresses(mark.addresses) if s != mark.server]
        assert not same, f"{mark.server} would start on {host} at an address of {same}"
        generation, where = self.newest.get(mark.server, (0, host))
        if mark.generation == generation:
            assert host == where, f"{mark.server} g{generation} starts on {host} and was started on {where}"
        mine = set(self.disks.get((host, Names(mark.site, mark.server, mark.generation).disk), SimData()).orders)
        mine |= set(served.orders) if (served := self.at_address("")) else set()
        mine |= self.undone
        later = [at for at, data in self._disks_of(mark.server, mark.generation) if set(data.orders) - mine]
        assert mark.server in self.carriers() or mark.generation >= generation, (
            f"{mark.server} g{mark.generation} starts on {host} after g{generation} on {where}"
        )
        lacks = f"{later} have orders that neither it nor the primary has"
        assert not later, f"{mark.server} g{mark.generation} starts on {host}, and {lacks}"
        self.newest[mark.server] = max((mark.generation, host), (generation, where))

    def at_addresses(self, addresses: tuple[str, ...]) -> list[str]:
        """Who runs with one of these, in the inventory or not."""
        marks = [d.mark for h in self.hosts.values() for d in h.domains.values() if d.power is Power.RUNNING]
        return [m.server for m in marks if m is not None and set(m.addresses) & set(addresses)]

    def _disks_of(self, server: str, after: int) -> list[tuple[tuple[str, str], SimData]]:
        """Every later generation's disk, with its host, whoever knows of it."""
        stem = f"{Names(self.site.site, server).domain}.g"
        return [(at, d) for at, d in self.disks.items() if at[1].startswith(stem) and _generation(at[1]) > after]

    def boots(self, server: str, data: SimData) -> None:
        """The role comes from the disk, unless somebody else has the address by then."""
        data.starts()
        self.clock.at(self.clock.now() + BOOT_S, lambda: self._boots(server, data))

    def _boots(self, server: str, data: SimData) -> None:
        if data.primary and any(s != server for s in self.holders()):
            data.primary = False

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

    def power(self, host: str) -> PowerControl:
        """The same for as long as a command runs, as each is a process of its own."""
        if host not in self.controls:
            self.controls[host] = control(self, host)
        return self.controls[host]

    def confirmed_off(self, host: str) -> str:
        return self.confirmed.get(host, "")

    def heard_of(self, host: str) -> None:
        self.confirmed.pop(host, None)

    def cut(self, host: str) -> None:
        """The host loses its power, and all that runs on it stops."""
        with self.lock:
            self.hearing.answered()
            at = self.hosts[host]
            at.powered, at.away, at.seen, at.frozen = False, True, False, False
            for domain in self.hosts[host].domains.values():
                domain.power = Power.OFF

    def turn_on(self, host: str) -> None:
        """Power comes back, and the host boots; its servers are as libvirt left them: off."""
        at = self.hosts[host]

        def up() -> None:
            if at.powered:
                at.away = at.seen = at.frozen = False

        if not at.powered:
            at.powered = True
            self.clock.at(self.clock.now() + HOST_BOOT_S, up)

    def image_path(self, digest: str, file: str) -> Path:
        return self.image_file

    def seed(self, server: str, generation: int) -> bytes:
        return f"{server} {generation} {self.desired.server(server).spec}".encode()

    def domain_xml(self, spec: ServerSpec, host: str, generation: int) -> str:
        names = Names(self.site.site, spec.name, generation)
        mark = Mark(self.site.site, spec.name, spec.role, spec.spec, spec.image.digest, generation, spec.addresses)
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

    def _is_up(self, copies: list[tuple[str, SimDomain]]) -> bool:
        up = [d for _, d in copies if not d.broken and not d.hung]
        return bool(up) and self.clock.now() - up[0].started_at >= BOOT_S

    def answering(self, server: str) -> bool:
        """It answers this machine."""
        return self._is_up(self.reached(server))

    def serving(self, server: str) -> bool:
        """It answers shoppers and other servers."""
        return self._is_up([(h, d) for h, d in self.running(server) if self.hosts[h].on_network])

    def refuses(self, server: str) -> bool:
        """Its MariaDB does not let the monitor in."""
        return any(d.refuses for _, d in self.reached(server))

    def is_full(self, server: str) -> bool:
        return any(d.full for _, d in self.reached(server))

    def probe(self, check: Check, server: str, address: str) -> Verdict:
        machine = self.machines.get(address, server)
        if machine in self.hosts:
            return Verdict(not self.hosts[machine].away, "no answer")
        if not self.answering(server):
            return Verdict(False, "connection refused")
        if self.is_busy(server):
            return Verdict(False, "no answer within 10 s")
        if check.sql is not None and self.refuses(server):
            return Verdict(False, "error 1045: Access denied for user 'monitor'")
        if check.search is not None and not self._has_index(server):
            return Verdict(False, "no such index")
        return Verdict(True, "")

    def is_busy(self, server: str) -> bool:
        """One look."""
        found = next((d for _, d in self.reached(server)), None)
        if found is None or not found.busy:
            return False
        found.busy -= 1
        return True

    def walk(self, journey: Journey, on_visit: Callable[[Visit, float], None]) -> Verdict:
        for visit, needs in zip(journey.steps, ("balancer", "frontend", "indexer"), strict=False):
            servers = [s.name for s in self.desired.everyone if s.role == needs]
            reached = self.answering if needs == "balancer" else self.serving
            if not any(reached(s) for s in servers):
                return Verdict(False, f"{visit.name}: 503")
            self.clock.work(EFFECT_S)
            on_visit(visit, 0.1)
        holders = self.holders()
        if not holders or self.source_of(holders[0]).state != "restored":
            return Verdict(False, "product: an empty shop, or none")
        return Verdict(self.indexed, "" if self.indexed else "search: no hits")

    # -- the data

    def find_data(self, server: str) -> SimData | None:
        """Of the running copy that is on the network."""
        found = self._on_disk(server)
        if found is not None and (copying := found.copying) is not None:
            found.copy_on(*copying, self.at_address(copying[0]), self.clock.now())
        return found

    def _on_disk(self, server: str) -> SimData | None:
        for host, domain in self.running(server):
            if not self.hosts[host].on_network:
                continue
            assert domain.mark is not None
            return self.disks.get((host, Names(self.site.site, server, domain.mark.generation).disk))
        return None

    def carriers(self) -> tuple[str, ...]:
        return carrier_names(self.site)

    def holders(self) -> list[str]:
        """The servers that have the service address: those that run and have the role."""
        return [s for s in self.carriers() if self.serving(s) and (d := self._on_disk(s)) and d.primary]

    def at_address(self, address: str) -> SimData | None:
        return next((self._on_disk(s) for s in self.holders()), None)

    def source_of(self, server: str) -> SimData:
        """What an index on this server is made from: its own data, or the primary's."""
        own = self.find_data(server) if server in self.carriers() else self.at_address("")
        if own is None:
            raise CommandFailed("cannot connect to the database", where=server)
        return own

    def followers(self, server: str) -> list[SimData]:
        data = [d for s in self.carriers() if s != server and self.serving(s) and (d := self.find_data(s))]
        return [d for d in data if d.running and d.source and not d.error]

    def carried(self) -> list[SimData]:
        """The data of every carrier that is on the network."""
        return [d for s in self.carriers() if self.serving(s) and (d := self.find_data(s))]

    def replicate(self) -> None:
        """Whoever follows the primary has what it has."""
        source = self.at_address("")
        for server in self.carriers():
            data = self.find_data(server)
            if source is not None and data is not None and data is not source and data.running and self.serving(server):
                data.receive(source, self.clock.now())

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

    def hear(self, witnesses: Witnesses) -> tuple[Heard, tuple[Sighting, ...]]:
        self.hearing.answered()
        return self.hearing.told(witnesses), ()

    def address(self, server: str) -> str:
        return next(s.address for s in self.desired.everyone if s.name == server)

    def host_key(self, server: str) -> str:
        return f"ssh-ed25519 AAAA {server}"

    def reveal(self, reference: SecretRef) -> str:
        return f"the secret {reference.secret}"

    def ask(self, question: str) -> bool:
        return self.answers

    def observe(self) -> Observed:
        """As `pcloud.observe` would find it, and as long as that would take."""
        asked = [self.hosts[h.name] for h in self.site.hosts]
        self.clock.work(OBSERVE_S + SILENCE_S * any(h.away for h in asked))
        self.hearing.answered()
        return look(self)

    def look(self, *, at_silent: bool = True) -> Observed:
        """The same, in no time but for what controllers take; these are asked only when `at_silent`."""
        return look(self, at_silent=at_silent)


def _generation(disk: str) -> int:
    return int(disk.split(".g")[-1].split(".")[0])


@dataclass(frozen=True)
class Verdict:
    ok: bool
    detail: str
    name: str = ""

    @property
    def failed(self) -> Verdict | None:
        return None if self.ok else self


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
