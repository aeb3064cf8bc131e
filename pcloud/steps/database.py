"""The database's data.

`pcloud.restored` in the database itself says what was restored: a row is written before the
first byte of the dump (`restoring`), and changed once all of it is in and what it made was
looked at (`restored`). Both by sessions of our own: the one in between is the dump's, which may
leave it in any state. So a restore that was cut off is seen, and done again from the start,
while data that is whole, or that pcloud did not bring, is never overwritten.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pcloud.desired import Dump
from pcloud.dumps import Sent
from pcloud.errors import Blocked, CheckFailed, CommandFailed
from pcloud.inventory import defaults_dir
from pcloud.kept import Timeline
from pcloud.steps.base import Machine, Met, Report, Unmet, World

CLIENT = ("mariadb", "--batch", "--skip-column-names", "--default-character-set=utf8mb4")
_LOAD = (
    *CLIENT,
    "--loose-sandbox",  # a dump is SQL and commands of the client's, some of which run programs
    "--max-allowed-packet=64M",
    "--init-command=SET SESSION sql_log_bin=0, foreign_key_checks=0, unique_checks=0",
)
_SHORT_S = 60
STATE_QUERY = (
    "SET @marked = (SELECT COUNT(*) FROM information_schema.tables"
    " WHERE table_schema = 'pcloud' AND table_name = 'restored'); "
    "EXECUTE IMMEDIATE IF(@marked, 'SELECT state FROM pcloud.restored WHERE id = 1', 'DO 0');"
)
"""Prints the state of the last restore, and nothing where there never was one."""


def plain(text: str) -> str:
    """A reason as the guests take it, on a command line and in SQL: nothing in it needs quoting."""
    return re.sub(r"[^A-Za-z0-9 ,.:;()_/+-]+", " ", text)[:400]


TIMELINES = "servers/mariadb/timelines.sql"
"""The statement that makes `pcloud.timelines`: the template that the servers' own scripts hold, too."""


_NO_POSITIONS = "SET SESSION sql_log_bin=0;\nSTOP SLAVE; RESET SLAVE ALL; RESET MASTER; SET GLOBAL gtid_slave_pos='';\n"


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
        # Positions that belong to what was there before are not those of the dump.
        f"{_NO_POSITIONS}"
        f"DROP DATABASE IF EXISTS `{database}`; CREATE DATABASE `{database}` CHARACTER SET utf8mb4;\n"
        "CREATE DATABASE IF NOT EXISTS pcloud;\n"
        "CREATE TABLE IF NOT EXISTS pcloud.restored"
        " (id INT PRIMARY KEY, state VARCHAR(16) NOT NULL, token VARCHAR(80) NOT NULL, at TIMESTAMP NOT NULL);\n"
        f"REPLACE INTO pcloud.restored VALUES (1, 'restoring', '{token}', NOW());\n"
        f"DROP TABLE IF EXISTS pcloud.heard, pcloud.timelines, pcloud.rest;\n{_begin(timeline)}"
        # A restore that is cut off is done again: until its end nothing has to survive a crash.
        "SET GLOBAL sync_binlog=0, GLOBAL innodb_flush_log_at_trx_commit=2;\n"
    ).encode()


def looked_at(database: str) -> bytes:
    """Prints how many tables the dump made, then each definer without an account."""
    made = " UNION ".join(
        f"SELECT definer FROM information_schema.{what} WHERE {schema} = '{database}'"
        for what, schema in (
            ("views", "table_schema"),
            ("triggers", "trigger_schema"),
            ("routines", "routine_schema"),
            ("events", "event_schema"),
        )
    )
    return (
        f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{database}' AND table_type <> 'VIEW';\n"
        f"SELECT definer FROM ({made}) made WHERE definer LIKE '%@%'"
        " AND definer NOT IN (SELECT CONCAT(user, '@', host) FROM mysql.global_priv);\n"
    ).encode()


def give_accounts(machine: Machine, socket: str) -> None:
    """The data behind the socket get the accounts that the server gives its own whenever MariaDB starts."""
    script = 'exec mariadb --socket="$1" </etc/mysql/accounts.sql'
    machine.run(["sh", "-c", script, "sh", socket], deadline_s=_SHORT_S)


def try_write(machine: Machine, server: str, database: str, socket: str, site: str) -> None:
    """A transaction is committed in the data behind the socket with the rights of the shop's account, and no others.

    There is no network there by which it could log in: a routine that is its own does it. Raises `CheckFailed`.
    """
    give_accounts(machine, socket)
    asked = _WRITE.replace("{database}", database).encode()
    said = machine.run([*CLIENT, f"--socket={socket}"], deadline_s=_SHORT_S, stdin=asked, check=False)
    if said.exit_code != 0 or said.stdout.strip() != "1":
        why = next((line for line in said.stderr.splitlines() if "ERROR" in line), "it did not commit")
        remedy = f"take other data: pcloud backup {site} --list"
        raise CheckFailed(f"the shop's account cannot write to the data: {why}", where=server, next=remedy)


_WRITE = """SET SESSION sql_log_bin=0;
USE `{database}`;
SET @shop = (SELECT CONCAT(QUOTE(user), '@', QUOTE(host)) FROM mysql.global_priv WHERE user = 'shop' LIMIT 1);
DROP PROCEDURE IF EXISTS pcloud_write;
DROP TABLE IF EXISTS pcloud_written;
EXECUTE IMMEDIATE CONCAT('CREATE DEFINER=', COALESCE(@shop, 'shop'), ' PROCEDURE pcloud_write() SQL SECURITY DEFINER
BEGIN
    CREATE TABLE pcloud_written (id INT PRIMARY KEY) ENGINE=InnoDB;
    START TRANSACTION;
    INSERT INTO pcloud_written VALUES (1);
    COMMIT;
    SELECT COUNT(*) FROM pcloud_written;
    DROP TABLE pcloud_written;
END');
CALL pcloud_write();
DROP PROCEDURE pcloud_write;
"""


def _after(token: str) -> bytes:
    """What the dump may have set of replication is not ours; the mark comes last."""
    durable = "SET GLOBAL innodb_flush_log_at_trx_commit=1, GLOBAL sync_binlog=1;"
    mark = f"REPLACE INTO pcloud.restored VALUES (1, 'restored', '{token}', NOW());"
    return f"{_NO_POSITIONS}{durable}\n{mark}\n".encode()


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
    undo: bool = False
    """Something was put away for it that can come back."""
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
                next=f"set database.dump to a dump that is whole{self._back(world.site.site)}; "
                f"or accept an empty shop: pcloud recover {world.site.site} --empty-database",
            )
        return Unmet(why)

    def _back(self, site: str) -> str:
        return f"; or bring back what was put away for it: pcloud undo {site}" if self.undo else ""

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        machine = world.server_shell(self.server)
        machine.run(CLIENT, deadline_s=_SHORT_S, stdin=_before(self.database, self.token, self.timeline))
        if self.dump is not None:
            site = world.site.site
            load(machine, self.server, self.database, self.dump, self.timeout_s, report, site, self._back(site))
        machine.run(CLIENT, deadline_s=_SHORT_S, stdin=_after(self.token))
        notes = {"notes": "; ".join(self.dump.notes)} if self.dump is not None and self.dump.notes else {}
        return {"dump": self.dump.path if self.dump else "none: an empty database, as you asked", **notes}


def load(
    machine: Machine,
    server: str,
    database: str,
    dump: Dump,
    timeout_s: float,
    report: Report,
    site: str,
    back: str = "",
    options: tuple[str, ...] = (),
) -> None:
    """All of a dump in a session of its own, and then a look at what it made. `options`: of the client.

    What it left open is committed: its rows are there, or it fails. `back`: what else a person may do then.
    """
    again = f"mend the dump, or name another one as database.dump; then pcloud recover {site}{back}"
    text = Sent(
        Path(dump.path), dump.sha256, b"\nCOMMIT;\n", f"let what writes it end, then pcloud recover {site}{back}"
    )
    ended = machine.run(
        (*_LOAD, *options, database),
        deadline_s=timeout_s,
        stdin=io.BufferedReader(text, 1 << 18),
        check=False,
        progress=lambda sent: report.progress("restoring", sent, 0, "B"),
    )
    if ended.exit_code != 0:
        raise CommandFailed(f"the dump {dump.path} is not taken: {said_of(ended.stderr)}", where=server, next=again)
    asked = machine.run((*CLIENT, *options), deadline_s=_SHORT_S, stdin=looked_at(database)).stdout.split("\n")
    tables, definers = int(asked[0]), [line for line in asked[1:] if line]
    what = f"the dump left {database} without a table" if not tables else ""
    if definers:
        what = f"the dump has definers without an account: {', '.join(definers[:5])}"
    if what:
        raise CheckFailed(what, where=server, next=again)


_ERROR = re.compile(r"ERROR (?P<number>\d+)? ?(?:\(\w+\) )?(?:at line (?P<line>\d+))?[^:]*: (?P<text>.*)")
_NAMES_ONLY = frozenset(
    {1005, 1007, 1008, 1049, 1050, 1051, 1054, 1060, 1061, 1072, 1091, 1101, 1115, 1146, 1193, 1231}
)
_NAMES_ONLY |= {1239, 1273, 1286, 1289, 1295, 1304, 1305, 1347, 1359, 1360, 1449, 1537, 1539}
"""Errors of MariaDB's that quote names of things, and never a value of a row."""


def said_of(stderr: str) -> str:
    """What the client said, with the dump's own line, and nothing of a row: a report is passed on to others."""
    found = next((m for line in stderr.splitlines() if (m := _ERROR.match(line))), None)
    if found is None:
        return "the client ended without saying why"
    number, text = int(found["number"] or 0), found["text"]
    if number not in _NAMES_ONLY:
        text = re.sub(r"'.*'", "'...'", text)
    where = f"line {found['line']}: " if found["line"] else ""
    return f"{where}{text[:300]}{f' (error {number})' if number else ''}"
