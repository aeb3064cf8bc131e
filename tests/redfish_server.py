"""A Redfish controller on 127.0.0.1 with simulated power behind it, and faults that a case chooses.

    with RedfishServer({"reset_code": 409}, scale=10) as server: server.url, server.power, server.orders

All faults are keys of one mapping, so that a case is data; `_s` are seconds, each `scale` times shorter than it says.

system, members, tree, body   the system's path, the Systems collection, whole documents, keys laid over the system
                              (None: left out)
power, off_after_s, stay_on, ignore_first, comes_back_s     what is really so, and what orders do
shown, shown_after_order      [[from_s, to_s, PowerState], ...] since the start, or since the first order
powering_off                  PowerState until it is off
reset_code, reset_late_s, reset_drop, off_code              the answer to an order that is obeyed; to ForceOff when off
fail_orders, fail_code, fail_message, cut_orders, refuse_values    orders that are not obeyed
fail_first, cut_requests, closed_s, late_s, dark_after_order_s, reuse_cut    requests of any kind
codes                         {path: status}
auth                          both, basic, session, unadvertised, root (the root wants it, too)
user, password, role, sessions, session_s                   `role` readonly: an order is answered 403
allowable                     list, null (not said), actioninfo, {actioninfo: list}, missing_actioninfo
running_s                     for how long the manager says that it has been running; without it there is no manager
calls_itself                  the origin in the Location of a log-in, such as https://bmc-1
drops_sessions                a log-in ends with the first order
redirect, link                where every GET is sent; what the collection names as its member
slash                         301, 307 or 308: a path without a slash at its end is sent to the one with it
target                        of the Reset action
bom, content_type, tls
address                       127.0.0.1, or another one such as ::1
"""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Case = dict[str, Any]
SERVICE = "/redfish/v1"
SESSIONS = f"{SERVICE}/SessionService/Sessions"
MANAGER = f"{SERVICE}/Managers/BMC"
RESET = "#ComputerSystem.Reset"
ALLOWED = "ResetType@Redfish.AllowableValues"


class RedfishServer:
    """What is really so (`power`), what was asked of it (`orders`, `requests`), and where it is (`url`)."""

    def __init__(self, faults: Case, scale: float = 1.0) -> None:
        self.faults = {k: v / scale if k.endswith("_s") and k != "running_s" else v for k, v in faults.items()}
        self._scale = scale
        self.system = self.faults.get("system", f"{SERVICE}/Systems/1").rstrip("/")
        self.tree = self._tree()
        self.power: str = self.faults.get("power", "On")
        self.orders: list[str] = []
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        self._off_at: float | None = None
        self._on_at: float | None = None
        self._ordered_at: float | None = None
        self._dark_until = 0.0
        self._basic: list[float] = []
        self._failed = self._failed_orders = self._ignored = 0
        self._lock = threading.RLock()
        self._started = time.monotonic()
        self._server: ThreadingHTTPServer | None = None
        self.address = self.faults.get("address", "127.0.0.1")
        self.port = random.randint(20_000, 30_000)  # below what the kernel gives to others, for one that opens later
        if "closed_s" not in self.faults:
            self._server = self._bound(0)
            self.port = self._server.server_address[1]
        machine = f"[{self.address}]" if ":" in self.address else self.address
        self.url = f"{'https' if 'tls' in self.faults else 'http'}://{machine}:{self.port}"

    def _tree(self) -> Case:
        members = self.faults.get("members", [self.system])
        links = [{"@odata.id": self.faults.get("link", m)} for m in members]
        service = f"{SERVICE}/SessionService"
        tree: Case = {
            SERVICE: {
                "@odata.id": SERVICE,
                "Id": "RootService",
                "Name": "a service",
                "RedfishVersion": "1.6.0",
                "Systems": {"@odata.id": f"{SERVICE}/Systems"},
                "SessionService": {"@odata.id": service},
                "Links": {"Sessions": {"@odata.id": SESSIONS}},
            },
            service: {"Id": "SessionService", "Name": "sessions", "Sessions": {"@odata.id": SESSIONS}},
            SESSIONS: {"Name": "sessions", "Members": []},
            f"{SERVICE}/Systems": {"Name": "systems", "Members": links},
        }
        for member in members:
            reset: Case = {"target": f"{member.rstrip('/')}/Actions/ComputerSystem.Reset"}
            reset[ALLOWED] = ["On", "ForceOff", "GracefulShutdown", "ForceRestart"]
            tree[member.rstrip("/")] = {"Id": "1", "Name": "a system", "PowerState": "On", "Actions": {RESET: reset}}
        tree.update({path.rstrip("/"): body for path, body in self.faults.get("tree", {}).items()})
        if "running_s" in self.faults:
            tree[f"{SERVICE}/Managers"] = {"Members": [{"@odata.id": MANAGER}]}
            tree[MANAGER] = {"Id": "BMC"}
        system = tree[self.system]
        for name, value in self.faults.get("body", {}).items():
            system.pop(name, None) if value is None and name != "PowerState" else system.update({name: value})
        self._allow(system.get("Actions", {}).get(RESET, {}), tree)
        return tree

    def _allow(self, reset: Case, tree: Case) -> None:
        if "target" in self.faults:
            reset["target"] = self.faults["target"]
        if "allowable" not in self.faults:
            return
        values = self.faults["allowable"]
        del reset[ALLOWED]
        if isinstance(values, list):
            reset[ALLOWED] = values
        elif values is not None:
            info = f"{self.system}/ResetActionInfo"
            reset["@Redfish.ActionInfo"] = info
            if values != "missing_actioninfo":
                named = ["On", "ForceOff"] if values == "actioninfo" else values["actioninfo"]
                tree[info] = {"Parameters": [{"Name": "ResetType", "AllowableValues": named}]}

    # -- power

    def now(self) -> float:
        return time.monotonic() - self._started

    def really(self) -> str:
        with self._lock:
            if self._off_at is not None and time.monotonic() >= self._off_at:
                self.power, self._off_at = "Off", None
            if self._on_at is not None and time.monotonic() >= self._on_at:
                self.power, self._on_at = "On", None
            return self.power

    def shown(self) -> Any:
        real = self.really()
        times = [(self._started, "shown")]
        times += [(self._ordered_at, "shown_after_order")] if self._ordered_at is not None else []
        for since, name in times:
            for begin, end, value in self.faults.get(name, []):
                if begin <= (time.monotonic() - since) * self._scale < end:
                    return value
        going = real == "On" and self._off_at is not None
        return self.faults["powering_off"] if going and "powering_off" in self.faults else real

    def order(self, value: str) -> None:
        self.really()
        with self._lock:
            self.orders.append(value)
            self._ordered_at = self._ordered_at or time.monotonic()
            if self.faults.get("drops_sessions"):
                self.tokens.clear()
            if self.faults.get("stay_on"):
                return
            if self._ignored < self.faults.get("ignore_first", 0):
                self._ignored += 1
            elif value in ("ForceOff", "Off", "GracefulShutdown", "PushPowerButton"):
                self._off_at = time.monotonic() + self.faults.get("off_after_s", 0)
                if "comes_back_s" in self.faults:
                    self._on_at = self._off_at + self.faults["comes_back_s"]
            else:
                self.power, self._off_at = "On", None
            self._dark_until = time.monotonic() + self.faults.get("dark_after_order_s", 0)

    def answer_order(self, request: _Request, value: str) -> None:
        faults = self.faults
        if faults.get("role") == "readonly":
            return request.refuse(403, "There are insufficient privileges", "Base.1.8.InsufficientPrivilege")
        if value in faults.get("refuse_values", ()):
            return request.refuse(400, f"{value} is not supported", "Base.1.8.ActionParameterNotSupported")
        if self._failed_orders < max(faults.get("cut_orders", 0), faults.get("fail_orders", 0)):
            self._failed_orders += 1
            if "cut_orders" in faults:
                return request.cut()
            return request.refuse(faults.get("fail_code", 503), faults.get("fail_message", "the service is busy"))
        if value == "ForceOff" and self.really() == "Off" and "off_code" in faults:
            self.orders.append("ForceOff (off already)")
            return request.refuse(faults["off_code"], "it is off already")
        self.order(value)
        time.sleep(faults.get("reset_late_s", 0))
        if faults.get("reset_drop"):
            return request.cut()
        return request.say(faults.get("reset_code", 204), {})

    # -- who may ask, and what happens on the way

    def goes_wrong(self, request: _Request) -> bool:
        """Whether the request was answered, or cut, by a fault."""
        faults, number = self.faults, len(self.requests)
        if time.monotonic() < self._dark_until or number in faults.get("cut_requests", ()):
            request.cut()
            return True
        time.sleep(faults.get("late_s", 0))
        if self._failed < faults.get("fail_first", 0):
            self._failed += 1
            request.refuse(faults.get("fail_code", 503), "the service is not ready")
            return True
        if "slash" in faults and not request.path.endswith("/"):
            request.say(faults["slash"], {}, [("Location", f"{request.path}/")])
            return True
        if "redirect" in faults and request.command == "GET":
            request.say(302, {}, [("Location", faults["redirect"] + request.path)])
            return True
        return False

    def allows(self, request: _Request) -> bool:
        auth = self.faults.get("auth", "both")
        if request.headers.get("X-Auth-Token") in self.tokens:
            return True
        given = request.headers.get("Authorization", "")
        account = base64.b64encode(":".join(self._account()).encode()).decode()
        if given == f"Basic {account}" and auth != "session":
            return True
        return request.where in (SERVICE, "/redfish") and auth != "root"

    def _account(self) -> tuple[str, str]:
        return self.faults.get("user", "admin"), self.faults.get("password", "correct-horse")

    def has_session(self) -> bool:
        """Whether one more request with a password may be answered."""
        now, keeps = time.monotonic(), self.faults.get("session_s", 60)
        self._basic = [at for at in self._basic if now - at < keeps]
        self._basic.append(now)
        return len(self._basic) <= int(self.faults.get("sessions", 10**6))

    def log_in(self, request: _Request, said: Case) -> None:
        if (
            self.faults.get("auth", "both") == "basic"
            or (said.get("UserName"), said.get("Password")) != self._account()
        ):
            return request.refuse(401, "no")
        token = uuid.uuid4().hex
        self.tokens.add(token)
        place = f"{SESSIONS}/{token[:6]}"
        location = self.faults.get("calls_itself", "") + place
        return request.say(201, {"@odata.id": place}, [("X-Auth-Token", token), ("Location", location)])

    def document(self, path: str) -> Any:
        body = self.tree.get(path)
        if path == self.system and isinstance(body, dict) and "PowerState" in body:
            return {**body, "PowerState": self.shown()}
        if path == MANAGER and body is not None:
            now = datetime.now(UTC)
            began = now - timedelta(seconds=self.faults["running_s"] + self.now() * self._scale)
            return {**body, "DateTime": now.isoformat(), "LastResetTime": began.isoformat()}
        return body

    # -- serving

    def __enter__(self) -> Self:
        if self._server is None:
            threading.Timer(self.faults["closed_s"], self._serve).start()
        else:
            self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _bound(self, port: int) -> ThreadingHTTPServer:
        server = self

        class Bound(_Request):
            controller = server

        bound = (_Six if ":" in self.address else _Quiet)((self.address, port), Bound)
        if "tls" in self.faults:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.set_ciphers("DEFAULT:@SECLEVEL=0")  # old controllers have short keys
            context.load_cert_chain(*self.faults["tls"])
            bound.socket = context.wrap_socket(bound.socket, server_side=True, do_handshake_on_connect=False)
        return bound

    def _serve(self) -> None:
        self._server = self._server or self._bound(self.port)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away."""


class _Six(_Quiet):
    address_family = socket.AF_INET6


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    controller: RedfishServer
    answered = 0

    def log_message(self, format: str, *args: Any) -> None: ...

    @property
    def where(self) -> str:
        return self.path.split("?")[0].rstrip("/")

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def say(self, code: int, body: Any, headers: list[tuple[str, str]] | None = None) -> None:
        faults = self.controller.faults
        data = b"" if code == 204 else (b"\xef\xbb\xbf" if faults.get("bom") else b"") + json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", faults.get("content_type", "application/json"))
        for name, value in headers or ():
            self.send_header(name, value)
        self.close_connection = not faults.get("reuse_cut")
        if code != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, code: int, message: str, number: str = "Base.1.8.GeneralError") -> None:
        detail = {"MessageId": number, "Message": message}
        self.say(code, {"error": {"code": number, "message": message, "@Message.ExtendedInfo": [detail]}})

    def _do(self) -> None:
        controller, where = self.controller, self.where
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        controller.requests.append(f"{self.command} {where}")
        self.answered += 1
        if controller.faults.get("reuse_cut") and self.answered > 1:
            return self.cut()
        if controller.goes_wrong(self):
            return None
        if self.command == "POST" and where == SESSIONS:
            return controller.log_in(self, json.loads(sent or b"{}"))
        if not controller.allows(self):
            asked = controller.faults.get("auth") not in ("session", "unadvertised")
            return self.say(401, {"error": {}}, [("WWW-Authenticate", 'Basic realm="r"')] if asked else [])
        if self.headers.get("Authorization") and not controller.has_session():
            return self.refuse(503, "The maximum number of user sessions is reached.", "IDRAC.2.4.RAC0218")
        return self._answer(where, sent)

    def _answer(self, where: str, sent: bytes) -> None:
        controller = self.controller
        code = controller.faults.get("codes", {}).get(where)
        if self.command == "DELETE":
            return self.say(204, None)
        if self.command == "GET" and code is not None:
            return self.refuse(code, "not now")
        if self.command == "GET":
            body = controller.document(where)
            return self.refuse(404, "no such thing") if body is None else self.say(200, body)
        reset = controller.tree[controller.system].get("Actions", {}).get(RESET, {})
        target = str(reset.get("target") or f"{controller.system}/Actions/ComputerSystem.Reset")
        if target.removeprefix(controller.url).rstrip("/") == where:
            return controller.answer_order(self, json.loads(sent or b"{}").get("ResetType"))
        return self.refuse(404, "not that")

    do_GET = do_POST = do_DELETE = _do  # noqa: N815 (http.server's names)
