"""Controllers with faults, as data: what is asked of each, and what must come of it.

    python -m tests.controller_cases [NAME ...]    plays cases, and says what came of them

cases/controllers/*.yaml holds lists of cases:

    name, what, source     where it was met
    server, ipmi           the faults of tests/redfish_server.py and tests/ipmi_server.py; one_power: of one machine
    bmc, path, password    changes to the inventory's bmc; the path in bmc.redfish; kg: the secret bmc/kg
    sees                   what a witness says of the host once it was ordered off
    do                     read, ask, fence, off, on, sleep N: one after the other (fence)
    comes                  what each comes to: `on by redfish`, `fenced: HOW`, `blocked: WHY`, `silent: WHY`
    really                 the power in the end, and orders: the orders that were obeyed or refused as off already
    at_least_s, within_s   the time that all takes

Times are real and so many times shorter than a case says: the clock that is given to pcloud runs so much faster.
A text in `comes` is the beginning of what came; {at} and {ipmi} stand for the controller's addresses.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import yaml

from pcloud.clock import Clock
from pcloud.errors import Blocked, PcloudError
from pcloud.model import Bmc
from pcloud.power import PowerControl, power_control
from pcloud.steps.base import Met, World
from pcloud.steps.fence import Fence, ask_power
from tests.ipmi_server import IpmiServer
from tests.redfish_server import RedfishServer

FILES = sorted((Path(__file__).parent / "cases" / "controllers").glob("*.yaml"))
SCALE, IPMI_SCALE = 10.0, 5.0
"""ipmitool is a process for each question, which takes its own time."""
TIMEOUT_S = 10.0
AT_ONCE = 12


@dataclass(frozen=True)
class FastClock:
    """Runs so many times faster than the machine's own."""

    scale: float

    def now(self) -> float:
        return time.monotonic() * self.scale

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self.scale)


class Silence:
    """A report to nobody."""

    def progress(self, doing: str, done: float = 0, total: float = 0, unit: str = "") -> None: ...
    def visit(self, name: str, elapsed_s: float) -> None: ...
    def stopping(self) -> bool:
        return False


@dataclass
class Sees:
    """A witness who says the same each time."""

    said: str

    def before(self) -> None: ...
    def begin(self) -> Callable[[], str]:
        return lambda: self.said


Served = tuple[RedfishServer | None, IpmiServer | None]


@dataclass(frozen=True)
class Came:
    """What came of a case: of each thing that was done, then of the machine."""

    of: tuple[str, ...]
    really: str
    orders: tuple[str, ...]
    seconds: float

    def faults(self, case: dict[str, Any]) -> Iterator[str]:
        """What is not as the case says."""
        for wanted, came in zip(case["comes"], self.of, strict=True):
            if came.endswith("next: "):
                yield f"{came!r} names no next action"
            if not came.startswith(wanted):
                yield f"{came!r} is not {wanted!r}"
        if "really" in case and self.really != case["really"]:
            yield f"the power is really {self.really}"
        if "orders" in case and list(self.orders) != case["orders"]:
            yield f"it was ordered {self.orders}"
        if not case.get("at_least_s", 0) <= self.seconds <= case.get("within_s", 10**6):
            yield f"it took {self.seconds:.1f} s"


def play_file(path: Path, only: Sequence[str] = ()) -> list[tuple[dict[str, Any], Came]]:
    """All cases of a file, many at once: they mostly wait."""
    cases = [case for case in yaml.safe_load(path.read_text()) if not only or case["name"] in only]
    first = 100 * FILES.index(path)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(zip(cases, pool.map(_play, cases, range(first, first + len(cases))), strict=True))


def _play(case: dict[str, Any], number: int) -> Came:
    """`number` makes the address of its IPMI controller, so that many cases can be played at once."""
    scale = IPMI_SCALE if "ipmi" in case else SCALE
    with _served(case, number, scale) as (server, ipmi):
        changes = {"timeout_s": TIMEOUT_S, **case.get("bmc", {})}
        changes["timeout_s"] /= scale
        if server is not None:
            changes["redfish"] = server.url + case.get("path", "")
        if ipmi is not None:
            changes["ipmi"] = ipmi.address
        password = case.get("password", "correct-horse")
        clock = FastClock(scale)
        witness = Sees(case["sees"]) if "sees" in case else None
        secrets = {"bmc/kg": case.get("kg", "")}
        control = power_control(
            "h3", Bmc(**changes), lambda ref: secrets.get(ref.secret, password), None, clock, witness
        )
        began = time.monotonic()
        of = tuple(_done(what, control, clock) for what in case.get("do", ["fence"]))
        took = (time.monotonic() - began) * scale
        machine: Any = ipmi if ipmi is not None else server
        orders = tuple(server.orders if server is not None else ()) + tuple(ipmi.orders if ipmi is not None else ())
        shown = (("{at}", f"127.0.0.1:{server.port}" if server else "-"), ("{ipmi}", ipmi.address if ipmi else "-"))
        return Came(tuple(_replaced(o, shown) for o in of), machine.really().lower(), orders, took)


@contextlib.contextmanager
def _served(case: dict[str, Any], number: int, scale: float) -> Iterator[Served]:
    with contextlib.ExitStack() as stack:
        ipmi = server = None
        if "ipmi" in case:
            address = case["ipmi"].get("address", f"127.1.{number // 250}.{number % 250 + 1}")
            port = 623 if address.startswith("127.") else 6000 + number
            ipmi = stack.enter_context(IpmiServer(case["ipmi"], address, scale, case["ipmi"].get("port", port)))
        if "server" in case:
            server = stack.enter_context(RedfishServer(case["server"], scale))
            if ipmi is not None and case.get("one_power"):
                server.really = lambda: ipmi.really().capitalize()  # type: ignore[method-assign]
        yield server, ipmi


def _replaced(text: str, names: Iterable[tuple[str, str]]) -> str:
    for name, value in names:
        text = text.replace(value, name) if value != "-" else text
    return text


def _done(what: str, control: PowerControl, clock: Clock) -> str:
    try:
        if what.startswith("sleep"):
            clock.sleep(float(what.split()[1]))
            return "-"
        return _said(what, control, clock)
    except PcloudError as error:
        kind = "blocked" if isinstance(error, Blocked) else "silent"
        return f"{kind}: {error.what}; next: {error.next}"


def _said(what: str, control: PowerControl, clock: Clock) -> str:
    world = cast(
        World,
        SimpleNamespace(
            power=lambda _: control, clock=clock, confirmed_off=lambda _: "", site=SimpleNamespace(site="demo")
        ),
    )
    if what == "ask":
        asked = ask_power(world, "h3")
        return f"{asked}, proof: {asked.proof or 'none'}"
    if what == "fence":
        fence = Fence("h3")
        assert not isinstance(fence.check(world), Met) or control.proof, "it is met, and nobody ordered anything"
        fence.do(world, Silence())
        found = fence.check(world)
        return f"fenced: {found.facts['proof']}" if isinstance(found, Met) else f"not fenced: {found.why}"
    questions = {"read": control.read, "off": control.force_off, "on": control.force_on}
    reading = questions[what]()
    return f"{reading.power} by {reading.way}" + (f"; {reading.remark}" if reading.remark else "")


def main(names: list[str]) -> None:
    for path in FILES:
        for case, came in play_file(path, names):
            print(f"{case['name']} ({came.seconds:.1f} s): {came.of}, {'; '.join(came.faults(case)) or 'ok'}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
