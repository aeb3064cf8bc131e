"""What simulated frontends remember of the database: when it last answered each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation import SimWorld


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
        for name in self._frontends():
            if self.world.serving(name):
                self.last[name] = now, self._life(name)

    def told(self) -> Mapping[str, float]:
        """What the frontends that answer us say: seconds since that moment."""
        now = self.world.clock.now()
        once = [s for s in self._frontends() if self.world.answering(s) and len(self.world.running(s)) == 1]
        return {s: now - self.last[s][0] for s in once if s in self.last and self.last[s][1] == self._life(s)}

    def _frontends(self) -> list[str]:
        return [s.name for s in self.world.desired.everyone if s.role == "frontend"]

    def _life(self, name: str) -> float:
        return max((d.started_at for _, d in self.world.running(name)), default=0.0)
