"""Generations: which copy of a server is the newest that was ever started.

Each copy carries its generation in its mark, but a host that falls silent takes that knowledge
with it. So before a copy is first started, `NOTES` other hosts are left a small file that names
its generation. While no more hosts than that are silent, the newest generation is known.

Safety, as sentences:
- The generation grows with every copy that is made, on whichever host; where a newer one may be
  that nobody can read, it leaps over any that could be there.
- A copy older than the newest generation is quarantined: it is never started, and powered off
  where it runs. Its disk stays until nothing on it would be missed (`past.py`), as a tombstone
  from then on.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pcloud.desired import Names
from pcloud.observed import Observed, Power, SeenHost, SeenServer

NOTES = 2
"""How many other hosts know a copy's generation."""

LEAP = 1000
"""No server is made anew this often between two leaps."""

_FILE = r"{site}\.([a-z0-9-]+)\.g([0-9]+)\.(.+)"


@dataclass(frozen=True)
class Quarantined:
    """A copy that came back older than the one that took its place."""

    host: str
    server: str
    generation: int
    newest: int
    runs: bool
    names: Names


@dataclass(frozen=True)
class Generations:
    """By server. `last` counts whatever was ever begun, `newest` what may have been started."""

    last: Mapping[str, int]
    newest: Mapping[str, int]
    buried: Mapping[str, int]
    """The newest generation that was put away whole."""
    sure: bool
    """No more hosts are unread than keep a generation: a newer one cannot have been missed."""

    def outdated(self, seen: SeenServer) -> bool:
        return seen.mark is not None and seen.mark.generation < self.newest.get(seen.mark.server, 0)

    def next(self, server: str) -> int:
        """What a copy that is made now is: newer than every other one."""
        last = self.last.get(server, 0)
        return last + 1 if self.sure else (last // LEAP + 1) * LEAP

    def may_be_away(self, server: str) -> bool:
        """Whether a copy may be on a host that cannot be read."""
        return not self.sure or self.newest.get(server, 0) > self.buried.get(server, 0)


def read_generations(observed: Observed, site: str) -> Generations:
    """From the marks of all copies, and the names of all files, on whichever host."""
    marks = [s.mark for h in observed.hosts for s in h.servers if s.mark is not None and s.mark.site == site]
    pattern = re.compile(_FILE.format(site=re.escape(site)))
    files = [m for h in observed.hosts for v in h.volumes if (m := pattern.match(v)) is not None]
    made = [(m.server, m.generation) for m in marks]
    named = [(f[1], int(f[2]), f[3]) for f in files]
    noted = [(server, generation) for server, generation, kind in named if kind == "note"]
    buried = [(server, generation) for server, generation, kind in named if kind.startswith("tombstone-")]
    unread = sum(not h.reachable and not h.volumes for h in observed.hosts)
    every = [*made, *((server, generation) for server, generation, _ in named)]
    return Generations(_highest(every), _highest([*made, *noted]), _highest(buried), unread <= NOTES)


def _highest(known: list[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for server, generation in known:
        found[server] = max(found.get(server, 0), generation)
    return found


def quarantined(observed: Observed, site: str, generations: Generations) -> tuple[Quarantined, ...]:
    """Every copy of the site that is older than its server's newest, in the hosts' order."""
    found = []
    for host in observed.hosts:
        for seen in host.servers:
            if seen.mark is not None and seen.mark.site == site and generations.outdated(seen):
                server, generation = seen.mark.server, seen.mark.generation
                newest, runs = generations.newest[server], seen.power is not Power.OFF
                names = Names(site, server, generation)
                found.append(Quarantined(host.name, server, generation, newest, runs, names))
    return tuple(found)


def has_run(host: SeenHost, names: Names) -> bool:
    """Whether this copy was ever started: its console is written from its first moment on."""
    return names.console in host.volumes


def older_notes(observed: Observed, holders: Iterable[str], newest: Names) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Of each holder that has any: its notes of the server's generations before `newest`, which say nothing more."""
    pattern = re.compile(rf"{re.escape(newest.site)}\.{re.escape(newest.server)}\.g([0-9]+)\.note")
    found = []
    for holder in holders:
        host = observed.host(holder)
        volumes = host.volumes if host is not None else ()
        older = tuple(v for v in volumes if (m := pattern.fullmatch(v)) and int(m[1]) < newest.generation)
        found += [(holder, older)] if older else []
    return tuple(found)


def note_holders(observed: Observed, host: str) -> tuple[str, ...]:
    """The hosts that are left a note of a copy on `host`: the next ones that answer, in the inventory's order."""
    at = observed.position(host)
    after = itertools.chain(observed.hosts[at + 1 :], observed.hosts[:at])
    return tuple(itertools.islice((h.name for h in after if h.reachable), NOTES))
