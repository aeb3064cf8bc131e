"""Where a server goes: a pure choice, the same every time for the same input.

A server stays where it is. A new one goes to a host that is there, has the memory, and
repeats its group least; then its rack; then the emptiest; spare hosts come last; the
inventory's order breaks ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pcloud.desired import ServerSpec
from pcloud.model import HOST_RESERVE_MIB, SERVER_OVERHEAD_MIB, Site
from pcloud.observed import Observed


@dataclass
class _Room:
    """A host while servers are being placed on it."""

    name: str
    rack: str
    spare: bool
    order: int
    free_mib: int
    groups: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Placed:
    host: str
    reason: str


def place(
    site: Site, observed: Observed, staying: Mapping[str, str], new: Iterable[ServerSpec], group_of: Mapping[str, str]
) -> dict[str, Placed | None]:
    """A host for each of `new`; None for a server that fits nowhere.

    `staying` maps servers that keep their host (they count as company, and their memory is
    among what the host runs); `group_of` maps every server's name to its group.
    """
    rooms = _rooms(site, observed, staying, group_of)
    placed: dict[str, Placed | None] = {}
    for spec in new:
        fitting = [r for r in rooms if r.free_mib >= spec.memory_mib + SERVER_OVERHEAD_MIB]
        if not fitting:
            placed[spec.name] = None
            continue
        racks = {r.rack: sum(o.groups.count(spec.group) for o in rooms if o.rack == r.rack) for r in rooms}
        best = min(
            fitting,
            key=lambda r: (r.groups.count(spec.group), r.spare, len(r.groups), racks[r.rack], r.order),
        )
        placed[spec.name] = Placed(best.name, _reason(best, spec))
        best.groups.append(spec.group)
        best.free_mib -= spec.memory_mib + SERVER_OVERHEAD_MIB
    return placed


def _rooms(site: Site, observed: Observed, staying: Mapping[str, str], group_of: Mapping[str, str]) -> list[_Room]:
    rooms = []
    for order, host in enumerate(site.hosts):
        seen = observed.host(host.name)
        if seen is None or not seen.reachable:
            continue
        memory = min(seen.memory_mib, host.memory_mib or seen.memory_mib)
        if site.lab is not None:
            memory = min(memory, site.lab.host_memory_mib)
        gone = {name for name in group_of if name not in staying}
        used = sum(
            s.memory_mib + SERVER_OVERHEAD_MIB
            for s in seen.servers
            if s.mark is None or s.mark.site != site.site or s.mark.server not in gone
        )
        company = [group_of[name] for name, where in staying.items() if where == host.name and name in group_of]
        rooms.append(_Room(host.name, host.rack, host.spare, order, memory - HOST_RESERVE_MIB - used, company))
    return rooms


def _reason(room: _Room, spec: ServerSpec) -> str:
    company = room.groups.count(spec.group)
    alone = f"no other {spec.group} there" if company == 0 else f"{company} of {spec.group} there already"
    return f"{'spare host, ' if room.spare else ''}{room.free_mib} MiB free, {alone}"
