"""Redfish (DSP0266, DMTF) through sushy."""

from __future__ import annotations

import errno
import logging
import os
import queue
import shlex
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pcloud.model import Bmc, SecretRef
from pcloud.observed import HostPower
from pcloud.power.way import Failed, Refused, late, password_of

OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_RENAME = "write in bmc.redfish the name that its certificate has, or give it a certificate with this address"

T = TypeVar("T")

logging.getLogger("sushy").addHandler(logging.NullHandler())  # what went wrong is told once, by us


class Redfish:
    """One system behind a Redfish service: the only one it has, or the one that the URL's path names.

    Basic authentication, which every service must know (DSP0266): nothing to log out of when
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
        password = password_of(self._bmc, self._reveal)
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
            return Failed(f"{where} {late(limit_s)}", look)
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
        return late(limit_s)
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
