"""A host's power, by its management controller: Redfish through sushy, then IPMI through ipmitool.

The only importer of sushy and caller of ipmitool. A controller is a slow little machine that
lies: it answers before the power is off, refuses what is so already (409), hangs, or shows a
certificate that nobody signed. So every question has a deadline of our own (sushy alone may
wait 27 to 47 s), an order counts only once the power reads as ordered, and each way's failure
has its reason and what to do about it.

Off is always ForceOff (`chassis power off` in IPMI), never a graceful shutdown: a host that
must be fenced is one that nobody can trust to shut down.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import shlex
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from pcloud.clock import Clock, Deadline
from pcloud.errors import HostUnreachable, PcloudError
from pcloud.model import Bmc, SecretRef
from pcloud.observed import HostPower

POLL_S = 0.3
"""Between two readings while the power has to change."""
OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_RENAME = "write in bmc.redfish the name that its certificate has, or give it a certificate with this address"
_LATE = "does not answer within {:g} s"

T = TypeVar("T")

logging.getLogger("sushy").addHandler(logging.NullHandler())  # what went wrong is told once, by us


@dataclass(frozen=True)
class Reading:
    """What a controller said of the power, and by which way: `redfish` or `ipmi`."""

    power: HostPower
    way: str


class Failed(Exception):
    """One way did not do it. `why` has the controller as its subject; `next` is what to do about it."""

    def __init__(self, why: str, next: str) -> None:
        self.why = why
        self.next = next
        super().__init__(why)


class Refused(Failed):
    """The controller heard the order and says no: perhaps because it is so already."""


class Way(Protocol):
    """One protocol to one controller. Both raise `Failed` within `limit_s` seconds."""

    name: str

    def read(self, limit_s: float) -> HostPower: ...
    def order(self, power: HostPower, limit_s: float) -> None: ...


class PowerControl:
    """A host's controller; its ways are tried in order. May be used by several threads."""

    def __init__(self, host: str, ways: Sequence[Way], timeout_s: float, off_timeout_s: float, clock: Clock) -> None:
        self._host = host
        self._ways = tuple(ways)
        self._timeout_s = timeout_s
        self._off_timeout_s = off_timeout_s
        self._clock = clock
        self._one = threading.Lock()  # these little machines choke on questions side by side

    def read(self) -> Reading:
        """Raises `HostUnreachable` with every way's reason."""
        reasons = []
        for way in self._ways:
            try:
                return Reading(self._read(way, self._timeout_s), way.name)
            except Failed as failed:
                reasons.append((way.name, failed))
        raise self._silent(reasons)

    def force_off(self) -> Reading:
        """Orders it off at once and reads until it is. Raises `HostUnreachable` with every way's reason."""
        return self._switch(HostPower.OFF)

    def force_on(self) -> Reading:
        """Orders it on and reads until it is. Raises `HostUnreachable` with every way's reason."""
        return self._switch(HostPower.ON)

    def _switch(self, wanted: HostPower) -> Reading:
        reasons = []
        for way in self._ways:
            try:
                self._switch_by(way, wanted)
                return Reading(wanted, way.name)
            except Failed as failed:
                reasons.append((way.name, failed))
        raise self._silent(reasons)

    def _switch_by(self, way: Way, wanted: HostPower) -> None:
        deadline = Deadline.after(self._off_timeout_s, self._clock)
        problem = Failed(
            f"took the order, and the power does not read {wanted} after {self._off_timeout_s:g} s",
            f"look at the machine and its controller, or raise bmc.off_timeout_s of {self._host}",
        )
        try:
            with self._one:
                way.order(wanted, self._timeout_s)
        except Refused as refused:  # a 409 from a host that is off already: what it reads decides
            problem = refused
        while True:
            try:
                if self._read(way, max(0.1, deadline.within(self._timeout_s))) is wanted:
                    return
            except Failed as failed:
                problem = failed
            if deadline.passed():
                raise problem
            self._clock.sleep(POLL_S)

    def _read(self, way: Way, limit_s: float) -> HostPower:
        with self._one:
            return way.read(limit_s)

    def _silent(self, reasons: Sequence[tuple[str, Failed]]) -> HostUnreachable:
        if not reasons:
            return HostUnreachable(
                "it has no management controller in the inventory", where=self._host, next=f"add bmc to {self._host}"
            )
        what = "; ".join(f"{name}: {failed.why}" for name, failed in reasons)
        nexts = "; ".join(dict.fromkeys(failed.next for _, failed in reasons))
        return HostUnreachable(what, where=self._host, next=nexts)


def power_control(
    host: str, bmc: Bmc | None, reveal: Callable[[SecretRef], str], ca: Path | None, clock: Clock
) -> PowerControl:
    """The control of a host; without a `bmc`, one whose every question raises `HostUnreachable`.

    `ca`: `bmc.ca` as a path of this machine. `reveal` is asked when the password is first needed.
    """
    if bmc is None:
        return PowerControl(host, (), 0, 0, clock)
    ways: list[Way] = []
    if bmc.redfish is not None:
        ways.append(Redfish(bmc, reveal, ca))
    if bmc.ipmi is not None:
        ways.append(Ipmi(bmc, reveal))
    return PowerControl(host, ways, bmc.timeout_s, bmc.off_timeout_s, clock)


def _password(bmc: Bmc, reveal: Callable[[SecretRef], str]) -> str:
    try:
        return reveal(bmc.password)
    except PcloudError as error:
        raise Failed(error.what, error.next) from error


# -- Redfish (DSP0266, DMTF)


class Redfish:
    """One system behind a Redfish service: the only one it has, or the one that the URL's path names.

    Basic authentication, which every service must know (DSP0266, 13.3): nothing to log out of when
    a question is abandoned. The certificate is always verified, by `ca` or by the machine's authorities.
    """

    name = "redfish"

    def __init__(self, bmc: Bmc, reveal: Callable[[SecretRef], str], ca: Path | None) -> None:
        assert bmc.redfish is not None
        url = urlsplit(bmc.redfish)
        self._base = f"{url.scheme}://{url.netloc}"
        self._path = url.path.rstrip("/") if "/Systems/" in url.path else None
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._address = url.hostname or ""
        self._bmc = bmc
        self._reveal = reveal
        self._ca = ca
        self._system: Any = None

    def read(self, limit_s: float) -> HostPower:
        return self._asked(_power, limit_s)

    def order(self, power: HostPower, limit_s: float) -> None:
        self._asked(lambda system, _fresh: _reset(system, power), limit_s)

    def _asked(self, question: Callable[[Any, bool], T], limit_s: float) -> T:
        """The answer to `question(system, fresh)`, from a thread that is left behind at the deadline."""
        password = _password(self._bmc, self._reveal)
        if self._ca is not None and not self._ca.is_file():
            raise Failed(f"cannot be trusted: there is no certificate {self._ca}", f"put it there; {self._fetch()}")
        held, self._system = self._system, None

        def ask() -> tuple[Any, T]:
            system = held or self._connect(password, limit_s)
            return system, question(system, held is None)

        self._system, answer = _within(limit_s, ask, self._failed)
        return answer

    def _connect(self, password: str, limit_s: float) -> Any:
        import sushy  # here, as a run that asks no controller need not wait for it
        from sushy.auth import BasicAuth
        from sushy.connector import Connector

        machine = ssl.get_default_verify_paths()
        connector = Connector(
            self._base,
            verify=str(self._ca) if self._ca else machine.cafile or machine.capath or True,
            server_side_retries=1,
            server_side_retries_delay=1,
            default_request_timeout=limit_s,
            connect_timeout=limit_s,
        )
        connector._session.trust_env = False  # no proxy, and no other machine's password from ~/.netrc
        root = sushy.Sushy(self._base, auth=BasicAuth(self._bmc.user, password), connector=connector)
        path = self._path
        if path is None:
            paths = root.get_system_collection().members_identities
            if len(paths) != 1:
                raise Failed(
                    f"has {len(paths)} systems, and the inventory does not say which one this host is",
                    f"write its path in bmc.redfish: {' or '.join(self._base + p for p in paths[:3])}",
                )
            path = paths[0]
        return root.get_system(path)

    def _failed(self, error: BaseException | None, limit_s: float) -> Failed:
        """What an exception of sushy, or none in time, means to a person."""
        where = f"{self._address}:{self._port}"
        look = f"see that the controller has power and network: curl -kI {shlex.quote(self._base)}"
        if error is None:
            return Failed(f"{where} {_LATE.format(limit_s)}", look)
        from sushy import exceptions as known

        if isinstance(error, known.AccessError):
            secret = self._bmc.password.secret
            return Failed(
                f"{where} refuses user {self._bmc.user} with the password of the secret {secret}",
                f"correct the secret {secret}, or bmc.user",
            )
        if isinstance(error, known.HTTPError):
            kind = Failed if isinstance(error, known.ServerSideError) else Refused
            return kind(f"{where} answers {error.status_code}: {error.detail or 'no reason'}", look)
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                why = f"{where} shows a certificate that is not trusted: {cause.verify_message}"
                return Failed(why, _RENAME if cause.verify_code in OTHER_NAME else self._fetch())
            if isinstance(cause, OSError) and (why := _network(cause, limit_s)):
                return Failed(f"{where} {why}", look)
        return Failed(f"{where} does not speak Redfish as we do: {' '.join(str(error).split())[:200]}", look)

    def _fetch(self) -> str:
        """How to pin a certificate that no authority signed."""
        return (
            f"openssl s_client -connect {self._address}:{self._port} </dev/null | openssl x509 >bmc.pem, compare its "
            "fingerprint with what the controller's own page shows, and name the file as ca of its bmc"
        )


def _power(system: Any, fresh: bool) -> HostPower:
    """Only `Off` is off: PoweringOff, Paused and the like still have power."""
    if not fresh:
        system.refresh(force=True)
    if system.power_state is None:
        raise Failed("does not say whether the power is on", "look at the machine and its controller")
    return HostPower.OFF if system.power_state.value == "Off" else HostPower.ON


def _reset(system: Any, power: HostPower) -> None:
    import sushy

    system.reset_system(sushy.ResetType.FORCE_OFF if power is HostPower.OFF else sushy.ResetType.ON)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that stand behind it: urllib3 keeps the first one in `reason` or in `args`."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, getattr(one, "reason", None), one.__context__, one.__cause__]


def _network(error: OSError, limit_s: float) -> str:
    """What an error of the network means, with the controller as its subject; "" for one that only wraps another."""
    if isinstance(error, ConnectionRefusedError):
        return "refuses the connection"
    if isinstance(error, ssl.SSLError):
        return f"does not speak TLS as we do: {error.reason}"
    if isinstance(error, TimeoutError):
        return _LATE.format(limit_s)
    number = error.errno or 0
    return f"cannot be reached: {os.strerror(number).lower()}" if number in errno.errorcode else ""


def _within(limit_s: float, function: Callable[[], T], failed: Callable[[BaseException | None, float], Failed]) -> T:
    """The function's result; raises `Failed`, of None when it was late.

    It runs in a daemon thread: nothing ends a thread that waits for a socket, but nobody has to wait with it.
    """
    box: queue.SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = queue.SimpleQueue()

    def run() -> None:
        try:
            box.put((function(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            box.put((None, error))

    threading.Thread(target=run, daemon=True, name="bmc").start()
    try:
        answer, error = box.get(timeout=limit_s)
    except queue.Empty:
        raise failed(None, limit_s) from None
    if isinstance(error, Failed):
        raise error
    if error is not None:
        raise failed(error, limit_s) from error
    return answer  # type: ignore[return-value]  # without an error there is an answer


# -- IPMI 2.0 (ipmitool)


class Ipmi:
    """`ipmitool` over RMCP+, its password in the environment, where only this user can read it.

    Cipher suite 3 is the one that every implementation knows; 17 is refused by some.
    """

    name = "ipmi"
    _RETRY_S = 2

    def __init__(self, bmc: Bmc, reveal: Callable[[SecretRef], str]) -> None:
        self._address = str(bmc.ipmi)
        self._bmc = bmc
        self._reveal = reveal

    def read(self, limit_s: float) -> HostPower:
        said = self._run(["chassis", "power", "status"], limit_s)
        for power in (HostPower.ON, HostPower.OFF):
            if f"Chassis Power is {power}" in said:
                return power
        raise Failed(f"{self._address} does not say whether the power is on: {said[:200]}", self._look())

    def order(self, power: HostPower, limit_s: float) -> None:
        self._run(["chassis", "power", "off" if power is HostPower.OFF else "on"], limit_s)

    def _run(self, words: Sequence[str], limit_s: float) -> str:
        retries = max(1, int(limit_s / self._RETRY_S))
        argv = ["ipmitool", "-I", "lanplus", "-C", "3", "-E", "-H", self._address, "-U", self._bmc.user]
        argv += ["-N", str(self._RETRY_S), "-R", str(retries), *words]
        password = _password(self._bmc, self._reveal)
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "IPMI_PASSWORD": password}
        try:
            done = subprocess.run(
                argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s, check=False
            )
        except FileNotFoundError:
            raise Failed("ipmitool is not on this machine", "apt-get install ipmitool") from None
        except subprocess.TimeoutExpired:
            raise Failed(f"{self._address} {_LATE.format(limit_s)}", self._look()) from None
        if done.returncode == 0:
            return done.stdout.strip()
        said = " ".join(f"{done.stderr} {done.stdout}".split())[:200]
        if "RAKP 2" in said or "password" in said.lower():
            user, secret = self._bmc.user, self._bmc.password.secret
            why = f"{self._address} refuses user {user} with the password of the secret {secret}: {said}"
            raise Failed(why, f"correct the secret {secret}, or bmc.user")
        if "Unable to establish" in said:
            raise Failed(f"{self._address} does not answer: {said}", self._look())
        raise Refused(f"{self._address}: {said}", self._look())

    def _look(self) -> str:
        return f"see that the controller at {self._address} has power and network, and IPMI over LAN switched on"
