"""Redfish (DSP0266, DMTF): as much of it as switching the power needs.

Of a system only `PowerState` and the target of its Reset action are read, as real documents lack or
break everything else. sushy, which reads it all, is therefore not used.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pcloud.controllers import identity_of
from pcloud.hoststate import Controller
from pcloud.model import Bmc, SecretRef
from pcloud.observed import HostPower
from pcloud.power.way import Busy, Failed, Passing, Refused, password_of
from pcloud.power.web import Answer, Cut, Origin

SYSTEMS = "/redfish/v1/Systems"
MANAGERS = "/redfish/v1/Managers"
SESSIONS = "/redfish/v1/SessionService/Sessions"
ACCOUNTS = "/redfish/v1/AccountService/Accounts"
ROLES = "/redfish/v1/AccountService/Roles"
ROLES_MAY = {"Administrator": True, "Operator": True, "ReadOnly": False, "NoAccess": False}
"""The roles of DSP0266; to switch the power is ConfigureComponents."""
MOST_ACCOUNTS = 32
RESET = "#ComputerSystem.Reset"
ALLOWED = "ResetType@Redfish.AllowableValues"
CLOSE_S = 2.0
YEAR_S = 366 * 86_400.0
EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)
"""A controller that names an earlier start had no clock then, and its reckoning is worth nothing."""
BUSY = (408, 425, 429)


class Redfish:
    """One system behind a Redfish service: the only one it has, or the one that the URL's path names.

    One log-in is kept for all questions, as controllers have few sessions and may open one for each
    request with a password; where no session is granted, the password goes with each (Basic).
    """

    name = "redfish"
    pause_s = 0.3

    def __init__(self, bmc: Bmc, reveal: Callable[[SecretRef], str], ca: Path | None) -> None:
        assert bmc.redfish is not None
        path = urlsplit(bmc.redfish).path.rstrip("/")
        self._origin = Origin(bmc.redfish, ca)
        self._path = path if "/Systems/" in path else ""
        self._bmc = bmc
        self._reveal = reveal
        self._token = self._held = ""
        self._basic = False
        self._logins = 0
        self._seen: Mapping[str, Any] = {}

    @property
    def session(self) -> str:
        return str(self._logins) if self._token else ""

    @property
    def identity(self) -> str:
        return identity_of(self._seen.get("UUID"), self._seen.get("SerialNumber"))

    def read(self, limit_s: float) -> HostPower:
        """Only `Off` is off: PoweringOff, Paused and the like still have power."""
        state = self._look(limit_s).get("PowerState")
        if not isinstance(state, str) or not state:
            raise Busy(
                f"{self._origin.where} does not say whether the power is on", "look at the machine and its controller"
            )
        return HostPower.OFF if state.casefold() == "off" else HostPower.ON

    def order(self, power: HostPower, limit_s: float) -> str:
        """ForceOff, listed or not; never a graceful one. `Off`, where that is listed and ForceOff refused."""
        reset = _mapping(_mapping((self._seen or self._look(limit_s)).get("Actions")).get(RESET))
        target = self._origin.inside(reset.get("target") or f"{self._path}/Actions/ComputerSystem.Reset")
        listed = _texts(reset.get(ALLOWED))
        first, second = ("ForceOff", "Off") if power is HostPower.OFF else ("On", "ForceOn")
        if first not in listed and second in listed and power is HostPower.ON:
            first, second = second, first
        try:
            self._ask("POST", target, limit_s, {"ResetType": first})
        except Refused as refused:
            listed = listed or self._listed_elsewhere(reset, limit_s)
            if second in listed:
                self._ask("POST", target, limit_s, {"ResetType": second})
            elif listed and first not in listed:
                raise Failed(
                    f"{refused.why}; it lists {', '.join(listed[:12])}, and nothing that forces it {power}",
                    f"give {self._bmc.user} the right to it, or add ipmi beside redfish",
                ) from refused
            else:
                raise
        return f"it does not list {first}, and took it" if listed and not {first, second} & set(listed) else ""

    def _listed_elsewhere(self, reset: Mapping[str, Any], limit_s: float) -> list[str]:
        """What ActionInfo says may be ordered, in place of AllowableValues (DSP0266)."""
        try:
            link = reset.get("@Redfish.ActionInfo")
            said = self._ask("GET", self._origin.inside(link), limit_s).body if link else None
        except Failed:
            return []
        parameters = _mapping(said).get("Parameters")
        named = [_mapping(p) for p in parameters] if isinstance(parameters, list) else []
        return [v for p in named if p.get("Name") == "ResetType" for v in _texts(p.get("AllowableValues"))]

    def running_s(self, limit_s: float) -> float | None:
        return _running_s(*self._times(limit_s))

    def examine(self, now: float, limit_s: float) -> Controller:
        reset = _mapping(_mapping(self._seen.get("Actions")).get(RESET))
        started, clock = self._times(limit_s)
        role, may_switch = self._role(limit_s)
        ends = self._origin.certificate_ends
        return Controller(
            self.name,
            identity=self.identity,
            login="a session" if self._token else "the password with each request",
            role=role,
            may_switch=may_switch,
            resets=tuple(_texts(reset.get(ALLOWED)) or self._listed_elsewhere(reset, limit_s)),
            offset_s=clock.timestamp() - now if clock is not None else None,
            running_s=_running_s(started, clock),
            limit_s=limit_s,
            certificate_ends=ends,
            certificate_s=ends - now if ends is not None else None,
            pinned=self._origin.pinned,
        )

    def _times(self, limit_s: float) -> tuple[datetime | None, datetime | None]:
        """When the controller started, and what time it has now, by its own clock."""
        try:
            path = self._manager(limit_s)
            answer = self._ask("GET", path, limit_s) if path else None
        except Failed:
            return None, None
        said = _mapping(answer.body) if answer is not None else {}
        now = _time(said.get("DateTime")) or _http_date(answer.headers.get("date", "") if answer else "")
        return _time(said.get("LastResetTime")), now

    def _role(self, limit_s: float) -> tuple[str, bool | None]:
        """Of our user, and whether it may switch the power: by its privileges (DSP0266, 13.2), else by its name."""
        try:
            account = self._account(limit_s)
            role = str(account.get("RoleId") or "")[:60]
            link = _mapping(_mapping(account.get("Links")).get("Role")).get("@odata.id")
            path = self._origin.inside(link) if link else f"{ROLES}/{quote(role)}" if role else ""
        except Failed:
            return "", None
        privileges: list[str] = []
        with suppress(Failed):
            privileges = (
                _texts(_mapping(self._ask("GET", path, limit_s).body).get("AssignedPrivileges")) if path else []
            )
        return role, "ConfigureComponents" in privileges if privileges else ROLES_MAY.get(role)

    def _account(self, limit_s: float) -> Mapping[str, Any]:
        """Our user's own; empty where it is among none that are shown (a directory's user, say)."""
        for path in self._members(ACCOUNTS, limit_s)[:MOST_ACCOUNTS]:
            account = _mapping(self._ask("GET", path, limit_s).body)
            if account.get("UserName") == self._bmc.user:
                return account
        return {}

    def close(self) -> None:
        if self._token and self._held:
            with suppress(Failed):
                self._origin.ask("DELETE", self._held, CLOSE_S, {"X-Auth-Token": self._token})
        self._token = self._held = ""

    # -- what is asked

    def _look(self, limit_s: float) -> Mapping[str, Any]:
        """The system's document as it is now; kept, for the way to its Reset."""
        if not self._path:
            self._path = self._only(self._links(SYSTEMS, "Systems", limit_s))
        found = self._ask("GET", self._path, limit_s).body
        if not isinstance(found, dict) or "PowerState" not in found:
            raise self._strange(f"{self._path} is no system")
        self._seen = found
        return found

    def _strange(self, what: str) -> Passing:
        return Passing(f"{self._origin.where} does not speak Redfish as we do: {what}", self._origin.look)

    def _only(self, paths: list[str]) -> str:
        if len(paths) != 1:
            raise Failed(
                f"has {len(paths)} systems, and the inventory does not say which one this host is",
                f"write its path in bmc.redfish: {' or '.join(self._origin.base + p for p in paths[:3])}",
            )
        return paths[0]

    def _links(self, collection: str, name: str, limit_s: float) -> list[str]:
        """The members of a collection at its usual place, or where the service's root says that it is."""
        try:
            found = self._ask("GET", collection, limit_s).body
        except Refused:
            root = _mapping(self._ask("GET", "/redfish/v1/", limit_s).body)
            link = _mapping(root.get(name)).get("@odata.id")
            if not link:
                raise
            found = self._ask("GET", self._origin.inside(link), limit_s).body
        return self._inside(collection, found)

    def _members(self, collection: str, limit_s: float) -> list[str]:
        return self._inside(collection, self._ask("GET", collection, limit_s).body)

    def _inside(self, collection: str, found: object) -> list[str]:
        members = _mapping(found).get("Members")
        if not isinstance(members, list):
            raise self._strange(f"{collection} has no members")
        links = [_mapping(m).get("@odata.id") for m in members]
        return [self._origin.inside(link).rstrip("/") for link in links if link]

    def _manager(self, limit_s: float) -> str:
        """The controller that this is; "" where nobody can tell which one of several."""
        managed = _mapping(self._seen.get("Links")).get("ManagedBy")
        links = [_mapping(m).get("@odata.id") for m in managed] if isinstance(managed, list) else []
        found = [self._origin.inside(link) for link in links if link] or self._links(MANAGERS, "Managers", limit_s)
        return found[0] if len(found) == 1 else ""

    # -- how it is asked

    def _ask(self, method: str, path: str, limit_s: float, body: object = None) -> Answer:
        """An answer to a user who is logged in. Raises `Failed` by the answer's status."""
        if not (self._token or self._basic):
            self._log_in(limit_s)
        answer = self._send(method, path, limit_s, body)
        if answer.status == 401 and self._token:  # the log-in has ended
            self._token = self._held = ""
            self._log_in(limit_s)
            answer = self._send(method, path, limit_s, body)
        if answer.status >= 400:
            raise self._refusal(answer)
        return answer

    def _send(self, method: str, path: str, limit_s: float, body: object) -> Answer:
        """An order is never sent twice: what became of the first is looked at."""
        if method == "GET":
            return self._twice(method, path, limit_s, self._credentials())
        return self._origin.ask(method, path, limit_s, self._credentials(), body)

    def _twice(self, method: str, path: str, limit_s: float, headers: Mapping[str, str], body: object = None) -> Answer:
        """Once more where the connection is cut."""
        try:
            return self._origin.ask(method, path, limit_s, headers, body)
        except Cut:
            return self._origin.ask(method, path, limit_s, headers, body)

    def _credentials(self) -> dict[str, str]:
        if self._token:
            return {"X-Auth-Token": self._token}
        both = f"{self._bmc.user}:{password_of(self._bmc, self._reveal)}".encode()
        return {"Authorization": f"Basic {base64.b64encode(both).decode()}"}

    def _log_in(self, limit_s: float) -> None:
        """A session, where one is granted; Basic, where the service knows none or has none left."""
        said = {"UserName": self._bmc.user, "Password": password_of(self._bmc, self._reveal)}
        try:
            answer = self._twice("POST", SESSIONS, limit_s, {}, said)
        except Cut:  # a service without sessions may close before it has read what it was sent
            self._basic = True
            return
        token = answer.headers.get("x-auth-token", "")
        self._token, self._basic = token, not token and 400 <= answer.status < 500
        if token:
            self._logins += 1
            self._held = self._place(answer.headers.get("location"), _mapping(answer.body).get("@odata.id"))

    def _place(self, *links: object) -> str:
        """The first that is on the controller: some call themselves by a name of their own in Location."""
        for link in links:
            with suppress(Failed):
                if link:
                    return self._origin.inside(link)
        return ""

    def _refusal(self, answer: Answer) -> Failed:
        where, user, secret = self._origin.where, self._bmc.user, self._bmc.password.secret
        reason = _reason(answer.body)
        said = f"{where} answers {answer.status}: {reason or 'no reason'}"
        if answer.status == 401:
            self._basic = False
            return Failed(
                f"{where} refuses user {user} with the password of the secret {secret}",
                f"correct the secret {secret}, or bmc.user",
            )
        if answer.status == 403:
            why = f"{where} does not let user {user} do this (403: {reason or 'no reason'})"
            return Failed(why, f"at the controller, give {user} a role that may switch the power, such as Operator")
        if answer.status >= 500 or answer.status in BUSY:
            full = "session" in reason.lower()
            return Busy(said, "end sessions at the controller's own page, or wait" if full else self._origin.look)
        return Refused(said, self._origin.look)


def _texts(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _reason(body: object) -> str:
    """The message and its id, as the controller names them (DSP0266, error responses)."""
    error = _mapping(_mapping(body).get("error"))
    details = error.get("@Message.ExtendedInfo")
    first = _mapping(details[0]) if isinstance(details, list) and details else _mapping(details)
    message = first.get("Message") or error.get("message") or ""
    number = first.get("MessageId") or error.get("code") or ""
    said = f"{message} ({number})" if message and number else f"{message}{number}"
    return "".join(c if c.isprintable() else " " for c in said)[:200].strip()


def _running_s(started: datetime | None, now: datetime | None) -> float | None:
    """None where that cannot be."""
    if started is None or now is None or started < EARLIEST:
        return None
    running = (now - started).total_seconds()
    return running if 0 <= running <= 10 * YEAR_S else None


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC) if found is not None else None


def _http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC) if text else None
    except ValueError:
        return None
