"""The process that serves the lab's controllers: sushy-tools' emulator, once, for every host's address.

Run as `python -m pcloud.lab.bmc_service` with one JSON object on stdin. It exits 0 once all
addresses listen, and goes on as a process of its own that ends with the fabric. It stays in the
machine's own process namespace, because its power button must see and make hosts; and it has no
handle on the lab's folder or lock, which is taken anew for each press of the button.
"""

from __future__ import annotations

import json
import os
import selectors
import ssl
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import flask
from sushy_tools import error as fishy
from sushy_tools.emulator import main as emulator
from sushy_tools.emulator.resources.systems.base import AbstractSystemsDriver

from pcloud.errors import PcloudError
from pcloud.identity import server_uuid
from pcloud.lab.bmc import LATE_S, LIES_S, fault_age_s, fault_of
from pcloud.lab.centre import power_off, power_on
from pcloud.lab.layout import LabFolder
from pcloud.lab.namespaces import join_network
from pcloud.lab.processes import find_parts
from pcloud.model import Site

PORT = 443
MANAGERS = "/redfish/v1/Managers"
BOOTING = ("boots", "boots-untold")
TALK_S = 20
"""For one connection, from the first byte to the last."""


class Hosts(AbstractSystemsDriver):  # type: ignore[misc]  # sushy-tools has no types
    """The lab's hosts as Redfish systems: each address shows the one whose controller it is."""

    def __init__(self, site: Site, folder: LabFolder, names: dict[str, str]) -> None:
        self._site = site
        self._folder = folder
        self._names = names
        self._switching: set[str] = set()
        self._lost: set[str] = set()
        """Whose first order was lost."""
        self._started = time.monotonic()

    def _host(self, identity: str | None = None) -> str:
        """The host at the address that was asked. `identity` must be its own."""
        host = self._names[flask.request.environ["SERVER_NAME"]]
        if identity is not None and identity not in (host, self._uuid(host)):
            raise fishy.NotFound(f"there is no system {identity} here")
        return host

    def _uuid(self, host: str) -> str:
        return str(server_uuid(self._site.site, host))

    @property
    def driver(self) -> str:
        return "<lab>"

    @property
    def systems(self) -> list[str]:
        return [self._uuid(self._host())]

    def uuid(self, identity: str) -> str:
        return self._uuid(self._host(identity))

    def name(self, identity: str) -> str:
        return self._host(identity)

    def get_power_state(self, identity: str) -> str:
        """`Off` only once the last process of the host is gone; or while the controller lies."""
        host = self._host(identity)
        fault = fault_of(self._folder, host)
        if fault in (*BOOTING, "cached") and fault_age_s(self._folder, host) < LIES_S:
            return "Off"
        return "On" if self._is_on(self._machine(host)) else "Off"

    def running_s(self) -> float | None:
        """For how long the controller that was asked has been running; None when it does not tell."""
        host, since_start = self._host(), time.monotonic() - self._started
        fault = fault_of(self._folder, host)
        if fault == "boots-untold":
            return None
        return min(since_start, fault_age_s(self._folder, host)) if fault == "boots" else since_start

    def _machine(self, host: str) -> str:
        """The host whose power the controller of `host` switches: its own, unless the cables are crossed."""
        names = list(self._names.values())
        return names[(names.index(host) + 1) % len(names)] if fault_of(self._folder, host) == "crossed" else host

    def _is_on(self, host: str) -> bool:
        return host in self._switching or host in find_parts(self._folder.path)

    def _drops(self, host: str) -> bool:
        """Whether an order is taken and lost."""
        fault = fault_of(self._folder, host)
        if fault == "loses" and host not in self._lost:
            self._lost.add(host)
            return True
        return fault in BOOTING and fault_age_s(self._folder, host) < LIES_S

    def set_power_state(self, identity: str, state: str) -> None:
        asked = self._host(identity)
        if self._drops(asked):
            return
        host = self._machine(asked)
        is_on = self._is_on(host)
        if state not in ("On", "ForceOn", "ForceOff", "ForceRestart"):
            raise fishy.NotSupportedError(f"a lab's host cannot {state}")
        if is_on == (state in ("On", "ForceOn")) or (state == "ForceRestart" and not is_on):
            raise fishy.Conflict(f"the power is {'on' if is_on else 'off'} already")
        late = fault_of(self._folder, asked) == "late"
        if state in ("On", "ForceOn") or late:
            threading.Thread(target=self._press, args=(host, state, LATE_S if late else 0), daemon=True).start()
        else:
            self._press(host, state, 0)

    def _press(self, host: str, state: str, late_s: float) -> None:
        time.sleep(late_s)
        try:
            if state in ("ForceOff", "ForceRestart"):
                self._switching.add(host)
                try:
                    power_off(self._site, host)
                finally:
                    self._switching.discard(host)
            if state != "ForceOff":
                power_on(self._site, host)
        except PcloudError as error:
            print(f"{host}: {state}: {error}", file=sys.stderr, flush=True)  # noqa: T201 -- its log
            raise fishy.FishyError(str(error)) from error

    def get_boot_device(self, identity: str) -> str:
        self._host(identity)
        return "Hdd"

    def set_boot_device(self, identity: str, boot_source: str) -> None:
        raise fishy.NotSupportedError(f"{identity} boots from its disk, not from {boot_source}")


def _as_manager(hosts: Hosts) -> flask.Response | None:
    """The controller itself, which the emulator shows only with all else that it knows."""
    if flask.request.method != "GET" or not flask.request.path.startswith(MANAGERS):
        return None
    now, running_s = datetime.now(UTC), hosts.running_s()
    told = {} if running_s is None else {"LastResetTime": (now - timedelta(seconds=running_s)).isoformat()}
    link = {"@odata.id": f"{MANAGERS}/BMC"}
    if flask.request.path.rstrip("/") == MANAGERS:
        return flask.jsonify({"@odata.id": MANAGERS, "Name": "Managers", "Members": [link]})
    return flask.jsonify({**link, "Id": "BMC", "Name": "BMC", "DateTime": now.isoformat(), **told})


class Quiet(WSGIRequestHandler):
    """Without a line in the log for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


class Controller(ThreadingMixIn, WSGIServer):
    """One host's address. The TLS handshake is the connection's own thread's, so that a client
    which says nothing holds up nobody else."""

    daemon_threads = True
    request_queue_size = 32
    timeout = 0

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__((address, PORT), Quiet)
        self.set_app(emulator.app)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # WSGIServer's own asks a name server for the address's name
        self.server_name, self.server_port = str(self.server_address[0]), PORT
        self.setup_environ()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(TALK_S)
        with self._context.wrap_socket(request, server_side=True) as talk:
            super().finish_request(talk, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or spoke no TLS: its own affair."""


def _serve(controllers: list[Controller], fabric: int) -> None:
    """Until the fabric dies."""
    with selectors.DefaultSelector() as ready:
        ready.register(fabric, selectors.EVENT_READ)
        for controller in controllers:
            ready.register(controller, selectors.EVENT_READ, controller)
        while True:
            for key, _ in ready.select():
                if key.data is None:
                    return
                key.data.handle_request()


def _leave(log: Path) -> None:
    """The part that stays: a process of its own, which holds none of its maker's files."""
    if os.fork():
        os._exit(0)
    null, file = os.open("/dev/null", os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for here, there in ((null, 0), (file, 1), (file, 2)):
        os.dup2(here, there)
    os.close(null)
    os.close(file)


def main() -> None:
    spec = json.load(sys.stdin)
    for name in ("PCLOUD_LAB", "PCLOUD_LAB_PART", "PCLOUD_LAB_BMC"):
        os.environ.pop(name)  # marks this process, and none of those it starts
    folder = Path(spec["folder"])
    fabric = os.pidfd_open(spec["fabric"])
    join_network(spec["fabric"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    hosts: dict[str, str] = spec["hosts"]
    app = emulator.app
    app.configure(
        extra_config={
            "SUSHY_EMULATOR_AUTH_FILE": str(folder / "htpasswd"),
            "SUSHY_EMULATOR_STATE_DIR": str(folder / "state"),
            "SUSHY_EMULATOR_FEATURE_SET": "minimum",
        }
    )
    # The emulator knows four drivers by name and has no way to be given another one.
    systems = Hosts(Site.model_validate_json(spec["site"]), LabFolder(Path(spec["lab"])), hosts)
    type(app).systems = systems
    app.before_request(lambda: _as_manager(systems))
    controllers = [Controller(address, context) for address in hosts]
    _leave(folder / "log")
    _serve(controllers, fabric)


if __name__ == "__main__":
    main()
