"""The host keys that a site pins for its hosts, as lines of known_hosts."""

from __future__ import annotations

from pathlib import Path

from pcloud import places
from pcloud.errors import BadInput
from pcloud.inventory import Inventory
from pcloud.keys import known_hosts_line


def find_pins_file(inventory: Inventory) -> Path | None:
    """Where the pins are kept that are not in the inventory itself: the site's own file, or its lab's."""
    site = inventory.site
    if site.lab is not None:
        return places.lab_dir(site.site) / "known_hosts"
    return inventory.resolve(site.access.known_hosts) if site.access.known_hosts else None


def host_pins(inventory: Inventory) -> list[str]:
    """Every line, without comments. Raises `BadInput` for a file that cannot be read."""
    source = find_pins_file(inventory)
    lines: list[str] = []
    if source is not None:
        try:
            # paramiko refuses a whole file for one @cert-authority line.
            lines = [x for x in source.read_text().splitlines() if x and not x.startswith(("#", "@"))]
        except (OSError, UnicodeDecodeError) as error:
            fix = "make it readable, or name another as access.known_hosts"
            raise BadInput(f"the pinned host keys cannot be read: {error}", where=str(source), next=fix) from error
    hosts = inventory.site.hosts
    return lines + [known_hosts_line(str(h.address), h.host_key) for h in hosts if h.host_key]
