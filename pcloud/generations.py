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
- A data server's copy takes an older one's place only once it holds data. After it has them, and before
  it accepts a write, its own host and `NOTES` others are left a second note (`filled`). One without it holds
  at most what it was restored from.
- Before another server takes the role over, it is noted that what older copies hold is of the past, though
  the one that is made anew is empty yet (`past`). Where all others answer then, and none has the role, nobody
  took over, and that is noted (`void`) before an older copy runs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from pcloud.desired import Names
from pcloud.observed import Observed, Power, SeenDatabase, SeenHost, SeenServer

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
    held: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """A data server's generations that may hold data; of other servers the newest counts."""
    graves: frozenset[tuple[str, int]] = frozenset()
    """Every server and generation that was put away whole."""
    void: frozenset[tuple[str, int]] = frozenset()
    """Where it was noted that another server takes over, and is seen that none did."""

    def successor(self, server: str, generation: int) -> int:
        """The generation that took this one's place; 0 while none did.

        A copy that may hold data gives way to a later one that may, never to one that is empty.
        """
        newest = self.newest.get(server, 0)
        if server not in self.held:
            return newest if generation < newest else 0
        full = max(self.held[server], default=0)
        if generation in self.held[server]:
            return full if generation < full else 0
        return max(newest, full) if generation < max(newest, full) else 0

    def current(self, server: str) -> frozenset[int]:
        """The generation of a data server that may hold its latest data; none where all copies are seen empty."""
        held = self.held.get(server, frozenset())
        return frozenset({max(held)} if held else ())

    def outdated(self, seen: SeenServer) -> bool:
        return seen.mark is not None and self.successor(seen.mark.server, seen.mark.generation) > 0

    def elsewhere(self, server: str, present: Set[int]) -> bool:
        """Whether a copy that counts is neither among those that are present nor put away: it may run out of sight."""
        counting = {self.newest.get(server, 0), max(self.held.get(server, frozenset()), default=0)} - {0}
        return any(g not in present and (server, g) not in self.graves for g in counting)

    def next(self, server: str) -> int:
        """What a copy that is made now is: newer than every other one."""
        last = self.last.get(server, 0)
        return last + 1 if self.sure else (last // LEAP + 1) * LEAP

    def may_be_away(self, server: str) -> bool:
        """Whether a copy may be on a host that cannot be read."""
        return not self.sure or self.newest.get(server, 0) > self.buried.get(server, 0)


def read_generations(observed: Observed, site: str, carriers: tuple[str, ...] = ()) -> Generations:
    """From the marks of all copies, and the names of all files, on whichever host; `carriers` are the data servers."""
    marks = [s.mark for h in observed.hosts for s in h.servers if s.mark is not None and s.mark.site == site]
    pattern = re.compile(_FILE.format(site=re.escape(site)))
    files = [m for h in observed.hosts for v in h.volumes if (m := pattern.match(v)) is not None]
    made = [(m.server, m.generation) for m in marks]
    named = [(f[1], int(f[2]), f[3]) for f in files]
    noted = [(server, generation) for server, generation, kind in named if kind == "note"]
    filled = [(server, generation) for server, generation, kind in named if kind == "filled.note"]
    buried = [(server, generation) for server, generation, kind in named if kind.startswith("tombstone-")]
    unread = sum(not h.reachable and not h.volumes for h in observed.hosts)
    every = [*made, *((server, generation) for server, generation, _ in named)]
    used = [(server, g) for h in observed.hosts for server in carriers for g in used_disks(h, site, server)]
    begun = [*made, *noted, *used]
    graves = frozenset(buried)
    void = {(server, generation) for server, generation, kind in named if kind == "void.note"}
    left = {(server, generation) for server, generation, kind in named if kind == "past.note"} - void - {*filled}
    past = [(s, g) for s, g in left if _is_taken_over(observed, carriers, s)]
    held = {n: _held(observed, site, n, begun, [*filled, *past]) for n in carriers}
    return Generations(
        _highest(every), _highest(begun), _highest(buried), unread <= NOTES, held, graves, frozenset(left - {*past})
    )


def _is_taken_over(observed: Observed, carriers: tuple[str, ...], server: str) -> bool:
    """Whether another server may have had the role since it was noted that it would: one that can be asked says so."""
    seen, others = observed.data.databases, [n for n in carriers if n != server]
    return any(n not in seen or seen[n].writable for n in others)


def _held(
    observed: Observed, site: str, server: str, begun: list[tuple[str, int]], filled: list[tuple[str, int]]
) -> frozenset[int]:
    """Which generations of a data server may hold data.

    Without a word about any of them (they are from before there was one), all but those that are seen empty.
    """
    copies = [(h, s, s.mark.generation) for h, s in observed.copies(site, server) if s.mark is not None]
    full = {g for _, s, g in copies if is_used(observed, site, s)} | {g for name, g in filled if name == server}
    empty = {g for h, s, g in copies if is_empty(observed, site, h, s)}
    return frozenset(full or {g for name, g in begun if name == server} - empty)


def _highest(known: list[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for server, generation in known:
        found[server] = max(found.get(server, 0), generation)
    return found


def _answer_of(observed: Observed, site: str, seen: SeenServer) -> SeenDatabase | None:
    """What this copy's MariaDB says; None where another copy runs, too, as nobody knows which one answered."""
    if seen.mark is None or seen.power is not Power.RUNNING:
        return None
    running = [s for _, s in observed.copies(site, seen.mark.server) if s.power is Power.RUNNING]
    return observed.data.databases.get(seen.mark.server) if len(running) == 1 else None


def is_used(observed: Observed, site: str, seen: SeenServer) -> bool:
    """Whether this copy answers, and its whole data are written to, or come from a server whose data were."""
    answer = _answer_of(observed, site, seen)
    return answer is not None and bool(answer.restored) and (answer.writable or bool(answer.source))


def is_empty(observed: Observed, site: str, host: SeenHost, seen: SeenServer) -> bool:
    """Whether this copy is seen to hold nothing: it answers without whole data, or it was never started."""
    answer = _answer_of(observed, site, seen)
    if answer is not None:
        return not answer.restored
    never = seen.mark is not None and not has_run(host, Names(site, seen.mark.server, seen.mark.generation))
    return never and seen.power is Power.OFF


def adds_nothing(observed: Observed, site: str, host: SeenHost, seen: SeenServer) -> bool:
    """For a copy of which nobody noted that it was filled: what it was restored from is all that it may hold."""
    answered = _answer_of(observed, site, seen) is not None
    return is_empty(observed, site, host, seen) or (answered and not is_used(observed, site, seen))


def quarantined(observed: Observed, site: str, generations: Generations) -> tuple[Quarantined, ...]:
    """Every copy of the site that is older than its server's newest, in the hosts' order."""
    found = []
    for host in observed.hosts:
        for seen in host.servers:
            if seen.mark is not None and seen.mark.site == site and generations.outdated(seen):
                server, generation = seen.mark.server, seen.mark.generation
                newest, runs = generations.successor(server, generation), seen.power is not Power.OFF
                names = Names(site, server, generation)
                found.append(Quarantined(host.name, server, generation, newest, runs, names))
    return tuple(found)


def has_run(host: SeenHost, names: Names) -> bool:
    """Whether this copy was ever started: its console is written from its first moment on."""
    return names.console in host.volumes


def older_notes(
    observed: Observed, holders: Iterable[str], newest: Names, *, filled: bool = False
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Of each holder that has any: its notes of the server's generations before `newest`, which say nothing more.

    `filled`: the newest one holds data, so that what became of the older ones counts no longer either.
    """
    kinds = r"(?:(?:filled|past|void)\.)?" if filled else ""
    pattern = re.compile(rf"{re.escape(newest.site)}\.{re.escape(newest.server)}\.g([0-9]+)\.{kinds}note")
    found = []
    for holder in holders:
        host = observed.host(holder)
        volumes = host.volumes if host is not None else ()
        older = tuple(v for v in volumes if (m := pattern.fullmatch(v)) and int(m[1]) < newest.generation)
        found += [(holder, older)] if older else []
    return tuple(found)


def used_disks(host: SeenHost, site: str, server: str) -> tuple[int, ...]:
    """The generations of which this host has a disk that was started, whatever libvirt knows of them."""
    stem = f"{site}.{server}.g"
    logs = {v.removeprefix(stem).removesuffix(".console.log") for v in host.volumes if v.startswith(stem)}
    generations = sorted(int(word) for word in logs if word.isascii() and word.isdigit())
    return tuple(g for g in generations if Names(site, server, g).disk in host.volumes)


def note_holders(observed: Observed, host: str) -> tuple[str, ...]:
    """The hosts that are left a note of a copy on `host`: the next ones that answer, in the inventory's order."""
    at = observed.position(host)
    after = itertools.chain(observed.hosts[at + 1 :], observed.hosts[:at])
    return tuple(itertools.islice((h.name for h in after if h.reachable), NOTES))
