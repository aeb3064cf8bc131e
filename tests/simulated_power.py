"""A simulated management controller: a way that `pcloud.power.PowerControl` asks, with what such machines do wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pcloud.observed import HostPower
from pcloud.power import PowerControl
from pcloud.power.way import Failed, Passing, Refused, late

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
    BOOTS = "boots"
    """It has just started: for `START_S` it says off and drops every order. It tells when it started."""
    BOOTS_UNTOLD = "boots-untold"
    """The same, and it does not tell."""
    UNTOLD = "untold"
    """All is well but that it does not tell when it started."""
    CACHED = "cached"
    """It says for `CACHED_S` what was so when the host was last off, and obeys orders."""
    DARK = "dark"
    """An order is obeyed, and not answered: its network port goes down with the host for `DARK_S`."""
    LOSES = "loses"
    """The first order is taken and lost."""
    TWO_TONGUES = "two-tongues"
    """Its Redfish says off whatever is so, and does nothing; its IPMI says what is so."""
    CROSSED = "crossed"
    """The cable, or a copied line: it is the next host's controller."""
    DARK_KEPT = "dark-kept"
    """As `DARK`, and its log-in outlives that."""
    RESTARTS = "restarts"
    """It starts anew by the first order, which is lost: dark for `DARK_S`, then it says off for `START_S`."""
    LYING_IPMI = "lying-ipmi"
    """Its IPMI says off whatever is so, its Redfish what is so; neither does anything."""
    STALE_IPMI = "stale-ipmi"
    """Its IPMI says off whatever is so, and does nothing; its Redfish is well."""
    HELD_TWICE = "held-twice"
    """The controller is well, and something else answers at the host's address."""


LATE_S = 8.0
START_S = 45.0
CACHED_S = 40.0
DARK_S = 20.0
LONG_S = 1_000_000.0
"""For how long a controller has been running that did not start during the story."""
BOOTING = (Bmc.BOOTS, Bmc.BOOTS_UNTOLD)
TWO_WAYS = (Bmc.TWO_TONGUES, Bmc.LYING_IPMI, Bmc.STALE_IPMI)


@dataclass
class SimWay:
    """A host's controller: a power cut stops everything on the host at once."""

    world: SimWorld
    host: str
    name: str = "redfish"
    pause_s: float = 0.3
    flicker: bool = False
    lost: bool = False
    dark_until: float = 0.0
    starts_until: float = 0.0

    @property
    def session(self) -> str:
        return "1" if self._mode is Bmc.DARK_KEPT else ""

    @property
    def _lies(self) -> bool:
        """This way says off whatever is so, and does nothing."""
        says = {Bmc.TWO_TONGUES: "redfish", Bmc.LYING_IPMI: "ipmi", Bmc.STALE_IPMI: "ipmi"}
        return says.get(self._mode) == self.name

    @property
    def _mode(self) -> Bmc:
        return self.world.hosts[self.host].bmc

    @property
    def _age_s(self) -> float:
        """How long it has been as it is."""
        return self.world.clock.now() - self.world.hosts[self.host].bmc_since

    @property
    def _machine(self) -> str:
        """The host whose power it switches."""
        names = list(self.world.hosts)
        after = names[(names.index(self.host) + 1) % len(names)]
        return after if self._mode is Bmc.CROSSED else self.host

    @property
    def identity(self) -> str:
        return f"uuid-{self._machine}"

    def _listen(self, limit_s: float) -> Bmc:
        clock = self.world.clock
        clock.work(ORDER_S)
        match self._mode:
            case Bmc.MUTE:
                raise Passing("its controller does not answer", f"look at the cable of {self.host}'s controller")
            case Bmc.HANGS:
                clock.work(limit_s)
                raise Passing(late(limit_s), f"restart {self.host}'s controller")
            case Bmc.PASSWORD:
                raise Failed("refuses the password of admin", f"set the password of {self.host}'s bmc")
            case Bmc.DARK | Bmc.DARK_KEPT | Bmc.RESTARTS if clock.now() < self.dark_until:
                clock.work(limit_s)
                raise Passing(late(limit_s), f"wait for {self.host}'s controller")
        return self._mode

    def read(self, limit_s: float) -> HostPower:
        mode = self._listen(limit_s)
        if self.flicker:
            self.flicker = False
            return HostPower.OFF
        stale = (mode in BOOTING and self._age_s < START_S) or (mode is Bmc.CACHED and self._age_s < CACHED_S)
        if stale or self._lies or self.world.clock.now() < self.starts_until:
            return HostPower.OFF
        return HostPower.ON if self.world.hosts[self._machine].powered else HostPower.OFF

    def order(self, power: HostPower, limit_s: float) -> str:
        mode = self._listen(limit_s)
        self.world.effect()
        if power is HostPower.ON:
            self.world.turn_on(self._machine)
            return ""
        if not self.world.hosts[self._machine].powered and mode is not Bmc.NEVER:
            raise Refused("answers 409: it is off already", f"look at {self.host}'s controller")
        self._switch(mode, limit_s)
        self.world.effect()
        return ""

    def _switch(self, mode: Bmc, limit_s: float) -> None:
        clock = self.world.clock
        match mode:
            case Bmc.REFUSES:
                raise Refused("answers 409 to the order", f"look at {self.host}'s controller")
            case Bmc.LATE:
                clock.at(clock.now() + LATE_S, lambda: self.world.cut(self.host))
            case Bmc.FLICKERS:
                self.flicker = True
            case Bmc.BOOTS | Bmc.BOOTS_UNTOLD if self._age_s < START_S:
                pass
            case _ if self._lies or clock.now() < self.starts_until:
                pass
            case Bmc.LOSES if not self.lost:
                self.lost = True
            case Bmc.RESTARTS if not self.lost:
                self.lost = True
                self.dark_until = clock.now() + DARK_S
                self.starts_until = self.dark_until + START_S
                clock.work(limit_s)
                raise Passing(late(limit_s), f"wait for {self.host}'s controller")
            case Bmc.DARK | Bmc.DARK_KEPT:
                self.world.cut(self._machine)
                self.dark_until = clock.now() + DARK_S
                clock.work(limit_s)
                raise Passing(late(limit_s), f"wait for {self.host}'s controller")
            case Bmc.NEVER | Bmc.LYING_IPMI:
                pass
            case _:
                self.world.cut(self._machine)

    def running_s(self, limit_s: float) -> float | None:
        try:
            mode = self._listen(limit_s)
        except Failed:
            return None
        if mode is Bmc.BOOTS:
            return self._age_s
        if mode is Bmc.RESTARTS and self.lost:
            return self.world.clock.now() - self.dark_until
        return None if mode in (Bmc.BOOTS_UNTOLD, Bmc.UNTOLD) else LONG_S

    def close(self) -> None: ...


@dataclass
class SimWitness:
    """What `pcloud.alive.Search` would find."""

    world: SimWorld
    host: str
    answered: tuple[str, ...] = field(default=())

    def before(self) -> None:
        self.answered = tuple(n for n, h in self.world.hosts.items() if not h.away and n != self.host)

    def begin(self) -> Callable[[], str]:
        return self._found

    def _found(self) -> str:
        at = self.world.hosts[self.host]
        if (at.powered and not at.away) or at.bmc is Bmc.HELD_TWICE:
            return f"{self.host} accepts connections"
        if at.powered and at.seen and self.answered:
            return f"{self.answered[0]} can reach {self.host}"
        gone = [name for name in self.answered if self.world.hosts[name].away]
        return f"{' and '.join(gone)}, which answered before the order, does not any more" if gone else ""


def control(world: SimWorld, host: str) -> PowerControl:
    both = world.hosts[host].bmc in TWO_WAYS
    ways = [SimWay(world, host, name) for name in (("redfish", "ipmi") if both else ("redfish",))]
    witness = SimWitness(world, host)
    return PowerControl(
        host, ways, TIMEOUT_S, OFF_TIMEOUT_S, world.clock, witness=witness, rivals=lambda: dict(world.controls)
    )
