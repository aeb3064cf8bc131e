"""How long an image takes to one host, and to seven: `python -m benchmarks.copying FOLDER`.

The demo site with one image for all its servers, so that each of seven hosts needs the same
files; the plan's own image steps are executed, and nothing else of the plan. Inside the lab.

Twice: with no limit on the cables, where seven copies share this machine's CPUs; and with each
cable at `RATE` both ways, where they do not matter and the wires do, as between real machines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lab import busy_s
from pcloud.cli.session import Session, open_session
from pcloud.clock import SystemClock
from pcloud.desired import Options
from pcloud.events import Event, RunState
from pcloud.execute import execute
from pcloud.inventory import defaults_dir
from pcloud.lab.network import port_name
from pcloud.observe import observe
from pcloud.plan import Plan, plan

TIMES = 3
IMAGE = "frontend"
RATE = "100mbit"
TBF = ("burst", "256kb", "latency", "50ms")


class _Nobody:
    """A journal and a face that keep nothing."""

    def append(self, *events: Event) -> None:
        pass

    def show(self, state: RunState, event: Event) -> None:
        pass


def inventory_with_one_image(folder: Path) -> Path:
    shipped = defaults_dir("inventory") / "demo.yaml"
    lines = shipped.read_text().splitlines()
    path = folder / "demo.yaml"
    text = "\n".join(f"    image: {IMAGE}" if line.startswith("    image: ") else line for line in lines)
    dump = defaults_dir("templates") / "shop" / "dump" / "shop.sql.gz"
    path.write_text(text.replace("../templates/shop/dump/shop.sql.gz", str(dump)) + "\n")
    return path


def forget_images(session: Session) -> None:
    """No host has a copy, so that none can pass an old one on."""
    for host in session.site.hosts:
        argv = ["find", host.pool, "-name", "pcloud-image.*", "-delete"]
        session.world.shell(host.name).run(argv, deadline_s=60)


def image_steps(session: Session) -> Plan:
    """The plan from nothing, with only the steps of its image phases left."""
    made = plan(session.desired, observe(session.desired, session.world), "copying")
    phases = {phase.name for phase in session.desired.playbook.phases if phase.does == "images"}
    nodes = tuple(n for n in made.nodes if n.info.phase in phases)
    kept = {n.key for n in nodes}
    assert all(set(n.info.needs) <= kept for n in nodes), "an image step needs something else"
    return replace(made, nodes=nodes)


def measure(site: Path, only: tuple[str, ...]) -> tuple[int, float, float]:
    """How many hosts were copied to; seconds from the first step's start to the last one's end; CPU seconds spent."""
    with open_session(str(site), Options(only=only)) as session:
        forget_images(session)
        made = image_steps(session)
        hosts = {n.info.host for n in made.nodes if n.info.host}
        started, zero = time.monotonic(), busy_s()
        state = execute(made, session.world, _Nobody(), _Nobody(), "copying", SystemClock())
        took, cpu_s = time.monotonic() - started, busy_s() - zero
    assert state.finished is not None
    assert state.finished.outcome == "converged", state.steps
    assert any(step.changed for step in state.steps.values()), "the image was there already"
    return len(hosts), took, cpu_s


@contextmanager
def slow_cables(site: Path) -> Iterator[None]:
    """Every host's cable carries `RATE` each way: what it sends at its end, what it receives at the fabric's."""
    with open_session(str(site)) as session:
        hosts = session.site.hosts
        shape = ["root", "tbf", "rate", RATE, *TBF]
        for host in hosts:
            session.world.shell(host.name).run(["tc", "qdisc", "replace", "dev", "eth0", *shape], deadline_s=10)
            subprocess.run(["tc", "qdisc", "replace", "dev", port_name(host), *shape], check=True)
        yield
        for host in hosts:
            session.world.shell(host.name).run(["tc", "qdisc", "del", "dev", "eth0", "root"], deadline_s=10)
            subprocess.run(["tc", "qdisc", "del", "dev", port_name(host), "root"], check=True)


def compare(site: Path) -> dict[str, Any]:
    """One host and seven, in turns."""
    one, seven = [], []
    for _ in range(TIMES):
        one.append(measure(site, ("db-1",)))
        seven.append(measure(site, ()))
    assert {hosts for hosts, _, _ in one} == {1}
    assert {hosts for hosts, _, _ in seven} == {7}
    return {
        "one_s": [round(took, 2) for _, took, _ in one],
        "one_cpu_s": [round(cpu_s, 2) for _, _, cpu_s in one],
        "seven_s": [round(took, 2) for _, took, _ in seven],
        "seven_cpu_s": [round(cpu_s, 2) for _, _, cpu_s in seven],
        "ratio": round(median(took for _, took, _ in seven) / median(took for _, took, _ in one), 2),
    }


def main(folder: Path) -> dict[str, Any]:
    site = inventory_with_one_image(folder)
    with open_session(str(site)) as session:
        size = sum(f.size for f in session.desired.servers[0].image.files)
    unlimited = compare(site)
    with slow_cables(site):
        cables = compare(site)
    return {"image_mib": round(size / (1 << 20), 1), **unlimited, "cables": {"rate": RATE, **cables}}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
