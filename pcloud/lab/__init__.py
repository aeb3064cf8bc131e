"""A data centre on one machine: hosts as namespaces with their own sshd, libvirtd and disk.

    up, down, status            the whole lab
    power_off, power_on         a host's power: a power cut, and a start from its own disk
    cut, mend                   a host's cable
    freeze_host, thaw_host      a host that keeps its power and answers nothing
    bmc_of, set_bmc             a host's management controller, and what it does wrong
    shell                       the argv of a command inside a host
    enter                       this process, into the lab's network
    open_storefront             a door for the browser, from 127.0.0.1 into the lab

Every function takes the `Site`; the lab's files live in `places.lab_dir(site.site)`. Tests, people
and `pcloud lab` break things through these same functions.
"""

from __future__ import annotations

from pcloud.lab.bmc import Fault, bmc_of
from pcloud.lab.centre import (
    DownReport,
    HostStatus,
    UpReport,
    cut,
    down,
    freeze_host,
    mend,
    power_off,
    power_on,
    set_bmc,
    shell,
    status,
    thaw_host,
    up,
)
from pcloud.lab.layout import inventory_line, require_host
from pcloud.lab.namespaces import enter
from pcloud.lab.network import Direction
from pcloud.lab.relay import open_storefront

__all__ = [
    "Direction",
    "DownReport",
    "Fault",
    "HostStatus",
    "UpReport",
    "bmc_of",
    "cut",
    "down",
    "enter",
    "freeze_host",
    "inventory_line",
    "mend",
    "open_storefront",
    "power_off",
    "power_on",
    "require_host",
    "set_bmc",
    "shell",
    "status",
    "thaw_host",
    "up",
]
