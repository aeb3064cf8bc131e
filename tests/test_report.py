"""A run's report, as text, HTML and JSON."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcloud.events import (
    Event,
    RunFinished,
    RunStarted,
    StepDone,
    StepFailed,
    StepInfo,
    StepStarted,
    fold,
)
from pcloud.journal import RunSummary
from pcloud.render.gantt import chart_of
from pcloud.render.report import report_of
from pcloud.render.report_html import render_html
from pcloud.render.report_text import render_report, render_runs
from tests.consoles import UNSAFE, shown_by, shown_whole, until
from tests.synthetic_runs import Simulation, legal_runs, plan


class _Page(HTMLParser):
    """Checks that elements are closed in order, and collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [
            f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]
        assert tag not in ("script", "link", "img", "iframe")
        if tag not in ("meta", "line", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "rect"):
            assert self.open.pop() == tag


@given(legal_runs(), st.sampled_from([None, "running", "interrupted (killed)"]))
@settings(max_examples=30, deadline=None)
def test_any_run_has_its_report(events: list[Event], outcome: str | None) -> None:
    report = report_of(fold(events), outcome)
    for encoding in ("utf-8", "ascii"):
        assert not UNSAFE.search(shown_by(render_report(report), encoding=encoding))
    json.dumps(report.as_json(), allow_nan=False)
    page = render_html(report)
    parser = _Page()
    parser.feed(page)
    assert parser.open == []
    assert parser.fetched == []
    assert not re.search(r"https?://|@import|url\((?!#hatch)", re.sub(r"<td>.*?</td>", "", page))


def test_the_report_tells_the_whole_story() -> None:
    report = report_of(fold(Simulation(plan(), kept={"fe-9": "healthy"}).events()))
    assert report.outcome == "converged"
    assert report.first_journey_s == pytest.approx(144, abs=1)
    assert [phase.name for phase in report.phases] == ["clear", "data", "shop", "front", "prove"]
    database = report.servers[0]
    assert (database.name, database.host, database.status) == ("db-1", "h1", "done")
    assert database.cpu_s is not None
    assert database.cpu_s > 10
    assert database.ready_s == pytest.approx(59, abs=1)
    assert report.critical_path[-1].step == "journey"
    assert len(report.journey) == 7
    assert report.kept == {"fe-9": "healthy"}
    assert report.next == ""
    text = shown_by(render_report(report))
    for expected in ("first full journey after 2 min 24 s", "db-1/restore", "catégorie", "fe-9: healthy", "storefront"):
        assert expected in text


def test_a_killed_run_shows_what_was_cut_off_and_how_to_go_on() -> None:
    events = Simulation(plan()).events()
    report = report_of(until(events, 70))
    assert report.outcome == "interrupted (killed)"
    assert report.next == "pcloud recover demo"
    states = {server.name: server.status for server in report.servers}
    assert (states["lb-1"], states["fe-1"]) == ("cut off", "not reached")
    assert "cut off" in shown_by(render_report(report))
    assert {bar.bad for bar in chart_of(report).bars} == {True, False}
    running = report_of(until(events, 70), "running")
    assert (running.next, running.servers[-1].status) == ("", "running")


def test_a_failed_run_shows_the_problem_and_what_it_kept_from_being_done() -> None:
    report = report_of(fold(Simulation(plan(), fails="db-1/ready").events()))
    problem = report.problems[0]
    assert problem.skipped == len([step for step in report.steps if step.status == "skipped"]) > 20
    assert report.next == "pcloud console demo/fe-2"
    text, page = shown_by(render_report(report)), render_html(report)
    assert "Failed to mount" in text
    assert "Failed to mount" in page
    assert "\x1b" not in page


def test_only_a_boot_that_was_waited_for_counts_as_boot_cpu() -> None:
    info = StepInfo("fe-1/ready", "p", (), "h1", "fe-1", "ready")
    start = RunStarted("r", "demo", "recover", "d", "2025", ("p",), (info,))
    for changed, facts, expected in (
        (True, {"cpu_s": 14.2}, 14.2),
        (False, {"cpu_s": 9e5}, None),
        (True, {"cpu_s": "x"}, None),
    ):
        state = fold([start, StepStarted(info.key, 0), StepDone(info.key, 9, changed, facts)])
        assert report_of(state).servers[0].cpu_s == expected


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"backup": "1", "reached": "0-1-9", "tables": 81, "rows": 7},
            "the backup 1, replayed to 0-1-9, is what idx-1 has: 81 tables, 7 rows",
        ),
        ({"not compared": "it would take about 90 s: x"}, "not compared with idx-1: it would take about 90 s: x"),
    ],
)
def test_what_a_backup_was_compared_with_is_said(facts: dict[str, Any], said: str) -> None:
    info = StepInfo("compare", "backup", (), None, "idx-1", "compare")
    start = RunStarted("r", "demo", "backup", "d", "2025", ("backup",), (info,))
    report = report_of(fold([start, StepStarted(info.key, 0), StepDone(info.key, 9, True, facts)]))
    assert report.compared == said
    assert said in shown_whole(render_report(report))


def test_html_is_escaped() -> None:
    evil = '<script>alert("x")</script>'
    start = RunStarted(
        "r", evil, evil, "d", evil, (evil,), (StepInfo(evil, evil, (), evil, evil, evil, evil),), kept={evil: evil}
    )
    state = fold(
        [start, StepStarted(evil, 0), StepFailed(evil, 3, evil, evil, evil), RunFinished("failed", 3, "", {evil: evil})]
    )
    page = render_html(report_of(state))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_overlapping_steps_of_a_server_are_drawn_in_lanes() -> None:
    chart = chart_of(report_of(fold(Simulation(plan()).events())))
    for one in chart.bars:
        for other in chart.bars:
            apart = one.y != other.y or one.x + one.width <= other.x + 1.6 or other.x + other.width <= one.x + 1.6
            assert one is other or apart
        assert 0 <= one.x <= one.x + one.width <= chart.width
        assert one.y + one.height <= chart.height
    assert 3 <= len(chart.ticks) <= 12


def test_runs_are_listed() -> None:
    start = fold(Simulation(plan()).events()).started
    runs = [
        RunSummary("demo", "20250301-031502-recover", "recover", start.date, "converged", 144.2, 144.0, Path("x")),
        RunSummary(
            "demo", "20250302-031502-recover", "recover", start.date, "interrupted (killed)", 20.0, None, Path("y")
        ),
    ]
    shown = shown_whole(render_runs(runs, datetime.fromisoformat(start.date) + timedelta(hours=5)))
    assert len(shown.splitlines()) == 3
    assert "✓ converged" in shown
    assert "2 min 24 s" in shown
    assert shown.count(" Z, 5 h ago") == 2
