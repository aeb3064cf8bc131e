"""Who a server is, derived from names alone: nothing is invented, nothing is stored.

The same site and server always get the same UUID and MAC address, on any machine, so that
defining a server again is harmless and a rebuilt one keeps its identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from uuid import UUID, uuid5

from pcloud.model import Group, Site

NAMESPACE = UUID("7c1d0e52-5a0b-5d0e-9c5e-70636c6f7564")
MAX_ADDRESSES = 65_536
STATELESS = frozenset({"frontend"})
"""Roles whose servers hold nothing: another one at another address does as well."""


def server_names(group: Group) -> tuple[str, ...]:
    """`fe-1` to `fe-<count>`."""
    return tuple(f"{group.prefix}-{n}" for n in range(1, group.count + 1))


def servers_of(site: Site) -> Iterator[tuple[Group, str, IPv4Address]]:
    """Every server of a site: its group, its name, its address; in the inventory's order."""
    for group in site.groups:
        for name, address in zip(server_names(group), expand_addresses(group.addresses), strict=False):
            yield group, name, address


def substitutes_of(site: Site) -> Iterator[tuple[Group, str, IPv4Address]]:
    """Who may stand in for a server of a stateless group: the next names, at the group's spare addresses.

    No more than the group has servers, so that a wide pool of addresses costs nothing.
    """
    for group in site.groups:
        if group.role in STATELESS:
            spare = expand_addresses(group.addresses)[group.count : 2 * group.count]
            for number, address in enumerate(spare, group.count + 1):
                yield group, f"{group.prefix}-{number}", address


def carrier_names(site: Site) -> tuple[str, ...]:
    """The servers that hold the shop's data: the database's own first, then the one that carries the replica."""
    groups = [site.database.group, *([site.database.replica] if site.database.replica else [])]
    return tuple(f"{site.group(name).prefix}-1" for name in groups)


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
