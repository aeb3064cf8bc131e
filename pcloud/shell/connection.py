"""A logged-in SSH connection: bounded, to the machine we mean and no other."""

from __future__ import annotations

import errno
import io
import logging
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from pcloud.clock import Deadline
from pcloud.errors import BadInput, Blocked, HostUnreachable
from pcloud.keys import KEY_TYPE, fingerprint, known_name, load_pins

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

LOGIN_FACTOR = 3
BEAT_S = 4.0
SILENCE_S = 16.0
_SLACK_S = 0.1  # paramiko measures its time-outs on another clock than ours
LOST = (paramiko.SSHException, EOFError, OSError)  # all that paramiko raises when a connection ends

# paramiko logs the tracebacks of its threads; what matters of them is raised by this package.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Target:
    """Where to log in, as whom, and by which pinned keys; `name` is for messages."""

    address: str
    port: int
    user: str
    key: paramiko.PKey
    known_hosts: Path
    timeout_s: float
    name: str
    pinned_in: str = ""
    """Where a person changes a pin, for messages, when `known_hosts` is only made from it."""

    def unreachable(self, what: str) -> HostUnreachable:
        return HostUnreachable(
            f"{self.address} port {self.port} {what}",
            where=self.name,
            next=f"see that {self.name} is on and its network is up, then run the same command again",
        )


class Line(socket.socket):
    """The socket under a connection, which ends it when the other side is silent for too long.

    A request that wants an answer is sent every `BEAT_S`; `SILENCE_S` without a byte in return
    ends the connection, and everything that waits on it. paramiko's own keep-alive wants no
    answer, and its sends repeat for ever on a full socket; both go through here.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self._asked: Deadline | None = None
        self.ended = ""  # why, once it has ended the connection

    def expect(self) -> None:
        """A request was sent: some byte must come within `SILENCE_S`."""
        if self._asked is None:
            self._asked = Deadline.after(SILENCE_S)

    def send(self, data: Buffer, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except TimeoutError:
            self._end_when_silent()
            raise

    def recv(self, size: int, flags: int = 0) -> bytes:
        try:
            data = super().recv(size, flags)
        except TimeoutError:
            # Only after an empty read: a process that was itself stopped finds the answer waiting.
            self._end_when_silent()
            raise
        self._asked = None
        return data

    def _end_when_silent(self) -> None:
        asked = self._asked
        if asked is not None and asked.passed():
            self.ended = f"silent for {SILENCE_S:g} s"
            raise ConnectionAbortedError(errno.ECONNABORTED, self.ended)


class Connection:
    def __init__(self, transport: paramiko.Transport, line: Line) -> None:
        self.transport = transport
        self.line = line
        threading.Thread(target=self._beat, daemon=True).start()

    @classmethod
    def open(cls, target: Target, deadline: Deadline) -> Connection:
        """Raises `Blocked` when a person must look (host key, log-in), else `HostUnreachable`."""
        pins = _load_pins(target)
        line = Line(_dial(target, deadline))
        limit = Deadline.after(deadline.within(LOGIN_FACTOR * target.timeout_s))
        transport = paramiko.Transport(line)
        try:
            transport.get_security_options().key_types = (KEY_TYPE,)
            transport.banner_timeout = transport.handshake_timeout = limit.left()
            _shake_hands(transport, target, limit)
            _compare(transport.get_remote_server_key(), target, pins)
            _authenticate(transport, target, limit)
        except BaseException:
            transport.close()
            raise
        return cls(transport, line)

    @property
    def active(self) -> bool:
        return self.transport.is_active()

    def close(self) -> None:
        self.transport.close()

    def _beat(self) -> None:
        """Asks for a sign of life until the connection ends; sshd answers what it does not know with a no."""
        pause = threading.Event()
        while self.active:
            self.line.expect()
            try:
                self.transport.global_request("keepalive@openssh.com", wait=True)
            except LOST:
                return
            pause.wait(BEAT_S)


def _dial(target: Target, deadline: Deadline) -> socket.socket:
    limit = max(0.01, deadline.within(target.timeout_s))
    try:
        sock = socket.create_connection((target.address, target.port), timeout=limit)
    except ConnectionRefusedError:
        raise target.unreachable("refused the connection: its sshd is not running") from None
    except TimeoutError:
        raise target.unreachable(f"did not answer within {limit:.3g} s") from None
    except OSError as error:
        raise target.unreachable(f"cannot be reached: {error.strerror or error}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _shake_hands(transport: paramiko.Transport, target: Target, limit: Deadline) -> None:
    allowed = limit.left()
    try:
        transport.start_client(timeout=allowed)
        transport.get_remote_server_key()
    except IncompatiblePeer as error:
        raise Blocked(
            f"no common SSH algorithm with {target.address} (its host key must be ed25519): {first_line(error)}",
            where=target.name,
            next="make one there: ssh-keygen -t ed25519 -f /etc/ssh/ssh_host_ed25519_key, and restart its sshd",
        ) from None
    except LOST as error:
        if limit.left() < _SLACK_S:
            silence = f"{round(allowed, 1):g} s"
            raise target.unreachable(f"accepted the connection, but its sshd was silent for {silence}") from None
        raise target.unreachable(f"ended the connection before the log-in ({first_line(error)})") from None


def _load_pins(target: Target) -> frozenset[bytes]:
    try:
        return load_pins(target.known_hosts, target.address, port=target.port)
    except OSError as error:
        raise Blocked(
            f"the pinned host keys in {target.known_hosts} cannot be read: {error.strerror}",
            where=target.name,
            next=f"make {target.known_hosts} readable, then run the same command again",
        ) from None


def _compare(key: paramiko.PKey, target: Target, pins: frozenset[bytes]) -> None:
    """The one place that decides whether this is the machine we mean. Raises `Blocked`."""
    if key.asbytes() in pins:
        return
    seen, name = fingerprint(key.asbytes()), known_name(target.address, target.port)
    file = target.pinned_in or target.known_hosts
    line = f"{name} {key.get_name()} {key.get_base64()}"
    if not pins:
        raise Blocked(
            f"{file} pins no ed25519 host key for {name}; the one it shows is {seen}",
            where=target.name,
            next=f"compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on its console; "
            f"if they are equal, add this line to {file}: {line}",
        )
    raise Blocked(
        f"{name} shows the host key {seen}, but {file} pins {', '.join(sorted(map(fingerprint, pins)))}: "
        "another machine answers, or this one was reinstalled",
        where=target.name,
        next=f"find out which on its console; only if it was reinstalled, replace its line in {file} by: {line}",
    )


def _authenticate(transport: paramiko.Transport, target: Target, limit: Deadline) -> None:
    allowed = transport.auth_timeout = limit.left()
    try:
        more = transport.auth_publickey(target.user, target.key)
    except LOST as error:
        if limit.left() < _SLACK_S:
            raise target.unreachable(f"did not finish the log-in within {allowed:.3g} s") from None
        if not transport.is_active():
            raise target.unreachable(f"ended the connection during the log-in ({first_line(error)})") from None
        more = ["publickey"]
    if more:
        shown = fingerprint(target.key.asbytes())
        raise Blocked(
            f"{target.address} refuses the log-in of {target.user} with this key ({shown})",
            where=target.name,
            next=f"add this line to the authorized_keys of {target.user} there: "
            f"{target.key.get_name()} {target.key.get_base64()}",
        )


def private_key(text: str, name: str) -> paramiko.PKey:
    """The key of a private key file's text. Raises `BadInput`, which never shows it."""
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            raise BadInput(
                "the SSH key is protected by a passphrase",
                where=name,
                next="give pcloud a key of its own without one, kept in the site's secrets",
            ) from None
        except (paramiko.SSHException, ValueError, IndexError, TypeError):
            continue
    raise BadInput(
        "the SSH key is not a private key in OpenSSH's format", where=name, next="make one: ssh-keygen -t ed25519"
    )


def printable(text: str) -> str:
    """Without the control characters that a far machine could send to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text.expandtabs(1))


def first_line(error: BaseException) -> str:
    return printable(str(error).strip().split("\n")[0][:200]) or type(error).__name__
