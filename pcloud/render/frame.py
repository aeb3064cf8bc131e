"""One picture of a run in progress, as lines that fit a terminal: a pure function.

From the top: head, phases, a line per server, the shopper's walk, the last problem. What
does not fit is folded (`23 done: fe-1..fe-23`), the running and the failed last of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.cells import cell_len
from rich.text import Text

from pcloud.events import RunState, Status
from pcloud.render.overview import Overview, Part, overview, waits_for
from pcloud.render.words import (
    CUT,
    OUTCOME_MARKS,
    STYLES,
    SYMBOLS,
    UNREACHED,
    amount,
    clock,
    doing,
    fraction,
    names,
    one_line,
    rough,
    span,
)
from pcloud.timing import remaining_s

_ROOMY = 16
"""Rows from which blank lines are worth their place."""


@dataclass(frozen=True)
class Scene:
    """What the lines are made from. `now`: seconds since the run's start."""

    state: RunState
    view: Overview
    now: float
    width: int
    durations: Mapping[str, float]

    @property
    def over(self) -> bool:
        return self.state.finished is not None


def frame(
    state: RunState, now: float, width: int, height: int, durations: Mapping[str, float] | None = None
) -> list[Text]:
    """At most `height - 1` lines (one at least), each of at most `width` cells.

    `durations` are `timing.durations_from` past runs: with them, the head tells how long is left.
    """
    width, room = max(1, width), max(1, height - 1)
    now = state.finished.at if state.finished else max(now, state.at)
    scene = Scene(state, overview(state, dead=state.finished is not None), now, width, durations or {})
    head = [_head(scene)]
    trouble = _trouble(scene, min(4, max(1, room // 4)))[: room - 1]
    walk = _walk(scene)[: max(0, room - 1 - len(trouble))]
    left = room - 1 - len(trouble) - len(walk)
    blank = 3 if room >= _ROOMY else 0
    phases = _phases(scene, left - blank - len(scene.view.subjects))[: max(0, left)]
    subjects = _subjects(scene, left - blank - len(phases))
    sections = [head, phases, subjects, walk, trouble]
    lines = [line for section in sections if section for line in ([Text()] if blank else []) + section][bool(blank) :]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines[:room]


def _mark(status: str) -> tuple[str, str]:
    return SYMBOLS[status], STYLES[status]


def _spread(left: Text, right: Text, width: int) -> Text:
    """`left` and `right` at the two ends of a line; `left` gives way."""
    room = width - right.cell_len - 1
    if room < 8:
        return left
    left.truncate(room, overflow="ellipsis", pad=True)
    return Text.assemble(left, " ", right)


def _head(scene: Scene) -> Text:
    started, finished = scene.state.started, scene.state.finished
    line = Text.assemble((one_line(started.site), "bold"), "  ", one_line(started.operation), "  ")
    right = Text(clock(scene.now), "bold")
    phases = scene.view.phases
    current = next((n for n, phase in enumerate(phases, 1) if phase.status != Status.DONE), len(phases))
    if finished is not None:
        symbol, style = _mark(OUTCOME_MARKS.get(finished.outcome, CUT))
        line.append(f"{symbol} {finished.outcome}", style)
    elif scene.state.interrupted:
        running = sum(step.status is Status.RUNNING for step in scene.state.steps.values())
        line.append(f"stopping: nothing new starts, {running} running steps may end", STYLES[Status.BLOCKED])
    elif phases:
        line.append(f"phase {current}/{len(phases)}, {one_line(phases[current - 1].name)}")
        if scene.durations:
            right = Text.assemble(
                (f"{rough(remaining_s(scene.state, scene.now, scene.durations))} left  ", "dim"), right
            )
    return _spread(line, right, scene.width)


def _phases(scene: Scene, room: int) -> list[Text]:
    """A line each when there is room, else as many a line as fit."""
    phases = scene.view.phases
    if len(phases) <= room:
        widest = max((cell_len(one_line(p.name)) for p in phases), default=0)
        return [_phase_line(scene, phase, min(widest, 20)) for phase in phases]
    items = []
    for phase in phases:
        symbol, style = _mark(phase.status)
        took = phase.seconds(scene.now)
        items.append(
            Text.assemble((f"{symbol} ", style), one_line(phase.name), (f" {clock(took)}" if took else "", "dim"))
        )
    return _flow(items, scene.width, 2)


def _phase_line(scene: Scene, phase: Part, name_width: int) -> Text:
    symbol, style = _mark(phase.status)
    total = len(phase.steps)
    name = Text(one_line(phase.name), "bold" if phase.status == Status.RUNNING else "")
    name.truncate(name_width, overflow="ellipsis", pad=True)
    line = Text.assemble((f"{symbol} ", style), name, "  ")
    line.append_text(_bar(phase.done / total if total else 1.0, 16, style))
    line.append(f"  {phase.done}/{total} steps" if total else "  nothing to do", "dim")
    took = phase.seconds(scene.now)
    return _spread(line, Text(clock(took) if took is not None else ""), scene.width)


def _bar(share: float, width: int, style: str) -> Text:
    full = int(max(0.0, min(1.0, share)) * width)
    return Text.assemble(("━" * full, style), ("─" * (width - full), "dim"))


def _flow(items: Sequence[Text], width: int, most: int, lead: Text | None = None) -> list[Text]:
    """Items side by side, three cells apart, on at most `most` lines; the last line tells how many more."""
    lines = [lead.copy() if lead else Text()]
    indent = lead.cell_len if lead else 0
    for n, item in enumerate(items):
        gap = 0 if lines[-1].cell_len <= indent else 3
        more = f"   +{len(items) - n}" if len(lines) == most and n < len(items) - 1 else ""
        if lines[-1].cell_len + gap + item.cell_len + len(more) > width and gap:
            if len(lines) == most:
                lines[-1].append(f"   +{len(items) - n}", "dim")
                break
            lines.append(Text(" " * indent))
            gap = 0
        lines[-1].append(" " * gap).append_text(item)
    return lines


def _subjects(scene: Scene, room: int) -> list[Text]:
    """A line each in the plan's order; when that is too much, the quiet ones are folded."""
    subjects = scene.view.subjects
    if len(subjects) <= room:
        return _subject_lines(scene, subjects)
    if room <= 0:
        return []
    groups: dict[str, list[Part]] = {}
    for subject in subjects:
        groups.setdefault(subject.status, []).append(subject)
    order = [CUT, Status.FAILED, Status.BLOCKED, Status.RUNNING, Status.SKIPPED, Status.WAITING, UNREACHED, Status.DONE]
    present = [status for status in order if status in groups]
    room = max(room, 1)
    lines: list[Text] = []
    for n, status in enumerate(present):
        parts = groups[status]
        kept_free = min(len(present) - n - 1, max(0, room - len(lines) - 1))
        left = room - len(lines) - kept_free
        loud = status not in (Status.DONE, Status.WAITING, Status.SKIPPED, UNREACHED)
        shown = len(parts) if len(parts) <= left and loud else (left - 1 if loud else 0)
        lines += _subject_lines(scene, parts[: max(0, shown)])
        if len(lines) < room and shown < len(parts):
            lines.append(_fold(parts[max(0, shown) :], status, more=shown > 0))
    return lines[:room]


def _fold(parts: Sequence[Part], status: str, more: bool) -> Text:
    symbol, style = _mark(status)
    text = f"{len(parts)} {'more ' if more else ''}{status}: "
    return Text.assemble((f"{symbol} ", style), text, (one_line(names(part.name for part in parts)), "dim"))


def _subject_lines(scene: Scene, subjects: Sequence[Part]) -> list[Text]:
    everyone = scene.view.subjects
    name_width = min(16, max((cell_len(one_line(s.name)) for s in everyone), default=0))
    host_width = min(10, max((cell_len(one_line(s.host)) for s in everyone), default=0))
    return [_subject_line(scene, s, name_width, host_width if scene.width >= 50 else 0) for s in subjects]


def _subject_line(scene: Scene, subject: Part, name_width: int, host_width: int) -> Text:
    symbol, style = _mark(subject.status)
    line = Text.assemble((f"{symbol} ", style))
    for text, width, look in ((subject.name, name_width, "bold"), (subject.host, host_width, "dim")):
        cell = Text(one_line(text), look)
        cell.truncate(width, overflow="ellipsis", pad=True)
        line.append_text(cell).append(" " if width else "")
    line.append(" ")
    running = subject.running
    if running is None or subject.status in (CUT, Status.FAILED, Status.BLOCKED):
        took = subject.seconds(scene.now) if subject.status == Status.DONE else None
        line.append(_quiet(scene, subject), "" if subject.status in (Status.FAILED, Status.BLOCKED, CUT) else "dim")
        return _spread(line, Text(span(took) if took is not None else "", "dim"), scene.width)
    line.append(doing(running.info, running.progress))
    right = Text()
    share = fraction(running.progress)
    if share is not None and scene.width >= 60:
        right = Text.assemble(_bar(share, 12 if scene.width < 100 else 20, STYLES[Status.RUNNING]), f" {share:4.0%} ")
    right.append(f"{amount(running.progress):>{0 if share is None else 11}}", "dim")
    since = clock(scene.now - (running.started_at or scene.now))
    right.append(f"{since:>7}")
    return _spread(line, right, scene.width)


def _quiet(scene: Scene, subject: Part) -> str:
    """What there is to say of a subject with nothing running."""
    bad = next((s for s in subject.steps if s.status in (Status.FAILED, Status.BLOCKED)), None)
    if bad is not None:
        return f"{bad.status}: {doing(bad.info)}"
    if subject.status == CUT and subject.running:
        return f"{CUT}: {doing(subject.running.info)}"
    if subject.status == Status.DONE:
        return "done" if any(step.changed for step in subject.steps) else "nothing to do"
    if subject.next is None:
        return str(subject.status)
    if scene.over:
        return "not begun" if subject.begin is None else f"stopped before: {doing(subject.next.info)}"
    need = waits_for(subject.next, scene.state)
    return f"waits for {one_line(need)}" if need else f"next: {doing(subject.next.info)}"


def _walk(scene: Scene) -> list[Text]:
    walk, visits = scene.view.walk, scene.view.visits
    if walk is None:
        return []
    symbol, style = _mark(walk.status)
    lead = Text.assemble((f"{symbol} ", style), ("shopper", "bold"), "  ")
    items = [
        Text.assemble(("✓ ", STYLES[Status.DONE]), one_line(v.visit), (f" {span(v.elapsed_s)}", "dim")) for v in visits
    ]
    running = walk.running
    if running is not None and walk.status == Status.RUNNING:
        items.append(Text(doing(running.info, running.progress), STYLES[Status.RUNNING]))
    if not items:
        need = waits_for(walk.steps[0], scene.state) if walk.status == Status.WAITING and not scene.over else ""
        items = [Text(f"waits for {one_line(need)}" if need else str(walk.status), "dim")]
    return _flow(items, scene.width, 2, lead)


def _trouble(scene: Scene, most: int) -> list[Text]:
    """The last problem: what, and what to do next."""
    if not scene.view.troubles:
        return []
    last = scene.view.troubles[-1]
    symbol, style = _mark(last.status)
    before = len(scene.view.troubles) - 1
    lines = [
        Text.assemble((f"{symbol} {one_line(last.step)}", style), (f"  (+{before} before)" if before else "", "dim"))
    ]
    what = [part for line in last.what.splitlines() for part in wrap(one_line(line), max(20, scene.width - 2))]
    lines += [Text(f"  {part}") for part in what[: max(1, most - 2)]]
    if last.next:
        lines.append(Text.assemble(("  next: ", "bold"), one_line(last.next)))
    if most <= 2:
        lines = [Text.assemble((f"{symbol} {one_line(last.step)}: ", style), one_line(last.what)), *lines[-1:]]
    return lines[:most]
