"""No acknowledged order is missing that was not said to be lost: over histories that nobody thought of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.histories import History
from tests.ledger import unsaid

lags = st.floats(0, 2)
events = st.one_of(
    st.tuples(st.just("time"), st.floats(0, 90)),
    st.tuples(st.just("order"), lags),
    st.tuples(st.just("cut"), st.none()),
    st.tuples(st.just("mend"), lags),
    st.tuples(st.just("look"), st.none()),
    st.tuples(st.just("policy"), st.sampled_from([0.0, 5.0, 30.0, 600.0, 2_147_483.647])),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("waiting"), st.booleans()),
    st.tuples(st.just("lost"), st.floats(0, 3_000)),
)


def happen(history: History, event: str, value: object) -> None:
    match event, value:
        case "time", float(seconds):
            history.pass_time(seconds)
        case "order", float(lag_s):
            history.order(lag_s)
        case "cut", _:
            history.cut()
        case "mend", float(lag_s):
            history.mend(lag_s)
        case "look", _:
            history.look()
        case "policy", float(timeout_s):
            history.set_policy(timeout_s)
        case "restart", _:
            history.restart()
        case "waiting", bool(on):
            history.switch_waiting(on)
        case "lost", float(later_s):
            loss = history.lose_primary(later_s)
            missing = history.missing()
            silent = unsaid(missing, [str(loss)])
            assert not silent, f"{loss}; missing {missing}"
            history.promote()


@settings(max_examples=1000, deadline=None)
@given(st.lists(events, max_size=40), st.sampled_from([5.0, 30.0]))
def test_no_acknowledged_order_is_missing_that_was_not_said(course: list[tuple[str, object]], timeout_s: float) -> None:
    history = History(timeout_s)
    history.look()
    for event, value in [*course, ("lost", 20.0)]:
        happen(history, event, value)


def test_the_usual_night_loses_nothing_and_says_so() -> None:
    """All of them lost the primary in the same second; the operator comes twenty minutes later."""
    history = History(30.0)
    history.look()
    for _ in range(50):
        history.pass_time(1.0)
        history.order(1.5)
    assert history.lose_primary(1_200).none
