"""`python -m benchmarks`: measures, prints a table, writes results.json and docs/numbers.*

--rounds N    pcloud and its floor, in turns, N times each (2)
--wait S      wait at most S seconds for a quiet machine before each measurement (300)
--only WHAT   this alone (data, failover, freshness, planning); the other figures stay
--gib N       how much data backups, restores and replicas are measured with (4)
--again       measure nothing: table and docs/numbers.* again, from results.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import as_text, figures, write_page
from benchmarks.lab import PCLOUD, QUIET_CPUS, ROOT, Lab, Ran, busy_s, open_lab, run
from benchmarks.picture import draw

RESULTS = Path(__file__).with_name("results.json")
PICTURE = ROOT / "docs" / "numbers.svg"
PAGE = ROOT / "docs" / "numbers.md"
LOOK_S = 10
"""How long the machine is watched before it counts as quiet."""
HELP_TIMES = 5
IDLE_TIMES = 3


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def quiet(limit_s: float) -> float:
    """Waits until the machine has nothing else to do, `limit_s` at most; the busy CPUs that were left."""
    until = time.monotonic() + limit_s
    while True:
        before = busy_s()
        time.sleep(LOOK_S)
        busy = (busy_s() - before) / LOOK_S
        if busy < QUIET_CPUS or time.monotonic() > until:
            return round(busy, 2)


def recover(lab: Lab, before: float) -> dict[str, Any]:
    """One cold recovery by pcloud. Times are from the launch of the command."""
    zero = busy_s()
    ran = lab.pcloud("recover", "demo", "--yes", "--json")
    guests = lab.guests_cpu_s()
    events = [(at, json.loads(line)) for at, line in ran.lines if line.startswith("{")]
    done = {e["step"]: at for at, e in events if e["event"] == "StepDone"}
    started = [at for step, at in done.items() if step.endswith("/start")]
    marks = {
        "first step": events[0][0],
        "servers started": max(started),
        "database answers": done["db-1/ready"],
        "dump restored": done["db-1/restore"],
        "index built": done["idx-1/index"],
    }
    return _recovery(ran, done["journey"], marks, guests, (before, busy_s() - zero))


def raise_floor(lab: Lab, before: float) -> dict[str, Any]:
    """The same, by the script that only does."""
    zero = busy_s()
    ran = lab.program("floor", "raise", str(lab.home / "floor"))
    guests = lab.guests_cpu_s()
    done = {line: at for at, line in ran.lines}
    started = max(at for line, at in done.items() if line.endswith(" started"))
    names = ("database answers", "dump restored", "index built")
    marks = {"servers started": started} | {n: done[n] for n in names}
    return _recovery(ran, done["journey"], marks, guests, (before, busy_s() - zero))


def _recovery(
    ran: Ran, journey_s: float, marks: dict[str, float], guests: dict[str, float], busy: tuple[float, float]
) -> dict[str, Any]:
    """`busy`: CPUs that others kept busy just before, and all CPU seconds spent meanwhile."""
    return {
        "journey_s": round(journey_s, 2),
        "cpu_s": round(ran.cost.cpu_s, 2),
        "peak_mib": round(ran.cost.peak_mib, 1),
        "guests_cpu_s": round(sum(guests.values()), 1),
        "guests": guests,
        "marks_s": {name: round(at, 2) for name, at in marks.items()},
        "busy_before": busy[0],
        "other_cpu_s": round(busy[1] - sum(guests.values()) - ran.cost.cpu_s, 1),
    }


def in_the_lab(rounds: int, wait_s: float) -> Iterator[tuple[str, Any]]:
    with open_lab() as lab:
        say("a first recovery puts the images on the hosts")
        lab.pcloud("recover", "demo", "--yes", "--json")
        say("an idle second run")
        quiet(wait_s)
        idle = [lab.pcloud("recover", "demo", "--yes") for _ in range(IDLE_TIMES)]
        assert all("nothing was changed, 7 servers are healthy" in ran.out for ran in idle)
        yield (
            "idle",
            {
                "wall_s": [round(r.cost.wall_s, 2) for r in idle],
                "cpu_s": [round(r.cost.cpu_s, 2) for r in idle],
            },
        )
        lab.clear()
        floor_folder = lab.home / "floor"
        floor_folder.mkdir(mode=0o700)
        ours, floors = [], []
        for n in range(rounds):
            say(f"round {n + 1} of {rounds}: pcloud")
            ours.append(recover(lab, quiet(wait_s)))
            lab.clear()
            lab.program("floor", "lay", str(floor_folder))
            say(f"round {n + 1} of {rounds}: the floor ({ours[-1]['journey_s']} s by pcloud)")
            floors.append(raise_floor(lab, quiet(wait_s)))
            say(f"round {n + 1} of {rounds}: {floors[-1]['journey_s']} s by the floor")
            lab.clear()
        ratio = median(r["journey_s"] for r in ours) / median(r["journey_s"] for r in floors)
        xml = json.loads((floor_folder / "floor.json").read_text())["servers"][0]["xml"]
        accel = "kvm" if xml.startswith("<domain type='kvm'") else "tcg"
        yield "recovery", {"pcloud": ours, "floor": floors, "ratio": round(ratio, 3), "accel": accel}
        say("images to one host, and to seven")
        quiet(wait_s)
        yield "copying", json.loads(lab.program("copying", str(lab.home)).lines[-1][1])
        lab.pcloud("recover", "demo", "--yes", "--json")
        yield "freshness", freshness(lab, wait_s)
        yield "failover", failover(lab, wait_s)


def freshness(lab: Lab, wait_s: float) -> dict[str, Any]:
    """Changes in the shop, each until it is found. Needs the shop whole."""
    say("a product is changed, and searched for")
    quiet(wait_s)
    return {"date": _today(), **json.loads(lab.program("freshness").lines[-1][1])}


def failover(lab: Lab, wait_s: float) -> dict[str, Any]:
    """Four hosts lost, one after the other, each while shoppers buy. Needs the shop whole."""
    say("hosts are lost while shoppers buy")
    before = quiet(wait_s)
    ran = run([sys.executable, "-m", "benchmarks.failover", str(lab.home)], lab.env)
    return {"date": _today(), "busy_before": before, "cases": json.loads(ran.lines[-1][1])}


def alone(what: str, wait_s: float, gib: float) -> dict[str, Any]:
    if what == "planning":
        return planning()
    if what == "data":
        return data(gib, wait_s)
    with open_lab() as lab:
        lab.pcloud("recover", "demo", "--yes", "--json")
        return freshness(lab, wait_s) if what == "freshness" else failover(lab, wait_s)


def _today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def start_up() -> dict[str, Any]:
    runs = [run([PCLOUD, "--help"]) for _ in range(HELP_TIMES)]
    return {"wall_s": [round(r.cost.wall_s, 3) for r in runs], "cpu_s": [round(r.cost.cpu_s, 3) for r in runs]}


def machine() -> dict[str, Any]:
    emulator = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(memory),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "emulator": emulator.split("\n")[0].split("(")[0].strip(),
    }


def planning() -> dict[str, Any]:
    """In a process of its own: what plans use is no part of what pcloud's runs are charged with."""
    return {"date": _today(), **json.loads(run([sys.executable, "-m", "benchmarks.planning"]).out)}


def data(gib: float, wait_s: float) -> dict[str, Any]:
    """Without the lab: two MariaDBs on this machine's disk, of the size of real ones."""
    say(f"backup, restore and replica of {gib:g} GiB, and the same by hand")
    before = quiet(wait_s)
    return {
        "date": _today(),
        "busy_before": before,
        **json.loads(run([sys.executable, "-m", "benchmarks.data", str(gib)]).out),
    }


def everything(rounds: int, wait_s: float, gib: float) -> dict[str, Any]:
    results: dict[str, Any] = {"date": _today(), "machine": machine()}
    say("waiting for a quiet machine")
    results["busy_before"] = quiet(wait_s)
    results["help"] = start_up()
    results["planning"] = planning()
    results["data"] = data(gib, wait_s)
    return results | dict(in_the_lab(rounds, wait_s))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="pcloud beside its floor, in one run")
    parser.add_argument("--rounds", type=int, default=2, help="of pcloud and the floor, in turns")
    parser.add_argument("--wait", type=float, default=300, help="seconds to wait for a quiet machine")
    parser.add_argument(
        "--only",
        choices=("data", "failover", "freshness", "planning"),
        help="measure this alone; the other figures stay",
    )
    parser.add_argument("--gib", type=float, default=4, help="of data, for backups, restores and replicas")
    parser.add_argument("--again", action="store_true", help="only write and draw again, from results.json")
    options = parser.parse_args()
    if options.only:
        results = json.loads(RESULTS.read_text()) | {options.only: alone(options.only, options.wait, options.gib)}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    elif not options.again:
        RESULTS.write_text(json.dumps(everything(options.rounds, options.wait, options.gib), indent=2) + "\n")
    results = json.loads(RESULTS.read_text())
    PICTURE.write_text(draw(results))
    write_page(PAGE, results)
    print(as_text(figures(results)))


if __name__ == "__main__":
    main()
