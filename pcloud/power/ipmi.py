"""IPMI 2.0 through ipmitool."""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pcloud.controllers import identity_of
from pcloud.hoststate import Controller
from pcloud.model import Bmc, SecretRef
from pcloud.observed import HostPower
from pcloud.power.way import Busy, Failed, Passing, Refused, late, password_of, secret_of
from pcloud.power.web import within
from pcloud.values import split_port

PORT = 623
REQUESTS = 4
"""ipmitool's packets of one question, about a dozen, have the time of so many requests."""
RETRY_S = 2
KNOCK_EVERY_S = 0.2
CLOSE_S = 0.5
"""ipmitool has sent Close Session long before: a session that is left open counts among a controller's few for 60 s."""
LONGEST = 20
"""Bytes of a password, and of a K_G."""
# Get Channel Authentication Capabilities, outside of any session (IPMI 2.0, 13.6 and 22.13).
KNOCK = bytes.fromhex("0600ff07 00 00000000 00000000 09 2018c8 81 00 38 8e 04 b5")
HEXADECIMAL = re.compile(r"0[xX]([0-9a-fA-F]{2})+")
"""A K_G as controllers' own pages show it."""
GUID = r"System GUID\s*:\s*(?P<told>[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"
TIME = r"(?P<told>\d\d/\d\d/(\d\d)?\d\d \d\d:\d\d:\d\d)"
PRIVILEGES = ("OPERATOR", "ADMINISTRATOR")
"""An operator may switch the power; a controller that gives the user nothing less is asked for more."""
SUITES = (3, 17)
"""Nearly every controller knows 3, and refuses it at once where it is switched off. To ask which ones it knows, as
ipmitool alone does, takes 20 s where the controller does not know that question."""


class Ipmi:
    """`ipmitool` over RMCP+, its secrets in the environment, where only this user can read them.

    Each question is a session of its own. It counts as answered when the answer is there, though
    ipmitool may then hang in closing its session.
    """

    name = "ipmi"
    pause_s = 1.0
    session = ""
    identity = ""

    def __init__(self, bmc: Bmc, reveal: Callable[[SecretRef], str]) -> None:
        self._host, self._port = split_port(bmc.ipmi or "", PORT)
        self._address = bmc.ipmi or ""
        self._bmc = bmc
        self._reveal = reveal
        self._privilege = PRIVILEGES[0]
        self._suite = bmc.cipher or SUITES[0]

    def read(self, limit_s: float) -> HostPower:
        status = ["chassis", "power", "status"]
        try:
            said = self._run(status, limit_s, r"Chassis Power is \w+")
        except Refused:  # it is busy (0xC0)
            time.sleep(KNOCK_EVERY_S)
            said = self._run(status, limit_s, r"Chassis Power is \w+")
        for power in (HostPower.ON, HostPower.OFF):
            if f"Chassis Power is {power}" in said:
                return power
        raise Passing(f"{self._address} does not say whether the power is on: {said[:200]}", self._look())

    def order(self, power: HostPower, limit_s: float) -> str:
        word = "off" if power is HostPower.OFF else "on"
        self._run(["chassis", "power", word], limit_s, r"Chassis Power Control: \S+")
        return ""

    def running_s(self, limit_s: float) -> float | None:  # noqa: ARG002 (IPMI does not tell it)
        return None

    def examine(self, now: float, limit_s: float) -> Controller:
        """The privilege is the one that its sessions have; every one may order off."""
        return Controller(
            self.name,
            identity=identity_of(self._told(["mc", "guid"], limit_s, GUID)),
            login=f"cipher suite {self._suite}",
            role=self._privilege,
            may_switch=True,
            limit_s=REQUESTS * limit_s,
            offset_s=_offset_s(self._told(["sel", "time", "get"], limit_s, TIME), now),
        )

    def _told(self, words: Sequence[str], limit_s: float, answer: str) -> str:
        """ "" where it does not say."""
        try:
            found = re.search(answer, self._run(words, limit_s, answer))
        except Failed:
            return ""
        return found["told"].lower() if found else ""

    def close(self) -> None:
        """Each session was closed by itself."""

    def _run(self, words: Sequence[str], limit_s: float, answer: str) -> str:
        """What ipmitool prints; another suite or privilege is tried where the controller refuses the first."""
        if shutil.which("ipmitool") is None:
            raise Failed("ipmitool is not on this machine", "apt-get install ipmitool")
        self._knock(limit_s)
        untried = [s for s in SUITES if s != self._suite] if self._bmc.cipher is None else []
        while True:
            said, done = self._once(words, limit_s, answer)
            if done:
                return said
            if (_of_suite(said) or _unnamed(said)) and untried:
                self._suite = untried.pop(0)
            elif _of_privilege(said) and self._privilege != PRIVILEGES[-1]:
                self._privilege = PRIVILEGES[-1]
            else:
                raise self._failed(said, limit_s)

    def _once(self, words: Sequence[str], limit_s: float, answer: str) -> tuple[str, bool]:
        """What one call of ipmitool printed, and whether the answer is there."""
        every = max(1, min(RETRY_S, round(limit_s)))
        argv = ["ipmitool", "-v", "-I", "lanplus", "-E", "-H", self._host, "-p", str(self._port), "-U", self._bmc.user]
        argv += [
            "-L",
            self._privilege,
            "-C",
            str(self._suite),
            "-N",
            str(every),
            "-R",
            str(max(1, round(limit_s / every))),
        ]
        argv += ["-K"] if self._bmc.kg is not None else []
        environment = self._environment()
        master, slave = os.openpty()  # a terminal, so that ipmitool does not keep its answer back until it ends
        process = subprocess.Popen(
            [*argv, *words], env=environment, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave
        )
        os.close(slave)
        try:
            said = _read(master, answer, time.monotonic() + REQUESTS * limit_s)
            if said is not None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(CLOSE_S)
        finally:
            os.close(master)
            process.kill()
            process.wait()
        if said is None:
            raise Passing(f"{self._address} {late(REQUESTS * limit_s)}", self._look())
        found = re.search(answer, said)
        return (found[0], True) if found else (said, False)

    def _environment(self) -> dict[str, str]:
        password = password_of(self._bmc, self._reveal)
        if len(password.encode()) > LONGEST:
            secret = self._bmc.password.secret
            raise Failed(
                f"IPMI knows passwords of up to {LONGEST} bytes, and the secret {secret} is longer",
                f"give the controller's user a shorter one, and write it in the secret {secret}",
            )
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", "IPMI_PASSWORD": password}
        return env if self._bmc.kg is None else env | {"IPMI_KGKEY": os.fsdecode(self._kg(self._bmc.kg))}

    def _kg(self, reference: SecretRef) -> bytes:
        text = secret_of(reference, self._reveal)
        key = bytes.fromhex(text[2:]) if HEXADECIMAL.fullmatch(text) else text.encode()
        if len(key) > LONGEST or b"\0" in key.rstrip(b"\0"):
            why = f"the secret {reference.secret} is no K_G that ipmitool takes: up to {LONGEST} bytes, none of them 0"
            raise Failed(why, f"set another one at the controller, and write it in the secret {reference.secret}")
        return key.rstrip(b"\0")

    def _knock(self, limit_s: float) -> None:
        """One packet that every controller answers: ipmitool alone would be minutes in finding that none is there."""

        def answered() -> None:
            family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as knock:
                knock.connect(address)
                end, pause = time.monotonic() + limit_s, KNOCK_EVERY_S
                while time.monotonic() < end:
                    knock.settimeout(pause)
                    try:
                        knock.send(KNOCK)
                        knock.recv(1024)
                    except TimeoutError:  # a slow one answers each packet, one after the other
                        pause = min(1.5 * pause, RETRY_S)
                        continue
                    except ConnectionRefusedError:  # its network stack is up before it is
                        time.sleep(KNOCK_EVERY_S)
                        continue
                    return
                raise TimeoutError

        within(limit_s, answered, self._unheard)

    def _unheard(self, error: BaseException | None, limit_s: float) -> Failed:
        if error is None or isinstance(error, TimeoutError):
            return Passing(f"{self._address} {late(limit_s)}", self._look())
        if isinstance(error, socket.gaierror):
            return Passing(f"{self._host} has no address: {error.strerror}", "correct bmc.ipmi, or the name server")
        why = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        return Passing(f"{self._address} cannot be reached: {why}", self._look())

    def _failed(self, said: str, limit_s: float) -> Failed:
        """What ipmitool's words mean to a person: the cause as the controller named it, where it named one."""
        user, secret = self._bmc.user, self._bmc.password.secret
        said = _last(said)
        at = f"{self._address}: {said}"
        if _of_suite(said):
            return Failed(at, "write a cipher suite that the controller offers as bmc.cipher (3 or 17)")
        if _of_privilege(said):
            return Failed(at, f"at the controller, give user {user} the privilege OPERATOR on its LAN channel")
        if "unauthorized name" in said:
            return Failed(f"{self._address} knows no user {user}: {said}", "correct bmc.user")
        if "RAKP 4" in said:  # the password was right, as RAKP 2 said
            if self._bmc.kg is None:
                return Failed(f"{self._address} has a key K_G: {said}", "write bmc.kg, and that key in its secret")
            kg = self._bmc.kg.secret
            why = f"{self._address} has another key K_G than the secret {kg}: {said}"
            return Failed(why, f"correct the secret {kg}; or leave bmc.kg out, where the controller has none")
        if "HMAC" in said or "RAKP" in said:
            why = f"{self._address} refuses user {user} with the secret {secret}: {said}"
            return Failed(why, f"correct the secret {secret}, or bmc.user; or bmc.kg, where the controller has one")
        if "insufficient resources" in said:
            return Busy(at, "wait until its sessions end, or end them at the controller's own page")
        if "Unable to establish" in said:
            return Passing(f"{self._address} opens no session within {limit_s:g} s: {said}", self._look())
        return Refused(at, self._look())

    def _look(self) -> str:
        return f"see that the controller at {self._address} has power and network, and IPMI over LAN switched on"


def _read(master: int, answer: str, end: float) -> str | None:
    """What is printed up to the answer, or to the last word; None when neither comes before `end`."""
    said = b""
    while time.monotonic() < end:
        if not select.select([master], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        try:
            more = os.read(master, 4096)
        except OSError:  # EIO: the other end is closed
            more = b""
        said += more
        text = said.decode(errors="replace")
        if not more or re.search(answer, text):
            return text
    return None


def _offset_s(said: str, now: float) -> float | None:
    """Its clock less ours; it does not tell its time zone."""
    if not said:
        return None
    year = "%Y" if len(said.split()[0]) == len("01/31/2026") else "%y"
    with suppress(ValueError):
        return datetime.strptime(said, f"%m/%d/{year} %H:%M:%S").replace(tzinfo=UTC).timestamp() - now
    return None


def _of_suite(said: str) -> bool:
    words = ("no matching cipher suite", "invalid authentication algorithm", "invalid integrity algorithm")
    return any(word in said for word in words)


def _unnamed(said: str) -> bool:
    """No session, and no word why: some controllers do not answer to a suite that they do not know."""
    named = ("RAKP", "insufficient", "Privilege", "Auth Capabilities")
    return "Unable to establish" in said and not any(word in said for word in named)


def _of_privilege(said: str) -> bool:
    words = ("Set Session Privilege Level", "invalid role", "insufficient privilege", "Insufficient privilege")
    return any(word in said for word in words)


def _last(said: str) -> str:
    """ipmitool's words without what it says in passing."""
    noise = ("Loading IANA", "Using best available", "Running Get VSO", "Invalid completion code", "Discovered IPMB")
    more = ("Get Device ID", "Issuing request", "Get Auth Capabilities error")
    lines = [line.strip("> \r") for line in said.splitlines() if line.strip() and not line.startswith(noise + more)]
    told = [line for line in lines if not line.startswith("Error: Unable to establish")] or lines
    return "; ".join(told)[:200]
