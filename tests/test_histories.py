"""No acknowledged order is missing that was not said to be lost: over histories that nobody thought of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcloud.desired import Desired
from pcloud.observed import Observed
from tests.histories import History
from tests.ledger import unsaid
from tests.scenario import new_world

lags = st.floats(0, 2)
Event = tuple[str, object]


def one(name: str, value: st.SearchStrategy[object] = st.none()) -> st.SearchStrategy[Event]:  # noqa: B008
    return st.tuples(st.just(name), value)


events = st.one_of(
    one("shop", st.floats(0, 90)),
    one("shop", st.floats(0, 10)),
    one("time", st.floats(0, 90)),
    one("order", lags),
    one("cut"),
    one("mend", lags),
    one("look"),
    one("policy", st.sampled_from([0.0, 5.0, 30.0, 600.0, 2_147_483.647])),
    one("waiting", st.booleans()),
    one("restart primary"),
    one("restart replica"),
    one("slow"),
    one("stuck"),
    one("apply"),
    one("lose relay"),
    one("keep"),
    one("stop streaming"),
    one("frontends", st.booleans()),
    one("balancer", st.booleans()),
    one("silent", st.booleans()),
    one("by hand"),
    one("policy of the next", st.sampled_from([5.0, 30.0])),
    one("forgets", st.booleans()),
    one("cut off and lost", st.floats(0.5, 3)),
    one("cut off and lost", st.floats(0.9, 1.5)),
    one("kept and both lost", st.floats(0, 20)),
    one("lost", st.floats(0, 3_000)),
    one("lost and back", st.floats(0, 100)),
    one("failover", st.tuples(st.floats(0, 100), st.booleans(), st.booleans())),
    one("lose both"),
    one("comes back", st.booleans()),
    one("replica lost", st.floats(0, 60)),
    one("both dark", st.tuples(st.sampled_from(["primary first", "replica first", "replica only"]), st.floats(0, 100))),
)


def judge(history: History) -> None:
    """None is missing that no sentence covered; each covers once."""
    silent = unsaid(history.missing(), history.said)
    assert not silent, f"{silent} of {history.missing()}: {history.said}"


def take_over(history: History, pause_s: float = 0.0, *, silent: bool = False, cut: bool = False) -> None:
    """A person reads, and accepts what is asked for; somebody has the role in the end, whatever it is."""
    price = ""
    for _ in range(8):
        asked = history.recover(price, pause_s, silent=silent, cut=cut)
        judge(history)
        if not asked:
            return
        price, pause_s = asked if asked != "refused" else "" if price else "unknown", 0.0
    raise AssertionError("nobody may take over, whatever a person accepts")


def lose(history: History, later_s: float) -> None:
    history.lose_primary()
    history.pass_time(later_s)
    take_over(history)


def lose_for_a_while(history: History, later_s: float) -> None:
    history.lose_primary()
    history.pass_time(later_s)
    history.primary_returns()


def cut_off_and_lose(history: History, times: float) -> None:
    """The replica is cut off for so many times as long as a commit waits; then the primary dies."""
    history.cut()
    history.shop(min(600.0, times * history.timeout_s + 1))
    lose(history, 20.0)


def keep_and_lose_both(history: History, seconds: float) -> None:
    history.keep()
    history.shop(seconds)
    history.stop_streaming()
    history.shop(seconds)
    history.look()
    history.shop(seconds)
    history.lose_both()


def lose_power_of_both(history: History, which: tuple[str, float]) -> None:
    """In the same second; they come back in any order, or the primary does not."""
    first, later_s = which
    history.lose_primary()
    history.cut()
    history.restart_replica()
    history.pass_time(later_s)
    if first == "primary first":
        history.primary_returns()
        history.shop(later_s)
        history.mend(0.0)
    else:
        take_over(history)
        history.come_back(first == "replica first")


HAPPENS: Mapping[str, Callable[[History, Any], object]] = {
    "shop": History.shop,
    "time": History.pass_time,
    "order": History.order,
    "cut": lambda h, _: h.cut(),
    "mend": History.mend,
    "look": lambda h, _: h.look(),
    "policy": History.set_policy,
    "waiting": History.switch_waiting,
    "restart primary": lambda h, _: h.restart_primary(),
    "restart replica": lambda h, _: h.restart_replica(),
    "slow": lambda h, _: h.stop_applying(error=False),
    "stuck": lambda h, _: h.stop_applying(error=True),
    "apply": lambda h, _: h.apply_again(),
    "lose relay": lambda h, _: h.lose_relay(),
    "keep": lambda h, _: h.keep(),
    "stop streaming": lambda h, _: h.stop_streaming(),
    "frontends": lambda h, on: setattr(h, "frontends", on),
    "balancer": lambda h, on: setattr(h, "balancer", on),
    "silent": lambda h, on: setattr(h, "silent", {"h4", "h7"} if on else set()),
    "by hand": lambda h, _: h.switch_off_by_hand(),
    "policy of the next": lambda h, s: setattr(h, "wanted_s", s),
    "forgets": lambda h, on: setattr(h, "forgets", on),
    "cut off and lost": cut_off_and_lose,
    "kept and both lost": keep_and_lose_both,
    "lost": lose,
    "lost and back": lose_for_a_while,
    "failover": lambda h, v: take_over(h, v[0], silent=v[1], cut=v[2]),
    "lose both": lambda h, _: h.lose_both(),
    "comes back": History.come_back,
    "replica lost": History.lose_replica,
    "both dark": lose_power_of_both,
}


def happen(history: History, event: str, value: object) -> None:
    HAPPENS[event](history, value)
    judge(history)


@cache
def site() -> tuple[Desired, Observed]:
    """The demo site as all is well. Nothing reads its image."""
    with TemporaryDirectory() as folder:
        image = Path(folder) / "disk.qcow2"
        image.write_bytes(b"an image's bytes")
        world = new_world(image, whole=True)[0]
        return world.desired, world.observe()


courses = given(course=st.lists(events, min_size=3, max_size=25), timeout_s=st.sampled_from([5.0, 30.0]))


@settings(max_examples=200, deadline=None)
@courses
def test_no_acknowledged_order_is_missing_that_was_not_said(course: list[Event], timeout_s: float) -> None:
    play(course, timeout_s)


@pytest.mark.chaos
@settings(max_examples=20_000, deadline=None, derandomize=False)
@courses
def test_nor_in_many_more_histories(course: list[Event], timeout_s: float) -> None:
    play(course, timeout_s)


def play(course: list[Event], timeout_s: float) -> None:
    """Whatever happens, the primary is lost at the end, and somebody takes over."""
    history = History(*site(), timeout_s)
    history.look()
    for event, value in [*course, ("lost", 20.0), ("comes back", True), ("comes back", False)]:
        happen(history, event, value)


def test_the_usual_night_loses_nothing_and_says_so() -> None:
    """All of them lost the primary in the same second; the operator comes twenty minutes later."""
    history = History(*site())
    history.look()
    for _ in range(50):
        history.pass_time(1.0)
        history.order(1.5)
    history.lose_primary()
    history.pass_time(1_200)
    assert history.recover() == ""
    assert history.missing() == {}
