"""Transactions from what `mariadb-binlog --verbose` prints. Pure; a line at a time.

Values are as the binary log has them: a TIMESTAMP in seconds since 1970, an ENUM as its number. Control
characters are printed as `\\x0a`, and nothing else is escaped, so that a text which really holds these four
characters cannot be told from a line feed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RowKind = Literal["insert", "delete", "before", "after"]

_EVENT = re.compile(r"#(\d\d)(\d\d)(\d\d) +(\d+):(\d\d):(\d\d) server id \d+ +end_log_pos \d+ *(?:CRC32 \w+ *)?\t?(.*)")
_CHANGE = re.compile(r"### (INSERT INTO|UPDATE|DELETE FROM) `(.+)`\.`(.+)`$")
_VALUE = re.compile(r"###   @(\d+)=(.*)$", re.DOTALL)
_SESSION = re.compile(r"/\*M?!\d+ SET @@session\.(gtid_domain_id|server_id|gtid_seq_no)=", re.IGNORECASE)
_OTHER = ("SET ", "/*", "use ", "DELIMITER", "#", "BINLOG")


@dataclass(frozen=True)
class Row:
    """One row, in the order of the table's columns; None is NULL. An update is two: before and after."""

    table: str
    """`database.table`."""
    kind: RowKind
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class Transaction:
    gtid: str
    at: str
    """When it was committed, by its primary's clock: ISO 8601 in UTC."""
    tables: Mapping[str, int]
    """`database.table` to the number of rows that it changed."""
    statements: tuple[str, ...] = ()
    """The first two words of what is no row: `ALTER TABLE`."""
    rows: tuple[Row, ...] = ()
    """Empty where the text holds no values."""


@dataclass
class _Open:
    gtid: str
    at: str
    tables: Counter[str] = field(default_factory=Counter)
    statements: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


class TransactionReader:
    """Whole transactions, from the lines of one or several binary logs, then of a relay log after a line `# relay`.

    What a log's end has cut off is left out. A transaction of a relay log may go on in its next
    file, or begin anew when the connection that brought it ended.
    """

    def __init__(self) -> None:
        self._open: _Open | None = None
        self._relay = self._group = self._query = False
        self._kind: RowKind = "insert"
        self._update = False
        self._values: list[str | None] | None = None
        self._table = ""

    def feed(self, line: str) -> Transaction | None:
        """A transaction that this line completes. The line comes without its end."""
        if line == "# relay":
            self._relay, self._open = True, None
        elif line.startswith("###"):
            self._row_line(line)
        elif event := _EVENT.match(line):
            return self._event(event)
        elif line.startswith(("START TRANSACTION", "BEGIN")):
            self._group = True
        elif self._query:
            return self._statement(line)
        return None

    def _event(self, event: re.Match[str]) -> Transaction | None:
        year, month, day, hour, minute, second, text = event.groups()
        self._query = False
        if text.startswith("Start: binlog") and not self._relay:
            self._open = None
        elif text.startswith("GTID "):
            gtid = text.split()[1]
            done = self._close() if self._open is not None and self._open.gtid != gtid else None
            self._open = _Open(gtid, f"20{year}-{month}-{day}T{int(hour):02d}:{minute}:{second}Z")
            self._group, self._values = False, None
            return done
        elif text.startswith("Xid = "):
            return self._close()
        elif text.startswith("Query"):
            self._query = True
        return None

    def _statement(self, line: str) -> Transaction | None:
        """A line of a statement: its first one says what it is."""
        if not line or line.startswith(_OTHER):
            return None
        self._query = False
        words = line.removesuffix("/*!*/;").split()[:2]
        if self._group and words[0] in ("COMMIT", "ROLLBACK"):
            return self._close()
        if self._open is not None:
            self._open.statements.append(" ".join(words))
        return None if self._group else self._close()

    def _row_line(self, line: str) -> None:
        if self._open is None:
            return
        if change := _CHANGE.match(line):
            self._end_row()
            self._table = f"{change[2]}.{change[3]}"
            self._update = change[1] == "UPDATE"
            self._kind = "insert" if change[1] == "INSERT INTO" else "delete"
            self._open.tables[self._table] += 1
        elif line in ("### SET", "### WHERE"):
            self._end_row()
            if self._update:
                self._kind = "before" if line == "### WHERE" else "after"
            self._values = []
        elif (value := _VALUE.match(line)) and self._values is not None:
            self._values.append(read_value(value[2]))

    def _end_row(self) -> None:
        if self._open is not None and self._values:
            self._open.rows.append(Row(self._table, self._kind, tuple(self._values)))
        self._values = None

    def _close(self) -> Transaction | None:
        self._end_row()
        done, self._open = self._open, None
        if done is None:
            return None
        return Transaction(done.gtid, done.at, dict(done.tables), tuple(done.statements), tuple(done.rows))


def read_value(text: str) -> str | None:
    """A value as text; None for NULL."""
    if text == "NULL":
        return None
    if len(text) > 1 and text[0] == text[-1] == "'":
        return re.sub(r"\\x([01][0-9a-f])", lambda found: chr(int(found[1], 16)), text[1:-1])
    number = re.fullmatch(r"(-\d+) \(\d+\)", text)  # also as it would be without a sign
    return number[1] if number else text


def is_own(line: str) -> bool:
    """Whether the line would give what follows its old GTID: whoever loads it writes transactions of their own.

    With the old server's number replicas of the server of that name would leave them out.
    """
    return _SESSION.match(line) is not None
