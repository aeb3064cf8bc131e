"""How long an image takes to one host, and to seven: `python -m benchmarks.copying FOLDER`.

The demo site with one image for all its servers, so that each of seven hosts needs the same
files; the plan's own image steps are executed, and nothing else of the plan. Inside the lab.
"""

from __future__ import annotations

import json
import sys
import time
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
from pcloud.observe import observe
from pcloud.plan import Plan, plan

TIMES = 3
IMAGE = "frontend"


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


def main(folder: Path) -> dict[str, Any]:
    site = inventory_with_one_image(folder)
    one, seven = [], []
    for _ in range(TIMES):
        one.append(measure(site, ("db-1",)))
        seven.append(measure(site, ()))
    assert {hosts for hosts, _, _ in one} == {1}
    assert {hosts for hosts, _, _ in seven} == {7}
    with open_session(str(site)) as session:
        size = sum(f.size for f in session.desired.servers[0].image.files)
    return {
        "image_mib": round(size / (1 << 20), 1),
        "one_s": [round(took, 2) for _, took, _ in one],
        "one_cpu_s": [round(cpu_s, 2) for _, _, cpu_s in one],
        "seven_s": [round(took, 2) for _, took, _ in seven],
        "seven_cpu_s": [round(cpu_s, 2) for _, _, cpu_s in seven],
        "ratio": round(median(took for _, took, _ in seven) / median(took for _, took, _ in one), 2),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
