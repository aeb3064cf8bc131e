"""The picture of a run in progress, and the live face that draws it: calm, and never too tall."""

from __future__ import annotations

import io
import re
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from pcloud.events import (
    Event,
    Interrupted,
    JourneyStepPassed,
    RunFinished,
    RunStarted,
    StepFailed,
    StepInfo,
    StepProgress,
    StepStarted,
    advance,
    begin,
    fold,
)
from pcloud.render.frame import frame
from pcloud.render.live import LiveFace
from pcloud.render.overview import overview, subjects_of
from pcloud.timing import durations_from
from tests.consoles import UNSAFE, Ticking, new_console, play, until, written
from tests.synthetic_runs import Simulation, legal_runs, plan

_SIZES = st.tuples(st.integers(1, 200), st.integers(1, 60))


def _text(lines: list[Text]) -> str:
    return "\n".join(line.plain.rstrip() for line in lines)


@given(legal_runs(), _SIZES, st.floats(0, 1e6))
def test_any_run_fits_any_terminal(events: list[Event], area: tuple[int, int], later: float) -> None:
    width, height = area
    for state in {id(s): s for s in (fold(events[: len(events) // 2 + 1]), fold(events))}.values():
        lines = frame(state, state.at + later, width, height, {"ready": 5.0})
        assert 1 <= len(lines) <= max(1, height - 1)
        for line in lines:
            assert line.cell_len <= width
            assert not UNSAFE.search(line.plain)
            assert "\n" not in line.plain


@given(st.integers(0, 60), st.floats(0, 1500), _SIZES, st.sampled_from(["", "fe-2/ready", "h1/image/database"]))
@settings(max_examples=30, deadline=None)
def test_big_sites_fit_too(frontends: int, at: float, area: tuple[int, int], fails: str) -> None:
    state = until(Simulation(plan(frontends), fails=fails).events(), at)
    lines = frame(state, at, *area)
    assert len(lines) <= max(1, area[1] - 1)
    assert all(line.cell_len <= area[0] for line in lines)


def test_seven_servers_each_have_their_line() -> None:
    events = Simulation(plan(), kept={"fe-9": "healthy"}).events()
    shown = _text(frame(until(events, 20), 20, 80, 24))
    assert re.search(r"^demo  recover  phase 2/5, data +0:20$", shown, re.M)
    assert re.search(r"^▸ db-1  h1  booting: 10\.77\.0\.21:80 refuses the connection +limit 5:00 +0:05$", shown, re.M)
    assert re.search(r"^· fe-1  h3  waits for db-1/restore$", shown, re.M)
    assert re.search(r"^· shopper  waits for fe-1/ready$", shown, re.M)
    for server in ("db-1", "idx-1", "fe-1", "fe-2", "fe-3", "fe-4", "lb-1"):
        assert len(re.findall(rf"^. {server} ", shown, re.M)) == 1


def test_a_copy_shows_how_far_it_is() -> None:
    shown = _text(frame(until(Simulation(plan()).events(), 8), 8, 80, 24))
    assert re.search(r"db-1  h1  sending its image +━+─* +[0-9]+% +[0-9]+/210 MB +0:0[0-9]$", shown, re.M)


def test_with_past_runs_the_head_tells_how_long_is_left() -> None:
    events = Simulation(plan()).events()
    shown = _text(frame(until(events, 20), 20, 80, 24, durations_from([fold(events)])))
    assert re.search(r"about [0-9] min left  0:20$", shown.splitlines()[0])


def test_forty_servers_are_folded_and_the_running_stay_in_sight() -> None:
    events = Simulation(plan(36)).events()
    shown = _text(frame(until(events, 300), 300, 80, 24))
    assert len(shown.splitlines()) <= 23
    assert re.search(r"^· [0-9]+ waiting: fe-", shown, re.M)
    assert re.search(r"^✓ [0-9]+ done: .*fe-1\.\.fe-", shown, re.M)
    assert len(re.findall(r"^▸ fe-[0-9]+ ", shown, re.M)) == 8


def test_the_last_problem_says_what_and_what_next() -> None:
    events = Simulation(plan(), fails="fe-2/ready").events()
    failed_at = next(event.at for event in events if isinstance(event, StepFailed))
    shown = _text(frame(until(events, failed_at), failed_at, 80, 24))
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


def _heights(output: str) -> list[int]:
    """Lines of each picture drawn: what is erased before the next one."""
    return [len(match[0].split("\x1b[1A")) for match in re.finditer(r"\r(?:\x1b\[2K\x1b\[1A)*\x1b\[2K", output)]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (30, 6), (10, 2)])
@pytest.mark.parametrize("frontends", [4, 40])
def test_the_live_face_never_outgrows_the_terminal(width: int, height: int, frontends: int) -> None:
    console, ticking = new_console(terminal=True, width=width, height=height), Ticking()
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
    output = written(console)
    heights = _heights(output)
    assert len(heights) > (5 if height > 2 else 0)
    assert max(heights) <= max(1, height - 1)
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor is back
    assert "failed" in output.rpartition("\x1b[1A")[2] or height < 6


def test_the_live_face_draws_only_what_changed() -> None:
    console, ticking = new_console(terminal=True), Ticking()
    face = LiveFace(console, clock=ticking)
    events = Simulation(plan()).events()
    state = begin(events[0])
    face.show(state, events[0])
    before = len(written(console))
    for _ in range(5):
        face._draw()
    assert len(written(console)) == before
    ticking.at += 1
    face._draw()
    assert len(written(console)) > before
    face.close()


def test_a_question_has_the_terminal_to_itself() -> None:
    console, ticking = new_console(terminal=True), Ticking()
    face = LiveFace(console, clock=ticking)
    events = Simulation(plan()).events()
    face.show(begin(events[0]), events[0])
    with face.pause():
        before = written(console)
        ticking.at += 10
        face.show(begin(events[0]), events[0])
        face._draw()
        time.sleep(0.6)
        assert written(console) == before
    assert len(written(console)) > len(before)
    face.close()
    face.close()


def test_closing_during_a_question_does_not_hang() -> None:
    face = LiveFace(new_console(terminal=True), clock=Ticking())
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
    console = new_console(terminal=True)
    play(LiveFace(console, {"ready": 3.0}, Ticking()), events)
    rest = re.sub(r"\x1b\[([0-9;]*m|[0-9]*[AK]|\?25[lh])|\r", "", written(console))
    assert not UNSAFE.search(rest)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24)
    play(LiveFace(console, clock=Ticking()), Simulation(plan()).events())
    colours = {code for codes in re.findall(r"\x1b\[([0-9;]*)m", file.getvalue()) for code in codes.split(";")}
    assert colours <= {"", "0", "1", "2", "3"}  # bold, dim and italic only
