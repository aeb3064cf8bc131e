"""Files for a person with what a dead copy holds: the SQL that would apply it, and a CSV for each table.

They hold customers' data: mode 0600, in a folder that is open to nobody else. None has its name before
it is whole.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

from pcloud.binlogtext import Row, Transaction, TransactionReader, is_own
from pcloud.errors import BadInput

NULL = "\\N"
"""In a CSV, where an empty text is something else."""
FIXED = ("gtid", "committed", "row")


def prepare_folder(folder: Path, stems: Sequence[str]) -> None:
    """Raises `BadInput` for a folder that others may look into, or that has such files already."""
    other = "name a folder that does not exist yet"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode & 0o777
        there = sorted(f.name for f in folder.iterdir() if any(f.name.startswith(f"{stem}.") for stem in stems))
    except OSError as error:
        raise BadInput(f"no folder can be made there: {error.strerror}", where=str(folder), next=other) from error
    if mode & 0o077:
        raise BadInput(
            f"others may look into it (mode {mode:04o})", where=str(folder), next=f"{other}, or chmod 700 it"
        )
    if there:
        raise BadInput(f"it has {there[0]} from before, which is not overwritten", where=str(folder), next=other)


@dataclass
class _Part:
    """A file that gets its name at the end."""

    path: Path
    file: BinaryIO

    @classmethod
    def open(cls, path: Path) -> _Part:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        return cls(path, os.fdopen(os.open(path.with_name(f".{path.name}.part"), flags, 0o600), "wb"))

    def finish(self) -> Path:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        return self.path.with_name(f".{self.path.name}.part").rename(self.path)

    def discard(self) -> None:
        self.file.close()
        self.path.with_name(f".{self.path.name}.part").unlink(missing_ok=True)


@dataclass
class LostFiles:
    """Takes what mariadb-binlog prints, a line at a time. `columns` maps `database.table` to its columns' names."""

    folder: Path
    stem: str
    head: str
    columns: Mapping[str, Sequence[str]]
    _reader: TransactionReader = field(default_factory=TransactionReader)
    _parts: dict[str, _Part] = field(default_factory=dict)
    _texts: dict[str, TextIO] = field(default_factory=dict)

    def take(self, line: bytes) -> Transaction | None:
        """A transaction that this line completes."""
        text = line.decode("utf-8", "surrogateescape")
        if "" not in self._parts:
            self._parts[""] = _Part.open(self.folder / f"{self.stem}.sql")
            self._parts[""].file.write("".join(f"-- {said}\n" for said in self.head.splitlines()).encode())
        if not is_own(text):
            self._parts[""].file.write(line + b"\n")
        done = self._reader.feed(text)
        if done is not None:
            for row in done.rows:
                self._write(done, row)
        return done

    def _write(self, done: Transaction, row: Row) -> None:
        names = self.columns.get(row.table, ())
        if len(names) != len(row.values):
            names = tuple(f"@{n}" for n in range(1, len(row.values) + 1))
        key = f"{row.table}/{len(row.values)}"  # a table may have changed its columns on the way
        first = key not in self._texts
        if first:
            self._texts[key] = self._open_csv(row.table)
        writer = csv.writer(self._texts[key], lineterminator="\n")
        if first:
            writer.writerow([*FIXED, *names])
        writer.writerow([done.gtid, done.at, row.kind, *(NULL if v is None else v for v in row.values)])

    def _open_csv(self, table: str) -> TextIO:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{self.stem}.{table}")
        number = "" if name not in self._parts else f".{len(self._parts)}"
        part = self._parts[name + number] = _Part.open(self.folder / f"{name}{number}.csv")
        return TextIOWrapper(part.file, "utf-8", "surrogateescape", newline="", write_through=True)

    def finish(self) -> list[Path]:
        """The files, whole and named."""
        return [part.finish() for part in self._parts.values()]

    def discard(self) -> None:
        for part in self._parts.values():
            part.discard()
