"""Whether two controllers are one, by where they are and by the machine they name, however that is written. Pure."""

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


FACTORY = frozenset(
    (
        "03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc", "0123456789",
        "123456789", "default string", "to be filled by o.e.m.", "system serial number",
        "chassis serial number", "serial number", "none", "n/a", "na", "null", "unknown", "empty",
        "not specified", "not available", "not settable", "not set", "not applicable", "not present",
        "invalid", "oem", "default",
    )
)  # fmt: skip
"""What boards leave the factory with: many machines have it, and it names none of them."""


def identity_of(*told: object) -> str:
    """The first of a UUID and a serial number that names one machine, in small letters; "" where none does."""
    texts = (t.strip().lower() for t in told if isinstance(t, str))
    return next((t for t in texts if t not in FACTORY and len(set(t) - set("-. ")) > 1), "")


def is_same_machine(identity: str, uuid: str, serial: str) -> bool:
    """Whether a controller's machine is the one with this UUID and serial number; also where one does not say.

    The first three fields of a UUID are in one order of bytes here and in the other one there (SMBIOS 2.6, 7.2.1),
    and by IPMI all 16 bytes are sent backwards (IPMI 2.0, 20.8), or should be.
    """
    uuid, serial = identity_of(uuid), identity_of(serial)
    plain, own = identity.replace("-", ""), uuid.replace("-", "")
    if len(plain) != 32:  # a serial number
        return not identity or not serial or identity == serial
    if len(own) != 32:
        return True
    try:
        told = bytes.fromhex(plain)
    except ValueError:
        return own == plain
    orders = (told, _swapped(told), told[::-1], _swapped(told[::-1]), _swapped(told)[::-1])
    return own in {order.hex() for order in orders}


def _swapped(uuid: bytes) -> bytes:
    return uuid[3::-1] + uuid[5:3:-1] + uuid[7:5:-1] + uuid[8:]
