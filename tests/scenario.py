"""One scenario: a story of faults and commands on virtual time, its log, and what must hold at every moment.

A story has a line an event:

    10 kill h1                   at 10 s
    40 recover                   a command, once the one before has ended
    effect 17 kill h2            when the next command makes its 17th effect; `die` kills pcloud itself
    event 9 die                  when the next command's journal takes its 9th event
    repair                       a person mends all that is broken, and does what pcloud says next until nothing is left

What must hold (`broken` names what did not) is said in docs/scenarios.md.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pcloud.desired import Desired
from pcloud.inventory import defaults_dir, load_site
from pcloud.leftovers import leftovers
from pcloud.model import SemiSync
from pcloud.plan import plan
from pcloud.playbook import load_playbook
from tests.conftest import make_desired
from tests.faults import FAULTS, strike
from tests.ledger import unsaid
from tests.shoppers import Shoppers
from tests.simulated_operator import DATE, Operator
from tests.simulated_time import EPOCH, Died, VirtualTime
from tests.simulation import BOOT_S, SimHost, SimWorld

ROUNDS = 8
"""How often a person does what pcloud says before he gives up."""


@dataclass
class Told:
    """How a scenario went. `broken` is empty when all that must hold did."""

    log: list[str]
    broken: list[str]
    outcome: str
    effects: int
    """Of the last command but those of a repair."""
    events: int
    last: str = ""
    """The one line that a sweep shows of it."""


@cache
def _desired(image_file: Path, wait: bool = False) -> Desired:
    site = load_site(defaults_dir("inventory") / "demo.yaml")
    if wait:
        database = site.database.model_copy(update={"semi_sync": SemiSync(alone="wait")})
        site = site.model_copy(update={"database": database})
    return make_desired(site, load_playbook(defaults_dir("playbooks") / "recover.yaml"), image_file)


@cache
def _whole(image_file: Path, wait: bool) -> SimWorld:
    """A site that was recovered from nothing, its images on every host, long ago."""
    desired = _desired(image_file, wait)
    time = VirtualTime()
    world = SimWorld(desired, image_file, time)
    for host in world.hosts:
        pool = world.host(host).pool
        for spec in desired.servers:
            for file in spec.image.files:
                world.hosts[host].files[spec.image.on_host(pool, file)] = file.sha256
    operator = Operator(world, Shoppers(world), time)
    operator.command("recover")
    assert operator.outcome == "converged", operator.log
    return world


def new_world(image_file: Path, *, whole: bool, wait: bool = False) -> tuple[SimWorld, VirtualTime]:
    desired, time = _desired(image_file, wait), VirtualTime()
    if not whole:
        return SimWorld(desired, image_file, time), time
    old = _whole(image_file, wait)
    hosts: dict[str, SimHost] = copy.deepcopy(old.hosts)
    for host in hosts.values():
        for domain in host.domains.values():
            domain.started_at = -100_000.0
    world = SimWorld(desired, image_file, time, hosts, copy.deepcopy(old.disks))
    world.newest = dict(old.newest)
    return world, time


@dataclass
class Scenario:
    """`what` is a sentence; `start` is `whole`, `nothing`, or `waiting`: whole, and no order without a replica."""

    name: str
    what: str
    story: tuple[str, ...]
    start: str = "whole"


@dataclass
class Course:
    """A scenario while it takes place."""

    operator: Operator
    armed: list[tuple[str, int, str]] = field(default_factory=list)
    """What strikes in the next command: `effect` or `event`, its number, and the fault."""
    told: Told | None = None
    last_at: float = 0.0
    """When the last fault of the story strikes."""

    @property
    def world(self) -> SimWorld:
        return self.operator.world

    def line(self, text: str) -> None:
        head, _, rest = text.partition(" ")
        if head == "repair":
            self.repair()
        elif head in ("effect", "event"):
            number, _, fault = rest.partition(" ")
            self.armed.append((head, int(number), fault))
        else:
            self.timed(float(head), rest)

    def timed(self, at: float, words: str) -> None:
        time = self.operator.time
        if words.split()[0] in FAULTS:
            self.last_at = max(self.last_at, at)
            time.at(at, lambda: self.strike(words))
        else:
            time.sleep(max(0.0, at - time.now()))
            self.command(words)

    def strike(self, words: str) -> None:
        if words == "die":
            raise Died
        self.operator.say(f"! {strike(self.world, words)}")
        self.judge()

    def command(self, words: str) -> None:
        armed, self.armed = self.armed, []
        self.world.on_effect = self._watch([(n, f) for kind, n, f in armed if kind == "effect"])
        self.operator.on_event = self._watch([(n, f) for kind, n, f in armed if kind == "event"])
        self.operator.command(words)
        self.world.on_effect, self.operator.on_event = self._watch([]), self._watch([])
        self.world.lied = {h for h in self.world.lied if self._runs_twice(h)}
        self.judge()

    def _runs_twice(self, host: str) -> bool:
        """A running server of the host's has another copy that runs, or the host still is where nobody looks."""
        at, copies = self.world.hosts[host], [self.world.running(s.name) for s in self.world.desired.everyone]
        return at.powered and (at.away or any(len(c) > 1 and host in [h for h, _ in c] for c in copies))

    def _watch(self, faults: list[tuple[int, str]]) -> Callable[[int], None]:
        def happened(number: int) -> None:
            self.judge()
            for at, fault in faults:
                if at == number:
                    self.strike(fault)

        return happened

    # -- a person who mends

    def repair(self) -> None:
        """Everything broken is mended; then pcloud's own words are followed until it has nothing more to say."""
        operator, world = self.operator, self.world
        operator.time.sleep(max(1.0, self.last_at - operator.time.now() + 1))
        self.told = Told([], [], operator.outcome, world.effects, operator.events)
        for host, at in world.hosts.items():
            if not at.powered:
                self.strike(f"return {host}")
            elif at.away or at.bmc != "well":
                self.strike(f"mend {host}")
        for data in world.disks.values():
            data.slow = False  # the long statement has ended
        world.replicate()
        operator.time.sleep(40)
        words, tried = "recover", list[str]()
        for _ in range(ROUNDS):
            self.command(words)
            tried.append(words)
            if operator.outcome == "converged" and not words.startswith("failback"):
                return
            operator.time.sleep(15)
            advice = list(dict.fromkeys(self._advice(operator.nexts)))
            words = next((w for w in advice if w not in tried[-2:]), "recover")

    def _advice(self, nexts: Iterable[str]) -> Iterator[str]:
        """The commands that pcloud named, as far as a person can type them here."""
        for text in nexts:
            if found := re.search(r"virsh (?:destroy|domrename) demo\.(\S+)", text):
                self.operator.broken.append(f"a person has to see to {found[1]}: {text}")
            if found := re.search(r"pcloud ssh demo/(\S+) -- virsh (start|reset|undefine) demo\.([a-z0-9-]+)", text):
                self.strike(f"{'forget' if found[2] == 'undefine' else 'start'} {found[1]} {found[3]}")
                self.operator.time.sleep(2 * BOOT_S)
            if found := re.search(r"pcloud ssh demo/(\S+) -- /usr/lib/pcloud/primary release", text):
                self.operator.broken.append(f"two primaries: {text}")
            if found := re.search(r"pcloud failback demo(?: --to (\S+?))?[;.]", text):
                yield f"failback {found[1] or ''}".strip()
            if found := re.search(r"pcloud hosts forget demo (\S+)", text):
                yield f"forget-host {found[1]}"
            for flags in re.findall(r"pcloud recover demo((?: --[a-z-]+(?: [a-z]+-\d+| \d+| unknown)?)*)", text):
                yield f"recover{flags}"

    # -- what must hold

    def judge(self) -> None:
        """At any moment, whoever can see it."""
        world, broken = self.world, self.operator.broken
        for spec in world.desired.everyone:
            copies = [h for h, _ in world.running(spec.name) if h not in world.lied]
            if len(copies) > 1:
                broken.append(f"{spec.name} runs on {' and '.join(copies)}")
        primaries = world.holders()
        if len(primaries) > 1 and not world.lied:
            broken.append(f"{' and '.join(primaries)} are both the primary")

    def judge_end(self) -> None:
        operator, world = self.operator, self.world
        self.judge()
        self._judge_orders()
        if operator.outcome == "converged":
            self._judge_whole()
        elif operator.outcome != "killed" and not any(operator.nexts):
            operator.broken.append(f"{operator.outcome}, and no next command was named")
        served = world.at_address("")
        holder = (world.holders() or ["nobody"])[0]
        copies = sum(len(world.running(s.name)) for s in world.desired.everyone)
        acknowledged, missing = len(operator.shoppers.acknowledged), len(operator.shoppers.missing())
        position = served.position if served else 0
        operator.say(
            f"= {operator.outcome}; the primary is {holder} at {position}; {copies} servers run; "
            f"{acknowledged} orders acknowledged, "
            f"{f'{missing} missing' if missing and served else 'none missing' if served else 'nobody to ask'}"
        )

    def _judge_orders(self) -> None:
        """None is missing that was not said to be lost; where nobody serves, some disk still has them."""
        shoppers, world = self.operator.shoppers, self.world
        held = [set(d.orders) for d in world.disks.values()]
        primary = world.at_address("")
        where = [set(primary.orders)] if primary is not None else held
        missing = [[n for n in shoppers.acknowledged if n not in s] for s in where]
        least = min(missing, key=len, default=[])
        known = [n for n in least if not any(a <= shoppers.acknowledged_at[n] <= b for a, b in world.by_hand)]
        times = {n: EPOCH + shoppers.acknowledged_at[n] for n in known}
        if world.site.database.semi_sync.alone == "wait" and shoppers.on_one_disk:
            self.operator.broken.append(f"{len(shoppers.on_one_disk)} orders were acknowledged on one disk only")
        if silent := unsaid(times, self.operator.said):
            self.operator.broken.append(f"{len(silent)} acknowledged orders are missing, and nobody said so")

    def _judge_whole(self) -> None:
        world, broken = self.world, self.operator.broken
        world.clock.sleep(BOOT_S)
        observed = world.observe()
        again = plan(world.desired, observed, DATE)
        unread = {n.key.removesuffix("/inspect") for n in again.nodes if n.info.action == "inspect"}
        left = [n.key for n in again.nodes if n.key.rpartition("/")[0] not in unread]  # nothing says how far it goes
        if left != ["journey"]:
            broken.append(f"converged, and yet there is more to do: {left}")
        if lost := leftovers(world.desired, observed):
            broken.append(f"left over: {lost}")
        for name, host in world.hosts.items():
            if parts := [f for f in host.files if f.endswith(".part")]:
                broken.append(f"half a file on {name}: {parts}")
        for spec in world.desired.servers:
            if len(world.running(spec.name)) != 1:
                broken.append(f"converged, and {spec.name} runs on {world.running(spec.name)}")
        self._judge_replica()

    def _judge_replica(self) -> None:
        world = self.world
        source = world.at_address("")
        others = [d for d in world.carried() if d is not source]
        if source is None or len(others) != 1 or others[0].orders != source.orders:
            self.operator.broken.append("converged, and the replica does not have what the primary has")
        elif not source.semi_sync:
            self.operator.broken.append("converged, and commits wait for no replica")


def play(scenario: Scenario, image_file: Path) -> Told:
    """Takes the scenario's course on virtual time; the same every time."""
    world, time = new_world(image_file, whole=scenario.start != "nothing", wait=scenario.start == "waiting")
    shoppers = Shoppers(world)
    operator = Operator(world, shoppers, time)
    course = Course(operator)
    shoppers.begin()
    for text in scenario.story:
        course.line(text)
    told = course.told or Told([], [], operator.outcome, world.effects, operator.events)
    time.sleep(3)
    course.judge_end()
    told.log, told.broken, told.last = operator.log, list(dict.fromkeys(operator.broken)), operator.log[-1]
    return told
