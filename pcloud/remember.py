"""At the end of a command two hosts are told where the primary was, and what else runs on a host: the next one may
need it when that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from pcloud.desired import Desired
from pcloud.errors import PcloudError
from pcloud.gtid import rank
from pcloud.model import Site
from pcloud.neighbours import plan_notes
from pcloud.observe_data import observe_primary
from pcloud.observed import Observed, SeenDatabase, SeenHost
from pcloud.sightings import holders, last_sighting, name_of, outdated
from pcloud.steps.sighting import NoteSighting
from pcloud.world import World


def remember(desired: Desired, world: World, found: Observed | None = None) -> None:
    """Best effort: what cannot be told now is told by the next command. `found`: what was just observed."""
    if found is None:
        primary, hosts = observe_primary(desired, world), Observed(tuple(_hosts(world)))
    else:
        seen, hosts = found.data.databases.get(found.data.holder), found
        primary = (found.data.holder, seen) if seen is not None and seen.writable else None
    now = world.clock.wall()
    notes = (
        plan_keepers(desired.site, hosts, now) if primary is None else plan_sighting(desired.site, hosts, *primary, now)
    )
    beside = (NoteSighting(n.holder, n.name, n.old) for n in plan_notes(desired.site, hosts, now))
    for note in (*notes, *beside):
        with suppress(PcloudError):
            note.tell(world)


def _hosts(world: World) -> Iterator[SeenHost]:
    """Those that this command talks to already: a dead one is not waited for again."""
    for host in world.site.hosts:
        with suppress(PcloudError):
            if world.is_connected(host.name):
                hypervisor = world.hypervisor(host.name)
                yield SeenHost(host.name, servers=hypervisor.servers(), volumes=hypervisor.volumes(host.pool))


def plan_sighting(
    site: Site, observed: Observed, server: str, seen: SeenDatabase, now: datetime
) -> tuple[NoteSighting, ...]:
    """What hosts are to remember of `server`, the primary, as it was `seen` now."""
    if not seen.position and not seen.timeline:
        return ()
    name = name_of(site.site, seen.position, seen.timeline, now, seen.waits_ms)
    at = next((h.name for h, _ in observed.copies(site.site, server)), "")
    return _notes(site, observed, name, at)


def plan_keepers(site: Site, observed: Observed, now: datetime) -> tuple[NoteSighting, ...]:
    """What hosts are to remember of a primary that is silent, where a keeper saw it further than any of them knows."""
    known, noted = observed.data.known, last_sighting(site.site, observed, now)
    if not known.one_clock or rank(known.position) <= rank(noted.position):
        return ()
    name = name_of(site.site, known.position, 0, now - timedelta(seconds=known.age_s), known.waits_ms)
    return _notes(site, observed, name, "")


def _notes(site: Site, observed: Observed, name: str, primary_host: str) -> tuple[NoteSighting, ...]:
    volumes, told = {h.name: h.volumes for h in observed.hosts}, holders(site, observed, primary_host)
    return tuple(NoteSighting(h, name, outdated(site.site, volumes[h], name)) for h in told)
