"""Positions across timelines, and the domains that name them."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from pcloud.gtid import behind, given_up, newest_domain, parse_gtids, rank
from pcloud.timelines import next_domain, number_of

positions = st.dictionaries(st.integers(0, 5), st.integers(1, 10**9), max_size=4)


def _written(position: dict[int, int]) -> str:
    return ",".join(f"{domain}-7-{number}" for domain, number in position.items())


@given(positions)
def test_positions_are_read_as_they_are_written(position: dict[int, int]) -> None:
    text = _written(position)
    assert parse_gtids(text) == position
    assert behind(text, text) == 0
    assert behind("", text) == sum(position.values())
    assert newest_domain(text) == max(position, default=0)


@given(positions, positions)
def test_what_holds_all_of_another_position_is_not_below_it(one: dict[int, int], two: dict[int, int]) -> None:
    mine, other = _written(one), _written(two)
    if not behind(mine, other):
        assert rank(mine) >= rank(other)


def test_a_branch_that_was_given_up_is_not_ahead_of_the_one_that_lives() -> None:
    """0-1-772 of the dead branch, by number, is past 0-1-690; the promotion at 690 began another domain."""
    dead, living = "0-1-772", "0-1-690,1417-2-30"
    assert rank(living) > rank(dead)
    assert behind(living, dead) == 82  # what the dead one has, and nobody else
    assert given_up(living, dead) == 0  # it was given up by the promotion, and said then
    assert given_up(dead, living) == 30


def test_each_timeline_is_higher_than_all_before() -> None:
    first = next_domain("20121116-214000", [])
    assert number_of(first) == 1
    second = next_domain("20121116-220000", [first])
    assert number_of(second) == 2
    assert number_of(next_domain("20121117-010000", [0, f"{second}-1-9,{first}-1-4"])) == 3
    assert next_domain("20121117-010000", [6_832]) > 6_832  # of an earlier pcloud, which numbered them by thousands
    assert next_domain("20121116-2140", []) == first


@given(st.integers(0, 10**9), st.integers(1, 86_400))
def test_two_that_begin_unawares_within_a_day_have_different_names(at: int, later_s: int) -> None:
    """Also where both come after the same one: by chance one in a thousand did not, and a dead branch seemed alive."""
    one, other = (datetime.fromtimestamp(t, UTC).strftime("%Y%m%d-%H%M%S") for t in (at, at + later_s))
    assert next_domain(one, [1417]) != next_domain(other, [1417])
