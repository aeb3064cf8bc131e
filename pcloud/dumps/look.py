"""What a restore would make of a dump: read through once, before anything is put away for it.

The servers are Debian 12's MariaDB 10.11: what it cannot take was tried on it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pcloud.desired import Dump
from pcloud.dumps.files import UNREADABLE, BadDump, check_file, open_dump, said
from pcloud.dumps.statements import Piece, read_pieces

VERSION = 101199
"""The servers' MariaDB, as versions are written in `/*!NNNNNN ... */`."""
_MYSQL_ONLY = range(50700, 100000)
"""Comments of these versions are MySQL's; MariaDB skips them."""

_OWN = frozenset({"root", "mysql", "mariadb.sys", "replica", "monitor", "shop", "sphinx"})
_FIRST = re.compile(
    r"\s*\(?\s*(alter|analyze|begin|cache|call|change|check|checksum|commit|create|deallocate|delete|do|drop|execute|"
    r"flush|grant|handler|insert|install|lock|optimize|prepare|release|rename|repair|replace|reset|revoke|rollback|"
    r"savepoint|select|set|show|start|stop|truncate|unlock|update|use|values|with|xa)\b",
    re.IGNORECASE,
)
_LAST = re.compile(rb"-- Dump (completed|end time)")
_RESTORES = re.compile(r"SET\s+@?@?[\w.]+\s*=\s*(IFNULL\s*\(\s*)?@OLD_\w+", re.IGNORECASE)
_DATED = re.compile(rb"-- \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")

_STRING = re.compile(r"""'(?>(?:[^'\\]+|\\.|'')*)'|"(?>(?:[^"\\]+|\\.|"")*)\"""", re.DOTALL)
_VERSIONED = re.compile(r"/\*(M?)!(\d{5,6})?((?>(?:[^*]+|\*(?!/))*))\*/")
_NAME = r"(?:`((?:[^`]|``)+)`|([\w$]+))"
_TARGET = re.compile(
    rf"(?:INSERT|REPLACE|CREATE|DROP|ALTER|LOCK|TRUNCATE|UPDATE|DELETE|RENAME)\b(?:\s+(?:LOW_PRIORITY|DELAYED|IGNORE|INTO"
    rf"|OR|REPLACE|TEMPORARY|TABLES?|VIEW|FROM|IF|NOT|EXISTS|SEQUENCE|TRIGGER|PROCEDURE|FUNCTION|EVENT|AGGREGATE|ALGORITHM"
    rf"\s*=\s*\w+|SQL\s+SECURITY\s+\w+|DEFINER\s*=\s*\S+)(?=\s))*\s+{_NAME}\s*\.\s*{_NAME}",
    re.IGNORECASE,
)
_SCHEMA = re.compile(
    rf"(USE|(?:CREATE|DROP|ALTER)\s+(?:OR\s+REPLACE\s+)?(?:DATABASE|SCHEMA)(?:\s+IF(?:\s+NOT)?\s+EXISTS)?)\s+{_NAME}",
    re.IGNORECASE,
)
_FOREIGN = re.compile(r"(?<![`\w])(\w+_0900_\w+|gb18030\w*)(?![`\w])", re.IGNORECASE)
"""Collations of MySQL 8, and a character set that only MySQL has."""
_DEFINER = re.compile(r"DEFINER\s*=\s*([`'\"]?)([^`'\"@\s]+)\1\s*@\s*([`'\"]?)([^`'\"\s*]+)\3", re.IGNORECASE)
_ACCOUNT = re.compile(r"([`'\"]?)([\w.-]+)\1\s*@\s*([`'\"]?)([^`'\"\s,;]+)\3", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:USER|FOR|TO)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?[`'\"]?([\w.-]+)", re.IGNORECASE)
_OF_ACCOUNTS = re.compile(
    r"(CREATE\s+(?:OR\s+REPLACE\s+)?|ALTER\s+|DROP\s+|RENAME\s+)(?:USER|ROLE)\b|GRANT\b|REVOKE\b|SET\s+PASSWORD",
    re.IGNORECASE,
)
_TABLE = re.compile(rf"CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:{_NAME}\s*\.\s*)?{_NAME}", re.I)
_ROWS = re.compile(rf"(?:INSERT|REPLACE)\b[\w\s]*?\bINTO\s+(?:{_NAME}\s*\.\s*)?{_NAME}", re.IGNORECASE)
_PLAIN_ROWS = re.compile(rb"INSERT INTO `([^`]+)` VALUES\b")
"""As most of a dump is written: looked at no closer, for there may be millions."""
_ENGINE = re.compile(r"\)[^()]*\bENGINE\s*=\s*(\w+)", re.IGNORECASE)
_BYTES = re.compile(r"\b(?:tiny|medium|long)?blob\b|\b(?:var)?binary\s*\(|\bbit\s*\(|\bgeometry\b|\bpoint\b", re.I)
_NAMES_SET = re.compile(r"SET\s+NAMES\s+'?(\w+)", re.IGNORECASE)

_NOT_TAKEN: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"\bGTID_PURGED\b", re.I),
        "sets GTID_PURGED, which only MySQL has: dump it again with mysqldump --set-gtid-purged=OFF",
    ),
    (re.compile(r"\bTIME_TRUNCATE_FRACTIONAL\b"), "sets an sql_mode that only MySQL has: TIME_TRUNCATE_FRACTIONAL"),
    (
        re.compile(r"\bCREATE\s+TABLE\b.*\bKEY\s+[^(),]*\(\s*\(", re.I | re.DOTALL),
        "has an index on an expression, which MariaDB does not know: make it one on a generated column, then dump",
    ),
)


@dataclass
class _Seen:
    """What has been read so far of a dump for `database`."""

    database: str
    accounts: set[str]
    ending: bool = False
    saves: bool = False
    adminer: bool = False
    names: str = "utf8mb4"
    tables: set[str] = field(default_factory=set)
    holds_bytes: set[str] = field(default_factory=set)
    loose: dict[str, str] = field(default_factory=dict)
    """Tables that are not transactional, and their engines."""
    definers: dict[str, int] = field(default_factory=dict)
    statements: int = 0
    size: int = 0


def look(path: Path, database: str, accounts: Iterable[str] = ()) -> Dump:
    """`accounts`: as `user@host`, those that the servers make themselves. Raises `BadDump` with the first thing wrong.

    One pass over the file; its digest is that of all its bytes as they lie on the disk.
    """
    digest, seen = hashlib.sha256(), _Seen(database, {"root@localhost", "mariadb.sys@localhost", *accounts})
    try:
        check_file(path)
        with open_dump(path, digest.update) as text:
            for piece in read_pieces(text):
                seen.size += len(piece.text)
                _take_comment(piece, seen) if piece.comment else _take(piece, seen)
    except UNREADABLE as error:
        raise BadDump(said(error)) from error
    _conclude(seen)
    return Dump(str(path), digest.hexdigest(), seen.size, _notes(seen))


def _take_comment(piece: Piece, seen: _Seen) -> None:
    seen.adminer = seen.adminer or piece.text.startswith(b"-- Adminer")
    seen.ending = seen.ending or bool(_LAST.match(piece.text) or (seen.adminer and _DATED.match(piece.text)))


def _take(piece: Piece, seen: _Seen) -> None:
    seen.statements += 1
    if (plain := _PLAIN_ROWS.match(piece.text)) is not None:
        seen.ending = False
        _check_text(piece, plain[1].decode("utf-8", "replace"), seen)
        return
    start = piece.text if piece.text.startswith(b"/*") else piece.text[:2000]
    head = _effective(start.decode("latin-1"))
    word = _FIRST.match(head)
    if not head.strip():
        return  # of another version: nothing is done
    if word is None:
        raise BadDump("is neither SQL nor a comment (a program's message in the dump?)", piece.line)
    verb = word[1].lower()
    seen.ending = (bool(_RESTORES.match(head.strip())) and seen.saves) or (verb == "commit" and seen.ending)
    if verb in ("insert", "replace"):
        _take_rows(piece, head, seen)
        return
    text = _effective(piece.text.decode("utf-8", "replace"))
    seen.saves = seen.saves or "@OLD_" in text
    seen.names = m[1].lower() if (m := _NAMES_SET.search(text)) else seen.names
    _check_schema(text, piece.line, seen)
    _check_taken(text, piece.line)
    _check_accounts(text, piece.line, seen)
    _note_table(text, seen)


def _effective(text: str) -> str:
    """What MariaDB does of a statement: versioned comments opened, or left out."""

    def opened(found: re.Match[str]) -> str:
        version = int(found[2] or 0)
        done = version <= VERSION and (found[1] == "M" or version not in _MYSQL_ONLY)
        return f" {found[3]} " if done else " " + "\n" * found[3].count("\n")

    if "/*" not in text:
        return text
    return _VERSIONED.sub(opened, text) if text.count("/*!") + text.count("/*M!") else text


def _take_rows(piece: Piece, head: str, seen: _Seen) -> None:
    _check_target(head, piece.line, seen)
    _check_text(piece, _name(m, 3) if (m := _ROWS.search(head)) else "", seen)


def _check_text(piece: Piece, table: str, seen: _Seen) -> None:
    """Raises `BadDump` for rows that would lose what follows their first byte that is no UTF-8."""
    if seen.names in ("utf8mb4", "utf8", "utf8mb3") and table not in seen.holds_bytes and b"_binary" not in piece.text:
        try:
            piece.text.decode()
        except UnicodeDecodeError as error:
            line = piece.line + piece.text[: error.start].count(b"\n")
            raise BadDump(
                "holds text that is not UTF-8, though the dump says that it is (Latin-1?): make it UTF-8 with iconv",
                line,
            ) from None


def _check_schema(text: str, line: int, seen: _Seen) -> None:
    found = _SCHEMA.match(text.strip())
    if found is not None:
        _refuse_schema(_name(found, 2), line + _lead(text), seen.database)
    _check_target(text, line, seen)


def _check_target(text: str, line: int, seen: _Seen) -> None:
    found = _TARGET.match(_STRING.sub("''", text).strip())
    if found is not None:
        _refuse_schema(_name(found, 1), line + _lead(text), seen.database)


def _lead(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def _refuse_schema(name: str, line: int, database: str) -> None:
    if name == database:
        return
    if name in ("mysql", "sys", "performance_schema", "information_schema", "pcloud"):
        why = "a server's own" if name != "pcloud" else "pcloud's own"
        what = f"is about the database {name}, {why}"
    else:
        what = f"is about the database {name}, and the inventory's database.name is {database}"
    raise BadDump(
        f"{what}: dump the shop alone, mariadb-dump --single-transaction --routines --events {database}", line
    )


def _check_taken(text: str, line: int) -> None:
    masked = _STRING.sub(lambda m: "'" + "\n" * m[0].count("\n") + "'", text)
    if (found := _FOREIGN.search(masked)) is not None:
        other = "utf8mb4" if found[1].lower() == "gb18030" else "utf8mb4_unicode_520_ci"
        why = f"wants {found[1]}, which MariaDB 10.11 does not have: sed 's/{found[1]}/{other}/g'"
        raise BadDump(why, line + masked[: found.start()].count("\n"))
    for pattern, why in _NOT_TAKEN:
        if (found := pattern.search(masked if pattern.flags & re.DOTALL else text)) is not None:
            raise BadDump(why, line + text[: found.start()].count("\n"))


def _check_accounts(text: str, line: int, seen: _Seen) -> None:
    stripped = text.strip()
    if _OF_ACCOUNTS.match(stripped):
        named = {m[2] for m in _ACCOUNT.finditer(stripped)}
        named |= {
            m[2] for m in re.finditer(r"\b(USER|FOR|TO)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?[`'\"]?([\w.-]+)", stripped)
        }
        own = sorted(named & _OWN)
        if own or re.match(r"SET\s+PASSWORD\s*=", stripped, re.IGNORECASE):
            whose = own[0] if own else "root"
            raise BadDump(f"changes the account {whose}, on which the servers stand: leave it out of the dump", line)
        if re.match(r"CREATE\b", stripped, re.IGNORECASE):
            seen.accounts |= {f"{m[2]}@{m[4]}" for m in _ACCOUNT.finditer(stripped)}
        return
    for found in _DEFINER.finditer(text):
        seen.definers.setdefault(f"{found[2]}@{found[4]}", line + text[: found.start()].count("\n"))


def _note_table(text: str, seen: _Seen) -> None:
    found = _TABLE.match(text.strip())
    if found is None:
        return
    name = _name(found, 3)
    seen.tables.add(name)
    if _BYTES.search(_STRING.sub("''", text)):
        seen.holds_bytes.add(name)
    engine = _ENGINE.search(_STRING.sub("''", text))
    if engine is not None and engine[1].lower() not in ("innodb", "sequence"):
        seen.loose[name] = engine[1]


def _name(found: re.Match[str], first: int) -> str:
    """A name that stands in one of two groups: in backticks, or bare."""
    return (found[first] or found[first + 1] or "").replace("``", "`")


def _conclude(seen: _Seen) -> None:
    if not seen.statements:
        raise BadDump("holds no statement")
    if not seen.ending:
        raise BadDump(
            "is cut off, or was made without its last line (--skip-comments --compact): it does not end with "
            "'-- Dump completed'"
        )
    if not seen.tables:
        raise BadDump("makes no table (--no-create-info, or of an empty database?)")
    for account, line in seen.definers.items():
        if account not in seen.accounts:
            user, host = account.split("@", 1)
            raise BadDump(
                f"has the definer {account}, an account that the servers do not make; what it defines would fail "
                f"once it is used: sed 's/DEFINER=`{user}`@`{host}`/DEFINER=CURRENT_USER/'",
                line,
            )


def _notes(seen: _Seen) -> tuple[str, ...]:
    if not seen.loose:
        return ()
    some = ", ".join(f"{name} ({engine})" for name, engine in sorted(seen.loose.items())[:5])
    more = f" and {len(seen.loose) - 5} more" if len(seen.loose) > 5 else ""
    return (f"not transactional, so neither safe in a crash nor the same on the replica: {some}{more}",)
