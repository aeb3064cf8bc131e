"""Data made from a backup and the binary log that continues it: a server's own, or beside them for a look."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.backups import Choice, without
from pcloud.desired import Dump
from pcloud.errors import Blocked, CheckFailed, PcloudError
from pcloud.gtid import behind
from pcloud.kept import Shelf, Target, Timeline
from pcloud.steps.backup import BACKUP, SHORT_S, folder_of, look, renew, server_with_jobs
from pcloud.steps.base import Machine, Met, Report, Unmet, World
from pcloud.steps.database import (
    CLIENT,
    Restore,
    give_accounts,
    holds_data,
    load,
    looked_at,
    plain,
    read_state,
    try_write,
)
from pcloud.steps.door import order
from pcloud.steps.job import ask, rest, work

PROOF = "/var/lib/pcloud/proof"
BESIDE = "/var/lib/pcloud/beside"
SETTLE_S = 300


def make(
    world: World,
    server: str,
    place: str,
    choice: Choice,
    report: Report,
    bad: frozenset[tuple[str, str, str]] = frozenset(),
) -> tuple[Choice, str]:
    """The chosen data in a place of the server's, with a MariaDB on them: what they were made of, and their position.

    Where no copy of the backup is whole, the next one that leads to the same data is taken; where a binary log does
    not lead on, what another host keeps of it is, from the beginning: how far this one was sound nobody knows. `bad`:
    what was tried of it already, by host, line and session.
    """
    choice = _open_any(world, server, place, choice, report)
    _work(world, server, ("serve", place), report)
    reached = choice.backup.position
    for number, leg in enumerate(choice.legs):
        try:
            reached = _replay(world, server, place, choice, number, report)
        except PcloudError as error:
            if report.stopping():
                raise
            tried = bad | {(leg.host, leg.stretch.line, leg.stretch.session)}
            another = (
                without(choice, _shelves(world, choice.keepers), tried)
                if _answers(world.server_shell(server))
                else None
            )
            if another is None:
                raise
            hosts = " and ".join(dict.fromkeys(one.host for one in another.legs))
            report.progress(f"{leg.host}'s binary log does not lead on ({error.what}): taking that of {hosts}")
            return make(world, server, place, another, report, tried)
    return choice, reached


def _answers(machine: Machine) -> bool:
    """Whether it is the server that is gone, and no binary log that is wrong."""
    with suppress(PcloudError):
        return machine.run(["true"], deadline_s=SHORT_S, check=False).exit_code == 0
    return False


def _shelves(world: World, hosts: tuple[str, ...]) -> list[Shelf]:
    """What those of the hosts keep that answer."""
    found = []
    for host in hosts:
        with suppress(PcloudError):
            found.append(look(world, host))
    return found


def _work(world: World, server: str, words: Sequence[str], report: Report) -> str:
    """A job of the server's: it goes on by itself, and ends when nothing moves in it."""
    return work(world, world.server_shell(server), BACKUP, words, report, where=server, next="")


def _replay(world: World, server: str, place: str, choice: Choice, number: int, report: Report) -> str:
    """One leg; the position after it. Raises `CheckFailed` when that is not where it is said to lead."""
    leg, stretch = choice.legs[number], choice.legs[number].stretch
    words = ("send-log", world.address(server), stretch.line, stretch.session, place, str(number))
    _hand_over(world, leg.host, server, words, ("logs", place, str(number)), report)
    by_time = choice.stops_by_time and leg is choice.legs[-1]
    stops = [f"--stop-position={leg.reaches}", *(_stop(choice.target) if by_time else [])]
    reached = _work(world, server, ("replay", place, str(number), *stops), report).strip()
    if behind(leg.reaches, reached) or (behind(reached, leg.reaches) and not by_time):
        raise CheckFailed(
            f"the binary log led to {reached}, and is said to lead to {leg.reaches}",
            where=leg.host,
            next=f"take what another host keeps: pcloud restore {world.site.site} --without {leg.host}",
        )
    return reached


def _stop(target: Target) -> list[str]:
    return [f"--stop-datetime={target.time[:10]} {target.time[11:19]}"]


def _hand_over(world: World, host: str, server: str, words: Sequence[str], take: Sequence[str], report: Report) -> None:
    """What the host prints as its job `words` is what `backup TAKE` on the server reads."""
    enter = lambda: order(world, server, f"from-{host}", "backup", *take)  # noqa: E731
    work(world, world.shell(host), renew(world, host), words, report, where=host, next="", order=enter)


def _open_any(world: World, server: str, place: str, choice: Choice, report: Report) -> Choice:
    """The backup, or another one that leads to the same data: the first of which a copy is what was proven."""
    rest(world, server_with_jobs(world, server), BACKUP, report, where=server, next="")
    wrong: list[str] = []
    for one in (choice, *choice.instead):
        said = _open(world, server, place, one, report)
        if not said:
            return one
        wrong.append(f"no copy of the backup of {one.backup.taken} is whole: {'; '.join(said)}")
        report.progress(wrong[-1])
    raise CheckFailed(
        ". ".join(wrong),
        where=server,
        next=f"see what else there is: pcloud backup {world.site.site} --list; then take another one: --from-backup ID",
    )


def _open(world: World, server: str, place: str, choice: Choice, report: Report) -> list[str]:
    """The backup itself, from the first host whose copy is what was proven; else what is wrong with each."""
    backup, wrong = choice.backup, []
    if _held(world, server, place) == ["prepared", backup.sha256]:
        return []
    take = ("receive", place, str(max(backup.size, backup.data)), backup.sha256)
    words = ("send-backup", world.address(server), backup.id, place)
    for host in sorted(choice.hosts, key=lambda h: _gives(world, h)):
        try:
            if _held(world, server, place) != ["received", backup.sha256]:
                _hand_over(world, host, server, words, take, report)
        except PcloudError as error:
            if report.stopping():
                raise
            wrong.append(f"{host}: {error.what}")
            continue
        if _held(world, server, place) == ["received", backup.sha256]:
            _work(world, server, ("prepare", place), report)
            return []
        wrong.append(f"{host}: what it gave did not stay")
    return wrong


def _held(world: World, server: str, place: str) -> list[str]:
    """`received` or `prepared`, and of what; nothing where the place has neither, or was changed since."""
    return world.server_shell(server).run([BACKUP, "held", place], deadline_s=SHORT_S).stdout.split()


def _gives(world: World, host: str) -> bool:
    """Whether the host gives something to another server at this moment: one after the other is served."""
    with suppress(PcloudError, ValueError):
        return ask(world.shell(host), [f"{folder_of(world, host)}/keep", "ask"]).code is None
    return False


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
    others: tuple[str, ...] = ()
    timeline: Timeline | None = None
    """The one that begins with these data."""
    undo: bool = False
    """Something was put away for it that can come back."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        return _find_data(world, self.server, self.database, self.token, self.others)

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        site = world.site.site
        rest(
            world,
            server_with_jobs(world, self.server),
            BACKUP,
            report,
            where=self.server,
            next=f"pcloud recover {site}",
        )
        if isinstance(self.check(world), Met):  # an earlier run's work went on without it
            return {}
        try:
            used, reached = make(world, self.server, "restore", self.choice, report)
            _work(world, self.server, ("settle", self.token, *self._words()), report)
        except PcloudError as error:
            error.next = ways_on(error, site, undo=self.undo)
            raise
        return {"from": used.backup.id, "reached": reached}

    def _words(self) -> tuple[str, ...]:
        t = self.timeline
        return () if t is None else (str(t.domain), t.server, plain(t.why))


def ways_on(error: PcloudError, site: str, *, undo: bool) -> str:
    """What a person may do about data that could not be made: the same again would end the same."""
    good = re.search(r"the last good position is ([0-9]+-[0-9]+-[0-9]+(?:,[0-9]+-[0-9]+-[0-9]+)*)", error.what)
    ways = [error.next] if error.next else []
    if good is not None:
        ways.append(f"restore what comes before it: pcloud restore {site} --to {good[1]}")
        ways.append(f"take what another host keeps: pcloud restore {site} --without HOST")
    if undo:
        ways.append(f"bring back what was put away for it: pcloud undo {site}")
    return "; or ".join(ways)


@dataclass(frozen=True)
class Prove:
    """The chosen data were made once beside a server's own, and are whole: its own go on serving meanwhile.

    Nothing of it stays. Like a gate it changes nothing of the site, and is not asked twice.
    """

    server: str
    database: str
    choice: Choice
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:  # noqa: ARG002
        return Unmet("nobody has made the data yet")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        machine, site = world.server_shell(self.server), world.site.site
        try:
            _, reached = make(world, self.server, "proof", self.choice, report)
            said = _work(world, self.server, ("check", "proof"), report)
            report.progress("writing to it as the shop does")
            try_write(machine, self.server, self.database, f"{PROOF}/mysqld.sock", site)
            lines = machine.run(
                [*CLIENT, f"--socket={PROOF}/mysqld.sock"], deadline_s=SHORT_S, stdin=looked_at(self.database)
            )
            if definers := [line for line in lines.stdout.split("\n")[1:] if line]:
                what = f"the data have definers without an account: {', '.join(definers[:5])}"
                raise CheckFailed(what, where=self.server)
        except PcloudError as error:
            error.next = ways_on(error, site, undo=False)
            if "have no room" in error.what:
                error.next = (
                    f"give {self.server} a larger disk (disk_gib), or have its data replaced though the new ones were "
                    f"never made: pcloud restore {site} --unproven"
                )
            raise
        finally:
            if not report.stopping():  # then it goes on
                with suppress(PcloudError):
                    machine.run([BACKUP, "close", "proof"], deadline_s=SHORT_S)
        counts = dict(line.split(" ", 1) for line in said.splitlines() if line.startswith(("tables ", "rows ")))
        return {"reached": reached, **counts}


@dataclass(frozen=True)
class ProveDump:
    """The dump was loaded once into a MariaDB beside a server's own, which goes on serving meanwhile; as `Prove`."""

    server: str
    database: str
    dump: Dump
    timeout_s: float
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:  # noqa: ARG002
        return Unmet("nobody has loaded the dump yet")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        machine, site = world.server_shell(self.server), world.site.site
        socket = f"--socket={PROOF}/mysqld.sock"
        try:
            report.progress("starting an empty MariaDB beside its own")
            machine.run([BACKUP, "fresh", "proof", str(3 * self.dump.size >> 10)], deadline_s=SETTLE_S)
            machine.run([BACKUP, "serve", "proof"], deadline_s=SETTLE_S)
            give_accounts(machine, f"{PROOF}/mysqld.sock")
            load(machine, self.server, self.database, self.dump, self.timeout_s, report, site, options=(socket,))
            report.progress("writing to it as the shop does")
            try_write(machine, self.server, self.database, f"{PROOF}/mysqld.sock", site)
        except PcloudError as error:
            if "MiB are needed" in error.what:
                error.next = (
                    f"give {self.server} a larger disk (disk_gib), or have its data replaced though the dump was never "
                    f"loaded: pcloud recover {site} --from-scratch --unproven"
                )
            raise
        finally:
            with suppress(PcloudError):
                machine.run([BACKUP, "close", "proof"], deadline_s=SHORT_S)
        return {"dump": self.dump.path}


@dataclass(frozen=True)
class Beside:
    """The chosen data are on the server beside its own, in a MariaDB of their own that only root there reaches."""

    server: str
    database: str
    choice: Choice
    token: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        made = world.server_shell(self.server).tail(f"{BESIDE}/made").strip()
        if made != self.token:
            return Unmet("nothing is beside its data" if not made else "other data are beside its own")
        look = f"pcloud ssh {world.site.site}/{self.server} -- mariadb --socket={BESIDE}/mysqld.sock {self.database}"
        return Met({"look": look, "end": f"pcloud restore {world.site.site} --close"})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        used, reached = make(world, self.server, "beside", self.choice, report)
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
