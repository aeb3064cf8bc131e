"""`execute(plan)`: runs the steps, records what happened, decides nothing else.

One thread owns all state: it starts steps whose needs are satisfied, journals every event
before any face sees it, and folds it. Workers run one step each: check, do, check again.
The only scheduler, and the only broad `except`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from pcloud.clock import Clock
from pcloud.diagnosis import find_remedy
from pcloud.errors import Blocked, CheckFailed, PcloudError, Transient
from pcloud.events import (
    Event,
    Interrupted,
    JourneyStepPassed,
    Outcome,
    RunFinished,
    RunStarted,
    RunState,
    Status,
    StepBlocked,
    StepDone,
    StepFailed,
    StepProgress,
    StepSkipped,
    StepStarted,
    advance,
    begin,
)
from pcloud.graph import Need, PlanNode
from pcloud.plan import Plan
from pcloud.steps.base import Met, Step, World

WORKERS = 64
PER_HOST = 4
"""Steps that act on one host at once; gates only wait and are not counted."""

TRIES = 3
"""How often a step that failed in a way that may pass is tried."""

RETRY_PAUSE_S = 1.0
PROGRESS_EVERY_S = 0.5

_ENDED = frozenset({Status.DONE, Status.FAILED, Status.BLOCKED, Status.SKIPPED})


class Face(Protocol):
    """Who is shown the run (`render.Face`)."""

    def show(self, state: RunState, event: Event) -> None: ...


class Log(Protocol):
    """Where events go first (`journal.Journal`)."""

    def append(self, *events: Event) -> None: ...


@dataclass
class _Reporter:
    """What a running step reports through; progress is thinned out here."""

    step: str
    emit: Callable[[Event], None]
    now: Callable[[], float]
    stop: threading.Event
    _last: float = field(default=-PROGRESS_EVERY_S)
    _doing: str = ""

    def progress(self, doing: str, done: float = 0, total: float = 0, unit: str = "") -> None:
        at = self.now()
        if at - self._last < PROGRESS_EVERY_S and (doing == self._doing or unit):
            return
        self._last, self._doing = at, doing
        self.emit(StepProgress(self.step, at, done, total, unit, doing))

    def visit(self, name: str, elapsed_s: float) -> None:
        self.emit(JourneyStepPassed(self.step, name, round(elapsed_s, 3), self.now()))

    def stopping(self) -> bool:
        return self.stop.is_set()


def run_step(step: Step, world: World, report: _Reporter) -> Event:
    """One step to its end, as the event that says how it ended. Never raises."""
    try:
        return _attempts(step, world, report)
    except Blocked as error:
        return StepBlocked(report.step, report.now(), error.what, error.where, error.next)
    except PcloudError as error:
        remedy = error.next or find_remedy(error.what, world.site.site, error.where)
        return StepFailed(report.step, report.now(), error.what, error.where, remedy)
    except Exception as error:  # noqa: BLE001 (a bug in one step must not take the run down with it)
        what = f"a bug in pcloud: {type(error).__name__}: {error}"
        return StepFailed(report.step, report.now(), what, "", "report it with the run's events.jsonl")


def _attempts(step: Step, world: World, report: _Reporter) -> Event:
    for attempt in range(1, TRIES + 1):
        try:
            return _once(step, world, report)
        except Transient as error:
            if attempt == TRIES or step.waits or report.stopping():
                raise
            report.progress(f"again after: {error.what}")
            world.clock.sleep(RETRY_PAUSE_S * attempt)
    raise AssertionError("unreachable")


def _once(step: Step, world: World, report: _Reporter) -> Event:
    found = step.check(world)
    if isinstance(found, Met):
        return StepDone(report.step, report.now(), changed=False, facts=dict(found.facts))
    facts: Mapping[str, Any] = step.do(world, report)
    if not step.waits:
        again = step.check(world)
        if not isinstance(again, Met):
            raise CheckFailed(f"done, and yet: {again.why}")
        facts = {**again.facts, **facts}
    return StepDone(report.step, report.now(), changed=True, facts=dict(facts))


class _Run:
    """The state of one execution; everything but `_work` belongs to one thread."""

    def __init__(self, plan: Plan, world: World, log: Log, face: Face, started: RunStarted) -> None:
        self.world, self.log, self.face = world, log, face
        self.nodes = {n.key: n for n in plan.nodes}
        self.waiting = [n.key for n in plan.nodes]
        self.busy: dict[str, int] = {}
        self.running = 0
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.zero = world.clock.now()
        log.append(started)
        self.state = begin(started)
        face.show(self.state, started)

    def now(self) -> float:
        return round(self.world.clock.now() - self.zero, 3)

    def record(self, event: Event) -> None:
        self.log.append(event)
        self.state = advance(self.state, event)
        self.face.show(self.state, event)

    def start_ready(self, pool: ThreadPoolExecutor) -> None:
        """Starts what may start, skips what cannot any more; repeats while that frees others."""
        again = True
        while again:
            again = False
            for key in list(self.waiting):
                node = self.nodes[key]
                if not all(self.state.steps[n].status in _ENDED for n in node.info.needs):
                    continue
                broken = next((n for n in sorted(node.needs, key=lambda n: sorted(n.keys)) if not self._met(n)), None)
                if broken is not None:
                    because = min(k for k in broken.keys if self.state.steps[k].status is not Status.DONE)
                    self.waiting.remove(key)
                    self.record(StepSkipped(key, self.now(), because))
                    again = True
                elif not self.stop.is_set() and self._room(node):
                    self.waiting.remove(key)
                    self.record(StepStarted(key, self.now()))
                    self._count(node, 1)
                    pool.submit(self._work, node)

    def _met(self, need: Need) -> bool:
        return sum(self.state.steps[k].status is Status.DONE for k in need.keys) >= need.enough

    def _room(self, node: PlanNode) -> bool:
        return node.step.waits or node.info.host is None or self.busy.get(node.info.host, 0) < PER_HOST

    def _count(self, node: PlanNode, by: int) -> None:
        self.running += by
        if not node.step.waits and node.info.host is not None:
            self.busy[node.info.host] = self.busy.get(node.info.host, 0) + by

    def _work(self, node: PlanNode) -> None:
        report = _Reporter(node.key, self.inbox.put, self.now, self.stop)
        self.inbox.put(run_step(node.step, self.world, report))

    def take(self) -> None:
        """Waits for the next event of a worker; a beat now and then to see whether to stop."""
        try:
            event = self.inbox.get(timeout=0.5)
        except queue.Empty:
            return
        self.record(event)
        if isinstance(event, StepDone | StepFailed | StepBlocked):
            self._count(self.nodes[event.step], -1)

    def outcome(self) -> Outcome:
        """What is done aside does not count: the site is what the run was for."""
        statuses = {s.status for k, s in self.state.steps.items() if not self.nodes[k].aside}
        if self.state.interrupted:
            return "interrupted"
        if Status.FAILED in statuses:
            return "failed"
        return "blocked" if Status.BLOCKED in statuses else "converged"


def execute(
    plan: Plan,
    world: World,
    log: Log,
    face: Face,
    run_id: str,
    clock: Clock,
    asked: threading.Event | None = None,
) -> RunState:
    """Runs the plan to its end and returns the folded state; `state.finished` is set.

    Once `asked` to stop (Ctrl-C): nothing new starts, waiting gates give up, running effects
    end. A `KeyboardInterrupt` goes through at once; the journal then simply ends, and the next
    run goes on. When the journal cannot be written, what runs ends before that is raised: the
    caller's lock must outlive every effect.
    """
    asked = asked or threading.Event()
    date = clock.wall().isoformat(timespec="seconds")
    infos = tuple(n.info for n in plan.nodes)
    kept = dict(plan.kept)
    started = RunStarted(run_id, plan.site, plan.operation, plan.digest, date, plan.phases, infos, kept=kept)
    run = _Run(plan, world, log, face, started)
    pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="step")
    try:
        while run.running or (run.waiting and not run.stop.is_set()):
            if asked.is_set() and not run.stop.is_set():
                run.stop.set()
                run.record(Interrupted(run.now()))
            run.start_ready(pool)
            if run.running:
                run.take()
    except PcloudError:
        run.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    finally:
        run.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    changed = sum(s.changed and not run.nodes[k].step.waits for k, s in run.state.steps.items())
    facts = {"changed": changed}
    run.record(RunFinished(run.outcome(), run.now(), clock.wall().isoformat(timespec="seconds"), facts))
    return run.state
