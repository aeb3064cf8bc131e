"""The plan that cuts and restores the power of a host that carries nothing, to know how long its fence takes. Pure.

Safety, as sentences:
- A host is rehearsed only when it answers, nothing runs on it, and nothing would be lost if it never came back:
  neither the only copy of the data, nor the only copy of a backup, nor a stream of the binary log.
- While another host does not answer, this one may be needed, and keeps its power.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from pcloud.desired import Desired
from pcloud.errors import BadInput, Blocked
from pcloud.events import StepInfo
from pcloud.graph import PlanNode
from pcloud.holding import irreplaceable
from pcloud.observed import Observed, SeenHost
from pcloud.plan import Plan
from pcloud.steps.rehearsal import Rehearse, tell_running

OPERATION = "rehearse"


def plan_rehearsal(desired: Desired, observed: Observed, host: str) -> Plan:
    """Raises `Blocked` with every reason against it, `BadInput` for a host that has no controller."""
    site = desired.site
    if site.lab is None and site.host(host).bmc is None:
        raise BadInput(f"{host} has no management controller in the inventory", next=f"add bmc to {host}")
    reasons = list(_reasons(desired, observed, host))
    if reasons:
        nexts = dict.fromkeys(go_on for _, go_on in reasons)
        raise Blocked("; ".join(why for why, _ in reasons), where=host, next="; ".join(nexts))
    reason = "nothing runs there; it is switched on again at once"
    info = StepInfo(f"{host}/{OPERATION}", OPERATION, (), host, None, OPERATION, reason)
    digests = desired.digest(), observed.digest()
    return Plan(site.site, OPERATION, (OPERATION,), (PlanNode(info, Rehearse(host)),), {}, *digests)


def _reasons(desired: Desired, observed: Observed, host: str) -> Iterator[tuple[str, str]]:
    """Each with what to do about it."""
    site, seen = desired.site.site, observed.host(host)
    if seen is None or not seen.reachable:
        yield "it does not answer, so nobody knows what it carries", f"pcloud power {site}/{host} on"
        return
    silent = [h for h in observed.unreachable() if h != host]
    if silent:
        yield f"{' and '.join(silent)} does not answer, and may need it", f"pcloud recover {site}"
    if running := tell_running(seen.servers):
        yield running, f"pcloud failover {site} {host}, or take another host"
    yield from _only_copies(desired, observed, seen)
    yield from _keeps(desired, observed, host)


def _only_copies(desired: Desired, observed: Observed, seen: SeenHost) -> Iterator[tuple[str, str]]:
    site = desired.site.site
    here = {s.mark.server for s in seen.servers if s.mark is not None and s.mark.site == site}
    for server in sorted(here & irreplaceable(desired, observed)):
        what = f"it holds {server}'s disk, and no other server is seen to hold all that is on it"
        yield what, f"pcloud recover {site}"


def _keeps(desired: Desired, observed: Observed, host: str) -> Iterator[tuple[str, str]]:
    site, shelves, last = desired.site.site, observed.data.shelves, observed.data.last_backup
    mine = [s for s in shelves if s.host == host]
    if any(s.streaming for s in mine):
        what = "it streams the binary log: what the replica did not receive is kept there until it is"
        yield what, f"take a host that keeps no backups: pcloud backup {site} --list"
    others = {b.id for s in shelves if s.host != host for b in s.backups if b.id not in s.damaged}
    alone = [b.id for b in chain.from_iterable(s.backups for s in mine) if b.id not in others]
    if (alone and not others) or (last is not None and set(last.hosts) == {host}):
        yield "it keeps the only backup", f"pcloud backup {site}, which takes other hosts too"
    elif alone:
        yield f"it keeps the only copy of backup {', '.join(alone)}", f"pcloud backup {site}, or take another host"
