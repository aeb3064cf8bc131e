"""Every face of a run: each shows any legal run, fits where it is shown, and is safe to look at."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from rich.text import Text

from pcloud.events import (
    Event,
    Interrupted,
    JourneyStepPassed,
    RunFinished,
    RunStarted,
    RunState,
    Status,
    StepBlocked,
    StepDone,
    StepFailed,
    StepInfo,
    StepProgress,
    StepSkipped,
    StepStarted,
    advance,
    begin,
    fold,
    to_json,
)
from pcloud.journal import RunSummary
from pcloud.render.faces import Face, choose_face
from pcloud.render.frame import frame
from pcloud.render.gantt import chart_of
from pcloud.render.lines import JsonFace, LogFace
from pcloud.render.live import LiveFace
from pcloud.render.overview import overview, subjects_of
from pcloud.render.plan import render_plan
from pcloud.render.report import report_of
from pcloud.render.report_html import render_html
from pcloud.render.report_text import render_report, render_runs
from pcloud.render.words import (
    CUT,
    STYLES,
    SYMBOLS,
    UNREACHED,
    amount,
    clean,
    clock,
    fraction,
    names,
    one_line,
    plain_ascii,
    rough,
    size,
    span,
    stamp,
)
from pcloud.timing import durations_from
from tests.synthetic_runs import FAILURE, Simulation, legal_runs, plan, plans

_SIZES = st.tuples(st.integers(1, 200), st.integers(1, 60))
_UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


class Ticking:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def wall(self) -> datetime:
        return datetime(2025, 3, 1, tzinfo=UTC)

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def _console(*, terminal: bool = False, encoding: str = "utf-8", width: int = 80, height: int = 24) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    environment = {"TERM": "xterm-256color"}
    return Console(file=file, force_terminal=terminal, width=width, height=height, _environ=environment)


def _written(console: Console) -> str:
    assert isinstance(console.file, io.TextIOWrapper)
    raw = console.file.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode(console.file.encoding)


def _shown(renderable: RenderableType, *, encoding: str = "utf-8", width: int = 80) -> str:
    console = _console(encoding=encoding, width=width)
    console.print(renderable)
    return _written(console)


def _play(face: Face, events: list[Event]) -> RunState:
    state = begin(events[0])
    face.show(state, events[0])
    for event in events[1:]:
        state = advance(state, event)
        face.show(state, event)
    face.close()
    return state


def _at(events: list[Event], seconds: float) -> RunState:
    return fold([event for event in events if event.at <= seconds])


def _text(lines: list[Text]) -> str:
    return "\n".join(line.plain.rstrip() for line in lines)


# --- the picture of a terminal


@given(legal_runs(), _SIZES, st.floats(0, 1e6))
def test_any_run_fits_any_terminal(events: list[Event], area: tuple[int, int], later: float) -> None:
    width, height = area
    for state in {id(s): s for s in (fold(events[: len(events) // 2 + 1]), fold(events))}.values():
        lines = frame(state, state.at + later, width, height, {"ready": 5.0})
        assert 1 <= len(lines) <= max(1, height - 1)
        for line in lines:
            assert line.cell_len <= width
            assert not _UNSAFE.search(line.plain)
            assert "\n" not in line.plain


@given(st.integers(0, 60), st.floats(0, 1500), _SIZES, st.sampled_from(["", "fe-2/ready", "h1/image/database"]))
@settings(max_examples=30, deadline=None)
def test_big_sites_fit_too(frontends: int, at: float, area: tuple[int, int], fails: str) -> None:
    state = _at(Simulation(plan(frontends), fails=fails).events(), at)
    lines = frame(state, at, *area)
    assert len(lines) <= max(1, area[1] - 1)
    assert all(line.cell_len <= area[0] for line in lines)


def test_seven_servers_each_have_their_line() -> None:
    events = Simulation(plan(), kept={"fe-9": "healthy"}).events()
    shown = _text(frame(_at(events, 20), 20, 80, 24))
    assert re.search(r"^demo  recover  phase 2/5, data +0:20$", shown, re.M)
    assert re.search(r"^▸ db-1  h1  booting: 10\.77\.0\.21:80 refuses the connection +limit 5:00 +0:05$", shown, re.M)
    assert re.search(r"^· fe-1  h3  waits for db-1/restore$", shown, re.M)
    assert re.search(r"^· shopper  waits for fe-1/ready$", shown, re.M)
    for server in ("db-1", "idx-1", "fe-1", "fe-2", "fe-3", "fe-4", "lb-1"):
        assert len(re.findall(rf"^. {server} ", shown, re.M)) == 1


def test_a_copy_shows_how_far_it_is() -> None:
    shown = _text(frame(_at(Simulation(plan()).events(), 8), 8, 80, 24))
    assert re.search(r"db-1  h1  sending its image +━+─* +[0-9]+% +[0-9]+/210 MB +0:0[0-9]$", shown, re.M)


def test_with_past_runs_the_head_tells_how_long_is_left() -> None:
    events = Simulation(plan()).events()
    shown = _text(frame(_at(events, 20), 20, 80, 24, durations_from([fold(events)])))
    assert re.search(r"about [0-9] min left  0:20$", shown.splitlines()[0])


def test_forty_servers_are_folded_and_the_running_stay_in_sight() -> None:
    events = Simulation(plan(36)).events()
    shown = _text(frame(_at(events, 300), 300, 80, 24))
    assert len(shown.splitlines()) <= 23
    assert re.search(r"^· [0-9]+ waiting: fe-", shown, re.M)
    assert re.search(r"^✓ [0-9]+ done: .*fe-1\.\.fe-", shown, re.M)
    assert len(re.findall(r"^▸ fe-[0-9]+ ", shown, re.M)) == 8


def test_the_last_problem_says_what_and_what_next() -> None:
    events = Simulation(plan(), fails="fe-2/ready").events()
    failed_at = next(event.at for event in events if isinstance(event, StepFailed))
    shown = _text(frame(_at(events, failed_at), failed_at, 80, 24))
    assert "✗ fe-2/ready" in shown
    assert "likely: its disk is" in shown
    assert "next: pcloud console demo/fe-2" in shown
    assert re.search(r"^✗ fe-2  h4  failed: booting", shown, re.M)


def test_a_stopping_run_says_so() -> None:
    events = [event for event in Simulation(plan()).events() if event.at <= 20]
    shown = _text(frame(fold([*events, Interrupted(20)]), 20, 80, 24))
    assert "stopping: nothing new starts, 3 running steps may end" in shown


def test_a_failed_walk_begins_anew() -> None:
    start = RunStarted("r", "demo", "recover", "d", "2025", ("p",), (StepInfo("journey", "p", action="journey"),))
    walked = [JourneyStepPassed("journey", name, 0.05, at) for at, name in enumerate(("home", "category", "home"), 1)]
    events: list[Event] = [start, StepStarted("journey", 0), *walked]
    assert [visit.visit for visit in overview(fold(events)).visits] == ["home"]
    again = StepProgress("journey", 4, doing="walking again (search answered 502)")
    shown = _text(frame(fold([*events, again]), 4, 80, 24))
    assert "✓ home 50 ms   walking again (search answered 502)" in shown


def test_a_hosts_image_belongs_to_the_server_that_waits_for_it() -> None:
    owners = subjects_of(plan())
    assert owners["h3/image/frontend"] == ("fe-1", "h3")
    assert owners["fe-1/ready"] == ("fe-1", "h3")
    alone = StepInfo("h9/image/frontend", "p", host="h9", action="image")
    assert subjects_of([alone, StepInfo("shop/run", "p", action="run")]) == {
        "h9/image/frontend": ("h9", ""),
        "shop/run": ("shop", ""),
    }


def test_a_site_with_nothing_to_do_is_a_calm_picture() -> None:
    start = RunStarted("r", "demo", "recover", "d", "2025", ("data", "prove"), ())
    shown = _text(frame(fold([start, RunFinished("converged", 2, "")]), 2, 80, 24))
    assert "✓ converged" in shown
    assert shown.count("nothing to do") == 2


# --- the live face


def _heights(output: str) -> list[int]:
    """Lines of each picture drawn: what is erased before the next one."""
    return [len(match[0].split("\x1b[1A")) for match in re.finditer(r"\r(?:\x1b\[2K\x1b\[1A)*\x1b\[2K", output)]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (30, 6), (10, 2)])
@pytest.mark.parametrize("frontends", [4, 40])
def test_the_live_face_never_outgrows_the_terminal(width: int, height: int, frontends: int) -> None:
    console, ticking = _console(terminal=True, width=width, height=height), Ticking()
    face = LiveFace(console, clock=ticking)
    events = Simulation(plan(frontends), fails="fe-2/ready").events()
    state = begin(events[0])
    face.show(state, events[0])
    for n, event in enumerate(events[1:]):
        state = advance(state, event)
        face.show(state, event)
        if n % 40 == 0:
            face._draw()
    face.close()
    output = _written(console)
    heights = _heights(output)
    assert len(heights) > (5 if height > 2 else 0)
    assert max(heights) <= max(1, height - 1)
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor is back
    assert "failed" in output.rpartition("\x1b[1A")[2] or height < 6


def test_the_live_face_draws_only_what_changed() -> None:
    console, ticking = _console(terminal=True), Ticking()
    face = LiveFace(console, clock=ticking)
    events = Simulation(plan()).events()
    state = begin(events[0])
    face.show(state, events[0])
    before = len(_written(console))
    for _ in range(5):
        face._draw()
    assert len(_written(console)) == before
    ticking.at += 1
    face._draw()
    assert len(_written(console)) > before
    face.close()


def test_a_question_has_the_terminal_to_itself() -> None:
    console, ticking = _console(terminal=True), Ticking()
    face = LiveFace(console, clock=ticking)
    events = Simulation(plan()).events()
    face.show(begin(events[0]), events[0])
    with face.pause():
        before = _written(console)
        ticking.at += 10
        face.show(begin(events[0]), events[0])
        face._draw()
        time.sleep(0.6)
        assert _written(console) == before
    assert len(_written(console)) > len(before)
    face.close()
    face.close()


def test_closing_during_a_question_does_not_hang() -> None:
    face = LiveFace(_console(terminal=True), clock=Ticking())
    events = Simulation(plan()).events()
    face.show(begin(events[0]), events[0])
    with face.pause():
        closing = threading.Thread(target=face.close)
        closing.start()
        closing.join(timeout=10)
        assert not closing.is_alive()


@given(legal_runs())
@settings(max_examples=25, deadline=None)
def test_the_live_face_shows_any_run(events: list[Event]) -> None:
    console = _console(terminal=True)
    _play(LiveFace(console, {"ready": 3.0}, Ticking()), events)
    rest = re.sub(r"\x1b\[([0-9;]*m|[0-9]*[AK]|\?25[lh])|\r", "", _written(console))
    assert not _UNSAFE.search(rest)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24)
    _play(LiveFace(console, clock=Ticking()), Simulation(plan()).events())
    colours = {code for codes in re.findall(r"\x1b\[([0-9;]*)m", file.getvalue()) for code in codes.split(";")}
    assert colours <= {"", "0", "1", "2", "3"}  # bold, dim and italic only


# --- the faces of lines


@given(legal_runs(), st.sampled_from(["utf-8", "ascii"]))
def test_the_log_shows_any_run_a_line_an_event(events: list[Event], encoding: str) -> None:
    console = _console(encoding=encoding)
    _play(LogFace(console), events)
    for line in _written(console).splitlines():
        assert re.match(r"\+[0-9]{2,}:[0-9]{2}\.[0-9] +[a-z]+ ", line + " "), line
        assert not _UNSAFE.search(line)


def test_the_log_is_aligned_and_complete() -> None:
    console = _console()
    events = Simulation(plan(), fails="fe-2/ready", kept={"fe-9": "healthy on h9"}).events()
    _play(LogFace(console), events)
    log = _written(console).splitlines()
    assert log[0] == "+00:00.0  run       20250301-031502-recover      recover demo: 52 steps"
    assert log[1] == "+00:00.0  kept      fe-9                         healthy on h9"
    assert "+00:00.1  start     h1/image/database            sending its image (not on this host)" in log
    assert any(
        re.fullmatch(r"\+00:5\d\.\d  done      db-1/ready                   44\.1 s  cpu_s=[0-9.]+", x) for x in log
    )
    failed = [line for line in log if re.match(r"\+\S+ +failed +fe-2/ready ", line)]
    assert len(failed) == len(FAILURE.splitlines()) + 2
    assert failed[-1].endswith("next: pcloud console demo/fe-2")
    assert any(line.endswith("skipped   journey                      because of fe-2/ready") for line in log)
    assert re.match(r"\+02:2\d\.\d  failed    20250301", log[-1])


def test_the_log_tells_progress_at_most_every_ten_seconds() -> None:
    console = _console()
    start = RunStarted("r", "demo", "recover", "d", "2025", ("p",), (StepInfo("a", "p"), StepInfo("b", "p")))
    events: list[Event] = [start, StepStarted("a", 0), StepStarted("b", 0)]
    events += [StepProgress(key, at / 2, at, 100, "B", "copying") for at in range(1, 100) for key in "ab"]
    _play(LogFace(console), events)
    told = re.findall(r"^\+(\S+) +progress +a +a  [0-9]+%  [0-9]+/100 B$", _written(console), re.M)
    assert told == ["00:10.0", "00:20.0", "00:30.0", "00:40.0"]


@given(legal_runs(), st.sampled_from(["utf-8", "ascii"]))
def test_the_json_face_writes_the_journals_lines(events: list[Event], encoding: str) -> None:
    console = _console(encoding=encoding)
    _play(JsonFace(console), events)
    lines = _written(console).split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(events)
    for line, event in zip(lines, events, strict=True):
        assert repr(json.loads(line)) == repr(json.loads(to_json(event)))


@pytest.mark.parametrize("kind", [JsonFace, LogFace, LiveFace])
def test_a_reader_that_leaves_does_not_stop_the_run(kind: Callable[[Console], Face]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as file:
        console = Console(file=file, force_terminal=kind is LiveFace, width=80, height=24)
        console.on_broken_pipe = _leave  # type: ignore[method-assign]
        _play(kind(console), Simulation(plan(1)).events())
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), file.fileno())


def _leave() -> None:
    """What rich does, less its closing of the tests' own output."""
    raise SystemExit(1)


def test_the_face_fits_where_the_output_goes() -> None:
    assert isinstance(choose_face(True, _console(terminal=True)), JsonFace)
    assert isinstance(choose_face(False, _console(terminal=True)), LiveFace)
    assert isinstance(choose_face(False, _console()), LogFace)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(choose_face(False, dumb), LogFace)


# --- the plan


@given(plans(), st.sampled_from(["utf-8", "ascii"]), st.integers(20, 200))
def test_any_plan_is_shown(steps: tuple[StepInfo, ...], encoding: str, width: int) -> None:
    problem = StepBlocked("x", 0, FAILURE, "h1", "do it")
    shown = _shown(
        render_plan(steps, kept={"a": "b"}, durations={"ready": 1}, blocked=[problem]), encoding=encoding, width=width
    )
    assert not _UNSAFE.search(shown)


def test_the_plan_is_a_tree_with_reasons_and_the_critical_path() -> None:
    events = Simulation(plan()).events()
    shown = _shown(
        render_plan(plan(), kept={"fe-9": "running on h9"}, durations=durations_from([fold(events)])), width=100
    )
    assert "├── clear  7 steps" in shown
    assert "retire (generation 3 is unhealthy)" in shown
    assert "│   ├── db-1 on h1  missing" in shown
    assert "◆image (not on this host) → ◆disk → ◆seed" in shown
    assert "✓ fe-9  running on h9" in shown
    assert "◆ critical path  13 of 52 steps, about 3 min going by past runs" in shown
    assert "about" not in _shown(render_plan(plan()))


def test_an_empty_plan_says_so() -> None:
    assert "nothing to do" in _shown(render_plan(()))


# --- the report


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
@settings(max_examples=60, deadline=None)
def test_any_run_has_its_report(events: list[Event], outcome: str | None) -> None:
    report = report_of(fold(events), outcome)
    for encoding in ("utf-8", "ascii"):
        assert not _UNSAFE.search(_shown(render_report(report), encoding=encoding))
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
    text = _shown(render_report(report))
    for expected in ("first full journey after 2 min 24 s", "db-1/restore", "catégorie", "fe-9: healthy", "storefront"):
        assert expected in text


def test_a_killed_run_shows_what_was_cut_off_and_how_to_go_on() -> None:
    events = Simulation(plan()).events()
    report = report_of(_at(events, 70))
    assert report.outcome == "interrupted (killed)"
    assert report.next == "pcloud recover demo"
    states = {server.name: server.status for server in report.servers}
    assert (states["lb-1"], states["fe-1"]) == ("cut off", "not reached")
    assert "cut off" in _shown(render_report(report))
    assert {bar.bad for bar in chart_of(report).bars} == {True, False}
    running = report_of(_at(events, 70), "running")
    assert (running.next, running.servers[-1].status) == ("", "running")


def test_a_failed_run_shows_the_problem_and_what_it_kept_from_being_done() -> None:
    report = report_of(fold(Simulation(plan(), fails="db-1/ready").events()))
    problem = report.problems[0]
    assert problem.skipped == len([step for step in report.steps if step.status == "skipped"]) > 20
    assert report.next == "pcloud console demo/fe-2"
    text, page = _shown(render_report(report)), render_html(report)
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
        RunSummary("demo", "r1", "recover", start.date, "converged", 144.2, 144.0, Path("x")),
        RunSummary("demo", "r2", "recover", start.date, "interrupted (killed)", 20.0, None, Path("y")),
    ]
    shown = _shown(render_runs(runs), width=100)
    assert "2025-03-01 03:15" in shown
    assert "✓ converged" in shown
    assert "2 min 24 s" in shown


# --- words


@given(st.text())
def test_cleaned_text_is_safe_and_keeps_its_letters(text: str) -> None:
    assert not _UNSAFE.search(clean(text))
    assert "\n" not in one_line(text)
    assert plain_ascii(one_line(text)).isascii()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("\x1b[0;1;31m[FAILED]\x1b[0m Failed", "[FAILED] Failed"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("pépinière \u202eevil", "pépinière evil"),
        ("\x1bcreset", "reset"),
        ("end\x1b", "end"),
    ],
)
def test_escapes_are_taken_out(raw: str, expected: str) -> None:
    assert clean(raw) == expected


def test_times_are_worded() -> None:
    assert [clock(s) for s in (0, 42.9, 723, 3723, -5, float("nan"), None)] == [
        "0:00",
        "0:42",
        "12:03",
        "1:02:03",
        "0:00",
        "0:00",
        "0:00",
    ]
    assert [span(s) for s in (0, 0.0884, 0.9996, 14.24, 59.96, 102, 7500, None)] == [
        "0 ms", "88 ms", "1.0 s", "14.2 s", "1 min 00 s", "1 min 42 s", "2 h 05 min", "-",
    ]  # fmt: skip
    assert [stamp(s) for s in (0, 42.39, 59.99, 6000)] == ["+00:00.0", "+00:42.3", "+00:59.9", "+100:00.0"]
    assert [rough(s) for s in (3, 41, 90, 91, 600)] == [
        "under 10 s",
        "about 50 s",
        "about 90 s",
        "about 2 min",
        "about 10 min",
    ]


def test_amounts_are_worded() -> None:
    def progress(done: float, total: float, unit: str) -> StepProgress:
        return StepProgress("a", 0, done, total, unit)

    told = [
        (61e6, 200e6, "B"),
        (3, 7, "checks"),
        (12.5e6, 0, "B"),
        (9, 300, "s"),
        (0, 0, "B"),
        (5, 0, "rows"),
        (float("inf"), 1, "B"),
    ]
    assert [amount(progress(*t)) for t in told] == [
        "61/200 MB",
        "3/7 checks",
        "12.5 MB",
        "limit 5:00",
        "",
        "5 rows",
        "0/1 B",
    ]
    assert [fraction(progress(*t)) for t in told] == [0.305, 3 / 7, None, None, None, None, 0]
    assert fraction(progress(9, 3, "B")) == 1
    assert [size(n) for n in (0, 999, 1500, 2.5e9, 123.4e6)] == ["0 B", "999 B", "1.5 kB", "2.5 GB", "123 MB"]


def test_names_are_listed_short() -> None:
    assert names(["fe-10", "fe-2", "fe-1", "fe-3", "lb-1", "db"]) == "db fe-1..fe-3 fe-10 lb-1"
    assert names(["a-1", "a-2"]) == "a-1 a-2"
    assert names([]) == ""


def test_skipped_steps_are_blamed_on_the_first_failure() -> None:
    infos = (StepInfo("a", "p"), StepInfo("b", "p", ("a",)), StepInfo("c", "p", ("b",)))
    start = RunStarted("r", "demo", "recover", "d", "2025", ("p",), infos)
    state = fold(
        [start, StepStarted("a", 0), StepFailed("a", 1, "x"), StepSkipped("b", 1, "a"), StepSkipped("c", 1, "b")]
    )
    assert overview(state).troubles[0].skipped == 2


def test_every_state_has_a_symbol_and_a_colour_of_its_own_kind() -> None:
    assert set(SYMBOLS) == set(STYLES) == {*Status, CUT, UNREACHED}
    told_apart = [SYMBOLS[status] for status in (*Status, CUT)]
    assert len(set(told_apart)) == len(told_apart)
    assert len({plain_ascii(symbol) for symbol in told_apart}) == len(told_apart)
