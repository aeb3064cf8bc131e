"""Copies of a server that must not run: kept from running, and known of elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.desired import Names
from pcloud.inspections import holds_all
from pcloud.observed import Power
from pcloud.steps.base import Met, Report, Unmet, World, path_in
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
    """An older copy is a tombstone.

    One that may hold data is so only where a note beside it says by now that `position` holds all of it.
    """

    host: str
    names: Names
    date: str
    may_hold_data: bool
    position: str = ""
    """How far the living data surely go."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        found = self._retire.check(world)
        if isinstance(found, Met) or not self.may_hold_data:
            return found
        files = world.hypervisor(self.host).volumes(world.host(self.host).pool)
        return found if holds_all(self.position, self.names, files) else Met({"stays": "it may hold data"})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        return self._retire.do(world, report)

    @property
    def _retire(self) -> Retire:
        return Retire(self.host, self.names, self.date)


@dataclass(frozen=True)
class NoteGeneration:
    """Other hosts know which generation of the server is the newest, should its own fall silent.

    Their notes of older ones go once that is so: or a host would gather one with every move.
    """

    hosts: tuple[str, ...]
    names: Names
    older: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Hosts, and the notes of older generations that were seen there."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        for host in self.hosts:
            path = path_in(world.host(host).pool, self.names.note)
            if world.shell(host).run(["test", "-e", path], deadline_s=10, check=False).exit_code != 0:
                return Unmet(f"{host} does not know of generation {self.names.generation}")
        return Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        text = f"{self.names.server} has a generation {self.names.generation}: older copies must not be started\n"
        for host in self.hosts:
            report.progress(f"telling {host}")
            world.shell(host).write(path_in(world.host(host).pool, self.names.note), text.encode())
        for host, notes in self.older:
            paths = [path_in(world.host(host).pool, note) for note in notes]
            world.shell(host).run(["rm", "-f", *paths], deadline_s=10, check=False)
        return {}
