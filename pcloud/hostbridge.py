"""The text of a bridge that a person applies by hand: pcloud never touches the network of a host."""

from __future__ import annotations

from pcloud.hoststate import NETWORKD_UNIT, HostFacts
from pcloud.model import Host, Site

_BY_HAND = """\
by hand, at its console: pcloud never touches a network
in place of what sets {card} up now, write """
_IFUPDOWN = f"""{_BY_HAND}in /etc/network/interfaces
  iface {{card}} inet manual
  auto {{bridge}}
  iface {{bridge}} inet static
    address {{address}}
    gateway {{gateway}}
    bridge_ports {{card}}
    bridge_stp off
    bridge_fd 0
then: apt-get install bridge-utils; systemctl restart networking"""
_NETWORKD = f"""{_BY_HAND}in /etc/systemd/network
  {{bridge}}.netdev
    [NetDev]
    Name={{bridge}}
    Kind=bridge
  {{card}}.network
    [Match]
    Name={{card}}
    [Network]
    Bridge={{bridge}}
  {{bridge}}.network
    [Match]
    Name={{bridge}}
    [Network]
    Address={{address}}
    Gateway={{gateway}}
then: networkctl reload"""


def bridge_text(site: Site, host: Host, facts: HostFacts) -> str:
    """What a person writes on the host, in the files of the service that sets its network up."""
    own = next((x for x in facts.links if any(a.startswith(f"{host.address}/") for a in x.addresses)), None)
    cards = [x.name for x in facts.links if not x.kind and x.up and x.name != "lo"]
    card = own.name if own is not None and own.name != host.bridge else cards[0] if cards else "CARD"
    address = next((a for a in own.addresses if a.startswith(f"{host.address}/")), "") if own else ""
    address = address or f"{host.address}/{site.network.cidr.prefixlen}"
    gateway = facts.gateway or str(site.network.gateway)
    networkd = facts.units.get(NETWORKD_UNIT)
    text = _NETWORKD if networkd is not None and networkd.active == "active" else _IFUPDOWN
    return text.format(bridge=host.bridge, card=card, address=address, gateway=gateway)
