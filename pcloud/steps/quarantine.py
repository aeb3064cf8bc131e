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
from pcloud.steps.database import holds_data
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


@dataclass(frozen=True)
class NoteFilled:
    """Hosts know that this generation of a data server holds data: older ones are of the past from now on.

    Written after the data are whole and before anybody writes to them; nothing is, where they are not.
    Without `database` it is not asked: its disk is known to hold data, and is not started yet.
    """

    hosts: tuple[str, ...]
    names: Names
    database: str = ""
    older: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Hosts and their notes of older generations, which go once this one is known to hold data."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        missing = _without(world, self.hosts, self.names.filled)
        if not missing:
            return Met()
        if self.database and not holds_data(world, self.names.server, self.database):
            return Met({"data": "none"})
        return Unmet(f"{missing[0]} does not know that generation {self.names.generation} holds data")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        text = f"generation {self.names.generation} of {self.names.server} holds data: older copies are of the past\n"
        _write(world, report, self.hosts, self.names.filled, text)
        for host, notes in self.older:
            with suppress(PcloudError):  # tidying up: whoever reads them meets the newer one, too
                paths = [path_in(world.host(host).pool, note) for note in notes]
                world.shell(host).run(["rm", "-f", *paths], deadline_s=10, check=False)
        return {}


@dataclass(frozen=True)
class NotePast:
    """Hosts know that another server takes the role over: what older copies of this one hold ends there.

    Written before it does; void where it turns out that it did not (`NoteVoid`).
    """

    hosts: tuple[str, ...]
    names: Names
    successor: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        missing = _without(world, self.hosts, self.names.past)
        return Unmet(f"{missing[0]} does not know that {self.successor} takes over") if missing else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        older = f"what generations of {self.names.server} before {self.names.generation} hold"
        _write(world, report, self.hosts, self.names.past, f"{self.successor} takes over: {older} is of the past\n")
        return {}


@dataclass(frozen=True)
class NoteVoid:
    """Hosts know that nobody took the role over, though it was noted of this generation: older copies may count."""

    hosts: tuple[str, ...]
    names: Names
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        missing = _without(world, self.hosts, self.names.void)
        return Unmet(f"{missing[0]} does not know that nobody took over") if missing else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        text = f"nobody took over from {self.names.server} before generation {self.names.generation}\n"
        _write(world, report, self.hosts, self.names.void, text)
        return {}


def _without(world: World, hosts: tuple[str, ...], file: str) -> list[str]:
    """The hosts that lack it, or do not say."""
    return [h for h in hosts if not _has(world, h, file)]


def _has(world: World, host: str, file: str) -> bool:
    try:
        path = path_in(world.host(host).pool, file)
        return world.shell(host).run(["test", "-e", path], deadline_s=10, check=False).exit_code == 0
    except PcloudError:
        return False


def _write(world: World, report: Report, hosts: tuple[str, ...], file: str, text: str) -> None:
    """On every host that answers: one that does not keeps no other from knowing. Raises its error in the end."""
    failed: PcloudError | None = None
    for host in hosts:
        report.progress(f"telling {host}")
        try:
            world.shell(host).write(path_in(world.host(host).pool, file), text.encode())
        except PcloudError as error:
            failed = failed or error
    if failed is not None:
        raise failed
