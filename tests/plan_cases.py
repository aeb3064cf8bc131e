"""The planner's data cases: what is there -> the plan's text.

`python -m tests.plan_cases --write` writes the plans of today into the cases; read the difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pcloud.desired import Names
from pcloud.gtid import rank
from pcloud.inventory import defaults_dir, load_site
from pcloud.neighbours import plan_notes
from pcloud.observed import Mark, Power
from pcloud.plan import Plan, plan
from pcloud.playbook import load_playbook
from pcloud.sightings import name_of
from pcloud.steps.noting import NoteFilled, NoteGeneration
from tests.conftest import make_desired, regroup
from tests.simulated_data import SimData
from tests.simulated_power import Bmc
from tests.simulation import DEMO_DUMP, SimDomain, SimWorld, with_options

CASES = sorted((Path(__file__).parent / "cases" / "plan").glob("*.yaml"))
DATE = "20121116-2140"


def put(world: SimWorld, text: str, server: str) -> None:
    """One copy: `h4 g1 running|off [broken] [refuses] [full] [young] [redrawn] [older-image] [diskless] [unrun]
    [unaddressed]`."""
    host, generation, power, *words = text.split()
    spec = world.desired.server(server)
    names = Names(world.site.site, server, int(generation[1:]))
    mark = Mark(
        world.site.site,
        server,
        spec.role,
        "old" if "redrawn" in words else spec.spec,
        "0" * 64 if "older-image" in words else spec.image.digest,
        int(generation[1:]),
        () if "unaddressed" in words else spec.addresses,
    )
    domain = SimDomain(mark, spec.uuid, spec.memory_mib, (spec.mac,), Power(power), broken="broken" in words)
    domain.refuses, domain.full = "refuses" in words, "full" in words
    domain.started_at = world.clock.now() - (5 if "young" in words else 100_000)
    world.hosts[host].domains[names.domain] = domain
    pool = world.host(host).pool
    if "diskless" not in words:
        world.hosts[host].files |= {f"{pool}/{names.disk}": "used", f"{pool}/{names.seed}": "seed"}
    if "unrun" not in words:
        world.hosts[host].files[f"{pool}/{names.console}"] = "log"


def arrange(world: SimWorld, case: dict[str, Any]) -> None:
    """`away` lists silent hosts: `h4 [off] [mute] [seen]`, mute being its controller, seen by other hosts."""
    for server, text in case.get("servers", {}).items():
        for one in text.split(" + "):
            put(world, one, server)
    for host, text in case.get("foreign", {}).items():
        name, *words = text.split()
        power = Power.OFF if "off" in words else Power.RUNNING
        world.hosts[host].domains[name] = SimDomain(None, "f" * 8, 512, (), power)
    note_others(world)
    for text in case.get("away", []):
        host, *words = text.split()
        at = world.hosts[host]
        at.away, at.seen, at.bmc = True, "seen" in words, Bmc.MUTE if "mute" in words else Bmc.WELL
        if "off" in words:
            world.cut(host)
    world.confirmed |= case.get("confirmed", {})
    for host, files in case.get("files", {}).items():
        world.hosts[host].files |= {f"{world.host(host).pool}/{f}": "left" for f in files}
    arrange_data(world, case)
    if not case.get("unnoted"):
        arrange_notes(world)


def note_others(world: SimWorld) -> None:
    """What hosts are told at the end of a command of servers that are not the site's."""
    for note in plan_notes(world.site, world.look(at_silent=False), world.clock.wall()):
        pool, files = world.host(note.holder).pool, world.hosts[note.holder].files
        files[f"{pool}/{note.name}"] = "empty"
        for name in note.old:
            files.pop(f"{pool}/{name}", None)


def arrange_notes(world: SimWorld) -> None:
    """What hosts would have been told of the copies that ran, by whoever started them."""
    for step in (n.step for n in plan(world.desired, world.look(at_silent=False), DATE).nodes):
        if isinstance(step, NoteGeneration) and _ran(world, step.at, step.names):
            file = step.names.noted(step.at, str(world.host(step.at).address))
        elif isinstance(step, NoteFilled) and _ran(world, step.hosts[0], step.names):
            file = step.names.filled
        else:
            continue
        for host in step.hosts:
            world.hosts[host].files[f"{world.host(host).pool}/{file}"] = "note"


def _ran(world: SimWorld, host: str, names: Names) -> bool:
    return f"{world.host(host).pool}/{names.console}" in world.hosts[host].files


def arrange_data(world: SimWorld, case: dict[str, Any]) -> None:
    """`restored`: the carriers that are there hold the data; `primary` names the one with the role (the first).

    `heard`: frontends, and how many seconds ago the database last answered each.
    """
    found = [(s, d) for s in world.carriers() for h in world.hosts if (d := _disk(world, h, s)) is not None]
    copies = sorted(found, key=lambda c: int(c[1][1].split(".g")[1].split(".")[0]))  # the newest one of each counts
    for _, at in copies:
        world.disks.setdefault(at, SimData())
    disks = dict(copies)
    role = case.get("primary", next(iter(disks), "") if case.get("restored") else "")
    for server, at in disks.items():
        data = world.disks[at]
        data.index = 10 if case.get("indexed") else -1
        if case.get("restored"):
            data.state, data.token = "restored", f"demo.{DEMO_DUMP.sha256[:16]}.g1"
            data.position, data.primary = 10, server == role
            data.running = data.semi_sync = True
            data.source = "" if server == role else str(world.site.services[world.site.database.service].address)
    if case.get("restored"):
        arrange_sighting(world)
    for server, words in case.get("data", {}).items():
        for word, value in words.items():
            setattr(world.disks[disks[server]], word, value)
    for server, ago in case.get("heard", {}).items():
        life = max(d.started_at for _, d in world.running(server))
        world.hearing.last[server] = world.clock.now() - ago, life


def arrange_sighting(world: SimWorld) -> None:
    """Everybody heard the primary until a second ago, and the hosts remember it."""
    now, copies = world.clock.now(), [d for d in world.disks.values() if d.state == "restored"]
    for data in copies:
        data.heard, data.acked = (now - 1, True) if data.source else (None, False)
    for spec in world.desired.members("frontend"):
        for _, domain in world.running(spec.name):
            world.hearing.last[spec.name] = now - 1, domain.started_at
    last = max((d.reached for d in copies), key=rank, default="")
    note = name_of(world.site.site, last, max((d.domain for d in copies), default=0), world.clock.wall(), 30_000)
    for name, host in world.hosts.items():
        host.files[f"{world.host(name).pool}/{note}"] = "empty"


def _disk(world: SimWorld, host: str, server: str) -> tuple[str, str] | None:
    domain = world.hosts[host].domains.get(Names(world.site.site, server).domain)
    return (host, Names(world.site.site, server, domain.mark.generation).disk) if domain and domain.mark else None


def told(made: Plan) -> str:
    lines = [f"{n.key}: {n.info.reason}" if n.info.reason else n.key for n in made.nodes]
    return "\n".join([*lines, *(f"keep {s}: {why}" for s, why in made.kept.items())])


def plan_case(world: SimWorld, case: dict[str, Any]) -> Plan:
    """`inventory` changes groups once all that is there was made."""
    arrange(world, case)
    for group, change in case.get("inventory", {}).items():
        regroup(world, group, change)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in case.get("options", {}).items()}
    return plan(with_options(world.desired, **options), world.observe(), DATE)


def write_cases() -> None:
    site = load_site(defaults_dir("inventory") / "demo.yaml")
    playbook = load_playbook(defaults_dir("playbooks") / "recover.yaml")
    with TemporaryDirectory() as folder:
        image = Path(folder) / "disk.qcow2"
        image.write_bytes(b"an image's bytes")
        for path in CASES:
            text = path.read_text()
            made = plan_case(SimWorld(make_desired(site, playbook, image), image), yaml.safe_load(text))
            head = text[: text.index("expect:")]
            lines = "".join(f"  {line}\n" for line in told(made).splitlines())
            path.write_text(f"{head}expect: |\n{lines}")


if __name__ == "__main__" and "--write" in sys.argv:
    write_cases()
