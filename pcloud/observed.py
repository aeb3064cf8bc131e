"""What was found on the hosts: frozen facts, no I/O, no opinion.

`Observed` is one half of a plan's input (the other is `Desired`). An unreachable host is a
fact like any other: `SeenHost.problem` says why nothing is known of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from pcloud.kept import NEVER_SEEN, NOBODY_HEARD, Heard, LastBackup, Shelf, Sighting


class Power(StrEnum):
    """The state of a server, as libvirt sees it."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Mark:
    """What pcloud wrote into the metadata of a server it made: whose it is, and of what."""

    site: str
    server: str
    role: str
    spec: str
    image: str
    generation: int
    addresses: tuple[str, ...] = ()
    """Its own first, then those of the services that it holds; none for one that was made before they were noted."""


@dataclass(frozen=True)
class SeenServer:
    """A libvirt domain; `mark` is None for one that is not pcloud's."""

    name: str
    uuid: str
    power: Power
    mark: Mark | None
    memory_mib: int
    macs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    age_s: float = 0.0
    """How long it has been running; 0 when it is not."""


GIVEN_UP = "you gave it up"


class HostPower(StrEnum):
    """What a host's management controller says of its power. Only an `off` that was ordered is proof."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Witness:
    """Another host's view of one that does not answer us."""

    host: str
    sees: bool


@dataclass(frozen=True)
class SeenHost:
    name: str
    problem: str = ""
    memory_mib: int = 0
    accel: str = "tcg"
    servers: tuple[SeenServer, ...] = ()
    volumes: tuple[str, ...] = ()
    next: str = ""
    """How to mend `problem`, where more is known than silence."""
    silent: bool = False
    """Neither its SSH nor its libvirt answers at all."""
    power: HostPower = HostPower.UNKNOWN
    """Asked only of hosts that do not answer."""
    proof: str = ""
    """What proves that it is off (`redfish: on, then off, read twice`, `you, at 22:41`). A controller's Off alone
    proves nothing: it is empty then."""
    witnesses: tuple[Witness, ...] = ()
    left: bool = False
    """It answers, and a person leaves it: nothing of it counts, and its power need not be cut."""

    @property
    def reachable(self) -> bool:
        return not self.problem

    @property
    def proven_off(self) -> bool:
        return not self.reachable and self.power is HostPower.OFF and bool(self.proof)


def _leave(host: SeenHost) -> SeenHost:
    return replace(host, problem=GIVEN_UP, next="", servers=(), left=host.reachable or host.left)


@dataclass(frozen=True)
class Health:
    """What the checks of one server said; `detail` is the first wrong answer."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class SeenDatabase:
    """One running MariaDB, as it answers for itself. Positions are GTID lists as MariaDB writes them."""

    writable: bool
    position: str = ""
    """The last transaction it holds (`gtid_current_pos`)."""
    received: str = ""
    """The last one that its replication has received, applied or not; empty for a primary."""
    source: str = ""
    """The address it replicates from; empty when it does not."""
    replicating: bool = False
    """Both replication threads run."""
    behind_s: float | None = None
    semi_sync: bool = False
    """On a primary: commits wait for a replica. On a replica: it acknowledges them."""
    restored: str = ""
    """The token of the last whole restore."""
    timeline: int = 0
    """The domain of the newest timeline that its data know of (`timelines.py`)."""
    waits_ms: int = -1
    """On a primary whose commits wait for a replica: for how long, before they go on alone."""
    heard_s: float | None = None
    """On a replica: how many seconds ago it was last level with a primary that answered it. None: it does not say."""
    heard_at: str = ""
    """The same as a time, by its own clock (ISO 8601, UTC)."""
    heard_position: str = ""
    """What it had received then, and has on its disk."""
    acknowledges: bool | None = None
    """On a replica: the primary waited for its acknowledgement of the last that it received. None: it received none."""
    error: str = ""
    """Why it does not receive."""
    stuck: str = ""
    """Why it cannot apply what it received: MariaDB's number and text, without the values in it."""
    clock: str = ""
    """Its own time as it was asked (ISO 8601, UTC)."""
    reach: str = ""
    """How far its relay logs lead where they are damaged, and that is less than it received; else empty."""
    stands: bool = False
    """A replica that applies nothing: its SQL thread does not run."""

    @property
    def sighting(self) -> Sighting:
        """Of a primary, as it is now."""
        return Sighting(self.position, 0.0, self.waits_ms, answers=True)


@dataclass(frozen=True)
class Data:
    """What the database and the index hold, as far as they could be asked."""

    restored: str = ""
    tables: int = -1
    indexed: bool = False
    databases: Mapping[str, SeenDatabase] = field(default_factory=dict)
    """Server to what its MariaDB says, for those that answer."""
    holder: str = ""
    """The server that answers at the service address; empty when none does."""
    known: Sighting = NEVER_SEEN
    """The primary as an earlier run or status saw it last; looked up when no server accepts writes."""
    shelves: tuple[Shelf, ...] = ()
    """What the hosts that answer keep of it; looked at when no server that answers holds data, or a person wants it."""
    last_backup: LastBackup | None = None
    """The last backup that hosts, or this machine's journal, know of."""
    heard: Heard = NOBODY_HEARD
    """Until when the database answered others; asked when no server that answers accepts writes."""
    asked_at: float = 0.0
    """When that was, by the clock of the machine that asked (`Clock.now`): what is measured in seconds was then."""
    refused: tuple[str, ...] = ()
    """Servers whose MariaDB runs and does not let the monitor in; who could be asked from inside is in `databases`."""
    full: tuple[str, ...] = ()
    """Servers whose disk is full: their MariaDB waits for room, and does not say what it holds."""


@dataclass(frozen=True)
class Observed:
    hosts: tuple[SeenHost, ...]
    health: Mapping[str, Health] = field(default_factory=dict)
    data: Data = Data()
    answering: tuple[str, ...] = ()
    """Servers that take connections though no host that answers has them: one that is silent does not stand still."""
    at: float = 0.0
    """When it was seen, in seconds since 1970 by this machine's clock."""
    vantage: str = ""
    """How this machine's own network looks, as a clause; asked where half of the hosts or more are silent at once."""

    @cached_property
    def _by_name(self) -> dict[str, SeenHost]:
        return {h.name: h for h in self.hosts}

    @cached_property
    def _unreachable(self) -> tuple[str, ...]:
        return tuple(h.name for h in self.hosts if not h.reachable)

    @cached_property
    def _by_claim(self) -> dict[tuple[str, ...], list[tuple[int, SeenHost, SeenServer]]]:
        """Every domain, numbered in order, under all by which it could be taken for a server."""
        found: dict[tuple[str, ...], list[tuple[int, SeenHost, SeenServer]]] = {}
        domains = ((host, seen) for host in self.hosts for seen in host.servers)
        for number, (host, seen) in enumerate(domains):
            claims: list[tuple[str, ...]] = [("name", seen.name), ("uuid", seen.uuid)]
            claims += [("mac", mac) for mac in seen.macs]
            if seen.mark is not None:
                claims.append(("mark", seen.mark.site, seen.mark.server))
            for claim in dict.fromkeys(claims):
                found.setdefault(claim, []).append((number, host, seen))
        return found

    def host(self, name: str) -> SeenHost | None:
        return self._by_name.get(name)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {h.name: n for n, h in enumerate(self.hosts)}

    def position(self, name: str) -> int:
        """Where the host stands in the inventory's order."""
        return self._positions[name]

    def unreachable(self) -> tuple[str, ...]:
        return self._unreachable

    @cached_property
    def severed(self) -> tuple[str, ...]:
        """The silent hosts that no controller says to be off, where they are half of all or more."""
        silent = tuple(h.name for h in self.hosts if h.silent and h.power is not HostPower.OFF)
        return silent if 2 * len(silent) >= len(self.hosts) else ()

    def lose(self, hosts: Iterable[str]) -> Observed:
        """As if these hosts were not there any more. What files they held is still known, for the generations."""
        gone = set(hosts)
        if not gone:
            return self
        kept = tuple(_leave(h) if h.name in gone else h for h in self.hosts)
        left = {s.name for h in kept for s in h.servers}
        marks = [s.mark for h in self.hosts for s in h.servers if s.mark and s.name not in left]
        dead = {m.server for m in marks}
        left_behind = [d for n, d in self.data.databases.items() if n in dead and d.writable]
        left_over = {n: d for n, d in self.data.databases.items() if n not in dead}
        data = replace(
            self.data,
            known=left_behind[0].sighting if len(left_behind) == 1 else self.data.known,
            restored=next((d.restored for d in left_over.values() if d.restored), ""),
            databases=left_over,
            refused=tuple(n for n in self.data.refused if n not in dead),
            full=tuple(n for n in self.data.full if n not in dead),
            holder="" if self.data.holder in dead else self.data.holder,
            heard=self.data.heard.without(dead | gone),
        )
        health = {n: h for n, h in self.health.items() if n not in dead}
        return replace(self, hosts=kept, health=health, data=data)

    def copies(self, site: str, server: str) -> Iterator[tuple[SeenHost, SeenServer]]:
        """Every domain that claims to be this server of this site, on any host."""
        for _, host, seen in self._by_claim.get(("mark", site, server), ()):
            yield host, seen

    def lookalikes(self, name: str, uuid: str, mac: str) -> Iterator[tuple[SeenHost, SeenServer]]:
        """Every domain with this name, UUID or MAC address, whoever made it, in the order of the hosts."""
        claims = (("name", name), ("uuid", uuid), ("mac", mac))
        found = {number: (host, seen) for c in claims for number, host, seen in self._by_claim.get(c, ())}
        for number in sorted(found):
            yield found[number]

    def digest(self) -> str:
        """Of what a plan is made from; ages, positions and the wording of answers are left out."""
        data = asdict(self)
        data.pop("at")
        data.pop("vantage")
        for server in (s for host in data["hosts"] for s in host["servers"]):
            server.pop("age_s")
        for host in data["hosts"]:
            host["problem"] = bool(host["problem"])
            host.pop("next")
            host["witnesses"] = any(w["sees"] for w in host["witnesses"])
        for health in data["health"].values():
            health.pop("detail")
        for database in data["data"]["databases"].values():
            for noise in ("position", "clock", "received", "behind_s", "heard_s", "heard_at", "heard_position"):
                database.pop(noise)
        data["data"].pop("known")
        data["data"].pop("heard")
        data["data"].pop("asked_at")
        data["data"]["shelves"] = [(s["host"], [b["id"] for b in s["backups"]]) for s in data["data"]["shelves"]]
        text = json.dumps(data, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
