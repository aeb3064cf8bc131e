"""SQL cut into its statements as the mariadb client cuts it: strings, comments and DELIMITER heeded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import IO

from pcloud.dumps.files import BadDump

LONGEST = 64 << 20
"""The servers' max_allowed_packet, in bytes."""

_FILL = 1 << 18
# Atomic groups, not possessive ones: those of Python 3.11.2 lose their place where an alternative fails late.
_COMMENT = rb"(?:--(?=\s)[^\n]*+|\#[^\n]*+|/\*(?!M?!)(?>(?:[^*]+|\*(?!/))*)\*/)"
_BETWEEN = re.compile(
    rb"(?P<blank>\s++)|(?P<comment>%s)|(?i:delimiter)[ \t]++(?P<delimiter>[^\s]++)[^\n]*+" % _COMMENT, re.DOTALL
)

_BEGINS = re.compile(rb"\s|--\s|\#|/\*(?!M?!)|(?i:delimiter)[ \t]++\S")
_AHEAD = 256


@dataclass(frozen=True)
class Piece:
    """A statement without its delimiter, or a comment between two; `line` is where it begins, from 1."""

    text: bytes
    line: int
    comment: bool = False


@cache
def _statement(delimiter: bytes) -> re.Pattern[bytes]:
    first, whole = re.escape(delimiter[:1]), re.escape(delimiter)
    strings = rb"""'(?>(?:[^'\\]+|\\.|'')*)'|"(?>(?:[^"\\]+|\\.|"")*)"|`[^`]*+`"""
    plain = rb"""[^'"`\#/\\%s-]+""" % first
    one = rb"(?!%s)[%s\#/\\-]" % (whole, first)
    return re.compile(rb"((?>(?:%s|%s|%s|%s)*))%s" % (plain, strings, _COMMENT, one, whole), re.DOTALL)


class _Text:
    """What is read of a stream and not yet taken."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.data, self.at, self.line, self.ended = b"", 0, 1, False

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """At where we are; reads as much more as it takes, twice as much each time: long statements cost no square."""
        while True:
            found = pattern.match(self.data, self.at)
            whole = found is not None and found.end() < len(self.data)
            if whole or self.ended:
                return found
            if len(self.data) - self.at > LONGEST:
                raise self.too_long()
            self.fill()

    def too_long(self) -> BadDump:
        return BadDump(f"begins a statement of more than {LONGEST >> 20} MiB, and the servers take no such", self.line)

    def begins_between(self) -> bool:
        """Whether blanks, a comment or a DELIMITER come next, and no statement."""
        while len(self.data) - self.at < _AHEAD and not self.ended:
            self.fill()
        return _BEGINS.match(self.data, self.at) is not None

    def fill(self) -> None:
        rest = self.data[self.at :]
        more = self._stream.read(max(_FILL, len(rest)))
        self.data, self.at, self.ended = rest + more, 0, not more

    def take(self, found: re.Match[bytes]) -> None:
        self.line += found[0].count(b"\n")
        self.at = found.end()


def read_pieces(stream: IO[bytes]) -> Iterator[Piece]:
    """Raises `BadDump` for a statement that has no end, or is longer than a server takes."""
    text, delimiter = _Text(stream), b";"
    while True:
        between = text.begins_between()
        if text.at == len(text.data):
            return
        found = text.match(_BETWEEN if between else _statement(delimiter))
        if found is None:
            raise BadDump("begins a statement that does not end: the dump is cut off", text.line)
        if not between and len(found[1]) > LONGEST:
            raise text.too_long()
        if not between:
            if found[1].strip():
                yield Piece(found[1], text.line)
        elif found["comment"]:
            yield Piece(found["comment"], text.line, comment=True)
        elif found["delimiter"]:
            delimiter = found["delimiter"]
        text.take(found)
