"""What each kind of phase adds to the graph, from the decisions and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pcloud.dataphases import index, ready, replicate, restore
from pcloud.decide import MAKES, STAYS, Act, Decision, leftovers
from pcloud.desired import ServerSpec
from pcloud.distribute import find_lacking, find_spread
from pcloud.errors import BadInput
from pcloud.generations import note_holders
from pcloud.graph import Draft
from pcloud.identity import carrier_names
from pcloud.model import Group
from pcloud.playbook import Phase
from pcloud.steps.gate import Ask, RunCommand, WalkJourney
from pcloud.steps.image import PlaceImage
from pcloud.steps.quarantine import NoteGeneration, Quarantine
from pcloud.steps.salvage import Inspect
from pcloud.steps.server import Cycle, Define, Discard, MakeDisk, MakeSeed, Retire, Start
from pcloud.suspicion import judge


def _selected(draft: Draft, phase: Phase) -> list[tuple[ServerSpec, Decision]]:
    """The servers of the phase's groups with what they need, those that stand in for one included."""
    groups = [g.name for g in phase.groups_of(draft.desired.site)]
    servers = [s for name in groups for s in draft.desired.members(name)]
    servers += [s for s in draft.desired.substitutes if s.group in groups and s.name in draft.decisions]
    return [(s, draft.decisions[s.name]) for s in servers]


def _image_key(host: str, spec: ServerSpec) -> str:
    return f"{host}/image/{spec.image.name}"


def _images(draft: Draft, phase: Phase) -> None:
    wanted = [(s, d.host) for s, d in _selected(draft, phase) if d.act in MAKES | {Act.START}]
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
    _quarantine(draft, phase)
    previous: dict[str, str] = {}
    for spec, d in _selected(draft, phase):
        if d.act is Act.CYCLE:
            draft.add(
                phase,
                f"{d.host}/{spec.name}/cycle",
                Cycle(d.host, draft.names(d)),
                host=d.host,
                server=spec.name,
                action="power-cycle",
                reason=d.reason,
            )
        elif d.act is Act.START:
            _start(draft, phase, spec, d, after=[_image_key(d.host, spec), *_alone(draft, phase, d)])
        elif d.act in MAKES:
            _make(draft, phase, spec, d, after=previous.get(spec.group))
            if d.was_healthy and not draft.desired.options.from_scratch:
                previous[spec.group] = ready(draft, phase, spec, d)


def _quarantine(draft: Draft, phase: Phase) -> None:
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
                reason=f"it is generation {old.generation}, the newest is {old.newest}; its disk stays",
            )


def _alone(draft: Draft, phase: Phase, d: Decision) -> list[str]:
    """The nodes after which no older copy of the server runs anywhere."""
    fences = [draft.fence(phase, host, judge(draft.desired, draft.observed, host).why) for host in d.fences]
    return [*fences, *draft.rivals.get(d.server, ())]


def _make(draft: Draft, phase: Phase, spec: ServerSpec, d: Decision, after: str | None) -> None:
    """The chain of a new server. `after` keeps healthy servers from being replaced all at once."""
    stem = f"{d.host}/{spec.name}"
    first = [*_alone(draft, phase, d), *([after] if after else [])]
    if d.old is not None:
        first = [
            draft.add(
                phase,
                f"{stem}/retire",
                Retire(d.host, draft.names(d, d.old), draft.date),
                needs=[*first, _image_key(d.host, spec)],
                host=d.host,
                server=spec.name,
                action="retire",
                reason=d.reason,
            )
        ]
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
    holders = note_holders(draft.observed, d.host)
    if holders:
        noted = draft.add(
            phase,
            f"{spec.name}/note",
            NoteGeneration(holders, names),
            needs=first,
            server=spec.name,
            action="note",
            reason=f"{' and '.join(holders)} remember that generation {d.generation} is the newest",
        )
    _start(draft, phase, spec, d, after=[made, *([noted] if holders else [])])


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
        draft.add(
            phase,
            "journey",
            WalkJourney(journey),
            action="walk the journey",
            reason=f"{len(journey.steps)} steps of a shopper prove it",
        )
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
    _inspect(draft, phase)


def _inspect(draft: Draft, phase: Phase) -> None:
    """What dead copies of the data hold is read once, after the walk: no shopper waits for it."""
    carriers = carrier_names(draft.desired.site)
    for old in draft.old:
        host = draft.observed.host(old.host)
        files = host.volumes if host is not None else ()
        if (
            old.server not in carriers
            or old.names.disk not in files
            or any(old.names.inspected(f) is not None for f in files)
        ):
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
