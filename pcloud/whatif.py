"""What the loss of a host or a rack would mean: the plan that would follow, on what was observed, without them.

Pure: nothing is asked of anybody, and nothing here is ever executed. Where all is as it should be,
a loss moves what was on the host and nothing else, so only that is placed; and losses that move the
same kinds of servers have one plan between them. That is what makes a thousand hosts affordable.

Safety, as sentences:
- A loss is survived when every server has a place afterwards, nobody has to act, and no data would
  go back to a backup or the dump.
- What is not as it should be now counts against every loss that it would block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from pcloud.decide import Act, Decision, decide, find_quarantined
from pcloud.desired import Desired
from pcloud.distribute import find_lacking
from pcloud.identity import carrier_names
from pcloud.model import Site
from pcloud.observed import HostPower, Observed
from pcloud.placement import NoRoom, place
from pcloud.plan import Plan, plan
from pcloud.steps.promotion import Promote
from pcloud.steps.restoring import FILLS
from pcloud.steps.stop import PassOver
from pcloud.timing import fence_of, predicted_total_s

PROOF = "as if it were lost"
_DATE = "19700101-000000"
"""Names tombstones that are never made."""


def as_lost(observed: Observed, hosts: Iterable[str]) -> Observed:
    """As it would look with these hosts silent, proven off, and nothing known of what they hold."""
    gone = frozenset(hosts)
    left = observed.lose(gone)
    return replace(
        left,
        hosts=tuple(
            replace(
                h, problem=PROOF, silent=True, power=HostPower.OFF, proof=PROOF, volumes=(), witnesses=(), left=False
            )
            if h.name in gone
            else h
            for h in left.hosts
        ),
    )


@dataclass(frozen=True)
class Subject:
    """What may be lost at once."""

    kind: Literal["host", "rack"]
    name: str
    hosts: tuple[str, ...]

    def __str__(self) -> str:
        return f"rack {self.name}" if self.kind == "rack" else self.name


def subjects_of(site: Site) -> tuple[Subject, ...]:
    """Every host, then every rack, in the inventory's order."""
    racks: dict[str, list[str]] = {}
    for host in site.hosts:
        racks.setdefault(host.rack, []).append(host.name)
    hosts = (Subject("host", h.name, (h.name,)) for h in site.hosts)
    return (*hosts, *(Subject("rack", name, tuple(inside)) for name, inside in racks.items()))


@dataclass(frozen=True)
class Move:
    """A server that would be made elsewhere, and why there; where it fits nowhere, `short` stands for `new`."""

    server: str
    old: str
    new: str
    why: str
    short: str = ""


@dataclass(frozen=True)
class Effects:
    """What the plan says beside the places. `seconds` goes by `durations`, or by bare proportions."""

    promoted: str = ""
    rpo: str = ""
    restored: bool = False
    stops: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Loss:
    subject: Subject
    moves: tuple[Move, ...]
    effects: Effects

    @property
    def homeless(self) -> tuple[Move, ...]:
        return tuple(m for m in self.moves if not m.new)

    @property
    def survived(self) -> bool:
        return not self.homeless and not self.effects.stops and not self.effects.restored


@dataclass(frozen=True)
class Outlook:
    """The site as it is, for one loss after the other. Made by `look`."""

    desired: Desired
    observed: Observed
    durations: Mapping[str, float]
    decided: Mapping[str, Decision]
    restores: bool
    """Whether a backup or the dump is to be restored as it is."""
    known: dict[object, Effects] = field(default_factory=dict)
    """Effects of losses that move the same kinds of servers."""

    @cached_property
    def unsettled(self) -> tuple[str, ...]:
        """Servers that are not as they should be, and hosts that do not answer."""
        servers = (n for n, d in self.decided.items() if d.act is not Act.KEEP)
        return (*self.observed.unreachable(), *servers)

    @cached_property
    def _settled(self) -> bool:
        """Whether a loss changes nothing but what was there."""
        return not self.unsettled and not find_quarantined(self.desired, self.observed)

    @cached_property
    def _groups(self) -> dict[str, str]:
        return {s.name: s.group for s in self.desired.everyone}

    def judge(self, subject: Subject) -> Loss:
        """What its loss would mean."""
        without = as_lost(self.observed, subject.hosts)
        moves = tuple(self._moves_of(subject, without) if self._settled else self._changes(subject, without))
        key = self._kind_of(subject, moves, without) if self._settled else subject
        if key not in self.known:
            self.known[key] = self._foresee(without, moves)
        return Loss(subject, moves, self.known[key])

    def _moves_of(self, subject: Subject, without: Observed) -> Iterator[Move]:
        """Who was there, placed anew; all others stay."""
        desired, lost = self.desired, set(subject.hosts)
        gone = [s for s in desired.servers if self.decided[s.name].host in lost]
        staying = {n: d.host for n, d in self.decided.items() if d.host not in lost}
        for server, chosen in place(desired.site, without, staying, gone, self._groups).items():
            old = self.decided[server].host
            if isinstance(chosen, NoRoom):
                yield Move(server, old, "", str(chosen), chosen.short)
            else:
                yield Move(server, old, chosen.host, f"{chosen.host}: {chosen.reason}")

    def _changes(self, subject: Subject, without: Observed) -> Iterator[Move]:
        """The same where anything may depend on anything: every decision is taken again."""
        lost = set(subject.hosts)
        for server, d in decide(self.desired, without).items():
            old = self.decided[server].host if server in self.decided else ""
            if d.no_room is not None or (old in lost and d.act is not Act.BLOCK):
                yield Move(server, old, d.host, d.reason, d.no_room.short if d.no_room else "")

    def _kind_of(self, subject: Subject, moves: tuple[Move, ...], without: Observed) -> object:
        """Losses of one kind have plans alike, but for names."""
        site, carriers = self.desired.site, set(carrier_names(self.desired.site))
        specs = {m.server: self.desired.server(m.server) for m in moves}
        groups = Counter((specs[m.server].group, bool(m.new)) for m in moves)
        images = {s.image.name: s.image for s in specs.values()}
        copies = [
            len(find_lacking(site, without, {m.new for m in moves if m.new and specs[m.server].image == image}, image))
            for image in images.values()
        ]
        data = frozenset((m.server, bool(m.new)) for m in moves if m.server in carriers)
        fences = tuple(sorted(self.durations.get(fence_of(h), -1.0) for h in subject.hosts))
        return frozenset(groups.items()), tuple(copies), data, len({m.old for m in moves}), fences

    def _foresee(self, without: Observed, moves: tuple[Move, ...]) -> Effects:
        made = plan(self.desired, without, _DATE)
        homeless = {m.server for m in moves if not m.new}
        heir = next((n.info for n in made.nodes if isinstance(n.step, Promote)), None)
        restored = _restores(made) and not self.restores
        blocked = [n for n in made.blocked if not isinstance(n.step, PassOver)]
        stops = tuple(f"{n.info.server}: {n.info.reason}" for n in blocked if n.info.server not in homeless)
        seconds = predicted_total_s([n.info for n in made.nodes if not n.aside], self.durations)
        return Effects(heir.server or "" if heir else "", heir.reason if heir else "", restored, stops, seconds)


def look(desired: Desired, observed: Observed, durations: Mapping[str, float]) -> Outlook:
    """`durations`: `timing.durations_from`; empty, and times are bare proportions."""
    made = plan(desired, observed, _DATE)
    return Outlook(desired, observed, durations, decide(desired, observed), _restores(made))


def _restores(made: Plan) -> bool:
    """Whether the data would be older ones, at once or at a person's word."""
    return any(isinstance(n.step, (*FILLS, PassOver)) for n in made.nodes)
