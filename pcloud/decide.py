"""What each server needs: one decision a server, from facts alone.

Safety, as sentences:
- A server that is on no host that answers may run on any host that does not. It is made
  elsewhere only after every such host is proven off (`fences`); where one may not be fenced
  (`suspicion.py`), the server is blocked.
- The same holds for a copy that was never started: an older one may run where nobody looks.
- Nor is it made elsewhere while it may run on a host that left the inventory (`strangers.py`).
- A copy older than the newest generation is never started; one that is well and holds data is not
  stopped for it on one host's word (`generations.py`).
- Two running copies of one generation are a person's business.
- Nothing is fenced when nothing is missing.
- A server that pcloud did not make is never touched.
- A server that is booting is waited for, not rebuilt.
- A server is not blamed for what it depends on.
- Data is never discarded as a side effect: a data server that drifted is kept, one that does not answer is
  power-cycled, one of which only the disk is left blocks; it is made anew only when it is missing, when
  another one is seen to hold all that it does (`holding.py`), or when a person names it.
- A data server that is off is started before anything is made of it, as nobody can ask it otherwise.
- A copy that holds data is not given up for a later one that never did (`generations.py`).
- No server starts at an address that another one has, nor beside data that are in no plan (`unplanned.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pcloud.choice import choose, choose_for_data
from pcloud.decision import MAKES, STAYS, UNHEALTHY, Act, Decision
from pcloud.desired import Desired, Names, ServerSpec
from pcloud.doubts import find_doubt
from pcloud.generations import (
    Generations,
    Quarantined,
    adds_nothing,
    has_run,
    quarantined,
    read_generations,
)
from pcloud.holding import find_leader, irreplaceable, keep_primary
from pcloud.identity import STATELESS, carrier_names
from pcloud.leftovers import Stray, find_strays
from pcloud.observed import Health, Observed, Power, SeenHost, SeenServer
from pcloud.past import is_superseded
from pcloud.placement import NoRoom, Placed, place
from pcloud.strangers import Stranger, find_stranger, forget_command
from pcloud.suspicion import judge
from pcloud.unplanned import keep_apart

__all__ = ["MAKES", "STAYS", "Act", "Decision", "decide", "find_quarantined"]


@dataclass(frozen=True)
class _Facts:
    """What every decision of one plan looks at."""

    desired: Desired
    observed: Observed
    generations: Generations
    old: frozenset[tuple[str, str]]
    """Host and server of every quarantined copy."""
    irreplaceable: frozenset[str]
    strays: Mapping[str, Stray]

    @property
    def carriers(self) -> tuple[str, ...]:
        return carrier_names(self.desired.site)

    @property
    def site(self) -> str:
        return self.desired.site.site


def decide(desired: Desired, observed: Observed) -> dict[str, Decision]:
    """A decision for every server of the site, in the inventory's order; then for those that stand in."""
    old = find_quarantined(desired, observed)
    generations = read_generations(observed, desired.site.site, carrier_names(desired.site))
    kept, strays = irreplaceable(desired, observed), find_strays(desired, observed, generations)
    facts = _Facts(desired, observed, generations, frozenset((q.host, q.server) for q in old), kept, strays)
    decided = {spec.name: _decide_one(facts, spec) for spec in desired.servers}
    guilty = _first_not_kept(desired, observed, decided)
    rivals = {q.server: q.host for q in old if q.runs}
    decided = {name: _spare_the_innocent(desired, guilty, rivals, d) for name, d in decided.items()}
    decided = {name: _only_what_was_asked(desired, d) for name, d in decided.items()}
    decided = _with_places(facts, old, decided | _stand_ins(facts, decided))
    return keep_apart(desired, observed, facts.old, decided)


def find_quarantined(desired: Desired, observed: Observed) -> tuple[Quarantined, ...]:
    """Every copy of the site's servers that must not run any more."""
    site = desired.site.site
    return quarantined(observed, site, read_generations(observed, site, carrier_names(desired.site)))


def _decide_one(facts: _Facts, spec: ServerSpec) -> Decision:
    site, observed = facts.site, facts.observed
    copies = sorted(
        ((h, s) for h, s in observed.copies(site, spec.name) if (h.name, spec.name) not in facts.old),
        key=lambda c: -_generation(c[1]),
    )
    running = [(h, s) for h, s in copies if s.power is not Power.OFF]
    held = facts.generations.current(spec.name)
    full = [c for c in copies if _generation(c[1]) in held]
    if len(full) == 1 and len(copies) > 1:
        return _beside_empty(facts, spec, full[0], [c for c in copies if c is not full[0]])
    if len(copies) > 1 and len(running) != 1:
        return _block_twins(facts, spec, running or copies)
    problem = find_doubt(facts.desired, observed, facts.generations, spec, facts.strays.get(spec.name))
    if problem is not None:
        return problem
    if not copies:
        anew = facts.generations.next(spec.name)
        return _after_fences(facts, Decision(spec.name, Act.BUILD, "it is missing", generation=anew))
    return _decide_alone(facts, spec, *(running or copies)[0])


def _decide_alone(facts: _Facts, spec: ServerSpec, host: SeenHost, seen: SeenServer) -> Decision:
    """For the one copy that counts."""
    d, generations = _decide_present(facts, spec, host, seen), facts.generations
    later = (g for server, g in generations.void if server == spec.name and g > _generation(seen))
    d = replace(d, voids=tuple(sorted(later)))
    if d.act is Act.START or (d.act is Act.REBUILD and seen.power is Power.OFF):
        return _before_it_starts(facts, spec, d, host, seen)
    if d.act is Act.REBUILD and _moves(spec, seen) and _is_somebody_away(facts):
        return _after_fences(facts, d)  # who had the address may run where nobody looks
    empty = spec.name in generations.held and _generation(seen) not in generations.held[spec.name]
    led = find_leader(facts.observed, facts.carriers, spec.name)
    if d.act is not Act.BLOCK and empty and not led and _may_run_elsewhere(facts, spec.name):
        return _after_fences(facts, d)  # what it is filled with must not leave behind what that one holds
    return d


def _moves(spec: ServerSpec, seen: SeenServer) -> bool:
    """Whether it gets another address than the one that it was made with."""
    return seen.mark is not None and bool(seen.mark.addresses) and seen.mark.addresses != spec.addresses


def _is_somebody_away(facts: _Facts) -> bool:
    """Whether any server that was ever made, in the plan or not, is out of sight."""
    return any(_may_run_elsewhere(facts, server) for server in facts.generations.newest)


def _may_run_elsewhere(facts: _Facts, server: str) -> bool:
    """Whether a copy that counts is out of sight."""
    present = {_generation(s) for _, s in facts.observed.copies(facts.site, server)}
    return facts.generations.elsewhere(server, present)


def _stranger(facts: _Facts, server: str) -> Stranger | None:
    present = (_generation(s) for _, s in facts.observed.copies(facts.site, server))
    return find_stranger(facts.desired.site, facts.generations, server, present)


def _beside_empty(
    facts: _Facts, spec: ServerSpec, full: tuple[SeenHost, SeenServer], later: list[tuple[SeenHost, SeenServer]]
) -> Decision:
    """For a copy that may hold data, beside later ones that never did: it counts, and they are put away.

    One of them that cannot be asked is a person's business, while the copy with the data does not answer itself.
    """
    host, seen = full
    d = _decide_alone(facts, spec, host, seen)
    away = [(h, s) for h, s in later if d.act is Act.REBUILD or adds_nothing(facts.observed, facts.site, h, s)]
    unasked = [(h, s) for h, s in later if (h, s) not in away]
    alone = seen.power is not Power.OFF and all(s.power is Power.OFF for _, s in later)
    if d.act is Act.BLOCK or not unasked or alone:
        return d if d.act is Act.BLOCK else replace(d, puts_away=tuple((h.name, _generation(s)) for h, s in away))
    where, other = unasked[0]
    return Decision(
        spec.name,
        Act.BLOCK,
        f"generation {_generation(seen)} on {host.name} holds data, and generation {_generation(other)} on {where.name}"
        " cannot be asked whether it does",
        host.name,
        _generation(seen),
        next=f"{_let_it_answer(facts, where, other)}; then pcloud recover {facts.site}",
    )


def _let_it_answer(facts: _Facts, host: SeenHost, seen: SeenServer) -> str:
    """What a person does so that a copy can be asked, or is none any more."""
    at = f"pcloud ssh {facts.site}/{host.name} -- virsh"
    if seen.mark is not None and Names(facts.site, seen.mark.server, seen.mark.generation).disk not in host.volumes:
        return f"mount the storage of its disk; or, if that is gone for good: {at} undefine {seen.name}"
    return f"let it answer: {at} {'start' if seen.power is Power.OFF else 'reset'} {seen.name}"


def _block_twins(facts: _Facts, spec: ServerSpec, copies: list[tuple[SeenHost, SeenServer]]) -> Decision:
    """Copies of one generation, all running or all off: pcloud makes no such, and cannot tell which one counts."""
    hosts, (host, seen) = " and ".join(h.name for h, _ in copies), copies[-1]
    off = seen.power is Power.OFF
    reason = f"it is there twice, off, on {hosts}" if off else f"it runs twice, on {hosts}"
    remedy = "rename the other" if off else "power the other off"
    command = f"virsh domrename {seen.name} NEW-NAME" if off else f"virsh destroy {seen.name}"
    return Decision(
        spec.name,
        Act.BLOCK,
        reason,
        host.name,
        _generation(seen),
        next=f"keep one, {remedy}: pcloud ssh {facts.site}/{host.name} -- {command}",
    )


def _after_fences(facts: _Facts, d: Decision) -> Decision:
    """The same, after every host is proven off that may run an older copy; or blocked, where one must not be."""
    if (stranger := _stranger(facts, d.server)) is not None:
        back = f"put {stranger.host} back into the inventory, as it was; or, where it has no power any more"
        remedy = f"{back}: {forget_command(facts.site, stranger.host)}; then pcloud recover {facts.site}"
        return replace(d, act=Act.BLOCK, reason=stranger.why, next=remedy, unfenced=True)
    away = facts.observed.unreachable()
    if not away:
        return d
    verdicts = [judge(facts.desired, facts.observed, host) for host in away]
    against = next((v for v in verdicts if not v.may), None)
    if against is not None:
        unfenced = bool(set(away) & set(facts.desired.options.unfenced))
        reason = f"it may be running on {against.host}: {against.why}"
        return replace(d, act=Act.BLOCK, reason=reason, next=against.next, unfenced=unfenced)
    return replace(d, reason=f"{d.reason}; {', '.join(v.why for v in verdicts)}", fences=away)


def _before_it_starts(facts: _Facts, spec: ServerSpec, d: Decision, host: SeenHost, seen: SeenServer) -> Decision:
    """For a copy that is off: whether it is surely the one that may run."""
    started = has_run(host, Names(facts.site, spec.name, _generation(seen)))
    if (
        started
        and facts.generations.sure
        and not (spec.name in facts.carriers and _may_run_elsewhere(facts, spec.name))
    ):
        return d
    if spec.role not in STATELESS and not facts.generations.sure:
        away = ", ".join(facts.observed.unreachable())
        return replace(
            d,
            act=Act.BLOCK,
            reason=f"{d.reason}; but a newer copy may be on one of {away}, where its generation could be read",
            next=f"bring one of {away} back; then pcloud recover {facts.site}",
        )
    return _after_fences(facts, d)


def _decide_present(facts: _Facts, spec: ServerSpec, host: SeenHost, seen: SeenServer) -> Decision:
    desired, observed = facts.desired, facts.observed
    generation, options = _generation(seen), desired.options
    healthy = observed.health.get(spec.name, Health(False)).ok

    def decision(act: Act, reason: str, remedy: str = "") -> Decision:
        if act is Act.REBUILD:
            anew = facts.generations.next(spec.name)  # the generation that it has when it is made again
            return Decision(spec.name, act, reason, host.name, anew, generation, healthy)
        return Decision(spec.name, act, reason, host.name, generation, None, healthy, remedy)

    if options.until is not None and spec.name in facts.carriers:
        return decision(Act.REBUILD, "its data are restored, as you asked")
    if spec.name in options.rebuild and not options.from_scratch:
        why, remedy = keep_primary(desired, observed, spec.name)
        if why:
            return Decision(spec.name, Act.BLOCK, why, host.name, generation, next=remedy)
    if options.from_scratch or spec.name in options.rebuild:
        return decision(Act.REBUILD, "you asked for it")
    if spec.name in facts.carriers:
        replaceable = spec.name not in facts.irreplaceable
        found = choose_for_data(desired, observed, spec, host, seen, replaceable=replaceable)
    else:
        found = choose(desired, observed, spec, host, seen)
    return decision(found.act, found.reason, found.next)


def _first_not_kept(desired: Desired, observed: Observed, decided: Mapping[str, Decision]) -> dict[str, str]:
    """Group to its first server that is not as it should be, where there is one.

    A database that only refuses the monitor serves all others.
    """
    bad = [s for s in desired.servers if decided[s.name].act is not Act.KEEP and s.name not in observed.data.refused]
    return {s.group: s.name for s in reversed(bad)}


def _spare_the_innocent(
    desired: Desired, guilty: Mapping[str, str], rivals: Mapping[str, str], d: Decision
) -> Decision:
    """A running server whose only fault may be what it needs, or its older copy, is waited for instead.

    Also one that is well, beside an older copy: nobody knows which of the two was asked.
    """
    unhealthy = d.act in (Act.REBUILD, Act.CYCLE) and d.reason.startswith(UNHEALTHY)
    generation = d.generation if d.old is None else d.old
    if d.server in rivals and (unhealthy or d.act is Act.KEEP):
        return Decision(
            d.server, Act.WAIT, f"{d.reason}; its old copy on {rivals[d.server]} goes off first", d.host, generation
        )
    if not unhealthy:
        return d
    needs = desired.site.group(desired.server(d.server).group).needs
    first = next((guilty[g] for g in needs if g in guilty), None)
    if first is None or d.act is Act.CYCLE:
        return d
    return Decision(d.server, Act.WAIT, f"{d.reason}; {first} comes first", d.host, generation)


def _only_what_was_asked(desired: Desired, d: Decision) -> Decision:
    only = desired.options.only
    if not only or d.server in only or desired.server(d.server).group in only or d.act is Act.KEEP:
        return d
    generation = d.generation if d.old is None else d.old
    reason = f"not asked for; it would {d.act}: {d.reason}"
    return Decision(d.server, Act.LEAVE, reason, d.host, generation, was_healthy=d.was_healthy)


def _stand_ins(facts: _Facts, decided: Mapping[str, Decision]) -> dict[str, Decision]:
    """For every stateless server that a host keeps from being made, another one at a spare address."""
    found: dict[str, Decision] = {}
    for group in facts.desired.site.groups:
        spare = [s for s in facts.desired.substitutes if s.group == group.name]
        members = [decided[s.name] for s in facts.desired.members(group.name)]
        there = [s for s in spare if any(facts.observed.copies(facts.site, s.name))]
        free = [s for s in spare if s not in there and _is_free(facts, s)]
        blocked = [d.server for d in members if d.unfenced]
        chosen = list(zip([*there, *free], blocked, strict=False))
        found |= {s.name: _decide_one(facts, s) if s in there else _stand_in(facts, s, d) for s, d in chosen}
        whole = all(d.will_answer for d in members)
        found |= {s.name: _leave_or_retire(facts, s, whole) for s in there if s.name not in found}
    return found


def _stand_in(facts: _Facts, spec: ServerSpec, blocked: str) -> Decision:
    """No copy of it can be anywhere (`_is_free`), so no host has to be off before it is made."""
    reason = f"it stands in for {blocked}"
    return Decision(spec.name, Act.BUILD, reason, generation=facts.generations.next(spec.name))


def _is_free(facts: _Facts, spec: ServerSpec) -> bool:
    if _stranger(facts, spec.name) is not None:
        return False
    return not facts.observed.unreachable() or not facts.generations.may_be_away(spec.name)


def _leave_or_retire(facts: _Facts, spec: ServerSpec, whole: bool) -> Decision:
    host, seen = max(facts.observed.copies(facts.site, spec.name), key=lambda c: _generation(c[1]))
    healthy = facts.observed.health.get(spec.name, Health(False)).ok
    act, reason = (
        (Act.RETIRE, f"every {spec.group} runs again") if whole else (Act.LEAVE, "stands in until all others run again")
    )
    return Decision(spec.name, act, reason, host.name, _generation(seen), was_healthy=healthy)


def _with_places(facts: _Facts, old: tuple[Quarantined, ...], decided: Mapping[str, Decision]) -> dict[str, Decision]:
    desired = facts.desired
    staying = {n: d.host for n, d in decided.items() if d.host}
    new = [s for s in desired.everyone if s.name in decided and decided[s.name].act is Act.BUILD]
    groups = {s.name: s.group for s in desired.everyone}
    may_go = {(q.host, q.server): is_superseded(desired, facts.observed, q) for q in old}
    places = place(desired.site, facts.observed, staying, new, groups, may_go)
    return {name: _placed(desired, old, d, places[name]) if d.act is Act.BUILD else d for name, d in decided.items()}


def _placed(desired: Desired, old: Iterable[Quarantined], d: Decision, placed: Placed | NoRoom) -> Decision:
    if isinstance(placed, NoRoom):
        return Decision(
            d.server,
            Act.BLOCK,
            str(placed),
            next=f"pcloud status {desired.site.site}; then add a host to the inventory, or give it less memory_mib",
            fences=d.fences,
            no_room=placed,
        )
    there = next((q.generation for q in old if (q.host, q.server) == (placed.host, d.server)), None)
    return replace(d, reason=f"{d.reason}; {placed.host}: {placed.reason}", host=placed.host, old=there)


def _generation(seen: SeenServer) -> int:
    return seen.mark.generation if seen.mark else 0
