"""What keeps pcloud from deciding about a server by itself: a person has to look."""

from __future__ import annotations

from pcloud.decision import Act, Decision
from pcloud.desired import Desired, Names, ServerSpec
from pcloud.generations import Generations, is_doubted
from pcloud.leftovers import Stray
from pcloud.notes import find_notes
from pcloud.observed import Observed, SeenHost, SeenServer


def find_doubt(
    desired: Desired, observed: Observed, known: Generations, spec: ServerSpec, stray: Stray | None
) -> Decision | None:
    """A block, with what the person does; None where there is none. `stray`: its disk, which libvirt does not know."""
    site = desired.site.site
    if (foreign := _foreign(site, observed, spec)) is not None:
        return foreign
    if stray is not None:
        return _lost(site, stray, spec.name)
    found = (_outdated_by_one(desired, observed, known, host, seen) for host, seen in observed.copies(site, spec.name))
    return next((d for d in found if d is not None), None)


def _foreign(site: str, observed: Observed, spec: ServerSpec) -> Decision | None:
    name = Names(site, spec.name).domain
    for host, seen in observed.lookalikes(name, spec.uuid, spec.mac):
        if seen.mark is None or (seen.mark.site, seen.mark.server) != (site, spec.name):
            own = next((h.name for h, _ in observed.copies(site, spec.name)), "")
            return Decision(
                spec.name,
                Act.BLOCK,
                f"{host.name} has a server {seen.name} with its name or address that is not pcloud's",
                own,
                next=f"rename or remove it: pcloud ssh {site}/{host.name} -- virsh domrename {seen.name} NEW-NAME",
            )
    return None


def _outdated_by_one(
    desired: Desired, observed: Observed, known: Generations, host: SeenHost, seen: SeenServer
) -> Decision | None:
    """For a data server that is well, and older than the newest generation by what one host has noted."""
    if seen.mark is None or not is_doubted(observed, known, seen):
        return None
    site, server, generation = seen.mark.site, seen.mark.server, seen.mark.generation
    holder = known.doubt(server, generation)
    notes = find_notes(site, observed, holder, server, generation)
    paths = " ".join(f"{desired.site.host(holder).pool}/{n}" for n in notes)
    reason = f"{holder} alone has a note that it was made again ({', '.join(notes)}), and no host has that copy"
    stale = f"if this one is the older: pcloud ssh {site}/{host.name} -- virsh destroy {seen.name}"
    planted = f"if nobody made another: pcloud ssh {site}/{holder} -- rm {paths}"
    remedy = f"{stale}; {planted}; then pcloud recover {site}"
    return Decision(server, Act.BLOCK, reason, host.name, generation, next=remedy)


def _lost(site: str, found: Stray, server: str) -> Decision:
    """For a data server of which only the disk is left, and that may be all there is of the latest data."""
    disk, domain = found.names.disk, found.names.domain
    return Decision(
        server,
        Act.BLOCK,
        f"libvirt on {found.host} does not know it, but its disk {disk} is there, and may hold what nobody else has",
        found.host,
        found.names.generation,
        next=f"define it again from its definition ({domain}.xml of /etc/libvirt/qemu, in the host's backup): "
        f"pcloud ssh {site}/{found.host} -- virsh define FILE; then pcloud recover {site}; or have it made anew, which "
        f"keeps the disk as a tombstone: pcloud recover {site} --rebuild {server}",
    )
