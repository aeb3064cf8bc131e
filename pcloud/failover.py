"""The recovery in which a person leaves a host: `plan` with that host given up, refused where it would do harm.

Safety, as sentences:
- A host that answers is never given up at the price of what only it has: a server that is well and
  could be made nowhere else, or a database that would have to go back to a backup or the dump.
- One that answers hands the database over first, without a loss, or is not left; then its servers are
  stopped, and its power is left alone. Where that fails, it stays as it is.
- One that does not answer is fenced before anything of it is made elsewhere, like any other; and not before a
  person agreed to what is lost with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pcloud.desired import Desired, Options
from pcloud.errors import Blocked
from pcloud.events import RunState, Status
from pcloud.graph import Need, PlanNode
from pcloud.leftovers import find_strays
from pcloud.observed import Observed, Power, SeenHost, SeenServer
from pcloud.plan import Plan, plan
from pcloud.replicas import carriers_of
from pcloud.steps.database import Restore
from pcloud.steps.fence import Fence
from pcloud.steps.replication import Switch
from pcloud.steps.restoring import FILLS, NoBackup
from pcloud.steps.server import Leave
from pcloud.steps.stop import Consent, PassOver, Stop
from pcloud.switchover import plan_failback

PAUSE_S = 10
"""How long writes pause at most while the database is handed over."""


def find_unfenced(state: RunState) -> tuple[str, ...]:
    """The hosts whose power could not be cut in this run, where it came to its end."""
    if state.finished is None or state.finished.outcome == "interrupted":
        return ()
    fences = [s for s in state.steps.values() if s.info.action == "fence" and s.status is Status.BLOCKED]
    return tuple(sorted(s.info.host for s in fences if s.info.host))


def finds_replica(state: RunState) -> bool:
    """Whether the run started a replica whose primary is gone: its loss can be measured, and said, only now."""
    return any(s.info.action == "primary" and s.status is Status.BLOCKED for s in state.steps.values())


def leave_alone(options: Options, unfenced: tuple[str, ...]) -> Options:
    """The same wish, but for these hosts: what they have stays theirs, and who can stand in for it does."""
    return replace(options, lost=tuple(h for h in options.lost if h not in unfenced), unfenced=unfenced)


def plan_failover(desired: Desired, observed: Observed, date: str) -> Plan:
    """The plan without `desired.options.lost`. Raises `Blocked` where one of them answers and must stay for now."""
    first = _hand_over(desired, observed)
    made = plan(desired, _after(first, observed), date)
    made = _consent_first(_begin_with(first, made))
    for host in _answering(desired, observed):
        _check_servers(desired, observed, host, made)
        _check_data(desired, observed, host, made)
    return made


def _hand_over(desired: Desired, observed: Observed) -> Plan | None:
    """The plan that moves the database's role off the hosts that are left; None where it is not there, or nobody
    else could have it. Raises `Blocked` where the one who could does not follow it."""
    site, lost = desired.site, desired.options.lost
    here = {_name(s): host.name for host in observed.hosts for s in _servers(host, site.site)}
    carriers = [s.name for s in carriers_of(desired)]
    writing = [n for n, seen in observed.data.databases.items() if seen.writable and here.get(n) in lost]
    heirs = [n for n in carriers if n in here and here[n] not in lost and n not in writing]
    if len(writing) != 1 or not heirs or not any(True for _ in _answering(desired, observed)):
        return None
    return plan_failback(desired, observed, heirs[0], PAUSE_S)


def _after(first: Plan | None, observed: Observed) -> Observed:
    """As it will be seen once the role has moved."""
    switch = next((n.step for n in first.nodes if isinstance(n.step, Switch)), None) if first is not None else None
    if switch is None:
        return observed
    seen, address = dict(observed.data.databases), observed.data.databases[switch.new].source
    seen[switch.new] = replace(seen[switch.new], writable=True, replicating=False, source="", semi_sync=True)
    seen[switch.old] = replace(seen[switch.old], writable=False, replicating=True, source=address)
    return replace(observed, data=replace(observed.data, databases=seen, holder=switch.new))


def _begin_with(first: Plan | None, made: Plan) -> Plan:
    """The role moves before anything of a host that is left is touched."""
    leaves = [n for n in made.nodes if isinstance(n.step, Leave | Fence)]
    if first is None or not first.nodes or not leaves:
        return made
    last, moved = f"{first.nodes[-1].key}-first", []
    for node in first.nodes:
        needs = tuple(f"{k}-first" for k in node.info.needs)
        info = replace(node.info, key=f"{node.key}-first", phase=made.phases[0], needs=needs)
        moved.append(replace(node, info=info, needs=frozenset(Need.all_of(k) for k in needs)))
    rest = [_needing(n, last) if n in leaves else n for n in made.nodes]
    return replace(made, nodes=(*moved, *rest))


def _consent_first(made: Plan) -> Plan:
    """No host that is left is touched before a person agrees to the loss: it may hold the latest data, and serve."""
    asked = [replace(n, info=replace(n.info, needs=()), needs=frozenset()) for n in made.nodes if _asks(n)]
    rest = [n for n in made.nodes if not _asks(n)]
    for key in (n.key for n in asked):
        rest = [_needing(n, key) if isinstance(n.step, Leave | Fence) else n for n in rest]
    return replace(made, nodes=(*asked, *rest))


def _asks(node: PlanNode) -> bool:
    return isinstance(node.step, Consent)


def _needing(node: PlanNode, key: str) -> PlanNode:
    needs = tuple(sorted({*node.info.needs, key}))
    return replace(node, info=replace(node.info, needs=needs), needs=node.needs | {Need.all_of(key)})


def describe_loss(desired: Desired, observed: Observed, made: Plan) -> str:
    """The question before it: what a person gives up, and what becomes of it."""
    site, lost = desired.site.site, desired.options.lost
    parts = [_describe(observed, site, host) for host in lost]
    parts += [f"{n.info.server} gets its data back: {n.info.reason}" for n in made.nodes if isinstance(n.step, FILLS)]
    heir = next((n.step.new for n in made.nodes if isinstance(n.step, Switch)), "")
    parts += [f"{heir} takes the database over first, with nothing lost"] if heir else []
    cut = [h for h in lost if f"{h}/fence" in {n.key for n in made.nodes}]
    left = [h for h in lost if f"{h}/leave" in {n.key for n in made.nodes}]
    acts = [f"stop what runs on {' and '.join(left)}"] if left else []
    acts += [f"cut the power of {' and '.join(cut)} at once"] if cut else []
    if not acts:
        return f"{'; '.join(parts)}. {len(made.changes)} steps elsewhere, and no power is cut. Go on?"
    what = ", ".join(acts)
    return f"{'; '.join(parts)}. {what[0].upper()}{what[1:]}, and take {len(made.changes)} steps?"


def _describe(observed: Observed, site: str, host: str) -> str:
    seen = observed.host(host)
    if seen is None or not seen.reachable:
        return f"{host} does not answer"
    servers = [s for s in _servers(seen, site) if s.power is Power.RUNNING]
    names = [f"{_name(s)}{' (healthy)' if _is_well(observed, s) else ''}" for s in servers]
    others = sum(s.power is Power.RUNNING for s in seen.servers) - len(names)
    names += [f"{others} that {'is' if others == 1 else 'are'} not {site}'s"] if others else []
    what = f"{', '.join(names)} {'runs' if len(names) == 1 else 'run'} there" if names else "no server runs there"
    return f"{host} answers, and {what}"


def _answering(desired: Desired, observed: Observed) -> Iterator[SeenHost]:
    for name in desired.options.lost:
        seen = observed.host(name)
        if seen is not None and seen.reachable:
            yield seen


def _servers(host: SeenHost, site: str) -> list[SeenServer]:
    return [s for s in host.servers if s.mark is not None and s.mark.site == site]


def _name(seen: SeenServer) -> str:
    return seen.mark.server if seen.mark is not None else seen.name


def _is_well(observed: Observed, seen: SeenServer) -> bool:
    health = observed.health.get(_name(seen))
    return seen.power is Power.RUNNING and health is not None and health.ok


def _check_servers(desired: Desired, observed: Observed, host: SeenHost, made: Plan) -> None:
    well = {_name(s) for s in _servers(host, desired.site.site) if _is_well(observed, s)}
    stops = (n.step for n in made.blocked if isinstance(n.step, Stop) and not isinstance(n.step, Consent))
    stop = next((s for s in stops if s.where in well), None)
    if stop is not None:
        raise Blocked(
            f"{stop.where} is healthy there, and without {host.name} it could not be made: {stop.what}",
            where=host.name,
            next=f"{stop.next}; {_all_the_same(desired, host)}",
        )


def _check_data(desired: Desired, observed: Observed, host: SeenHost, made: Plan) -> None:
    site = desired.site.site
    carriers = {s.name for s in carriers_of(desired)}
    strays = {server for server, stray in find_strays(desired, observed).items() if stray.host == host.name}
    held = sorted({_name(s) for s in _servers(host, site)} & carriers | strays)
    filled = next((n.step for n in made.nodes if isinstance(n.step, (*FILLS, PassOver))), None)
    if held and filled is not None:
        what = "the dump would be restored" if isinstance(filled, Restore) else "a backup would be restored"
        what = "no backup could be asked" if isinstance(filled, NoBackup) else what
        what = f"this would be left: {filled.older}" if isinstance(filled, PassOver) else what
        raise Blocked(
            f"{' and '.join(held)} there may hold orders that are nowhere else; without it {what}",
            where=host.name,
            next=f"pcloud recover {site}, so that a replica holds them, too; " + _all_the_same(desired, host),
        )


def _all_the_same(desired: Desired, host: SeenHost) -> str:
    site = desired.site.site
    return f"or, if it has to go all the same: pcloud fence {site}/{host.name}; then pcloud recover {site}"
