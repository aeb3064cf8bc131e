"""YAML that a stranger may have written -> plain data with line numbers, or every problem at once.

`plainyaml` reads the text and `wording` puts a model's complaints in plain words; here they
meet, and files that are not files (devices, FIFOs, endless ones) are kept out.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pcloud.errors import BadDocument, BadInput, Problem
from pcloud.plainyaml import MAX_BYTES, Reader, read
from pcloud.wording import Key, explain, format_path

M = TypeVar("M", bound=BaseModel)

MAX_PROBLEMS = 100


@dataclass(frozen=True)
class Document:
    """One YAML file as plain data (dict, list, str, int, float, bool; never None).

    `lines[path]` is the 1-based line of a key or a list's entry; `()` is the document itself.
    """

    name: str
    data: Any
    lines: Mapping[Key, int]

    def line(self, path: Key) -> int:
        """The line of `path`, or of the nearest thing around it that is written down."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Key, what: str) -> Problem:
        return Problem(self.name, self.line(path), format_path(path), what)


def load_document(path: Path, *, private: bool = False) -> Document:
    """Read one regular file of at most 1 MiB. Raises `BadInput` (no such file) or `BadDocument`.

    `private` keeps values out of the messages: for files of secrets.
    """
    return parse_document(decode_text(read_file(path)[0], show_path(path)), show_path(path), private=private)


def parse_document(text: str, name: str, *, private: bool = False) -> Document:
    """The data of a YAML text. Raises `BadDocument` with every problem, and nothing else."""
    reader = read(text, name, private=private)
    if reader.problems:
        raise BadDocument(_bounded(reader.problems))
    return _document(reader)


def parse(document: Document, model: type[M]) -> M:
    """`document` as a `model`. Raises `BadDocument` with every problem at once."""
    found, problems = _validate(document, model)
    if found is None:
        raise BadDocument(_bounded(list(problems.values())))
    return found


def load_model(path: Path, model: type[M]) -> tuple[Document, M]:
    """Like `load_document` then `parse`, with the problems of both in one go."""
    reader = read(decode_text(read_file(path)[0], show_path(path)), show_path(path))
    document = _document(reader)
    if reader.stopped:
        raise BadDocument(_bounded(reader.problems))
    found, problems = _validate(document, model)
    if found is None or reader.problems:
        # A value that YAML itself left in doubt is reported once, as what it is.
        also = [
            problem
            for path, problem in problems.items()
            if not any(path[:n] in reader.doubtful for n in range(1, len(path) + 1))
        ]
        raise BadDocument(_bounded([*reader.problems, *also]))
    return document, found


def read_file(path: Path, limit: int = MAX_BYTES) -> tuple[bytes, os.stat_result]:
    """A regular file's bytes and its status, read from one descriptor. Raises `BadInput`.

    Never waits: a FIFO, a device or a directory is refused, and nothing beyond `limit` is read.
    """
    where = show_path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening: opening a device can have effects
            raise BadInput("is not a regular file", where=where, next="name a file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadInput("is not a regular file", where=where, next="name a file")
            data = _read_at_most(descriptor, limit + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise BadInput("there is no such file", where=where, next="check the name and the folder") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadInput(f"cannot be read: {reason}", where=where, next="check the name and its permissions") from None
    if len(data) > limit:
        what = f"is larger than {limit // 1024} KiB"
        raise BadInput(what, where=where, next="name the right file, or take something out of it")
    return data, status


def show_path(path: Path) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(path))


def _document(reader: Reader) -> Document:
    return Document(reader.name, reader.data, MappingProxyType(reader.lines))


def _read_at_most(descriptor: int, limit: int) -> bytes:
    parts: list[bytes] = []
    while limit > 0 and (part := os.read(descriptor, limit)):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def decode_text(data: bytes, name: str) -> str:
    """Raises `BadDocument` with the line of the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise BadDocument([Problem(name, line, "", what)]) from None


def _validate(document: Document, model: type[M]) -> tuple[M | None, dict[Key, Problem]]:
    # Strict JSON mode: "4" is not 4, 1 is not true, yet "10.0.0.1" is an address and a list a tuple.
    try:
        return model.model_validate_json(json.dumps(document.data), strict=True), {}
    except ValidationError as error:
        problems: dict[Key, Problem] = {}
        for path, what in explain(error, model, document.data):
            problems.setdefault(path, document.problem(path, what))
        return None, problems


def _bounded(problems: list[Problem]) -> list[Problem]:
    problems = sorted(problems)
    if len(problems) <= MAX_PROBLEMS:
        return problems
    last = problems[MAX_PROBLEMS - 1]
    left = len(problems) - MAX_PROBLEMS
    more = Problem(last.file, last.line, "~", f"and {left} more; mend the ones above first")
    return [*problems[:MAX_PROBLEMS], more]
