"""What each server needs: one decision a server, from facts alone.

Safety, as sentences:
- A server that is on no host that answers may run on any host that does not. It is made
  elsewhere only after every such host is proven off (`fences`); where one may not be fenced
  (`suspicion.py`), the server is blocked.
- The same holds for a copy that was never started: an older one may run where nobody looks.
- A copy older than the newest generation is never started (`generations.py`).
- Two running copies of one generation are a person's business.
- Nothing is fenced when nothing is missing.
- A server that pcloud did not make is never touched.
- A server that is booting is waited for, not rebuilt.
- A server is not blamed for what it depends on.
- Data is not thrown away by the way: a database that drifted is kept, one that does not
  answer is power-cycled; it is made anew only when it is missing or when a person names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from pcloud.desired import Desired, Names, ServerSpec
from pcloud.generations import Generations, Quarantined, has_run, quarantined, read_generations
from pcloud.identity import STATELESS, carrier_names
from pcloud.observed import Health, Observed, Power, SeenHost, SeenServer
from pcloud.placement import NoRoom, Placed, place
from pcloud.replicas import find_heir, irreplaceable, keep_primary
from pcloud.suspicion import judge


class Act(StrEnum):
    KEEP = "keep"
    LEAVE = "leave"
    WAIT = "wait"
    START = "start"
    CYCLE = "cycle"
    REBUILD = "rebuild"
    BUILD = "build"
    RETIRE = "retire"
    BLOCK = "block"


UNHEALTHY = "unhealthy"

MAKES = frozenset({Act.BUILD, Act.REBUILD})
"""Acts after which the server is a new one."""

STAYS = frozenset({Act.KEEP, Act.LEAVE, Act.RETIRE})
"""Acts that wait for nobody."""


@dataclass(frozen=True)
class Decision:
    """`host` is where the server is or will be; `old` the generation that must go first."""

    server: str
    act: Act
    reason: str
    host: str = ""
    generation: int = 0
    old: int | None = None
    was_healthy: bool = False
    next: str = ""
    fences: tuple[str, ...] = ()
    """Hosts that must be proven off before it starts, or before its role or its data are given to another one."""
    unfenced: bool = False
    """Blocked by a host whose power could not be cut in this run."""
    no_room: NoRoom | None = None
    """Blocked because no host can take it."""

    @property
    def answers(self) -> bool:
        """Whether it answers now, and will not be touched."""
        return self.was_healthy and self.act in (Act.KEEP, Act.LEAVE)

    @property
    def will_answer(self) -> bool:
        """Whether it answers, or is being made to."""
        return self.answers or self.act not in (Act.LEAVE, Act.RETIRE, Act.BLOCK)


@dataclass(frozen=True)
class _Facts:
    """What every decision of one plan looks at."""

    desired: Desired
    observed: Observed
    generations: Generations
    old: frozenset[tuple[str, str]]
    """Host and server of every quarantined copy."""
    irreplaceable: frozenset[str]

    @property
    def site(self) -> str:
        return self.desired.site.site


def decide(desired: Desired, observed: Observed) -> dict[str, Decision]:
    """A decision for every server of the site, in the inventory's order; then for those that stand in."""
    old = find_quarantined(desired, observed)
    generations = read_generations(observed, desired.site.site)
    kept = irreplaceable(desired, observed)
    facts = _Facts(desired, observed, generations, frozenset((q.host, q.server) for q in old), kept)
    decided = {spec.name: _decide_one(facts, spec) for spec in desired.servers}
    guilty = _first_not_kept(desired, decided)
    rivals = {q.server: q.host for q in old if q.runs}
    decided = {name: _spare_the_innocent(desired, guilty, rivals, d) for name, d in decided.items()}
    decided = {name: _only_what_was_asked(desired, d) for name, d in decided.items()}
    return _with_places(facts, old, decided | _stand_ins(facts, decided))


def find_quarantined(desired: Desired, observed: Observed) -> tuple[Quarantined, ...]:
    """Every copy of the site's servers that must not run any more."""
    return quarantined(observed, desired.site.site, read_generations(observed, desired.site.site))


def _decide_one(facts: _Facts, spec: ServerSpec) -> Decision:
    site, observed = facts.site, facts.observed
    copies = sorted(
        ((h, s) for h, s in observed.copies(site, spec.name) if (h.name, spec.name) not in facts.old),
        key=lambda c: -_generation(c[1]),
    )
    running = [(h, s) for h, s in copies if s.power is not Power.OFF]
    if len(copies) > 1 and len(running) != 1:
        return _block_twins(facts, spec, running or copies)
    foreign = _foreign(observed, site, spec)
    if foreign is not None:
        host, seen = foreign
        return Decision(
            spec.name,
            Act.BLOCK,
            f"{host.name} has a server {seen.name} with its name or address that is not pcloud's",
            next=f"rename or remove it: pcloud ssh {site}/{host.name} -- virsh domrename {seen.name} NEW-NAME",
        )
    anew = facts.generations.next(spec.name)
    if not copies:
        return _after_fences(facts, Decision(spec.name, Act.BUILD, "it is missing", generation=anew))
    host, seen = (running or copies)[0]
    d = _decide_present(facts, spec, host, seen, anew)
    starts = d.act is Act.START or (d.act is Act.REBUILD and not running)
    return _before_it_starts(facts, spec, d, host, seen) if starts else d


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
        next=f"keep one, {remedy}: pcloud ssh {facts.site}/{host.name} -- {command}",
    )


def _after_fences(facts: _Facts, d: Decision) -> Decision:
    """The same, after every host is proven off that may run an older copy; or blocked, where one must not be."""
    away = facts.observed.unreachable()
    if not away:
        return d
    verdicts = [judge(facts.desired, facts.observed, host) for host in away]
    against = next((v for v in verdicts if not v.may), None)
    if against is not None:
        unfenced = bool(set(away) & set(facts.desired.options.unfenced))
        reason = f"it may be running on {against.host}: {against.why}"
        return Decision(d.server, Act.BLOCK, reason, next=against.next, unfenced=unfenced)
    return replace(d, reason=f"{d.reason}; {', '.join(v.why for v in verdicts)}", fences=away)


def _before_it_starts(facts: _Facts, spec: ServerSpec, d: Decision, host: SeenHost, seen: SeenServer) -> Decision:
    """For a copy that is off: whether it is surely the one that may run."""
    started = has_run(host, Names(facts.site, spec.name, _generation(seen)))
    if started and facts.generations.sure:
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


def _decide_present(facts: _Facts, spec: ServerSpec, host: SeenHost, seen: SeenServer, anew: int) -> Decision:
    """`anew` is the generation that the server would have if it were made again."""
    desired, site = facts.desired, facts.site
    generation = _generation(seen)
    health = facts.observed.health.get(spec.name, Health(False, "it does not run"))

    def decision(act: Act, reason: str) -> Decision:
        if act is Act.REBUILD:
            return Decision(spec.name, act, reason, host.name, anew, generation, health.ok)
        remedy = _without_its_disk(facts, spec.name) if act is Act.BLOCK else ""
        return Decision(spec.name, act, reason, host.name, generation, None, health.ok, remedy)

    if desired.options.until is not None and spec.name in carrier_names(desired.site):
        return decision(Act.REBUILD, "its data are restored, as you asked")
    if spec.name in desired.options.rebuild and not desired.options.from_scratch:
        why, remedy = keep_primary(desired, facts.observed, spec.name)
        if why:
            return Decision(spec.name, Act.BLOCK, why, host.name, generation, next=remedy)
    if desired.options.from_scratch or spec.name in desired.options.rebuild:
        return decision(Act.REBUILD, "you asked for it")
    drift = _drift(spec, seen)
    lost = Names(site, spec.name, generation).disk not in host.volumes
    if spec.name in facts.irreplaceable:
        act, reason = _choose_for_data(desired, spec, seen, health, drift, lost)
    else:
        act, reason = _choose(desired, spec, seen, health, drift, lost)
    return decision(act, reason)


def _without_its_disk(facts: _Facts, server: str) -> str:
    """What a person does about a server whose disk cannot be found, and may hold what nobody else has."""
    heir = find_heir(facts.desired, facts.observed, server)
    way = f"let {heir} take over" if heir else "take what is kept of its data"
    return f"mount it and recover again, or {way}: pcloud recover {facts.site} --rebuild {server}"


def _choose(
    desired: Desired, spec: ServerSpec, seen: SeenServer, health: Health, drift: str, lost: bool
) -> tuple[Act, str]:
    """For a server that can be made anew at any time."""
    if lost:
        return Act.REBUILD, "its disk is gone"
    if drift:
        return Act.REBUILD, f"its {drift} changed"
    if seen.power is not Power.RUNNING:
        return Act.START, f"it is {seen.power}"
    if health.ok:
        return Act.KEEP, "healthy"
    if seen.age_s < desired.site.group(spec.group).boot_timeout_s:
        return Act.WAIT, f"it started {seen.age_s:.0f} s ago: {health.detail}"
    return Act.REBUILD, f"{UNHEALTHY}: {health.detail}"


def _choose_for_data(
    desired: Desired, spec: ServerSpec, seen: SeenServer, health: Health, drift: str, lost: bool
) -> tuple[Act, str]:
    """For a server whose disk holds what nobody can make again."""
    if lost:
        return Act.BLOCK, "its disk is not in the pool (is the storage mounted?)"
    act, reason = _choose(desired, spec, seen, health, "", lost=False)
    if act is Act.REBUILD:
        return Act.CYCLE, reason
    if act is Act.KEEP and drift:
        return act, f"{reason}; its {drift} changed, but it holds data: --rebuild {spec.name} makes it anew"
    return act, reason


def _first_not_kept(desired: Desired, decided: Mapping[str, Decision]) -> dict[str, str]:
    """Group to its first server that is not as it should be, where there is one."""
    return {s.group: s.name for s in reversed(desired.servers) if decided[s.name].act is not Act.KEEP}


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
    places = place(desired.site, facts.observed, staying, new, groups, frozenset((q.host, q.server) for q in old))
    return {name: _placed(desired, d, places[name]) if d.act is Act.BUILD else d for name, d in decided.items()}


def _placed(desired: Desired, d: Decision, placed: Placed | NoRoom) -> Decision:
    if isinstance(placed, NoRoom):
        return Decision(
            d.server,
            Act.BLOCK,
            str(placed),
            next=f"pcloud status {desired.site.site}; then add a host to the inventory, or give it less memory_mib",
            fences=d.fences,
            no_room=placed,
        )
    return replace(d, reason=f"{d.reason}; {placed.host}: {placed.reason}", host=placed.host)


def _drift(spec: ServerSpec, seen: SeenServer) -> str:
    mark = seen.mark
    if mark is None or (mark.spec == spec.spec and mark.image == spec.image.digest):
        return ""
    return "image" if mark.image != spec.image.digest else "configuration"


def _generation(seen: SeenServer) -> int:
    return seen.mark.generation if seen.mark else 0


def _foreign(observed: Observed, site: str, spec: ServerSpec) -> tuple[SeenHost, SeenServer] | None:
    name = Names(site, spec.name).domain
    for host, seen in observed.lookalikes(name, spec.uuid, spec.mac):
        if seen.mark is None or (seen.mark.site, seen.mark.server) != (site, spec.name):
            return host, seen
    return None


def leftovers(desired: Desired, observed: Observed) -> dict[str, tuple[str, ...]]:
    """Host to the files of this site that belong to no server: an interrupted build's."""
    site = desired.site.site
    unfinished = r"\.part|\.[A-Za-z0-9]{8}"
    pattern = re.compile(rf"{re.escape(site)}\.[a-z0-9-]+\.g\d+\.(qcow2|seed\.iso|console\.log)({unfinished})?$")
    found = {}
    for host in observed.hosts:
        kept = {n for s in host.servers if s.mark and s.mark.site == site for n in _files(site, s)}
        lost = tuple(v for v in host.volumes if pattern.fullmatch(v) and v not in kept)
        if lost and host.reachable:
            found[host.name] = lost
    return found


def _files(site: str, seen: SeenServer) -> tuple[str, ...]:
    if seen.mark is None:
        return ()
    names = Names(site, seen.mark.server, seen.mark.generation)
    return names.disk, names.seed, names.console
