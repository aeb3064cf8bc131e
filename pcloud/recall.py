"""What is used of that which hosts keep: an empty database is filled with it, and a replica that is promoted takes
what they streamed of its primary further than it received itself."""

from __future__ import annotations

from collections.abc import Mapping

from pcloud.backups import Choice, choose, continuation
from pcloud.chain import Leg
from pcloud.desired import Desired, Options
from pcloud.gtid import rank
from pcloud.kept import LATEST, Heard, LastBackup, Shelf, Sighting, Target
from pcloud.loss import latest_of, measure
from pcloud.observed import Observed, SeenDatabase


def looks_at_shelves(options: Options, databases: Mapping[str, SeenDatabase], known: Sighting, heard: Heard) -> bool:
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


def choose_from(desired: Desired, observed: Observed, target: Target) -> Choice | None:
    """What reaches the target best, of what may be used; only the backup that a person names, where one does."""
    return choose(shelves_of(desired, observed), target, desired.options.from_backup)


def find_choice(desired: Desired, observed: Observed) -> Choice | None:
    """The backup that is restored; None for the dump: where hosts keep none, or a person wants all from scratch."""
    options = desired.options
    if options.from_scratch and options.until is None and not options.from_backup:
        return None
    return choose_from(desired, observed, options.until or LATEST)


def missing_backup(desired: Desired, observed: Observed, choice: Choice | None) -> tuple[str, str] | None:
    """Why nothing is restored, neither the `choice` nor the dump, and what a person may do."""
    options, site = desired.options, desired.site.site
    wanted = options.until or LATEST
    if choice is None and (options.until is not None or options.from_backup):
        by = f" from {options.from_backup}" if options.from_backup else ""
        return f"no backup that is kept reaches {wanted}{by}", f"pcloud backup {site} --list"
    last = observed.data.last_backup
    if last is None or options.from_scratch or options.from_backup or (choice is not None and _is_enough(choice, last)):
        return None
    silent = [h for h in last.hosts if h not in options.without and _is_silent(desired, observed, h)]
    if not silent:
        return None
    where, command = " and ".join(silent), f"pcloud restore {site}" if options.until else f"pcloud recover {site}"
    what = f"the last backup ({last.id or 'of an earlier run'}) is on {where}, which cannot be asked"
    known = {h.name for h in desired.site.hosts}
    bring = f"bring {where} back (what the inventory no longer names, name it again), then {command}"
    if set(silent) <= known:
        bring = f"bring {where} back, then {command}"
    if choice is None:
        return f"{what}; the dump would be older", f"{bring}; or take the dump: pcloud recover {site} --from-scratch"
    older = f"{command} --from-backup {choice.backup.id}"
    return f"{what}; what others keep ends at {choice.end}", f"{bring}; or take what is older: {older}"


def _is_enough(choice: Choice, last: LastBackup) -> bool:
    """Whether it is no older than the last backup, as far as anybody knows, or leads to the place that is named."""
    if choice.target.gtid or (choice.target.time and choice.ended >= choice.target.time):
        return True
    if choice.backup.id == last.id:
        return True
    return bool(last.position) and rank(choice.end) >= rank(last.position)


def _is_silent(desired: Desired, observed: Observed, host: str) -> bool:
    """Also one that the inventory calls otherwise now."""
    return host in observed.unreachable() or host not in {h.name for h in desired.site.hosts}


def last_known(observed: Observed) -> str:
    """The last position of the primary that anybody saw; empty when nobody did."""
    writing = [d.position for d in observed.data.databases.values() if d.writable]
    return writing[0] if len(writing) == 1 else observed.data.known.position
