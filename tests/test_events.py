"""The events of a run: written, read back, folded; what cannot happen is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from pcloud.events import (
    Event,
    IllegalTransition,
    Interrupted,
    JourneyStepPassed,
    RunFinished,
    RunStarted,
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
    from_json,
    to_json,
)
from tests.synthetic_runs import Simulation, legal_runs, plan

START = RunStarted(
    "r", "demo", "recover", "d", "2025-03-01T00:00:00+00:00", ("p",), (StepInfo("a", "p"), StepInfo("b", "p", ("a",)))
)
END = RunFinished("converged", 9, "2025-03-01T00:00:09+00:00")


def _has_nan(value: object) -> bool:
    """NaN is unequal to itself, and may be a fact; a text that says so is let through too."""
    return "nan" in repr(value)


@given(legal_runs())
def test_every_event_reads_back_as_it_was_written(events: list[Event]) -> None:
    for event in events:
        line = to_json(event)
        assert "\n" not in line
        assert from_json(line) == event or _has_nan(event)


@given(legal_runs())
def test_a_legal_run_folds_the_same_live_and_in_replay(events: list[Event]) -> None:
    live = begin(events[0])
    for event in events[1:]:
        live = advance(live, event)
    replayed = fold([from_json(to_json(event)) for event in events])
    assert repr(replayed) == repr(live)
    assert live.at == max(event.at for event in events)
    assert list(live.steps) == [step.key for step in live.started.steps]


def test_a_whole_run_ends_with_every_step_done() -> None:
    state = fold(Simulation(plan()).events())
    assert {step.status for step in state.steps.values()} == {Status.DONE}
    assert state.finished is not None
    assert len(state.visits) == 7


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "null", '"x"', "{}", '{"event":"Nonsense"}', '{"event":"StepStarted"}', '{"event":["StepStarted"]}',
     '{"event":"StepStarted","step":"a","at":1,"more":2}', '{"event":"RunStarted","phases":1,"steps":[]}'],
)  # fmt: skip
def test_a_line_that_is_no_event_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError, match="not an event"):
        from_json(line)


def test_the_kinds_stand_in_the_line_and_accents_stay_readable() -> None:
    line = to_json(JourneyStepPassed("journey", "catégorie", 0.1, 2.0))
    assert json.loads(line)["event"] == "JourneyStepPassed"
    assert "catégorie" in line


@pytest.mark.parametrize(
    ("before", "then"),
    [
        ([], StepDone("a", 1)),
        ([], StepProgress("a", 1)),
        ([], StepFailed("a", 1, "x")),
        ([], StepBlocked("a", 1, "x")),
        ([], JourneyStepPassed("a", "home", 0.1, 1)),
        ([], StepStarted("nobody", 1)),
        ([], START),
        ([StepStarted("a", 1)], StepStarted("a", 2)),
        ([StepStarted("a", 1)], StepSkipped("a", 2, "b")),
        ([StepStarted("a", 1), StepDone("a", 2)], StepStarted("a", 3)),
        ([StepStarted("a", 1), StepFailed("a", 2, "x")], StepDone("a", 3)),
        ([StepSkipped("a", 1, "b")], StepStarted("a", 2)),
        ([END], StepStarted("a", 10)),
        ([END], Interrupted(10)),
        ([END], END),
    ],
)
def test_what_cannot_follow_is_refused(before: list[Event], then: Event) -> None:
    state = fold([START, *before])
    with pytest.raises(IllegalTransition):
        advance(state, then)


def test_a_run_begins_with_its_start() -> None:
    with pytest.raises(IllegalTransition):
        begin(StepStarted("a", 1))
    with pytest.raises(IllegalTransition):
        fold([])


def test_times_and_facts_are_kept() -> None:
    state = fold([START, StepStarted("a", 1), StepDone("a", 3.5, False, {"cpu_s": 2.5}), Interrupted(4)])
    step = state.steps["a"]
    assert (step.seconds, step.changed, step.facts) == (2.5, False, {"cpu_s": 2.5})
    assert state.steps["b"].seconds == 0.0
    assert state.interrupted
    assert state.at == 4


def test_a_journal_of_before_there_was_kept_still_reads() -> None:
    data = json.loads(to_json(START))
    del data["kept"]
    event = from_json(json.dumps(data))
    assert event == START
