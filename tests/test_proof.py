"""When a host is off: answers of a controller, weighed; and the signs of life beside them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcloud.alive import PORT, Search
from pcloud.model import Check
from pcloud.observed import HostPower
from pcloud.power.proof import APART_S, HOLD_S, RESTART_S, Answer, Proven, weigh
from pcloud.probe import Verdict

START_S = 60.0
DAYS = 864_000.0
WORDS = {"on": HostPower.ON, "off": HostPower.OFF, "?": HostPower.UNKNOWN}


def answers(text: str) -> list[Answer]:
    """`on@0 off@2 off@3/log-in`: what was said when, and by which log-in."""
    found = []
    for word in text.split():
        said, _, rest = word.partition("@")
        at, _, session = rest.partition("/")
        found.append(Answer(float(at), float(at) + 0.1, WORDS[said], session))
    return found


@pytest.mark.parametrize(
    ("said", "ordered_at", "running_s", "proven"),
    [
        ("on@0 ?@1 off@2 off@3.2", 1, None, True),
        ("on@0 ?@1 off@2", 1, None, False),  # once
        ("on@0 ?@1 off@2 off@2.2", 1, None, False),  # a flicker
        ("on@0 ?@1 off@2 on@3 off@4", 1, None, False),
        ("off@0 off@1.2", None, DAYS, False),  # nobody ordered it
        ("off@0 ?@1 off@2 off@3.2", 1, None, False),
        ("off@0 ?@1 off@2 off@3.2", 1, DAYS, True),  # and running for long
        ("off@0 ?@1 off@2 off@3.2", 1, 20, False),  # started 20 s ago
        ("off@0 ?@1 off@2 off@3.2", 1, 61, True),
        ("off@1.5 ?@1.8 off@2 off@3.2", 1.8, DAYS, False),  # not for HOLD_S yet
        ("on@0 off@4 ?@5 off@6 off@7.2", 5, None, True),  # it was heard to say on, so it did not just start
        ("on@0 ?@1 off@25 off@27", 1, None, False),  # a silence in which it may have started
        ("on@0/a ?@1/a off@25/a off@27/a", 1, None, True),  # the log-in outlived it
        ("on@0/a ?@1/a off@25/b off@27/b", 1, None, False),
        (" ".join(["off@0", "?@1", *(f"off@{t}" for t in range(2, 62, 2))]), 1, None, True),
        (" ".join(["off@0", "?@1", *(f"off@{t}" for t in range(2, 52, 2))]), 1, None, False),
        (" ".join(["off@0", "?@1", *(f"off@{t}" for t in (*range(2, 32, 2), *range(50, 70, 2)))]), 1, None, False),
    ],
)
def test_what_proves_that_a_host_is_off(
    said: str, ordered_at: float | None, running_s: float | None, proven: bool
) -> None:
    assert isinstance(weigh(answers(said), ordered_at, running_s, START_S), Proven) is proven


@given(
    starts_at=st.floats(-200, 30),
    asked=st.lists(st.floats(0.3, 5), min_size=1, max_size=60),
    order=st.integers(0, 5),
    told=st.booleans(),
)
def test_a_controller_that_started_within_its_time_never_proves_a_running_host_off(
    starts_at: float, asked: list[float], order: int, told: bool
) -> None:
    """It drops the order, says off for less than START_S after its start, and is silent for RESTART_S before that."""
    at, said = 0.0, []
    ordered_at = None
    for number, pause in enumerate(asked):
        at += pause
        if starts_at - RESTART_S - 1 <= at < starts_at:
            continue
        lies = starts_at <= at < starts_at + START_S - HOLD_S
        said.append(Answer(at, at, HostPower.OFF if lies else HostPower.ON))
        if number == order:
            ordered_at = at
    running_s = at - starts_at if told and at >= starts_at else None
    assert not isinstance(weigh(said, ordered_at, running_s, START_S), Proven)


# -- signs of life


@contextmanager
def listening(address: str) -> Iterator[None]:
    with closing(socket.create_server((address, PORT))):
        yield


def knock(check: Check, address: str) -> Verdict:
    """As `probe` asks, but an address of this machine with nobody there is one that does not answer."""
    try:
        socket.create_connection((address, PORT), timeout=1).close()
    except OSError:
        return Verdict(False, "no answer", 0)
    return Verdict(True, "accepts connections", 0)


def test_who_answers_at_its_address_lives() -> None:
    search = Search(knock, "127.0.7.1", list)
    search.before()
    assert search.begin()() == ""
    with listening("127.0.7.1"):
        assert search.begin()() == "127.0.7.1 accepts connections"


def test_a_refusal_is_a_sign_of_life() -> None:
    def refused(_: Check, address: str) -> Verdict:
        return Verdict(False, f"{address}:22: connection refused", 0)

    assert Search(refused, "127.0.7.2", list).begin()() == "127.0.7.2 refuses connections"


class Blind:
    """Another host's shell that cannot look."""

    def run(self, *_: object, **__: object) -> object:
        from pcloud.errors import HostUnreachable

        raise HostUnreachable("it is away")


def test_a_host_that_falls_silent_by_the_order_was_the_one_that_was_cut() -> None:
    near = [("h5", "127.0.7.5", Blind()), ("h6", "127.0.7.6", Blind())]
    search = Search(knock, "127.0.7.3", lambda: near)  # type: ignore[arg-type, return-value]
    with listening("127.0.7.6"):
        with listening("127.0.7.5"):
            search.before()
            assert search.begin()() == ""
        assert search.begin()() == "h5, which answered before the order, does not any more"
    assert APART_S < HOLD_S < RESTART_S
