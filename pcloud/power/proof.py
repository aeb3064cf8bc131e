"""When a host is off: what its controller answered, and when, weighed. Pure.

Safety, as sentences:
- An Off that pcloud did not order proves nothing, and neither does one that was read once.
- On, and off after the order, is a proof at once, where the controller cannot have started in between.
- Off that was there before the order may be the word of a controller that has just started: it counts
  `HOLD_S` later when the controller says that it has been running for long, or was heard to say on;
  else only once it has said off for longer than its start takes.
- A silence in which a controller may have started begins all that anew, unless the same log-in outlived it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pcloud.observed import HostPower

APART_S = 1.0
"""Between the two readings: a controller may say off for a moment and not switch. Signs of life take as long."""
HOLD_S = 2.0
"""For so long the power reads off where it was off before the order."""
RESTART_S = 10.0
"""No controller that starts answers again so soon: a shorter silence is none."""


@dataclass(frozen=True)
class Answer:
    """One answer of a controller. `began`: when the question was asked; both in seconds of one clock.

    `power` is unknown for the answer to an order.
    """

    began: float
    at: float
    power: HostPower
    session: str = ""


@dataclass(frozen=True)
class Proven:
    """`how` is a clause about the power: `read on, then off twice`."""

    how: str


@dataclass(frozen=True)
class Unproven:
    """What is missing, and in how many seconds it can be there at the earliest."""

    why: str
    wait_s: float


def weigh(
    answers: Sequence[Answer], ordered_at: float | None, running_s: float | None, start_s: float
) -> Proven | Unproven:
    """Whether the host is off, by all answers of one way to its controller, oldest first.

    `running_s`: how long the controller had been running when it answered last, as it says; None when it does not.
    `start_s`: for how long after its start it may say off of a host that runs.
    """
    if ordered_at is None:
        return Unproven("nobody ordered it off", 0)
    off, was_on = _stretch(answers)
    after = [a for a in off if a.began >= ordered_at]
    if len(after) < 2 or after[-1].began - after[0].at < APART_S:
        return Unproven("it was read off once", APART_S)
    if was_on and off[0].began >= ordered_at:
        return Proven("on, then off, read twice")
    over = off[-1].at - off[0].at
    if was_on or (running_s is not None and running_s >= start_s):
        missing = HOLD_S - over
        why = f"it was off before the order, so it counts after {HOLD_S:g} s"
    elif running_s is not None:
        missing = max(start_s - running_s, HOLD_S - over)
        why = f"its controller started {running_s:.0f} s ago, and counts after {start_s:g} s"
    else:
        missing = start_s - over
        why = f"it was off before the order, and a controller that has just started says so for up to {start_s:g} s"
    return Unproven(why, missing) if missing > 0 else Proven(f"off for {over:.0f} s")


def _stretch(answers: Sequence[Answer]) -> tuple[list[Answer], bool]:
    """The last answers that say off, and whether the one before said on; the controller did not start in between."""
    off: list[Answer] = []
    later: Answer | None = None
    for answer in reversed(answers):
        if later is not None and not _joined(answer, later):
            break
        later = answer
        if answer.power is HostPower.OFF:
            off.insert(0, answer)
        elif answer.power is HostPower.ON:
            return off, True
    return off, False


def _joined(earlier: Answer, later: Answer) -> bool:
    """The controller ran from one to the other."""
    return later.began - earlier.at <= RESTART_S or (earlier.session == later.session != "")
