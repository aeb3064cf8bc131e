"""What an inventory asks of each host: where a recovery would put the servers, and what they take.

Pure. The choice is `placement`'s own, fed with what the hosts have; a server that is on a host
already is counted there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pcloud.desired import ImageFile, ImageSpec, ServerSpec, spec_of
from pcloud.identity import servers_of
from pcloud.model import SERVER_OVERHEAD_MIB, Site
from pcloud.observed import Observed, SeenHost
from pcloud.placement import Placed, place

GIB = 1024**3
FRESH_DISK_BYTES = GIB
"""Room for what a server writes on its first day, its seed and its console."""


@dataclass(frozen=True)
class Need:
    """What a host's servers take together. `placed` is false for a host that is kept free for any one server."""

    servers: tuple[str, ...] = ()
    placed: bool = False
    memory_mib: int = 0
    """The emulators' own memory included."""
    vcpus: int = 0
    least_bytes: int = 0
    """Images, and disks that are fresh."""
    most_bytes: int = 0
    """Images, and disks that are full."""

    def __str__(self) -> str:
        if not self.servers:
            return "no server is meant for it"
        names = ", ".join(self.servers[:4]) + (f" and {len(self.servers) - 4} more" if len(self.servers) > 4 else "")
        who = f"{names} would run here" if self.placed else f"it must be able to take {names}"
        return f"{who}: {self.vcpus} CPUs, {self.memory_mib} MiB"


def specs_of(site: Site, image_bytes: Mapping[str, int]) -> tuple[ServerSpec, ...]:
    """The site's servers, as far as their size goes: no image and no file is looked at.

    `image_bytes` maps the site's image names to their size; an image that is not known counts 0.
    """
    found = []
    for group, name, address in servers_of(site):
        disk = ImageFile("disk.qcow2", "0" * 64, image_bytes.get(group.image, 0))
        image = ImageSpec(group.image, group.image, "0" * 64, "", disk, None, None)
        found.append(spec_of(site, group, name, address, image))
    return tuple(found)


def needs_of(
    site: Site, hosts: Sequence[SeenHost], image_bytes: Mapping[str, int]
) -> tuple[dict[str, Need], tuple[str, ...]]:
    """Host name to its `Need`, and the servers that fit on no host that answers."""
    specs = {spec.name: spec for spec in specs_of(site, image_bytes)}
    observed = Observed(tuple(hosts))
    where = {n: h.name for n in specs for h, _ in observed.copies(site.site, n)}
    new = [spec for name, spec in specs.items() if name not in where]
    placed = place(site, observed, where, new, {s.name: s.group for s in specs.values()})
    homeless = tuple(name for name, chosen in placed.items() if not isinstance(chosen, Placed))
    where |= {name: chosen.host for name, chosen in placed.items() if isinstance(chosen, Placed)}
    largest = max(specs.values(), key=lambda s: (s.memory_mib, s.disk_gib))
    needs = {}
    for host in hosts:
        own = [specs[name] for name, at in where.items() if at == host.name]
        needs[host.name] = _need(own, placed=True) if own else _need([largest], placed=False)
    return needs, homeless


def _need(servers: Sequence[ServerSpec], *, placed: bool) -> Need:
    images = sum({s.image.name: s.image.disk.size for s in servers}.values())
    return Need(
        servers=tuple(s.name for s in servers),
        placed=placed,
        memory_mib=sum(s.memory_mib + SERVER_OVERHEAD_MIB for s in servers),
        vcpus=sum(s.vcpus for s in servers),
        least_bytes=images + len(servers) * FRESH_DISK_BYTES,
        most_bytes=images + sum(s.disk_gib * GIB for s in servers),
    )
