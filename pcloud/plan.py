"""`plan(desired, observed)`: a pure function, and the heart of pcloud.

Rebuild, repair and resume are this function with different inputs. The result is a graph of
steps; the edges come from the steps themselves (a disk needs its image) and from the
playbook's phases. Where one of several servers is enough for a shopper, a need says so:
`Need.enough` of its keys must succeed, and all of them must have ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pcloud.decide import Act, decide, find_quarantined
from pcloud.desired import Desired
from pcloud.errors import BadInput, Blocked
from pcloud.events import StepInfo
from pcloud.graph import Draft, Need, PlanNode
from pcloud.loss import DataLoss
from pcloud.observed import Observed
from pcloud.obstacles import find_obstacles
from pcloud.phases import PHASES
from pcloud.playbook import Phase
from pcloud.spread import find_crowded
from pcloud.steps.copying import Seed
from pcloud.steps.database import Restore
from pcloud.steps.gate import AwaitSale, Ready, RunCommand
from pcloud.steps.index import BuildIndex
from pcloud.steps.noting import NoteFilled, NoteGeneration, NotePast
from pcloud.steps.promotion import Promote
from pcloud.steps.replication import Follow, SemiSync, Take
from pcloud.steps.server import Cycle, Retire
from pcloud.steps.sighting import NoteWaits
from pcloud.steps.stop import Stop
from pcloud.steps.stream import TakeStream
from pcloud.unplanned import say_unplanned


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
    advice: tuple[str, ...] = ()
    """What a person may do next, and what is in no plan and stays, a sentence each, however the run ends."""
    lost: tuple[str, ...] = ()
    """Hosts that were left out for the question's sake (`whatif.as_lost`): such a plan is looked at, and never run."""

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

    @property
    def losses(self) -> dict[str, DataLoss]:
        """What each promotion gives up, by the server that is promoted."""
        promotions = [n.step for n in self.nodes if isinstance(n.step, Promote)]
        return {p.server: p.basis.said for p in promotions if p.basis is not None}

    def to_json(self) -> str:
        """For a file that a person reviews; holds no secret. See `check_same`."""
        return json.dumps(self._data(), indent=2, ensure_ascii=False) + "\n"

    def _data(self) -> dict[str, Any]:
        return {
            "site": self.site,
            "operation": self.operation,
            "digest": self.digest,
            **({"as_if_lost": self.lost} if self.lost else {}),
            "kept": dict(self.kept),
            **({"advice": self.advice} if self.advice else {}),
            **({"losses": {s: asdict(loss) for s, loss in self.losses.items()}} if self.losses else {}),
            "steps": [asdict(n.info) for n in self.nodes],
        }


def check_same(saved: str, now: Plan, name: str) -> None:
    """Refuses a saved plan when what it was made from has changed, or when the file says something else than it does.

    Reasons are not compared: they hold times. Whoever runs the plan is shown those of `now`.
    """
    again = f"pcloud plan {now.site} --out {name}"
    try:
        data = json.loads(saved)
        digest, there = data["digest"], _compared(data)
        losses = {server: _read_loss(loss) for server, loss in data.get("losses", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise BadInput("this is not a plan file", where=name, next=again) from error
    here = _compared(json.loads(now.to_json()))
    if digest != now.digest or there.keys() != here.keys():
        what = "the site or its inventory is not as it was when this plan was made"
    elif wrong := [key for key in here if there[key] != here[key]]:
        what = f"the file does not say what the plan does ({', '.join(wrong[:3])}): it was changed after it was made"
    elif grown := [s for s, loss in now.losses.items() if s not in losses or not _covers(losses[s], loss)]:
        what = f"more would be lost than when this plan was made: {now.losses[grown[0]]}"
    else:
        return
    raise Blocked(what, where=name, next=f"{again}, and read it again")


def _compared(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan's file says, by name, but for the reasons."""
    steps = {s["key"]: {k: v for k, v in s.items() if k != "reason"} for s in data["steps"]}
    return {"site": data["site"], "operation": data["operation"], "kept": sorted(data["kept"]), **steps}


def _read_loss(data: Mapping[str, Any]) -> DataLoss:
    counted = data["transactions"]
    return DataLoss(None if counted is None else int(counted), least=int(data["least"]))


def _covers(shown: DataLoss, now: DataLoss) -> bool:
    """Whether a person to whom `shown` was shown has been shown all of `now`."""
    return now.accepted(shown.price) and (now.transactions is not None or now.least <= shown.least)


def plan(desired: Desired, observed: Observed, date: str) -> Plan:
    """`date` (as in `20121116-2140`) names the tombstones this plan makes.

    Raises `BadInput` when the playbook's phases and the steps' own edges make a circle.
    """
    observed = observed.lose(desired.options.lost)
    draft = Draft(desired, observed, decide(desired, observed), find_quarantined(desired, observed), date)
    for phase in desired.playbook.phases:
        before = set(draft.nodes)
        PHASES[phase.does](draft, phase)
        _join(draft, phase, [k for k in draft.nodes if k not in before])
    if stops := find_obstacles(draft):
        return _stopped(draft, stops)
    nodes = _sorted(draft)
    kept = {n: d.reason for n, d in draft.decisions.items() if d.act in (Act.KEEP, Act.LEAVE)}
    phases = tuple(p.name for p in desired.playbook.phases)
    going = {(n.step.host, n.step.names.server) for n in nodes if isinstance(n.step, Retire)}
    advice = (*find_crowded(desired, observed, draft.decisions), *say_unplanned(draft.unplanned, going))
    digests, options = (desired.digest(), observed.digest()), desired.options
    if (options.rebuild or options.from_scratch or options.until is not None) and retires(nodes):
        advice += (way_back(desired.site.site),)
    return Plan(desired.site.site, desired.playbook.playbook, phases, nodes, kept, *digests, draft.to_copy, advice)


def retires(nodes: Iterable[PlanNode]) -> bool:
    """Whether a server is put away that `undo` brings back."""
    return any(n.info.action == "retire" for n in nodes)


def way_back(site: str) -> str:
    """What a person may do who did not mean it."""
    return f"What was put away comes back with: pcloud undo {site}, until pcloud purge"


def _stopped(draft: Draft, stops: tuple[Stop, ...]) -> Plan:
    """A plan that only says what a person has to see to."""
    desired, phase = draft.desired, draft.desired.playbook.phases[0].name
    infos = (StepInfo(f"{s.where}/blocked", phase, (), None, s.where, "blocked", s.what) for s in stops)
    nodes = tuple(PlanNode(info, stop) for info, stop in zip(infos, stops, strict=True))
    kept = dict.fromkeys((n for n, d in draft.decisions.items() if d.host), "nothing is touched")
    phases = tuple(p.name for p in desired.playbook.phases)
    digests = desired.digest(), draft.observed.digest()
    return Plan(desired.site.site, desired.playbook.playbook, phases, nodes, kept, *digests)


def _join(draft: Draft, phase: Phase, keys: list[str]) -> None:
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
        draft.nodes[key] = replace(node, info=replace(node.info, needs=every), needs=needs)
    inner = {n for k in keys for n in draft.nodes[k].info.needs}
    ends = [k for k in keys if k not in inner]
    draft.ends[phase.name] = _ends(draft, ends) if ends else wanted


_ALL = frozenset({"images", "servers", "ready", "restore", "index", "replicate", "journey", "run", "ask"})
_OWN = frozenset({"run", "ask"})
_LOOSE: dict[type, frozenset[str]] = dict.fromkeys(
    (
        Ready,
        Stop,
        BuildIndex,
        NoteFilled,
        NoteGeneration,
        NotePast,
        NoteWaits,
        Take,
        TakeStream,
        Promote,
        AwaitSale,
        Seed,
        Follow,
        SemiSync,
    ),
    _OWN,
) | {Restore: _ALL - {"servers"}}
"""Which kinds of phases hold up a step that has a chain of its own; all others are held up by all."""


def _ends(draft: Draft, keys: list[str]) -> frozenset[Need]:
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


def _has_other(draft: Draft, group: str) -> bool:
    """Whether a healthy server of the group is kept: then no other one has to come up."""
    return any(d.answers for n, d in draft.decisions.items() if draft.desired.server(n).group == group)


def _sorted(draft: Draft) -> tuple[PlanNode, ...]:
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
