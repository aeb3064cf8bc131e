"""Copies of a server that must not run: kept from running, and known of elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.desired import Names
from pcloud.observed import Power
from pcloud.steps.base import Met, Report, Unmet, World, path_in
from pcloud.steps.database import holds_data


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
class NoteGeneration:
    """Other hosts know which generation of the server is the newest, should its own fall silent."""

    hosts: tuple[str, ...]
    names: Names
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
        return {}


@dataclass(frozen=True)
class NoteFilled:
    """Hosts know that this generation of a data server holds data: older ones are of the past from now on.

    Written after the data are whole and before anybody writes to them; nothing is, where they are not.
    Without `database` it is not asked: its disk is known to hold data, and is not started yet.
    """

    hosts: tuple[str, ...]
    names: Names
    database: str = ""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        missing = [h for h in self.hosts if not self._is_on(world, h)]
        if not missing:
            return Met()
        if self.database and not holds_data(world, self.names.server, self.database):
            return Met({"data": "none"})
        return Unmet(f"{missing[0]} does not know that generation {self.names.generation} holds data")

    def _is_on(self, world: World, host: str) -> bool:
        path = path_in(world.host(host).pool, self.names.filled)
        return world.shell(host).run(["test", "-e", path], deadline_s=10, check=False).exit_code == 0

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        text = f"generation {self.names.generation} of {self.names.server} holds data: older copies are of the past\n"
        for host in self.hosts:
            report.progress(f"telling {host}")
            world.shell(host).write(path_in(world.host(host).pool, self.names.filled), text.encode())
        return {}
