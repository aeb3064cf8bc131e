"""Where a history's servers are, and the copies that promotions left behind: they come back, and must neither run nor
be forgotten.

The hosts are those of the demo site; what becomes of a copy is decided by pcloud's plan, and what its disk holds is
compared as a reading of the real one would be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pcloud.desired import Names
from pcloud.generations import read_generations
from pcloud.identity import carrier_names
from pcloud.inspections import holds_all
from pcloud.model import Site
from pcloud.observed import HostPower, Observed, Power, SeenHost, SeenServer
from pcloud.plan import Plan
from pcloud.salvage import Finding, Reading, find_copies, find_findings, note_name
from pcloud.steps.noting import NoteFilled, NoteGeneration, NotePast, NoteVoid
from pcloud.steps.quarantine import PutAway, Quarantine
from pcloud.steps.salvage import Inspect
from pcloud.steps.server import Cycle, Define, MakeDisk, Retire, Start

if TYPE_CHECKING:
    from tests.histories import Copy

NOTES = (NoteGeneration, NoteFilled, NotePast, NoteVoid)
OFF = {"power": HostPower.OFF, "proof": "redfish, read twice"}


@dataclass
class Left:
    """The disk of a primary that another server took over from; its host has no power until it is `back`."""

    copy: Copy
    host: str
    names: Names
    back: bool = False
    runs: bool = False


@dataclass
class Places:
    site: Site
    whole: Observed
    at: dict[str, tuple[str, int]] = field(default_factory=lambda: {"db-1": ("h1", 1), "idx-1": ("h4", 1)})
    """A data server's host and generation, while it has one."""
    files: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """What was written to hosts since all was well."""
    left: list[Left] = field(default_factory=list)
    readings: dict[tuple[str, str], str] = field(default_factory=dict)
    """Host and note to what was read of a disk."""

    def host(self, server: str) -> str:
        return self.at[server][0]

    @property
    def off(self) -> set[str]:
        return {left.host for left in self.left if not left.back}

    @property
    def back(self) -> list[Left]:
        return [left for left in self.left if left.back]

    def running(self, server: str) -> int:
        return (server in self.at) + sum(left.runs and left.copy.name == server for left in self.left)

    # -- what is seen

    def hosts(self) -> Iterator[SeenHost]:
        """Those without power have nothing to show."""
        for host in self.whole.hosts:
            if host.name in self.off:
                yield SeenHost(host.name, "no answer", silent=True, **OFF)  # type: ignore[arg-type]
                continue
            here = [(Names(self.site.site, n, g), Power.RUNNING) for n, (h, g) in self.at.items() if h == host.name]
            old = [left for left in self.back if left.host == host.name]
            here += [(left.names, Power.RUNNING if left.runs else Power.OFF) for left in old]
            others = [s for s in host.servers if s.mark is not None and s.mark.server not in CARRIERS]
            files = {v for v in host.volumes if not _is_own(v)} | self.files[host.name]
            files |= {f for names, _ in here for f in (names.disk, names.seed, names.console)}
            servers = (*others, *(self._server(names, power) for names, power in here))
            yield replace(host, servers=servers, volumes=tuple(sorted(files)))

    def _server(self, names: Names, power: Power) -> SeenServer:
        seen = next(s for h in self.whole.hosts for s in h.servers if s.mark and s.mark.server == names.server)
        assert seen.mark is not None
        return replace(seen, power=power, mark=replace(seen.mark, generation=names.generation))

    # -- what a plan does

    def learn(self, made: Plan, before: str = "") -> None:
        """Hosts are told what the plan tells them; only what comes before the node `before`, where pcloud is killed"""
        known = _before(made, before) if before else {n.key for n in made.nodes}
        for step in (n.step for n in made.nodes if n.key in known and isinstance(n.step, NOTES)):
            for host in step.hosts:
                self.files[host].add(_file(self.site, step))

    def leave(self, copy: Copy) -> None:
        """Its disk stays where it is. More than two hosts are not left without power."""
        host, generation = self.at.pop(copy.name)
        self.left.append(Left(copy, host, Names(self.site.site, copy.name, generation)))
        for left in self.left:
            if left.host == host:
                left.back = left.runs = False
        for off in [one.host for one in self.left if not one.back and one.host != host][:-1]:
            self.power_on(off, runs=False)

    def power_on(self, host: str, *, runs: bool) -> None:
        for left in self.left:
            if left.host == host:
                left.back, left.runs = True, runs

    def lose_disks(self, hosts: Iterable[str]) -> None:
        gone = set(hosts)
        self.left = [left for left in self.left if left.host not in gone]
        for host in gone:
            self.files[host] = set()

    def move(self, made: Plan, living: Copy) -> None:
        """Servers are where the plan makes them; who stands in the way there was put away."""
        for step in (n.step for n in made.nodes if isinstance(n.step, Retire | PutAway)):
            self._bury(step, living)
        for disk in (n.step for n in made.nodes if isinstance(n.step, MakeDisk)):
            if disk.names.server in CARRIERS:
                self.at[disk.names.server] = disk.host, disk.names.generation

    def _bury(self, step: Retire | PutAway, living: Copy) -> None:
        for left in [x for x in self.back if (x.host, x.names) == (step.host, step.names)]:
            if isinstance(step, PutAway) and not holds_all(_position(living), left.names, self.files[left.host]):
                continue
            lacking = set(left.copy.data) - set(living.data)
            assert not lacking, f"{left.names.disk} on {left.host} is put away, and alone holds {sorted(lacking)[:3]}"
            self.left.remove(left)

    def check(self, made: Plan) -> None:
        """No copy that was left behind is started as a server, and one that runs goes off."""
        old = {(left.host, left.names) for left in self.back}
        for node in made.nodes:
            if isinstance(node.step, Start | Cycle | Define | MakeDisk):
                assert (node.step.host, node.step.names) not in old, f"{node.key}: an older copy of the data starts"
        off = {(n.step.host, n.step.names) for n in made.nodes if isinstance(n.step, Quarantine)}
        for left in self.back:
            assert not left.runs or (left.host, left.names) in off, f"{left.names.disk} runs on {left.host}"

    def tidy(self, made: Plan, living: Copy) -> bool:
        """What the plan does about them, the disks read as `salvage` reads them; whether there was anything to do."""
        before = [(left.names, left.runs) for left in self.left], len(self.readings)
        for step in (n.step for n in made.nodes if isinstance(n.step, Quarantine | Inspect)):
            for left in [x for x in self.back if (x.host, x.names) == (step.host, step.names)]:
                left.runs = left.runs and not isinstance(step, Quarantine)
                if isinstance(step, Inspect):
                    self._read(left, living)
        for away in (n.step for n in made.nodes if isinstance(n.step, PutAway)):
            self._bury(away, living)
        return before != ([(left.names, left.runs) for left in self.left], len(self.readings))

    def _read(self, left: Left, living: Copy) -> None:
        holds, lacking = _position(left.copy), set(left.copy.data) - set(living.data)
        note = note_name(left.names, holds)
        self.files[left.host].add(note)
        self.readings[left.host, note] = Reading(holds, _position(living), len(lacking)).to_json()

    # -- what is said

    def findings(self, observed: Observed, living: Copy) -> list[Finding]:
        """As `status` and `salvage` say them."""
        site, carriers = self.site.site, carrier_names(self.site)
        newest = read_generations(observed, site, carriers).newest
        return find_findings(site, find_copies(site, carriers, observed, newest), _position(living), self.readings)

    def judge(self, observed: Observed, living: Copy) -> None:
        """Each that holds what the living data have not is named with how much; no other one is."""
        said = {(f.host, f.server, f.generation): f for f in self.findings(observed, living)}
        for left in self.back:
            lacking, key = set(left.copy.data) - set(living.data), (left.host, left.copy.name, left.names.generation)
            assert (key in said) == bool(lacking), f"{key} holds {len(lacking)} transactions more; said: {said}"
            if lacking:
                assert said[key].missing == len(lacking), (said[key], len(lacking))
                assert "pcloud salvage" in said[key].next


CARRIERS = ("db-1", "idx-1")


def _is_own(file: str) -> bool:
    """Of a data server's own copy, which `Places` puts where it is."""
    return ".seen." in file or (not file.endswith(".note") and any(f".{n}.g" in file for n in CARRIERS))


def _position(copy: Copy) -> str:
    last = {w.domain: w.number for w in copy.data}
    return ",".join(f"{d}-1-{n}" for d, n in sorted(last.items()))


def _file(site: Site, step: NoteGeneration | NoteFilled | NotePast | NoteVoid) -> str:
    if isinstance(step, NoteGeneration):
        return step.names.noted(step.at, str(site.host(step.at).address))
    kind = {NoteFilled: step.names.filled, NotePast: step.names.past, NoteVoid: step.names.void}
    return kind[type(step)]


def _before(made: Plan, key: str) -> Set[str]:
    needs, found, todo = {n.key: n.info.needs for n in made.nodes}, set[str](), [key]
    while todo:
        for need in needs[todo.pop()]:
            if need not in found:
                found.add(need)
                todo.append(need)
    return found
