"""What continues what: of a site's data, the timelines, and the transactions that hosts kept of them.

Safety, as sentences:
- What a stretch covers is what is in it. What its header says is believed only of where a timeline branched off.
- A timeline is followed from where it branched off: what its parent had beyond that was given up, and what the
  parent had before that is not left out.
- Nothing follows a timeline back to before it began, nor from one that it did not come from.
- Within a timeline numbers follow each other. Where one is missing, what comes after is not reached, and is named.
- Numbers of data from before timelines mean something within one line only: a restore began them anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from pcloud.gtid import by_domain, earlier, merge, newest_domain, parse_gtids
from pcloud.kept import Backup, Run, Shelf, Stretch
from pcloud.timelines import FIRST


@dataclass(frozen=True)
class Leg:
    """One stretch that is replayed, from the host that keeps it, up to the position `reaches` and not further."""

    host: str
    stretch: Stretch
    reaches: str
    ended: str
    """When the last transaction that is replayed of it was committed; empty where that one is not its run's last."""


@dataclass(frozen=True)
class Hole:
    """Transactions that no host which answers keeps, and that others follow."""

    domain: int
    first: int
    last: int
    since: str
    """When the last one before them was committed, by its primary's clock; empty where nothing says so."""
    until: str
    """When the first one after them was."""
    server: int
    """MariaDB's number of the server that wrote the one after them, else the one before; 0 for none."""

    @property
    def size(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Goal:
    """What is replayed: of each domain up to a transaction, or as far as it goes (empty)."""

    timeline: int
    caps: Mapping[int, str]

    def passes(self, gtids: str) -> bool:
        """Whether the way leads by this position: its newest transaction may have been given up, none before it."""
        newest = newest_domain(gtids)
        named = [(d, text) for d, (_, text) in by_domain(gtids).items() if d < newest]
        return newest in self.caps and all(self.caps.get(d) == text for d, text in named)


@dataclass(frozen=True)
class Way:
    """How far a position is led towards a goal, and what is missing on the rest of the way there."""

    legs: tuple[Leg, ...]
    reached: str
    holes: tuple[Hole, ...] = ()


class Tree:
    """The timelines that the shelves know of, and where each branched off."""

    def __init__(self, shelves: Iterable[Shelf]) -> None:
        self._branched: dict[int, str] = {}
        self._parent: dict[int, int] = {}
        self._began: dict[int, str] = {}
        self._lines: dict[int, set[str]] = {}
        self._runs: dict[int, list[Run]] = {}
        shelves = tuple(shelves)
        for backup in (b for s in shelves for b in s.backups):
            self._add_backup(backup)
        for stretch in (t for s in shelves for t in s.stretches):
            self._add_stretch(stretch)

    def _add_backup(self, backup: Backup) -> None:
        self._add_position(backup.position, backup.line)
        for t in backup.timelines:
            self._add(t.domain, t.branched, backup.line)
            self._parent.setdefault(t.domain, t.parent)
            if t.began:
                self._began[t.domain] = t.began

    def _add_stretch(self, stretch: Stretch) -> None:
        self._add_position(stretch.start, stretch.line)
        at = stretch.start
        for run in stretch.runs:
            at = merge(at, run.start)  # past what of an earlier file cannot be read
            if run.domain >= FIRST and run.numbers[0] == 1:
                self._add(run.domain, earlier(at, run.domain), stretch.line)
            at = merge(at, run.last)
            self._lines.setdefault(run.domain, set()).add(stretch.line)
            self._runs.setdefault(run.domain, []).append(run)

    def _add_position(self, position: str, line: str) -> None:
        """A position on a timeline says where that one left the earlier ones: these do not move any more."""
        for domain in parse_gtids(position):
            if domain >= FIRST:
                self._add(domain, earlier(position, domain), line)

    def _add(self, domain: int, branched: str, line: str) -> None:
        self._branched[domain] = merge(self._branched.get(domain, ""), branched)
        self._lines.setdefault(domain, set()).add(line)

    def timelines(self) -> list[int]:
        """The newest first."""
        return sorted(self._branched.keys() | {d for d in self._runs if d >= FIRST}, reverse=True)

    def runs(self, domain: int) -> Sequence[Run]:
        return self._runs.get(domain, ())

    def began(self, domain: int) -> str:
        """When the timeline began, or had its first transaction that is kept; empty where neither is known."""
        return self._began.get(domain) or min((run.began for run in self.runs(domain)), default="")

    def goals(self, backup: Backup) -> Iterator[Goal]:
        """What may be made of the backup, the newest timeline first."""
        for domain in self.timelines():
            if domain > backup.timeline and self._leads(backup, domain):
                yield self.goal(domain, self._branched[domain])
        yield self.goal(backup.timeline, earlier(backup.position, backup.timeline), backup.line)

    def goal(self, timeline: int, branched: str, line: str = "") -> Goal:
        caps = {d: text for d, (_, text) in by_domain(branched).items()}
        open_ended = [timeline]
        if timeline < FIRST:  # data from before timelines, whose domains mean nothing
            open_ended += [d for d, lines in self._lines.items() if d < FIRST and line in lines]
        return Goal(timeline, {**caps, **dict.fromkeys(open_ended, "")})

    def branched(self, timeline: int) -> str:
        return self._branched.get(timeline, "")

    def _leads(self, backup: Backup, domain: int) -> bool:
        """Whether the timeline came from these data, and not from before them."""
        branched = parse_gtids(self._branched.get(domain, ""))
        if not branched:
            return False
        if any(number > branched.get(d, 0) for d, number in parse_gtids(backup.position).items()):
            return False
        own = backup.timeline
        if own < FIRST:
            return bool(backup.line in self._lines[domain])
        return own in branched or own in self._ancestors(domain)

    def _ancestors(self, domain: int) -> set[int]:
        found: set[int] = set()
        while (parent := self._parent.get(domain, 0)) and parent not in found:
            found.add(parent)
            domain = parent
        return found


def walk(at: str, goal: Goal, kept: Sequence[tuple[str, Stretch]], line: str, since: str = "") -> Way:
    """From the position `at` of data of this line, committed at `since`, to the goal: as far as nothing is missing."""
    have = dict(by_domain(at))
    legs: list[Leg] = []
    holes: list[Hole] = []
    reached = at
    for domain in sorted(goal.caps):
        runs = [
            (h, t, run)
            for h, t in kept
            for run in t.runs
            if run.domain == domain and (domain >= FIRST or t.line == line)
        ]
        cap = goal.caps[domain]
        limit = parse_gtids(cap)[domain] if cap else inf
        while (number := have.get(domain, (0, ""))[0]) < limit:
            host, stretch, run = _furthest(runs, number, limit, legs) or (None, None, None)
            if host is None or stretch is None or run is None:
                before = int(have[domain][1].split("-")[1]) if domain in have else 0
                if (hole := _hole(runs, domain, number, limit, since, before)) is None:
                    break
                holes.append(hole)
                have[domain] = hole.last, f"{domain}-{hole.server}-{hole.last}"
                since = hole.until
                continue
            whole = run.numbers[1] <= limit
            have[domain] = (run.numbers[1], run.last) if whole else (int(limit), cap)
            since = run.ended
            if not holes:
                reached = merge(reached, have[domain][1])
                leg = Leg(host, stretch, reached, run.ended if whole else "")
                if legs and (legs[-1].host, legs[-1].stretch) == (host, stretch):
                    legs.pop()
                legs.append(leg)
    return Way(tuple(legs), reached, tuple(holes))


_Kept = tuple[str, Stretch, Run]


def _furthest(runs: Sequence[_Kept], number: int, limit: float, legs: Sequence[Leg]) -> _Kept | None:
    """The run with the next transaction that leads furthest; of equals the one that is replayed already."""
    last = (legs[-1].host, legs[-1].stretch) if legs else None
    usable = [r for r in runs if r[2].numbers[0] <= number + 1 <= r[2].numbers[1]]
    return max(usable, key=lambda r: (min(r[2].numbers[1], limit), (r[0], r[1]) == last), default=None)


def _hole(runs: Sequence[_Kept], domain: int, number: int, limit: float, since: str, before: int) -> Hole | None:
    """What is missing after `number`, where it is known that more was there."""
    later = min((run for _, _, run in runs if run.numbers[0] > number + 1), key=lambda r: r.numbers[0], default=None)
    last = min(limit, later.numbers[0] - 1 if later is not None else inf)
    if last == inf:
        return None
    if later is None or later.numbers[0] - 1 > last:
        return Hole(domain, number + 1, int(last), since, "", before)
    server = int(later.first.split("-")[1])
    return Hole(domain, number + 1, int(last), since, later.began, server)


def cut_at(goal: Goal, gtids: str) -> Goal:
    """The goal up to the newest of the named transactions, which it passes."""
    newest = newest_domain(gtids)
    before = {d: text for d, text in goal.caps.items() if d < newest}
    return Goal(newest, {**before, newest: by_domain(gtids)[newest][1]})


def shorten(way: Way, until: str) -> Way:
    """The legs up to the one that reaches the time, when one does."""
    for number, leg in enumerate(way.legs):
        if leg.ended >= until:
            return replace(way, legs=way.legs[: number + 1], reached=leg.reaches, holes=())
    return way


def lacks(runs: Iterable[Run], wanted: Run) -> bool:
    """Whether a transaction of `wanted` is in none of the runs, which are of the same data."""
    at, last = wanted.numbers
    for first, end in sorted(r.numbers for r in runs if r.domain == wanted.domain):
        if first > at:
            break
        at = max(at, end + 1)
    return at <= last
