"""Who a server is, derived from names alone: nothing is invented, nothing is stored.

The same site and server always get the same UUID and MAC address, on any machine, so that
defining a server again is harmless and a rebuilt one keeps its identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from uuid import UUID, uuid5

from pcloud.model import Group

NAMESPACE = UUID("7c1d0e52-5a0b-5d0e-9c5e-70636c6f7564")
MAX_ADDRESSES = 65_536


def server_names(group: Group) -> tuple[str, ...]:
    """`fe-1` to `fe-<count>`."""
    return tuple(f"{group.prefix}-{n}" for n in range(1, group.count + 1))


def server_uuid(site: str, server: str) -> UUID:
    return uuid5(NAMESPACE, f"{site}/{server}")


def server_mac(site: str, server: str) -> str:
    """`52:` and 40 bits of the server's UUID: a locally administered unicast address.

    The customary `52:54:00` leaves 24 bits, where two of 7,000 servers clash more often than not.
    """
    return ":".join(f"{byte:02x}" for byte in (0x52, *server_uuid(site, server).bytes[-5:]))


def expand_addresses(specs: Iterable[str]) -> tuple[IPv4Address, ...]:
    """`10.0.0.1` and `10.0.0.1-10.0.0.9` (both ends count), in the order written.

    Raises `ValueError` for what is not an address, for a range that runs backwards, and above 65,536.
    """
    found: list[IPv4Address] = []
    for spec in specs:
        low, high = range_ends(spec)
        if int(high) - int(low) >= MAX_ADDRESSES - len(found):
            raise ValueError(f"{spec} makes more than {MAX_ADDRESSES} addresses; write fewer")
        found.extend(IPv4Address(n) for n in range(int(low), int(high) + 1))
    return tuple(found)


def range_ends(spec: str) -> tuple[IPv4Address, IPv4Address]:
    """The first and last address of one spec. Raises `ValueError`."""
    first, dash, last = spec.partition("-")
    try:
        low = IPv4Address(first)
        high = IPv4Address(last) if dash else low
    except ValueError:
        raise ValueError(f"{spec} is not an address or a range such as 10.77.0.21-10.77.0.24") from None
    if high < low:
        raise ValueError(f"{spec} runs backwards; write the lower address first")
    return low, high
