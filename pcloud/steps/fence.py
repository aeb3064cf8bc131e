"""A host that is proven to be off: what must be so before anything of it runs elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.errors import Blocked, HostUnreachable
from pcloud.model import Check, TcpCheck
from pcloud.observed import HostPower
from pcloud.steps.base import Met, PowerReading, Report, Unmet, World


@dataclass(frozen=True)
class PowerProof:
    """A host's power as its controller says. `proof` is what proves that it is off; empty for an Off by itself."""

    power: HostPower
    proof: str = ""
    way: str = ""
    against: str = ""
    """What another way to the controller said, where that is something else."""

    def __str__(self) -> str:
        said = f"{self.way} says it is {self.power}"
        if self.against:
            return f"{said}, and {self.against}"
        return f"{said}, which nobody ordered" if self.power is HostPower.OFF and not self.proof else said


def ask_power(world: World, host: str) -> PowerProof:
    """What the controller says now. An Off is proven only where this run ordered it. Raises `HostUnreachable`."""
    control = world.power(host)
    reading = control.read()
    proof = control.proof if reading.power is HostPower.OFF else ""
    return PowerProof(reading.power, proof, reading.way, reading.against)


def confirm_command(site: str, host: str) -> str:
    """What a person types who has pulled the plug."""
    return f"pcloud fence confirm {site}/{host} --i-have-powered-it-off"


@dataclass(frozen=True)
class Fence:
    """The host has no power: it was ordered off, and that is proven; or a person says so, and no controller objects.

    Off means off at once, and is ordered whatever the controller says beforehand. When no controller
    does it, or something contradicts it, only a person can: `Blocked`.
    """

    host: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        """Before the order nothing that a controller says could be enough: it is asked only beside a person's word."""
        word = world.confirmed_off(self.host)
        if not word and not world.power(self.host).proof:
            return Unmet("nothing proves that this run cut its power")
        try:
            asked = ask_power(world, self.host)
        except HostUnreachable as error:
            return Met({"proof": word, "by": "person"}) if word else Unmet(error.what)
        if asked.proof:
            return Met({"proof": asked.proof, "read": ["off", "off"], "by": asked.way})
        if word and asked.power is HostPower.OFF:
            return Met({"proof": word, "by": "person"})
        return Unmet(str(asked))

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress("forcing it off")
        site = world.site.site
        confirm = f"pull its plug, then: {confirm_command(site, self.host)}; then pcloud recover {site}"
        try:
            reading = world.power(self.host).force_off(report)
        except HostUnreachable as error:
            raise Blocked(
                f"its power cannot be cut: {error.what}",
                where=self.host,
                next=confirm + (f". Or mend its controller: {error.next}" if error.next else ""),
            ) from error
        except Blocked as error:
            again = f"{error.next}; then pcloud recover {site}. Or {confirm}"
            raise Blocked(f"it is not proven off: {error.what}", where=self.host, next=again) from error
        remark = f"; {reading.remark}" if reading.remark else ""
        return {"asked": [f"off at once, by {reading.way}{remark}"]}


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
