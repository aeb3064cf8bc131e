"""An IPMI 2.0 (RMCP+) controller on UDP port 623 of a loopback address, or another, with faults that a case chooses.

    with IpmiServer({"suites": [17]}, "127.0.0.140", scale=10) as server: server.power, server.orders

`_s` are seconds, each `scale` times shorter than it says.

user, password, kg, user_unknown, suites (3, 17), privilege (4 administrator, 3 operator, 2 user)
privilege_how   rakp (RAKP message 2 refuses the role) or set (Set Session Privilege Level does)
power, off_after_s, stay_on, ignore_first, shown [[from_s, to_s, "off"], ...], off_code (0xd5)
busy_orders, busy_reads, busy_code (0xc0), full_sessions (so many are refused: insufficient resources)
sessions, session_s    so many are open at once; one that is not closed ends by itself (60)
guid, clock   32 hexadecimal digits as they are sent; Unix time
late_s, drop_first, dark_after_order_s, no_answer (to the order), silent, no_close (Close Session is not answered)
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Address = tuple[str, int]
SUITES: dict[int, tuple[int, int, Any, int]] = {3: (1, 1, hashlib.sha1, 12), 17: (3, 4, hashlib.sha256, 16)}
"""Suite to the numbers of its authentication and integrity, its hash, and how many bytes of that are sent."""


def checksum(*data: int) -> int:
    return -sum(data) & 0xFF


@dataclass
class _Session:
    """One session, from its opening on; the names are those of the specification (13.20 and following)."""

    console: bytes
    suite: int
    began: float = field(default_factory=time.monotonic)
    sequence: int = 0
    r_m: bytes = b""
    r_c: bytes = b""
    role: int = 0
    kuid: bytes = b""
    tail: bytes = b""
    sik: bytes = b""
    k1: bytes = b""
    k2: bytes = b""

    def mac(self, key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, SUITES[self.suite][2]).digest()


@dataclass(frozen=True)
class _Message:
    """A request inside an IPMI packet."""

    responder: int
    netfn: int
    requester: int
    sequence: int
    command: int
    data: bytes

    @classmethod
    def read(cls, raw: bytes) -> _Message:
        return cls(raw[0], raw[1] >> 2, raw[3], raw[4], raw[5], raw[6:-1])

    def reply(self, code: int, data: Iterable[int] = ()) -> bytes:
        head = bytes([self.requester, (self.netfn | 1) << 2])
        body = bytes([self.responder, self.sequence, self.command, code, *data])
        return head + bytes([checksum(*head)]) + body + bytes([checksum(*body)])


class IpmiServer:
    def __init__(self, faults: dict[str, Any], address: str, scale: float = 1.0, port: int = 623) -> None:
        """`address`: without brackets; the attribute is what stands in an inventory."""
        self.faults = {k: v / scale if k.endswith("_s") else v for k, v in faults.items()}
        machine = f"[{address}]" if ":" in address else address
        self.address = machine if port == 623 else f"{machine}:{port}"
        self._bound = address, port
        self.power: str = faults.get("power", "on")
        self.orders: list[str] = []
        self._scale = scale
        self._off_at: float | None = None
        self._counts = dict.fromkeys(("packets", "full_sessions", "busy_orders", "busy_reads", "ignore_first"), 0)
        self._sessions: dict[bytes, _Session] = {}
        self._guid = os.urandom(16)
        self._dark_until = 0.0
        self._started = time.monotonic()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._runs = True

    def __enter__(self) -> Self:
        self._socket.bind(self._bound)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._runs = False
        self._thread.join()
        self._socket.close()

    def really(self) -> str:
        if self._off_at is not None and time.monotonic() >= self._off_at:
            self.power, self._off_at = "off", None
        return self.power

    def _shown(self) -> str:
        since = (time.monotonic() - self._started) * self._scale
        for begin, end, value in self.faults.get("shown", []):
            if begin <= since < end:
                return str(value)
        return self.really()

    def _first(self, name: str) -> bool:
        """Whether this is one of the first so many of its kind."""
        self._counts[name] += 1
        return self._counts[name] <= int(self.faults.get(name, 0))

    def _serve(self) -> None:
        while self._runs:
            try:
                data, who = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            self._counts["packets"] += 1
            lost = self._counts["packets"] <= self.faults.get("drop_first", 0)
            if self.faults.get("silent") or lost or time.monotonic() < self._dark_until:
                continue
            time.sleep(self.faults.get("late_s", 0))
            if (answer := self._answer(data)) is not None:
                self._socket.sendto(answer, who)

    def _answer(self, data: bytes) -> bytes | None:
        if data[4] == 6:
            return self._session_packet(data)
        message = _Message.read(data[14 : 14 + data[13]])
        out = self._outside(message)
        return b"\x06\x00\xff\x07\x00" + bytes(8) + bytes([len(out)]) + out

    def _outside(self, message: _Message) -> bytes:
        """What is answered without a session."""
        if message.command == 0x38:  # Get Channel Authentication Capabilities
            return message.reply(0, [1, 0x80, 4, 2, 0, 0, 0, 0])
        if message.command == 0x54:  # Get Channel Cipher Suites
            records = b"".join(
                bytes([0xC0, n, SUITES[n][0], 0x40 | SUITES[n][1], 0x81]) for n in self.faults.get("suites", SUITES)
            )
            at = (message.data[2] & 0x3F) * 16 if len(message.data) > 2 else 0
            return message.reply(0, b"\x01" + records[at : at + 16])
        return message.reply(0xC1)

    def _session_packet(self, data: bytes) -> bytes | None:
        kind, session = data[5] & 0x3F, data[6:10]
        payload = data[16 : 16 + struct.unpack("<H", data[14:16])[0]]
        match kind:
            case 0x10:
                return _plain(0x11, self._open(payload))
            case 0x12:
                return _plain(0x13, self._rakp_2(payload))
            case 0x14:
                return _plain(0x15, self._rakp_4(payload))
            case _ if session == bytes(4):
                return _plain(0, self._outside(_Message.read(payload)))
        known = self._sessions.get(session)
        return self._inside(known, payload) if known is not None else None

    def _open(self, asked: bytes) -> bytes:
        authentication, integrity = asked[12], asked[20]
        suites = self.faults.get("suites", list(SUITES))
        suite = next((s for s in suites if SUITES[s][:2] == (authentication, integrity)), None)
        if self._first("full_sessions") or self._is_full():
            return bytes([asked[0], 0x01, 0, 0]) + asked[4:8]
        if suite is None:
            return bytes([asked[0], 0x11, 0, 0]) + asked[4:8]
        mine = os.urandom(4)
        self._sessions[mine] = _Session(asked[4:8], suite)
        algorithms_ = (0, 0, 0, 8, authentication, 0, 0, 0, 1, 0, 0, 8, integrity, 0, 0, 0, 2, 0, 0, 8, 1, 0, 0, 0)
        return bytes([asked[0], 0, 4, 0]) + asked[4:8] + mine + bytes(algorithms_)

    def _is_full(self) -> bool:
        end = time.monotonic() - self.faults.get("session_s", 60 / self._scale)
        self._sessions = {name: s for name, s in self._sessions.items() if s.began > end}
        return len(self._sessions) >= int(self.faults.get("sessions", 10**6))

    def _rakp_2(self, asked: bytes) -> bytes:
        mine = asked[4:8]
        s = self._sessions[mine]
        s.r_m, s.role, name = asked[8:24], asked[24], asked[28 : 28 + asked[27]]
        if name != self.faults.get("user", "admin").encode() or self.faults.get("user_unknown"):
            return bytes([asked[0], 0x0D, 0, 0]) + s.console
        too_much = s.role & 0x0F > self.faults.get("privilege", 4)
        if too_much and self.faults.get("privilege_how", "rakp") == "rakp":
            return bytes([asked[0], 0x09, 0, 0]) + s.console
        s.kuid = self.faults.get("password", "correct-horse").encode()[:20].ljust(20, b"\0")
        s.r_c, s.tail = os.urandom(16), bytes([s.role, len(name)]) + name
        mac = s.mac(s.kuid, s.console + mine + s.r_m + s.r_c + self._guid + s.tail)
        return bytes([asked[0], 0, 0, 0]) + s.console + s.r_c + self._guid + mac

    def _rakp_4(self, asked: bytes) -> bytes:
        mine = asked[4:8]
        s = self._sessions[mine]
        wanted = s.mac(s.kuid, s.r_c + s.console + s.tail)
        if asked[8 : 8 + len(wanted)] != wanted:
            return bytes([asked[0], 0x0F, 0, 0]) + s.console
        kg = self.faults.get("kg", "").encode().ljust(20, b"\0") if "kg" in self.faults else s.kuid
        s.sik = s.mac(kg, s.r_m + s.r_c + s.tail)
        s.k1, s.k2 = s.mac(s.sik, b"\1" * 20), s.mac(s.sik, b"\2" * 20)[:16]
        return bytes([asked[0], 0, 0, 0]) + s.console + s.mac(s.sik, s.r_m + mine + self._guid)[: SUITES[s.suite][3]]

    def _inside(self, s: _Session, payload: bytes) -> bytes | None:
        """A request in a session: decrypted, answered, encrypted and signed."""
        decryptor = Cipher(algorithms.AES(s.k2), modes.CBC(payload[:16])).decryptor()
        clear = decryptor.update(payload[16:]) + decryptor.finalize()
        message = _Message.read(clear[: len(clear) - clear[-1] - 1])
        answer = self._command(message)
        if (message.netfn, message.command) == (6, 0x3C):
            self._sessions = {name: kept for name, kept in self._sessions.items() if kept is not s}
        if answer is None:
            return None
        text = message.reply(*answer)
        pad = -(len(text) + 1) % 16
        text += bytes(range(1, pad + 1)) + bytes([pad])
        iv = os.urandom(16)
        encryptor = Cipher(algorithms.AES(s.k2), modes.CBC(iv)).encryptor()
        sealed = iv + encryptor.update(text) + encryptor.finalize()
        s.sequence += 1
        head = b"\x06\xc0" + s.console + struct.pack("<IH", s.sequence, len(sealed)) + sealed
        pad = -(len(head) + 2) % 4
        head += b"\xff" * pad + bytes([pad, 7])
        return b"\x06\x00\xff\x07" + head + s.mac(s.k1, head)[: SUITES[s.suite][3]]

    def _command(self, message: _Message) -> tuple[int, bytes] | None:
        privilege = self.faults.get("privilege", 4)
        match message.netfn, message.command:
            case 6, 0x3B:  # Set Session Privilege Level
                return (0x81, b"") if message.data[0] > privilege else (0, message.data[:1])
            case 6, 0x3C:  # Close Session
                return None if self.faults.get("no_close") else (0, b"")
            case 6, 0x37 if "guid" in self.faults:  # Get System GUID
                return 0, bytes.fromhex(self.faults["guid"])
            case 10, 0x48 if "clock" in self.faults:  # Get SEL Time
                return 0, struct.pack("<I", int(self.faults["clock"]))
            case 0, 1:  # Get Chassis Status
                if self._first("busy_reads"):
                    return self.faults.get("busy_code", 0xC0), b""
                return 0, bytes([0x60 | (self._shown() == "on"), 0, 0x40])
            case 0, 2:  # Chassis Control
                return self._control(message.data[0]) if privilege >= 3 else (0xD4, b"")
        return 0xC1, b""

    def _control(self, number: int) -> tuple[int, bytes] | None:
        what = {0: "off", 1: "on", 2: "cycle", 5: "soft"}.get(number, "?")
        if self._first("busy_orders"):
            return self.faults.get("busy_code", 0xC0), b""
        if what == "off" and self.really() == "off" and "off_code" in self.faults:
            self.orders.append("off (already)")
            return self.faults["off_code"], b""
        self.orders.append(what)
        self._dark_until = time.monotonic() + self.faults.get("dark_after_order_s", 0)
        if not self.faults.get("stay_on") and not self._first("ignore_first"):
            if what == "off":
                self._off_at = time.monotonic() + self.faults.get("off_after_s", 0)
            elif what == "on":
                self.power, self._off_at = "on", None
        return None if self.faults.get("no_answer") else (0, b"")


def _plain(kind: int, payload: bytes) -> bytes:
    return b"\x06\x00\xff\x07\x06" + bytes([kind]) + bytes(8) + struct.pack("<H", len(payload)) + payload
