"""Copies of a server that must not run: kept from running, and put away."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.desired import Names
from pcloud.errors import PcloudError
from pcloud.inspections import find_inspections, holds_all
from pcloud.observed import Power
from pcloud.steps.base import Met, Report, Unmet, World
from pcloud.steps.replication import is_primary, position
from pcloud.steps.server import Retire


@dataclass(frozen=True)
class Quarantine:
    """An older copy does not run; its disk stays as it is."""

    host: str
    names: Names
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        seen = world.hypervisor(self.host).server(self.names.domain)
        mine = seen is not None and seen.mark is not None and seen.mark.generation == self.names.generation
        if seen is None or not mine or seen.power is Power.OFF:
            return Met()
        return Unmet(f"it is {seen.power}")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress("powering off")
        world.hypervisor(self.host).power_off(self.names.domain)
        return {"generation": self.names.generation}


@dataclass(frozen=True)
class PutAway:
    """An older copy is a tombstone; one of the data only while a note beside it says that the primary has all of it.

    That is asked when its turn comes: the note may have been written, and the role taken, in the same run. Where it
    is not so, the copy stays, and nothing has failed.
    """

    host: str
    names: Names
    date: str
    carriers: tuple[str, ...] = ()
    """The servers that carry the data, where it may hold some."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        found = self._retire.check(world)
        if isinstance(found, Met) or not self.carriers:
            return found
        files = world.hypervisor(self.host).volumes(world.host(self.host).pool)
        living = self._living(world) if find_inspections(self.names, files) else ""
        return found if holds_all(living, self.names, files) else Met({"stays": "it may hold what the primary has not"})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        return self._retire.do(world, report)

    @property
    def _retire(self) -> Retire:
        return Retire(self.host, self.names, self.date, "past")

    def _living(self, world: World) -> str:
        """The primary's position; empty when none answers."""
        for server in self.carriers:
            with suppress(PcloudError):
                if is_primary(world, server):
                    return position(world, server)
        return ""
