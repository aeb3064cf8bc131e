"""`undo`: what the last restore, `--from-scratch`, `--rebuild` or `destroy` put away comes back. Pure.

Safety, as sentences:
- What comes back is looked at first: its disk, its definition and what its disk stands on; only then is
  anything put away for it.
- What serves now is put away as tombstones, not deleted: an undo can be undone.
- It comes back as a newer generation than any, so that nothing else of the server counts.
- It is not started here: `recover` does that, with all that it looks at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pcloud.desired import Desired, Names
from pcloud.errors import Blocked
from pcloud.events import StepInfo
from pcloud.generations import Generations, has_run, read_generations
from pcloud.graph import Need, PlanNode
from pcloud.gtid import behind
from pcloud.identity import carrier_names
from pcloud.model import HOST_RESERVE_MIB, SERVER_OVERHEAD_MIB
from pcloud.notes import Keepers
from pcloud.observed import Observed
from pcloud.plan import Plan
from pcloud.steps.base import Step
from pcloud.steps.noting import NoteFilled, NoteGeneration
from pcloud.steps.server import MakeSeed, Retire
from pcloud.steps.undo import BringBack, Whole
from pcloud.tombstones import Grave, find_graves


def last_put_away(desired: Desired, observed: Observed, of: str = "") -> tuple[Grave, ...]:
    """What one command put away: the last one, or that of the date `of`. Raises `Blocked` where there is nothing."""
    site = desired.site.site
    graves = [g for g in find_graves(site, observed) if any(s.name == g.names.server for s in desired.servers)]
    dates = sorted({g.date for g in graves})
    date = of or _unfinished(desired, observed, graves) or max(dates, default="")
    chosen: dict[str, Grave] = {}
    for grave in sorted((g for g in graves if g.date == date), key=lambda g: g.names.generation):
        chosen[grave.names.server] = grave
    if not chosen:
        there = f"there is what was put away at {', '.join(dates)}" if dates else "no server was put away whole"
        raise Blocked(f"nothing to bring back{f' of {of}' if of else ''}: {there}", where=site, next=_look(site, dates))
    return tuple(chosen[s.name] for s in desired.servers if s.name in chosen)


def _unfinished(desired: Desired, observed: Observed, graves: Iterable[Grave]) -> str:
    """The date of what an undo that was interrupted was bringing back: some of it is, and some is not.

    Raises `Blocked` where all of it is there, and was not started yet: another undo would take that back.
    """
    site, last = desired.site.site, max(graves, key=lambda g: g.date, default=None)
    if last is None:
        return ""
    files = [v for h in observed.hosts for v in h.volumes]
    noted = re.compile(rf"{re.escape(site)}\..+\.tombstone-{last.date}\.undo-([0-9-]+)\.note")
    before = next((m[1] for v in files if (m := noted.fullmatch(v))), "")
    if not before or any(g.date == before for g in graves):
        return before
    for host, seen in observed.copies(site, last.names.server):
        assert seen.mark is not None
        if not has_run(host, Names(site, seen.mark.server, seen.mark.generation)):
            what = "what was put away is back already, and was not started yet"
            raise Blocked(what, where=site, next=f"pcloud recover {site}")
    return ""


def _look(site: str, dates: list[str]) -> str:
    return f"pcloud undo {site} --of {dates[-1]}" if dates else f"pcloud status {site}"


def plan_undo(desired: Desired, observed: Observed, date: str, of: str = "") -> Plan:
    """Puts away what serves in place of what was put away, and brings that back, off. Raises `Blocked`."""
    site, carriers = desired.site.site, carrier_names(desired.site)
    graves = last_put_away(desired, observed, of)
    generations = read_generations(observed, site, carriers)
    _check_silent(desired, observed, graves, generations)
    _check_data(desired, observed, graves)
    _check_room(desired, observed, graves)
    nodes: list[PlanNode] = []
    whole = []
    for g in graves:
        key = f"{g.host}/{g.names.server}/whole"
        nodes.append(
            _node(key, Whole(g.host, g.names, g.date), (), g, "look", "it is whole, and what it stands on is there")
        )
        whole.append(key)
    away: dict[str, list[str]] = {}
    for g in graves:
        for host, seen in observed.copies(site, g.names.server):
            assert seen.mark is not None
            key = f"{host.name}/{g.names.server}/retire"
            step = Retire(host.name, Names(site, g.names.server, seen.mark.generation), date, f"undo-{g.date}")
            reason = f"{g} comes back in its place"
            nodes.append(_node(key, step, whole, Grave(host.name, step.names, date), "retire", reason))
            away.setdefault(g.names.server, []).append(key)
    for g in graves:
        nodes += _brought_back(desired, observed, g, generations.next(g.names.server), away.get(g.names.server, whole))
    return Plan(site, "undo", ("undo",), tuple(nodes), {}, desired.digest(), observed.digest())


def _node(key: str, step: Step, needs: Iterable[str], g: Grave, action: str, reason: str) -> PlanNode:
    needs = sorted(needs)
    info = StepInfo(key, "undo", tuple(needs), g.host, g.names.server, action, reason)
    return PlanNode(info, step, frozenset(Need.all_of(k) for k in needs))


def _brought_back(desired: Desired, observed: Observed, g: Grave, generation: int, first: list[str]) -> list[PlanNode]:
    """Hosts know of the newest copy, and that it holds data, before it is there."""
    server, spec = g.names.server, desired.server(g.names.server)
    names = Names(desired.site.site, server, generation)
    keepers = Keepers.of(desired.site, observed)
    file = names.noted(g.host, str(desired.site.host(g.host).address))
    holders, older = keepers.find(g.host, file), keepers.find_older(server, generation)
    was = f"it was put away at {g.date}"
    nodes = [_node(f"{g.host}/{server}/seed", MakeSeed(g.host, spec, names), first, g, "seed", was)]
    knows = f"{' and '.join(holders)} remember that generation {generation}"
    carries = server in carrier_names(desired.site)
    if holders:
        deputies = keepers.find_deputies(g.host, holders, file)
        note = NoteGeneration(holders, names, g.host, deputies, () if carries else older)
        nodes.append(_node(f"{server}/note", note, first, g, "note", f"{knows} is the newest"))
    if carries:
        deputies = keepers.find_deputies(g.host, holders, names.filled)
        filled = NoteFilled((g.host, *holders), names, "", deputies, older)
        nodes.append(_node(f"{server}/filled", filled, first, g, "note", f"{knows} holds data"))
    back = BringBack(g.host, g.names, g.date, names)
    nodes.append(_node(f"{g.host}/{server}/bring-back", back, [n.key for n in nodes], g, "bring back", was))
    return nodes


def _check_silent(desired: Desired, observed: Observed, graves: tuple[Grave, ...], generations: Generations) -> None:
    """What may run where nobody looks must not run twice."""
    site, away = desired.site.site, observed.unreachable()
    if not away:
        return
    back, carriers = [g.names.server for g in graves], carrier_names(desired.site)
    for server in dict.fromkeys([*back, *(carriers if set(back) & set(carriers) else ())]):
        present = {s.mark.generation for _, s in observed.copies(site, server) if s.mark is not None}
        if not generations.sure or generations.elsewhere(server, present):
            raise Blocked(
                f"{' and '.join(away)} does not answer, and {server} may be running there; nothing was touched",
                where=site,
                next=f"bring {' and '.join(away)} back, then pcloud undo {site}",
            )


def _check_data(desired: Desired, observed: Observed, graves: tuple[Grave, ...]) -> None:
    """Two lines of data must not meet: who follows the primary that goes would follow another one's line."""
    site, back = desired.site.site, {g.names.server for g in graves}
    carriers = carrier_names(desired.site)
    writing = [n for n, d in observed.data.databases.items() if d.writable and n in back]
    staying = [c for c in carriers if c not in back and any(observed.copies(site, c))]
    if writing and staying:
        raise Blocked(
            f"{writing[0]} is the primary and would give way to older data, while {staying[0]} goes on with newer "
            "ones; nothing was touched",
            where=site,
            next=f"give {staying[0]} the role first: pcloud failback {site} --to {staying[0]}; then pcloud undo {site}",
        )


def _check_room(desired: Desired, observed: Observed, graves: tuple[Grave, ...]) -> None:
    back = {g.names.server for g in graves}
    for host in observed.hosts:
        mine = [desired.server(g.names.server).memory_mib for g in graves if g.host == host.name]
        if not mine:
            continue
        stay = [s.memory_mib for s in host.servers if s.mark is None or s.mark.server not in back]
        need = sum(m + SERVER_OVERHEAD_MIB for m in [*mine, *stay])
        if need > host.memory_mib - HOST_RESERVE_MIB:
            raise Blocked(
                f"{host.name} has no memory for what was put away there, beside what it has now; nothing was touched",
                where=desired.site.site,
                next=f"move something from it: pcloud failover {desired.site.site} {host.name} --help",
            )


def question_of(site: str, graves: tuple[Grave, ...], ends: dict[str, str], living: str, held: dict[str, int]) -> str:
    """`ends`: how far the data of each grave go, by server, empty where nobody could read it; `held`: how many
    transactions they hold that the living data, at `living`, have not."""
    at = graves[0].date
    when = f"{at[:4]}-{at[4:6]}-{at[6:8]} {at[9:11]}:{at[11:13]}:{at[13:15] or '00'} UTC"
    parts = [f"undo {site}: what was put away at {when} comes back: {', '.join(map(str, graves))}."]
    for server, end in ends.items():
        if not end:
            parts.append(f"How far the data of {server} go could not be read.")
            continue
        lost = (
            f"; what was written since, {behind(end, living)} transactions up to {living}, is given up"
            if living
            else ""
        )
        more = f", {held[server]} transactions that the shop has not now" if held.get(server) else ""
        parts.append(f"The data of {server} go to {end}{more}{lost}.")
    parts.append("What serves now becomes tombstones, and nobody can order meanwhile. Undo?")
    return " ".join(parts)
