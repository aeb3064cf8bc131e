"""A host's power, by its management controller: Redfish through sushy, then IPMI through ipmitool.

Only this package imports sushy and calls ipmitool. A controller is a slow little machine that
lies: it answers before the power is off, refuses what is so already (409), hangs, or shows a
certificate that nobody signed. So every question has a deadline of our own (sushy alone may
wait 27 to 47 s), an order counts only once the power reads as ordered, and each way's failure
has its reason and what to do about it.

Off is always ForceOff (`chassis power off` in IPMI), never a graceful shutdown: a host that
must be fenced is one that nobody can trust to shut down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pcloud.clock import Clock, Deadline
from pcloud.errors import HostUnreachable
from pcloud.inventory import Inventory
from pcloud.lab import bmc_of
from pcloud.model import Bmc, Host, SecretRef
from pcloud.observed import HostPower
from pcloud.power.ipmi import Ipmi
from pcloud.power.redfish import Redfish
from pcloud.power.way import Failed, Refused, Way

__all__ = ["PowerControl", "Reading", "control_of", "power_control"]

POLL_S = 0.3
"""Between two readings while the power has to change."""


@dataclass(frozen=True)
class Reading:
    """What a controller said of the power, and by which way: `redfish` or `ipmi`."""

    power: HostPower
    way: str


class PowerControl:
    """A host's controller; its ways are tried in order. May be used by several threads."""

    def __init__(self, host: str, ways: Sequence[Way], timeout_s: float, off_timeout_s: float, clock: Clock) -> None:
        self._host = host
        self._ways = tuple(ways)
        self._timeout_s = timeout_s
        self._off_timeout_s = off_timeout_s
        self._clock = clock
        self._one = threading.Lock()  # these little machines choke on questions side by side

    def read(self) -> Reading:
        """Raises `HostUnreachable` with every way's reason."""
        reasons = []
        for way in self._ways:
            try:
                return Reading(self._read(way, self._timeout_s), way.name)
            except Failed as failed:
                reasons.append((way.name, failed))
        raise self._silent(reasons)

    def force_off(self) -> Reading:
        """Orders it off at once and reads until it is. Raises `HostUnreachable` with every way's reason."""
        return self._switch(HostPower.OFF)

    def force_on(self) -> Reading:
        """Orders it on and reads until it is. Raises `HostUnreachable` with every way's reason."""
        return self._switch(HostPower.ON)

    def _switch(self, wanted: HostPower) -> Reading:
        reasons = []
        for way in self._ways:
            try:
                self._switch_by(way, wanted)
                return Reading(wanted, way.name)
            except Failed as failed:
                reasons.append((way.name, failed))
        raise self._silent(reasons)

    def _switch_by(self, way: Way, wanted: HostPower) -> None:
        deadline = Deadline.after(self._off_timeout_s, self._clock)
        problem = Failed(
            f"took the order, and the power does not read {wanted} after {self._off_timeout_s:g} s",
            f"look at the machine and its controller, or raise bmc.off_timeout_s of {self._host}",
        )
        try:
            with self._one:
                way.order(wanted, self._timeout_s)
        except Refused as refused:  # a 409 from a host that is off already: what it reads decides
            problem = refused
        while True:
            try:
                if self._read(way, max(0.1, deadline.within(self._timeout_s))) is wanted:
                    return
            except Failed as failed:
                problem = failed
            if deadline.passed():
                raise problem
            self._clock.sleep(POLL_S)

    def _read(self, way: Way, limit_s: float) -> HostPower:
        with self._one:
            return way.read(limit_s)

    def _silent(self, reasons: Sequence[tuple[str, Failed]]) -> HostUnreachable:
        if not reasons:
            return HostUnreachable(
                "it has no management controller in the inventory", where=self._host, next=f"add bmc to {self._host}"
            )
        what = "; ".join(f"{name}: {failed.why}" for name, failed in reasons)
        nexts = "; ".join(dict.fromkeys(failed.next for _, failed in reasons))
        return HostUnreachable(what, where=self._host, next=nexts)


def control_of(inventory: Inventory, host: Host, reveal: Callable[[SecretRef], str], clock: Clock) -> PowerControl:
    """The control of a host of a site: in a lab the lab's, else as the inventory says."""
    bmc = bmc_of(inventory.site, host) or host.bmc
    ca = inventory.resolve(bmc.ca) if bmc is not None and bmc.ca is not None else None
    return power_control(host.name, bmc, reveal, ca, clock)


def power_control(
    host: str, bmc: Bmc | None, reveal: Callable[[SecretRef], str], ca: Path | None, clock: Clock
) -> PowerControl:
    """The control of a host; without a `bmc`, one whose every question raises `HostUnreachable`.

    `ca`: `bmc.ca` as a path of this machine. `reveal` is asked when the password is first needed.
    """
    if bmc is None:
        return PowerControl(host, (), 0, 0, clock)
    ways: list[Way] = []
    if bmc.redfish is not None:
        ways.append(Redfish(bmc, reveal, ca))
    if bmc.ipmi is not None:
        ways.append(Ipmi(bmc, reveal))
    return PowerControl(host, ways, bmc.timeout_s, bmc.off_timeout_s, clock)
