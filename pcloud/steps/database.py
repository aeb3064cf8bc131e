"""The database's data.

`pcloud.restored` in the database itself says what was restored: a row is written before the
first byte of the dump (`restoring`) and changed after its last (`restored`), in the same
stream. So a restore that was cut off is seen, and done again from the start, while data that
is whole, or that pcloud did not bring, is never overwritten.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

from pcloud.desired import Dump
from pcloud.errors import Blocked
from pcloud.inventory import defaults_dir
from pcloud.kept import Timeline
from pcloud.steps.base import Met, Report, Unmet, World

if TYPE_CHECKING:
    from typing_extensions import Buffer

CLIENT = ("mariadb", "--batch", "--skip-column-names", "--default-character-set=utf8mb4")
STATE_QUERY = (
    "SET @marked = (SELECT COUNT(*) FROM information_schema.tables"
    " WHERE table_schema = 'pcloud' AND table_name = 'restored'); "
    "EXECUTE IMMEDIATE IF(@marked, 'SELECT state FROM pcloud.restored WHERE id = 1', 'DO 0');"
)
"""Prints the state of the last restore, and nothing where there never was one."""


class _Joined(io.RawIOBase):
    """Several byte streams read as one, so that a dump of any size is never held in memory."""

    def __init__(self, parts: Iterator[IO[bytes]]) -> None:
        self._parts = parts
        self._now: IO[bytes] | None = next(parts, None)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        while self._now is not None:
            data = self._now.read(len(view))
            if data:
                view[: len(data)] = data
                return len(data)
            self._now = next(self._parts, None)
        return 0


def plain(text: str) -> str:
    """A reason as the guests take it, on a command line and in SQL: nothing in it needs quoting."""
    return re.sub(r"[^A-Za-z0-9 ,.:;()_/+-]+", " ", text)[:400]


TIMELINES = "servers/mariadb/timelines.sql"
"""The statement that makes `pcloud.timelines`: the template that the servers' own scripts hold, too."""


def _begin(timeline: Timeline | None) -> str:
    """The timeline of restored data is theirs on every server that gets them, so it is in no binary log."""
    if timeline is None:
        return ""
    t = timeline
    if not re.fullmatch(r"[0-9,-]*", t.branched) or not re.fullmatch(r"[a-z0-9-]+", t.server):
        raise ValueError(f"no timeline: {t}")
    row = f"({t.domain}, {t.parent}, '{t.branched}', NOW(), '{t.server}', '{plain(t.why)}')"
    made = (defaults_dir("templates") / TIMELINES).read_text("utf-8")
    return f"{made};\nREPLACE INTO pcloud.timelines VALUES {row};\n"


def _before(database: str, token: str, timeline: Timeline | None) -> bytes:
    return (
        "SET SESSION sql_log_bin=0;\n"
        # Positions that belong to what was there before are not those of the dump.
        "STOP SLAVE; RESET SLAVE ALL; RESET MASTER; SET GLOBAL gtid_slave_pos='';\n"
        f"DROP DATABASE IF EXISTS `{database}`; CREATE DATABASE `{database}` CHARACTER SET utf8mb4;\n"
        "CREATE DATABASE IF NOT EXISTS pcloud;\n"
        "CREATE TABLE IF NOT EXISTS pcloud.restored"
        " (id INT PRIMARY KEY, state VARCHAR(16) NOT NULL, token VARCHAR(80) NOT NULL, at TIMESTAMP NOT NULL);\n"
        f"REPLACE INTO pcloud.restored VALUES (1, 'restoring', '{token}', NOW());\n"
        f"DROP TABLE IF EXISTS pcloud.heard, pcloud.timelines, pcloud.rest;\n{_begin(timeline)}"
        # A restore that is cut off is done again: until its end nothing has to survive a crash.
        "SET GLOBAL sync_binlog=0, GLOBAL innodb_flush_log_at_trx_commit=2;\n"
        f"USE `{database}`; SET SESSION foreign_key_checks=0, unique_checks=0;\n"
    ).encode()


def _after(token: str) -> bytes:
    durable = "SET GLOBAL innodb_flush_log_at_trx_commit=1, GLOBAL sync_binlog=1;"
    return f"\n{durable}\nREPLACE INTO pcloud.restored VALUES (1, 'restored', '{token}', NOW());\n".encode()


def holds_data(world: World, server: str, database: str) -> bool:
    """Whether the server's data are whole: restored by pcloud, or brought by somebody else."""
    state, tables = read_state(world, server, database)
    return state == "restored" or (state == "" and tables > 0)


def read_state(world: World, server: str, database: str) -> tuple[str, int]:
    """The state of the last restore, empty where there never was one; and how many tables the shop has."""
    counted = (  # the name matches the inventory's pattern: nothing in it needs quoting
        f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{database}'; "
    )
    asked = f"{counted}{STATE_QUERY}".encode()
    tables, *state = world.server_shell(server).run(CLIENT, deadline_s=60, stdin=asked).stdout.split()
    return (state[0] if state else ""), int(tables)


@dataclass(frozen=True)
class Restore:
    """The database holds its data: the latest dump, whole, or what was there before.

    Nothing is restored while one of `others` holds data: they are what counts then.
    """

    server: str
    database: str
    dump: Dump | None
    problem: str
    token: str
    empty: bool
    timeout_s: float
    others: tuple[str, ...] = ()
    timeline: Timeline | None = None
    """The one that begins with these data."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        state, tables = read_state(world, self.server, self.database)
        if state == "restored":
            return Met({"token": self.token})
        if state == "" and tables > 0:
            return Met({"tables": tables, "origin": "not pcloud"})
        holder = next((s for s in self.others if holds_data(world, s, self.database)), None)
        if holder is not None:
            return Met({"data": f"on {holder}"})
        return self._unmet(world, "a restore was cut off" if state else "the database is empty")

    def _unmet(self, world: World, why: str) -> Unmet:
        if self.dump is None and not self.empty:
            raise Blocked(
                f"{why}, and {self.problem or 'the inventory names no dump'}",
                where=self.server,
                next=f"set database.dump to the latest dump, or accept an empty shop: "
                f"pcloud recover {world.site.site} --empty-database",
            )
        return Unmet(why)

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        machine = world.server_shell(self.server)
        with ExitStack() as opened:
            parts: list[IO[bytes]] = [io.BytesIO(_before(self.database, self.token, self.timeline))]
            if self.dump is not None:
                parts.append(opened.enter_context(open_dump(Path(self.dump.path))))
            parts.append(io.BytesIO(_after(self.token)))
            machine.run(
                CLIENT,
                deadline_s=self.timeout_s,
                stdin=io.BufferedReader(_Joined(iter(parts))),
                progress=lambda sent: report.progress("restoring", sent, 0, "B"),
            )
        return {"dump": self.dump.path if self.dump else "none: an empty database, as you asked"}


def open_dump(path: Path) -> IO[bytes]:
    """A dump's SQL, unpacked when its name ends in `.gz`."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
