"""The plan that moves the database's role from a primary that is well to a replica that is, too."""

from __future__ import annotations

from pcloud.desired import Desired
from pcloud.errors import BadInput, Blocked
from pcloud.events import StepInfo
from pcloud.graph import Need, PlanNode
from pcloud.observed import Observed
from pcloud.plan import Plan
from pcloud.replicas import carriers_of
from pcloud.steps.base import Step
from pcloud.steps.replication import Follow, SemiSync, Switch, wait_ms


def plan_failback(desired: Desired, observed: Observed, to: str | None, pause_s: float) -> Plan:
    """`to` (the database's own server when None) becomes the primary; empty when it is already.

    Raises `BadInput` for a server that carries no data, `Blocked` when either of the two is not well.
    """
    site, database = desired.site.site, desired.site.database
    names = [s.name for s in carriers_of(desired)]
    new = to or names[0]
    if new not in names or len(names) < 2:
        what = f"{new} cannot be the primary" if new not in names else f"{site} has no replica to swap with"
        raise BadInput(what, where=site, next=f"one of {', '.join(names)}; see database.replica in docs/inventory.md")
    old = next(n for n in names if n != new)
    address = str(desired.site.services[database.service].address)
    _check_well(observed, site, old, new, address)
    steps: list[tuple[str, str, Step, str]] = [
        (new, "switch", Switch(old, new, pause_s), f"{new} takes the database over from {old}"),
        (old, "follow", Follow(old, new, address, database.restore_timeout_s), f"it replicates from {new}"),
        (new, "semi-sync", SemiSync(new, True, wait_ms(database.semi_sync)), "an order counts when both have it"),
    ]
    nodes: list[PlanNode] = []
    if not observed.data.databases[new].writable:
        for server, verb, step, reason in steps:
            before = tuple(n.key for n in nodes[-1:])
            info = StepInfo(f"{server}/{verb}", "failback", before, None, server, verb, reason)
            nodes.append(PlanNode(info, step, frozenset(Need.all_of(k) for k in before)))
    kept = {n: "it is the primary already" for n in [new] if not nodes}
    return Plan(site, "failback", ("failback",), tuple(nodes), kept, desired.digest(), observed.digest())


def _check_well(observed: Observed, site: str, old: str, new: str, address: str) -> None:
    seen = observed.data.databases
    silent = [n for n in (old, new) if n not in seen]
    if silent:
        what = f"the database on {' and '.join(silent)} does not answer"
    elif seen[old].writable == seen[new].writable:
        what = f"{old} and {new} are both {'primaries' if seen[new].writable else 'replicas'}"
    elif not seen[new].writable and not (seen[new].replicating and seen[new].source == address):
        what = f"{new} does not follow {old}"
    else:
        return
    raise Blocked(what, where=site, next=f"pcloud recover {site}, then the same command again")
