"""Whether a site that is well could be spread better over its racks: said, and never done unasked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pcloud.decision import Act, Decision
from pcloud.desired import Desired
from pcloud.identity import carrier_names
from pcloud.observed import Observed
from pcloud.placement import Placed, place


def find_crowded(desired: Desired, observed: Observed, decisions: Mapping[str, Decision]) -> tuple[str, ...]:
    """Sentences: what a rack's loss would take too much of, and the command that moves it; only of a settled site."""
    if any(d.act is not Act.KEEP for d in decisions.values()) or observed.unreachable():
        return ()
    return (*_data_in_one_rack(desired, observed, decisions), *_groups_in_few_racks(desired, observed, decisions))


def _racks(desired: Desired) -> dict[str, str]:
    return {h.name: h.rack for h in desired.site.hosts}


def _place_anew(desired: Desired, observed: Observed, decisions: Mapping[str, Decision], server: str) -> str:
    """The host that it would get, were it made now beside all others; empty where it would stay or fits nowhere."""
    staying = {n: d.host for n, d in decisions.items() if n != server}
    groups = {s.name: s.group for s in desired.everyone}
    chosen = place(desired.site, observed, staying, [desired.server(server)], groups)[server]
    return chosen.host if isinstance(chosen, Placed) and chosen.host != decisions[server].host else ""


def _data_in_one_rack(desired: Desired, observed: Observed, decisions: Mapping[str, Decision]) -> Iterator[str]:
    racks, carriers = _racks(desired), carrier_names(desired.site)
    hosts = [decisions[n].host for n in carriers if n in decisions]
    if len(hosts) < 2 or racks[hosts[0]] != racks[hosts[1]]:
        return
    seen = observed.data.databases
    moves = next((n for n in reversed(carriers) if n in seen and not seen[n].writable), carriers[-1])
    other = _place_anew(desired, observed, decisions, moves)
    if other and racks[other] != racks[hosts[0]]:
        yield (
            f"{' and '.join(carriers)} are both in rack {racks[hosts[0]]}, and {other} in rack {racks[other]} has room "
            f"for one: pcloud failover {desired.site.site} {decisions[moves].host} moves what is there"
        )


def _groups_in_few_racks(desired: Desired, observed: Observed, decisions: Mapping[str, Decision]) -> Iterator[str]:
    racks = _racks(desired)
    for group in desired.site.groups:
        members = [s.name for s in desired.members(group.name)]
        spread = Counter(racks[decisions[n].host] for n in members)
        rack, most = max(spread.items(), key=lambda r: r[1])
        crowded = next(n for n in members if racks[decisions[n].host] == rack)
        other = _place_anew(desired, observed, decisions, crowded) if most > 1 else ""
        if other and most - spread[racks[other]] > 1:
            yield (
                f"{most} of {len(members)} servers of {group.name} are in rack {rack}, and {other} in rack "
                f"{racks[other]} has room: pcloud failover {desired.site.site} {decisions[crowded].host} moves what is "
                "there"
            )
