"""Simulated shoppers: an order every few seconds, and a ledger of those that were acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.simulated_data import SimData
from tests.simulation import SimWorld

PACE_S = 2.0


@dataclass
class Shoppers:
    """They order through the balancer, a frontend and the primary; a commit waits for a replica as semi-sync says."""

    world: SimWorld
    ordered: int = 0
    acknowledged: list[int] = field(default_factory=list)
    acknowledged_at: dict[int, float] = field(default_factory=dict)
    refused_at: list[float] = field(default_factory=list)
    waiting: dict[int, tuple[int, float]] = field(default_factory=dict)
    """A primary's data (by identity) to its order that waits for a replica, and since when."""
    on_one_disk: list[int] = field(default_factory=list)
    """Orders that no other server had when they were acknowledged."""
    alone: set[int] = field(default_factory=set)
    """Primaries that gave up waiting."""

    def begin(self) -> None:
        self.world.clock.at(self.world.clock.now() + PACE_S, self._again)

    def _again(self) -> None:
        self.order()
        self.begin()

    def order(self) -> None:
        world, now = self.world, self.world.clock.now()
        source = self._reached()
        if source is None:
            self.waiting.clear()  # whoever waited got an error, and no acknowledgement
            self.refused_at.append(now)
            return
        world.hearing.answered()
        self.waiting = {k: v for k, v in self.waiting.items() if k == id(source)}
        if id(source) not in self.waiting:
            self.ordered += 1
            source.position += 1
            source.orders = (*source.orders, self.ordered)
            self.waiting[id(source)] = self.ordered, now
        world.replicate()
        self._settle(source, now)

    def _settle(self, source: SimData, now: float) -> None:
        """Acknowledged is what a replica has, or what its primary gave up waiting for."""
        number, since = self.waiting[id(source)]
        has_it = any(number in d.relayed for d in self.world.carried() if d is not source and d.running)
        has_it = has_it or self._was_received(number, source)
        if has_it or not source.semi_sync:
            self.alone.discard(id(source))
        elif id(source) not in self.alone:
            if now - since < float(source.timeout) / 1000:
                return
            self.alone.add(id(source))
        del self.waiting[id(source)]
        self.on_one_disk += [] if has_it else [number]
        self.acknowledged.append(number)
        self.acknowledged_at[number] = now

    def _was_received(self, number: int, source: SimData) -> bool:
        """By a replica that is gone again: it acknowledged the order then, between two looks of ours."""
        heard = (d for d in self.world.disks.values() if d is not source and d.heard is not None)
        return any(number in d.relayed for d in heard)

    def _reached(self) -> SimData | None:
        world = self.world
        for role in ("balancer", "frontend"):
            if not any(world.serving(s.name) for s in world.desired.everyone if s.role == role):
                return None
        source = world.at_address("")
        return source if source is not None and source.state == "restored" else None

    def missing(self) -> list[int]:
        """Acknowledged orders that the primary does not have."""
        source = self.world.at_address("")
        held = set(source.orders) if source is not None else set()
        return [n for n in self.acknowledged if n not in held]
