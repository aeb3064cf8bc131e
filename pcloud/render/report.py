"""What a finished (or killed) run amounts to: plain data, that text, HTML and JSON show alike.

All times are seconds; `begin_s` and `end_s` count from the run's start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pcloud.events import RunState, Status, StepState
from pcloud.render.overview import Overview, Part, Trouble, overview, step_status, subjects_of
from pcloud.timing import actual_path, is_journey, journey_s


@dataclass(frozen=True)
class PhaseReport:
    name: str
    status: str
    steps: int
    changed: int
    begin_s: float | None
    seconds: float | None


@dataclass(frozen=True)
class ServerReport:
    """`ready_s`: when it answered its checks. `cpu_s`: CPU seconds its boot took, as its host counted."""

    name: str
    host: str
    status: str
    begin_s: float | None
    seconds: float | None
    ready_s: float | None
    cpu_s: float | None


@dataclass(frozen=True)
class PathReport:
    """A step of the critical path; `waited_s` passed between its last need's end and its start."""

    step: str
    begin_s: float
    end_s: float
    waited_s: float


@dataclass(frozen=True)
class VisitReport:
    name: str
    elapsed_s: float
    at_s: float


@dataclass(frozen=True)
class ProofReport:
    """A host that was proven off: who said so, and what was asked of it before (nothing: it was off already)."""

    host: str
    at_s: float
    proof: str
    asked: tuple[str, ...]


@dataclass(frozen=True)
class StepReport:
    step: str
    subject: str
    phase: str
    action: str
    status: str
    reason: str
    begin_s: float | None
    end_s: float | None
    changed: bool
    critical: bool
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """`outcome` is a `RunFinished`'s, or `running` or `interrupted (killed)`. `next` goes on, if anything must."""

    run: str
    site: str
    operation: str
    started: str
    outcome: str
    seconds: float
    first_journey_s: float | None
    phases: tuple[PhaseReport, ...]
    servers: tuple[ServerReport, ...]
    critical_path: tuple[PathReport, ...]
    journey: tuple[VisitReport, ...]
    proofs: tuple[ProofReport, ...]
    problems: tuple[Trouble, ...]
    kept: Mapping[str, str]
    findings: tuple[str, ...]
    """What dead copies hold that the living data have not, or why that could not be read; a sentence each."""
    steps: tuple[StepReport, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    next: str = ""
    compared: str = ""
    """What a backup was found to be beside the replica, or why it was not compared; a sentence."""

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`: what is not finite becomes null, so that every reader can read it."""
        data: dict[str, Any] = _finite(asdict(self))
        return data


def report_of(state: RunState, outcome: str | None = None) -> Report:
    """The report of a run. `outcome` tells how a run without an end stands (`journal.outcome`)."""
    finished = state.finished
    outcome = finished.outcome if finished else (outcome or "interrupted (killed)")
    view = overview(state, dead=outcome != "running")
    path = actual_path(state)
    started = state.started
    return Report(
        run=started.run,
        site=started.site,
        operation=started.operation,
        started=started.date,
        outcome=outcome,
        seconds=state.at,
        first_journey_s=journey_s(state),
        phases=tuple(_phase(part, state.at) for part in view.phases),
        servers=tuple(_server(part, state.at) for part in view.subjects),
        critical_path=_path(state, path),
        journey=tuple(VisitReport(v.visit, v.elapsed_s, v.at) for v in view.visits),
        proofs=_proofs(state),
        problems=view.troubles,
        kept=started.kept,
        findings=_findings(state),
        steps=_steps(state, set(path), dead=outcome != "running"),
        facts=finished.facts if finished else {},
        next=_next(state, view, outcome),
        compared=_compared(state),
    )


def _phase(part: Part, now: float) -> PhaseReport:
    changed = sum(step.status is Status.DONE and step.changed for step in part.steps)
    return PhaseReport(part.name, part.status, len(part.steps), changed, part.begin, part.seconds(now))


def _server(part: Part, now: float) -> ServerReport:
    ready = [s for s in part.steps if s.info.action == "ready" and s.status is Status.DONE]
    return ServerReport(
        name=part.name,
        host=part.host,
        status=part.status,
        begin_s=part.begin,
        seconds=part.seconds(now),
        ready_s=max((s.ended_at for s in ready if s.ended_at is not None), default=None),
        cpu_s=max((cpu for s in part.steps if (cpu := _boot_cpu_s(s)) is not None), default=None),
    )


def _boot_cpu_s(step: StepState) -> float | None:
    """Hosts count a server's CPU time from its start, so only a step that waited for a boot tells its cost."""
    value = step.facts.get("cpu_s")
    booted = step.info.action in ("start", "ready") and step.status is Status.DONE and step.changed
    if not booted or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _path(state: RunState, path: tuple[str, ...]) -> tuple[PathReport, ...]:
    found: list[PathReport] = []
    free_at = 0.0
    for key in path:
        step = state.steps[key]
        begin = step.started_at or 0.0
        end = step.ended_at if step.ended_at is not None else state.at
        found.append(PathReport(key, begin, end, max(0.0, begin - free_at)))
        free_at = end
    return tuple(found)


def _proofs(state: RunState) -> tuple[ProofReport, ...]:
    return tuple(
        ProofReport(
            step.info.host or "",
            step.ended_at or 0.0,
            str(step.facts["proof"]),
            tuple(map(str, asked)) if isinstance(asked := step.facts.get("asked"), list) else (),
        )
        for step in state.steps.values()
        if step.status is Status.DONE and "proof" in step.facts
    )


def _compared(state: RunState) -> str:
    done = [s for s in state.steps.values() if s.info.action == "compare" and s.status is Status.DONE]
    if not done:
        return ""
    facts, server = done[0].facts, done[0].info.server
    if "reached" not in facts:
        return f"not compared with {server}: {facts.get('not compared', 'it does not say why')}"
    what = f"the backup {facts.get('backup')}, replayed to {facts['reached']}, is what {server} has"
    return f"{what}: {facts.get('tables')} tables, {facts.get('rows')} rows"


def _findings(state: RunState) -> tuple[str, ...]:
    facts = [s.facts for s in state.steps.values() if s.info.action == "inspect" and s.status is Status.DONE]
    found = [str(f["found"]) for f in facts if "found" in f]
    return (*found, *(f"not read: {f['unread']}. Next: {f.get('next', '')}" for f in facts if "unread" in f))


def _steps(state: RunState, critical: set[str], dead: bool) -> tuple[StepReport, ...]:
    owners = subjects_of(state.started.steps)
    return tuple(
        StepReport(
            step=key,
            subject="journey" if is_journey(step.info) else owners[key][0],
            phase=step.info.phase,
            action=step.info.action,
            status=step_status(step, dead),
            reason=step.info.reason,
            begin_s=step.started_at,
            end_s=step.ended_at,
            changed=step.changed,
            critical=key in critical,
            facts=step.facts,
        )
        for key, step in state.steps.items()
    )


def _next(state: RunState, view: Overview, outcome: str) -> str:
    if outcome in ("converged", "running"):
        return ""
    said = next((trouble.next for trouble in view.troubles if trouble.next), "")
    return said or f"pcloud {state.started.operation} {state.started.site}"


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value
