"""A server's door: one way in for one copy (templates/servers/mariadb/door.sh).

A server has no key to another machine, nor a host one to a server. The operator makes a key for one copy and opens a
door for it, where it may run one command once, and hands its private half to whoever takes or gives the bytes.
"""

from __future__ import annotations

import secrets

from pcloud.keys import keypair_from_seed
from pcloud.steps.base import World

DOOR = "/usr/lib/pcloud/door"
SHORT_S = 60


def open_door(world: World, server: str, name: str, *command: str) -> str:
    """The private key that may run `command` on the server, once and soon; the file's text.

    A door is nobody else's: whoever comes late to an earlier one finds that one shut, and not this one open.
    """
    private, public = keypair_from_seed(secrets.token_bytes(32), "")
    argv = [DOOR, "open", f"{name}-{secrets.token_hex(4)}", *command]
    world.server_shell(server).run(argv, stdin=f"{public}\n".encode(), deadline_s=SHORT_S)
    return private


def order(world: World, server: str, name: str, *command: str, first: str = "") -> bytes:
    """What a job reads that goes through a door to `command`: a line of its own, the server's host key, the key."""
    return f"{first}\n{world.host_key(server)}\n{open_door(world, server, name, *command)}".encode()
