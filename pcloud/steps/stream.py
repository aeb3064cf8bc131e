"""A replica takes what hosts streamed of its primary further than it received itself, before it is promoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.chain import Leg
from pcloud.steps.backup import SHORT_S, folder_of
from pcloud.steps.base import Met, Report, Unmet, World
from pcloud.steps.pipe import pipe
from pcloud.steps.replication import is_primary

REPLICA = "/usr/lib/pcloud/replica"


@dataclass(frozen=True)
class TakeStream:
    """The server keeps what the host streamed beside its own relay log: `primary promote` applies it after that."""

    server: str
    leg: Leg
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        machine = world.server_shell(self.server)
        there = machine.run([REPLICA, "has", self.leg.reaches], deadline_s=SHORT_S, check=False)
        if there.exit_code == 0 or is_primary(world, self.server):
            return Met({"reaches": self.leg.reaches})
        return Unmet(f"it lacks what {self.leg.host} streamed")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        stretch = self.leg.stretch
        hand = [f"{folder_of(world, self.leg.host)}/keep", "hand", stretch.line, stretch.session]
        take = [REPLICA, "add", self.leg.reaches]
        sent = lambda n: report.progress("copying the binary log", n, 0, "B")  # noqa: E731
        machine = world.server_shell(self.server)
        pipe(world.shell(self.leg.host), hand, machine, take, deadline_s=self.timeout_s, sent=sent)
        return {}
