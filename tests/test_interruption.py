"""A run that is stopped, or that can no longer be recorded: at every event of a recovery."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pcloud.desired import Desired
from pcloud.errors import PcloudError
from pcloud.events import Event, RunState, Status, StepStarted
from pcloud.execute import execute
from pcloud.plan import plan
from tests.simulation import SimWorld

DATE = "20121116-2140"


class Watcher:
    """A journal and a face; at the event of this number it presses Ctrl-C, or its disk is full."""

    def __init__(self, number: int, *, full: bool = False) -> None:
        self.events: list[Event] = []
        self.number = number
        self.full = full
        self.asked = threading.Event()

    def append(self, *events: Event) -> None:
        if self.full and len(self.events) >= self.number:
            raise PcloudError("no room")
        self.events += events

    def show(self, state: RunState, event: Event) -> None:
        if not self.full and len(self.events) == self.number:
            self.asked.set()


def moments(desired: Desired, image_file: Path) -> int:
    """How many events a recovery from nothing has at least."""
    world, watcher = SimWorld(desired, image_file), Watcher(0)
    execute(plan(desired, world.observe(), DATE), world, watcher, watcher, "run", world.clock)
    return sum(not type(e).__name__.startswith("StepProgress") for e in watcher.events)


def test_ctrl_c_at_every_event_ends_what_runs_and_starts_nothing(desired: Desired, image_file: Path) -> None:
    for number in range(1, moments(desired, image_file) - 10):
        world, watcher = SimWorld(desired, image_file), Watcher(number)
        made = plan(desired, world.observe(), DATE)
        state = execute(made, world, watcher, watcher, "run", world.clock, watcher.asked)
        assert state.finished is not None and state.finished.outcome == "interrupted", number
        assert not [k for k, s in state.steps.items() if s.status is Status.RUNNING], number
        after = watcher.events[next(i for i, e in enumerate(watcher.events) if type(e).__name__ == "Interrupted") :]
        assert not [e for e in after if isinstance(e, StepStarted)], number
        again = execute(plan(desired, world.observe(), DATE), world, Watcher(0), Watcher(0), "run", world.clock)
        assert again.finished is not None and again.finished.outcome == "converged", number


def test_a_journal_that_cannot_be_written_ends_the_run_when_nothing_works_any_more(
    desired: Desired, image_file: Path
) -> None:
    """The caller's lock is released next: no effect may outlive it."""
    for number in range(0, moments(desired, image_file) - 10, 5):
        world, watcher = SimWorld(desired, image_file), Watcher(number, full=True)
        made = plan(desired, world.observe(), DATE)
        before = set(threading.enumerate())
        with pytest.raises(PcloudError, match="no room"):
            execute(made, world, watcher, watcher, "run", world.clock)
        assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("step")], number
        again = execute(plan(desired, world.observe(), DATE), world, Watcher(0), Watcher(0), "run", world.clock)
        assert again.finished is not None and again.finished.outcome == "converged", number


def test_the_words_of_a_silence_are_no_difference(world: SimWorld) -> None:
    """A plan that was saved while a host was silent is still the same plan a moment later."""
    world.hosts["h4"].away = True
    found = world.observe()
    others = tuple(replace(h, problem="silent for 4.98 s", next="look") if h.problem else h for h in found.hosts)
    assert replace(found, hosts=others).digest() == found.digest()
    assert replace(found, hosts=tuple(replace(h, problem="") for h in found.hosts)).digest() != found.digest()
