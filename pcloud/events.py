"""What a run records: frozen facts with data only, no text for people.

One JSON object a line in `events.jsonl`, fsynced before any face sees it. `RunState` is the
fold of a run's events; a transition that cannot happen raises, live and in replay (the idea
is steno's saga log). Times: `at` is seconds since the run started, `date` ISO 8601 UTC.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, get_args


@dataclass(frozen=True)
class StepInfo:
    """A step as the plan names it: enough for a face to draw it without the plan."""

    key: str
    phase: str
    needs: tuple[str, ...] = ()
    host: str | None = None
    server: str | None = None
    action: str = ""
    reason: str = ""


@dataclass(frozen=True)
class RunStarted:
    """What will run, and which healthy servers are left alone (`kept`: server -> why)."""

    run: str
    site: str
    operation: str
    plan_digest: str
    date: str
    phases: tuple[str, ...]
    steps: tuple[StepInfo, ...]
    at: float = 0.0
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StepStarted:
    step: str
    at: float


@dataclass(frozen=True)
class StepProgress:
    """How far a step is: `done` of `total` in `unit` (bytes, checks, ...); total 0: unknown."""

    step: str
    at: float
    done: float = 0
    total: float = 0
    unit: str = ""
    doing: str = ""


@dataclass(frozen=True)
class JourneyStepPassed:
    """One step of the shopper's walk that answered as it should."""

    step: str
    visit: str
    elapsed_s: float
    at: float


@dataclass(frozen=True)
class StepDone:
    """The step's own check says Met. `changed` is false when there was nothing to do."""

    step: str
    at: float
    changed: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepFailed:
    step: str
    at: float
    what: str
    where: str = ""
    next: str = ""


@dataclass(frozen=True)
class StepBlocked:
    """A person must act first; `next` is the exact command."""

    step: str
    at: float
    what: str
    where: str = ""
    next: str = ""


@dataclass(frozen=True)
class StepSkipped:
    """Not tried: something it needs failed or was blocked (`because` is that step's key)."""

    step: str
    at: float
    because: str


@dataclass(frozen=True)
class Interrupted:
    """A person pressed Ctrl-C: nothing new starts, what runs may end."""

    at: float


Outcome = Literal["converged", "failed", "blocked", "interrupted"]


@dataclass(frozen=True)
class RunFinished:
    outcome: Outcome
    at: float
    date: str
    facts: dict[str, Any] = field(default_factory=dict)


Event = (
    RunStarted
    | StepStarted
    | StepProgress
    | JourneyStepPassed
    | StepDone
    | StepFailed
    | StepBlocked
    | StepSkipped
    | Interrupted
    | RunFinished
)
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event)}


def to_json(event: Event) -> str:
    return json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=False, separators=(",", ":"))


def from_json(line: str) -> Event:
    """The event of one line. Raises `ValueError` for anything else."""
    try:
        data = json.loads(line)
        kind = _KINDS[data.pop("event")]
        if kind is RunStarted:
            data["phases"] = tuple(data["phases"])
            data["steps"] = tuple(StepInfo(**{**s, "needs": tuple(s["needs"])}) for s in data["steps"])
        event: Event = kind(**data)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not an event: {line[:80]!r}") from error
    return event


class Status(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    SKIPPED = "skipped"


class IllegalTransition(ValueError):
    """An event that cannot follow the ones before it: a damaged journal or a bug."""


@dataclass(frozen=True)
class StepState:
    info: StepInfo
    status: Status = Status.WAITING
    started_at: float | None = None
    ended_at: float | None = None
    changed: bool = False
    progress: StepProgress | None = None
    problem: StepFailed | StepBlocked | StepSkipped | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        if self.started_at is None or self.ended_at is None:
            return 0.0
        return self.ended_at - self.started_at


@dataclass(frozen=True)
class RunState:
    """A run so far. `steps` keeps the plan's order."""

    started: RunStarted
    steps: dict[str, StepState]
    visits: tuple[JourneyStepPassed, ...] = ()
    interrupted: bool = False
    finished: RunFinished | None = None
    at: float = 0.0


def begin(event: Event) -> RunState:
    if not isinstance(event, RunStarted):
        raise IllegalTransition(f"a run begins with RunStarted, not {type(event).__name__}")
    return RunState(event, {info.key: StepState(info) for info in event.steps})


_MAY = {
    StepStarted: (Status.WAITING,),
    StepProgress: (Status.RUNNING,),
    JourneyStepPassed: (Status.RUNNING,),
    StepDone: (Status.RUNNING,),
    StepFailed: (Status.RUNNING,),
    StepBlocked: (Status.RUNNING,),
    StepSkipped: (Status.WAITING,),
}


def advance(state: RunState, event: Event) -> RunState:
    """The state after one more event. Raises `IllegalTransition`."""
    if isinstance(event, RunStarted) or state.finished is not None:
        raise IllegalTransition(f"{type(event).__name__} after the run {'ended' if state.finished else 'started'}")
    state = replace(state, at=max(state.at, event.at))
    if isinstance(event, Interrupted):
        return replace(state, interrupted=True)
    if isinstance(event, RunFinished):
        return replace(state, finished=event)
    step = state.steps.get(event.step)
    if step is None or step.status not in _MAY[type(event)]:
        was = step.status if step else "unknown"
        raise IllegalTransition(f"{type(event).__name__} for {event.step}, which is {was}")
    if isinstance(event, JourneyStepPassed):
        return replace(state, visits=(*state.visits, event))
    return replace(state, steps={**state.steps, event.step: _advance_step(step, event)})


def _advance_step(
    step: StepState, event: StepStarted | StepProgress | StepDone | StepFailed | StepBlocked | StepSkipped
) -> StepState:
    match event:
        case StepStarted():
            return replace(step, status=Status.RUNNING, started_at=event.at)
        case StepProgress():
            return replace(step, progress=event)
        case StepDone():
            return replace(step, status=Status.DONE, ended_at=event.at, changed=event.changed, facts=event.facts)
        case StepFailed():
            return replace(step, status=Status.FAILED, ended_at=event.at, problem=event)
        case StepBlocked():
            return replace(step, status=Status.BLOCKED, ended_at=event.at, problem=event)
        case StepSkipped():
            return replace(step, status=Status.SKIPPED, ended_at=event.at, problem=event)


def fold(events: list[Event]) -> RunState:
    """The state of a whole journal; `events` has at least its RunStarted."""
    if not events:
        raise IllegalTransition("an empty journal has no state")
    state = begin(events[0])
    for event in events[1:]:
        state = advance(state, event)
    return state
