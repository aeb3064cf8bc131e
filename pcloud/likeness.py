"""Two copies of a MariaDB's data compared: every definition, count and checksum, without moving a row.

What is asked is SQL text, what is answered is lines; both copies answer the same SQL. Left out are the server's own
schemas (`OWN`): what is in `pcloud` differs from server to server by intent. Accounts are compared by a digest, so
that no password's hash leaves its server.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pcloud.gtid import by_domain

OWN = ("information_schema", "performance_schema", "mysql", "sys", "pcloud")
READ_S = 600
"""No statement of a reading takes longer, and none stands idle in its transaction for a twentieth of that: MariaDB
itself ends it, whatever becomes of the program that asked. Who changes a table's definition waits that long for it."""

_OWN = "('" + "', '".join(OWN) + "')"
_BEGIN = f"""SET SESSION sql_mode='', time_zone='+00:00', group_concat_max_len=1073741824, lock_wait_timeout=10,
    max_statement_time={READ_S}, idle_transaction_timeout={READ_S // 20};
"""


def _digest(columns: str) -> str:
    given = ", ".join(f"COALESCE({c}, '-')" for c in columns.split())
    return f"SHA2(CONCAT_WS('|', {given}), 256)"


_VIEW = _digest("view_definition check_option definer security_type character_set_client algorithm")
_ROUTINE = _digest("param_list returns body definer security_type sql_mode is_deterministic sql_data_access")
_TRIGGER = _digest("event_manipulation event_object_table action_timing action_order action_statement sql_mode definer")
_EVENT = _digest("event_definition event_type execute_at interval_value interval_field starts ends sql_mode definer")
"""Not whether it runs: a replica's events do not."""

LISTING = f"""{_BEGIN}
SELECT '#', 'table', CONCAT('`', REPLACE(table_schema, '`', '``'), '`.`', REPLACE(table_name, '`', '``'), '`'),
    IF(table_type = 'SEQUENCE', table_type, COALESCE(engine, '-'))
    FROM information_schema.tables
    WHERE table_schema NOT IN {_OWN} AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE');
SELECT '#', 'database', schema_name, CONCAT(default_character_set_name, ' ', default_collation_name)
    FROM information_schema.schemata WHERE schema_name NOT IN {_OWN};
SELECT '#', 'view', CONCAT(table_schema, '.', table_name),
    {_VIEW}
    FROM information_schema.views WHERE table_schema NOT IN {_OWN};
SELECT '#', LOWER(type), CONCAT(db, '.', name),
    {_ROUTINE}
    FROM mysql.proc WHERE db NOT IN {_OWN};
SELECT '#', 'trigger', CONCAT(trigger_schema, '.', trigger_name),
    {_TRIGGER}
    FROM information_schema.triggers WHERE trigger_schema NOT IN {_OWN};
SELECT '#', 'event', CONCAT(event_schema, '.', event_name),
    {_EVENT}
    FROM information_schema.events WHERE event_schema NOT IN {_OWN};
SELECT '#', 'account', CONCAT(user, '@', host),
    SHA2(JSON_REMOVE(priv, '$.password_last_changed', '$.version_id'), 256) FROM mysql.global_priv;
SELECT '#', 'grants', CONCAT(grantee, ' on ', what),
    SHA2(GROUP_CONCAT(privilege_type, is_grantable ORDER BY privilege_type), 256) FROM (
    SELECT grantee, table_schema AS what, privilege_type, is_grantable FROM information_schema.schema_privileges
    UNION ALL SELECT grantee, CONCAT(table_schema, '.', table_name), privilege_type, is_grantable
        FROM information_schema.table_privileges
    UNION ALL SELECT grantee, CONCAT(table_schema, '.', table_name, '.', column_name), privilege_type, is_grantable
        FROM information_schema.column_privileges
    UNION ALL SELECT CONCAT(user, '@', host), CONCAT(db, '.', routine_name), proc_priv, '' FROM mysql.procs_priv
    UNION ALL SELECT CONCAT(user, '@', host), role, 'role', admin_option FROM mysql.roles_mapping) given
    GROUP BY grantee, what;
"""
"""Prints what there is: a line `#`, kind, name, value each."""

_SNAPSHOT = """SELECT '#', 'position', 'before', @@gtid_slave_pos;
SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;
START TRANSACTION WITH CONSISTENT SNAPSHOT;
SELECT '#', 'position', 'logged', BINLOG_GTID_POS(
    (SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'BINLOG_SNAPSHOT_FILE'),
    (SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'BINLOG_SNAPSHOT_POSITION'));
"""
"""MariaDB gives a snapshot's place in its own binary log, exactly, while it goes on applying: nothing has to be stopped
for it. Source: MariaDB's documentation, "Enhancements for START TRANSACTION WITH CONSISTENT SNAPSHOT"."""


@dataclass(frozen=True)
class Likeness:
    """What a copy is compared by: kind and name to a value."""

    values: Mapping[tuple[str, str], str]

    @property
    def tables(self) -> Mapping[str, str]:
        """Each table, as SQL quotes it, to its engine."""
        return {name: value for (kind, name), value in self.values.items() if kind == "table"}

    @property
    def rows(self) -> int:
        return sum(int(v) for (kind, _), v in self.values.items() if kind == "rows" and v.isdigit())

    def position(self, name: str) -> str:
        return self.values.get(("position", name), "").replace("NULL", "")

    def __or__(self, other: Likeness) -> Likeness:
        return Likeness({**self.values, **other.values})


def ask_definitions(tables: Mapping[str, str]) -> str:
    """SQL for what no snapshot covers: what tables are, and the rows of those that are not transactional."""
    loose = [name for name, engine in tables.items() if engine not in ("InnoDB", "SEQUENCE")]
    shown = (f"SELECT '#', 'definition', {_text(n)}; SHOW CREATE TABLE {n};\n" for n in tables)
    return "".join((_BEGIN, *shown, *(_ask_rows(n) for n in loose)))


def ask_rows(tables: Mapping[str, str]) -> str:
    """SQL for the rows of transactional tables, all of one moment, and the position of that."""
    return "".join((_BEGIN, _SNAPSHOT, *(_ask_rows(n) for n, e in tables.items() if e == "InnoDB"), "COMMIT;\n"))


def _ask_rows(name: str) -> str:
    return (
        f"SELECT '#', 'rows', {_text(name)}, COUNT(*) FROM {name};\n"
        f"SELECT '#', 'checksum', {_text(name)}; CHECKSUM TABLE {name} EXTENDED;\n"
    )


def _text(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"


def read_likeness(text: str) -> Likeness:
    """What the client printed, in batch mode; a value that takes lines of its own is kept as its digest."""
    found: dict[tuple[str, str], str] = {}
    open_ended: dict[tuple[str, str], list[str]] = {}
    at: tuple[str, str] | None = None
    for line in text.splitlines():
        words = line.split("\t")
        if words[0] == "#" and len(words) in (3, 4):
            at = words[1], _plain(words[2])
            if len(words) == 4:
                found[at] = words[3]
            else:
                open_ended[at] = []
        elif at in open_ended:
            open_ended[at].append(line)
    for key, lines in open_ended.items():
        whole = re.sub(r" AUTO_INCREMENT=[0-9]+", "", "\n".join(lines))  # what was given up counts in it, too
        unread = key[0] == "checksum" and whole.endswith("\tNULL")
        found[key] = "" if unread else hashlib.sha256(whole.encode()).hexdigest()
    return Likeness(found)


def _plain(word: str) -> str:
    """As it was before the client escaped it."""
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t", "0": "\0"}.get(m[1], m[1]), word)


def differences(server: Likeness, made: Likeness) -> tuple[str, ...]:
    """What differs of the data that were made from what the server has, a clause each: tables first."""
    kinds = ("table", "rows", "definition", "checksum")
    keys = sorted(
        {*server.values, *made.values},
        key=lambda k: (0, k[1], kinds.index(k[0])) if k[0] in kinds else (1, k[0], k[1]),
    )
    said: dict[str, str] = {}
    for key in keys:
        theirs, ours = server.values.get(key), made.values.get(key)
        if key[0] != "position" and (theirs != ours or theirs == ""):
            kind = "table" if key[0] in kinds else key[0]
            name = f"{kind} {key[1].replace('`', '')}"
            said.setdefault(name, f"{name} {_how(key[0], theirs, ours)}")
    return tuple(said.values())


def _how(kind: str, theirs: str | None, ours: str | None) -> str:
    if ours is None:
        return "is not in it"
    if theirs is None:
        return "is in it alone"
    if kind == "rows":
        return f"has {ours} rows in it, and {theirs} on the server"
    return {"checksum": "has other rows", "definition": "is defined otherwise"}.get(kind, "is another one")


def unstable(before: Likeness, after: Likeness) -> tuple[str, ...]:
    """What changed between two readings of the same server."""
    return tuple(sorted({k[1].replace("`", "") for k, _ in {*before.values.items()} ^ {*after.values.items()}}))


def position_of(likeness: Likeness) -> str:
    """The snapshot's position. A domain of which its server has logged nothing stands where it stood before."""
    logged, before = (by_domain(likeness.position(name)) for name in ("logged", "before"))
    return ",".join(text for _, (_, text) in sorted({**before, **logged}.items()))
