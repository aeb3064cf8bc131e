"""What a promotion gives up: each sentence, and what it must never say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcloud.kept import FOREVER_MS, NEVER_SEEN, Heard, Sighting
from pcloud.loss import DataLoss, measure
from pcloud.observed import SeenDatabase
from tests.ledger import read, unsaid

AT = "2012-11-16T21:06:48Z"
LEVEL = SeenDatabase(False, "0-1-57", "0-1-57", "10.0.0.60", restored="t", heard_s=12, heard_at=AT, acknowledges=True)
SEEN = Sighting("0-1-50", 600, 30_000)


@pytest.mark.parametrize(
    ("seen", "known", "heard", "price"),
    [
        pytest.param(LEVEL, SEEN, {"fe-1": 11.0}, "0", id="all lost it in the same second"),
        pytest.param(
            replace(LEVEL, heard_s=1200), SEEN, {"fe-1": 1199.0}, "0", id="the operator comes 20 minutes later"
        ),
        pytest.param(
            replace(LEVEL, heard_s=72), SEEN, {"fe-1": 10.0}, "unknown", id="cut off for 62 s while orders went on"
        ),
        pytest.param(replace(LEVEL, heard_s=29), SEEN, {"fe-1": 5.0}, "0", id="cut off for less than a commit waits"),
        pytest.param(
            replace(LEVEL, heard_s=40), SEEN, {"fe-1": 90.0, "fe-2": 5.0}, "unknown", id="the last answer counts"
        ),
        pytest.param(LEVEL, SEEN, {}, "unknown", id="no frontend says anything"),
        pytest.param(
            replace(LEVEL, heard_position="0-1-59"),
            Sighting("0-1-59", 600, 30_000),
            {"fe-1": 11.0},
            "0",
            id="it was started again, and what it received is kept aside on its disk",
        ),
        pytest.param(
            replace(LEVEL, heard_position="0-1-59", timeline=2100),
            Sighting("2100-1-1", 600, 30_000),
            {"fe-1": 11.0},
            "unknown",
            id="what a backup says to have heard is not its own",
        ),
        pytest.param(replace(LEVEL, heard_s=None), SEEN, {"fe-1": 11.0}, "unknown", id="the replica says nothing"),
        pytest.param(replace(LEVEL, acknowledges=False), SEEN, {"fe-1": 11.0}, "unknown", id="semi-sync was off"),
        pytest.param(LEVEL, NEVER_SEEN, {"fe-1": 11.0}, "unknown", id="nobody knows how long commits waited"),
        pytest.param(LEVEL, Sighting("0-1-50", 600, FOREVER_MS), {}, "0", id="commits waited for ever"),
        pytest.param(
            replace(LEVEL, timeline=2100),
            Sighting("1417-1-50", 600, FOREVER_MS),
            {"fe-1": 11.0},
            "unknown",
            id="commits waited for ever on the timeline before",
        ),
        pytest.param(LEVEL, Sighting("0-1-60", 600, FOREVER_MS), {"fe-1": 11.0}, "unknown", id="somebody saw more"),
        pytest.param(LEVEL, Sighting("0-1-60", 7, 30_000), {"fe-1": 11.0}, "3", id="seen at its very end"),
        pytest.param(
            replace(LEVEL, position="0-1-50,1417-2-5", received=""),
            Sighting("0-1-772", 60, 30_000),
            {"fe-1": 11.0},
            "0",
            id="a branch that was given up before",
        ),
        pytest.param(
            replace(LEVEL, replicating=True), Sighting("0-1-57", 0, 30_000, answers=True), {}, "0", id="left, and level"
        ),
        pytest.param(
            replace(LEVEL, replicating=True), Sighting("0-1-59", 0, 30_000, answers=True), {}, "0", id="left, and busy"
        ),
        pytest.param(LEVEL, Sighting("0-1-88", 0, 30_000, answers=True), {}, "31", id="left, and behind"),
        pytest.param(LEVEL, Sighting("0-1-57", 0, -1, answers=True), {}, "unknown", id="left, and nothing waits"),
    ],
)
def test_a_loss_is_measured(seen: SeenDatabase, known: Sighting, heard: dict[str, float], price: str) -> None:
    assert measure(seen, known, Heard(heard)).price == price


SAW_THE_END = Sighting("0-1-57", 8.0, -1, one_clock=True)
FRONTENDS = {"fe-1": 12.0, "fe-2": 11.5}


@pytest.mark.parametrize(
    ("seen", "known", "heard", "price"),
    [
        pytest.param(
            replace(LEVEL, heard_s=72),
            SEEN,
            Heard({"fe-1": 71.0}, ("fe-2",), keepers={"h3": 10.0}),
            "unknown",
            id="a frontend is gone, and a host heard the primary for a minute more",
        ),
        pytest.param(
            replace(LEVEL, heard_s=72),
            SEEN,
            Heard({"fe-1": 71.0, "fe-2": 70.0}, keepers={"h3": 10.0}),
            "0",
            id="all frontends had lost it: whoever heard it then ordered nothing",
        ),
        pytest.param(
            replace(LEVEL, heard_s=72),
            SEEN,
            Heard({"fe-1": 71.0}, ("fe-2",), keepers={"h3": 70.0, "h7": 68.0}),
            "0",
            id="a frontend is gone, and all others lost it in the same second",
        ),
        pytest.param(
            replace(LEVEL, heard_s=1200),
            SEEN,
            Heard(unheard=("fe-1", "fe-2"), keepers={"h3": 1199.0}),
            "unknown",
            id="hosts that heard nothing may have been cut off with the replica",
        ),
        pytest.param(
            replace(LEVEL, heard_s=1200),
            SEEN,
            Heard(unheard=("fe-1", "fe-2"), balancers={"lb-1": 1204.0}),
            "0",
            id="all frontends are gone with it, and the balancer passed no order on since",
        ),
        pytest.param(
            replace(LEVEL, heard_s=72),
            SEEN,
            Heard(unheard=("fe-1", "fe-2"), balancers={"lb-1": 10.0}),
            "unknown",
            id="all frontends are gone, and the balancer passed an order on later",
        ),
        pytest.param(
            LEVEL,
            SEEN,
            Heard({"fe-1": 11.0}, balancers={"lb-1": 0.0}),
            "0",
            id="frontends know it better than the balancer",
        ),
        pytest.param(
            replace(LEVEL, acknowledges=False),
            SAW_THE_END,
            Heard(FRONTENDS),
            "0",
            id="a host saw where it was after its last answer, and that is here",
        ),
        pytest.param(
            replace(LEVEL, position="0-1-55", received="0-1-55", acknowledges=False),
            SAW_THE_END,
            Heard(FRONTENDS),
            "2",
            id="a host saw where it was after its last answer, and two are missing",
        ),
        pytest.param(
            replace(LEVEL, acknowledges=False),
            replace(SAW_THE_END, age_s=11.0),
            Heard(FRONTENDS),
            "unknown",
            id="it may have gone on after a host saw it",
        ),
        pytest.param(
            replace(LEVEL, acknowledges=False),
            replace(SAW_THE_END, one_clock=False),
            Heard(FRONTENDS),
            "unknown",
            id="a note's age is that of two clocks",
        ),
        pytest.param(
            replace(LEVEL, acknowledges=False),
            SAW_THE_END,
            Heard({"fe-1": 12.0}, ("fe-2",), keepers={"h3": 8.0}),
            "unknown",
            id="a frontend that is gone may have gone on with it",
        ),
        pytest.param(
            replace(LEVEL, position="0-1-50,1417-2-5", received="", acknowledges=False),
            SAW_THE_END,
            Heard(FRONTENDS),
            "unknown",
            id="what was seen was a branch that had been given up",
        ),
    ],
)
def test_who_else_heard_the_primary(seen: SeenDatabase, known: Sighting, heard: Heard, price: str) -> None:
    assert measure(seen, known, heard).price == price


def test_a_person_is_told_what_hosts_heard() -> None:
    loss = measure(LEVEL, SEEN, Heard(unheard=("fe-1",), keepers={"h3": 9.0, "h7": 4.0}))
    assert str(loss).endswith("no frontend says when the primary last answered; hosts heard it until 4 s ago")


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (DataLoss(), "no acknowledged order is lost"),
        (DataLoss(3, 62.4), "up to 3 transactions of the last 62 s are lost"),
        (DataLoss(None, since=AT, least=7), f"how much is lost is unknown, since {AT}, at least 7 transactions"),
        (DataLoss(None), "how much is lost is unknown, since a time that nobody knows"),
    ],
)
def test_a_loss_is_one_of_three_sentences(loss: DataLoss, sentence: str) -> None:
    assert str(loss) == sentence
    assert read(sentence).number == loss.transactions


@pytest.mark.parametrize(
    ("price", "none", "three", "unknown"),
    [("", True, False, False), ("2", True, False, False), ("3", True, True, False), ("unknown", True, True, True)],
)
def test_only_what_is_named_is_accepted(price: str, none: bool, three: bool, unknown: bool) -> None:
    losses = (DataLoss(), DataLoss(3), DataLoss(None))
    assert tuple(loss.accepted(price) for loss in losses) == (none, three, unknown)


@given(
    heard_s=st.floats(0, 10_000),
    alone_s=st.floats(0, 10_000),
    timeout_s=st.floats(0, 300),
    looks_s=st.lists(st.floats(0, 2), min_size=1, max_size=4),
)
def test_none_is_said_only_where_the_primary_cannot_have_gone_on_alone(
    heard_s: float, alone_s: float, timeout_s: float, looks_s: list[float]
) -> None:
    """The primary answers until `alone_s` after the replica lost it; a recorder may be 2 s behind the truth."""
    died_s = max(0.0, heard_s - alone_s)
    frontends = {f"fe-{n}": died_s for n in range(len(looks_s))}
    recorded = replace(LEVEL, heard_s=heard_s + looks_s[0])
    loss = measure(recorded, Sighting("0-1-57", 20_000, round(timeout_s * 1000)), Heard(frontends))
    acknowledged_alone = heard_s - died_s > timeout_s
    assert not (loss.none and acknowledged_alone)


def test_the_ledger_reads_sentences() -> None:
    """What is missing and was not said; an `unless` says nothing."""
    orders = {1: 100.0, 2: 200.0, 3: 300.0}
    assert unsaid(orders, []) == [1, 2, 3]
    assert unsaid(orders, ["no acknowledged order is lost"]) == [1, 2, 3]
    assert unsaid(orders, ["up to 2 transactions of the last 9 s are lost"]) == [1]
    assert unsaid(orders, ["how much is lost is unknown, since 1970-01-01T00:03:20Z"]) == [1]
    with pytest.raises(ValueError, match="no word about what is lost"):
        unsaid(orders, ["nothing is missing, unless it is"])


def test_what_cannot_be_applied_may_be_older_than_the_last_that_was_heard() -> None:
    """The SQL thread stopped at an error hours ago, and the replica goes on receiving."""
    stuck = replace(LEVEL, position="0-1-20", received="0-1-57", stuck="error 1062: Duplicate entry '…'")
    loss = measure(stuck, SEEN, Heard({"fe-1": 11.0}))
    assert (loss.price, loss.since, loss.least) == ("unknown", "", 37)
    assert "error 1062" in str(loss)
    left = measure(stuck, Sighting("0-1-57", 0, 30_000, answers=True), Heard())
    assert (left.price, left.since, left.least) == ("unknown", "", 37), "a person leaves a primary that answers"
