"""What a server needs, in one word, with all that the graph of steps is made from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pcloud.placement import NoRoom


class Act(StrEnum):
    KEEP = "keep"
    LEAVE = "leave"
    WAIT = "wait"
    START = "start"
    CYCLE = "cycle"
    REBUILD = "rebuild"
    BUILD = "build"
    RETIRE = "retire"
    BLOCK = "block"


UNHEALTHY = "unhealthy"

MAKES = frozenset({Act.BUILD, Act.REBUILD})
"""Acts after which the server is a new one."""

STAYS = frozenset({Act.KEEP, Act.LEAVE, Act.RETIRE})
"""Acts that wait for nobody."""


@dataclass(frozen=True)
class Decision:
    """`host` is where the server is or will be; `old` the generation that must go first."""

    server: str
    act: Act
    reason: str
    host: str = ""
    generation: int = 0
    old: int | None = None
    was_healthy: bool = False
    next: str = ""
    fences: tuple[str, ...] = ()
    """Hosts that must be proven off before it starts, or before its role or its data are given to another one."""
    puts_away: tuple[tuple[str, int], ...] = ()
    """Host and generation of later copies that never held data: they go before this one runs."""
    voids: tuple[int, ...] = ()
    """Later generations of which it was noted that another server takes over, though none did."""
    unfenced: bool = False
    """Blocked by a host whose power could not be cut in this run."""
    no_room: NoRoom | None = None
    """Blocked because no host can take it."""

    @property
    def answers(self) -> bool:
        """Whether it answers now, and will not be touched."""
        return self.was_healthy and self.act in (Act.KEEP, Act.LEAVE)

    @property
    def will_answer(self) -> bool:
        """Whether it answers, or is being made to."""
        return self.answers or self.act not in (Act.LEAVE, Act.RETIRE, Act.BLOCK)
