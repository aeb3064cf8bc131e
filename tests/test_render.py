"""The log, JSON lines, the choice of a face, the plan, and how things are worded."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pcloud.events import (
    Event,
    RunStarted,
    Status,
    StepBlocked,
    StepFailed,
    StepInfo,
    StepProgress,
    StepSkipped,
    StepStarted,
    fold,
    to_json,
)
from pcloud.render.faces import Face, choose_face
from pcloud.render.lines import JsonFace, LogFace
from pcloud.render.live import LiveFace
from pcloud.render.overview import overview
from pcloud.render.plan import render_plan
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
from tests.consoles import UNSAFE, new_console, play, shown_by, written
from tests.synthetic_runs import FAILURE, Simulation, legal_runs, plan, plans


@given(legal_runs(), st.sampled_from(["utf-8", "ascii"]))
def test_the_log_shows_any_run_a_line_an_event(events: list[Event], encoding: str) -> None:
    console = new_console(encoding=encoding)
    play(LogFace(console), events)
    for line in written(console).splitlines():
        assert re.match(r"\+[0-9]{2,}:[0-9]{2}\.[0-9] +[a-z]+ ", line + " "), line
        assert not UNSAFE.search(line)


def test_the_log_is_aligned_and_complete() -> None:
    console = new_console()
    events = Simulation(plan(), fails="fe-2/ready", kept={"fe-9": "healthy on h9"}).events()
    play(LogFace(console), events)
    log = written(console).splitlines()
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
    console = new_console()
    start = RunStarted("r", "demo", "recover", "d", "2025", ("p",), (StepInfo("a", "p"), StepInfo("b", "p")))
    events: list[Event] = [start, StepStarted("a", 0), StepStarted("b", 0)]
    events += [StepProgress(key, at / 2, at, 100, "B", "copying") for at in range(1, 100) for key in "ab"]
    play(LogFace(console), events)
    told = re.findall(r"^\+(\S+) +progress +a +a  [0-9]+%  [0-9]+/100 B$", written(console), re.M)
    assert told == ["00:10.0", "00:20.0", "00:30.0", "00:40.0"]


@given(legal_runs(), st.sampled_from(["utf-8", "ascii"]))
def test_the_json_face_writes_the_journals_lines(events: list[Event], encoding: str) -> None:
    console = new_console(encoding=encoding)
    play(JsonFace(console), events)
    lines = written(console).split("\n")
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
        play(kind(console), Simulation(plan(1)).events())
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), file.fileno())


def _leave() -> None:
    """What rich does, less its closing of the tests' own output."""
    raise SystemExit(1)


def test_the_face_fits_where_the_output_goes() -> None:
    assert isinstance(choose_face(True, new_console(terminal=True)), JsonFace)
    assert isinstance(choose_face(False, new_console(terminal=True)), LiveFace)
    assert isinstance(choose_face(False, new_console()), LogFace)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(choose_face(False, dumb), LogFace)


@given(plans(), st.sampled_from(["utf-8", "ascii"]), st.integers(20, 200))
def test_any_plan_isshown_by(steps: tuple[StepInfo, ...], encoding: str, width: int) -> None:
    problem = StepBlocked("x", 0, FAILURE, "h1", "do it")
    shown = shown_by(
        render_plan(steps, kept={"a": "b"}, durations={"ready": 1}, blocked=[problem]), encoding=encoding, width=width
    )
    assert not UNSAFE.search(shown)


def test_the_plan_is_a_tree_with_reasons_and_the_critical_path() -> None:
    events = Simulation(plan()).events()
    shown = shown_by(
        render_plan(plan(), kept={"fe-9": "running on h9"}, durations=durations_from([fold(events)])), width=100
    )
    assert "├── clear  7 steps" in shown
    assert "retire (generation 3 is unhealthy)" in shown
    assert "│   ├── db-1 on h1  missing" in shown
    assert "◆image (not on this host) → ◆disk → ◆seed" in shown
    assert "✓ fe-9  running on h9" in shown
    assert "◆ critical path  13 of 52 steps, about 2 min going by past runs" in shown
    assert "about" not in shown_by(render_plan(plan()))
    copying = shown_by(render_plan(plan(), to_copy=110_000_000, copy_rate=1e8), width=100)
    assert "images to copy  110 MB, under 10 s going by past runs" in copying


def test_an_empty_plan_says_so() -> None:
    assert "nothing to do" in shown_by(render_plan(()))


@given(st.text())
def test_cleaned_text_is_safe_and_keeps_its_letters(text: str) -> None:
    assert not UNSAFE.search(clean(text))
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
