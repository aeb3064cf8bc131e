"""The database's data and the search's index.

`pcloud.restored` in the database itself says what was restored: a row is written before the
first byte of the dump (`restoring`) and changed after its last (`restored`), in the same
stream. So a restore that was cut off is seen, and done again from the start, while data that
is whole, or that pcloud did not bring, is never overwritten.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

from pcloud.clock import Deadline
from pcloud.desired import Dump
from pcloud.errors import Blocked, CheckFailed
from pcloud.model import Check
from pcloud.steps.base import Met, Report, Unmet, World

if TYPE_CHECKING:
    from typing_extensions import Buffer

CLIENT = ("mariadb", "--batch", "--skip-column-names", "--default-character-set=utf8mb4")
RESTORED_QUERY = "SELECT state, token FROM pcloud.restored WHERE id = 1"
STAMP = "/var/lib/pcloud/indexed"


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


def _before(database: str, token: str) -> bytes:
    return (
        "SET SESSION sql_log_bin=0;\n"
        f"DROP DATABASE IF EXISTS `{database}`; CREATE DATABASE `{database}` CHARACTER SET utf8mb4;\n"
        "CREATE DATABASE IF NOT EXISTS pcloud;\n"
        "CREATE TABLE IF NOT EXISTS pcloud.restored"
        " (id INT PRIMARY KEY, state VARCHAR(16) NOT NULL, token VARCHAR(80) NOT NULL, at TIMESTAMP NOT NULL);\n"
        f"REPLACE INTO pcloud.restored VALUES (1, 'restoring', '{token}', NOW());\n"
        # A restore that is cut off is done again: until its end nothing has to survive a crash.
        "SET GLOBAL sync_binlog=0, GLOBAL innodb_flush_log_at_trx_commit=2;\n"
        f"USE `{database}`; SET SESSION foreign_key_checks=0, unique_checks=0;\n"
    ).encode()


def _after(token: str) -> bytes:
    durable = "SET GLOBAL innodb_flush_log_at_trx_commit=1, GLOBAL sync_binlog=1;"
    return f"\n{durable}\nREPLACE INTO pcloud.restored VALUES (1, 'restored', '{token}', NOW());\n".encode()


@dataclass(frozen=True)
class Restore:
    """The database holds its data: the latest dump, whole, or what was there before."""

    server: str
    database: str
    dump: Dump | None
    problem: str
    token: str
    empty: bool
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        state, tables = self._state(world)
        if state == "restored":
            return Met({"token": self.token})
        if state == "restoring":
            return self._unmet(world, "a restore was cut off")
        if tables > 0:
            return Met({"tables": tables, "origin": "not pcloud"})
        return self._unmet(world, "the database is empty")

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
            parts: list[IO[bytes]] = [io.BytesIO(_before(self.database, self.token))]
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

    def _state(self, world: World) -> tuple[str, int]:
        query = (  # the name matches the inventory's pattern: nothing in it needs quoting
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = "
            f"'{self.database}'; SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='pcloud'"
            " AND table_name='restored';"
        )
        machine = world.server_shell(self.server)
        tables, marked = machine.run(CLIENT, deadline_s=60, stdin=query.encode()).stdout.split()
        if marked == "0":
            return "", int(tables)
        state = machine.run(CLIENT, deadline_s=60, stdin=RESTORED_QUERY.encode()).stdout.split()
        return (state[0] if state else ""), int(tables)


def open_dump(path: Path) -> IO[bytes]:
    """A dump's SQL, unpacked when its name ends in `.gz`."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


@dataclass(frozen=True)
class BuildIndex:
    """The index is built from the database, and searches find what they should.

    `token` names the data that it must have been built from; empty accepts any index.
    """

    server: str
    address: str
    argv: tuple[str, ...]
    checks: tuple[Check, ...]
    token: str
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        wrong = self._wrong(world)
        if wrong:
            return Unmet(wrong)
        if self.token:
            stamp = world.server_shell(self.server).run(["cat", STAMP], deadline_s=30, check=False).stdout.strip()
            if stamp != self.token:
                return Unmet("the index is older than the data")
        return Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        deadline = Deadline.after(self.timeout_s, world.clock)
        machine = world.server_shell(self.server)
        report.progress("indexing")
        machine.run(self.argv, deadline_s=deadline.left())
        while wrong := self._wrong(world):
            report.progress(f"waiting: {wrong}")
            if deadline.passed() or report.stopping():
                raise CheckFailed(
                    f"the new index does not answer: {wrong}",
                    where=self.server,
                    next=f"pcloud ssh {world.site.site}/{self.server}",
                )
            world.clock.sleep(0.5)
        if self.token:
            machine.write(STAMP, f"{self.token}\n".encode(), mode=0o644)
        return {}

    def _wrong(self, world: World) -> str:
        verdicts = (world.probe(check, self.server, self.address) for check in self.checks)
        return next((v.detail for v in verdicts if not v.ok), "")
