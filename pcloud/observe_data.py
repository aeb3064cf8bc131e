"""What the database's servers and the search say of their data, each within its deadline."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from functools import partial

from pcloud.backupnotes import last_backup, newest
from pcloud.desired import Desired, ServerSpec
from pcloud.errors import PcloudError
from pcloud.gtid import behind, newest_domain, rank
from pcloud.identity import carrier_names
from pcloud.journal import find_backup, find_position
from pcloud.kept import NEVER_SEEN, NOBODY_HEARD, Shelf, Sighting
from pcloud.loss import claimed, witnesses_of
from pcloud.model import SqlCheck
from pcloud.observed import Data, Observed, SeenDatabase
from pcloud.recall import looks_at_shelves
from pcloud.replicas import carriers_of
from pcloud.sightings import furthest, last_sighting
from pcloud.sql import NamedRows, Refused, Row, ask_named
from pcloud.steps.backup import look
from pcloud.steps.database import CLIENT
from pcloud.steps.replication import HEARD, read_heard
from pcloud.steps.room import FULL, PROCESSES, find_full, waits_for_room
from pcloud.steps.stream import REPLICA
from pcloud.web import Unanswered, one_line
from pcloud.world import World

SQL_TIMEOUT_S = 10
UNREADABLE = "error 1594"
"""MariaDB cannot read its relay log."""
REACH_S = 30
"""Until a replica has read what it keeps."""
UNMARKED = "unmarked"
"""Stands for the token of data that pcloud did not bring."""

_RESTORED = "SELECT token FROM pcloud.restored WHERE state = 'restored'"
_ROLE = (
    "SELECT @@read_only AS locked, @@gtid_current_pos AS position, @@report_host AS name,"
    " DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%dT%H:%i:%sZ') AS clock"
)
_TABLES = (
    "SELECT table_schema AS part, COUNT(*) AS number, GROUP_CONCAT(IF(table_schema = 'pcloud', table_name, NULL)) AS"
    " named FROM information_schema.tables GROUP BY table_schema"
)
_SEMI_SYNC = "SHOW STATUS LIKE 'Rpl_semi_sync_%_status'"
_WAITS = "SELECT @@rpl_semi_sync_master_enabled AS waits, @@rpl_semi_sync_master_timeout AS longest"
_TIMELINE = "SELECT MAX(domain) AS domain FROM pcloud.timelines"


def observe_data(desired: Desired, world: World, found: Observed, up: set[str], pool: ThreadPoolExecutor) -> Data:
    """`found` is what the hosts say, `up` names the servers that run. All are asked at once."""
    site, began = desired.site, world.clock.now()
    near = tuple(h.name for h in found.hosts if h.reachable)
    running = [s for s in carriers_of(desired) if s.name in up]
    asked = {s.name: pool.submit(_observe_database, world, s) for s in running}
    indexers = desired.members(site.search.group)
    checks = [(c, s) for s in indexers for c in site.group(s.group).checks if c.search]
    indexed = all(s.name in up for s in indexers) and all(world.probe(c, s.name, s.address).ok for c, s in checks)
    answers = {name: answer.result() for name, answer in asked.items()}
    databases = {name: seen for name, (seen, _) in answers.items() if seen is not None}
    tokens = [d.restored for d in sorted(databases.values(), key=lambda d: not d.writable) if d.restored]
    refused, full = (
        tuple(name for name, (_, silence) in answers.items() if silence is why)
        for why in (_Silence.REFUSES, _Silence.FULL)
    )
    writing = any(d.writable for d in databases.values())
    heard, seen = (NOBODY_HEARD, ()) if writing else world.hear(witnesses_of(desired, up, near))
    if not writing:
        databases = dict(zip(databases, pool.map(lambda n: _with_kept(world, n, databases[n]), databases), strict=True))
    known = NEVER_SEEN if writing else furthest([*_last_known(site.site, found, world), *seen])
    looked = looks_at_shelves(desired.options, databases, known, heard)
    shelves = tuple(s for s in pool.map(lambda h: _look(world, h), near if looked else ()) if s is not None)
    return Data(
        restored=tokens[0] if tokens else "",
        indexed=indexed,
        databases=databases,
        # Nobody else can have it where nobody writes, and a dead address takes long to say so.
        holder=_holder(world, databases, refused) if writing else "",
        known=known,
        shelves=shelves,
        last_backup=newest((last_backup(site.site, found), find_backup(site.site) if looked else None)),
        refused=refused,
        full=full,
        heard=heard,
        asked_at=began,
    )


def _look(world: World, host: str) -> Shelf | None:
    """None when the host does not say."""
    try:
        return look(world, host)
    except PcloudError:
        return None


def _ask(world: World, address: str, *queries: str) -> list[NamedRows]:
    account = SqlCheck()
    return ask_named(
        address,
        world.site.services[world.site.database.service].port,
        *((query, ()) for query in queries),
        user=account.user,
        password=world.reveal(account.password),
        timeout_s=SQL_TIMEOUT_S,
    )


def _last_known(site: str, found: Observed, world: World) -> tuple[Sighting, Sighting]:
    """What hosts remember, and what this machine's journal does."""
    return last_sighting(site, found, world.clock.wall()), find_position(site)


_Ask = Callable[..., list[NamedRows]]


class _NoRoom(Unanswered):
    """It answers, and would hang with the next question."""


class _Silence(StrEnum):
    """Why a MariaDB that runs does not say what it holds, or says it only from inside."""

    UNKNOWN = "unknown"
    REFUSES = "refuses"
    FULL = "full"


_Answer = tuple[SeenDatabase | None, _Silence | None]


def _observe_database(world: World, spec: ServerSpec) -> _Answer:
    return look_at_database(world, spec.name, partial(_ask, world, spec.address))


def look_at_database(world: World, server: str, ask: _Ask) -> _Answer:
    """One that refuses the monitor is asked from inside, over SSH; of one that does not answer, its disk is."""
    try:
        return _see(world, ask), None
    except Refused:
        pass
    except _NoRoom:
        return None, _Silence.FULL
    except Unanswered:
        return None, _Silence.UNKNOWN if find_full(world, server) is None else _Silence.FULL
    try:
        return _see(world, partial(_ask_inside, world, server)), _Silence.REFUSES
    except _NoRoom:
        return None, _Silence.FULL
    except (PcloudError, Unanswered, LookupError, ValueError):
        return None, _Silence.REFUSES


def _with_kept(world: World, server: str, seen: SeenDatabase) -> SeenDatabase:
    """Of one that applies nothing: whether its relay logs hold what it received; MariaDB looks when it applies it."""
    if not seen.stands:
        return seen
    try:
        reach = world.server_shell(server).run([REPLICA, "reach"], deadline_s=REACH_S).stdout.strip()
        short = behind(max(reach, seen.position, key=rank), claimed(seen))
    except (PcloudError, ValueError):
        return seen
    stuck = "" if seen.stuck.startswith(UNREADABLE) else seen.stuck
    return replace(seen, reach=reach if short else "", stuck=stuck)


def _ask_inside(world: World, server: str, *queries: str) -> list[NamedRows]:
    """The same as the server's own root, by its socket."""
    return [_read_rows(_tell(world, server, query)) for query in queries]


def _tell(world: World, server: str, query: str) -> str:
    argv = [word for word in CLIENT if word != "--skip-column-names"]
    return world.server_shell(server).run(argv, stdin=f"{query};\n".encode(), deadline_s=SQL_TIMEOUT_S).stdout


def _read_rows(text: str) -> NamedRows:
    """What the client prints in batch: the columns' names, then a line a row."""
    lines = [line.split("\t") for line in text.split("\n") if line]
    return tuple(
        {name: None if value == "NULL" else value for name, value in zip(lines[0], row, strict=False)}
        for row in lines[1:]
    )


def _see(world: World, ask: _Ask) -> SeenDatabase:
    """Raises `Unanswered`, or what `ask` raises."""
    role, processes, tables, acknowledged, waits = ask(_ROLE, PROCESSES, _TABLES, _SEMI_SYNC, _WAITS)
    if waits_for_room(processes):
        raise _NoRoom(FULL)
    numbers = {row["part"]: int(row["number"]) for row in tables}
    named = next((str(row["named"] or "").split(",") for row in tables if row["part"] == "pcloud"), [])
    own = {"restored": _RESTORED, "timelines": _TIMELINE, "heard": HEARD}
    asked = [table for table in own if table in named]
    slave, *found = ask("SHOW SLAVE STATUS", *(own[t] for t in asked))
    answers = dict(zip(asked, found, strict=True))
    foreign = UNMARKED if numbers.get(world.site.database.name) and "restored" not in named else ""
    restored = answers.get("restored")
    seen = _read_database(role[0], {str(r["Variable_name"]): str(r["Value"]) for r in acknowledged}, waits[0], slave)
    return replace(
        seen,
        restored=str(restored[0]["token"]) if restored else foreign,
        timeline=max(newest_domain(seen.position), *(int(r["domain"] or 0) for r in answers.get("timelines", ())), 0),
        **(read_heard(heard[0]) if (heard := answers.get("heard")) else {}),
    )


def _read_database(role: Row, status: Mapping[str, str], waits: Row, slave: NamedRows) -> SeenDatabase:
    """What MariaDB says of itself, without what is in its tables."""
    source = slave[0] if slave else {}
    late = source.get("Seconds_Behind_Master")
    waiting = str(waits["waits"]) in ("1", "ON") and status.get("Rpl_semi_sync_master_status") == "ON"
    return SeenDatabase(
        writable=str(role["locked"]) in ("0", "OFF"),
        position=role["position"] or "",
        clock=role["clock"] or "",
        received=source.get("Gtid_IO_Pos") or "",
        source=source.get("Master_Host") or "",
        stands=bool(source) and source.get("Slave_SQL_Running") == "No",
        replicating=source.get("Slave_IO_Running") == source.get("Slave_SQL_Running") == "Yes",
        behind_s=None if late is None else float(late),
        semi_sync="ON" in status.values(),
        waits_ms=int(waits["longest"]) if waiting else -1,
        error=str(source.get("Last_IO_Error") or ""),
        stuck=_without_values(source.get("Last_SQL_Errno"), str(source.get("Last_SQL_Error") or "")),
    )


def _without_values(number: object, text: str) -> str:
    """An error of MariaDB's, less what stands in quotes: a customer's row may be in it."""
    cleaned = one_line(re.sub(r"'[^']*'", "'…'", text))[:200]
    return f"error {number}: {cleaned}" if text else ""


def observe_primary(desired: Desired, world: World) -> tuple[str, SeenDatabase] | None:
    """Who answers at the service address and accepts writes, as it is now."""
    name = _holder(world, {}, ())
    seen = _observe_database(world, desired.server(name))[0] if name in carrier_names(desired.site) else None
    return (name, seen) if seen is not None and seen.writable else None


def _holder(world: World, databases: Mapping[str, SeenDatabase], refused: tuple[str, ...]) -> str:
    """The server that answers at the service address; where it refuses us there, the primary that refuses us, too."""
    try:
        return str(_ask(world, str(world.site.services[world.site.database.service].address), _ROLE)[0][0]["name"])
    except Refused:
        writing = [n for n, d in databases.items() if d.writable]
        return writing[0] if len(writing) == 1 and writing[0] in refused else ""
    except Unanswered:
        return ""
