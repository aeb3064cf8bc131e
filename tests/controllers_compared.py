"""pcloud beside fence_redfish, fence_ipmilan (Debian's fence-agents) and sushy, on the cases of cases/controllers.

    python -m tests.controllers_compared [NAME ...]    by hand: about ten minutes, in real time, as root (port 623)

Prints a table in Markdown: what each says of a host that it was told to switch off, what the host's power really
is, and how long that took. Each tool has a controller of its own, its own defaults, and `LIMIT_S`. sushy is installed
into a virtual environment that is thrown away; it is driven as its users do: order ForceOff, and read for a minute.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from pcloud.clock import SystemClock
from pcloud.model import Bmc
from pcloud.power import power_control
from tests.controller import write_certificate
from tests.controller_cases import FILES, Sees, _done
from tests.ipmi_server import IpmiServer
from tests.redfish_server import RedfishServer

LIMIT_S = 180
AT_ONCE = 16
TOOLS = ("pcloud", "fence_redfish", "fence_ipmilan", "sushy")
SUSHY = """
import sys, time, sushy
(url, path, user), password = sys.argv[1:4], sys.stdin.read()
root = sushy.Sushy(url, username=user, password=password, verify=False)
systems = [root.get_system(path)] if path else root.get_system_collection().get_members()
assert len(systems) == 1, f"{len(systems)} systems"
systems[0].reset_system(sushy.ResetType.FORCE_OFF)
end = time.monotonic() + 60
while time.monotonic() < end:
    systems[0].refresh(force=True)
    if systems[0].power_state == sushy.PowerState.OFF:
        sys.exit(0)
    time.sleep(1)
sys.exit("it stays on")
"""


@dataclass(frozen=True)
class Outcome:
    """`says_off`: it reported success. `really`: the power in the end."""

    says_off: bool
    really: str
    seconds: float

    @property
    def word(self) -> str:
        if self.says_off:
            return "off" if self.really == "off" else "**says off, and it runs**"
        return "gives up" if self.really == "on" else "gives up, and it is off"

    def __str__(self) -> str:
        return f"{self.word}, {self.seconds:.0f} s"


@dataclass(frozen=True)
class Served:
    """One controller of a case, and the inventory's entry for it."""

    redfish: RedfishServer | None
    ipmi: IpmiServer | None
    bmc: Bmc
    password: str
    kg: str

    def really(self) -> str:
        heard = self.ipmi is not None and not self.ipmi.faults.get("silent")
        machine: Any = self.ipmi if heard or self.redfish is None else self.redfish
        return str(machine.really()).lower()


@contextlib.contextmanager
def _serve(case: dict[str, Any], number: int, folder: Path) -> Iterator[Served]:
    with contextlib.ExitStack() as stack:
        ipmi = redfish = None
        changes: dict[str, Any] = {**case.get("bmc", {})}
        if "ipmi" in case:
            address = case["ipmi"].get("address", f"127.2.{number // 250}.{number % 250 + 1}")
            port = 623 if address.startswith("127.") else 6000 + number
            ipmi = stack.enter_context(IpmiServer(case["ipmi"], address, 1, port))
            changes["ipmi"] = ipmi.address
        if "server" in case:
            tls = [folder / "cert.pem", folder / "key.pem"]
            redfish = stack.enter_context(RedfishServer({**case["server"], "tls": tls}))
            changes |= {"redfish": redfish.url + case.get("path", ""), "ca": str(tls[0])}
            if ipmi is not None and case.get("one_power"):
                redfish.really = lambda: ipmi.really().capitalize()  # type: ignore[method-assign]
        yield Served(redfish, ipmi, Bmc(**changes), case.get("password", "correct-horse"), case.get("kg", ""))


def _pcloud(served: Served, case: dict[str, Any]) -> bool:
    secrets = {"bmc/kg": served.kg}
    ca = Path(served.bmc.ca) if served.bmc.ca else None
    witness = Sees(case["sees"]) if "sees" in case else None
    reveal = lambda ref: secrets.get(ref.secret, served.password)  # noqa: E731
    control = power_control("h3", served.bmc, reveal, ca, SystemClock(), witness)
    try:
        return _done("fence", control, SystemClock()).startswith("fenced")
    finally:
        control.close()


def _runs(argv: Sequence[str], stdin: str = "") -> bool:
    try:
        done = subprocess.run(argv, input=stdin, text=True, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _fence_redfish(served: Served, path: str) -> bool:
    assert served.redfish is not None
    said = f"action=off\nip={served.redfish.address}\nipport={served.redfish.port}\nssl_insecure=1\n"
    said += f"username={served.bmc.user}\npassword={served.password}\n"
    return _runs(["fence_redfish"], said + (f"systems_uri={path}\n" if "/Systems/" in path else ""))


def _fence_ipmilan(served: Served) -> bool:
    assert served.ipmi is not None
    address, port = served.ipmi._bound
    said = (
        f"action=off\nip={address}\nipport={port}\nlanplus=1\nusername={served.bmc.user}\npassword={served.password}\n"
    )
    said += f"cipher={served.bmc.cipher}\n" if served.bmc.cipher else ""
    return _runs(["fence_ipmilan"], said + (f"hexadecimal_kg={served.kg.encode().hex()}\n" if served.kg else ""))


def _try(job: tuple[int, dict[str, Any], str], folder: Path, sushy: str) -> Outcome | None:
    """None where the tool does not speak what the controller does."""
    number, case, tool = job
    if (tool in ("fence_redfish", "sushy") and "server" not in case) or (
        tool == "fence_ipmilan" and "ipmi" not in case
    ):
        return None
    path = case.get("path", "").rstrip("/")
    with _serve(case, number, folder) as served:
        began = time.monotonic()
        if tool == "pcloud":
            says = _pcloud(served, case)
        elif tool == "fence_redfish":
            says = _fence_redfish(served, path)
        elif tool == "fence_ipmilan":
            says = _fence_ipmilan(served)
        else:
            assert served.redfish is not None
            named = path if "/Systems/" in path else ""
            says = _runs([sushy, "-c", SUSHY, served.redfish.url, named, served.bmc.user], served.password)
        took = time.monotonic() - began
        return Outcome(says, served.really(), took)


def main(names: list[str]) -> None:
    cases = [c for file in FILES for c in yaml.safe_load(file.read_text()) if not names or c["name"] in names]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_certificate(folder, "127.0.0.1")
        venv.create(folder / "venv", with_pip=True)
        sushy = str(folder / "venv" / "bin" / "python")
        subprocess.run([sushy, "-m", "pip", "install", "-q", "sushy"], check=True)
        os.environ.pop("PYTHONPATH", None)
        jobs = [(n, case, tool) for n, (case, tool) in enumerate(product(cases, TOOLS))]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            came = list(pool.map(lambda job: _try(job, folder, sushy), jobs))
    rows = [came[n : n + len(TOOLS)] for n in range(0, len(came), len(TOOLS))]
    lines = [f"| controller | {' | '.join(TOOLS)} |", f"| --- |{' --- |' * len(TOOLS)}"]
    for case, row in zip(cases, rows, strict=True):
        lines.append(f"| {case['what']} | {' | '.join('' if o is None else str(o) for o in row)} |")
    for number, tool in enumerate(TOOLS):
        words = Counter(o.word for row in rows if (o := row[number]) is not None)
        lines.append(f"{tool}: {', '.join(f'{count} {word}' for word, count in words.most_common())}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
