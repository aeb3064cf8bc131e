"""Whether a data server's disk has room. MariaDB does not fail for want of it: it waits, and answers less and less.

While the thread that receives waits for room, `SHOW SLAVE STATUS` and all that touches the threads hang
until there is some, each with the connection it came by: they are not asked then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pcloud.errors import CheckFailed, PcloudError
from pcloud.steps.base import World

ROOM_KIB = 16 * 1024
"""A server with less free has a full disk: InnoDB makes files longer by several MiB at once."""
PROCESSES = "SHOW PROCESSLIST"
"""Its rows say whether `SHOW SLAVE STATUS` would hang (`waits_for_room`). The same in information_schema makes a table
on the disk, and hangs as well."""
FULL = "its disk is full, and its MariaDB waits for room"
_ROOM = ("df", "--output=avail", "-k", "/var/lib/mysql", "/var/lib/pcloud")
_DF_S = 10


def waits_for_room(processes: Iterable[Mapping[str, Any]]) -> bool:
    """Not for whom the account may not see: that takes the privilege PROCESS."""
    receiving = (str(row["State"]) for row in processes if row["Command"] == "Slave_IO")
    return any(state.startswith("Waiting for someone to free space") for state in receiving)


def make_room(site: str, server: str) -> str:
    """What a person does about a full disk."""
    return f"make room on it: pcloud ssh {site}/{server} -- df -h /var/lib/mysql; its MariaDB goes on within a minute"


def find_full(world: World, server: str) -> int | None:
    """How many MiB are free on a full disk; None where it is not full, or does not say."""
    try:
        said = world.server_shell(server).run(_ROOM, deadline_s=_DF_S, check=False).stdout
    except PcloudError:
        return None
    sizes = [int(word) for word in said.split() if word.isdigit()]
    return min(sizes) // 1024 if sizes and min(sizes) < ROOM_KIB else None


def full_disk(world: World, server: str, why: str) -> PcloudError | None:
    """What failed with `why`, if for want of room: MariaDB then refuses one thing and waits with the next."""
    free_mib = find_full(world, server)
    if free_mib is None:
        return None
    return CheckFailed(
        f"its disk is full, {free_mib} MiB are free: {why}",
        where=server,
        next=f"{make_room(world.site.site, server)}; what was received is kept, and the same command goes on",
    )
