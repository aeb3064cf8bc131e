"""Whether a data server's disk has room. MariaDB does not fail for want of it: it waits, and answers less and less.

While the thread that receives waits for room, `SHOW SLAVE STATUS` and all that touches the threads hang
until there is some, each with the connection it came by: they are not asked then.
"""

from __future__ import annotations

from pcloud.errors import CheckFailed, PcloudError
from pcloud.steps.base import World

ROOM_KIB = 16 * 1024
"""A server with less free has a full disk: InnoDB makes files longer by several MiB at once."""
WAITS_FOR_ROOM = (
    "(SELECT COUNT(*) FROM information_schema.processlist WHERE command = 'Slave_IO'"
    " AND state LIKE 'Waiting for someone to free space%')"
)
"""1 where `SHOW SLAVE STATUS` would hang. Who lacks the privilege PROCESS sees 0."""
NO_ROOM = "its MariaDB waits for room"
SLAVE_STATUS = (
    f"SET @waits = {WAITS_FOR_ROOM};"
    f" EXECUTE IMMEDIATE IF(@waits, \"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{NO_ROOM}'\", 'SHOW SLAVE STATUS');"
)
"""Its rows; an error that says `NO_ROOM` where it would hang."""
FULL = "its disk is full, and its MariaDB waits for room"
_ROOM = ("df", "--output=avail", "-k", "/var/lib/mysql", "/var/lib/pcloud")
_DF_S = 10


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
