"""Work that goes on when nobody looks: a script on a host or a server runs it, and is asked how far it is.

The script's side is templates/hosts/job.sh. It has no deadline, and ends when nothing moves in it; so a laptop that
goes away ends nothing, and whoever comes next finds the work going on, or ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pcloud.errors import CheckFailed, DeadlineExceeded, PcloudError, Transient
from pcloud.steps.base import Machine, Report, World

ASK_S = 30
POLL_S = 1.0
STILL_S = 300
"""A job ends by itself two minutes after its last movement; one that says the same for longer is stuck whole."""
PACE_S = 5
"""From then on its pace says when it will be done."""
BROKE_OFF, DIFFERENT, NO_ROOM = 3, 4, 5
"""How a copy's job ends when the other side went away, when what arrived is not what was sent, and for want of room."""


@dataclass(frozen=True)
class State:
    """What a job says of itself. `code` is None while it goes on; -1 when it is gone and left no word."""

    code: int | None
    done: int = 0
    total: int = 0
    doing: str = ""
    trouble: str = ""


def parse_state(text: str) -> State:
    """What `job_ask` printed. Raises `ValueError` for anything else."""
    first, _, rest = text.partition("\n")
    match first.split():
        case ["going", done, total, *doing] if done.isdigit() and total.isdigit():
            return State(None, int(done), int(total), " ".join(doing))
        case ["ended", code] if code.isdigit():
            return State(int(code), trouble=rest.strip())
        case ["none"]:
            return State(-1)
    raise ValueError(f"a job says {first[:60]!r}")


def ask(machine: Machine, argv: Sequence[str]) -> State:
    return parse_state(machine.run(argv, deadline_s=ASK_S).stdout)


def follow(world: World, machine: Machine, argv: Sequence[str], report: Report, *, where: str, next: str) -> None:
    """Tells how far the job is until it has ended well. Raises what its end means, and when nothing moves any more."""
    began = moved = world.clock.now()
    first: State | None = None
    last: State | None = None
    while (now := ask(machine, argv)).code is None:
        if last is None or now.doing != last.doing:
            first, began = now, world.clock.now()
        if now != last:
            last, moved = now, world.clock.now()
        if first is not None:
            tell(report, first, now, world.clock.now() - began)
        if world.clock.now() - moved > STILL_S:
            raise DeadlineExceeded(f"it says for {STILL_S} s that it is {now.doing}", where=where, next=next)
        if report.stopping():
            raise CheckFailed(f"it goes on {now.doing}, as you stopped to wait for it", where=where, next=next)
        world.clock.sleep(POLL_S)
    if now.code != 0:
        raise _ended(now, where, next)


def tell(report: Report, first: State, now: State, elapsed_s: float) -> None:
    """How much is done, of how much, how fast, and how long the rest takes at that pace."""
    pace = (now.done - first.done) / elapsed_s if elapsed_s >= PACE_S else 0.0
    if not now.total:
        report.progress(now.doing)
        return
    left = max(0, now.total - now.done)
    words = f", {pace / 1e6:.1f} MB/s, about {left / pace:.0f} s more" if pace > 0 else ""
    report.progress(f"{now.doing}{words}", min(now.done, now.total), now.total, "B")


def _ended(state: State, where: str, next: str) -> PcloudError:
    if state.code == -1:
        return Transient("it was ended from outside, or the machine started anew", where=where, next=next)
    said = state.trouble or f"it ended with {state.code} and no word"
    kind = Transient if state.code in (BROKE_OFF, DIFFERENT) else CheckFailed
    return kind(said, where=where, next=next)
