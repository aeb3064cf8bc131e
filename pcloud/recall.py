"""What is used of that which hosts keep: an empty database is filled with it, and a replica that is promoted takes
what they streamed of its primary further than it received itself."""

from __future__ import annotations

from collections.abc import Mapping

from pcloud.backups import Choice, Leg, choose, continuation
from pcloud.desired import Desired, Options
from pcloud.kept import LATEST, Shelf, Sighting
from pcloud.loss import latest_of, measure
from pcloud.observed import Observed, SeenDatabase


def looks_at_shelves(
    options: Options, databases: Mapping[str, SeenDatabase], known: Sighting, heard: Mapping[str, float]
) -> bool:
    """Whether hosts are asked what they keep: where servers that answer hold nothing, or would give something up."""
    holding = [d for d in databases.values() if d.restored]
    if options.kept or not holding:
        return True
    writing = any(d.writable for d in databases.values())
    return not writing and any(d.source and not measure(d, known, heard).none for d in holding)


def find_streams(desired: Desired, observed: Observed, server: str) -> tuple[Leg, ...]:
    """What hosts streamed of the primary of this replica, beyond what it received."""
    seen = observed.data.databases[server]
    return continuation(latest_of(seen), seen.restored, shelves_of(desired, observed))


def shelves_of(desired: Desired, observed: Observed) -> tuple[Shelf, ...]:
    """What may be used of what the hosts keep."""
    return tuple(s for s in observed.data.shelves if s.host not in desired.options.without)


def find_choice(desired: Desired, observed: Observed) -> Choice | None:
    """The backup that is restored; None for the dump: where hosts keep none, or a person wants all from scratch."""
    options = desired.options
    if options.from_scratch and options.until is None:
        return None
    return choose(shelves_of(desired, observed), options.until or LATEST)


def missing_backup(desired: Desired, observed: Observed) -> tuple[str, str] | None:
    """Why no backup is restored though one should be, and what a person may do."""
    options, site = desired.options, desired.site.site
    if options.until is not None:
        return f"no backup that is kept reaches {options.until}", f"pcloud backup {site} --list"
    lost = [h for h in observed.data.keeping if h in observed.unreachable()]
    if lost and not options.from_scratch:
        where = " and ".join(lost)
        return (
            f"the backups are on {where}, which cannot be asked; the dump would be older",
            f"bring {where} back, then pcloud recover {site}; or take the dump: pcloud recover {site} --from-scratch",
        )
    return None


def last_known(observed: Observed) -> str:
    """The last position of the primary that anybody saw; empty when nobody did."""
    writing = [d.position for d in observed.data.databases.values() if d.writable]
    return writing[0] if len(writing) == 1 else observed.data.known.position
