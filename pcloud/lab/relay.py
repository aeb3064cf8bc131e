"""`pcloud lab open`: a door from this machine's loopback to the storefront inside the lab."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable

from pcloud import places
from pcloud.errors import BadInput, Blocked
from pcloud.lab.namespaces import join_network
from pcloud.lab.processes import find_fabric
from pcloud.model import Site

CONNECTIONS = 64
IDLE_S = 60
CONNECT_S = 5


def open_storefront(
    site: Site, port: int = 8080, opened: Callable[[str, str], None] | None = None, idle_s: float = IDLE_S
) -> None:
    """Forwards 127.0.0.1:`port` to the storefront until KeyboardInterrupt; `opened(url, target)` is called once.

    Port 0 takes a free one. A connection with no byte either way for `idle_s` seconds is closed, and
    no more than 64 are open at once. Raises `Blocked` when the lab is not up, `BadInput` when the port is taken.
    """
    service = site.services.get(site.journey.service)
    if service is None:
        raise BadInput(f"the site has no service {site.journey.service}", where=site.site, next="add it to `services`")
    folder = places.lab_dir(site.site)
    if find_fabric(folder) is None:
        raise Blocked("the lab is not up", where=f"lab {site.site}", next=f"pcloud lab up {site.site}")
    target = (str(service.address), service.port)
    free = threading.BoundedSemaphore(CONNECTIONS)

    def serve(client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError):
                # The lab is looked for each time: it may have been taken down and up again meanwhile.
                fabric = find_fabric(folder)
                if fabric is not None:
                    join_network(fabric.pid)
                    with socket.create_connection(target, timeout=CONNECT_S) as server:
                        _relay(client, server, idle_s)
        finally:
            free.release()

    with _listen(port) as listener:
        if opened is not None:
            opened(f"http://127.0.0.1:{listener.getsockname()[1]}/", f"{target[0]}:{target[1]}")
        while True:
            client, _ = listener.accept()
            free.acquire()
            threading.Thread(target=serve, args=(client,), daemon=True).start()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        raise BadInput(
            f"port {port}: {error.strerror}", where="--port", next="give a free one, such as --port 0"
        ) from error


def _relay(one: socket.socket, other: socket.socket, idle_s: float) -> None:
    """Copies both ways until both have ended, or nothing moves for `idle_s`."""
    for end in (one, other):
        end.settimeout(idle_s)
    reading = {one: other, other: one}
    while reading:
        ready, _, _ = select.select(list(reading), [], [], idle_s)
        if not ready:
            return
        for end in ready:
            data = end.recv(65_536)
            if data:
                reading[end].sendall(data)
            else:
                reading.pop(end).shutdown(socket.SHUT_WR)
