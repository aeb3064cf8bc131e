"""A simulated management controller: a way that `pcloud.power.PowerControl` asks, with what such machines do wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pcloud.observed import HostPower
from pcloud.power import PowerControl
from pcloud.power.way import Failed, Refused, late

if TYPE_CHECKING:
    from tests.simulation import SimWorld

TIMEOUT_S, OFF_TIMEOUT_S = 10, 30
ORDER_S = 0.2


class Bmc(StrEnum):
    """What a controller does with a question or an order."""

    WELL = "well"
    MUTE = "mute"
    """Nobody answers at its address."""
    HANGS = "hangs"
    PASSWORD = "password"
    """It does not know our password."""
    REFUSES = "refuses"
    """Every order is a conflict (409)."""
    LATE = "late"
    """It takes an order at once, and the power goes off `LATE_S` later."""
    NEVER = "never"
    """It takes an order and does nothing."""
    FLICKERS = "flickers"
    """Each first reading after an order says off, whatever is so."""


LATE_S = 8.0


@dataclass
class SimWay:
    """A host's controller: a power cut stops everything on the host at once."""

    world: SimWorld
    host: str
    name: str = "redfish"
    flicker: bool = False

    def _listen(self, limit_s: float) -> Bmc:
        mode, clock = self.world.hosts[self.host].bmc, self.world.clock
        clock.work(ORDER_S)
        match mode:
            case Bmc.MUTE:
                raise Failed("its controller does not answer", f"look at the cable of {self.host}'s controller")
            case Bmc.HANGS:
                clock.work(limit_s)
                raise Failed(late(limit_s), f"restart {self.host}'s controller")
            case Bmc.PASSWORD:
                raise Failed("refuses the password of admin", f"set the password of {self.host}'s bmc")
        return mode

    def read(self, limit_s: float) -> HostPower:
        self._listen(limit_s)
        if self.flicker:
            self.flicker = False
            return HostPower.OFF
        return HostPower.ON if self.world.hosts[self.host].powered else HostPower.OFF

    def order(self, power: HostPower, limit_s: float) -> None:
        assert power is HostPower.OFF, "no plan turns a host on"
        mode = self._listen(limit_s)
        self.world.effect()
        match mode:
            case Bmc.REFUSES:
                raise Refused("answers 409 to the order", f"look at {self.host}'s controller")
            case Bmc.LATE:
                clock = self.world.clock
                clock.at(clock.now() + LATE_S, lambda: self.world.cut(self.host))
            case Bmc.FLICKERS:
                self.flicker = True
            case Bmc.WELL:
                self.world.cut(self.host)
        self.world.effect()


def control(world: SimWorld, host: str) -> PowerControl:
    return PowerControl(host, (SimWay(world, host),), TIMEOUT_S, OFF_TIMEOUT_S, world.clock)
