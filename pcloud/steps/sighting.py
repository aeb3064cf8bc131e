"""A host remembers where the primary was when it was last seen (`sightings.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.sightings import last_note, name_of
from pcloud.steps.base import Met, Report, Unmet, World, path_in
from pcloud.steps.replication import position, timeline

SHORT_S = 10


@dataclass(frozen=True)
class NoteSighting:
    """The host has the note `name`, and none of `old`, which say less."""

    host: str
    name: str
    old: tuple[str, ...]

    def tell(self, world: World) -> None:
        pool, shell = world.host(self.host).pool, world.shell(self.host)
        shell.write(path_in(pool, self.name), b"", deadline_s=SHORT_S)
        if self.old:
            shell.run(["rm", "-f", *(path_in(pool, name) for name in self.old)], deadline_s=SHORT_S)


@dataclass(frozen=True)
class NoteWaits:
    """Hosts remember that the primary's commits wait `waits_ms` for a replica, or for none (-1): before the first
    one that waits no longer than that."""

    server: str
    hosts: tuple[str, ...]
    waits_ms: int
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        for host in self.hosts:
            last = last_note(world.site.site, world.hypervisor(host).volumes(world.host(host).pool))
            if last is None or last.waits_ms > self.waits_ms:
                return Unmet(f"{host} believes that commits wait{' longer' if self.waits_ms >= 0 else ''}")
        return Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        at, newest = position(world, self.server), timeline(world, self.server)
        name = name_of(world.site.site, at, newest, world.clock.wall(), self.waits_ms)
        for host in self.hosts:
            report.progress(f"telling {host}")
            NoteSighting(host, name, ()).tell(world)
        return {}
