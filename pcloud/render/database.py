"""The database's two servers, for `pcloud status`: a table's rows, and what is wrong in words."""

from __future__ import annotations

from pcloud.desired import Desired
from pcloud.holding import REFUSES
from pcloud.observed import Data, SeenDatabase
from pcloud.replicas import carriers_of
from pcloud.steps.replication import say_commits, wait_ms
from pcloud.steps.room import FULL, make_room

COLUMNS = ("database", "role", "timeline", "position", "behind", "commits wait")


def database_rows(desired: Desired, data: Data) -> list[tuple[str, ...]]:
    """One row a carrier, in the words of `COLUMNS`."""
    silent = dict.fromkeys(data.refused, "does not let us in") | dict.fromkeys(data.full, "its disk is full")
    return [
        _row(s.name, data.databases.get(s.name), data.holder, silent.get(s.name, "does not answer"))
        for s in carriers_of(desired)
    ]


def _row(name: str, seen: SeenDatabase | None, holder: str, silent: str) -> tuple[str, ...]:
    if seen is None:
        return (name, silent, "-", "-", "-", "-")
    role = "primary" if seen.writable else f"replica of {seen.source}" if seen.source else "read-only"
    if seen.writable and holder != name:
        role = "primary, without the address"
    behind = "-" if seen.writable else "?" if seen.behind_s is None else f"{seen.behind_s:g} s"
    waits = ("for the replica" if seen.semi_sync else "for nobody") if seen.writable else "-"
    return (name, role, str(seen.timeline), seen.position or "-", behind, waits)


def find_alarms(desired: Desired, data: Data) -> list[str]:
    """What a person should know at once, each with what to do."""
    mend = f"pcloud recover {desired.site.site}"
    refusals = [f"{n}: {REFUSES}. Next: {mend} names the ways on" for n in data.refused]
    full = [f"{n}: {FULL}. Next: {make_room(desired.site.site, n)}; then {mend}" for n in data.full]
    return refusals + full + _find_alarms(desired, data)


def _find_alarms(desired: Desired, data: Data) -> list[str]:
    site, policy = desired.site.site, desired.site.database.semi_sync
    seen = {s.name: data.databases[s.name] for s in carriers_of(desired) if s.name in data.databases}
    primaries = [n for n, d in seen.items() if d.writable]
    mend = f"pcloud recover {site}"
    if len(primaries) > 1:
        return [f"{' and '.join(primaries)} both accept writes: two shops sell the same goods. Next: {mend}"]
    if not primaries:
        return [f"no database accepts writes: nobody can order. Next: {mend}"] if seen else []
    alarms = [_silent(n, d, mend) for n, d in seen.items() if not d.writable and not d.replicating]
    if desired.site.database.replica is None:
        return alarms
    primary = seen[primaries[0]]
    if not any(d.replicating for d in seen.values()):
        if policy.alone == "wait":
            alarms.append(f"no replica acknowledges, and the policy is `wait`: orders wait. Next: {mend}")
        else:
            alarms.append(f"no replica acknowledges: each order is on {primaries[0]} alone. Next: {mend}")
    elif not primary.semi_sync:
        alarms.append(f"orders are acknowledged before the replica has them (semi-sync is off). Next: {mend}")
    elif primary.waits_ms != wait_ms(policy):
        now, then = (say_commits(str(ms)) for ms in (primary.waits_ms, wait_ms(policy)))
        alarms.append(f"commits {now}; by the inventory they {then}. Next: {mend}")
    return alarms


def _silent(name: str, seen: SeenDatabase, mend: str) -> str:
    why = seen.stuck or " ".join(seen.error.split())[:200]
    error = f": {why}" if why else ""
    since = f" since {seen.heard_at}" if seen.heard_at else ""
    return f"{name} does not replicate{since}{error}. Next: {mend}"
