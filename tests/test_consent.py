"""A loss is a person's to accept: at the terminal, or by name; --yes alone is not enough."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from pcloud.cli.recover import _run_once, _Way
from pcloud.cli.session import Session, plan_whole
from pcloud.errors import Blocked
from pcloud.events import RunState, Status
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.plan import Plan
from pcloud.world import World
from tests.plan_cases import arrange_sighting
from tests.simulation import SimWorld
from tests.test_plan import is_whole, run_all


@pytest.fixture
def lost(world: SimWorld) -> SimWorld:
    """The primary's host is off for good, and its replica does not say until when it heard it."""
    run_all(world)
    world.clock.sleep(600)
    arrange_sighting(world)
    world.cut("h1")
    replica = world.find_data("idx-1")
    assert replica is not None
    replica.heard = None
    return world


@contextmanager
def terminal(typed: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real one, at which this was typed ahead."""
    master, slave = os.openpty()
    with os.fdopen(slave, "r") as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        os.write(master, typed.encode())
        yield
    os.close(master)


def recover(world: SimWorld, *, yes: bool = False) -> RunState | None:
    inventory = load_inventory(defaults_dir("inventory") / "demo.yaml")

    def make(session: Session) -> Plan:
        return plan_whole(session.desired, world.observe())

    session = Session(inventory, world.desired, cast(World, world))
    return _run_once(session, make, None, _Way("recover", "pcloud recover demo", yes, False))


def test_a_person_at_the_terminal_agrees_to_the_loss_and_then_to_the_plan(
    lost: SimWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal("y\ny\n", monkeypatch):
        state = recover(lost)
    assert state is not None and state.finished is not None and state.finished.outcome == "converged"
    assert "idx-1 can take over, but how much is lost is unknown" in " ".join(capsys.readouterr().err.split())
    assert "how much is lost is unknown" in str(state.steps["idx-1/promote"].facts["loss"])
    assert is_whole(lost)


@pytest.mark.parametrize("typed", ["n\n", "\n", "y\nn\n"])
def test_who_does_not_agree_leaves_all_as_it_is(
    lost: SimWorld, monkeypatch: pytest.MonkeyPatch, typed: str, tmp_path: Path
) -> None:
    before = lost.observe().digest()
    with terminal(typed, monkeypatch), pytest.raises(Blocked, match="not confirmed; nothing was done") as refused:
        recover(lost)
    assert refused.value.exit_code == 3
    assert lost.observe().digest() == before
    assert not any(tmp_path.rglob("events.jsonl"))


def test_yes_alone_is_not_enough_and_the_rest_is_recovered(lost: SimWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal("y\ny\n", monkeypatch):
        state = recover(lost, yes=True)
    assert state is not None and state.finished is not None and state.finished.outcome == "blocked"
    assert state.steps["idx-1/consent"].status is Status.BLOCKED
    assert "idx-1/promote" not in state.steps
    assert lost.holders() == []
