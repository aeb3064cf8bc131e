"""What hosts are told of copies: their generations, and which copies of the data were filled, and taken over from."""

from __future__ import annotations

from collections.abc import Iterable

from pcloud.decision import MAKES, Act, Decision
from pcloud.generations import is_used
from pcloud.graph import Draft
from pcloud.playbook import Phase
from pcloud.replicas import How, Roles, carriers_of
from pcloud.steps.noting import NoteFilled, NoteGeneration, NotePast, NoteVoid

_RUNS = frozenset({Act.KEEP, Act.LEAVE, Act.WAIT, Act.RETIRE})
"""Acts whose copy is there, and is neither started nor made."""


def note_generation(
    draft: Draft, phase: Phase, d: Decision, needs: Iterable[str] = (), *, aside: bool = False
) -> list[str]:
    """Other hosts know of a copy before it starts, whoever started it first; nothing where they do."""
    names, site = draft.names(d), draft.desired.site
    file = names.noted(d.host, str(site.host(d.host).address))
    if not draft.keepers.lacks(d.host, file):
        return []
    hosts = draft.keepers.find(d.host, file)
    older = draft.keepers.find_other(d.server, d.generation, file)
    if d.server not in {s.name for s in carriers_of(draft.desired)}:  # older copies of the data may count still
        older += draft.keepers.find_older(d.server, d.generation)
    step = NoteGeneration(hosts, names, d.host, draft.keepers.find_deputies(d.host, hosts, file), older)
    reason = f"{' and '.join(hosts)} remember that generation {d.generation} is the newest"
    key = f"{d.server}/note"
    return [draft.add(phase, key, step, needs=needs, server=d.server, action="note", reason=reason, aside=aside)]


def note_again(draft: Draft, phase: Phase) -> None:
    """What hosts should know of the copies that run, and do not: some were made anew, or away when it was noted.

    No shopper waits for it.
    """
    site, observed = draft.desired.site.site, draft.observed
    carriers = {s.name for s in carriers_of(draft.desired)}
    for d in draft.decisions.values():
        copies = observed.copies(site, d.server)
        mine = [s for h, s in copies if h.name == d.host and s.mark and s.mark.generation == d.generation]
        if d.act not in _RUNS or not mine:
            continue
        keys = note_generation(draft, phase, d, aside=True)
        if d.server in carriers and is_used(observed, site, mine[0]) and f"{d.server}/filled" not in draft.nodes:
            keys += note_filled(draft, phase, d.server, "holds", [], aside=True)
        for key in keys:
            draft.follow(key, "journey")


def _holders(draft: Draft, d: Decision, file: str) -> tuple[str, ...]:
    """The hosts that remember what became of this copy; none where all of them do already."""
    hosts = (d.host, *draft.keepers.find(d.host, file))
    there = draft.keepers.holders.get(file, ())
    return () if all(h in there for h in hosts) else hosts


def note_filled(
    draft: Draft, phase: Phase, name: str, verb: str, after: list[str], *, aside: bool = False
) -> list[str]:
    """Hosts know that this copy holds data, before anybody writes to them: from then on it outdates older ones."""
    d = draft.decisions[name]
    names = draft.names(d)
    holders = _holders(draft, d, names.filled)
    if not holders:
        return []
    older = draft.keepers.find_older(name, d.generation)
    deputies = draft.keepers.find_deputies(d.host, holders, names.filled)
    step = NoteFilled(holders, names, draft.desired.site.database.name, deputies, older)
    reason = f"{' and '.join(holders)} remember that generation {d.generation} holds data"
    key = f"{name}/{verb}"
    return [draft.add(phase, key, step, needs=after, server=name, action="note", reason=reason, aside=aside)]


def note_counts(draft: Draft, phase: Phase, d: Decision, generation: int) -> str:
    """Hosts know that a copy that is not started yet holds data."""
    names, holders = draft.names(d, generation), (d.host, *draft.keepers.find(d.host))
    reason = f"{' and '.join(holders)} remember that generation {generation} holds data"
    step = NoteFilled(holders, names, deputies=draft.keepers.find_deputies(d.host, holders, names.filled))
    return draft.add(phase, f"{d.server}/counts", step, server=d.server, action="note", reason=reason)


def note_void(draft: Draft, phase: Phase, d: Decision) -> list[str]:
    """Hosts know that nobody took over, though it was noted that another server would."""
    holders = (d.host, *draft.keepers.find(d.host))
    return [
        draft.add(
            phase,
            f"{d.server}/void-{later}",
            NoteVoid(holders, draft.names(d, later)),
            server=d.server,
            action="note",
            reason=f"nobody took over from {d.server}, as it was to be from generation {later} on",
        )
        for later in d.voids
    ]


def note_past(draft: Draft, phase: Phase, roles: Roles, needs: list[str]) -> list[str]:
    """Before another server accepts writes: what older copies of those that are empty hold is of the past."""
    seeded = roles.seeded if roles.how is not How.SETTLES else ()
    found = []
    for spec in carriers_of(draft.desired):
        d = draft.decisions[spec.name]
        if spec.name == roles.primary or not d.host or not (d.act in MAKES or spec.name in seeded):
            continue
        names = draft.names(d)
        if holders := _holders(draft, d, names.past):
            reason = f"what generations before {d.generation} hold ends where {roles.primary} takes over"
            first = [*needs, f"{d.host}/{spec.name}/retire"]
            deputies = draft.keepers.find_deputies(d.host, holders, names.past)
            step = NotePast(holders, names, roles.primary, deputies)
            key = f"{spec.name}/past"
            found.append(draft.add(phase, key, step, needs=first, server=spec.name, action="note", reason=reason))
    return found
