"""What other hosts know of a server's copies, should those fall silent (`notes.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.desired import Names
from pcloud.errors import Blocked, PcloudError
from pcloud.model import Check, TcpCheck
from pcloud.notes import Older
from pcloud.steps.base import Met, Report, Unmet, World, path_in
from pcloud.steps.database import holds_data


@dataclass(frozen=True)
class NoteGeneration:
    """Other hosts know which generation of the server is the newest and on which host, should that fall silent.

    Notes of older ones go once that is so: or a host would gather one with every move.
    """

    hosts: tuple[str, ...]
    names: Names
    at: str
    """The copy's host."""
    deputies: tuple[str, ...] = ()
    """Who keeps the note instead of a host that cannot write it."""
    older: Older = ()
    """Hosts, and the notes of older generations that were seen there."""
    waits: ClassVar[bool] = False

    def _file(self, world: World) -> str:
        return self.names.noted(self.at, str(world.host(self.at).address))

    def check(self, world: World) -> Met | Unmet:
        missing = _without(world, self.hosts, self.deputies, self._file(world))
        return Unmet(f"{missing[0]} does not know of generation {self.names.generation}") if missing else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        text = f"{self.names.server} has a generation {self.names.generation}: older copies must not be started\n"
        _write(world, report, self.hosts, self.deputies, self._file(world), text)
        _remove(world, self.older)
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
    deputies: tuple[str, ...] = ()
    older: Older = ()
    """Hosts and their notes of older generations, which go once this one is known to hold data."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        missing = _without(world, self.hosts, self.deputies, self.names.filled)
        if not missing:
            return Met()
        if self.database and not holds_data(world, self.names.server, self.database):
            return Met({"data": "none"})
        return Unmet(f"{missing[0]} does not know that generation {self.names.generation} holds data")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        text = f"generation {self.names.generation} of {self.names.server} holds data: older copies are of the past\n"
        _write(world, report, self.hosts, self.deputies, self.names.filled, text)
        _remove(world, self.older)
        return {}


@dataclass(frozen=True)
class NotePast:
    """Hosts know that another server takes the role over: what older copies of this one hold ends there.

    Written before it does; void where it turns out that it did not (`NoteVoid`).
    """

    hosts: tuple[str, ...]
    names: Names
    successor: str
    deputies: tuple[str, ...] = ()
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        missing = _without(world, self.hosts, self.deputies, self.names.past)
        return Unmet(f"{missing[0]} does not know that {self.successor} takes over") if missing else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        older = f"what generations of {self.names.server} before {self.names.generation} hold"
        text = f"{self.successor} takes over: {older} is of the past\n"
        _write(world, report, self.hosts, self.deputies, self.names.past, text)
        return {}


@dataclass(frozen=True)
class NoteVoid:
    """Hosts know that nobody took the role over, though it was noted of this generation: older copies may count."""

    hosts: tuple[str, ...]
    names: Names
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        missing = _without(world, self.hosts, (), self.names.void)
        return Unmet(f"{missing[0]} does not know that nobody took over") if missing else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        text = f"nobody took over from {self.names.server} before generation {self.names.generation}\n"
        _write(world, report, self.hosts, (), self.names.void, text)
        return {}


@dataclass(frozen=True)
class ForgetHost:
    """A host remembers the generations that were left on another one, and not that they are there.

    It is a person's word that the other one has no power; what accepts connections has some.
    """

    holder: str
    host: str
    addresses: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    """The notes, and what they are called without the host."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        left = [old for old, _ in self.files if _has(world, self.holder, old)]
        return Unmet(f"{left[0]} is there") if left else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        ssh = Check(name="ssh", tcp=TcpCheck(port=22), timeout_s=world.site.access.connect_timeout_s)
        for address in self.addresses:
            report.progress(f"knocking at {address}")
            if world.probe(ssh, self.host, address).ok:
                raise Blocked(
                    f"{address} accepts connections, so {self.host} has power, or its address is another machine's",
                    where=self.host,
                    next=f"put {self.host} back into the inventory, or pull its plug; then the same command again",
                )
        pool, shell = world.host(self.holder).pool, world.shell(self.holder)
        for old, new in self.files:
            shell.run(["mv", "-f", path_in(pool, old), path_in(pool, new)], deadline_s=10)
        return {"forgotten": len(self.files)}


def _without(world: World, hosts: tuple[str, ...], deputies: tuple[str, ...], file: str) -> list[str]:
    """The hosts that lack it, or do not say, and for which no deputy has it."""
    missing = [h for h in hosts if not _has(world, h, file)]
    instead = [d for d in deputies if missing and _has(world, d, file)]
    return missing[len(instead) :]


def _has(world: World, host: str, file: str) -> bool:
    try:
        path = path_in(world.host(host).pool, file)
        return world.shell(host).run(["test", "-e", path], deadline_s=10, check=False).exit_code == 0
    except PcloudError:
        return False


def _write(
    world: World, report: Report, hosts: tuple[str, ...], deputies: tuple[str, ...], file: str, text: str
) -> None:
    """On every host, or a deputy for one that cannot: it keeps no other from knowing. Raises the first error
    where too few can."""
    failed: list[PcloudError] = []
    told = 0
    for host in (*hosts, *deputies):
        if told == len(hosts):
            return
        report.progress(f"telling {host}")
        try:
            world.shell(host).write(path_in(world.host(host).pool, file), text.encode())
            told += 1
        except PcloudError as error:
            failed.append(error)
    if told < len(hosts):
        raise failed[0]


def _remove(world: World, older: Older) -> None:
    """Tidying up, which may fail: whoever reads the older notes meets the newer one, too."""
    for host, notes in older:
        with suppress(PcloudError):
            paths = [path_in(world.host(host).pool, note) for note in notes]
            world.shell(host).run(["rm", "-f", *paths], deadline_s=10, check=False)
