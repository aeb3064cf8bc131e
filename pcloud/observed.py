"""What was found on the hosts: frozen facts, no I/O, no opinion.

`Observed` is one half of a plan's input (the other is `Desired`). An unreachable host is a
fact like any other: `SeenHost.problem` says why nothing is known of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum


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


@dataclass(frozen=True)
class SeenHost:
    name: str
    problem: str = ""
    memory_mib: int = 0
    accel: str = "tcg"
    servers: tuple[SeenServer, ...] = ()
    volumes: tuple[str, ...] = ()

    @property
    def reachable(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class Health:
    """What the checks of one server said; `detail` is the first wrong answer."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class Data:
    """What the database and the index hold, as far as they could be asked."""

    restored: str = ""
    tables: int = -1
    indexed: bool = False


@dataclass(frozen=True)
class Observed:
    hosts: tuple[SeenHost, ...]
    health: Mapping[str, Health] = field(default_factory=dict)
    data: Data = Data()

    def host(self, name: str) -> SeenHost | None:
        return next((h for h in self.hosts if h.name == name), None)

    def unreachable(self) -> tuple[str, ...]:
        return tuple(h.name for h in self.hosts if not h.reachable)

    def copies(self, site: str, server: str) -> Iterator[tuple[SeenHost, SeenServer]]:
        """Every domain that claims to be this server of this site, on any host."""
        for host in self.hosts:
            for seen in host.servers:
                if seen.mark is not None and (seen.mark.site, seen.mark.server) == (site, server):
                    yield host, seen

    def digest(self) -> str:
        """Of what a plan is made from; ages and the wording of answers are left out."""
        data = asdict(self)
        for server in (s for host in data["hosts"] for s in host["servers"]):
            server.pop("age_s")
        for health in data["health"].values():
            health.pop("detail")
        text = json.dumps(data, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
