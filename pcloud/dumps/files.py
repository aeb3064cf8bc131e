"""A dump's file: told by its first bytes, unpacked while it is read, and hashed as it lies on the disk."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from pcloud.errors import CheckFailed

if TYPE_CHECKING:
    from typing_extensions import Buffer

HEAD = 4096
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a packed file raises when it is damaged, cut off or gone."""

_BOM = b"\xef\xbb\xbf"
_SANDBOX = re.compile(rb"/\*M!999999\\- enable the sandbox mode \*/")
"""A command to newer clients, and an error to those before it; the client is told by an option of its own."""

_UNPACKED: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"BZh", bz2.open),
)

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unzstd it, and name what comes out"),
    (b"\x04\x22\x4d\x18", "is compressed with lz4: unlz4 it, and name what comes out"),
    (b"PK\x03\x04", "is a zip archive: unzip it, and name the .sql in it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it, and name the .sql in it"),
    (b"\x1f\x9d", "is compressed with compress: uncompress it, and name what comes out"),
    (b"\x00\x00\xfe\xff", "is UTF-32: make it UTF-8, iconv -f UTF-32 -t UTF-8"),
    (b"\xff\xfe", "is UTF-16 (PowerShell's > writes that): make it UTF-8, iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "is UTF-16: make it UTF-8, iconv -f UTF-16 -t UTF-8"),
    (b"XBSTCK01", "is a physical backup (mbstream), not SQL; a dump is what mariadb-dump writes"),
    (b"PGDMP", "is a dump of PostgreSQL"),
    (b"-- PostgreSQL", "is a dump of PostgreSQL"),
    (b"--\n-- PostgreSQL", "is a dump of PostgreSQL"),
    (b"SQLite format 3\x00", "is a database of SQLite"),
    (b"Salted__", "is encrypted by openssl: decrypt it, and name what comes out"),
    (b"-----BEGIN PGP", "is encrypted by GnuPG: decrypt it, and name what comes out"),
    (b"age-encryption.org/", "is encrypted by age: decrypt it, and name what comes out"),
    (b"\xfe\x62\x69\x6e", "is a binary log, not SQL; a dump is what mariadb-dump writes"),
    (b"<", "is a web page or XML, not SQL"),
)


class BadDump(Exception):
    """Why a dump cannot be used, as the end of a sentence about it; `line` is its own, counted from 1."""

    def __init__(self, why: str, line: int = 0) -> None:
        self.line = line
        super().__init__(f"{f'line {line} ' if line else ''}{why}")


def glance(path: Path) -> None:
    """What can be said of a dump without reading it all. Raises `BadDump`."""
    try:
        check_file(path)
        with open_dump(path) as file:
            file.read(HEAD)
    except UNREADABLE as error:
        raise BadDump(said(error)) from error


def check_file(path: Path) -> None:
    """Raises `BadDump` for what is no file: reading a pipe would wait for ever."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise BadDump("is a folder (mydumper? MySQL Shell?); name one file of SQL, as mariadb-dump writes it")
    if not stat.S_ISREG(mode):
        raise BadDump("is no file but a pipe, a socket or a device; it has to be read more than once: name a file")


@contextmanager
def open_dump(path: Path, seen: Callable[[bytes], object] | None = None) -> Iterator[IO[bytes]]:
    """A dump's SQL, unpacked by what its first bytes say; `seen` is given every byte of the file itself.

    Raises `BadDump` for what is no SQL, and what `UNREADABLE` names.
    """
    with path.open("rb") as raw:
        source = cast("IO[bytes]", io.BufferedReader(_Seen(raw, seen or (lambda _: None)), 1 << 18))
        head = cast("io.BufferedReader", source).peek(HEAD)[:HEAD]
        unpack = next((unpack for first, unpack in _UNPACKED if head.startswith(first)), None)
        if unpack is None:
            _refuse(head, "")
            text = source
        else:
            text = io.BufferedReader(cast("io.RawIOBase", unpack(source)), 1 << 18)
            head = text.peek(HEAD)[:HEAD]
            if any(head.startswith(first) for first, _ in _UNPACKED):
                raise BadDump("is compressed twice: unpack it once, and name what comes out")
            _refuse(head, " once it is unpacked")
        yield cast("IO[bytes]", io.BufferedReader(_Plain(text), 1 << 18))
        while source.read(1 << 18):  # what follows the last packed byte is the file's, too
            pass


def _refuse(head: bytes, when: str) -> None:
    if not head:
        raise BadDump(f"is empty{when}")
    what = next((what for first, what in _OTHERS if head.startswith(first)), "")
    if not what and head[257:262] == b"ustar":
        what = "is a tar archive: unpack it, and name the .sql in it"
    if not what and b"\x00" in head[:64]:
        wide = head[1:32:2].count(0) > 8 or head[0:32:2].count(0) > 8
        what = "is UTF-16: make it UTF-8, iconv -f UTF-16 -t UTF-8" if wide else "is binary, not SQL"
    if what:
        raise BadDump(f"{what}{when}")


def said(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there"
    if isinstance(error, PermissionError):
        return "may not be read by you"
    if isinstance(error, gzip.BadGzipFile | EOFError | zlib.error | lzma.LZMAError):
        return f"is damaged or cut off: {error}"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


class _Seen(io.RawIOBase):
    """A file that shows each byte of itself as it is read."""

    def __init__(self, file: IO[bytes], seen: Callable[[bytes], object]) -> None:
        self._file, self._show = file, seen

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        data = self._file.read(len(view))
        view[: len(data)] = data
        self._show(data)
        return len(data)


class _Plain(io.RawIOBase):
    """SQL without the mark of UTF-8 and the sandbox line that clients stumble over; its lines stay where they are."""

    def __init__(self, text: IO[bytes]) -> None:
        self._text = text
        self._head = _SANDBOX.sub(b"", text.read(HEAD).removeprefix(_BOM), count=1)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        data, self._head = self._head[: len(view)], self._head[len(view) :]
        data = data or self._text.read(len(view))
        view[: len(data)] = data
        return len(data)


class Sent(io.RawIOBase):
    """A dump's SQL as it is sent, and after its last byte whether the file is the one that was looked at.

    Reading raises `CheckFailed` where it is another one, so that its end never passes for that of the whole.
    """

    def __init__(self, path: Path, sha256: str, after: bytes, next: str) -> None:
        self._path, self._sha256, self._after, self._next = path, sha256, after, next
        self._hash = hashlib.sha256()
        self._opened: Any = None
        self._text: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        try:
            data = self._read(len(view))
        except (*UNREADABLE, BadDump) as error:
            raise self._changed() from error
        view[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        if self._opened is None:
            self._opened = open_dump(self._path, self._hash.update)
            self._text = self._opened.__enter__()
        if self._text is not None:
            if data := self._text.read(size):
                return data
            self._text = None
            self._opened.__exit__(None, None, None)
            if self._hash.hexdigest() != self._sha256:
                raise self._changed()
        data, self._after = self._after[:size], self._after[size:]
        return data

    def _changed(self) -> CheckFailed:
        return CheckFailed(f"{self._path} is not the file any more that was looked at", next=self._next)
