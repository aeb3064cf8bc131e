"""Who holds the shop's data: asked of each server, never assumed.

Pure: `Observed` says who answered what. All data servers are alike here, whatever their role or group.

Safety, as sentences:
- A server is replaceable only while another one answers as the primary, with whole data, and nothing is
  seen that this one has and that one lacks.
- A server that cannot be asked (off, hung, its pool not mounted, its password refused, not known to
  libvirt) is not one that holds nothing.
- While nobody accepts writes, nobody who may hold data is replaceable.
- Who is the primary, or alone holds the data, is not made anew before another one has the role.
"""

from __future__ import annotations

from pcloud.desired import Desired
from pcloud.gtid import behind
from pcloud.identity import carrier_names
from pcloud.observed import Observed, SeenDatabase


def find_leader(observed: Observed, carriers: tuple[str, ...], server: str) -> str:
    """Another carrier that answers as the primary, with whole data; empty when none does."""
    seen = observed.data.databases
    return next((n for n in carriers if n != server and n in seen and seen[n].writable and seen[n].restored), "")


def irreplaceable(desired: Desired, observed: Observed) -> frozenset[str]:
    """The servers whose disk may hold what no other one is seen to hold."""
    return frozenset(n for n in carrier_names(desired.site) if not _is_replaceable(desired, observed, n))


def _is_replaceable(desired: Desired, observed: Observed, server: str) -> bool:
    seen, site = observed.data.databases, desired.site
    leader, mine = find_leader(observed, carrier_names(site), server), seen.get(server)
    if mine is None or (mine.restored and not mine.writable):
        address = str(site.services[site.database.service].address)
        return bool(leader) and (mine is None or _adds_nothing(mine, seen[leader], address))
    return not mine.writable


def _adds_nothing(mine: SeenDatabase, leader: SeenDatabase, address: str) -> bool:
    """Whether a server is seen to hold nothing that the primary lacks.

    One that replicates has it all from there: MariaDB refuses to go on with a replica that has more. The
    positions of such a one are read a moment after its primary's and may be ahead of them.
    """
    if mine.replicating and mine.source == address:
        return True
    return not behind(leader.position, mine.position) and not behind(leader.position, mine.received)


def find_heir(desired: Desired, observed: Observed, server: str) -> str:
    """Another carrier that holds whole data; empty when none is seen to."""
    seen, others = observed.data.databases, (n for n in carrier_names(desired.site) if n != server)
    return next((n for n in others if n in seen and seen[n].restored), "")


def keep_primary(desired: Desired, observed: Observed, server: str) -> tuple[str, str]:
    """Why a server must not be made anew though a person wants it, and what they do first; or nothing."""
    seen, site = observed.data.databases.get(server), desired.site.site
    other = next((n for n in carrier_names(desired.site) if n != server), "")
    if not other or server not in carrier_names(desired.site):
        return "", ""
    if seen is None:
        return _keep_unasked(desired, observed, server)
    if not seen.writable:
        if not seen.restored or _has_its_data(desired, observed, server, seen):
            return "", ""
        return (
            "it holds data that no other server is seen to hold",
            f"pcloud recover {site}, so that {other} holds them, too; then the same command again",
        )
    heir = find_heir(desired, observed, server)
    lacks = "it is the primary, and made anew it would lack its latest data"
    if heir:
        return (
            f"{lacks}; {heir} can take over first",
            f"pcloud failback {site} --to {heir}; then the same command again",
        )
    return (
        f"{lacks}; {other} could take over, once it is seen to have them",
        f"pcloud recover {site}; then pcloud failback {site} --to {other}; then the same command again",
    )


def _has_its_data(desired: Desired, observed: Observed, server: str, mine: SeenDatabase) -> bool:
    """Whether another one is the primary (what that lacks is of a dead branch), or holds all that this one does."""
    site, seen = desired.site, observed.data.databases
    if find_leader(observed, carrier_names(site), server):
        return True
    heir = find_heir(desired, observed, server)
    return bool(heir) and _adds_nothing(mine, seen[heir], str(site.services[site.database.service].address))


def _keep_unasked(desired: Desired, observed: Observed, server: str) -> tuple[str, str]:
    """One that runs and refuses the password may be the primary, and sell."""
    if server not in observed.data.refused or find_leader(observed, carrier_names(desired.site), server):
        return "", ""
    return f"{REFUSES}, so that nobody knows whether it is the primary", remedy_for_refusal(desired, observed)


REFUSES = "its MariaDB runs, and refuses the password of monitor"


def remedy_for_refusal(desired: Desired, observed: Observed) -> str:
    """How a new password of the monitor's comes into a site, or an old one back.

    A server has its accounts from its seed, and gives them to MariaDB at each start: a new password takes a new server.
    """
    site, seen = desired.site.site, observed.data.databases
    back = "put the old password back where the secret db/monitor comes from"
    carriers = carrier_names(desired.site)
    primary = next((n for n in carriers if n in seen and seen[n].writable), "")
    replica = next((n for n in carriers if n != primary), "")
    if not primary or not replica:
        return f"{back}; then pcloud recover {site}"
    if replica not in observed.data.refused:
        again = f"pcloud failback {site} --to {replica}; then pcloud recover {site} --rebuild {primary}"
    else:
        again = (
            f"pcloud recover {site} --rebuild {replica}; then pcloud failback {site} --to {replica}; "
            f"then pcloud recover {site} --rebuild {primary}"
        )
    return f"{back}; or make the servers anew with the new one, the replica first: {again}"
