"""Which acknowledged orders may be missing: read from the sentences that were said before they were given up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_NONE = re.compile(r"no acknowledged order is lost")
_COUNTED = re.compile(r"up to (\d+) transactions of the last \d+ s are lost")
_UNKNOWN = re.compile(r"how much is lost is unknown, since (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|a time that nobody knows)")
_DUMP = re.compile(r"the latest dump, and nothing that came after it")
_UNDONE = re.compile(r"what was put away .* comes back")
_SINCE = re.compile(r"what was written since, (\d+) transactions")
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
_BACKUP = re.compile(
    rf"the backup of ({_TIME})(?:.* and the binary log up to \S* at ({_TIME}))?"
    r".*(?:may be lost|transactions are lost, up to \S+, and all that came after those|and not streamed is)"
)


@dataclass(frozen=True)
class Said:
    """A loss as it was said: up to `number` orders (None: any number), none acknowledged before `since` (epoch)."""

    number: int | None = 0
    since: float = 0.0


def read(sentence: str) -> Said:
    """What a plan's reason for a promotion or a restore gives up. Raises `ValueError` where it says nothing of it."""
    if _NONE.search(sentence):
        return Said()
    if counted := _COUNTED.search(sentence):
        return Said(int(counted[1]))
    if unknown := _UNKNOWN.search(sentence):
        return Said(None, _epoch(unknown[1]))
    if _UNDONE.search(sentence):
        return Said(max((int(n) for n in _SINCE.findall(sentence)), default=0))
    if _DUMP.search(sentence):
        return Said(None)
    if backup := _BACKUP.search(sentence):
        return Said(None, _epoch(backup[2] or backup[1]))
    raise ValueError(f"no word about what is lost: {sentence}")


def _epoch(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def unsaid(missing: Mapping[int, float], said: Iterable[str]) -> list[int]:
    """The missing orders (number to the epoch of their acknowledgement) that no sentence covers."""
    left = dict(missing)
    for one in (read(s) for s in said):
        covered = sorted((n for n, at in left.items() if at >= one.since - 1), key=lambda n: -left[n])
        for number in covered if one.number is None else covered[: one.number]:
            del left[number]
    return sorted(left)
