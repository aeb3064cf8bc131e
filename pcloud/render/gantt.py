"""A run's steps as bars over time, a row per server: coordinates only, in SVG user units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pcloud.render.report import Report, StepReport
from pcloud.render.words import CUT, SYMBOLS, clock, doing_of, one_line, span

Kind = Literal["prepare", "boot", "data", "prove", "other"]

KINDS: dict[str, Kind] = {
    **dict.fromkeys(("retire", "put away", "discard", "image", "disk", "seed", "define"), "prepare"),
    **dict.fromkeys(("start", "ready"), "boot"),
    **dict.fromkeys(("restore", "index"), "data"),
    "journey": "prove",
}

WIDTH = 1000.0
_LABELS = 120.0
_LANE = 20.0
_GAP = 8.0
_TOP = 24.0
_CHARACTER = 6.6
"""Of the labels' font, a little more than it needs."""
_NICE_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_TICKS = 10


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    kind: Kind
    bad: bool
    critical: bool
    label: str
    title: str


@dataclass(frozen=True)
class Row:
    name: str
    y: float
    height: float
    shaded: bool


@dataclass(frozen=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    width: float
    height: float
    rows: tuple[Row, ...]
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    journey_x: float | None


def chart_of(report: Report) -> Chart:
    """Bars of what began, in the order of the report's servers; `journey_x` is the first full journey."""
    total = max(report.seconds, 0.001)
    scale = (WIDTH - _LABELS - 10) / total
    by_subject: dict[str, list[StepReport]] = {}
    for step in report.steps:
        if step.begin_s is not None:
            by_subject.setdefault(step.subject, []).append(step)
    rows: list[Row] = []
    bars: list[Bar] = []
    y = _TOP
    for n, (name, steps) in enumerate(by_subject.items()):
        lanes = _lanes(steps, report.seconds)
        height = (max(lanes.values(), default=0) + 1) * _LANE + _GAP
        rows.append(Row(one_line(name), y, height, n % 2 == 0))
        bars += [_bar(step, y + _GAP / 2 + lanes[step.step] * _LANE, scale, report.seconds) for step in steps]
        y += height
    ticks = tuple(Tick(_LABELS + at * scale, clock(at)) for at in _ticks(total))
    first = report.first_journey_s
    return Chart(WIDTH, y + 4, tuple(rows), tuple(bars), ticks, None if first is None else _LABELS + first * scale)


def _lanes(steps: list[StepReport], end_s: float) -> dict[str, int]:
    """Steps of one subject that overlap are drawn one above the other."""
    free_at: list[float] = []
    lanes: dict[str, int] = {}
    for step in sorted(steps, key=lambda s: (s.begin_s or 0.0, s.step)):
        begin = step.begin_s or 0.0
        lane = next((n for n, free in enumerate(free_at) if free <= begin), len(free_at))
        free_at[lane:] = [end_s if step.end_s is None else step.end_s, *free_at[lane + 1 :]]
        lanes[step.step] = lane
    return lanes


def _bar(step: StepReport, y: float, scale: float, end_s: float) -> Bar:
    begin = step.begin_s or 0.0
    end = end_s if step.end_s is None else step.end_s
    width = max(1.5, (end - begin) * scale)
    bad = step.status in ("failed", "blocked", CUT)
    label = f"{SYMBOLS[step.status]} {step.action}" if bad else step.action
    fits = len(label) * _CHARACTER + 6 <= width
    title = f"{one_line(step.step)}: {doing_of(step.action)}, {span(end - begin)}, {step.status}"
    if step.critical:
        title += ", on the critical path"
    return Bar(
        x=_LABELS + begin * scale,
        y=y,
        width=width,
        height=_LANE - 4,
        kind=KINDS.get(step.action, "other"),
        bad=bad,
        critical=step.critical,
        label=one_line(label) if fits else "",
        title=title,
    )


def _ticks(total: float) -> list[float]:
    every = next((nice for nice in _NICE_S if total / nice <= _TICKS), math.ceil(total / _TICKS / 3600) * 3600)
    return [float(n * every) for n in range(int(total / every) + 1)]
