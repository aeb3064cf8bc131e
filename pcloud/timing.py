"""How long steps take and which of them decide when a run ends: pure arithmetic on events.

Two critical paths: `critical_path` is the plan's, from durations that past runs predict;
`actual_path` is a run's own, walked back from what ended last. All times are seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from statistics import median

from pcloud.events import RunState, Status, StepInfo, StepState

DEFAULT_S: Mapping[str, float] = {
    "image": 10.0,
    "copy image": 10.0,
    "verify image": 2.0,
    "retire": 1.5,
    "quarantine": 1.5,
    "put away": 1.5,
    "inspect": 5.0,
    "fence": 3.0,
    "note": 0.5,
    "discard": 1.0,
    "disk": 0.5,
    "seed": 0.5,
    "define": 0.5,
    "start": 1.5,
    "ready": 60.0,
    "restore": 15.0,
    "index": 10.0,
    "journey": 5.0,
    "run": 5.0,
    "ask": 20.0,
}
"""What an action takes when no past run tells; only their proportions matter."""

FENCE = "fence"
OTHER_S = 1.0

_NUMBERED = re.compile(r"(.*?)-?[0-9]+")


def family(server: str) -> str:
    """`fe` for `fe-3`: the servers that are alike."""
    match = _NUMBERED.fullmatch(server)
    return match[1] if match and match[1] else server


def kind(step: StepInfo) -> str:
    """`fe/ready`, or the bare action of a step that has no server."""
    return f"{family(step.server)}/{step.action}" if step.server else step.action


def fence_of(host: str) -> str:
    """The kind of a host's own fence: controllers and power supplies differ."""
    return f"{host}/{FENCE}"


def _kinds(step: StepInfo) -> tuple[str, ...]:
    """What it is alike to, the closest first."""
    own = (fence_of(step.host),) if step.action == FENCE and step.host else ()
    return (*own, kind(step), step.action)


def predicted_s(step: StepInfo, durations: Mapping[str, float]) -> float:
    """Seconds the step will take: as its host's fence did, else as its kind, else as its action, else a default."""
    for key in _kinds(step):
        if key in durations:
            return max(0.0, durations[key])
    return DEFAULT_S.get(step.action, OTHER_S)


def durations_from(runs: Sequence[RunState]) -> dict[str, float]:
    """Medians, in seconds, of the steps that did something in these runs.

    Keys are kinds (`fe/ready`), actions (`ready`) and hosts' own fences (`h3/fence`), which rehearsals tell
    of, too; a step that found nothing to do says nothing about how long doing it takes, so it is left out.
    """
    seen: dict[str, list[float]] = {}
    for run in runs:
        for step in run.steps.values():
            if step.status is Status.DONE and step.changed:
                for key in set(_kinds(step.info)):
                    seen.setdefault(key, []).append(step.seconds)
                if step.info.host and (off_s := step.facts.get("off_s")):
                    for key in (fence_of(step.info.host), FENCE):
                        seen.setdefault(key, []).append(float(off_s))
    return {key: median(values) for key, values in sorted(seen.items())}


def copy_rate(runs: Sequence[RunState]) -> float | None:
    """Bytes a second at which images travelled in these runs, all copies of a run together; None when none did.

    A chain of hosts counts once, as in `Plan.to_copy`.
    """
    rates = []
    for run in runs:
        copies = [s for s in run.steps.values() if s.status is Status.DONE and s.changed and s.facts.get("bytes")]
        begun = [s.started_at for s in copies if s.started_at is not None]
        ended = [s.ended_at for s in copies if s.ended_at is not None]
        if begun and ended and max(ended) > min(begun):
            rates.append(sum(float(s.facts["bytes"]) for s in copies) / (max(ended) - min(begun)))
    return median(rates) if rates else None


def _order(steps: Sequence[StepInfo]) -> list[StepInfo]:
    """The steps with needs first. Raises `graphlib.CycleError` (a `ValueError`) for a cycle."""
    by_key = {step.key: step for step in steps}
    graph = {step.key: [need for need in step.needs if need in by_key] for step in steps}
    return [by_key[key] for key in TopologicalSorter(graph).static_order()]


def _weigh(steps: Sequence[StepInfo], seconds: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str | None]]:
    """Per step: when it can end at the earliest, and which of its needs decides that."""
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for step in _order(steps):
        needs = [need for need in step.needs if need in ends]
        last = max(needs, key=lambda need: ends[need], default=None)
        ends[step.key] = (ends[last] if last else 0.0) + seconds[step.key]
        before[step.key] = last
    return ends, before


def critical_path(steps: Sequence[StepInfo], durations: Mapping[str, float]) -> tuple[str, ...]:
    """Keys of the longest chain through the plan, first to last; empty for an empty plan.

    Raises `graphlib.CycleError` (a `ValueError`) when the needs go round in a circle.
    """
    ends, before = _weigh(steps, {step.key: predicted_s(step, durations) for step in steps})
    at = max((step.key for step in steps), key=lambda key: ends[key], default=None)
    path: list[str] = []
    while at is not None:
        path.append(at)
        at = before[at]
    return tuple(reversed(path))


def predicted_total_s(steps: Sequence[StepInfo], durations: Mapping[str, float]) -> float:
    """Seconds that the critical path takes: the least the plan can need."""
    by_key = {step.key: step for step in steps}
    return sum(predicted_s(by_key[key], durations) for key in critical_path(steps, durations))


def remaining_s(state: RunState, now: float, durations: Mapping[str, float]) -> float:
    """Seconds still to go at `now`, along the longest chain of what is not over yet."""
    now = max(now, state.at)
    left: dict[str, float] = {}
    for key, step in state.steps.items():
        if step.status is Status.WAITING:
            left[key] = predicted_s(step.info, durations)
        elif step.status is Status.RUNNING:
            left[key] = max(0.0, predicted_s(step.info, durations) - (now - (step.started_at or now)))
        else:
            left[key] = 0.0
    ends, _ = _weigh([step.info for step in state.steps.values()], left)
    return max(ends.values(), default=0.0)


def is_journey(step: StepInfo) -> bool:
    return step.action == "journey" or step.key.rpartition("/")[2] == "journey"


def journey_s(state: RunState) -> float | None:
    """Seconds from the run's start to the end of the first journey that passed whole."""
    passed = [s for s in state.steps.values() if is_journey(s.info) and s.status is Status.DONE]
    return min((s.ended_at for s in passed if s.ended_at is not None), default=None)


def actual_path(state: RunState) -> tuple[str, ...]:
    """Keys of the steps that decided when the shop answered, first to last.

    From the journey (or, when it never passed, from what ended last) back through the need
    that ended last, each time.
    """
    over = {key: step for key, step in state.steps.items() if _end(step) is not None and step.started_at is not None}
    passed = [s.info.key for s in over.values() if is_journey(s.info) and s.status is Status.DONE]
    at = _latest(passed, over) or _latest(over, over)
    path: list[str] = []
    while at is not None and at not in path:
        path.append(at)
        at = _latest((need for need in over[at].info.needs if need in over), over)
    return tuple(reversed(path))


def _end(step: StepState) -> float | None:
    return math.inf if step.status is Status.RUNNING else step.ended_at


def _latest(keys: Iterable[str], over: Mapping[str, StepState]) -> str | None:
    return max(keys, key=lambda key: (_end(over[key]) or 0.0, over[key].started_at or 0.0), default=None)
