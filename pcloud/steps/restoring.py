"""Data made from a backup and the binary log that continues it: a server's own, or beside them for a look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.backups import Choice
from pcloud.errors import Blocked, CheckFailed, PcloudError
from pcloud.gtid import behind
from pcloud.kept import Target, Timeline
from pcloud.steps.backup import BACKUP, SHORT_S, folder_of
from pcloud.steps.base import Met, Report, Unmet, World
from pcloud.steps.database import Restore, holds_data, plain, read_state
from pcloud.steps.pipe import pipe

BESIDE = "/var/lib/pcloud/beside"
SETTLE_S = 300


def _make(
    world: World, server: str, place: str, choice: Choice, timeout_s: float, report: Report
) -> tuple[Choice, str]:
    """The chosen data in a place of the server's, with a MariaDB on them: what they were made of, and their position.

    Where no copy of the backup is whole, the next one that leads to the same data is taken.
    """
    choice = _open_any(world, server, place, choice, timeout_s, report)
    machine = world.server_shell(server)
    report.progress("starting a MariaDB on it")
    machine.run([BACKUP, "serve", place], deadline_s=timeout_s)
    reached = choice.backup.position
    for number, leg in enumerate(choice.legs):
        reached = _replay(world, server, place, choice, number, timeout_s, report)
        by_time = choice.stops_by_time and leg is choice.legs[-1]
        if behind(leg.reaches, reached) or (behind(reached, leg.reaches) and not by_time):
            raise CheckFailed(
                f"the binary log led to {reached}, and is said to lead to {leg.reaches}",
                where=leg.host,
                next=f"take what another host keeps: pcloud restore {world.site.site} --without {leg.host}",
            )
    return choice, reached


def _replay(
    world: World, server: str, place: str, choice: Choice, number: int, timeout_s: float, report: Report
) -> str:
    """One leg; the position after it."""
    machine, leg = world.server_shell(server), choice.legs[number]
    stretch = leg.stretch
    hand = [f"{folder_of(world, leg.host)}/keep", "hand", stretch.line, stretch.session]
    take = [BACKUP, "logs", place, str(number)]
    sent = lambda n: report.progress("copying the binary log", n, 0, "B")  # noqa: E731
    pipe(world.shell(leg.host), hand, machine, take, deadline_s=timeout_s, sent=sent)
    report.progress("replaying the binary log")
    by_time = choice.stops_by_time and leg is choice.legs[-1]
    stops = [f"--stop-position={leg.reaches}", *(_stop(choice.target) if by_time else [])]
    return machine.run([BACKUP, "replay", place, str(number), *stops], deadline_s=timeout_s).stdout.strip()


def _stop(target: Target) -> list[str]:
    return [f"--stop-datetime={target.time[:10]} {target.time[11:19]}"]


def _open_any(world: World, server: str, place: str, choice: Choice, timeout_s: float, report: Report) -> Choice:
    """The backup, or another one that leads to the same data: the first of which a copy is what was proven."""
    wrong: list[str] = []
    for one in (choice, *choice.instead):
        said = _open(world, server, place, one, timeout_s, report)
        if not said:
            return one
        wrong.append(f"no copy of the backup of {one.backup.taken} is whole: {'; '.join(said)}")
        report.progress(wrong[-1])
    raise CheckFailed(
        ". ".join(wrong),
        where=server,
        next=f"see what else there is: pcloud backup {world.site.site} --list; then take another one: --from-backup ID",
    )


def _open(world: World, server: str, place: str, choice: Choice, timeout_s: float, report: Report) -> list[str]:
    """The backup itself, from the first host whose copy is what was proven; else what is wrong with each."""
    backup, wrong = choice.backup, []
    take = [BACKUP, "open", place]
    for host in choice.hosts:
        give = ["cat", "--", f"{folder_of(world, host)}/{backup.id}.mbs.gz"]
        sent = lambda n: report.progress("copying the backup", n, backup.size, "B")  # noqa: E731
        try:
            _, sha256 = pipe(world.shell(host), give, world.server_shell(server), take, deadline_s=timeout_s, sent=sent)
        except PcloudError as error:
            wrong.append(f"{host}: {error.what}")
            continue
        if sha256 == backup.sha256:
            return []
        wrong.append(f"{host}: it is not what was proven")
    return wrong


def _find_data(world: World, server: str, database: str, token: str, others: tuple[str, ...]) -> Met | Unmet:
    """Met where the server holds whole data, or one of `others` does."""
    state, tables = read_state(world, server, database)
    if state == "restored":
        return Met({"token": token})
    if state == "" and tables > 0:
        return Met({"tables": tables, "origin": "not pcloud"})
    holder = next((s for s in others if holds_data(world, s, database)), None)
    return Unmet("the database is empty") if holder is None else Met({"data": f"on {holder}"})


@dataclass(frozen=True)
class NoBackup:
    """The server holds data, or one of `others`; else a person says what it gets, for no backup can be had."""

    server: str
    database: str
    what: str
    next: str
    others: tuple[str, ...] = ()
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        found = _find_data(world, self.server, self.database, "", self.others)
        if isinstance(found, Unmet):
            raise Blocked(self.what, where=self.server, next=self.next)
        return found

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        raise Blocked(self.what, where=self.server, next=self.next)


@dataclass(frozen=True)
class RestoreBackup:
    """The server holds the chosen data as its own. Nothing is restored while one of `others` holds data."""

    server: str
    database: str
    choice: Choice
    token: str
    timeout_s: float
    others: tuple[str, ...] = ()
    timeline: Timeline | None = None
    """The one that begins with these data."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        return _find_data(world, self.server, self.database, self.token, self.others)

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        used, reached = _make(world, self.server, "restore", self.choice, self.timeout_s, report)
        report.progress("starting MariaDB with the restored data")
        world.server_shell(self.server).run([BACKUP, "settle", self.token, *self._words()], deadline_s=SETTLE_S)
        return {"from": used.backup.id, "reached": reached}

    def _words(self) -> tuple[str, ...]:
        t = self.timeline
        return () if t is None else (str(t.domain), t.server, plain(t.why))


@dataclass(frozen=True)
class Beside:
    """The chosen data are on the server beside its own, in a MariaDB of their own that only root there reaches."""

    server: str
    database: str
    choice: Choice
    token: str
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        made = world.server_shell(self.server).tail(f"{BESIDE}/made").strip()
        if made != self.token:
            return Unmet("nothing is beside its data" if not made else "other data are beside its own")
        look = f"pcloud ssh {world.site.site}/{self.server} -- mariadb --socket={BESIDE}/mysqld.sock {self.database}"
        return Met({"look": look, "end": f"pcloud restore {world.site.site} --close"})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        used, reached = _make(world, self.server, "beside", self.choice, self.timeout_s, report)
        world.server_shell(self.server).run([BACKUP, "show", self.token], deadline_s=SHORT_S)
        return {"from": used.backup.id, "reached": reached}


@dataclass(frozen=True)
class Close:
    """Nothing is beside the server's data any more."""

    server: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        there = world.server_shell(self.server).run(["test", "-e", BESIDE], deadline_s=SHORT_S, check=False)
        return Unmet("data are beside its own") if there.exit_code == 0 else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        world.server_shell(self.server).run([BACKUP, "close", "beside"], deadline_s=SHORT_S)
        return {}


FILLS = (Restore, RestoreBackup, NoBackup)
"""The steps that give a server other data than those that the site works with; the last one says why it cannot."""
