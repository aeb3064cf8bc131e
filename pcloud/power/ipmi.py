"""IPMI 2.0 through ipmitool."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from pcloud.model import Bmc, SecretRef
from pcloud.observed import HostPower
from pcloud.power.way import Failed, Refused, late, password_of


class Ipmi:
    """`ipmitool` over RMCP+, its password in the environment, where only this user can read it.

    Cipher suite 3: all implementations tried so far know it, and some refuse 17.
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
        password = password_of(self._bmc, self._reveal)
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "IPMI_PASSWORD": password}
        try:
            done = subprocess.run(
                argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s, check=False
            )
        except FileNotFoundError:
            raise Failed("ipmitool is not on this machine", "apt-get install ipmitool") from None
        except subprocess.TimeoutExpired:
            raise Failed(f"{self._address} {late(limit_s)}", self._look()) from None
        if done.returncode == 0:
            return done.stdout.strip()
        said = " ".join(f"{done.stderr} {done.stdout}".split())[:200]
        if "Unable to establish" in said or "RAKP" in said:  # the protocol itself does not tell these apart
            user, secret = self._bmc.user, self._bmc.password.secret
            why = f"opens no session: it does not answer, or refuses user {user} with the secret {secret}"
            raise Failed(f"{self._address} {why}", f"{self._look()}; correct the secret {secret}, or bmc.user")
        raise Refused(f"{self._address}: {said}", self._look())

    def _look(self) -> str:
        return f"see that the controller at {self._address} has power and network, and IPMI over LAN switched on"
