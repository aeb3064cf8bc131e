"""The fabric's side of every host's cable: cutting, mending, and how it is. And what its controller lets through."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any, Literal, cast

from pcloud.errors import CommandFailed
from pcloud.lab.boot import BRIDGE
from pcloud.lab.processes import Part
from pcloud.model import Host

Direction = Literal["both", "in", "out"]
Link = Literal["up", "cut", "cut-in", "cut-out", "-"]
TABLE = "cut"
# Seen from the fabric: what a host sends comes in at its port, what it receives goes out there.
HOOKS = {"in": "egress", "out": "ingress"}
CONTROLLERS = "bmc"
# A hung controller's kernel still accepts connections: packets without data (at most 60 bytes) pass.
DEAF = {"refuse": "tcp dport 443 reject with tcp reset", "hang": "ip length > 100 drop", "dead": "drop"}


def port_name(host: Host) -> str:
    """The fabric's end of the host's cable, from its address: unique, and short enough for the kernel."""
    return f"p{int(host.address):08x}"


def _run(fabric: Part, argv: list[str], stdin: str = "") -> str:
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{fabric.pid}/ns/net", "--", *argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(f"{argv[0]}: {done.stderr.strip()}", where="the lab's fabric", next="pcloud lab status")
    return done.stdout


def cut_port(fabric: Part, host: Host, direction: Direction) -> None:
    """Takes the cable out, or lets it carry frames one way only. The host's port must exist."""
    port = port_name(host)
    mend_port(fabric, host)
    if direction == "both":
        _run(fabric, ["ip", "link", "set", port, "down"])
        return
    chain = f"{port}-{direction}"
    rules = f"add table netdev {TABLE}\nadd chain netdev {TABLE} {chain} "
    rules += f'{{ type filter hook {HOOKS[direction]} device "{port}" priority 0; policy drop; }}\n'
    _run(fabric, ["nft", "-f", "-"], rules)


def filter_controllers(fabric: Part, faults: Mapping[IPv4Address, str]) -> None:
    """What every controller does not let through: by the words of DEAF, and nothing for any other word."""
    rules = [f"add table inet {CONTROLLERS}", f"delete table inet {CONTROLLERS}", f"add table inet {CONTROLLERS}"]
    rules.append(f"add chain inet {CONTROLLERS} input {{ type filter hook input priority 0; policy accept; }}")
    for address, fault in faults.items():
        if fault in DEAF:
            rules.append(f"add rule inet {CONTROLLERS} input ip daddr {address} {DEAF[fault]}")
    _run(fabric, ["nft", "-f", "-"], "\n".join(rules) + "\n")


def mend_port(fabric: Part, host: Host) -> None:
    """The cable carries frames both ways. The host's port must exist."""
    drop_filters(fabric, host)
    _run(fabric, ["ip", "link", "set", port_name(host), "up"])


def take_port(fabric: Part, host: Host) -> None:
    """The cable with both its ends, for good; nothing to do where it is gone."""
    if port_name(host) in _ports(fabric):
        _run(fabric, ["ip", "link", "delete", port_name(host)])


def _ports(fabric: Part) -> dict[str, bool]:
    """The fabric's end of every cable, and whether it is up."""
    found: list[dict[str, Any]] = json.loads(_run(fabric, ["ip", "-json", "link", "show", "master", BRIDGE]) or "[]")
    return {port["ifname"]: "UP" in port["flags"] for port in found}


def drop_filters(fabric: Part, host: Host) -> None:
    """Its cable carries frames both ways when the host next has power: a filter outlives the port that it names."""
    port = port_name(host)
    for chain in sorted(_chains(fabric) & {f"{port}-in", f"{port}-out"}):
        _run(fabric, ["nft", "delete", "chain", "netdev", TABLE, chain])


def links(fabric: Part, hosts: tuple[Host, ...]) -> dict[str, Link]:
    """How every host's cable is, by host name; `-` where the host has no power."""
    up = _ports(fabric)
    chains = _chains(fabric)
    result: dict[str, Link] = {}
    for host in hosts:
        port = port_name(host)
        if port not in up:
            result[host.name] = "-"
        elif not up[port]:
            result[host.name] = "cut"
        else:
            one_way = next((d for d in HOOKS if f"{port}-{d}" in chains), None)
            result[host.name] = cast(Link, f"cut-{one_way}") if one_way else "up"
    return result


def _chains(fabric: Part) -> set[str]:
    listed = json.loads(_run(fabric, ["nft", "--json", "list", "chains", "netdev"]))
    return {item["chain"]["name"] for item in listed["nftables"] if item.get("chain", {}).get("table") == TABLE}
