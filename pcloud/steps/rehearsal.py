"""A host's power, cut and restored on a quiet day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.clock import Deadline
from pcloud.controllers import is_same_machine
from pcloud.errors import Blocked, CheckFailed, HostUnreachable, PcloudError
from pcloud.observed import HostPower, Power, SeenServer
from pcloud.steps.base import Met, Report, Unmet, World

BACK_S = 900.0
"""A server's firmware alone may take minutes."""
POLL_S = 2.0
DMI = "/sys/class/dmi/id"
DMI_S = 10.0
SSH_S = 10.0


def tell_running(servers: Iterable[SeenServer]) -> str:
    """What a host's servers keep it from, as a clause; "" when all of them are off."""
    there = [(s.mark.server if s.mark else s.name, s.power) for s in servers if s.power is not Power.OFF]
    running = [name for name, power in there if power is not Power.PAUSED]
    paused = [name for name, power in there if power is Power.PAUSED]
    parts = [f"{', '.join(running)} {'runs' if len(running) == 1 else 'run'} there"] if running else []
    parts += [f"{', '.join(paused)} {'is' if len(paused) == 1 else 'are'} paused there"] if paused else []
    return " and ".join(parts)


@dataclass(frozen=True)
class Rehearse:
    """The host was ordered off in this run and proven off, has power again, and answers.

    It is one step, so that a run that is stopped restores the power all the same.
    """

    host: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        took_s = world.power(self.host).took_s
        if took_s is None:
            return Unmet("nobody has cut its power in this run")
        reading = world.power(self.host).read()
        return Met() if reading.power is HostPower.ON else Unmet(f"its power is {reading.power}")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        if running := tell_running(world.hypervisor(self.host).servers()):
            again = f"pcloud failover {world.site.site} {self.host}, or take another host"
            raise Blocked(running, where=self.host, next=again)
        control = world.power(self.host)
        self._check_machine(world)
        report.progress("cutting its power")
        failed: PcloudError | None = None
        try:
            control.force_off(report)
        except (HostUnreachable, Blocked) as error:
            failed = error
        how, off_s = control.proof, control.took_s
        began = world.clock.now()
        report.progress("switching it on again")
        self._switch_on(world, failed)
        self._await(world, report)
        if failed is not None:
            what = "its power cannot be cut" if isinstance(failed, HostUnreachable) else "it is not proven off"
            again = f"{failed.next}; then the same command again" if failed.next else "the same command again"
            raise Blocked(f"{what}: {failed.what}", where=self.host, next=again) from failed
        return {"how": how, "off_s": round(off_s or 0.0, 3), "back_s": round(world.clock.now() - began, 3)}

    def _check_machine(self, world: World) -> None:
        """No other machine's power is cut for a rehearsal. A lab's hosts have one firmware between them."""
        control = world.power(self.host)
        with suppress(HostUnreachable):  # the order will say why
            control.read()
        if world.site.lab is not None or not control.identity:
            return
        uuid, serial = (self._firmware(world, name) for name in ("product_uuid", "product_serial"))
        if not is_same_machine(control.identity, uuid, serial):
            what = f"its controller leads to the machine {control.identity}, and this is {uuid or serial}"
            raise Blocked(what, where=self.host, next=f"correct bmc of {self.host}; then the same command again")

    def _firmware(self, world: World, name: str) -> str:
        return (
            world.shell(self.host).run(["cat", f"{DMI}/{name}"], deadline_s=DMI_S, check=False).stdout.strip().lower()
        )

    def _switch_on(self, world: World, failed: PcloudError | None) -> None:
        try:
            world.power(self.host).force_on()
        except HostUnreachable as error:
            if failed is not None:  # who does not hear the one does not hear the other
                return
            again = f"{error.next}; then: pcloud power {world.site.site}/{self.host} on"
            what = f"its power is off, and cannot be switched on: {error.what}"
            raise Blocked(what, where=self.host, next=again) from error

    def _await(self, world: World, report: Report) -> None:
        end = Deadline.after(BACK_S, world.clock)
        report.progress("waiting until it answers")
        while True:
            try:
                world.shell(self.host).run(["true"], deadline_s=SSH_S)
                world.hypervisor(self.host).servers()
            except PcloudError as error:
                if end.passed() or report.stopping():
                    look = f"look at its console; then: pcloud hosts check {world.site.site}"
                    what = f"it has power again, and does not answer: {error.what}"
                    raise CheckFailed(what, where=self.host, next=look) from error
                world.clock.sleep(POLL_S)
            else:
                return
