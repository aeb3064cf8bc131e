"""Servers of the site that the inventory does not name (any more), and servers at an address that it gives to others.

A prefix, a count, a role or an address changes in the inventory; what was made before runs on as it was.

Safety, as sentences:
- No server starts at an address while another one that runs has it: that one is put away first, or is made
  anew without it first, or the server is blocked.
- What holds no data and is in no plan is put away: before its address is used again, else after the walk.
- What may hold data and is in no plan is a person's to put away. While it may be the primary, or may be all
  there is of the data, nobody else gets the role or the data.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from pcloud.decision import MAKES, Act, Decision
from pcloud.desired import Desired, Names, ServerSpec
from pcloud.identity import carrier_names
from pcloud.observed import Observed, Power, SeenHost, SeenServer

_EMPTY = frozenset({"frontend", "balancer"})
"""Roles that hold nothing which cannot be made again."""
_RISES = MAKES | {Act.START, Act.CYCLE}
"""Acts after which a server runs that may not have run before."""


@dataclass(frozen=True)
class Unplanned:
    """One copy of a server that carries the site's mark and is in no plan; also one with data whose name the
    inventory gives to a server that holds none."""

    host: str
    names: Names
    role: str
    power: Power
    addresses: tuple[str, ...]
    """None where it was made before they were noted: it may have any of its role's."""

    @property
    def server(self) -> str:
        return self.names.server

    @property
    def runs(self) -> bool:
        return self.power is not Power.OFF

    @property
    def may_hold_data(self) -> bool:
        return self.role not in _EMPTY

    def has(self, spec: ServerSpec) -> bool:
        """Whether it is, or may be, at an address of this server's."""
        return bool(set(self.addresses) & set(spec.addresses)) if self.addresses else self.role == spec.role

    @property
    def text(self) -> str:
        at = f" at {self.addresses[0]}" if self.addresses else ""
        runs = f"runs{at}" if self.runs else f"is {self.power}"
        return f"{self.server} ({self.role}) {runs} on {self.host}, and the inventory names no such server"

    @property
    def next(self) -> str:
        """What a person does about it."""
        site = self.names.site
        return (
            f"give it its name back in the inventory; or put it away: pcloud destroy {site} {self.server}; "
            f"then pcloud recover {site}"
        )


def find_unplanned(desired: Desired, observed: Observed, old: Container[tuple[str, str]] = ()) -> tuple[Unplanned, ...]:
    """On hosts that answer, in their order. `old`: host and server of quarantined copies, which are none of these."""
    site, known = desired.site.site, {s.name: s.role for s in desired.everyone}
    return tuple(
        Unplanned(h.name, Names(site, m.server, m.generation), m.role, s.power, m.addresses)
        for h, s in _marked(site, observed)
        if (m := s.mark) is not None
        and (m.server not in known or (m.role not in _EMPTY and known[m.server] in _EMPTY))
        and (h.name, m.server) not in old
    )


def _marked(site: str, observed: Observed) -> Iterator[tuple[SeenHost, SeenServer]]:
    for host in observed.hosts:
        for seen in host.servers:
            if seen.mark is not None and seen.mark.site == site:
                yield host, seen


def say_unplanned(found: Iterable[Unplanned], going: Container[tuple[str, str]]) -> tuple[str, ...]:
    """A sentence for each that stays where it is; `going`: host and server of those that this run puts away."""
    return tuple(f"{u.text}: {u.next}" for u in found if (u.host, u.server) not in going)


def keep_apart(
    desired: Desired, observed: Observed, old: Container[tuple[str, str]], decided: Mapping[str, Decision]
) -> dict[str, Decision]:
    """The decisions, but for those that would start a server at another one's address, or beside unplanned data."""
    there = find_unplanned(desired, observed, old)
    found = dict(decided)
    if (latest := _find_primary(desired, observed, there, decided)) is not None:
        for name in carrier_names(desired.site):
            d = found[name]
            if d.act not in (Act.LEAVE, Act.BLOCK):
                found[name] = _block(d, f"{latest.text}; it may hold the latest data", latest.next)
    for one in (u for u in there if u.server in found):
        found[one.server] = _block(
            found[one.server], f"{one.text}; its data are put away only when you name it", one.next
        )
    ours = {s.mark.server: (h, s) for h, s in _marked(desired.site.site, observed) if s.mark is not None}
    holders = _holders(ours, found, old)
    for name, d in found.items():
        if d.act in _RISES:
            found[name] = _at_free_address(desired.site.site, there, holders, started_as(desired, observed, d), d)
    return found


def started_as(desired: Desired, observed: Observed, d: Decision) -> ServerSpec:
    """The server with the addresses that it starts with: a copy that is kept has those it was made with."""
    spec = desired.server(d.server)
    copies = observed.copies(desired.site.site, d.server)
    kept = (s.mark for h, s in copies if s.mark and (h.name, s.mark.generation) == (d.host, d.generation))
    mark = next(kept, None) if d.act not in MAKES else None
    if mark is None or not mark.addresses:
        return spec
    return replace(spec, address=mark.addresses[0], service_addresses=mark.addresses[1:])


def _find_primary(
    desired: Desired, observed: Observed, there: Iterable[Unplanned], decided: Mapping[str, Decision]
) -> Unplanned | None:
    """Who may be the primary, while no server of the plan's is; or may have all that there is, while none has any."""
    carriers = carrier_names(desired.site)
    if any(d.writable for n, d in observed.data.databases.items() if n in carriers):
        return None
    nobody = all(decided[n].act is Act.BUILD or not decided[n].host for n in carriers)
    return next((u for u in there if u.may_hold_data and (u.runs or nobody)), None)


def _holders(
    ours: Mapping[str, tuple[SeenHost, SeenServer]],
    decided: Mapping[str, Decision],
    old: Container[tuple[str, str]],
) -> dict[str, list[tuple[str, str]]]:
    """Address to the servers of the plan, with their hosts, that have it and stay, or start again with it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, (host, seen) in ours.items():
        d = decided.get(name)
        if d is None or d.act in MAKES or seen.mark is None or (host.name, name) in old:
            continue
        if seen.power is not Power.OFF or d.act in _RISES:
            for address in seen.mark.addresses:
                found.setdefault(address, []).append((name, host.name))
    return found


def _at_free_address(
    site: str,
    there: Iterable[Unplanned],
    holders: Mapping[str, list[tuple[str, str]]],
    spec: ServerSpec,
    d: Decision,
) -> Decision:
    """A block where somebody has an address of the server's who is not put away first."""
    for address in spec.addresses:
        other, host = next((h for h in holders.get(address, ()) if h[0] != d.server), ("", ""))
        if other:
            remedy = f"give {other} its address back in the inventory; or pcloud recover {site} --rebuild {other}"
            return _block(d, f"its address {address} is not free: {other} on {host} has it", remedy)
    unplanned = next((u for u in there if u.runs and u.may_hold_data and u.has(spec)), None)
    if unplanned is not None:
        return _block(d, f"its address {spec.address} is not free: {unplanned.text}", unplanned.next)
    return d


def _block(d: Decision, reason: str, remedy: str) -> Decision:
    generation = d.generation if d.old is None else d.old
    host = "" if d.act is Act.BUILD else d.host
    return Decision(d.server, Act.BLOCK, reason, host, generation, was_healthy=d.was_healthy, next=remedy)


def gives_way(there: Iterable[Unplanned], spec: ServerSpec) -> tuple[Unplanned, ...]:
    """Who has to be put away before this server starts."""
    return tuple(u for u in there if u.runs and not u.may_hold_data and u.has(spec))
