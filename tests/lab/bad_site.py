"""A small site to break: four servers on four hosts, what it must still be like afterwards, and the table of it all.

Every fault is recorded as a row; with PCLOUD_WRITE_BAD_DAYS=FILE the rows of a run become a page.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pcloud import lab
from pcloud.events import StepBlocked, StepFailed
from pcloud.images.manifest import read_manifest
from pcloud.inventory import defaults_dir
from pcloud.model import Site
from tests.lab.conftest import DEMO, Operator, Ran

SITE = "bad"
SERVERS = ("db-1", "fe-1", "idx-1", "lb-1")
POOL = "/var/lib/pcloud/pool"
GONE_S = 10
"""Processes of an ended command are gone after this long: an ssh to a frozen host gives up by then."""

Inventory = dict[str, Any]


def inventory(hosts: int = 4, site: str = SITE) -> Inventory:
    """The demo site with one frontend and `hosts` hosts; what waits, waits a shorter time."""
    data: Inventory = yaml.safe_load(DEMO.read_text())
    data["site"] = site
    data["access"]["connect_timeout_s"] = 3
    data["hosts"] = data["hosts"][:hosts]
    data["database"]["dump"] = str(defaults_dir("templates") / "shop/dump/shop.sql.gz")
    data["journey"]["deadline_s"] = 90
    for group in data["groups"]:
        group["boot_timeout_s"] = 180
        if group["name"] == "frontend":
            group["count"] = 1
            group["addresses"] = ["10.77.0.21"]  # nobody stands in: what is blocked is nowhere
    return data


def group(data: Inventory, name: str) -> Inventory:
    found: Inventory = next(g for g in data["groups"] if g["name"] == name)
    return found


def write_inventory(path: Path, data: Inventory) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False))
    return path


def link_images(images: Path, home: Path) -> None:
    """The images of now, one link each: what is built meanwhile changes nothing here."""
    latest: dict[str, tuple[str, Path]] = {}
    for folder in sorted(images.glob("[!.]*/")):
        image = read_manifest(folder)
        latest[image.recipe] = max(latest.get(image.recipe, ("", folder)), (image.manifest.date, folder))
    target = home / "cache" / "images"
    target.mkdir(parents=True)
    for _, folder in latest.values():
        (target / folder.name).symlink_to(folder)


@contextmanager
def home_of(operator: Operator) -> Iterator[None]:
    """pcloud's own functions, called from here, find the operator's files."""
    before = os.environ.get("PCLOUD_HOME")
    os.environ["PCLOUD_HOME"] = str(operator.home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PCLOUD_HOME"]
        else:
            os.environ["PCLOUD_HOME"] = before


@dataclass
class Yard:
    """The operator, their site, and what happened to it."""

    operator: Operator
    site: Site
    rows: list[str] = field(default_factory=list)

    def inside(self, host: str, *argv: str) -> str:
        """What a command prints that somebody types at the host's own console."""
        with home_of(self.operator):
            full = lab.shell(self.site, host, list(argv))
        done = subprocess.run(full, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    def variant(self, name: str, change: Callable[[Inventory], None]) -> str:
        """The path of an inventory of the same site, changed."""
        data = inventory()
        change(data)
        return str(write_inventory(self.operator.folder / "variants" / name / f"{SITE}.yaml", data))

    def where(self, server: str) -> str:
        rows = self.operator.json("status", self.site.site)["servers"]
        (copy,) = next(row["copies"] for row in rows if row["server"] == server)
        host: str = copy["host"]
        return host

    def copies(self) -> list[str]:
        """Servers that run, by the process lists of all hosts."""
        texts = (self.inside(host, "ps", "-eo", "args") for host in self.powered())
        return sorted(
            s for text in texts for s in re.findall(rf"qemu-system.*?guest={self.site.site}\.([a-z0-9-]+)", text)
        )

    def powered(self) -> list[str]:
        """The hosts that a command can be typed at."""
        return [
            row["name"] for row in self.operator.json("lab", "status", self.site.site)["hosts"] if row["power"] == "on"
        ]

    def orphans(self) -> list[str]:
        """Files in the pools that are no server's, tombstone or note; processes that outlived their command."""
        found = []
        for host in self.powered():
            known = self.inside(host, "virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name").split()
            xmls = "".join(self.inside(host, "virsh", "-c", "qemu:///system", "dumpxml", n) for n in known)
            for name in self.inside(host, "ls", POOL).split():
                ours = name.startswith(f"{self.site.site}.") and "tombstone" not in name and not name.endswith(".note")
                if name.endswith(".part") or (ours and name not in xmls):
                    found.append(f"{host}:{name}")
        return found + left_processes(self.operator.home)

    def expect_whole(self) -> None:
        """Nothing is lost, nothing is left over, nothing runs twice."""
        assert self.copies() == sorted(SERVERS)
        assert self.orphans() == []

    def tried(self, fault: str, ran: Ran, seconds: float, within_s: float, outcome: str, *words: str) -> None:
        """The run ended in time and said `words`; a row of the table."""
        message = complaint(ran)
        for word in words:
            assert word in message, f"{word!r} not in {message!r}"
        assert "next: " in message, message
        assert "bug in pcloud" not in message and "Traceback" not in ran.err + ran.out, message
        assert seconds <= within_s, f"{seconds:.0f} s"
        shown = re.sub(r"\n\s*", "<br>", message.replace(str(self.operator.home), "$PCLOUD_HOME").strip())
        shown = re.sub(r"/\S+/(\S+\.sql\.gz)", r"…/\1", shown).replace("|", "\\|")
        self.rows.append(f"| {fault} | {shown} | {ran.code} | {outcome} | {seconds:.0f} |")


def timed(call: Callable[[], Ran]) -> tuple[Ran, float]:
    began = time.monotonic()
    ran = call()
    return ran, time.monotonic() - began


def complaint(ran: Ran) -> str:
    """What the person is told: the error itself, or the run's first problem with its next action."""
    if not ran.events or ran.err.startswith("pcloud: "):
        return ran.err
    problems = [s.problem for s in ran.state.steps.values() if isinstance(s.problem, StepBlocked | StepFailed)]
    if not problems:
        return ran.err
    first = min(problems, key=lambda p: p.at)
    return f"{first.where or first.step}: {first.what}\nnext: {first.next}"


def left_processes(home: Path) -> list[str]:
    """Processes of this operator that still run although their command has ended; the lab's own are not theirs."""
    deadline = time.monotonic() + GONE_S
    while True:
        found = []
        for proc in Path("/proc").iterdir():
            try:
                environ = (proc / "environ").read_bytes().split(b"\0") if proc.name.isdigit() else []
                if os.fsencode(f"PCLOUD_HOME={home}") in environ:
                    found.append((proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
            except OSError:
                continue
        found = [line for line in found if line and "pcloud.lab.bmc_service" not in line]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def page(rows: list[str]) -> str:
    return (
        "# Bad days\n\nEvery row is a test of `tests/lab/test_bad_days.py`, and this page is written by them, from one "
        "real run:\n\n```\nPCLOUD_WRITE_BAD_DAYS=docs/bad-days.md pytest -m lab tests/lab/test_bad_days.py\n```\n\n"
        "Faults are made in a lab of four hosts and four servers. After each one, every server runs at most once, no "
        "volume, seed or process is left over, and the command that the message names goes on to a whole shop. Exit "
        "codes: 0 converged, 1 failed, 2 bad input, 3 blocked, waiting for a person.\n\n"
        "| fault | what pcloud says | exit | outcome | seconds |\n| --- | --- | --- | --- | --- |\n"
        + "".join(f"{row}\n" for row in rows)
    )
