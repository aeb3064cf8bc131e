"""Copies of a server that must not run: kept from running, and known of elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.desired import Names
from pcloud.errors import PcloudError
from pcloud.inspections import find_inspections, holds_all
from pcloud.observed import Power
from pcloud.steps.base import Met, Report, Unmet, World, path_in
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
        return Retire(self.host, self.names, self.date)

    def _living(self, world: World) -> str:
        """The primary's position; empty when none answers."""
        for server in self.carriers:
            with suppress(PcloudError):
                if is_primary(world, server):
                    return position(world, server)
        return ""


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
