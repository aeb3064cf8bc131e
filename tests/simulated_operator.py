"""The person with pcloud, on virtual time: commands run to their end, and a log of all that happens.

The real planner, steps and executor run; its threads take turns. A run may be killed at any
effect or event. What must hold is looked at after each moment (`judge`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, cast

from pcloud.desired import Desired, Options
from pcloud.errors import PcloudError
from pcloud.events import (
    Event,
    Outcome,
    RunFinished,
    RunStarted,
    RunState,
    StepBlocked,
    StepDone,
    StepFailed,
    StepProgress,
    StepStarted,
)
from pcloud.execute import _Reporter, _Run, run_step
from pcloud.failover import find_unfenced, finds_replica, leave_alone, plan_failover
from pcloud.forgetting import plan_forget
from pcloud.identity import carrier_names
from pcloud.plan import Plan, plan
from pcloud.remember import plan_sighting
from pcloud.steps.fence import Confirm, Fence
from pcloud.steps.salvage import UNKNOWN, Living, find_living, read_disk
from pcloud.switchover import plan_failback
from pcloud.teardown import plan_destroy, plan_put_away
from pcloud.undo import last_put_away, plan_undo, question_of
from tests.plan_cases import note_others
from tests.shoppers import Shoppers
from tests.simulated_time import Died, Inbox, Turns, VirtualTime
from tests.simulation import SimWorld

EXITS = {"converged": 0, "failed": 1, "interrupted": 1, "blocked": 3}
DATE = "20121116-2140"


class Stopped(Exception):
    """A command that did not come to run."""


@dataclass
class Operator:
    """Types the commands. `log` is the scenario's; `broken` what must never be and was."""

    world: SimWorld
    shoppers: Shoppers
    time: VirtualTime
    log: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    states: list[RunState] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What was said to be lost, before it was: the reasons of the promotions and restores that took place."""
    begun: set[str] = field(default_factory=set)
    """Steps that have begun and not ended."""
    reasons: dict[str, str] = field(default_factory=dict)
    """The same for all that the plan that runs may do."""
    nexts: list[str] = field(default_factory=list)
    """What the last command told a person to do."""
    outcome: str = ""
    events: int = 0
    on_event: Callable[[int], None] = lambda _: None

    def say(self, text: str) -> None:
        self.log.append(f"{self.time.now():7.1f}  {text}")

    def command(self, words: str) -> None:
        """One command to its end, as the shell would see it."""
        verb, *rest = words.split()
        self.nexts, self.outcome, self.events, self.world.effects = [], "", 0, 0
        self.world.controls = {}
        self.say(f"$ {words}")
        try:
            self._do(verb, rest)
        except Died:
            self.time.bury()
            self.outcome = "killed"
            self.said += [self.reasons[s] for s in sorted(self.begun) if s in self.reasons]
            self.say(f"pcloud is killed at effect {self.world.effects}, event {self.events}")
        except PcloudError as error:
            self.outcome, self.nexts = EXIT_NAMES.get(error.exit_code, "failed"), [error.next]
            self.say(f"exit {error.exit_code}: {error.what}; next: {error.next}")
        if self.outcome != "killed":
            self._remember()

    def _remember(self) -> None:
        """As each command does at its end: two hosts are told where the primary is."""
        world = self.world
        note_others(world)
        observed = world.look(at_silent=False)
        seen = [(n, d) for n, d in observed.data.databases.items() if d.writable]
        if len(seen) != 1:
            return
        now = world.clock.now()
        world.by_hand = [(since, min(until, now)) for since, until in world.by_hand]
        for note in plan_sighting(world.site, observed, *seen[0], world.clock.wall()):
            pool, files = world.host(note.host).pool, world.hosts[note.host].files
            files[f"{pool}/{note.name}"] = "empty"
            for name in note.old:
                files.pop(f"{pool}/{name}", None)

    def _do(self, verb: str, rest: list[str]) -> None:
        desired = self.world.desired
        match verb:
            case "recover":
                wanted = _options(desired, rest)
                self._plan_and_run(wanted, plan(wanted, self.world.observe(), self._date()))
            case "failover":
                hosts = tuple(takewhile(lambda word: not word.startswith("--"), rest))
                given_up = _options(desired, rest[len(hosts) :])
                given_up = replace(given_up, options=replace(given_up.options, lost=hosts))
                self._plan_and_run(given_up, plan_failover(given_up, self.world.observe(), self._date()))
            case "failback":
                self._run(plan_failback(desired, self.world.observe(), rest[0] if rest else None, 10))
            case "forget-host":
                self._run(plan_forget(desired.site, "", self.world.observe(), *rest))
            case "confirm":
                self._confirm(*rest)
            case "destroy" if rest:
                self._run(plan_put_away(desired, self.world.observe(), rest, self._date()))
            case "destroy":
                self._run(plan_destroy(desired.site.site, desired.digest(), self.world.observe(), self._date()))
            case "undo":
                self._undo(desired)
            case _:
                raise AssertionError(f"no command {verb}")

    def _plan_and_run(self, desired: Desired, made: Plan) -> None:
        """As the command does: hosts that could not be fenced are left alone in a second plan, if that has any use."""
        state = self._run(made)
        if finds_replica(state):
            self.say("once more, now that what the replica lacks can be measured:")
            state = self._run(plan(desired, self.world.observe(), self._date()))
        unfenced = find_unfenced(state)
        if not unfenced:
            return
        again = replace(desired, options=leave_alone(desired.options, unfenced))
        second = plan(again, self.world.observe(), self._date())
        if second.changes:
            self.say(f"without {' and '.join(unfenced)}, whose power could not be cut:")
            before = self.nexts
            self._run(second)
            self.nexts = before + self.nexts

    def _date(self) -> str:
        """Of a tombstone that an undo may have to tell from others, and of a timeline."""
        return (datetime(2012, 11, 16, 21, 40) + timedelta(seconds=int(self.time.now()))).strftime("%Y%m%d-%H%M%S")

    def _undo(self, desired: Desired) -> None:
        """As the command does: what is given up is said, what was put away comes back, and a recovery follows."""
        found = self.world.observe()
        made = plan_undo(desired, found, self._date())
        graves, carriers = last_put_away(desired, found), carrier_names(desired.site)
        living = Living("", "")
        with suppress(PcloudError):
            living = find_living(self.world, carriers)
        reads = {
            g.names.server: read_disk(self.world, g.host, g.disk, living) for g in graves if g.names.server in carriers
        }
        ends = {s: "" if r.at == UNKNOWN else r.at for s, r in reads.items()}
        held = {s: r.missing for s, r in reads.items() if living.position}
        question = question_of(desired.site.site, graves, ends, living.position, held)
        self.say(question)
        self.said.append(question)
        self.world.undone |= {n for d in self.world.disks.values() for n in d.orders}
        if self._run(made).finished is not None and self.outcome == "converged":
            self._plan_and_run(desired, plan(desired, self.world.observe(), self._date()))

    def _confirm(self, host: str) -> None:
        report = _Reporter(f"{host}/confirm", lambda _: None, self.time.now, threading.Event())
        ended = run_step(Confirm(host), self.world, report)
        if isinstance(ended, StepDone) and ended.changed:
            self.world.confirmed[host] = "you, at 22:41"
            if self.world.hosts[host].powered:
                self.world.lied.add(host)
        self._tell(ended)
        self.outcome = "converged" if isinstance(ended, StepDone) else "blocked"

    # -- a run

    def _run(self, made: Plan) -> RunState:
        for line in summary(made):
            self.say(f"plan: {line}")
        for sentence in made.advice:
            self.say(f"! {sentence}")
        self.begun = set()
        self.reasons = {n.key: n.info.reason for n in made.nodes if n.info.action in ("promote", "restore")}
        run = _Run(made, self.world, self, self, _started(made))
        run.inbox = cast(Any, Inbox(self.time))
        pool = cast(Any, Turns(self.time))
        while run.running or run.waiting:
            run.start_ready(pool)
            if run.running:
                run.take()
        run.record(RunFinished(run.outcome(), run.now(), DATE))
        self.outcome = run.outcome()
        self.say(f"{self.outcome}, exit {EXITS[self.outcome]}")
        return run.state

    def append(self, *events: Event) -> None:
        for event in events:
            if not isinstance(event, StepProgress):
                self.events += 1
                self.on_event(self.events)
            self._tell(event)

    def show(self, state: RunState, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.states.append(state)
        self.states[-1] = state

    def _tell(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self.begun.add(event.step)
        elif isinstance(event, StepDone | StepFailed | StepBlocked):
            self.begun.discard(event.step)
        match event:
            case StepDone(step=step, changed=True, facts=facts):
                self.said += [self.reasons[step]] if step in self.reasons else []
                told = [str(facts[k]) for k in ("proof", "received", "last", "found", "unread") if facts.get(k)]
                self.say(f"  {step}{f' ({told[0]})' if told else ''}")
            case StepFailed(step=step, what=what, next=following):
                self.nexts.append(following)
                self.say(f"  {step} FAILED: {_first(what)}; next: {following}")
                if "a bug in pcloud" in what:
                    self.broken.append(what)
            case StepBlocked(step=step, what=what, next=following):
                self.nexts.append(following)
                self.say(f"  {step} BLOCKED: {what}; next: {following}")
            case _:
                pass


EXIT_NAMES: dict[int, Outcome] = {1: "failed", 3: "blocked"}


def _first(text: str) -> str:
    return text.splitlines()[0]


def _started(made: Plan) -> RunStarted:
    infos = tuple(n.info for n in made.nodes)
    return RunStarted("run", made.site, made.operation, made.digest, DATE, made.phases, infos, kept=dict(made.kept))


def _options(desired: Desired, words: list[str]) -> Desired:
    """`recover --rebuild fe-1 --only frontend`, as the command line would read it."""
    named: dict[str, tuple[str, ...]] = {"--rebuild": (), "--only": (), "--accept-loss": ()}
    flags, rest = set[str](), iter(words)
    for word in rest:
        if word in named:
            named[word] += (next(rest),)
        else:
            flags.add(word)
    options = Options(
        "--from-scratch" in flags,
        named["--rebuild"],
        named["--only"],
        "--empty-database" in flags,
        accept_loss="".join(named["--accept-loss"][-1:]),
    )
    return replace(desired, options=options)


def summary(made: Plan) -> list[str]:
    """A line for each server or host with what will be done to it, and why; gates are left out."""
    parts: dict[str, list[str]] = {}
    why: dict[str, str] = {}
    for node in made.changes + made.blocked:
        info = node.info
        if info.action in ("verify image", "copy image"):
            continue
        whose = info.server or info.host or info.key
        where = f"{info.host}: " if info.host and info.server else ""
        parts.setdefault(f"{where}{whose}", []).append(info.action)
        if isinstance(node.step, Fence) or info.action in (
            "disk",
            "start",
            "power-cycle",
            "promote",
            "quarantine",
            "put away",
        ):
            why.setdefault(f"{where}{whose}", info.reason)
    return [f"{k}: {' '.join(v)}" + (f" ({why[k]})" if why.get(k) else "") for k, v in parts.items()] or ["nothing"]
