"""What becomes of copies that came back older than what took their place: off at once, put away after the walk."""

from __future__ import annotations

from collections.abc import Iterable

from pcloud.decision import Act, Decision
from pcloud.generations import Quarantined
from pcloud.graph import Draft
from pcloud.identity import carrier_names
from pcloud.past import is_superseded, may_be_superseded, may_hold_data
from pcloud.playbook import Phase
from pcloud.steps.base import Step
from pcloud.steps.quarantine import PutAway, Quarantine
from pcloud.steps.salvage import Inspect
from pcloud.steps.server import Retire
from pcloud.unplanned import Unplanned, gives_way, started_as


def quarantine(draft: Draft, phase: Phase) -> None:
    """What came back older than what took its place is powered off, whether it was asked for or not."""
    for old in draft.old:
        if old.runs:
            draft.add(
                phase,
                f"{old.host}/{old.server}/quarantine",
                Quarantine(old.host, old.names),
                host=old.host,
                server=old.server,
                action="quarantine",
                reason=f"it is generation {old.generation}, the newest is {old.newest}"
                + ("" if is_superseded(draft.desired, draft.observed, old) else "; its disk stays"),
            )


def inspect(draft: Draft, phase: Phase) -> None:
    """What dead copies of the data hold is read once, after the walk: no shopper waits for it."""
    carriers = carrier_names(draft.desired.site)
    for old in draft.old:
        host = draft.observed.host(old.host)
        files = host.volumes if host is not None else ()
        read = any(old.names.inspected(f) is not None for f in files)
        if old.server not in carriers or old.names.disk not in files or read:
            continue
        key = draft.add(
            phase,
            f"{old.host}/{old.server}/inspect",
            Inspect(old.host, old.names, carriers),
            needs=[f"{old.host}/{old.server}/quarantine"],
            host=old.host,
            server=old.server,
            action="inspect",
            reason=f"its copy of generation {old.generation} may hold what the living data have not",
        )
        draft.follow(key, "journey")


def put_away_all(draft: Draft, phase: Phase) -> None:
    """What came back and is superseded, once its server runs elsewhere.

    It is tidied up after the walk, so that it takes nothing from what sells, and when it fails the recovery has
    not: the copy stays quarantined, and the next run tries again. Who names servers (`--only`) wants all others
    left as they are: theirs are powered off, which is safety, and not put away, which can wait.
    """
    for old in draft.old:
        d = draft.decisions.get(old.server)
        if d is None or is_on(old, d) or not (d.will_answer or d.act is Act.RETIRE):
            continue
        if not d.answers and d.act is not Act.RETIRE and f"{old.server}/ready" not in draft.nodes:
            continue  # nothing in this run shows that its server answers
        read = f"{old.host}/{old.server}/inspect"
        may = read in draft.nodes or may_be_superseded(draft.desired, draft.observed, old)
        if may and was_asked(draft, old.server):
            carriers = carrier_names(draft.desired.site) if may_hold_data(draft.desired, old.server) else ()
            step = PutAway(old.host, old.names, draft.date, carriers)
            needs = ["journey", f"{old.server}/ready", f"{old.host}/{old.server}/quarantine", read]
            put_away(draft, phase, old, step, needs, aside=True)


def clear_address(draft: Draft, phase: Phase, d: Decision, needs: list[str]) -> list[str]:
    """The nodes after which nobody else has an address that this server starts with."""
    spec = started_as(draft.desired, draft.observed, d)
    cleared = [
        _retire(draft, phase, u, f"{d.server} gets its address", needs) for u in gives_way(draft.unplanned, spec)
    ]
    others = {other for a in spec.addresses for other in draft.at_address.get(a, ()) if other[1] != d.server}
    keys = (f"{host}/{server}/{verb}" for host, server in sorted(others) for verb in ("retire", "quarantine"))
    cleared += [key for key in keys if key in draft.nodes and key not in cleared]
    return cleared


def tidy_up(draft: Draft, phase: Phase) -> None:
    """What is in no plan and holds nothing is put away once a shopper could buy without it."""
    if draft.desired.options.only or "journey" not in draft.nodes:
        return
    needs = ["journey", *(k for k in draft.nodes if k.endswith("/ready"))]
    for one in draft.unplanned:
        if not one.may_hold_data:
            _retire(draft, phase, one, "the inventory names no such server", needs)


def _retire(draft: Draft, phase: Phase, one: Unplanned, reason: str, needs: Iterable[str]) -> str:
    return draft.add(
        phase,
        f"{one.host}/{one.server}/retire",
        Retire(one.host, one.names, draft.date, "past"),
        needs=needs,
        host=one.host,
        server=one.server,
        action="retire",
        reason=reason,
    )


def put_away(
    draft: Draft, phase: Phase, old: Quarantined, step: Step, needs: Iterable[str], *, aside: bool = False
) -> str:
    return draft.add(
        phase,
        f"{old.host}/{old.server}/put-away",
        step,
        needs=needs,
        host=old.host,
        server=old.server,
        action="put away",
        reason=f"it is generation {old.generation}, the newest is {old.newest}; its disk becomes a tombstone",
        aside=aside,
    )


def is_on(old: Quarantined, d: Decision) -> bool:
    """Whether the decision is about the copy's own server, on the host where the copy is."""
    return (old.host, old.server) == (d.host, d.server)


def was_asked(draft: Draft, server: str) -> bool:
    only = draft.desired.options.only
    return not only or server in only or draft.desired.server(server).group in only
