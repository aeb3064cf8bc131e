"""What hosts remember of a data server's copies beside their generations: which were filled, and taken over from."""

from __future__ import annotations

from pcloud.decision import MAKES, Decision
from pcloud.generations import note_holders, older_notes
from pcloud.graph import Draft
from pcloud.playbook import Phase
from pcloud.replicas import How, Roles, carriers_of
from pcloud.steps.quarantine import NoteFilled, NotePast


def _holders(draft: Draft, d: Decision, file: str) -> tuple[str, ...]:
    """The hosts that remember what became of this copy; none where all of them do already."""
    hosts = (d.host, *note_holders(draft.observed, d.host))
    seen = (draft.observed.host(h) for h in hosts)
    return () if all(h is not None and file in h.volumes for h in seen) else hosts


def note_filled(draft: Draft, phase: Phase, name: str, verb: str, after: list[str]) -> list[str]:
    """Hosts know that this copy holds data, before anybody writes to them: from then on it outdates older ones."""
    d = draft.decisions[name]
    holders = _holders(draft, d, draft.names(d).filled)
    if not holders:
        return []
    names = draft.names(d)
    older = older_notes(draft.observed, [h.name for h in draft.observed.hosts if h.reachable], names, filled=True)
    step = NoteFilled(holders, names, draft.desired.site.database.name, older)
    reason = f"{' and '.join(holders)} remember that generation {d.generation} holds data"
    return [draft.add(phase, f"{name}/{verb}", step, needs=after, server=name, action="note", reason=reason)]


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
            step = NotePast(holders, names, roles.primary)
            key = f"{spec.name}/past"
            found.append(draft.add(phase, key, step, needs=first, server=spec.name, action="note", reason=reason))
    return found
