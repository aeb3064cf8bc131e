"""The notes that hosts keep of other hosts' copies, as names of files, and which hosts keep them.

Of every copy `NOTES` other hosts know that it is there, in two racks that are not its own as far as the
site has them: no host's loss and no rack's takes a copy and all that is known of it. Whoever has a
note keeps it; a plan asks for what is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from pcloud.model import Site
from pcloud.observed import Observed

NOTES = 2
"""How many other hosts know a copy's generation."""
DEPUTIES = 3
"""How many more may keep a note where one of the chosen hosts cannot write it."""

GENERATION = r"(?:on-(?P<host>[a-z0-9-]+)\.(?P<address>[0-9.]+)\.)?note"
"""The end of a note of a generation; its host is not named where nobody knows it any more."""
_KIND = r"(?P<kind>filled|past|void)\.note"
_FILE = r"{site}\.(?P<server>[a-z0-9-]+)\.g(?P<generation>[0-9]+)\." + f"(?:{_KIND}|{GENERATION})"


@dataclass(frozen=True)
class Note:
    """One such file. `kind` is empty for a note of a generation; `at` is then its copy's host and its address."""

    holder: str
    file: str
    server: str
    generation: int
    kind: str = ""
    at: tuple[str, str] = ("", "")


Older = tuple[tuple[str, tuple[str, ...]], ...]
"""Hosts, and the notes there that say nothing more."""


def _by_holder(notes: Iterable[Note]) -> Older:
    found: dict[str, list[str]] = {}
    for note in notes:
        found.setdefault(note.holder, []).append(note.file)
    return tuple((holder, tuple(files)) for holder, files in found.items())


def read_notes(site: str, observed: Observed) -> Iterator[Note]:
    """Those of all hosts whose files are known."""
    pattern = re.compile(_FILE.format(site=re.escape(site)))
    for host in observed.hosts:
        for file in host.volumes:
            if file.endswith(".note") and (found := pattern.fullmatch(file)) is not None:
                at = found["host"] or "", found["address"] or ""
                yield Note(host.name, file, found["server"], int(found["generation"]), found["kind"] or "", at)


def find_notes(site: str, observed: Observed, holder: str, server: str, after: int) -> tuple[str, ...]:
    """The files in which one host names a generation of the server later than `after`."""
    found = (n for n in read_notes(site, observed) if (n.holder, n.server) == (holder, server))
    return tuple(n.file for n in found if n.generation > after)


@dataclass(frozen=True)
class Keepers:
    """The hosts that answer, as keepers of notes; made once for a plan."""

    racks: dict[str, str]
    order: dict[str, int]
    names: tuple[str, ...]
    """All hosts in the inventory's order."""
    answering: frozenset[str]
    room: Counter[str]
    """Rack to how many of its hosts answer."""
    holders: dict[str, list[str]] = field(default_factory=dict)
    """File to the hosts that have it."""
    notes: dict[str, list[Note]] = field(default_factory=dict)
    """By server."""

    @classmethod
    def of(cls, site: Site, observed: Observed) -> Keepers:
        racks, names = {h.name: h.rack for h in site.hosts}, tuple(h.name for h in observed.hosts)
        answering = frozenset(h.name for h in observed.hosts if h.reachable)
        order = {name: n for n, name in enumerate(names)}
        made = cls(racks, order, names, answering, Counter(racks[n] for n in answering if n in racks))
        for note in read_notes(site.site, observed):
            if note.holder in answering:
                made.holders.setdefault(note.file, []).append(note.holder)
                made.notes.setdefault(note.server, []).append(note)
        return made

    def find(self, host: str, file: str = "") -> tuple[str, ...]:
        """The hosts that are to have `file` about a copy on `host`: other racks first, then who has it already."""
        chosen: list[str] = []
        for _ in range(NOTES):
            best = self._best_level(host, chosen)
            candidates = chain(self.holders.get(file, ()), self._after(host))
            free = (h for h in candidates if h != host and h in self.answering and h not in chosen)
            found = next((h for h in free if self._level(self.racks.get(h, ""), host, chosen) == best), None)
            if found is None:
                break
            chosen.append(found)
        return tuple(chosen)

    def find_deputies(self, host: str, chosen: tuple[str, ...], file: str) -> tuple[str, ...]:
        """Who may keep it instead, should one of the chosen not be able to; nobody who does already."""
        there = {host, *chosen, *self.holders.get(file, ())}
        free = (h for h in self._after(host) if h in self.answering and h not in there)
        return tuple(islice(free, DEPUTIES))

    def lacks(self, host: str, file: str) -> bool:
        """Whether one of those that are to have it has it not."""
        there = self.holders.get(file, ())
        return any(h not in there for h in self.find(host, file))

    def find_older(self, server: str, generation: int) -> Older:
        """Notes of generations before this one, which holds all that counts: what became of them says nothing more."""
        return _by_holder(n for n in self.notes.get(server, ()) if n.generation < generation)

    def find_other(self, server: str, generation: int, file: str) -> Older:
        """Notes of this generation that name another host or address, once `file` is known."""
        notes = (n for n in self.notes.get(server, ()) if n.generation == generation and not n.kind)
        return _by_holder(n for n in notes if n.file != file)

    def _after(self, host: str) -> Iterator[str]:
        at, count = self.order.get(host, -1), len(self.names)
        return (self.names[(at + n) % count] for n in range(1, count + (at < 0)))

    def _level(self, rack: str, host: str, chosen: list[str]) -> tuple[bool, bool]:
        return rack == self.racks.get(host), any(rack == self.racks.get(c) for c in chosen)

    def _best_level(self, host: str, chosen: list[str]) -> tuple[bool, bool]:
        taken = Counter(self.racks.get(h, "") for h in {host, *chosen} & self.answering)
        levels = (self._level(r, host, chosen) for r, count in self.room.items() if count > taken[r])
        return min(levels, default=(True, True))
