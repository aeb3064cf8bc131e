"""Where a server goes: a pure choice, the same every time for the same input.

A server stays where it is. A new one goes to a host that answers and has the memory, its
reserve left alone. Hard: the database and its replica never share a host, and nothing is put
beside an older copy of itself that must stay. Soft, in this order, what a loss would take before what
is handy: no older copy of it that is put away first; few of the same group on the host; the database and
its replica in two racks; few of the same group in the rack; no spare host; the balancer apart from the
others; few servers on the host; the inventory's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Set
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from types import MappingProxyType

from pcloud.desired import ServerSpec
from pcloud.identity import server_names
from pcloud.model import HOST_RESERVE_MIB, SERVER_OVERHEAD_MIB, Site
from pcloud.observed import Observed


@dataclass
class _Room:
    """A host while servers are being placed on it. `groups` counts its servers by group."""

    name: str
    rack: str
    spare: bool
    order: int
    free_mib: int
    groups: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Placed:
    host: str
    reason: str


@dataclass(frozen=True)
class NoRoom:
    """A server that fits nowhere. `most_mib` is what the host with the most left has; of no host: none may have it."""

    need_mib: int
    most_mib: int = 0
    host: str = ""
    apart: str = ""

    @property
    def short(self) -> str:
        """What there is too little of."""
        return "memory" if self.host else "hosts"

    def __str__(self) -> str:
        if not self.host:
            return f"no host that answers is left for it{self.apart}"
        most = f"the most is {self.most_mib} MiB, on {self.host}"
        return f"it takes {self.need_mib} MiB, which no host that answers has left: {most}{self.apart}"


_Rank = tuple[int, bool, int, bool, int, int, int]


@dataclass
class _House:
    """All hosts while servers are being placed. `racks` counts servers by rack and group.

    Placing only makes a host less attractive, for every group. So each group has a heap of
    the hosts whose ranks may be out of date: one at the top that is not is the best of all.
    """

    rooms: list[_Room]
    balancers: frozenset[str]
    """Groups of balancers: everyone keeps apart from them, as far as that goes."""
    racks: Counter[tuple[str, str]] = field(default_factory=Counter)
    heaps: dict[tuple[str, int], list[tuple[_Rank, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for room in self.rooms:
            for group, count in room.groups.items():
                self.racks[room.rack, group] += count

    def _rank(self, room: _Room, group: str, near: str | None = None) -> _Rank:
        """The lower, the better; `near` is a rack to keep away from."""
        total = room.groups.total()
        beside = total if group in self.balancers else sum(room.groups[g] for g in self.balancers)
        alike = self.racks[room.rack, group]
        return (room.groups[group], room.rack == near, alike, room.spare, beside, total, room.order)

    def find_best(
        self, group: str, need_mib: int, not_on: Set[str], last: Set[str], near: str | None = None
    ) -> _Room | None:
        """`last` are hosts that are taken only where no other one has room."""
        if not_on or last:
            fitting = [r for r in self.rooms if r.name not in not_on and r.free_mib >= need_mib]
            return min(fitting, key=lambda r: (r.name in last, *self._rank(r, group, near)), default=None)
        if (group, need_mib) not in self.heaps:
            made = [(self._rank(room, group), n) for n, room in enumerate(self.rooms)]
            heapify(made)
            self.heaps[group, need_mib] = made
        heap = self.heaps[group, need_mib]
        while heap:
            rank, n = heap[0]
            room = self.rooms[n]
            if room.free_mib < need_mib:
                heappop(heap)
            elif rank == (now := self._rank(room, group)):
                return room
            else:
                heapreplace(heap, (now, n))
        return None

    def take(self, room: _Room, group: str, need_mib: int) -> None:
        room.groups[group] += 1
        room.free_mib -= need_mib
        self.racks[room.rack, group] += 1

    def find_most(self, not_on: Set[str]) -> _Room | None:
        """The host with the most memory left, where a server may go at all."""
        return max((r for r in self.rooms if r.name not in not_on), key=lambda r: (r.free_mib, -r.order), default=None)

    def reason(self, room: _Room, group: str) -> str:
        """Why this host, in the words of the rules at the top."""
        company, alike = room.groups[group], self.racks[room.rack, group]
        alone = f"{company} of {group} there already" if company else f"no other {group} there"
        if not company:
            alone += f", {alike} in rack {room.rack}" if alike else f" or in rack {room.rack}"
        beside = group in self.balancers and room.groups.total() > company
        return (
            f"{'spare host, ' if room.spare else ''}{room.free_mib} MiB free, {alone}"
            f"{', beside others as no host is free' if beside else ''}"
        )


def place(
    site: Site,
    observed: Observed,
    staying: Mapping[str, str],
    new: Iterable[ServerSpec],
    group_of: Mapping[str, str],
    old: Mapping[tuple[str, str], bool] = MappingProxyType({}),
) -> dict[str, Placed | NoRoom]:
    """A host for each of `new`; for a server that fits nowhere, what it is short of.

    `staying` maps servers that keep their host (they count as company); `group_of` maps every
    server's name to its group; `old` maps the hosts and servers of quarantined copies, which take no
    memory, to whether they may be put away to make room for that server.
    """
    balancers = frozenset(g.name for g in site.groups if g.role == "balancer")
    house = _House(_rooms(site, observed, staying, group_of, old), balancers)
    twins, where = _twins(site), dict(staying)
    racks = {h.name: h.rack for h in site.hosts}
    placed: dict[str, Placed | NoRoom] = {}
    for spec in new:
        need_mib = spec.memory_mib + SERVER_OVERHEAD_MIB
        mine = {host: may_go for (host, server), may_go in old.items() if server == spec.name}
        not_on, near = {host: "an older copy of it" for host, may_go in mine.items() if not may_go}, None
        if twin := twins.get(spec.name):
            not_on |= {host.name: twin for host, _ in observed.copies(site.site, twin) if (host.name, twin) not in old}
            not_on |= {where[twin]: twin} if twin in where else {}
            near = racks[where[twin]] if twin in where else None
        best = house.find_best(spec.group, need_mib, not_on.keys(), mine.keys() - not_on.keys(), near)
        apart = "".join(f", apart from {what} on {host}" for host, what in sorted(not_on.items()))
        if best is None:
            most = house.find_most(not_on.keys())
            placed[spec.name] = (
                NoRoom(need_mib, max(0, most.free_mib), most.name, apart) if most else NoRoom(need_mib, apart=apart)
            )
            continue
        if near is not None:
            apart += f", in {'its' if best.rack == near else 'another'} rack"
        apart += ", in place of an older copy of it, as no other host has room" if best.name in mine else ""
        placed[spec.name] = Placed(best.name, house.reason(best, spec.group) + apart)
        where[spec.name] = best.name
        house.take(best, spec.group, need_mib)
    return placed


def _twins(site: Site) -> dict[str, str]:
    """The database and its replica, each to the other: one host's loss must not take both."""
    if site.database.replica is None:
        return {}
    first, second = (server_names(site.group(g))[0] for g in (site.database.group, site.database.replica))
    return {first: second, second: first}


def _rooms(
    site: Site,
    observed: Observed,
    staying: Mapping[str, str],
    group_of: Mapping[str, str],
    old: Container[tuple[str, str]],
) -> list[_Room]:
    company: dict[str, Counter[str]] = {}
    for name, where in staying.items():
        if name in group_of:
            company.setdefault(where, Counter())[group_of[name]] += 1
    rooms = []
    for order, host in enumerate(site.hosts):
        seen = observed.host(host.name)
        if seen is None or not seen.reachable:
            continue
        memory = min(seen.memory_mib, host.memory_mib or seen.memory_mib)
        if site.lab is not None:
            memory = min(memory, site.lab.host_memory_mib)
        used = sum(
            s.memory_mib + SERVER_OVERHEAD_MIB
            for s in seen.servers
            if s.mark is None or s.mark.site != site.site or (host.name, s.mark.server) not in old
        )
        free = memory - HOST_RESERVE_MIB - used
        rooms.append(_Room(host.name, host.rack, host.spare, order, free, company.get(host.name, Counter())))
    return rooms
