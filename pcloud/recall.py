"""What an empty database is filled with where hosts keep backups: they come before the inventory's dump."""

from __future__ import annotations

from collections.abc import Mapping

from pcloud.backups import Choice, choose
from pcloud.desired import Desired, Options
from pcloud.kept import LATEST, Shelf
from pcloud.observed import Observed, SeenDatabase


def looks_at_shelves(options: Options, databases: Mapping[str, SeenDatabase]) -> bool:
    """Whether hosts are asked what they keep: servers that answer may hold nothing, and then it decides."""
    return options.kept or not any(d.restored for d in databases.values())


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
