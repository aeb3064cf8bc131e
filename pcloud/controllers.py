"""Where controllers are, as the inventory writes it: the same place is the same, however it is written. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import unquote, urlsplit

from pcloud.model import Bmc
from pcloud.values import split_port

IPMI_PORT = 623


@dataclass(frozen=True)
class Place:
    """One way to one controller. `system` is the path of one of several systems behind it; "" for its only one."""

    way: Literal["redfish", "ipmi"]
    machine: str
    port: int
    system: str = ""

    def may_be(self, other: Place) -> bool:
        """Whether both may lead to one system's power: Redfish and IPMI of one address are one controller."""
        if self.machine != other.machine:
            return False
        if self.way != other.way:
            return True
        return self.port == other.port and (self.system == other.system or not (self.system and other.system))


def places_of(bmc: Bmc | None) -> Iterator[tuple[str, Place]]:
    """By the key of the inventory."""
    if bmc is not None and bmc.redfish is not None:
        url = urlsplit(bmc.redfish)
        port = url.port or (443 if url.scheme == "https" else 80)
        path = unquote(url.path).rstrip("/")
        yield "redfish", Place("redfish", _machine(url.hostname or ""), port, path if "/Systems/" in path else "")
    if bmc is not None and bmc.ipmi is not None:
        machine, port = split_port(bmc.ipmi, IPMI_PORT)
        yield "ipmi", Place("ipmi", _machine(machine), port)


def _machine(name: str) -> str:
    try:
        return str(ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")
