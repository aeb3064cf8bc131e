"""A promotion that takes long: it says how far it is, and its deadline counts only while nothing moves.

The guest's script is played by what it prints (`test_promotion.py` has the real one), on virtual time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pcloud.errors import CheckFailed
from pcloud.steps.base import World
from pcloud.steps.promotion import GOING, Promote
from tests.simulated_data import Said
from tests.simulated_time import SimClock

LOOK_S, LIMIT_S = 30.0, 120.0


@dataclass
class Replica:
    """Its `primary promote` prints these lines, one a command, then it is done; as much of a World as that asks."""

    lines: Iterator[str]
    clock: SimClock = field(default_factory=SimClock)
    site: Any = field(default_factory=lambda: type("Site", (), {"site": "demo"}))

    def server_shell(self, server: str) -> Replica:
        assert server == "idx-1"
        return self

    def run(self, argv: Sequence[str], **_: Any) -> Said:
        if argv[0] == "df":
            return Said(0, "Avail\n900000\n900000\n")
        self.clock.sleep(LOOK_S)
        line = next(self.lines, None)
        return Said(0, "0-1-1000\n") if line is None else Said(GOING, f"{line}\n")


@dataclass
class Report:
    said: list[tuple[str, float, float, str]] = field(default_factory=list)

    def progress(self, doing: str, done: float = 0, total: float = 0, unit: str = "") -> None:
        self.said.append((doing, done, total, unit))

    def visit(self, name: str, elapsed_s: float) -> None: ...

    def stopping(self) -> bool:
        return False


def promote(lines: list[str]) -> tuple[Replica, Report]:
    replica, report = Replica(iter(lines)), Report()
    Promote("idx-1", "none", LIMIT_S).do(cast(World, replica), report)
    return replica, report


def test_it_says_how_much_is_left_and_for_how_long() -> None:
    _, report = promote([f"0-1-{n} 0-1-1000 {n}" for n in (0, 250, 500)])
    assert report.said[1:] == [
        ("applying what was received", 0, 1000, "transactions"),
        ("applying what was received, about 180 s more", 250, 1000, "transactions"),
        ("applying what was received, about 90 s more", 500, 1000, "transactions"),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        [f"0-1-{n} 0-1-1000 1" for n in range(0, 1000, 10)],
        [f"0-1-0 0-1-1000 {rows}" for rows in range(100)],  # one long transaction: its rows say that it goes on
        ["0-1-0 0-1-1000 1"] * 4 + ["0-1-1 0-1-1000 1"] * 4 + ["0-1-2 0-1-1000 2"] * 4,
    ],
)
def test_one_that_moves_has_all_the_time_that_it_needs(lines: list[str]) -> None:
    replica, _ = promote(lines)
    assert replica.clock.now() > LIMIT_S * 2


def test_the_deadline_counts_while_nothing_moves() -> None:
    replica, moving = Replica(iter([])), [f"0-1-{n} 0-1-1000 {n}" for n in range(20)]
    replica.lines = iter([*moving, *["0-1-19 0-1-1000 19"] * 100])
    with pytest.raises(CheckFailed, match="981 transactions are left, and nothing moved for 120 s") as given_up:
        Promote("idx-1", "none", LIMIT_S).do(cast(World, replica), Report())
    assert replica.clock.now() == len(moving) * LOOK_S + LIMIT_S
    assert "what was received is kept, and the same command goes on" in given_up.value.next
