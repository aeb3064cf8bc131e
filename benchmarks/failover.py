"""Hosts that lose their power while shoppers buy: `python -m benchmarks.failover FOLDER`.

How long until the shop goes on, beside the slowest step of it. `FOLDER` is the lab's home. Four
hosts, one after the other, on one lab; after each the whole shop again. All times begin when the
host's emulators are killed. A case's floor is the slowest single step that nothing could leave
out, as the run itself recorded it; it is named beside it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.lab import DEMO, LONGEST_S, PCLOUD, Lab, Ran
from pcloud import lab as hosts
from pcloud.inventory import load_site
from pcloud.lab.namespaces import call_in_network
from pcloud.lab.processes import find_parts
from pcloud.shoppers import read_ledger
from pcloud.shopping import Entry, summarise

SHOPPERS = 4
WARM_ORDERS = 2
ECHO_S = 1.0
"""What was on its way when the plug was pulled may still arrive."""
LOOK_S = 0.1
SILENCES = ("two silences that its balancer waits for: 2 s, a second's pause, 2 s", 5.0)
"""`default-server` in the balancer's haproxy.cfg: fall 2, fastinter 1s, timeout connect 2s."""


@dataclass(frozen=True)
class Case:
    """`until` is what is waited for; `target_s` its upper bound, where there is one."""

    server: str
    who: str
    until: str
    target_s: float = 0


GONE, ORDER, JOURNEY = "the balancer sends it nothing", "the first new order", "the first full journey"
CASES = (
    Case("fe-2", "a frontend's host", GONE),
    Case("db-1", "the database's host", ORDER, target_s=15),
    Case("lb-1", "the balancer's host", JOURNEY),
    Case("idx-1", "the indexer's host", JOURNEY),
)


@dataclass(frozen=True)
class Outcome:
    """One host's loss. `floor` names the step that took `floor_s`; `failed` counts shoppers' requests."""

    who: str
    until: str
    seconds: float
    floor: str
    floor_s: float
    failed: int
    orders: int
    missing: int
    target_s: float


def in_the_fire(lab: Lab) -> Iterator[Outcome]:
    """Needs the shop whole; leaves it whole."""
    for case in CASES:
        yield _lose(lab, case)
        lab.pcloud("recover", "demo", "--yes", "--json")
        lab.pcloud("failback", "demo", "--yes")


def _lose(lab: Lab, case: Case) -> Outcome:
    site, host = load_site(DEMO), _host_of(lab, case.server)
    ledger = lab.home / f"{case.server}.jsonl"
    with _shoppers(lab, ledger):
        _wait_for_orders(ledger, 0)
        gone = _Gone(lab, case.server, f"http://{site.services['storefront'].address}:8404/stats;csv")
        gone.start()
        killed = time.time()
        assert hosts.power_off(site, host)
        launched = time.time()
        ran = lab.pcloud("recover", "demo", "--yes", "--json")
        _wait_for_orders(ledger, time.time())
    gone.join(LONGEST_S)
    assert hosts.power_on(site, host)
    entries = [e for e in read_ledger(ledger) if e.at > killed]
    steps = _steps(ran)
    after_s = launched - killed
    journey_s = after_s + next(at for name, _, at in steps if name == "journey")
    order_s = next(e.at for e in entries if e.number and e.at > killed + ECHO_S) - killed
    seconds = {GONE: gone.at - killed, ORDER: order_s, JOURNEY: journey_s}[case.until]
    floor, floor_s = SILENCES if case.until == GONE else _slowest(steps, seconds - after_s)
    told, missing = summarise(entries), _missing(lab, ledger)
    return Outcome(
        case.who,
        case.until,
        round(seconds, 1),
        floor,
        round(floor_s, 1),
        told.failures,
        told.orders,
        missing,
        case.target_s,
    )


def _host_of(lab: Lab, server: str) -> str:
    rows = json.loads(lab.pcloud("status", "demo", "--json").out)["servers"]
    (copy,) = next(row["copies"] for row in rows if row["server"] == server)
    return str(copy["host"])


def _steps(ran: Ran) -> list[tuple[str, float, float]]:
    """Name, seconds and end of every step that did something; ends count from the launch of the command."""
    begun: dict[str, float] = {}
    found = []
    for at, line in ran.lines:
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "RunStarted":
            found.append(("a look at the hosts", at, at))
        elif event.get("event") == "StepStarted":
            begun[event["step"]] = at
        elif event.get("event") == "StepDone":
            found.append((event["step"], at - begun.get(event["step"], at), at))
    return found


def _slowest(steps: Sequence[tuple[str, float, float]], until_s: float) -> tuple[str, float]:
    """Of those that ended by then; what only looks whether the shop sells is no step of it."""
    before = [(name, took) for name, took, end in steps if end <= until_s and name not in ("journey", "sale")]
    return max(before, key=lambda step: step[1])


class _Gone(threading.Thread):
    """Watches the balancer's own list until a frontend is not in it; `at` is when, in seconds since 1970."""

    def __init__(self, lab: Lab, server: str, url: str) -> None:
        super().__init__(daemon=True)
        self._network, self._server, self._url = find_parts(lab.folder)["fabric"].pid, server, url
        self.at = float("nan")

    def run(self) -> None:
        if not self._server.startswith("fe-"):
            return
        until = time.monotonic() + LONGEST_S
        while time.monotonic() < until:
            if not call_in_network(self._network, self._up):
                self.at = time.time()
                return
            time.sleep(LOOK_S)

    def _up(self) -> bool:
        with urllib.request.urlopen(self._url, timeout=5) as answer:  # noqa: S310 - an address of the lab's own
            rows: list[str] = answer.read().decode().splitlines()
        columns = rows[0].split(",")
        row = next(r.split(",") for r in rows if r.startswith(f"reading,{self._server},"))
        # While it is going down it is still sent requests: "UP 1/2".
        return row[columns.index("status")].startswith("UP")


@contextmanager
def _shoppers(lab: Lab, ledger: Path) -> Iterator[None]:
    argv = ["lab", "shoppers", "demo", "--number", str(SHOPPERS), "--for", str(LONGEST_S), "--ledger", str(ledger)]
    process = subprocess.Popen([PCLOUD, *argv, "--json"], env=lab.env, stdout=subprocess.DEVNULL)
    try:
        yield
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()


def _wait_for_orders(ledger: Path, since: float, within_s: float = 120) -> None:
    until = time.monotonic() + within_s
    while sum(bool(e.number) and e.at > since for e in _so_far(ledger)) < WARM_ORDERS:
        if time.monotonic() > until:
            raise TimeoutError(f"no {WARM_ORDERS} orders within {within_s:g} s")
        time.sleep(0.3)


def _so_far(ledger: Path) -> tuple[Entry, ...]:
    text = ledger.read_text() if ledger.exists() else ""
    return tuple(Entry(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines())


def _missing(lab: Lab, ledger: Path) -> int:
    ran = lab.pcloud("lab", "shoppers", "demo", "--check", str(ledger), "--json", codes=(0, 1))
    return len(json.loads(ran.out)["missing"])


def main() -> None:
    lab = Lab(Path(sys.argv[1]), dict(os.environ))
    print(json.dumps([asdict(outcome) for outcome in in_the_fire(lab)]))


if __name__ == "__main__":
    main()
