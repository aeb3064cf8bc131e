"""`plan(desired, observed)`: a pure function, and the heart of pcloud.

Rebuild, repair and resume are this function with different inputs. The result is a graph of
steps; the edges come from the steps themselves (a disk needs its image) and from the
playbook's phases. Where one of several servers is enough for a shopper, a need says so:
`Need.enough` of its keys must succeed, and all of them must have ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from pcloud.decide import MAKES, Act, Decision, decide, leftovers
from pcloud.desired import Desired, Names, ServerSpec, liveness
from pcloud.distribute import find_lacking, find_spread
from pcloud.errors import BadInput, Blocked
from pcloud.events import StepInfo
from pcloud.observed import Observed
from pcloud.playbook import Phase
from pcloud.steps.base import Step
from pcloud.steps.database import BuildIndex, Restore
from pcloud.steps.gate import Ask, Ready, RunCommand, WalkJourney
from pcloud.steps.image import PlaceImage
from pcloud.steps.server import Cycle, Define, Discard, MakeDisk, MakeSeed, Retire, Start
from pcloud.steps.stop import Stop


@dataclass(frozen=True)
class Need:
    """Steps that must have ended before another one, `enough` of them well."""

    keys: frozenset[str]
    enough: int

    @classmethod
    def all_of(cls, *keys: str) -> Need:
        return cls(frozenset(keys), len(keys))


@dataclass(frozen=True)
class PlanNode:
    """One step of the plan. `info.needs` is every key of `needs`, sorted."""

    info: StepInfo
    step: Step
    needs: frozenset[Need] = frozenset()

    @property
    def key(self) -> str:
        return self.info.key


@dataclass(frozen=True)
class Plan:
    """What will be done, in an order that can be; and what is left as it is, and why."""

    site: str
    operation: str
    phases: tuple[str, ...]
    nodes: tuple[PlanNode, ...]
    kept: Mapping[str, str]
    desired_digest: str
    observed_digest: str
    to_copy: int = 0
    """Bytes of images that have to travel, as far as the hosts' lists of files tell; a chain of hosts counts once."""

    @property
    def changes(self) -> tuple[PlanNode, ...]:
        """The nodes that would change something; gates only look."""
        return tuple(n for n in self.nodes if not n.step.waits or isinstance(n.step, RunCommand | Cycle))

    @property
    def blocked(self) -> tuple[PlanNode, ...]:
        return tuple(n for n in self.nodes if isinstance(n.step, Stop))

    @property
    def digest(self) -> str:
        return f"{self.desired_digest}.{self.observed_digest}"

    def to_json(self) -> str:
        """For a file that a person reviews; holds no secret. See `check_same`."""
        data = {
            "site": self.site,
            "operation": self.operation,
            "digest": self.digest,
            "kept": dict(self.kept),
            "steps": [asdict(n.info) for n in self.nodes],
        }
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def check_same(saved: str, now: Plan, name: str) -> None:
    """Refuses a saved plan when what it was made from has changed."""
    try:
        data = json.loads(saved)
        digest, keys = data["digest"], [s["key"] for s in data["steps"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput("this is not a plan file", where=name, next=f"pcloud plan {now.site} --out {name}") from error
    if digest != now.digest or keys != [n.key for n in now.nodes]:
        raise Blocked(
            "the site or its inventory is not as it was when this plan was made",
            where=name,
            next=f"pcloud plan {now.site} --out {name}, and read it again",
        )


@dataclass
class _Draft:
    """The graph while it is being made."""

    desired: Desired
    observed: Observed
    decisions: Mapping[str, Decision]
    date: str
    nodes: dict[str, PlanNode] = field(default_factory=dict)
    ends: dict[str, frozenset[Need]] = field(default_factory=dict)
    to_copy: int = 0

    def add(
        self,
        phase: Phase,
        key: str,
        step: Step,
        *,
        needs: Iterable[str] = (),
        action: str,
        reason: str = "",
        host: str | None = None,
        server: str | None = None,
    ) -> str:
        """Adds a node unless another phase already has; needs that do not exist are dropped."""
        if key not in self.nodes:
            real = sorted({n for n in needs if n in self.nodes})
            info = StepInfo(key, phase.name, tuple(real), host, server, action, reason)
            self.nodes[key] = PlanNode(info, step, frozenset(Need.all_of(n) for n in real))
        return key

    def follow(self, key: str, other: str) -> None:
        """Ties a node to the end of another one, however that ends; to nothing when there is no such node."""
        node, need = self.nodes[key], Need(frozenset({other}), 0)
        if other in self.nodes and need not in node.needs:
            needs = tuple(sorted({*node.info.needs, other}))
            self.nodes[key] = PlanNode(replace(node.info, needs=needs), node.step, node.needs | {need})

    def does(self, key: str) -> str:
        """The kind of phase that the node is in."""
        return next(p.does for p in self.desired.playbook.phases if p.name == self.nodes[key].info.phase)

    def names(self, d: Decision, generation: int | None = None) -> Names:
        return Names(self.desired.site.site, d.server, d.generation if generation is None else generation)


def plan(desired: Desired, observed: Observed, date: str) -> Plan:
    """`date` (as in `20121116-2140`) names the tombstones this plan makes.

    Raises `BadInput` when the playbook's phases and the steps' own edges make a circle.
    """
    draft = _Draft(desired, observed, decide(desired, observed), date)
    for phase in desired.playbook.phases:
        before = set(draft.nodes)
        _PHASES[phase.does](draft, phase)
        _join(draft, phase, [k for k in draft.nodes if k not in before])
    nodes = _sorted(draft)
    kept = {n: d.reason for n, d in draft.decisions.items() if d.act is Act.KEEP}
    phases = tuple(p.name for p in desired.playbook.phases)
    digests = desired.digest(), observed.digest()
    return Plan(desired.site.site, desired.playbook.playbook, phases, nodes, kept, *digests, draft.to_copy)


def _join(draft: _Draft, phase: Phase, keys: list[str]) -> None:
    """Ties a phase's nodes to the ends of the phases it needs, and notes its own ends.

    A gate on a server follows its own server's chain (`fe-1/ready` after `h1/fe-1/start`),
    not every other server's: so one that fails to start holds up nobody else. What a person
    or a command of the site's has to say first holds up every gate.
    """
    wanted = frozenset(need for name in phase.needs for need in draft.ends[name])
    from_kinds = {need: {draft.does(k) for k in need.keys} for need in wanted}
    tied = {kinds: frozenset(n for n in wanted if from_kinds[n] & kinds) for kinds in {_ALL, *_LOOSE.values()}}
    for key in keys:
        node = draft.nodes[key]
        needs = node.needs | tied[_LOOSE.get(type(node.step), _ALL)]
        every = tuple(sorted({k for need in needs for k in need.keys}))
        draft.nodes[key] = PlanNode(replace(node.info, needs=every), node.step, needs)
    inner = {n for k in keys for n in draft.nodes[k].info.needs}
    ends = [k for k in keys if k not in inner]
    draft.ends[phase.name] = _ends(draft, ends) if ends else wanted


_ALL = frozenset({"images", "servers", "ready", "restore", "index", "journey", "run", "ask"})
_LOOSE: dict[type, frozenset[str]] = {
    Ready: frozenset({"run", "ask"}),
    Stop: frozenset({"run", "ask"}),
    Restore: _ALL - {"servers"},
    BuildIndex: _ALL - {"servers"},
}
"""Which kinds of phases hold up a step that has a chain of its own; all others are held up by all."""


def _ends(draft: _Draft, keys: list[str]) -> frozenset[Need]:
    """The needs of whoever comes next: of servers alike, one that works is enough."""
    by_group: dict[str, set[str]] = {}
    needs: set[Need] = set()
    for key in keys:
        node = draft.nodes[key]
        server = node.info.server
        group = draft.desired.server(server).group if server in draft.decisions and server is not None else None
        if group is not None and len(draft.desired.members(group)) > 1 and isinstance(node.step, Ready | Stop):
            by_group.setdefault(group, set()).add(key)
        else:
            needs.add(Need.all_of(key))
    needs |= {Need(frozenset(alike), 0 if _has_other(draft, group) else 1) for group, alike in by_group.items()}
    return frozenset(needs)


def _has_other(draft: _Draft, group: str) -> bool:
    """Whether a healthy server of the group is kept: then no other one has to come up."""
    return any(draft.decisions[s.name].act is Act.KEEP for s in draft.desired.members(group))


def _sorted(draft: _Draft) -> tuple[PlanNode, ...]:
    """A runnable order: the playbook's phases first, then keys, as far as the edges allow."""
    rank = {p.name: i for i, p in enumerate(draft.desired.playbook.phases)}
    sorter: TopologicalSorter[str] = TopologicalSorter({k: n.info.needs for k, n in draft.nodes.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise BadInput(
            f"the phases cannot be in this order: {circle}",
            where=f"playbook {draft.desired.playbook.playbook}",
            next="move the phase that closes the circle",
        ) from error
    ordered: list[PlanNode] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda k: (rank[draft.nodes[k].info.phase], k))
        ordered += [draft.nodes[k] for k in ready]
        sorter.done(*ready)
    return tuple(ordered)


# -- the phases


def _selected(draft: _Draft, phase: Phase) -> list[tuple[ServerSpec, Decision]]:
    groups = phase.groups_of(draft.desired.site)
    return [(s, draft.decisions[s.name]) for g in groups for s in draft.desired.members(g.name)]


def _image_key(host: str, spec: ServerSpec) -> str:
    return f"{host}/image/{spec.image.name}"


def _images(draft: _Draft, phase: Phase) -> None:
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


def _servers(draft: _Draft, phase: Phase) -> None:
    for host, files in leftovers(draft.desired, draft.observed).items():
        draft.add(
            phase,
            f"{host}/leftovers/discard",
            Discard(host, files, draft.date),
            host=host,
            action="discard",
            reason=f"left by an interrupted run: {len(files)}",
        )
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
            _start(draft, phase, spec, d, after=[_image_key(d.host, spec)])
        elif d.act in MAKES:
            _make(draft, phase, spec, d, after=previous.get(spec.group))
            if d.was_healthy and not draft.desired.options.from_scratch:
                previous[spec.group] = _ready(draft, phase, spec, d)


def _make(draft: _Draft, phase: Phase, spec: ServerSpec, d: Decision, after: str | None) -> None:
    """The chain of a new server. `after` keeps healthy servers from being replaced all at once."""
    stem = f"{d.host}/{spec.name}"
    first = [after] if after else []
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
    _start(draft, phase, spec, d, after=[made])


def _start(draft: _Draft, phase: Phase, spec: ServerSpec, d: Decision, after: Iterable[str]) -> None:
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


def _ready(draft: _Draft, phase: Phase, spec: ServerSpec, d: Decision) -> str:
    """The gate of one server; an indexer is up when it listens, its index comes later."""
    if d.act is Act.BLOCK:
        return draft.add(
            phase,
            f"{spec.name}/blocked",
            Stop(spec.name, d.reason, d.next),
            server=spec.name,
            action="blocked",
            reason=d.reason,
        )
    group = draft.desired.site.group(spec.group)
    checks = liveness(group.checks)
    before = [f"{d.host}/{spec.name}/start", f"{d.host}/{spec.name}/cycle"]
    step = Ready(spec.name, d.host, spec.address, draft.names(d), checks, group.boot_timeout_s)
    why = d.reason if d.act is Act.WAIT else ""  # all others have said it where they were started
    return draft.add(
        phase, f"{spec.name}/ready", step, needs=before, host=d.host, server=spec.name, action="ready", reason=why
    )


def _readies(draft: _Draft, phase: Phase) -> None:
    for spec, d in _selected(draft, phase):
        if d.act is not Act.KEEP:
            _ready(draft, phase, spec, d)


def _restore(draft: _Draft, phase: Phase) -> None:
    database = draft.desired.site.database
    for spec in draft.desired.members(database.group)[:1]:
        d = draft.decisions[spec.name]
        if d.act is Act.KEEP and draft.observed.data.restored:
            continue
        needs = [_ready(draft, phase, spec, d)] if d.act is not Act.KEEP else []
        if d.act is Act.BLOCK:
            continue
        token = _token(draft, d)
        step = Restore(
            spec.name,
            database.name,
            draft.desired.dump,
            draft.desired.dump_problem,
            token,
            draft.desired.options.empty_database,
            database.restore_timeout_s,
        )
        draft.add(
            phase,
            f"{spec.name}/restore",
            step,
            needs=needs,
            host=d.host,
            server=spec.name,
            action="restore",
            reason="the latest dump, where the database is empty",
        )


def _token(draft: _Draft, d: Decision) -> str:
    """Names one restored state of the data: which dump, into which generation of the server."""
    dump = draft.desired.dump
    return f"{draft.desired.site.site}.{dump.sha256[:16] if dump else 'empty'}.g{d.generation}"


def _index(draft: _Draft, phase: Phase) -> None:
    site = draft.desired.site
    source = draft.desired.members(site.database.group)[0]
    anew = draft.decisions[source.name]
    fresh = f"{source.name}/restore" in draft.nodes
    for spec in draft.desired.members(site.search.group):
        d = draft.decisions[spec.name]
        if d.act is Act.KEEP and draft.observed.data.indexed and not fresh:
            continue
        needs = [_ready(draft, phase, spec, d)] if d.act is not Act.KEEP else []
        if d.act is Act.BLOCK:
            continue
        checks = tuple(c for c in site.group(spec.group).checks if c.search)
        token = _token(draft, anew) if fresh else ""
        step = BuildIndex(spec.name, spec.address, site.search.argv, checks, token, site.search.index_timeout_s)
        draft.add(
            phase,
            f"{spec.name}/index",
            step,
            needs=[*needs, f"{source.name}/restore"],
            host=d.host,
            server=spec.name,
            action="index",
            reason="searches find what the database holds",
        )


def _journey(draft: _Draft, phase: Phase) -> None:
    journey = draft.desired.site.journey
    draft.add(
        phase,
        "journey",
        WalkJourney(journey),
        action="walk the journey",
        reason=f"{len(journey.steps)} steps of a shopper prove it",
    )


def _run(draft: _Draft, phase: Phase) -> None:
    run = phase.run
    if run is None:
        raise BadInput("a run phase says what to run", where=f"phase {phase.name}")
    step = RunCommand(run.argv, run.host, run.server, run.deadline_s, run.exit_code, run.check)
    draft.add(
        phase, f"{phase.name}/run", step, host=run.host, server=run.server, action="run", reason=" ".join(run.argv)
    )


def _ask(draft: _Draft, phase: Phase) -> None:
    question = phase.ask or ""
    draft.add(phase, f"{phase.name}/ask", Ask(question), action="ask", reason=question)


_PHASES = {
    "images": _images,
    "servers": _servers,
    "ready": _readies,
    "restore": _restore,
    "index": _index,
    "journey": _journey,
    "run": _run,
    "ask": _ask,
}
