"""What each kind of phase adds to the graph, from the decisions and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pcloud.dataphases import index, ready, replicate, restore
from pcloud.decision import MAKES, STAYS, UNHEALTHY, Act, Decision
from pcloud.desired import ServerSpec, liveness
from pcloud.distribute import find_lacking, find_spread
from pcloud.errors import BadInput
from pcloud.graph import Draft
from pcloud.identity import carrier_names
from pcloud.keeperphases import rekeep
from pcloud.leftovers import leftovers
from pcloud.model import Group
from pcloud.noteplan import note_again, note_counts, note_generation, note_void
from pcloud.pastphases import clear_address, inspect, is_on, put_away, put_away_all, quarantine, tidy_up
from pcloud.playbook import Phase
from pcloud.recall import find_choice
from pcloud.steps.base import Step
from pcloud.steps.gate import Ask, RunCommand, StillSick, WalkJourney
from pcloud.steps.image import PlaceImage
from pcloud.steps.restoring import Prove, ProveDump
from pcloud.steps.server import Cycle, Define, Discard, MakeDisk, MakeSeed, Retire, Start
from pcloud.steps.stop import Stop
from pcloud.suspicion import judge


def _selected(draft: Draft, phase: Phase) -> list[tuple[ServerSpec, Decision]]:
    """The servers of the phase's groups with what they need, those that stand in for one included."""
    groups = [g.name for g in phase.groups_of(draft.desired.site)]
    servers = [s for name in groups for s in draft.desired.members(name)]
    servers += [s for s in draft.desired.substitutes if s.group in groups and s.name in draft.decisions]
    return [(s, draft.decisions[s.name]) for s in servers]


def _image_key(host: str, spec: ServerSpec) -> str:
    return f"{host}/image/{spec.image.name}"


def _stands_on(draft: Draft, d: Decision, spec: ServerSpec) -> bool:
    """Whether the disk of a server that is there is a layer over the image of the inventory, not over an older one."""
    copies = draft.observed.copies(draft.desired.site.site, spec.name)
    marks = (seen.mark for host, seen in copies if host.name == d.host)
    return any(m is not None and m.generation == d.generation and m.image == spec.image.digest for m in marks)


def _images(draft: Draft, phase: Phase) -> None:
    """What a new server is made of, and what a stopped one stands on; never an image that it has nothing of."""
    chosen = _selected(draft, phase)
    wanted = [(s, d.host) for s, d in chosen if d.act in MAKES or (d.act is Act.START and _stands_on(draft, d, s))]
    site, observed = draft.desired.site, draft.observed
    for image in {s.image.name: s.image for s, _ in wanted}.values():
        hosts = dict.fromkeys(h for s, h in wanted if s.image == image and _image_key(h, s) not in draft.nodes)
        spread = find_spread(site, observed, hosts, image)
        if spread is not None:
            draft.add(phase, f"{image.name}/copies", spread, action="copy image", reason=spread.words)
        draft.to_copy += image.size * (1 if spread else len(find_lacking(site, observed, hosts, image)))
    for spec, host in wanted:
        key = draft.add(
            phase,
            _image_key(host, spec),
            PlaceImage(host, spec.image),
            host=host,
            action="verify image",
            reason=f"{spec.image.recipe} {spec.image.digest[:12]}",
        )
        draft.follow(key, f"{spec.image.name}/copies")


def _servers(draft: Draft, phase: Phase) -> None:
    for host, files in leftovers(draft.desired, draft.observed).items():
        draft.add(
            phase,
            f"{host}/leftovers/discard",
            Discard(host, files, draft.date),
            host=host,
            action="discard",
            reason=f"left by an interrupted run: {len(files)}",
        )
    quarantine(draft, phase)
    _vacate(draft, phase)
    previous: dict[str, str] = {}
    for spec, d in sorted(_selected(draft, phase), key=lambda s: _is_sick(s[1])):
        _supersede(draft, phase, d)
        if d.act is Act.CYCLE:
            draft.add(
                phase,
                f"{d.host}/{spec.name}/cycle",
                Cycle(d.host, draft.names(d)),
                needs=note_generation(draft, phase, d),
                host=d.host,
                server=spec.name,
                action="power-cycle",
                reason=d.reason,
            )
        elif d.act is Act.START:
            first = _alone(draft, phase, d)
            first += [_image_key(d.host, spec)] if _stands_on(draft, d, spec) else []
            first += clear_address(draft, phase, d, first)
            _start(draft, phase, spec, d, after=[*first, *note_generation(draft, phase, d, first)])
        elif d.act in MAKES:
            looked = [_look_again(draft, phase, spec, d, previous.get(spec.group))] if _is_sick(d) else []
            one_by_one = [previous[spec.group]] if spec.group in previous else []
            proven = [*looked, *one_by_one, _image_key(d.host, spec), *_alone(draft, phase, d)]
            cleared = clear_address(draft, phase, d, proven)
            _make(draft, phase, spec, d, after=[*looked, *one_by_one, *cleared])
            if (d.was_healthy or _is_sick(d) or cleared) and not draft.desired.options.from_scratch:
                gate = ready(draft, phase, spec, d)  # once one answers, all that are sick are looked at again at once
                previous[spec.group] = previous.get(spec.group, gate) if _is_sick(d) else gate


def _is_sick(d: Decision) -> bool:
    """It runs, does not answer as it should, and is to be made anew."""
    return d.act is Act.REBUILD and d.reason.startswith(UNHEALTHY)


def _look_again(draft: Draft, phase: Phase, spec: ServerSpec, d: Decision, previous: str | None) -> str:
    """The node after which it is surely sick, and another one of its kind answers where one can: it may be slow, and
    be the last that sells."""
    step = StillSick(spec.name, spec.address, liveness(draft.desired.site.group(spec.group).checks))
    needs = [previous] if previous else []
    key = draft.add(
        phase, f"{spec.name}/look", step, needs=needs, server=spec.name, action="look again", reason=d.reason
    )
    others = [draft.decisions[s.name] for s in draft.desired.members(spec.group) if s.name != spec.name]
    if previous is None and not any(o.answers for o in others):
        coming = [o for o in others if not _is_sick(o) and o.act in (Act.START, Act.BUILD, Act.REBUILD, Act.WAIT)]
        draft.need_one(key, [ready(draft, phase, draft.desired.server(o.server), o) for o in coming])
    return key


def _supersede(draft: Draft, phase: Phase, d: Decision) -> list[str]:
    """Hosts know that this copy counts; later ones that never held data become tombstones."""
    if d.act is Act.BLOCK or not (d.voids or d.puts_away):
        return []
    voids = note_void(draft, phase, d)
    if not d.puts_away:
        return voids
    generation = d.generation if d.old is None else d.old
    known = note_counts(draft, phase, d, generation)
    return voids + [
        draft.add(
            phase,
            f"{host}/{d.server}/retire",
            Retire(host, draft.names(d, empty), draft.date, "past"),
            needs=[known, *voids],
            host=host,
            server=d.server,
            action="retire",
            reason=f"generation {empty} never held data, and generation {generation} does",
        )
        for host, empty in d.puts_away
    ]


def _alone(draft: Draft, phase: Phase, d: Decision) -> list[str]:
    """The nodes after which no other copy of the server runs anywhere."""
    fences = [draft.fence(phase, host, judge(draft.desired, draft.observed, host).why) for host in d.fences]
    return [*fences, *draft.rivals.get(d.server, ()), *_supersede(draft, phase, d)]


def _proven(draft: Draft, phase: Phase) -> list[str]:
    """For servers that a person wants anew: the nodes after which all of them can be made, before any is put away."""
    options, carriers = draft.desired.options, carrier_names(draft.desired.site)
    if not options.from_scratch and options.until is None:
        return []
    making = [d for n, d in draft.decisions.items() if d.act in MAKES and (options.from_scratch or n in carriers)]
    hosts = sorted({h for d in making for h in d.fences})
    images = [_image_key(d.host, draft.desired.server(d.server)) for d in making]
    fences = [draft.fence(phase, h, judge(draft.desired, draft.observed, h).why) for h in hosts]
    return [*fences, *images, *_prove(draft, phase, [*fences, *images])]


def _prove(draft: Draft, phase: Phase, first: list[str]) -> list[str]:
    """The data that replace others are made once, and checked, while those serve; of the replica, if one answers."""
    options, database, dump = draft.desired.options, draft.desired.site.database, draft.desired.dump
    choice = find_choice(draft.desired, draft.observed)
    seen = {n: d for n, d in draft.observed.data.databases.items() if n in draft.decisions}
    if options.unproven or not any(d.restored for d in seen.values()):
        return []
    server = next((n for n, d in seen.items() if not d.writable), next(iter(seen)))
    if choice is not None:
        step: Step = Prove(server, database.name, choice)
    elif dump is not None:
        step = ProveDump(server, database.name, dump, database.restore_timeout_s)
    else:
        return []
    reason = "the data are made beside those that serve, and checked, before any server goes"
    host = draft.decisions[server].host
    return [
        draft.add(phase, f"{server}/prove", step, needs=first, host=host, server=server, action="prove", reason=reason)
    ]


def _retire(draft: Draft, phase: Phase, d: Decision, old: int, needs: Iterable[str]) -> str:
    return draft.add(
        phase,
        f"{d.host}/{d.server}/retire",
        Retire(d.host, draft.names(d, old), draft.date),
        needs=needs,
        host=d.host,
        server=d.server,
        action="retire",
        reason=d.reason,
    )


def _vacate(draft: Draft, phase: Phase) -> None:
    """Servers that are made anew and have another one's new address go first, whoever's turn it is."""
    desired, site = draft.desired, draft.desired.site.site
    made = [d for d in draft.decisions.values() if d.act in MAKES]
    wanted = {(a, d.server) for d in made for a in desired.server(d.server).addresses}
    for spec, d in _selected(draft, phase):
        if d.act is not Act.REBUILD or d.old is None:
            continue
        marks = [s.mark for h, s in draft.observed.copies(site, spec.name) if h.name == d.host and s.mark]
        has = {a for mark in marks for a in mark.addresses}
        if any(address in has and server != spec.name for address, server in wanted):
            first = [*_alone(draft, phase, d), *_proven(draft, phase), _image_key(d.host, spec)]
            _retire(draft, phase, d, d.old, first)


def _make(draft: Draft, phase: Phase, spec: ServerSpec, d: Decision, after: Iterable[str]) -> None:
    """The chain of a new server. `after` keeps servers that may sell from being replaced all at once."""
    stem = f"{d.host}/{spec.name}"
    first = [*_alone(draft, phase, d), *after, *_proven(draft, phase)]
    if d.old is not None and d.act is Act.BUILD:
        away = Retire(d.host, draft.names(d, d.old), draft.date, "past")
        first += [put_away(draft, phase, old, away, needs=first) for old in draft.old if is_on(old, d)]
    elif d.old is not None:
        first = [_retire(draft, phase, d, d.old, needs=[*first, _image_key(d.host, spec)]), *after]
    names = draft.names(d)
    disk = draft.add(
        phase,
        f"{stem}/disk",
        MakeDisk(d.host, spec, names),
        needs=[*first, _image_key(d.host, spec)],
        host=d.host,
        server=spec.name,
        action="disk",
        reason=d.reason,
    )
    seed = draft.add(
        phase,
        f"{stem}/seed",
        MakeSeed(d.host, spec, names),
        needs=first,
        host=d.host,
        server=spec.name,
        action="seed",
        reason=d.reason,
    )
    made = draft.add(
        phase,
        f"{stem}/define",
        Define(d.host, spec, names),
        needs=[disk, seed],
        host=d.host,
        server=spec.name,
        action="define",
        reason=d.reason,
    )
    noted = note_generation(draft, phase, d, [*first, _image_key(d.host, spec)])
    _start(draft, phase, spec, d, after=[made, *noted])


def _start(draft: Draft, phase: Phase, spec: ServerSpec, d: Decision, after: Iterable[str]) -> None:
    draft.add(
        phase,
        f"{d.host}/{spec.name}/start",
        Start(d.host, draft.names(d)),
        needs=after,
        host=d.host,
        server=spec.name,
        action="start",
        reason=d.reason,
    )


def _readies(draft: Draft, phase: Phase) -> None:
    for spec, d in _selected(draft, phase):
        if d.act not in STAYS:
            ready(draft, phase, spec, d)


def _journey(draft: Draft, phase: Phase) -> None:
    """The walk, where a shopper could get through; then whoever stood in for others may go."""
    journey = draft.desired.site.journey
    if all(_has_answer(draft, group) for group in draft.desired.site.groups):
        waits = draft.desired.site.database.semi_sync.alone == "wait"  # then nobody can order before a replica follows
        draft.add(
            phase,
            "journey",
            WalkJourney(journey),
            needs=[k for k in draft.nodes if waits and k.endswith("/semi-sync")],
            action="walk the journey",
            reason=f"{len(journey.steps)} steps of a shopper prove it",
        )
    _report_silent(draft, phase)
    for spec in draft.desired.substitutes:
        d = draft.decisions.get(spec.name)
        if d is not None and d.act is Act.RETIRE and "journey" in draft.nodes:
            draft.add(
                phase,
                f"{d.host}/{spec.name}/retire",
                Retire(d.host, draft.names(d), draft.date),
                needs=["journey", *(f"{s.name}/ready" for s in draft.desired.members(spec.group))],
                host=d.host,
                server=spec.name,
                action="retire",
                reason=d.reason,
            )
    note_again(draft, phase)
    inspect(draft, phase)
    put_away_all(draft, phase)
    tidy_up(draft, phase)
    rekeep(draft, phase)


def _report_silent(draft: Draft, phase: Phase) -> None:
    """A database that refuses the monitor, or has no room, holds up nobody; but the run does not end as if all were
    well."""
    data = draft.observed.data
    for name, verb in [*((n, "monitor") for n in data.refused), *((n, "disk") for n in data.full)]:
        d = draft.decisions[name]
        if d.act is Act.KEEP:
            stop = Stop(name, d.reason, d.next)
            draft.add(phase, f"{name}/{verb}", stop, server=name, action="blocked", reason=d.reason)


def _has_answer(draft: Draft, group: Group) -> bool:
    """Whether the group answers or is made to: not when its servers are missing and nobody asked for them.

    One that a person must see to counts: the walk is then skipped for its sake, and the run says so.
    """
    decided = [draft.decisions[s.name] for s in draft.desired.members(group.name)]
    return any(d.will_answer or d.act is Act.BLOCK for d in decided)


def _run(draft: Draft, phase: Phase) -> None:
    run = phase.run
    if run is None:
        raise BadInput("a run phase says what to run", where=f"phase {phase.name}")
    step = RunCommand(run.argv, run.host, run.server, run.deadline_s, run.exit_code, run.check)
    draft.add(
        phase, f"{phase.name}/run", step, host=run.host, server=run.server, action="run", reason=" ".join(run.argv)
    )


def _ask(draft: Draft, phase: Phase) -> None:
    question = phase.ask or ""
    draft.add(phase, f"{phase.name}/ask", Ask(question), action="ask", reason=question)


PHASES: Mapping[str, Callable[[Draft, Phase], None]] = {
    "images": _images,
    "servers": _servers,
    "ready": _readies,
    "restore": restore,
    "index": index,
    "replicate": replicate,
    "journey": _journey,
    "run": _run,
    "ask": _ask,
}
