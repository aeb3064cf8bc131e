"""At the end of a command two hosts are told where the primary was: the next one may need it when it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from pcloud.desired import Desired
from pcloud.errors import PcloudError
from pcloud.observe_data import observe_primary
from pcloud.observed import Observed, SeenHost
from pcloud.sightings import plan_sighting
from pcloud.world import World


def remember(desired: Desired, world: World) -> None:
    """Best effort: what cannot be told now is told by the next command."""
    primary = observe_primary(desired, world)
    if primary is None:
        return
    for note in plan_sighting(desired.site, Observed(tuple(_hosts(world))), *primary, world.clock.wall()):
        with suppress(PcloudError):
            note.tell(world)


def _hosts(world: World) -> Iterator[SeenHost]:
    """Those that this command talks to already: a dead one is not waited for again."""
    for host in world.site.hosts:
        with suppress(PcloudError):
            if world.is_connected(host.name):
                hypervisor = world.hypervisor(host.name)
                yield SeenHost(host.name, servers=hypervisor.servers(), volumes=hypervisor.volumes(host.pool))
