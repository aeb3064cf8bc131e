"""What dead copies of the data hold that the living data have not: from files' names, notes and positions. Pure.

A copy is dead when its server runs as a newer generation, or was put away. What its disk holds is
read once (`steps/salvage.py`), and kept beside it as a note: its position is in the note's name, so that
a look at the pool is enough, and the rest in its text.

Safety, as sentences:
- A copy that nobody has read may hold anything, and is said to.
- A note's count is believed while the living data go on from where they were when it was written;
  else the positions alone decide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from pcloud.desired import Names
from pcloud.gtid import behind
from pcloud.observed import Data, Observed

LONGEST = 150
"""Characters of a position in a file's name, which may have 255 in all."""


@dataclass(frozen=True)
class DeadCopy:
    """A disk of a server that carries the data, which must not run any more."""

    host: str
    server: str
    generation: int
    file: str
    tombstone: bool = False
    note: str = ""
    """The file that says what was read of it; empty when nobody has looked yet."""
    position: str = ""
    """How far it got, by the note's name."""

    def __str__(self) -> str:
        away = ", put away" if self.tombstone else ""
        return f"{self.server}'s copy of generation {self.generation} on {self.host}{away}"


@dataclass(frozen=True)
class Reading:
    """What was read of a copy's binary log, and what it was compared with. Times are ISO 8601 in UTC."""

    position: str
    """Empty: it never held data."""
    held: str
    """The living primary's position at that moment."""
    missing: int
    """How many transactions the living data had not."""
    first: str = ""
    last: str = ""
    """When the first and the last of them were committed."""
    partial: bool = False
    """There are more, which were not looked at or are no longer in its log."""

    def to_json(self) -> str:
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True)
class Finding:
    """One sentence for a person, and the same as data."""

    host: str
    server: str
    generation: int
    tombstone: bool
    missing: int | None
    """None: nobody has read it yet."""
    first: str
    last: str
    text: str
    next: str


def find_copies(site: str, carriers: Iterable[str], observed: Observed, newest: Mapping[str, int]) -> list[DeadCopy]:
    """Every dead copy on the hosts that answer, in their order; those that were put away after the others.

    `newest` maps servers to their newest generation (`generations.py`).
    """
    servers = "|".join(map(re.escape, carriers))
    pattern = re.compile(rf"{re.escape(site)}\.({servers})\.g(\d+)(\.tombstone-[0-9-]+)?\.qcow2")
    found = []
    for host in observed.hosts:
        for file in host.volumes if host.reachable else ():
            match = pattern.fullmatch(file)
            if match is None or (match[3] is None and int(match[2]) >= newest.get(match[1], 0)):
                continue
            note, position = _note_of(file, host.volumes)
            copy = DeadCopy(host.name, match[1], int(match[2]), file, match[3] is not None, note, position)
            found.append(copy)
    return sorted(found, key=lambda c: (c.tombstone, observed.position(c.host)))


def _note_of(disk: str, volumes: Iterable[str]) -> tuple[str, str]:
    pattern = re.compile(rf"{re.escape(disk.removesuffix('.qcow2'))}\.at-([0-9,-]*)\.note")
    return next(((v, match[1]) for v in volumes if (match := pattern.fullmatch(v)) is not None), ("", ""))


def living_position(data: Data) -> str:
    """Of the primary; empty when none answers."""
    writing = {n: d for n, d in data.databases.items() if d.writable}
    found = writing.get(data.holder) or next(iter(writing.values()), None)
    return found.position if found is not None else ""


def find_findings(
    site: str, copies: Iterable[DeadCopy], held: str, notes: Mapping[tuple[str, str], str]
) -> list[Finding]:
    """What to tell of each copy; of one that holds nothing else, and of tombstones nobody has read: nothing.

    `notes` maps host and file to the notes' texts, as far as they could be read. Without a living
    primary (`held` is empty) nothing can be compared.
    """
    return [f for copy in copies if (f := _finding(site, copy, held, notes.get((copy.host, copy.note), "")))]


def _finding(site: str, copy: DeadCopy, held: str, note: str) -> Finding | None:
    data = (copy.host, copy.server, copy.generation, copy.tombstone)
    if not copy.note:
        text = f"nobody has read yet what {copy} holds"
        return None if copy.tombstone else Finding(*data, None, "", "", text, f"pcloud salvage {site}")
    reading = read_note(note) or Reading(copy.position, "", 0)
    missing = behind(held, copy.position) if held else 0
    if held and reading.held and not behind(held, reading.held):
        missing = max(missing, reading.missing)
    if not missing:
        return None
    if missing != reading.missing:  # the times belong to another comparison
        reading = replace(reading, missing=missing, first="", last="", partial=False)
    return _told(site, copy, reading)


def _told(site: str, copy: DeadCopy, reading: Reading) -> Finding:
    number = f"{'at least ' if reading.partial else ''}{reading.missing}"
    noun = "transaction" if reading.missing == 1 else "transactions"
    when = f", from {reading.first} to {reading.last}" if reading.first else ""
    text = f"{copy} holds {number} {noun} that the shop's data have not{when}"
    step = f"pcloud salvage {site}"
    data = (copy.host, copy.server, copy.generation, copy.tombstone)
    return Finding(*data, reading.missing, reading.first, reading.last, text, step)


def sentence(site: str, copy: DeadCopy, reading: Reading) -> str:
    """What an inspection found, for the run's report; empty when the living data hold all of it."""
    if not reading.missing:
        return ""
    found = _told(site, copy, reading)
    return f"{found.text}: {found.next}"


def read_note(text: str) -> Reading | None:
    """None for a text that is no note."""
    try:
        return Reading(**json.loads(text))
    except (ValueError, TypeError):
        return None


def note_name(names: Names, position: str) -> str:
    """The note's file. Of a position in many domains the highest ones are enough.

    They are the latest timelines': who has a transaction of a timeline has all that it began from.
    """
    words = sorted(filter(None, position.split(",")), key=lambda gtid: int(gtid.partition("-")[0]))
    while len(",".join(words)) > LONGEST:
        words = words[1:]
    return names.inspection(",".join(words))
