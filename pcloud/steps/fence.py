"""A host that is proven to be off: what must be so before anything of it runs elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.errors import Blocked, HostUnreachable
from pcloud.model import Check, TcpCheck
from pcloud.observed import HostPower
from pcloud.steps.base import Met, PowerReading, Report, Unmet, World

APART_S = 0.3
"""Between the two readings: a controller may say off for a moment while it switches."""


@dataclass(frozen=True)
class PowerProof:
    """A host's power as its controller says. `proof` is who says that it is off, and is empty unless it is."""

    power: HostPower
    proof: str = ""
    way: str = ""


def ask_power(world: World, host: str) -> PowerProof:
    """Off only when two questions, one after the other, both say so. Raises `HostUnreachable`."""
    control = world.power(host)
    for last in (False, True):
        reading = control.read()
        if reading.power is not HostPower.OFF:
            return PowerProof(reading.power, way=reading.way)
        if not last:
            world.clock.sleep(APART_S)
    return PowerProof(HostPower.OFF, f"{reading.way}, read twice", reading.way)


def confirm_command(site: str, host: str) -> str:
    """What a person types who has pulled the plug."""
    return f"pcloud fence confirm {site}/{host} --i-have-powered-it-off"


@dataclass(frozen=True)
class Fence:
    """The host has no power, by its controller's word read twice, or by a person's.

    Off means off at once. When no controller does it, only a person can: `Blocked`.
    """

    host: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        try:
            asked = ask_power(world, self.host)
        except HostUnreachable as error:
            word = world.confirmed_off(self.host)
            return Met({"proof": word, "by": "person"}) if word else Unmet(error.what)
        if asked.power is HostPower.OFF:
            return Met({"proof": asked.proof, "read": ["off", "off"], "by": asked.way})
        return Unmet(f"{asked.way} says it is {asked.power}")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress("forcing it off")
        try:
            reading = world.power(self.host).force_off()
        except HostUnreachable as error:
            site = world.site.site
            raise Blocked(
                f"its power cannot be cut: {error.what}",
                where=self.host,
                next=f"pull its plug, then: {confirm_command(site, self.host)}; then pcloud recover {site}"
                + (f". Or mend its controller: {error.next}" if error.next else ""),
            ) from error
        return {"asked": [f"off at once, by {reading.way}"]}


@dataclass(frozen=True)
class SwitchOn:
    """The host has power."""

    host: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        reading = _answered(world, self.host, lambda: world.power(self.host).read())
        return Met({"by": reading.way}) if reading.power is HostPower.ON else Unmet(f"it is {reading.power}")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress("switching it on")
        reading = _answered(world, self.host, lambda: world.power(self.host).force_on())
        return {"asked": [f"on, by {reading.way}"]}


def _answered(world: World, host: str, question: Callable[[], PowerReading]) -> PowerReading:
    """A controller that does not answer is a person's affair: asking it again at once would not help."""
    try:
        return question()
    except HostUnreachable as error:
        again = f"{error.next}; then: pcloud power {world.site.site}/{host} on"
        raise Blocked(error.what, where=host, next=again) from error


@dataclass(frozen=True)
class Confirm:
    """A person says that the host has no power, and nothing that can be asked says otherwise."""

    host: str
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:
        again = f"pcloud fence {world.site.site}/{self.host}"
        address = str(world.host(self.host).address)
        ssh = Check(name="ssh", tcp=TcpCheck(port=22), timeout_s=world.site.access.connect_timeout_s)
        if world.probe(ssh, self.host, address).ok:
            raise Blocked(f"{address} accepts connections, so it has power", where=self.host, next=again)
        try:
            reading = world.power(self.host).read()
        except HostUnreachable as error:
            return Unmet(error.what)
        if reading.power is not HostPower.OFF:
            raise Blocked(f"{reading.way} says that its power is {reading.power}", where=self.host, next=again)
        return Unmet(f"{reading.way} says that its power is off")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        return {"proof": "a person's word", "by": "person"}
