"""Work that goes on when nobody looks: a script on a host or a server runs it, and is asked how far it is.

The script's side is templates/hosts/job.sh. It has no deadline, and ends when nothing moves in it; so a laptop that
goes away ends nothing, and whoever comes next finds the work going on, or ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pcloud.errors import CheckFailed, DeadlineExceeded, PcloudError, Transient
from pcloud.steps.base import Machine, Report, World

ASK_S = 30
POLL_S = 1.0
"""The longest pause between two questions; what is quick is asked sooner."""
FIRST_POLL_S = 0.1
TURN_S = 5.0
STILL_S = 300
"""A job ends by itself two minutes after its last movement; one that says the same for longer is stuck whole."""
PACE_S = 5
"""From then on its pace says when it will be done."""
BROKE_OFF, DIFFERENT, NO_ROOM, BUSY = 3, 4, 5, 6
"""How a copy's job ends when the other side went away, when what arrived is not what was sent, for want of room, and
when the other side gives to somebody else."""


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
    now = _wait(world, machine, argv, report, where=where, next=next)
    if now.code != 0:
        raise _ended(now, where, next)


def rest(world: World, machine: Machine, program: str, report: Report, *, where: str, next: str) -> None:
    """Waits until the program is at no job, whatever becomes of the one that it is at."""
    if ask(machine, [program, "ask"]).code is None:
        _wait(world, machine, [program, "ask"], report, where=where, next=next)


def words_of(machine: Machine, program: str) -> str:
    """The job that the program is at, or was at last."""
    return machine.run([program, "words"], deadline_s=ASK_S).stdout.strip()


def done(machine: Machine, program: str, words: Sequence[str]) -> str:
    """What the program printed where its last job was this one and ended well; else nothing."""
    if ask(machine, [program, "ask"]).code != 0 or words_of(machine, program) != " ".join(words):
        return ""
    return machine.run([program, "said"], deadline_s=ASK_S).stdout


def work(
    world: World,
    machine: Machine,
    program: str,
    words: Sequence[str],
    report: Report,
    *,
    where: str,
    next: str,
    order: Callable[[], bytes] = lambda: b"",
) -> str:
    """Has the program do `words` as its job, or goes on with that one where it is at it; what it printed.

    One at a time: another job is waited for, and so is a machine that gives to somebody else. Each of these ends when
    nothing moves in it. `order` is what a new one reads.
    """
    mine, argv = " ".join(words), [program, "ask"]
    while True:
        going = ask(machine, argv).code is None
        if going and words_of(machine, program) != mine:
            rest(world, machine, program, report, where=where, next=next)
            continue
        if not going:
            machine.run([program, "job", *words], deadline_s=ASK_S, stdin=order())
            if words_of(machine, program) != mine:
                continue
        now = _wait(world, machine, argv, report, where=where, next=next)
        if now.code == 0:
            return machine.run([program, "said"], deadline_s=ASK_S).stdout
        if now.code != BUSY:
            raise _ended(now, where, next)
        report.progress("waiting for its turn")
        world.clock.sleep(TURN_S)


def _wait(world: World, machine: Machine, argv: Sequence[str], report: Report, *, where: str, next: str) -> State:
    """Tells how far the job is until it has ended. Raises when nothing moves any more, and when a person stops it."""
    asked = began = moved = world.clock.now()
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
        world.clock.sleep(min(POLL_S, FIRST_POLL_S + (world.clock.now() - asked) / 4))
    return now


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
