"""Where a server goes: a pure choice, the same every time for the same input.

A server stays where it is. A new one goes to a host that answers and has the memory, its
reserve left alone. Hard: the database and its replica never share a host, and nothing is put
beside an older copy of itself. Soft, in this order: few of the same group on the host; no
spare host; the balancer apart from the others; few servers on the host; few of the same
group in the rack; the inventory's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

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


_Rank = tuple[int, bool, int, int, int, int]


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

    def _rank(self, room: _Room, group: str) -> _Rank:
        total = room.groups.total()
        beside = total if group in self.balancers else sum(room.groups[g] for g in self.balancers)
        return (room.groups[group], room.spare, beside, total, self.racks[room.rack, group], room.order)

    def find_best(self, group: str, need_mib: int, not_on: Set[str]) -> _Room | None:
        if not_on:
            fitting = [r for r in self.rooms if r.name not in not_on and r.free_mib >= need_mib]
            return min(fitting, key=lambda r: self._rank(r, group), default=None)
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

    def reason(self, room: _Room, group: str) -> str:
        """Why this host, in the words of the rules at the top."""
        company = room.groups[group]
        alone = f"no other {group} there" if company == 0 else f"{company} of {group} there already"
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
    old: Set[tuple[str, str]] = frozenset(),
) -> dict[str, Placed | str]:
    """A host for each of `new`; for a server that fits nowhere, why.

    `staying` maps servers that keep their host (they count as company); `group_of` maps every
    server's name to its group; `old` are the hosts and servers of quarantined copies, which
    take no memory and whose host is not for that server.
    """
    balancers = frozenset(g.name for g in site.groups if g.role == "balancer")
    house = _House(_rooms(site, observed, staying, group_of, old), balancers)
    twins, where = _twins(site), dict(staying)
    placed: dict[str, Placed | str] = {}
    for spec in new:
        need_mib = spec.memory_mib + SERVER_OVERHEAD_MIB
        twin = twins.get(spec.name, "")
        not_on = {host: "an older copy of it" for host, server in old if server == spec.name}
        not_on |= {host.name: twin for host, _ in observed.copies(site.site, twin) if (host.name, twin) not in old}
        not_on |= {where[twin]: twin} if twin in where else {}
        best = house.find_best(spec.group, need_mib, not_on.keys())
        apart = "".join(f", apart from {what} on {host}" for host, what in sorted(not_on.items()))
        if best is None:
            placed[spec.name] = f"no host that answers has {spec.memory_mib} MiB left for it{apart}"
            continue
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
    old: Set[tuple[str, str]],
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
