"""The host keys that a site pins for its hosts, as lines of known_hosts."""

from __future__ import annotations

from pathlib import Path

from pcloud import places
from pcloud.document import decode_text, read_file, show_path
from pcloud.inventory import Inventory
from pcloud.keys import REVOKED, known_hosts_line
from pcloud.model import Host, Witness


def find_pins_file(inventory: Inventory) -> Path | None:
    """Where the pins are kept that are not in the inventory itself: the site's own file, or its lab's."""
    site = inventory.site
    if site.lab is not None:
        return places.lab_dir(site.site) / "known_hosts"
    return inventory.resolve(site.access.known_hosts) if site.access.known_hosts else None


def host_pins(inventory: Inventory) -> list[str]:
    """Every line that pins or revokes a key, without comments. Raises `BadInput` for a file that cannot be read."""
    source = find_pins_file(inventory)
    lines: list[str] = []
    if source is not None:
        text = decode_text(read_file(source)[0], show_path(source))
        # paramiko refuses a whole file for one @cert-authority line.
        lines = [x for x in text.splitlines() if x and (x.startswith(REVOKED) or not x.startswith(("#", "@")))]
    machines: tuple[Host | Witness, ...] = (*inventory.site.hosts, *inventory.site.witnesses)
    return lines + [known_hosts_line(str(m.address), m.host_key) for m in machines if m.host_key]
