"""What the database's servers and the search say of their data, each within its deadline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pcloud.desired import Desired, ServerSpec
from pcloud.errors import PcloudError
from pcloud.journal import find_keepers, find_position
from pcloud.kept import Shelf
from pcloud.model import SqlCheck
from pcloud.observed import Data, SeenDatabase
from pcloud.recall import looks_at_shelves
from pcloud.replicas import carriers_of
from pcloud.sql import NamedRows, Refused, ask_named
from pcloud.steps.backup import look
from pcloud.steps.database import CLIENT
from pcloud.web import Unanswered
from pcloud.world import World

SQL_TIMEOUT_S = 10
UNMARKED = "unmarked"
"""Stands for the token of data that pcloud did not bring."""

_RESTORED = "SELECT token FROM pcloud.restored WHERE state = 'restored'"
_ROLE = "SELECT @@read_only AS locked, @@gtid_current_pos AS position, @@report_host AS name"
_TABLES = "SELECT table_schema AS part, COUNT(*) AS number FROM information_schema.tables GROUP BY table_schema"
_SEMI_SYNC = "SHOW STATUS LIKE 'Rpl_semi_sync_%_status'"


def observe_data(desired: Desired, world: World, up: set[str], near: tuple[str, ...], pool: ThreadPoolExecutor) -> Data:
    """`up` names the servers that run, `near` the hosts that answer. All are asked at once."""
    site = desired.site
    running = [s for s in carriers_of(desired) if s.name in up]
    asked = {s.name: pool.submit(_observe_database, world, s) for s in running}
    indexers = desired.members(site.search.group)
    checks = [(c, s) for s in indexers for c in site.group(s.group).checks if c.search]
    indexed = all(s.name in up for s in indexers) and all(world.probe(c, s.name, s.address).ok for c, s in checks)
    answers = {name: answer.result() for name, answer in asked.items()}
    databases = {name: seen for name, (seen, _) in answers.items() if seen is not None}
    tokens = [d.restored for d in sorted(databases.values(), key=lambda d: not d.writable) if d.restored]
    refused = tuple(name for name, (_, refused) in answers.items() if refused)
    writing = any(d.writable for d in databases.values())
    looked = looks_at_shelves(desired.options, databases)
    shelves = tuple(s for s in pool.map(lambda h: _look(world, h), near if looked else ()) if s is not None)
    bare = looked and not any(s.backups for s in shelves)
    return Data(
        restored=tokens[0] if tokens else "",
        indexed=indexed,
        databases=databases,
        # Nobody else can have it where nobody writes, and a dead address takes long to say so.
        holder=_holder(world, databases, refused) if writing else "",
        known="" if writing else find_position(site.site),
        shelves=shelves,
        keeping=find_keepers(site.site) if bare else (),
        refused=refused,
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


_Ask = Callable[..., list[NamedRows]]


def _observe_database(world: World, spec: ServerSpec) -> tuple[SeenDatabase | None, bool]:
    """None when it does not answer; and whether it refuses the monitor. Then it is asked from inside, over SSH."""
    try:
        return _see(world, partial(_ask, world, spec.address)), False
    except Refused:
        pass
    except Unanswered:
        return None, False
    try:
        return _see(world, partial(_ask_inside, world, spec.name)), True
    except (PcloudError, Unanswered, LookupError, ValueError):
        return None, True


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
    role, tables, acknowledged, slave = ask(_ROLE, _TABLES, _SEMI_SYNC, "SHOW SLAVE STATUS")
    numbers = {row["part"]: int(row["number"]) for row in tables}
    restored = ask(_RESTORED)[0] if numbers.get("pcloud") else ()
    source = slave[0] if slave else {}
    foreign = UNMARKED if numbers.get(world.site.database.name) and not numbers.get("pcloud") else ""
    late = source.get("Seconds_Behind_Master")
    return SeenDatabase(
        writable=str(role[0]["locked"]) in ("0", "OFF"),
        position=role[0]["position"] or "",
        received=source.get("Gtid_IO_Pos") or "",
        source=source.get("Master_Host") or "",
        replicating=source.get("Slave_IO_Running") == source.get("Slave_SQL_Running") == "Yes",
        behind_s=None if late is None else float(late),
        semi_sync=any(row["Value"] == "ON" for row in acknowledged),
        restored=str(restored[0]["token"]) if restored else foreign,
    )


def _holder(world: World, databases: Mapping[str, SeenDatabase], refused: tuple[str, ...]) -> str:
    """The server that answers at the service address; where it refuses us there, the primary that refuses us, too."""
    try:
        return str(_ask(world, str(world.site.services[world.site.database.service].address), _ROLE)[0][0]["name"])
    except Refused:
        writing = [n for n, d in databases.items() if d.writable]
        return writing[0] if len(writing) == 1 and writing[0] in refused else ""
    except Unanswered:
        return ""
