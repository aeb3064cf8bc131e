"""What the database's servers and the search say of their data, each within its deadline."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pcloud.desired import Desired, ServerSpec
from pcloud.errors import PcloudError
from pcloud.journal import find_keepers, find_position
from pcloud.kept import Shelf
from pcloud.last_answers import ask_all
from pcloud.model import SqlCheck
from pcloud.observed import Data, SeenDatabase
from pcloud.recall import looks_at_shelves
from pcloud.replicas import carriers_of
from pcloud.sql import NamedRows, ask_named
from pcloud.steps.backup import look
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
    databases = {name: seen for name, answer in asked.items() if (seen := answer.result()) is not None}
    tokens = [d.restored for d in sorted(databases.values(), key=lambda d: not d.writable) if d.restored]
    writing = any(d.writable for d in databases.values())
    looked = looks_at_shelves(desired.options, databases)
    shelves = tuple(s for s in pool.map(lambda h: _look(world, h), near if looked else ()) if s is not None)
    bare = looked and not any(s.backups for s in shelves)
    frontends = {s.name: s.address for s in desired.everyone if s.role == "frontend" and s.name in up}
    return Data(
        restored=tokens[0] if tokens else "",
        indexed=indexed,
        databases=databases,
        holder=_holder(world) if writing else "",  # nobody else can have it, and a dead address takes long to say so
        known="" if writing else find_position(site.site),
        shelves=shelves,
        keeping=find_keepers(site.site) if bare else (),
        heard={} if writing else ask_all(frontends, pool),
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


def _observe_database(world: World, spec: ServerSpec) -> SeenDatabase | None:
    """None when it does not answer."""
    try:
        role, tables, acknowledged, slave = _ask(world, spec.address, _ROLE, _TABLES, _SEMI_SYNC, "SHOW SLAVE STATUS")
        numbers = {row["part"]: int(row["number"]) for row in tables}
        restored = _ask(world, spec.address, _RESTORED)[0] if numbers.get("pcloud") else ()
    except Unanswered:
        return None
    source = slave[0] if slave else {}
    foreign = UNMARKED if numbers.get(world.site.database.name) and not numbers.get("pcloud") else ""
    late = source.get("Seconds_Behind_Master")
    return SeenDatabase(
        writable=str(role[0]["locked"]) in ("0", "OFF"),
        position=role[0]["position"],
        received=source.get("Gtid_IO_Pos") or "",
        source=source.get("Master_Host") or "",
        replicating=source.get("Slave_IO_Running") == source.get("Slave_SQL_Running") == "Yes",
        behind_s=None if late is None else float(late),
        semi_sync=any(row["Value"] == "ON" for row in acknowledged),
        restored=str(restored[0]["token"]) if restored else foreign,
    )


def _holder(world: World) -> str:
    """The server that answers at the service address."""
    try:
        return str(_ask(world, str(world.site.services[world.site.database.service].address), _ROLE)[0][0]["name"])
    except Unanswered:
        return ""
