"""Which backup, which stretches of the binary log, which hosts: decided from what the hosts keep.

Safety, as sentences:
- A backup whose file is not as long as its manifest says is none.
- Only stretches of the backup's own line continue it, and only where no transaction is missing between.
- Of a timeline that another one branched off from, nothing after the branch is used: it was given up.
- What is restored never goes past what was asked for.
- The last backup is never deleted, nor what continues the oldest one that stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from pcloud.gtid import behind, cap, merge, newest_domain, parse_gtids, rank, up_to
from pcloud.kept import LATEST, Backup, Shelf, Stretch, Target

CLOCKS_S = 3600
"""By how much the clocks of a host and of a server may differ before a binary log is deleted too early."""
TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Leg:
    """One stretch that is replayed, from the host that keeps it; `reaches` is where the data are then."""

    host: str
    stretch: Stretch
    reaches: str
    stop: str = ""
    """Where the replay stops, when not at its end: past it the stretch is of a branch that was given up."""


@dataclass(frozen=True)
class Choice:
    """What is restored: a backup, from the first of `hosts` whose copy is whole, and what continues it."""

    backup: Backup
    hosts: tuple[str, ...]
    legs: tuple[Leg, ...]
    target: Target
    newer: str = ""
    """When data were last kept that no backup stands under: they were written after another restore."""

    @property
    def end(self) -> str:
        """The last position that is kept; what a restore to a time reaches is known once it is there."""
        return self.legs[-1].reaches if self.legs else self.backup.position

    @property
    def ended(self) -> str:
        return (self.legs[-1].stretch.ended if self.legs else "") or self.backup.taken

    def __str__(self) -> str:
        text = f"the backup of {self.backup.taken} ({self.backup.position or 'no position'})"
        if self.target.gtid:
            return f"{text} and the binary log up to {self.target.gtid}"
        if self.target.time:
            return f"{text} and the binary log up to {self.target.time}; kept are {self.end} at {self.ended}"
        return f"{text} and the binary log up to {self.end} at {self.ended}" if self.legs else text


def loss(choice: Choice, known: str) -> str:
    """What a restore of it gives up, in words. `known` is the last position of the primary that anybody saw."""
    if choice.newer:
        later = f"; what was written after the last restore, until {choice.newer}, has no backup to stand on"
    else:
        later = ""
    if choice.target.time and choice.target.time <= choice.ended:
        return f"what came at or after {choice.target.time} is given up{later}"
    reached = choice.target.gtid or choice.end
    if not known:
        return f"no later position is known: orders after {choice.ended} may be lost{later}"
    lost = behind(reached, known)
    if choice.target.gtid:
        return f"the {lost} transactions after it, up to {known}, are given up{later}"
    if lost:
        return f"{lost} transactions are lost, up to {known}, and all that came after those{later}"
    return (
        f"nothing known is lost (last known {known}); what was ordered after {choice.ended} and not streamed is{later}"
    )


def read_shelf(host: str, text: str) -> Shelf:
    """What `keep list` printed on a host (templates/hosts/keep.sh); lines that make no sense are left out."""
    backups, damaged, stretches, streaming = [], [], [], False
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "stream":
            streaming = True
        elif kind == "backup":
            size, _, manifest = rest.partition(" ")
            backup = _read_manifest(manifest)
            if backup is not None and size == str(backup.size):
                backups.append(backup)
            else:
                damaged.append(backup.id if backup is not None else manifest[:40])
        elif kind == "stretch" and (stretch := _read_stretch(rest.split())) is not None:
            stretches.append(stretch)
    backups.sort(key=lambda b: b.taken)
    return Shelf(host, tuple(backups), tuple(stretches), streaming, tuple(damaged))


def _read_manifest(text: str) -> Backup | None:
    try:
        written = json.loads(text)
        values = {f.name: written[f.name] for f in fields(Backup)}
        if not all(type(v).__name__ == f.type for f, v in zip(fields(Backup), values.values(), strict=True)):
            return None
        parse_gtids(values["position"])
        return Backup(**values)
    except (ValueError, KeyError, TypeError):
        return None


def _read_stretch(words: Sequence[str]) -> Stretch | None:
    if len(words) != 5:
        return None
    start, end, ended = ("" if word == "-" else word for word in words[2:])
    try:
        parse_gtids(start)
        parse_gtids(end)
    except ValueError:
        return None
    return Stretch(words[0], words[1], start, end, ended)


def choose(shelves: Sequence[Shelf], target: Target = LATEST) -> Choice | None:
    """What reaches the target best: the latest data that are not past it. None when no backup can.

    A GTID that nothing kept reaches is `None`, too: a restore never stops short of what was named.
    """
    found = []
    for backup, hosts in _copies(shelves).items():
        if (target.time and backup.taken > target.time) or (target.gtid and behind(target.gtid, backup.position)):
            continue
        made = Choice(backup, hosts, tuple(_legs(backup, shelves, target)), target)
        if not target.gtid or not behind(made.end, target.gtid):
            found.append(made)
    if not found:
        return None
    if target.time:
        best = max(found, key=lambda c: (min(c.ended, target.time), c.backup.taken))
    else:
        lines = {c.backup.line for c in found}
        tested = {line: max(c.backup.tested for c in found if c.backup.line == line) for line in lines}
        best = max(found, key=lambda c: (tested[c.backup.line], rank(c.end), c.backup.taken))
    newer = "" if target.time or target.gtid else _unsupported(shelves, best.backup.line)
    return Choice(best.backup, best.hosts, best.legs, target, newer)


def _unsupported(shelves: Sequence[Shelf], line: str) -> str:
    """Until when another line was streamed after this one was streamed and backed up last."""
    stretches = [t for s in shelves for t in s.stretches]
    own = [t.session for t in stretches if t.line == line] + [
        b.id for s in shelves for b in s.backups if b.line == line
    ]
    return max((t.ended for t in stretches if t.line != line and t.session > max(own)), default="")


def _copies(shelves: Iterable[Shelf]) -> Mapping[Backup, tuple[str, ...]]:
    found: dict[Backup, tuple[str, ...]] = {}
    for shelf in shelves:
        for backup in shelf.backups:
            found[backup] = (*found.get(backup, ()), shelf.host)
    return found


def _goal(backup: Backup, stretches: Sequence[tuple[str, Stretch]], target: Target) -> str:
    """The position that is replayed to: the furthest on the newest timeline; or the named transaction.

    A position on a later timeline says where it left the earlier ones: what these have beyond that
    was given up. A transaction of such a branch is reached only when it is named.
    """
    ends = [backup.position, *(t.end for _, t in stretches)]
    if not target.gtid:
        furthest = max(ends, key=rank)
        if not behind(furthest, backup.position):
            return furthest
        own = newest_domain(backup.position)  # it is of a branch that was given up, and stays on it
        return max((e for e in ends if newest_domain(e) <= own), key=rank)
    holding = [e for e in ends if not behind(e, target.gtid)]
    return up_to(max(holding, key=rank), target.gtid) if holding else ""


def _legs(backup: Backup, shelves: Iterable[Shelf], target: Target) -> Iterable[Leg]:
    """What continues the backup, until the target or the end of what is kept."""
    stretches = [(s.host, t) for s in shelves for t in s.stretches if t.line == backup.line]
    return _walk(backup.position, stretches, _goal(backup, stretches, target), target)


def continuation(position: str, line: str, shelves: Iterable[Shelf]) -> tuple[Leg, ...]:
    """What hosts streamed of these data beyond `position`, on the timeline that it is of."""
    stretches = [(s.host, t) for s in shelves for t in s.stretches if t.line == line]
    own = newest_domain(position)
    goal = max((t.end for _, t in stretches if newest_domain(t.end) == own), key=rank, default="")
    return tuple(_walk(position, stretches, goal, LATEST))


def _walk(at: str, stretches: Sequence[tuple[str, Stretch]], goal: str, target: Target) -> Iterator[Leg]:
    """Stretches one after the other, each the one that leads furthest, with no transaction missing between."""
    while behind(at, goal):
        usable = [(cap(t.end, goal), t.ended, host, t) for host, t in stretches if not behind(at, t.start)]
        usable = [leg for leg in usable if behind(at, leg[0])]
        if not usable:
            return
        reaches, ended, host, stretch = max(usable, key=lambda leg: (rank(leg[0]), leg[1]))
        at = merge(at, reaches)
        yield Leg(host, stretch, at, reaches if parse_gtids(reaches) != parse_gtids(stretch.end) else "")
        if target.time and ended >= target.time:
            return


def keepers(
    hosts: Sequence[tuple[str, str]], carrying: Iterable[str], keeping: Iterable[str], copies: int
) -> list[str]:
    """The hosts that keep the backups, of `hosts` that answer (name and rack, in the inventory's order).

    Who carries no copy of the data comes before who does; then who keeps backups already, so that
    they stay together; then a rack that has none yet.
    """
    carries, keeps = set(carrying), set(keeping)
    racks = {rack for name, rack in hosts if name in carries}
    chosen: list[tuple[str, str]] = []
    left = list(hosts)
    while left and len(chosen) < copies:
        taken = {rack for _, rack in chosen}
        best = min(left, key=lambda h: (h[0] in carries, h[1] in taken, h[0] not in keeps, h[1] in racks))
        chosen.append(best)
        left.remove(best)
    return [name for name, _ in chosen]


def expired(backups: Iterable[Backup], keep: int) -> tuple[tuple[str, ...], float]:
    """The backups of one host that go, oldest first, and the epoch before which binary logs go with them."""
    ordered = sorted(backups, key=lambda b: b.taken)
    staying = ordered[-max(1, keep) :]
    # Two clocks say when it was: were one of them ahead, what continues it would go too early.
    first = min((moment for b in staying for moment in (b.taken, b.tested)), default="")
    oldest = datetime.strptime(first, TIME) - timedelta(seconds=CLOCKS_S) if first else None
    return tuple(b.id for b in ordered[: -len(staying)] if staying), _epoch(oldest)


def _epoch(at: datetime | None) -> float:
    return (at - datetime(1970, 1, 1)).total_seconds() if at else 0.0
