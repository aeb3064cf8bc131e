"""HTTP to one controller and to no other machine.

Each request has a connection of its own, so that none is asked on one that the controller closed, and
a limit of its own. No redirect is followed but to the same path with a slash at its end (iLO 4, Supermicro,
Lenovo), no proxy asked. A certificate is trusted when it is the
one that is pinned, whatever its name and dates, or when an authority vouches for it and its name.
"""

from __future__ import annotations

import base64
import errno
import http.client
import json
import os
import queue
import re
import shlex
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cryptography import x509

from pcloud.power.way import Failed, Passing, late

LARGEST = 4 << 20
"""Bytes of an answer that are read."""
OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_RENAME = (
    "write in bmc.redfish the name that its certificate has, or pin that certificate itself as ca, or give it one "
    "with this address"
)
_PEM = re.compile(r"-----BEGIN (?:X509 )?CERTIFICATE-----(.*?)-----END (?:X509 )?CERTIFICATE-----", re.DOTALL)

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """`headers` by their names in small letters; `body` is what the JSON holds, None when it is none."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Origin:
    """Where a controller answers: scheme, name and port. May be used by several threads."""

    def __init__(self, url: str, ca: Path | None) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self.base = f"{parts.scheme}://{parts.netloc}"
        self.where = f"{self._host}:{self._port}"
        self._ca = ca
        self._by_authority = False
        self._slashed: set[str] = set()
        self._shown = b""

    @property
    def certificate_ends(self) -> float | None:
        """Unix time; None without TLS."""
        return x509.load_der_x509_certificate(self._shown).not_valid_after_utc.timestamp() if self._shown else None

    @property
    def pinned(self) -> bool:
        return bool(self._shown) and not self._by_authority

    @property
    def look(self) -> str:
        return f"see that the controller has power and network: curl -kI {shlex.quote(self.base)}"

    def inside(self, link: object) -> str:
        """A link of an answer as a path here. Raises `Failed` for one that leads to another machine."""
        text = str(link)
        if text.startswith("/") and not text.startswith("//"):
            return text
        parts = urlsplit(text)
        same = (parts.scheme == "https") == self._tls and parts.hostname == self._host
        if same and (parts.port or (443 if self._tls else 80)) == self._port and parts.path.startswith("/"):
            return parts.path
        raise Failed(
            f"{self.where} names {text[:100]!r}, which is not on itself: the password does not go there",
            "write in bmc.redfish the address by which the controller calls itself, or mend the controller",
        )

    def ask(self, method: str, path: str, limit_s: float, headers: Mapping[str, str], body: object = None) -> Answer:
        """One request. Raises `Failed`; `Passing` when it may have arrived all the same."""
        if self._tls and self._ca is not None and not self._ca.is_file():
            raise Failed(f"cannot be trusted: there is no certificate {self._ca}", f"put it there; {self._fetch()}")
        if self._tls and self._ca is not None and not _pins(self._ca):
            raise Failed(f"cannot be trusted: {self._ca} holds no certificate", self._fetch())
        named = f"{path}/" if path in self._slashed else path
        answer = within(limit_s, lambda: self._request(method, named, limit_s, headers, body), self._failed)
        if 300 <= answer.status < 400:
            target = answer.headers.get("location", "elsewhere")[:100]
            if not named.endswith("/") and target in (f"{named}/", f"{self.base}{named}/"):
                self._slashed.add(path)
                return self.ask(method, path, limit_s, headers, body)
            raise Failed(
                f"{self.where} answers {answer.status} and sends us to {target}: no redirect is followed",
                "write in bmc.redfish where the controller itself answers",
            )
        return answer

    def _request(self, method: str, path: str, limit_s: float, headers: Mapping[str, str], body: object) -> Answer:
        with _Connection(self._host, self._port, limit_s, self._tls and self._wrapped) as connection:
            data = None if body is None else json.dumps(body).encode()
            sent = {"Accept": "application/json", "OData-Version": "4.0", "Connection": "close", **headers}
            if data is not None:
                sent["Content-Type"] = "application/json"
            connection.http.request(method, path, data, sent)
            response = connection.http.getresponse()
            text = response.read(LARGEST)
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, _json(text))

    def _wrapped(self, connect: Callable[[], socket.socket]) -> ssl.SSLSocket:
        """A connection to who shows the pinned certificate, or one that an authority vouches for."""
        pins = _pins(self._ca) if self._ca is not None and not self._by_authority else ()
        if pins:
            wrapped = _unverified().wrap_socket(connect(), server_hostname=self._host)
            self._shown = wrapped.getpeercert(binary_form=True) or b""
            if self._shown in pins:
                return wrapped
            wrapped.close()
        given = "".join(ssl.DER_cert_to_PEM_cert(pin) for pin in _pins(self._ca)) if self._ca is not None else None
        verifying = ssl.create_default_context(cadata=given)
        wrapped = verifying.wrap_socket(connect(), server_hostname=self._host)
        self._shown = wrapped.getpeercert(binary_form=True) or b""
        self._by_authority = True
        return wrapped

    def _failed(self, error: BaseException | None, limit_s: float) -> Failed:
        """What an exception, or none in time, means to a person."""
        if error is None or isinstance(error, TimeoutError):
            return Passing(f"{self.where} {late(limit_s)}", self.look)
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"{self.where} shows a certificate that is not trusted: {error.verify_message}"
            return Failed(why, _RENAME if error.verify_code in OTHER_NAME else self._fetch())
        if isinstance(error, ConnectionRefusedError):
            return Passing(f"{self.where} refuses the connection", self.look)
        if isinstance(error, ssl.SSLError):
            return Passing(f"{self.where} does not speak TLS as we do: {error.reason or 'it hung up'}", self.look)
        if isinstance(error, socket.gaierror):
            return Passing(f"{self._host} has no address: {error.strerror}", "correct bmc.redfish, or the name server")
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
            return Failed(f"{self.where} does not speak Redfish as we do: it speaks no HTTP", self.look)
        if isinstance(error, ConnectionError | http.client.HTTPException):
            return Cut(f"{self.where} cut the connection without an answer", self.look)
        number = error.errno or 0 if isinstance(error, OSError) else 0
        why = os.strerror(number).lower() if number in errno.errorcode else type(error).__name__
        return Passing(f"{self.where} cannot be reached: {why}", self.look)

    def _fetch(self) -> str:
        """How to pin a certificate that no authority signed."""
        return (
            f"openssl s_client -connect {self.where} </dev/null | openssl x509 >bmc.pem, compare its "
            "fingerprint with what the controller's own page shows, and name the file as ca of its bmc"
        )


class Cut(Passing):
    """A connection that ended before its answer."""


class _Connection:
    """One connection for one request; closed whatever happens."""

    def __init__(self, host: str, port: int, limit_s: float, wrap: Callable[..., ssl.SSLSocket] | bool) -> None:
        self.http = http.client.HTTPConnection(host, port, timeout=limit_s)

        def connect() -> socket.socket:
            return socket.create_connection((host, port), timeout=limit_s)

        self.http.sock = wrap(connect) if callable(wrap) else connect()

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()


def _json(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except ValueError:
        return None


def _pins(file: Path) -> tuple[bytes, ...]:
    """Every certificate in the file, in DER; the file is PEM, or DER itself."""
    data = file.read_bytes()
    found = [_der(block) for block in _PEM.findall(data.decode(errors="replace"))]
    return tuple(der for der in found or [data] if _is_certificate(der))


def _der(base64_text: str) -> bytes:
    with suppress(ValueError):
        return base64.b64decode("".join(base64_text.split()))
    return b""


def _is_certificate(der: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _unverified() -> ssl.SSLContext:
    """For a certificate that is compared byte by byte: neither its name, dates nor key size decide."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def within(limit_s: float, function: Callable[[], T], failed: Callable[[BaseException | None, float], Failed]) -> T:
    """The function's result; raises `failed(error)`, or `failed(None)` when it was late.

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
