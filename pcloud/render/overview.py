"""A run's state arranged as people look at it: phases, servers, the shopper's walk, problems.

Pure data for the faces and the report; nothing here knows about a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pcloud.events import JourneyStepPassed, RunState, Status, StepBlocked, StepFailed, StepInfo, StepSkipped, StepState
from pcloud.render.words import CUT, UNREACHED, status_of
from pcloud.timing import is_journey

_OVER = (Status.DONE, Status.FAILED, Status.BLOCKED, Status.SKIPPED)


@dataclass(frozen=True)
class Part:
    """Steps that belong together: a phase, or one server's (or host's) share of the run.

    `status` is a `Status`, `CUT` or `UNREACHED`; `begin` and `end` are seconds since the run's start, `end`
    is `None` while it goes on.
    """

    name: str
    host: str
    status: str
    steps: tuple[StepState, ...]
    begin: float | None
    end: float | None

    @property
    def done(self) -> int:
        return sum(step.status is Status.DONE for step in self.steps)

    @property
    def running(self) -> StepState | None:
        """The step that began last of those that run."""
        runs = [step for step in self.steps if step.status is Status.RUNNING]
        return max(runs, key=lambda step: step.started_at or 0.0, default=None)

    @property
    def next(self) -> StepState | None:
        return next((step for step in self.steps if step.status is Status.WAITING), None)

    def seconds(self, now: float) -> float | None:
        if self.begin is None:
            return None
        return (now if self.end is None else self.end) - self.begin


@dataclass(frozen=True)
class Trouble:
    """A step that failed or is blocked, and how many were not tried because of it."""

    step: str
    status: Status
    at: float
    what: str
    where: str
    next: str
    skipped: int


@dataclass(frozen=True)
class Overview:
    """`subjects` are servers, and the hosts and phases that have steps of their own."""

    phases: tuple[Part, ...]
    subjects: tuple[Part, ...]
    walk: Part | None
    visits: tuple[JourneyStepPassed, ...]
    troubles: tuple[Trouble, ...]


def overview(state: RunState, *, dead: bool = False) -> Overview:
    """`dead`: the process is gone, so a step that has no end was cut off."""
    owners = subjects_of(state.started.steps)
    by_phase: dict[str, list[StepState]] = {phase: [] for phase in state.started.phases}
    by_subject: dict[tuple[str, str], list[StepState]] = {}
    walks: list[StepState] = []
    for key, step in state.steps.items():
        by_phase.setdefault(step.info.phase, []).append(step)
        if is_journey(step.info):
            walks.append(step)
        else:
            by_subject.setdefault(owners[key], []).append(step)
    return Overview(
        phases=tuple(_part(name, "", steps, dead) for name, steps in by_phase.items()),
        subjects=tuple(_part(name, host, steps, dead) for (name, host), steps in by_subject.items()),
        walk=_part("journey", "", walks, dead) if walks else None,
        visits=last_walk(state.visits),
        troubles=troubles(state),
    )


def subjects_of(steps: Sequence[StepInfo]) -> dict[str, tuple[str, str]]:
    """Per step key, whose it is: `(server, its host)`, or `(host or phase, "")`.

    A host's step (the copy of an image) belongs to the first server on that host that needs
    it: that server is the one that waits for it.
    """
    for_server: dict[str, StepInfo] = {}
    hosts: dict[str, str] = {}
    for step in steps:
        if step.server:
            hosts[step.server] = hosts.get(step.server) or step.host or ""
            for need in step.needs:
                for_server.setdefault(need, step)
    owners: dict[str, tuple[str, str]] = {}
    for step in steps:
        taker = for_server.get(step.key)
        if step.server:
            owners[step.key] = (step.server, hosts[step.server])
        elif step.host and taker and taker.server and taker.host == step.host:
            owners[step.key] = (taker.server, hosts[taker.server])
        else:
            owners[step.key] = (step.host or step.key.partition("/")[0] or step.key, "")
    return owners


def _part(name: str, host: str, steps: Sequence[StepState], dead: bool) -> Part:
    begins = [step.started_at for step in steps if step.started_at is not None]
    ends = [step.ended_at for step in steps if step.ended_at is not None]
    running = any(step.status is Status.RUNNING for step in steps)
    status = status_of([step_status(step, dead) for step in steps])
    unfinished = any(step.status not in _OVER for step in steps)
    return Part(
        name=name,
        host=host,
        status=status,
        steps=tuple(steps),
        begin=min(begins, default=None),
        end=None if unfinished and (running or not dead) else max(ends, default=None),
    )


def step_status(step: StepState, dead: bool) -> str:
    """Its `Status`, or what becomes of a step without an end when the run has one."""
    if dead and step.status is Status.RUNNING:
        return CUT
    return UNREACHED if dead and step.status is Status.WAITING else step.status


def last_walk(visits: Sequence[JourneyStepPassed]) -> tuple[JourneyStepPassed, ...]:
    """The visits of the last walk: a journey that did not pass is walked again from its start."""
    first = next((v.visit for v in visits), None)
    starts = [n for n, v in enumerate(visits) if v.visit == first]
    return tuple(visits[starts[-1] :]) if starts else ()


def troubles(state: RunState) -> tuple[Trouble, ...]:
    """What failed or is blocked, in the order it happened."""
    blamed: dict[str, int] = {}
    for step in state.steps.values():
        if isinstance(step.problem, StepSkipped):
            root = _root(state, step.problem)
            blamed[root] = blamed.get(root, 0) + 1
    found = [
        Trouble(p.step, step.status, p.at, p.what, p.where, p.next, blamed.get(p.step, 0))
        for step in state.steps.values()
        if isinstance(p := step.problem, StepFailed | StepBlocked)
    ]
    return tuple(sorted(found, key=lambda trouble: trouble.at))


def _root(state: RunState, skipped: StepSkipped) -> str:
    seen: set[str] = set()
    key = skipped.because
    while key not in seen and key in state.steps:
        seen.add(key)
        problem = state.steps[key].problem
        if not isinstance(problem, StepSkipped):
            break
        key = problem.because
    return key


def waits_for(step: StepState, state: RunState) -> str:
    """The first need of a waiting step that is not over; nothing when only a free slot is missing."""
    for need in step.info.needs:
        other = state.steps.get(need)
        if other is not None and other.status is not Status.DONE:
            return need
    return ""
