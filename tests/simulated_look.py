"""What pcloud would see of a simulated site: of the hosts that its inventory names, and of what answers."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pcloud.backupnotes import last_backup, newest
from pcloud.errors import PcloudError
from pcloud.kept import NEVER_SEEN, NOBODY_HEARD, LastBackup
from pcloud.loss import witnesses_of
from pcloud.observed import Data, Health, HostPower, Observed, Power, SeenHost, Witness
from pcloud.recall import looks_at_shelves
from pcloud.sightings import last_sighting
from pcloud.steps.fence import PowerProof, ask_power
from tests.simulated_data import seen_database

if TYPE_CHECKING:
    from tests.simulation import SimWorld

HOST_MEMORY_MIB = 16_384
NOBODY = "connection refused"
REFUSED = "error 1045: Access denied for user 'monitor'"


def look(world: SimWorld, *, at_silent: bool = True) -> Observed:
    """In no time but for what controllers take; these are asked only when `at_silent`."""
    hosts = tuple(_look_at(world, h.name, at_silent=at_silent) for h in world.site.hosts)
    asked = {h.name for h in hosts if h.reachable}
    seen = {s.mark.server for h in hosts for s in h.servers if s.mark is not None and s.power is Power.RUNNING}
    here = [s.name for s in world.desired.everyone if s.name in seen and _is_here(world, s.name, asked)]
    up = {s: Health(False, REFUSED) if world.refuses(s) else _look_once(world, s) for s in here}
    well = {world.desired.server(s).group for s, health in up.items() if health.ok}
    slow = (s for s in here if not world.refuses(s) and world.desired.server(s).group not in well)
    up |= {s: _look_once(world, s) for s in slow}
    wall = world.clock.wall().timestamp()
    return Observed(hosts, up, _look_at_data(world, hosts, set(up)), at=wall)


def _journaled(world: SimWorld) -> LastBackup | None:
    return LastBackup("", "", world.keeping) if world.keeping else None


def _look_once(world: SimWorld, server: str) -> Health:
    if not world.answering(server):
        return Health(False, NOBODY)
    return Health(not world.is_busy(server), "no answer within 10 s")


def _is_here(world: SimWorld, server: str, asked: set[str]) -> bool:
    return any(h in asked for h, _ in world.reached(server))


def _look_at(world: SimWorld, name: str, *, at_silent: bool) -> SeenHost:
    host = world.hosts[name]
    if host.away:
        return _look_at_silent(world, name) if at_silent else SeenHost(name, "no answer", silent=True)
    world.heard_of(name)
    volumes = tuple(sorted(PurePosixPath(p).name for p in host.files))
    return SeenHost(name, "", HOST_MEMORY_MIB, "tcg", world.hypervisor(name).servers(), volumes)


def _look_at_silent(world: SimWorld, name: str) -> SeenHost:
    host = world.hosts[name]
    asked = tuple(h.name for h in world.site.hosts if not world.hosts[h.name].away)[:2]
    found = _ask_power(world, name)
    if host.seen or (found is not None and found.power is HostPower.ON):
        world.heard_of(name)
    unproven = found is None or (found.power is HostPower.OFF and not found.proof)
    if unproven and (word := world.confirmed_off(name)):
        found = PowerProof(HostPower.OFF, word)
    found = found or PowerProof(HostPower.UNKNOWN)
    beside = tuple(w.name for w in world.site.witnesses)
    views = tuple(Witness(n, host.seen) for n in (*asked, *beside))
    return SeenHost(name, "no answer", silent=True, power=found.power, proof=found.proof, witnesses=views)


def _ask_power(world: SimWorld, name: str) -> PowerProof | None:
    try:
        return ask_power(world, name)
    except PcloudError:
        return None


def _look_at_data(world: SimWorld, hosts: tuple[SeenHost, ...], found: set[str]) -> Data:
    once = (s for s in world.carriers() if s in found and world.answering(s) and len(world.running(s)) == 1)
    up = {s: d for s in once if (d := world.find_data(s)) and not world.is_full(s)}
    holders = world.holders()
    now, wall = world.clock.now(), world.clock.wall()
    seen = {s: seen_database(d, follows=bool(holders), now=now, wall=wall) for s, d in up.items()}
    idx_up = all(world.answering(s.name) for s in world.desired.members(world.site.search.group))
    tokens = [d.restored for d in seen.values() if d.restored]
    writing = any(d.writable for d in seen.values())
    known = NEVER_SEEN if writing else last_sighting(world.site.site, Observed(hosts), wall)
    once = (s.name for s in world.desired.everyone if world.answering(s.name) and len(world.running(s.name)) == 1)
    asked = witnesses_of(world.desired, once, (h.name for h in hosts if h.reachable))
    heard = NOBODY_HEARD if writing else world.hearing.told(asked)
    looked = looks_at_shelves(world.desired.options, seen, known, heard)
    return Data(
        tokens[0] if tokens else "",
        indexed=world.indexed and idx_up,
        databases=seen,
        holder=next((h for h in holders if h in up), ""),
        known=known,
        shelves=world.shelves if looked else (),
        last_backup=newest((last_backup(world.site.site, Observed(hosts)), _journaled(world) if looked else None)),
        heard=heard,
        asked_at=now,
        refused=tuple(s for s in up if world.refuses(s)),
        full=tuple(s for s in world.carriers() if world.is_full(s)),
    )
