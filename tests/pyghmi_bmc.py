"""virtualbmc's controller without its guests: pyghmi's IPMI server on UDP 623 of a loopback address.

Run as `python -m tests.pyghmi_bmc ADDRESS FILE REFUSES`: FILE is the power, `on` or `off`; with `1` each order is
answered with the completion code 0xD4 (insufficient privilege).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcloud.model import Bmc
from tests.controller import PASSWORD


@dataclass(frozen=True)
class Foreign:
    """A running server: its inventory entry, and its host's power as it really is."""

    bmc: Bmc
    power: Path

    def really(self) -> str:
        return self.power.read_text().strip()


@contextlib.contextmanager
def pyghmi_bmc(
    folder: Path, address: str, *, power: str = "on", refuses: bool = False, **bmc: Any
) -> Iterator[Foreign]:
    """Until the block ends."""
    file = folder / "power"
    file.write_text(power)
    argv = [sys.executable, "-m", "tests.pyghmi_bmc", address, str(file), str(int(refuses))]
    with (folder / "bmc.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=Path(__file__).parents[1], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n", (folder / "bmc.log").read_text()
        yield Foreign(Bmc(ipmi=address, **bmc), file)
    finally:
        process.kill()
        process.wait()


def _serve(address: str, file: Path, refuses: bool) -> None:
    from pyghmi.ipmi.bmc import Bmc as Server

    class Host(Server):  # type: ignore[misc]  # pyghmi has no types
        def get_power_state(self) -> str:
            return file.read_text().strip()

        def power_off(self) -> int:
            return self._switch("off")

        def power_on(self) -> int:
            return self._switch("on")

        def _switch(self, power: str) -> int:
            if refuses:
                return 0xD4
            file.write_text(power)
            return 0

    server = Host({"admin": PASSWORD}, address=address)
    sys.stdout.write("listens\n")
    sys.stdout.flush()
    while True:
        server.listen(timeout=1)
        time.sleep(0.001)


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "1")
