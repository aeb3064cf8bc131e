"""What fencing will need of a controller, asked on a quiet day: nothing is switched."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from pcloud.clock import Clock
from pcloud.hoststate import Controller
from pcloud.power.way import Busy, Failed, Way

READS = 3
PAUSE_S = 1.0
"""Between two readings of a controller that is busy."""


class Open(Way, Protocol):
    """A way that tells about itself."""

    def examine(self, now: float, limit_s: float) -> Controller:
        """What it says after it was read. `now`: Unix time. What is not told, or not in time, is left out."""
        ...


def examine(way: Open, timeout_s: float, clock: Clock) -> Controller:
    """Raises nothing: why a way cannot be used is its `problem`."""
    try:
        _read(way, timeout_s, clock)
        began = clock.now()
        power = way.read(timeout_s)
        answer_s = clock.now() - began
    except Failed as failed:
        return Controller(way.name, problem=failed.why, next=failed.next)
    try:
        told = way.examine(clock.wall().timestamp(), timeout_s)
        return replace(told, power=str(power), answer_s=answer_s)
    finally:
        way.close()


def _read(way: Way, timeout_s: float, clock: Clock) -> None:
    """The log-in is part of the first reading."""
    for left in reversed(range(READS)):
        try:
            way.read(timeout_s)
        except Busy:
            if not left:
                raise
            clock.sleep(PAUSE_S)
        else:
            return
