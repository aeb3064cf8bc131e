"""Where a server goes: a pure choice, the same every time for the same input.

A server stays where it is. A new one goes to a host that is there, has the memory, and
repeats its group least; then its rack; then the emptiest; spare hosts come last; the
inventory's order breaks ties.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

from pcloud.desired import ServerSpec
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


_Rank = tuple[int, bool, int, int, int]


@dataclass
class _House:
    """All hosts while servers are being placed. `racks` counts servers by rack and group.

    Placing only makes a host less attractive, for every group. So each group has a heap of
    the hosts whose ranks may be out of date: one at the top that is not is the best of all.
    """

    rooms: list[_Room]
    racks: Counter[tuple[str, str]] = field(default_factory=Counter)
    heaps: dict[tuple[str, int], list[tuple[_Rank, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for room in self.rooms:
            for group, count in room.groups.items():
                self.racks[room.rack, group] += count

    def _rank(self, room: _Room, group: str) -> _Rank:
        return (room.groups[group], room.spare, room.groups.total(), self.racks[room.rack, group], room.order)

    def find_best(self, group: str, need_mib: int) -> _Room | None:
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


def place(
    site: Site, observed: Observed, staying: Mapping[str, str], new: Iterable[ServerSpec], group_of: Mapping[str, str]
) -> dict[str, Placed | None]:
    """A host for each of `new`; None for a server that fits nowhere.

    `staying` maps servers that keep their host (they count as company, and their memory is
    among what the host runs); `group_of` maps every server's name to its group.
    """
    house = _House(_rooms(site, observed, staying, group_of))
    placed: dict[str, Placed | None] = {}
    for spec in new:
        need_mib = spec.memory_mib + SERVER_OVERHEAD_MIB
        best = house.find_best(spec.group, need_mib)
        placed[spec.name] = None if best is None else Placed(best.name, _reason(best, spec))
        if best is not None:
            house.take(best, spec.group, need_mib)
    return placed


def _rooms(site: Site, observed: Observed, staying: Mapping[str, str], group_of: Mapping[str, str]) -> list[_Room]:
    gone = {name for name in group_of if name not in staying}
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
            if s.mark is None or s.mark.site != site.site or s.mark.server not in gone
        )
        free = memory - HOST_RESERVE_MIB - used
        rooms.append(_Room(host.name, host.rack, host.spare, order, free, company.get(host.name, Counter())))
    return rooms


def _reason(room: _Room, spec: ServerSpec) -> str:
    company = room.groups[spec.group]
    alone = f"no other {spec.group} there" if company == 0 else f"{company} of {spec.group} there already"
    return f"{'spare host, ' if room.spare else ''}{room.free_mib} MiB free, {alone}"
