"""Generations: which copy of a server is the newest that was ever started.

Each copy carries its generation in its mark, but a host that falls silent takes that knowledge
with it. So before a copy is started, `NOTES` other hosts have a small file that names its generation
and its host (`notes.py`); every run writes anew what is missing. While no more hosts than that are
silent, the newest generation is known.

Safety, as sentences:
- The generation grows with every copy that is made, on whichever host; where a newer one may be
  that nobody can read, it leaps over any that could be there: to the time, in seconds, so that no
  two leaps come to the same.
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

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from pcloud.desired import Names
from pcloud.notes import NOTES, read_notes
from pcloud.observed import Health, Observed, Power, SeenDatabase, SeenHost, SeenServer

LEAP = 1000
"""How far a leap goes where this machine's clock is behind."""

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
    noted: Mapping[tuple[str, int], frozenset[tuple[str, str]]] = field(default_factory=dict)
    """Server and generation to the host it was noted on, and that one's address."""
    later: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Every generation of a server that may have been started."""
    lone: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Those of which nothing is seen but one host's notes: that host."""
    now: int = 0
    """When the hosts were asked, in seconds since 1970."""

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

    def doubt(self, server: str, generation: int) -> str:
        """The one host that has notes of later generations, where that is all that is seen of them; else empty."""
        hosts = {self.lone.get((server, g), "") for g in self.later.get(server, ()) if g > generation}
        return hosts.pop() if len(hosts) == 1 else ""

    def missing(self, server: str, present: Set[int]) -> tuple[int, ...]:
        """The generations that count and are neither among those that are present nor put away."""
        counting = {self.newest.get(server, 0), max(self.held.get(server, frozenset()), default=0)} - {0}
        return tuple(sorted(g for g in counting if g not in present and (server, g) not in self.graves))

    def elsewhere(self, server: str, present: Set[int]) -> bool:
        """Whether a copy that counts may run out of sight."""
        return bool(self.missing(server, present))

    def next(self, server: str) -> int:
        """What a copy that is made now is: newer than every other one."""
        last = self.last.get(server, 0)
        if self.sure:
            return last + 1
        return self.now if self.now > last else last + LEAP

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
    notes = [n for n in read_notes(site, observed) if not n.kind]
    noted = [(n.server, n.generation) for n in notes]
    where: dict[tuple[str, int], frozenset[tuple[str, str]]] = {}
    for n in notes:
        where[n.server, n.generation] = where.get((n.server, n.generation), frozenset()) | ({n.at} - {("", "")})
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
    newest, sure, voided = _highest(begun), unread <= NOTES, frozenset(left - {*past})
    later = {n: frozenset(g for server, g in [*begun, *filled, *past] if server == n) for n in carriers}
    lone = _lone(site, observed, {*made, *used})
    known = _highest(every), newest, _highest(buried), sure, held, graves, voided, where, later, lone
    return Generations(*known, int(observed.at))


def _lone(site: str, observed: Observed, seen: Set[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Generations of which one host has notes, and nobody anything else."""
    holders: dict[tuple[str, int], set[str]] = {}
    for note in read_notes(site, observed):
        holders.setdefault((note.server, note.generation), set()).add(note.holder)
    return {key: next(iter(hosts)) for key, hosts in holders.items() if len(hosts) == 1 and key not in seen}


def _is_taken_over(observed: Observed, carriers: tuple[str, ...], server: str) -> bool:
    """Whether another server may have had the role since it was noted that it would: one that holds data says so. One
    that is empty was made since, and says nothing of the copy before it."""
    seen, others = observed.data.databases, [n for n in carriers if n != server]
    return any(n not in seen or seen[n].writable or not seen[n].restored for n in others)


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
    """Every copy of the site that is older than its server's newest, in the hosts' order.

    A data server that runs and is well is not stopped on the word of one host (`Generations.doubt`).
    """
    found = []
    for host in observed.hosts:
        for seen in host.servers:
            if seen.mark is not None and seen.mark.site == site and generations.outdated(seen):
                server, generation = seen.mark.server, seen.mark.generation
                if is_doubted(observed, generations, seen):
                    continue
                newest, runs = generations.successor(server, generation), seen.power is not Power.OFF
                names = Names(site, server, generation)
                found.append(Quarantined(host.name, server, generation, newest, runs, names))
    return tuple(found)


def is_doubted(observed: Observed, generations: Generations, seen: SeenServer) -> bool:
    """Whether a data server runs, is well, and would be older by one host's notes alone."""
    if seen.mark is None or seen.power is not Power.RUNNING or not generations.outdated(seen):
        return False
    server, healthy = seen.mark.server, observed.health.get(seen.mark.server, Health(False)).ok
    return healthy and server in generations.held and bool(generations.doubt(server, seen.mark.generation))


def has_run(host: SeenHost, names: Names) -> bool:
    """Whether this copy was ever started: its console is written from its first moment on."""
    return names.console in host.volumes


def used_disks(host: SeenHost, site: str, server: str) -> tuple[int, ...]:
    """The generations of which this host has a disk that was started, whatever libvirt knows of them."""
    stem = f"{site}.{server}.g"
    logs = {v.removeprefix(stem).removesuffix(".console.log") for v in host.volumes if v.startswith(stem)}
    generations = sorted(int(word) for word in logs if word.isascii() and word.isdigit())
    return tuple(g for g in generations if Names(site, server, g).disk in host.volumes)
