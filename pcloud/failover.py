"""The recovery in which a person leaves a host: `plan` with that host given up, refused where it would do harm.

Safety, as sentences:
- A host that answers is never given up at the price of what only it has: a server that is well and
  could be made nowhere else, or a database that would have to go back to a backup or the dump.
- It is fenced before anything of it is made elsewhere, like any other; a fence that fails leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pcloud.desired import Desired, Options
from pcloud.errors import Blocked
from pcloud.events import RunState, Status
from pcloud.leftovers import find_strays
from pcloud.observed import Observed, Power, SeenHost, SeenServer
from pcloud.plan import Plan, plan
from pcloud.replicas import carriers_of
from pcloud.steps.database import Restore
from pcloud.steps.promotion import Promote
from pcloud.steps.restoring import FILLS, NoBackup
from pcloud.steps.stop import Consent, PassOver, Stop


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
    made = plan(desired, observed, date)
    for host in _answering(desired, observed):
        _check_servers(desired, observed, host, made)
        _check_data(desired, observed, host, made)
    return made


def describe_loss(desired: Desired, observed: Observed, made: Plan) -> str:
    """The question before it: what a person gives up, and what becomes of it."""
    site, lost = desired.site.site, desired.options.lost
    parts = [_describe(observed, site, host) for host in lost]
    parts += [f"{n.info.server} gets its data back: {n.info.reason}" for n in made.nodes if isinstance(n.step, FILLS)]
    if not any(f"{host}/fence" in {n.key for n in made.nodes} for host in lost):
        return f"{'; '.join(parts)}. {len(made.changes)} steps elsewhere, and no power is cut. Go on?"
    heirs = [n.info.server for n in made.nodes if isinstance(n.step, Promote)]
    first = (
        f" (`pcloud failback {site} --to {heirs[0]}` first would hand the database over without a break)"
        if heirs and any(True for _ in _answering(desired, observed))
        else ""
    )
    what = f"{'; '.join(parts)}. Cut the power of {' and '.join(lost)} at once, and take {len(made.changes)} steps"
    return f"{what}{first}?"


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
