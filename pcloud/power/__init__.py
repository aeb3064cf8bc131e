"""A host's power, by its management controller: Redfish, then IPMI through ipmitool.

Only this package speaks Redfish and calls ipmitool. A controller is a slow little machine that
lies: it says off while it starts, answers before the power is off, refuses what is so already
(409), hangs, or shows a certificate that nobody signed. So every request has a deadline of our
own, an order whose outcome is unknown is looked at and given again, what was ordered counts only
once it is proven (`proof.py`), and each way's failure has its reason and what to do about it.

Off is always ForceOff (`chassis power off` in IPMI), never a graceful shutdown: a host that
must be fenced is one that nobody can trust to shut down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pcloud.clock import Clock
from pcloud.hoststate import Controller
from pcloud.inventory import Inventory
from pcloud.lab import bmc_of
from pcloud.model import Bmc, Host, SecretRef
from pcloud.power.control import PowerControl, Reading, Watch, Witness
from pcloud.power.examine import examine
from pcloud.power.ipmi import Ipmi
from pcloud.power.redfish import Redfish

__all__ = ["PowerControl", "Reading", "Watch", "Witness", "control_of", "examine_controller", "power_control"]


def control_of(
    inventory: Inventory,
    host: Host,
    reveal: Callable[[SecretRef], str],
    clock: Clock,
    witness: Witness | None = None,
    rivals: Callable[[], Mapping[str, PowerControl]] = dict,
) -> PowerControl:
    """The control of a host of a site: in a lab the lab's, else as the inventory says."""
    bmc = bmc_of(inventory.site, host) or host.bmc
    ca = inventory.resolve(bmc.ca) if bmc is not None and bmc.ca is not None else None
    return power_control(host.name, bmc, reveal, ca, clock, witness, rivals)


def power_control(
    host: str,
    bmc: Bmc | None,
    reveal: Callable[[SecretRef], str],
    ca: Path | None,
    clock: Clock,
    witness: Witness | None = None,
    rivals: Callable[[], Mapping[str, PowerControl]] = dict,
) -> PowerControl:
    """The control of a host; without a `bmc`, one whose every question raises `HostUnreachable`.

    `ca`: `bmc.ca` as a path of this machine. `reveal` is asked when the password is first needed.
    """
    if bmc is None:
        return PowerControl(host, (), 0, 0, clock)
    ways = _ways(bmc, reveal, ca)
    return PowerControl(
        host, ways, bmc.timeout_s, bmc.off_timeout_s, clock, start_s=bmc.start_s, witness=witness, rivals=rivals
    )


def examine_controller(
    inventory: Inventory, host: Host, reveal: Callable[[SecretRef], str], clock: Clock
) -> tuple[Controller, ...]:
    """What each way to a host's controller says of what fencing will need; nothing is switched."""
    bmc = bmc_of(inventory.site, host) or host.bmc
    if bmc is None:
        return ()
    ca = inventory.resolve(bmc.ca) if bmc.ca is not None else None
    return tuple(examine(way, bmc.timeout_s, clock) for way in _ways(bmc, reveal, ca))


def _ways(bmc: Bmc, reveal: Callable[[SecretRef], str], ca: Path | None) -> list[Redfish | Ipmi]:
    """In the order in which they are tried."""
    ways: list[Redfish | Ipmi] = []
    if bmc.redfish is not None:
        ways.append(Redfish(bmc, reveal, ca))
    if bmc.ipmi is not None:
        ways.append(Ipmi(bmc, reveal))
    return ways
