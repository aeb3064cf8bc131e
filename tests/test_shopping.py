"""What a shopper does next, and what a ledger says."""

from __future__ import annotations

from random import Random

import pytest

from pcloud.shopping import (
    ORDER,
    SEARCH,
    Entry,
    Gap,
    Next,
    Verdict,
    audit,
    longest_gap,
    next_move,
    read_lines,
    round_of,
    summarise,
    to_line,
    verdict_of,
)


def entry(at: float, kind: str = "home", verdict: str = "fine", status: int = 200, **more: object) -> Entry:
    return Entry(at, 0, kind, verdict, status, 0.5, **more)  # type: ignore[arg-type]


def order(at: float, number: str, sent: int = 1) -> Entry:
    return entry(at, ORDER, number=number, sent=sent)


@pytest.mark.parametrize(
    ("status", "fine", "answered", "verdict"),
    [
        (200, True, True, Verdict.FINE),
        (0, False, False, Verdict.SILENT),
        (200, False, False, Verdict.SILENT),
        (503, False, True, Verdict.SILENT),
        (504, False, True, Verdict.SILENT),
        (200, False, True, Verdict.WRONG),
        (404, False, True, Verdict.WRONG),
        (0, False, True, Verdict.WRONG),
    ],
)
def test_what_she_makes_of_an_answer(status: int, fine: bool, answered: bool, verdict: Verdict) -> None:
    assert verdict_of(status, fine=fine, answered=answered) is verdict


def test_who_gets_no_answer_asks_again_and_an_order_is_sent_again() -> None:
    kinds = [visit.name for visit in round_of(Random(1), 3)]
    assert kinds[0] == "home" and kinds[-1] == ORDER
    assert {next_move(kind, Verdict.SILENT) for kind in kinds} == {Next.AGAIN}
    assert {next_move(kind, Verdict.FINE) for kind in kinds} == {Next.GO_ON}


def test_another_page_ends_her_round_but_a_search_that_is_away_does_not() -> None:
    kinds = {visit.name for visit in round_of(Random(1), 3)}
    assert {kind for kind in kinds if next_move(kind, Verdict.WRONG) is Next.ANEW} == kinds - {SEARCH}
    assert next_move(SEARCH, Verdict.WRONG) is Next.GO_ON


def test_rounds_are_the_same_for_the_same_dice_and_each_shopper_is_somebody() -> None:
    assert round_of(Random(7), 3) == round_of(Random(7), 3)
    assert len({round_of(Random(n), 3)[2].get for n in range(40)}) > 1
    emails = [v.fields["username"] for n in (1, 2) for v in round_of(Random(7), n) if v.name == "guest"]
    assert len(set(emails)) == 2


def test_a_ledger_read_back_is_the_same_in_the_order_of_its_moments() -> None:
    written = (order(2.5, "100", 3), entry(1.25, "home", "silent", 0, problem="GET /é: no answer within 10 s"))
    assert read_lines(map(to_line, written)) == tuple(sorted(written, key=lambda e: e.at))


@pytest.mark.parametrize("line", ["", "[]", "{", '{"at": 1}', '{"order": "100"}'])
def test_a_line_that_is_no_entry_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        read_lines([to_line(order(1, "100")), line])


def test_the_summary_counts_what_failed_and_how_long_nobody_could_order() -> None:
    told = summarise(
        (
            entry(10.0),
            order(11.0, "100"),
            entry(12.0, "product", "silent", 503),
            entry(13.0, ORDER, "silent", 504),
            entry(14.0, ORDER, "silent", 0),
            entry(14.5, "product", "silent", 503),
            entry(15.0, SEARCH, "wrong"),
            order(19.0, "101", 3),
            order(20.0, "102"),
        )
    )
    assert (told.shoppers, told.requests, told.pages, told.orders, told.resent) == (1, 9, 4, 3, 1)
    assert told.seconds == 10.5
    assert told.failed == {
        ORDER: {"504": 1, "no answer": 1},
        "product": {"503": 2},
        SEARCH: {"another page": 1},
    }
    assert told.failures == 5
    assert told.longest_without_order == Gap(11.0, 8.0)
    assert told.longest_without_page == Gap(11.0, 8.0)


def test_an_outage_that_lasts_until_the_end_is_one() -> None:
    assert longest_gap([1.0, 2.0], 30.0) == Gap(2.0, 28.0)
    assert longest_gap([], 30.0) is None
    told = summarise((order(1.0, "100"), entry(40.0, ORDER, "silent", 503)))
    assert told.longest_without_order == Gap(1.0, 39.0)


def test_nothing_at_all_is_a_summary_too() -> None:
    told = summarise(())
    assert (told.requests, told.orders, told.longest_without_order) == (0, 0, None)


def test_an_audit_names_what_is_missing_and_what_is_there_twice() -> None:
    told = (order(1, "100"), order(2, "101"), order(3, "102"), entry(4, ORDER, "silent", 503))
    found = audit(told, ["100", "102", "102", "900"], 0)
    assert (found.acknowledged, found.missing, found.twice, found.fine) == (3, ("101",), ("102",), False)
    assert audit(told, ["100", "101", "102"], 0).fine
    assert not audit(told, ["100", "101", "102"], 1).fine
