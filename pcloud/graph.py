"""The graph of steps while it is being made: nodes, and what each needs to have ended before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pcloud.decision import Act, Decision
from pcloud.desired import Desired, Names
from pcloud.events import StepInfo
from pcloud.generations import Quarantined
from pcloud.notes import Keepers
from pcloud.observed import Observed
from pcloud.playbook import Phase
from pcloud.steps.base import Step
from pcloud.steps.fence import Fence
from pcloud.steps.server import Leave
from pcloud.tombstones import find_graves
from pcloud.unplanned import Unplanned, find_unplanned


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
    aside: bool = False
    """Tidying up: nothing waits for it, and its failure is told without being the run's."""

    @property
    def key(self) -> str:
        return self.info.key


@dataclass
class Draft:
    """The graph while it is being made."""

    desired: Desired
    observed: Observed
    decisions: Mapping[str, Decision]
    old: tuple[Quarantined, ...]
    """Copies that came back after others had taken their place."""
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
        aside: bool = False,
    ) -> str:
        """Adds a node unless another phase already has; needs that do not exist are dropped."""
        if key not in self.nodes:
            real = sorted({n for n in needs if n in self.nodes})
            info = StepInfo(key, phase.name, tuple(real), host, server, action, reason)
            self.nodes[key] = PlanNode(info, step, frozenset(Need.all_of(n) for n in real), aside)
        return key

    def fence(self, phase: Phase, host: str, reason: str = "") -> str:
        """The node after which nothing of the site's runs on a host. Whatever must not run twice needs its key.

        Who answers, and is left, says itself that its servers are off.
        """
        seen, site = self.observed.host(host), self.desired.site.site
        if seen is not None and seen.left:
            return self.add(phase, f"{host}/leave", Leave(host, site), host=host, action="leave", reason=reason)
        return self.add(phase, f"{host}/fence", Fence(host), host=host, action="fence", reason=reason)

    @cached_property
    def rivals(self) -> Mapping[str, tuple[str, ...]]:
        """Server to the nodes that power its older copies off."""
        found: dict[str, tuple[str, ...]] = {}
        for old in self.old:
            if old.runs:
                found[old.server] = (*found.get(old.server, ()), f"{old.host}/{old.server}/quarantine")
        return found

    @cached_property
    def unplanned(self) -> tuple[Unplanned, ...]:
        return find_unplanned(self.desired, self.observed, {(q.host, q.server) for q in self.old})

    @cached_property
    def at_address(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        """Address to the copies, each a host and a server, that were made with it."""
        found: dict[str, set[tuple[str, str]]] = {}
        marks = ((h.name, s.mark) for h in self.observed.hosts for s in h.servers if s.mark is not None)
        for host, mark in ((h, m) for h, m in marks if m.site == self.desired.site.site):
            for address in mark.addresses:
                found.setdefault(address, set()).add((host, mark.server))
        return {address: frozenset(copies) for address, copies in found.items()}

    @cached_property
    def keepers(self) -> Keepers:
        return Keepers.of(self.desired.site, self.observed)

    def follow(self, key: str, other: str) -> None:
        """Ties a node to the end of another one, however that ends; to nothing when there is no such node."""
        node, need = self.nodes[key], Need(frozenset({other}), 0)
        if other in self.nodes and need not in node.needs:
            needs = tuple(sorted({*node.info.needs, other}))
            self.nodes[key] = replace(node, info=replace(node.info, needs=needs), needs=node.needs | {need})

    def need_one(self, key: str, others: Iterable[str]) -> None:
        """Ties a node to the end of all these, one of which must have ended well; to nothing where there are none."""
        keys = frozenset(others)
        if keys:
            node = self.nodes[key]
            needs = tuple(sorted({*node.info.needs, *keys}))
            self.nodes[key] = replace(node, info=replace(node.info, needs=needs), needs=node.needs | {Need(keys, 1)})

    def can_undo(self, servers: Iterable[str]) -> bool:
        """Whether one of these servers was put away, or is in this run, and `undo` brings it back."""
        names = set(servers)
        going = any(self.decisions[n].act is Act.REBUILD for n in names)
        return going or any(g.names.server in names for g in find_graves(self.desired.site.site, self.observed))

    def does(self, key: str) -> str:
        """The kind of phase that the node is in."""
        return next(p.does for p in self.desired.playbook.phases if p.name == self.nodes[key].info.phase)

    def names(self, d: Decision, generation: int | None = None) -> Names:
        return Names(self.desired.site.site, d.server, d.generation if generation is None else generation)
