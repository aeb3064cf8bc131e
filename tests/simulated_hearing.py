"""What simulated frontends and balancers remember of the database: when it last answered each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pcloud.kept import Heard, Witnesses

if TYPE_CHECKING:
    from tests.simulation import SimWorld

PATIENCE_S = 40
"""How long a request that an earlier balancer passed on may take: the balancer's `timeout server`."""


@dataclass
class Hearing:
    """Kept in the server's memory: a frontend that was started since knows nothing."""

    world: SimWorld
    last: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Frontend to the moment of the last answer, and the start of the life in which it came."""

    def answered(self) -> None:
        """The primary, if one can be reached, answers every frontend that serves: a shopper may be at any of them."""
        if not self.world.holders():
            return
        now = self.world.clock.now()
        for name in (*self._named("frontend"), *self._named("balancer")):
            if self.world.serving(name):
                self.last[name] = now, self._life(name)

    def told(self, asked: Witnesses) -> Heard:
        """What those that answer us say: seconds since that moment. A balancer knows of none before it was started."""
        now = self.world.clock.now()
        frontends = {s: now - self.last[s][0] for s in asked.frontends if self._knows(s)}
        begun = {s: self.last[s][0] if self._knows(s) else self._life(s) + PATIENCE_S for s in asked.balancers}
        silent = (*asked.gone, *(s for s in asked.frontends if s not in frontends))
        return Heard(
            frontends, silent, {s: now - at for s, at in begun.items() if at <= now and self.world.answering(s)}
        )

    def _knows(self, name: str) -> bool:
        once = self.world.answering(name) and len(self.world.running(name)) == 1
        return once and name in self.last and self.last[name][1] == self._life(name)

    def _named(self, role: str) -> list[str]:
        return [s.name for s in self.world.desired.everyone if s.role == role]

    def _life(self, name: str) -> float:
        return max((d.started_at for _, d in self.world.running(name)), default=0.0)
