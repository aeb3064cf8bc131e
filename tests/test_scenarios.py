"""Scenarios on virtual time, their logs compared word for word (docs/scenarios.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.random_story import random_story
from tests.scenario import Scenario, play
from tests.scenarios import FAMILIES, play_family, soak


@pytest.mark.parametrize("path", FAMILIES, ids=lambda p: p.stem)
def test_family(path: Path, image_file: Path) -> None:
    played = play_family(path, image_file)
    assert not played.broken
    assert played.log == path.with_suffix(".log").read_text(), "python -m tests.scenarios --write; read the difference"


def test_there_are_enough_of_them() -> None:
    logs = "".join(path.with_suffix(".log").read_text() for path in FAMILIES)
    assert logs.count("  = ") >= 150


def test_a_scenario_takes_the_same_course_every_time(image_file: Path) -> None:
    for seed in range(1000, 1020):
        scenario = Scenario("dice", "dice", random_story(seed))
        assert play(scenario, image_file).log == play(scenario, image_file).log, seed


def test_random_ones_hold(image_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make soak` plays 10,000."""
    assert soak(image_file, 100, 5000) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("story", "what"),
    [
        # Each is a wrong that the simulation lets happen, to prove that it is seen.
        (("5 bmc h1 mute", "10 cut h1", "20 confirm h1", "30 recover", "100 truth h1"), "runs on"),
        (("10 lose-orders", "20 recover"), "acknowledged orders are missing, and nobody said so"),
    ],
)
def test_what_must_hold_is_looked_at(story: tuple[str, ...], what: str, image_file: Path) -> None:
    told = play(Scenario("wrong", "wrong", story), image_file)
    assert any(what in broken for broken in told.broken), told.broken
