"""A replica becomes the primary, with all that it received.

The guest applies it (`primary promote`, templates/servers/mariadb): a command at a time, each bounded, each
going on where the one before ended, so that a person sees how far it is and a run can be stopped and repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.errors import CheckFailed, PcloudError
from pcloud.gtid import behind
from pcloud.kept import Timeline
from pcloud.steps.base import Answer, Met, Report, Unmet, World
from pcloud.steps.database import plain
from pcloud.steps.measuring import Basis, check_loss
from pcloud.steps.replication import (
    OLDER,
    PRIMARY,
    ROLE_S,
    STUCK,
    TAKEN,
    is_primary,
    position,
    refused,
    say_commits,
    timed,
)
from pcloud.steps.room import full_disk

GOING = 5
"""How `primary promote` ends when it has not applied everything yet; it is run again."""
APPLIED = "applied"
"""Stands for the position to promote at: what is applied is all, the rest is left."""
SLICE_S = 10
"""How long one command applies what was received, before it says how far it is."""


@dataclass(frozen=True)
class Progress:
    """How far a promotion is that has not applied everything; `work` grows while anything is done."""

    applied: str
    goal: str
    work: int

    @property
    def left(self) -> int:
        return behind(self.applied, self.goal)


def parse_progress(said: str) -> Progress:
    """From what `primary promote` prints: position, goal and work; `-` is no position."""
    words = [*said.split(), "-", "-", "0"][:3]
    applied, goal = ("" if w == "-" else w for w in words[:2])
    return Progress(applied, goal, int(words[2]) if words[2].isdigit() else 0)


@dataclass(frozen=True)
class Promote:
    """The replica is the primary, with everything that it had received. `loss` is what that gives up, in words.

    `timeout_s` counts while nothing is applied. `timeline` begins with it. `leaves`: what cannot be applied is
    left, and kept for a person to look at; that he has agreed to.
    """

    server: str
    loss: str
    timeout_s: float
    timeline: Timeline | None = None
    leaves: bool = False
    timeout_ms: int | None = None
    basis: Basis | None = None
    """What the loss was measured from."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        if is_primary(world, self.server):
            return Met({"primary": self.server, "loss": self.loss, "position": position(world, self.server)})
        return Unmet("it is a replica")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        if self.basis is not None:
            check_loss(world, self.server, self.basis)
        report.progress("applying what was received, and taking the address")
        began = moved = world.clock.now()
        first: Progress | None = None
        last: Progress | None = None
        while (answer := self._run(world)).exit_code == GOING:
            now, found = world.clock.now(), parse_progress(answer.stdout)
            still = f"{found.left} transactions are left, and nothing moves"
            first = first or found
            if last is None or (found.applied, found.work) != (last.applied, last.work):
                last, moved = found, now
            elif (full := full_disk(world, self.server, still)) is not None:
                raise full
            self._tell(report, first, found, now - began)
            if now - moved >= self.timeout_s or report.stopping():
                raise self._given_up(world, found, now - moved)
        if (
            answer.exit_code not in (0, TAKEN)
            and (full := full_disk(world, self.server, answer.stderr.strip())) is not None
        ):
            raise full
        left = {}
        if answer.exit_code == STUCK and self.leaves:
            left = {"left": refused(world, self.server, answer).what}
            answer = self._run(world, rest=False)
        if answer.exit_code != 0:
            raise refused(world, self.server, answer)
        received, *commits = answer.stdout.splitlines() or [""]
        return {"received": received, **({"commits": say_commits(commits[0])} if commits else {}), **left}

    def _run(self, world: World, *, rest: bool = True) -> Answer:
        slice_s = min(self.timeout_s, SLICE_S)
        t = self.timeline
        words = ["promote", f"{slice_s:g}"]
        if t is not None or not rest:
            words.append("-" if rest else APPLIED)
        if t is not None:
            words += [str(t.domain), plain(t.why)]
        machine = world.server_shell(self.server)
        answer = machine.run([*timed(self.timeout_ms), *words], deadline_s=slice_s + ROLE_S, check=False)
        if answer.exit_code != OLDER:
            return answer
        older = [PRIMARY, "promote", f"{self.timeout_s:g}"]  # made by an earlier pcloud: it begins no timeline
        return machine.run(older, deadline_s=self.timeout_s + ROLE_S, check=False)

    def _tell(self, report: Report, first: Progress, found: Progress, elapsed_s: float) -> None:
        """How much is applied, of how much, and how long the rest takes at this pace."""
        done = behind(first.applied, found.applied)
        pace = done / elapsed_s if elapsed_s else 0
        estimate = f", about {found.left / pace:.0f} s more" if pace else ""
        report.progress(f"applying what was received{estimate}", done, done + found.left, "transactions")

    def _given_up(self, world: World, found: Progress, still_s: float) -> PcloudError:
        look = f"pcloud ssh {world.site.site}/{self.server} -- mariadb -Ee 'SHOW SLAVE STATUS; SHOW FULL PROCESSLIST'"
        return CheckFailed(
            f"it received {found.goal or 'more'} and has applied {found.applied or 'nothing'}: "
            f"{found.left} transactions are left, and nothing moved for {still_s:.0f} s",
            where=self.server,
            next=f"{look}; what was received is kept, and the same command goes on",
        )
