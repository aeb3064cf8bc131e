"""Which backup, which stretches of the binary log, which hosts: decided from what the hosts keep.

Safety, as sentences:
- A backup whose file is not as long as its manifest says is none.
- Only what comes next in the backup's own data continues it (`chain.py`): nothing is skipped, repeated or given up.
- The newest timeline goes before an older one, then whoever reaches further on it: no clock has a say, unless a
  person names a time.
- What is restored never goes past what was asked for.
- The last backup is never deleted, nor the one just made, nor what continues the oldest one that stays.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Address
from typing import Any

from pcloud.chain import Goal, Hole, Leg, Tree, cut_at, lacks, shorten, walk
from pcloud.gtid import behind, earlier, given_up, newest_domain, parse_gtids, rank
from pcloud.kept import LATEST, Backup, Proof, Run, Shelf, Stretch, Target, Timeline
from pcloud.proofs import read_proof
from pcloud.timelines import FIRST

TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Choice:
    """What is restored: a backup, from the first of `hosts` whose copy is whole, and what continues it."""

    backup: Backup
    hosts: tuple[str, ...]
    legs: tuple[Leg, ...]
    target: Target
    timeline: int = 0
    """The one that the data are of then."""
    newer: str = ""
    """Until when data were kept that no backup stands under."""
    holes: tuple[Hole, ...] = ()
    """What is missing after it, where more is kept beyond."""
    instead: tuple[Choice, ...] = ()
    """Other backups that lead to the same data, for when this one cannot be used."""
    keepers: tuple[str, ...] = ()
    """Every host that was asked: who may keep a binary log in place of one that cannot be used."""

    @property
    def end(self) -> str:
        """The last position that is kept; what a restore to a time reaches is known once it is there."""
        return self.legs[-1].reaches if self.legs else self.backup.position

    @property
    def ended(self) -> str:
        return max((leg.ended for leg in self.legs), default="") or self.backup.taken

    @property
    def stops_by_time(self) -> bool:
        """Whether the last leg goes on beyond the time that is named, and stops there."""
        return bool(self.target.time and self.legs and self.legs[-1].ended >= self.target.time)

    def __str__(self) -> str:
        text = f"the backup of {self.backup.taken} ({self.backup.position or 'no position'})"
        if self.target.gtid:
            return f"{text} and the binary log up to {self.target.gtid}"
        if self.target.time:
            return f"{text} and the binary log up to {self.target.time}; kept are {self.end} at {self.ended}"
        return f"{text} and the binary log up to {self.end} at {self.ended}" if self.legs else text


def tell_hole(hole: Hole) -> str:
    """The hole as a clause: how many, from where to where, when, by whom. A server's number is its address."""
    count = "1 transaction is" if hole.size == 1 else f"{hole.size} transactions are"
    ends = [f"{hole.domain}-{hole.server}-{n}" for n in dict.fromkeys((hole.first, hole.last))]
    after = f"after {hole.since}" if hole.since else ""
    when = " and ".join(filter(None, (after, f"before {hole.until}" if hole.until else "")))
    who = f", by {IPv4Address(hole.server)}" if hole.server >= 1 << 24 else ""
    written = f", written {when}{who}" if when or who else ""
    return f"{count} kept by no host that answers: {' to '.join(ends)}{written}"


def loss(choice: Choice, known: str) -> str:
    """What a restore of it gives up, in words. `known` is the last position of the primary that anybody saw."""
    later = "".join(f"; {tell_hole(hole)}, and what comes after is not reached" for hole in choice.holes)
    if choice.newer:
        later += f"; what was written after the last restore, until {choice.newer}, has no backup to stand on"
    if choice.target.time and choice.target.time <= choice.ended:
        return f"what came at or after {choice.target.time} is given up{later}"
    reached = choice.target.gtid or choice.end
    if not known:
        return f"no later position is known: orders after {choice.ended} may be lost{later}"
    if newest_domain(known) >= FIRST and newest_domain(known) > choice.timeline:
        return f"it ends before the timeline of {known}, seen last: orders after {choice.ended} may be lost{later}"
    lost = given_up(reached, known, choice.timeline)
    if choice.target.gtid:
        return f"the {lost} transactions after it, up to {known}, are given up{later}"
    if lost:
        return f"{lost} transactions are lost, up to {known}, and all that came after those{later}"
    return (
        f"nothing known is lost (last known {known}); what was ordered after {choice.ended} and not streamed is{later}"
    )


def read_shelf(host: str, text: str) -> Shelf:
    """What `keep list` printed on a host (templates/hosts/keep.sh); lines that make no sense are left out."""
    backups: list[Backup] = []
    damaged: list[str] = []
    stretches: list[Stretch] = []
    proofs: list[Proof] = []
    streaming, session = False, ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "stream":
            streaming, session = True, rest.rpartition(" ")[2]
        elif kind == "backup":
            size, _, manifest = rest.partition(" ")
            backup = _read_manifest(manifest)
            if backup is not None and size == str(backup.size):
                backups.append(backup)
            else:
                damaged.append(backup.id if backup is not None else manifest[:40])
        elif kind == "proof" and (proof := read_proof(rest)) is not None:
            proofs.append(proof)
        elif kind == "stretch" and (stretch := _read_stretch(rest.split())) is not None:
            stretches.append(stretch)
        elif kind == "run" and stretches and (run := _read_run(rest.split())) is not None:
            stretches[-1] = replace(stretches[-1], runs=_join(stretches[-1].runs, run))
    backups.sort(key=order)
    return Shelf(host, tuple(backups), tuple(stretches), streaming, session, tuple(damaged), tuple(proofs))


def order(backup: Backup) -> tuple[Any, ...]:
    """The key that sorts backups: the newest timeline last, then the furthest on it. A clock decides nothing."""
    return backup.timeline, rank(backup.position), backup.id


def _read_manifest(text: str) -> Backup | None:
    try:
        written = json.loads(text)
        plain = [f for f in fields(Backup) if f.name != "timelines"]
        values = {f.name: written.get(f.name, 0) if f.name == "data" else written[f.name] for f in plain}
        if not all(type(values[f.name]).__name__ == f.type for f in plain):
            return None
        timelines = tuple(_read_timeline(t) for t in written.get("timelines", ()))
        parse_gtids(values["position"])
        return Backup(**values, timelines=timelines)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _read_timeline(written: Mapping[str, Any]) -> Timeline:
    parse_gtids(written["branched"])
    domain, parent, branched = int(written["domain"]), int(written["parent"]), str(written["branched"])
    return Timeline(domain, parent, branched, str(written["server"]), began=str(written["began"]))


def _read_stretch(words: Sequence[str]) -> Stretch | None:
    if len(words) != 3:
        return None
    start = "" if words[2] == "-" else words[2]
    try:
        parse_gtids(start)
    except ValueError:
        return None
    return Stretch(words[0], words[1], start)


def _read_run(words: Sequence[str]) -> Run | None:
    """`START FIRST LAST BEGAN ENDED`."""
    if len(words) != 5:
        return None
    start = "" if words[0] == "-" else words[0]
    try:
        parse_gtids(start)
        first, last = parse_gtids(words[1]), parse_gtids(words[2])
        run = Run(words[1], words[2], words[3], words[4], start)
        return run if first.keys() == last.keys() == {run.domain} and run.numbers[0] <= run.numbers[1] else None
    except ValueError:
        return None


def _join(runs: tuple[Run, ...], run: Run) -> tuple[Run, ...]:
    """The runs with one more, which may go on where the last one of its domain ended."""
    for n in reversed(range(len(runs))):
        if runs[n].domain == run.domain:
            if runs[n].numbers[1] + 1 != run.numbers[0]:
                break
            longer = replace(runs[n], last=run.last, ended=run.ended)
            return (*runs[:n], longer, *runs[n + 1 :])
    return (*runs, run)


def choose(shelves: Sequence[Shelf], target: Target = LATEST, only: str = "") -> Choice | None:
    """What reaches the target best: the latest data that are not past it. None when no backup can.

    A GTID that nothing kept reaches is `None`, too: a restore never stops short of what was named.
    `only`: the one backup that a person wants, by its id.
    """
    tree = Tree(shelves)
    stretches = [(s.host, t) for s in shelves for t in s.stretches]
    found = []
    for backup, hosts in _copies(shelves).items():
        if (only and backup.id != only) or (target.time and backup.taken > target.time):
            continue
        goal = _goal(tree, backup, target)
        if goal is None:
            continue
        way = walk(backup.position, goal, stretches, backup.line, backup.taken)
        if target.gtid and behind(way.reached, target.gtid):
            continue
        if target.time:
            way = shorten(way, target.time)
        found.append(Choice(backup, hosts, way.legs, target, goal.timeline, "", way.holes))
    # A backup of the very second may hold what came in it: only where no other one leads there.
    found = [c for c in found if c.backup.taken < target.time] or found
    if not found:
        return None
    best, *others = sorted(found, key=_merit, reverse=True)
    newer = "" if target.time or target.gtid else _unsupported(tree, shelves, best)
    same = tuple(c for c in others if _merit(c)[:3] == _merit(best)[:3])
    asked = tuple(s.host for s in shelves)
    return replace(best, newer=newer, instead=tuple(replace(c, keepers=asked) for c in same), keepers=asked)


def all_holes(shelves: Sequence[Shelf]) -> tuple[Hole, ...]:
    """What is missing between the oldest backup that leads to the newest data, and these."""
    tree = Tree(shelves)
    stretches = [(s.host, t) for s in shelves for t in s.stretches]
    backups = sorted(_copies(shelves), key=order)
    goals = {b: next(iter(tree.goals(b))) for b in backups}
    newest = max((g.timeline for g in goals.values()), default=0)
    first = next((b for b in backups if goals[b].timeline == newest), None)
    if first is None:
        return ()
    return walk(first.position, goals[first], stretches, first.line, first.taken).holes


def _merit(choice: Choice) -> tuple[Any, ...]:
    """What the best choice has most of: first where it leads, which is the same for the first three alike."""
    by_time = choice.stops_by_time
    return choice.timeline, by_time, () if by_time else rank(choice.end), rank(choice.backup.position), choice.backup.id


def _goal(tree: Tree, backup: Backup, target: Target) -> Goal | None:
    """The newest timeline that the backup leads to; as it was at the time, or with the transaction, that is named.

    A transaction that was given up is reached only when it is named, or the time at which the site had it.
    """
    *later, own = tree.goals(backup)
    if target.gtid:
        named = newest_domain(target.gtid)
        if (
            newest_domain(backup.position) > named
            or parse_gtids(backup.position).get(named, 0) > parse_gtids(target.gtid)[named]
        ):
            return None
        return next((cut_at(g, target.gtid) for g in (*later, own) if g.passes(target.gtid)), None)
    if target.time:
        later = [g for g in later if "" != tree.began(g.timeline) <= target.time]
    return (later or [own])[0]


def without(choice: Choice, shelves: Iterable[Shelf], bad: Container[tuple[str, str, str]]) -> Choice | None:
    """The same data of the same backup, without these sessions (host, line, name); None where the rest does not do."""
    usable = [
        replace(s, stretches=tuple(t for t in s.stretches if (s.host, t.line, t.session) not in bad)) for s in shelves
    ]
    target = choice.target if choice.stops_by_time else Target(gtid=choice.end)
    found = choose(usable, target, choice.backup.id)
    if found is None or found.stops_by_time != choice.stops_by_time:
        return None
    same = choice.stops_by_time or behind(choice.end, found.end) == behind(found.end, choice.end) == 0
    return replace(found, target=choice.target) if same else None


def _unsupported(tree: Tree, shelves: Sequence[Shelf], best: Choice) -> str:
    """Until when data are kept that no backup leads to: of a later timeline, or of another line of none."""
    later = [run.ended for d in tree.timelines() if d > best.timeline for run in tree.runs(d)]
    if best.timeline < FIRST:
        backed = {b.line for s in shelves for b in s.backups}
        other = (t for s in shelves for t in s.stretches if t.line not in backed)
        later += [run.ended for t in other for run in t.runs if run.domain < FIRST]
    return max(later, default="")


def _copies(shelves: Iterable[Shelf]) -> Mapping[Backup, tuple[str, ...]]:
    found: dict[Backup, tuple[str, ...]] = {}
    for shelf in shelves:
        for backup in shelf.backups:
            found[backup] = (*found.get(backup, ()), shelf.host)
    return found


def continuation(position: str, line: str, shelves: Sequence[Shelf]) -> tuple[Leg, ...]:
    """What hosts streamed of these data beyond `position`, on the timeline that it is of."""
    stretches = [(s.host, t) for s in shelves for t in s.stretches]
    own = newest_domain(position)
    goal = Tree(shelves).goal(own, earlier(position, own), line)
    return walk(position, goal, stretches, line).legs


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


def expired(backups: Iterable[Backup], keep: int, just: str = "") -> tuple[str, ...]:
    """The ids of the backups of one host that go, oldest first: all but the `keep` latest, and the one `just` made."""
    ordered = sorted(backups, key=order)
    staying = {b.id for b in ordered[-max(1, keep) :]}
    return tuple(b.id for b in ordered if b.id not in staying and b.id != just)


def needless(staying: Sequence[Backup], stretches: Iterable[Stretch]) -> tuple[tuple[str, int, int], ...]:
    """Line, domain and number up to which binary logs go: what continues none of the backups that stay.

    Of timelines before theirs all that no longer leads to them; nothing where no backup stays.
    """
    found = []
    for line, domain in sorted({(t.line, run.domain) for t in stretches for run in t.runs}):
        limits = [_needs_after(backup, line, domain) for backup in staying]
        if limits and min(limits) > 0:
            found.append((line, domain, min(limits)))
    return tuple(found)


def missed(own: Shelf, other: Shelf) -> tuple[Stretch, ...]:
    """What another host keeps that holds transactions which this one lacks, since the oldest backup of either."""
    found: list[Stretch] = []
    oldest = min((b for s in (own, other) for b in s.backups), key=order, default=None)
    for stretch in other.stretches:
        if oldest is None:
            break
        mine = [r for t in (*own.stretches, *found) if t.line == stretch.line for r in t.runs]
        needed = [r for r in stretch.runs if r.numbers[1] > _needs_after(oldest, stretch.line, r.domain)]
        if any(lacks(mine, run) for run in needed):
            found.append(stretch)
    return tuple(found)


EVERYTHING = 2**63
"""More than any transaction's number."""


def _needs_after(backup: Backup, line: str, domain: int) -> int:
    """The number in a domain up to which the backup needs nothing."""
    if domain < FIRST and line != backup.line:
        return EVERYTHING if backup.timeline >= FIRST else 0
    if domain < backup.timeline and backup.timeline >= FIRST:
        return EVERYTHING
    return parse_gtids(backup.position).get(domain, 0)
