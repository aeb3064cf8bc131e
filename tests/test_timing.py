"""Durations and critical paths."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcloud.events import Event, RunStarted, StepDone, StepFailed, StepInfo, StepSkipped, StepStarted, fold
from pcloud.timing import (
    DEFAULT_S,
    actual_path,
    critical_path,
    durations_from,
    family,
    journey_s,
    predicted_s,
    predicted_total_s,
    remaining_s,
)
from tests.synthetic_runs import Simulation, legal_runs, plan, plans

_durations = st.dictionaries(st.sampled_from([*DEFAULT_S, "fe/ready", "db/ready"]), st.floats(0, 1000))


def _longest(steps: tuple[StepInfo, ...], durations: dict[str, float]) -> float:
    by_key = {step.key: step for step in steps}

    @cache
    def ends(key: str) -> float:
        step = by_key[key]
        return predicted_s(step, durations) + max((ends(need) for need in step.needs if need in by_key), default=0.0)

    return max((ends(key) for key in by_key), default=0.0)


@given(plans(), _durations)
def test_the_critical_path_is_a_longest_chain(steps: tuple[StepInfo, ...], durations: dict[str, float]) -> None:
    path = critical_path(steps, durations)
    by_key = {step.key: step for step in steps}
    for before, after in pairwise(path):
        assert before in by_key[after].needs
    assert math.isclose(predicted_total_s(steps, durations), _longest(steps, durations), abs_tol=1e-6)
    assert bool(path) == bool(steps)
    assert critical_path(steps, durations) == path


def test_the_plan_of_a_site_is_decided_by_its_slowest_chain() -> None:
    path = critical_path(plan(), {})
    assert path[0] == "h1/image/database"
    assert "db-1/restore" in path
    assert path[-1] == "journey"


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        critical_path((StepInfo("a", "p", ("b",)), StepInfo("b", "p", ("a",))), {})


def test_needs_outside_the_plan_are_not_waited_for() -> None:
    assert critical_path((StepInfo("a", "p", ("gone",)),), {}) == ("a",)


@pytest.mark.parametrize(
    ("server", "expected"), [("fe-3", "fe"), ("idx-12", "idx"), ("lb", "lb"), ("12", "12"), ("db2", "db")]
)
def test_families(server: str, expected: str) -> None:
    assert family(server) == expected


def test_a_prediction_takes_the_closest_thing_it_knows() -> None:
    ready = StepInfo("fe-1/ready", "p", (), "h1", "fe-1", "ready")
    assert predicted_s(ready, {"fe/ready": 3, "ready": 9}) == 3
    assert predicted_s(ready, {"db/ready": 3, "ready": 9}) == 9
    assert predicted_s(ready, {}) == DEFAULT_S["ready"]
    assert predicted_s(StepInfo("x", "p", action="new"), {}) == 1.0


def test_durations_are_medians_of_what_was_really_done() -> None:
    def run(seconds: float, changed: bool = True) -> list[Event]:
        info = StepInfo("fe-1/ready", "p", (), "h1", "fe-1", "ready")
        start = RunStarted("r", "s", "o", "d", "2025", ("p",), (info,))
        return [start, StepStarted(info.key, 1), StepDone(info.key, 1 + seconds, changed)]

    runs = [fold(run(s)) for s in (10, 30, 20)] + [fold(run(0.01, changed=False))] * 5
    assert durations_from(runs) == {"fe/ready": 20, "ready": 20}
    assert durations_from([]) == {}


def test_the_actual_path_walks_back_from_the_journey() -> None:
    state = fold(Simulation(plan()).events())
    path = actual_path(state)
    assert path[-1] == "journey"
    assert path[0].endswith("image/database")
    assert "db-1/restore" in path
    for before, after in pairwise(path):
        ends = [state.steps[need].ended_at or 0 for need in state.steps[after].info.needs]
        assert state.steps[before].ended_at == max(ends)


def test_without_a_journey_the_path_leads_to_what_ended_last() -> None:
    infos = (StepInfo("a", "p"), StepInfo("b", "p", ("a",)), StepInfo("c", "p"), StepInfo("journey", "p", ("b", "c")))
    start = RunStarted("r", "s", "o", "d", "2025", ("p",), infos)
    events: list[Event] = [
        start, StepStarted("a", 0), StepStarted("c", 0), StepDone("c", 1), StepDone("a", 2), StepStarted("b", 2),
        StepFailed("b", 9, "x"), StepSkipped("journey", 9, "b"),
    ]  # fmt: skip
    state = fold(events)
    assert actual_path(state) == ("a", "b")
    assert journey_s(state) is None
    assert actual_path(fold([start])) == ()
    assert actual_path(fold(events[:3])) in (("a",), ("c",))


def test_the_first_journey_is_when_its_step_ended() -> None:
    events = Simulation(plan()).events()
    assert journey_s(fold(events)) == next(e.at for e in events if isinstance(e, StepDone) and e.step == "journey")


@given(legal_runs(), st.floats(0, 1e6), _durations)
def test_paths_and_forecasts_of_any_run(events: list[Event], now: float, durations: dict[str, float]) -> None:
    state = fold(events)
    path = actual_path(state)
    assert len(set(path)) == len(path)
    left = remaining_s(state, now, durations)
    assert 0 <= left <= predicted_total_s(state.started.steps, durations) + 1e-6


def test_what_is_left_shrinks_to_nothing() -> None:
    events = Simulation(plan()).events()
    durations = durations_from([fold(events)])
    lefts = [remaining_s(fold(events[:n]), events[n - 1].at, durations) for n in range(1, len(events) + 1, 10)]
    assert lefts[0] > 100
    assert remaining_s(fold(events), events[-1].at, durations) == 0
    assert sum(later > earlier + 5 for earlier, later in pairwise(lefts)) == 0
