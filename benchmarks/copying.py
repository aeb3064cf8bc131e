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

from pcloud.cli.session import Session, open_session
from pcloud.clock import SystemClock
from pcloud.desired import Options
from pcloud.events import Event, RunState
from pcloud.execute import execute
from pcloud.inventory import defaults_dir
from pcloud.observe import observe
from pcloud.plan import Plan, plan
from pcloud.steps.image import PlaceImage

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


def image_steps(session: Session) -> Plan:
    """The plan from nothing, with only its image steps left."""
    made = plan(session.desired, observe(session.desired, session.world), "copying")
    nodes = tuple(n for n in made.nodes if isinstance(n.step, PlaceImage))
    kept = {n.key for n in nodes}
    assert all(set(n.info.needs) <= kept for n in nodes), "an image step needs something else"
    return replace(made, nodes=nodes)


def measure(site: Path, only: tuple[str, ...]) -> tuple[int, float]:
    """How many hosts were copied to, and seconds from the first step's start to the last one's end."""
    with open_session(str(site), Options(only=only)) as session:
        made = image_steps(session)
        hosts = sorted({n.info.host for n in made.nodes if n.info.host})
        for host in hosts:
            pool = session.world.host(host).pool
            argv = ["find", pool, "-name", "pcloud-image.*", "-delete"]
            session.world.shell(host).run(argv, deadline_s=60)
        started = time.monotonic()
        state = execute(made, session.world, _Nobody(), _Nobody(), "copying", SystemClock())
        took = time.monotonic() - started
    assert state.finished is not None
    assert state.finished.outcome == "converged", state.steps
    assert all(step.changed for step in state.steps.values()), "an image was there already"
    return len(hosts), took


def main(folder: Path) -> dict[str, Any]:
    site = inventory_with_one_image(folder)
    one, seven = [], []
    for _ in range(TIMES):
        hosts, took = measure(site, ("db-1",))
        assert hosts == 1
        one.append(took)
        hosts, took = measure(site, ())
        assert hosts == 7
        seven.append(took)
    with open_session(str(site)) as session:
        size = sum(f.size for f in session.desired.servers[0].image.files)
    return {
        "image_mib": size / (1 << 20),
        "one_s": one,
        "seven_s": seven,
        "ratio": median(seven) / median(one),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
