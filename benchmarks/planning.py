"""How long plans for a large site take: 1,000 hosts, 7,000 servers, no host touched, one lost, any lost.

The inventory goes through the real loader; images are stand-ins and observations are made
up, as pure data. Times are seconds of wall clock, each measured once, in this process.
"""

from __future__ import annotations

import hashlib
import json
import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from pcloud.desired import Desired, Dump, ImageFile, ImageSpec, Names, Options, spec_of
from pcloud.identity import servers_of
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.model import Site
from pcloud.observed import Data, Health, Mark, Observed, Power, SeenDatabase, SeenHost, SeenServer
from pcloud.plan import Plan, plan
from pcloud.playbook import Playbook, load_playbook
from pcloud.whatif import as_lost, look, subjects_of

HOSTS = 1_000
SHARE = {"database": 1, "indexer": 1, "frontend": 4, "balancer": 1}
"""Servers of each group a host, as in the demo site."""
HOST_MEMORY_MIB = 16_384
DATE = "20121116-2140"


@dataclass(frozen=True)
class Times:
    """Seconds, from observations to plan, digests included; `load_s` is the inventory's.

    `lost_s` is the plan without the database's host, `what_if_s` the outlook for every host and every rack.
    """

    hosts: int
    servers: int
    load_s: float
    nothing_s: float
    nothing_steps: int
    healthy_s: float
    healthy_steps: int
    lost_s: float
    lost_steps: int
    what_if_s: float
    what_if_losses: int
    peak_mib: float


def measure(hosts: int = HOSTS) -> Times:
    """Plans a site of `hosts` hosts and seven servers a host: from nothing, all healthy, a host lost, any host lost."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "large.yaml"
        path.write_text(inventory_text(hosts))
        started = time.perf_counter()
        site = load_inventory(path).site
        load_s = time.perf_counter() - started
    desired = desire_large(site, load_playbook(defaults_dir("playbooks") / "recover.yaml"))
    nothing_s, first = _timed(desired, observe_nothing(desired))
    healthy_s, second = _timed(desired, observe_after(desired, first))
    whole = observe_after(desired, first)
    lost = next(h.name for h in whole.hosts if any(s.mark and s.mark.server == "db-1" for s in h.servers))
    lost_s, third = _timed(desired, as_lost(whole, [lost]))
    starts = [sum(node.info.action == "start" for node in made.nodes) for made in (first, third)]
    if starts != [len(desired.servers), 7] or first.blocked or second.changes or third.blocked:
        raise AssertionError("the plans are not what these observations call for")
    what_if_s, losses = _judge_all(desired, observe_after(desired, first))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    plans = (nothing_s, len(first.nodes), healthy_s, len(second.nodes), lost_s, len(third.nodes))
    return Times(len(site.hosts), len(desired.servers), load_s, *plans, what_if_s, losses, peak_mib)


def _judge_all(desired: Desired, observed: Observed) -> tuple[float, int]:
    started = time.perf_counter()
    outlook = look(desired, observed, {})
    losses = [outlook.judge(subject) for subject in subjects_of(desired.site)]
    elapsed_s = time.perf_counter() - started
    if not all(loss.survived and loss.moves for loss in losses):
        raise AssertionError("this site can lose any host and any rack")
    return elapsed_s, len(losses)


def _timed(desired: Desired, observed: Observed) -> tuple[float, Plan]:
    started = time.perf_counter()
    made = plan(desired, observed, DATE)
    return time.perf_counter() - started, made


def inventory_text(hosts: int) -> str:
    """The demo's inventory with more of everything, as YAML."""
    data = yaml.safe_load((defaults_dir("inventory") / "demo.yaml").read_text())
    del data["lab"]
    data["site"] = "large"
    data["network"] |= {"cidr": "10.64.0.0/16", "gateway": "10.64.0.1"}
    data["services"]["storefront"]["address"] = "10.64.0.80"
    data["services"]["db"]["address"] = "10.64.0.60"
    data["hosts"] = [
        {"name": f"h{n}", "address": _address(256 + n), "rack": f"r{n // 40}", "memory_mib": HOST_MEMORY_MIB}
        for n in range(1, hosts + 1)
    ]
    at = 256 + hosts + 1
    for group in data["groups"]:
        group["count"] = SHARE[group["name"]] * hosts
        group["addresses"] = [f"{_address(at)}-{_address(at + group['count'] - 1)}"]
        at += group["count"]
    return yaml.safe_dump(data, allow_unicode=True)


def _address(number: int) -> str:
    return f"10.64.{number // 256}.{number % 256}"


def desire_large(site: Site, playbook: Playbook) -> Desired:
    """What the inventory asks for, with stand-in digests where images and templates come in."""
    images = {name: _image(name) for name in site.images}
    servers = tuple(
        spec_of(site, group, name, address, images[group.image], hashlib.sha256(name.encode()).hexdigest()[:32])
        for group, name, address in servers_of(site)
    )
    return Desired(site, playbook, servers, Dump("/dump.sql.gz", "d" * 64), "", Options())


def _image(name: str) -> ImageSpec:
    digest = hashlib.sha256(name.encode()).hexdigest()
    files = [ImageFile(file, digest, 1 << 28) for file in ("disk.qcow2", "vmlinuz", "initrd.img")]
    return ImageSpec(name, name, digest, "quiet", files[0], files[1], files[2])


def observe_nothing(desired: Desired) -> Observed:
    """Every host answers, and holds nothing."""
    return Observed(tuple(SeenHost(h.name, "", HOST_MEMORY_MIB) for h in desired.site.hosts))


def observe_after(desired: Desired, made: Plan) -> Observed:
    """Every server runs, healthy, where the plan put it; the data is restored and indexed."""
    site = desired.site.site
    there: dict[str, list[SeenServer]] = {h.name: [] for h in desired.site.hosts}
    for node in made.nodes:
        if node.info.action == "start" and node.info.host and node.info.server:
            spec = desired.server(node.info.server)
            mark = Mark(site, spec.name, spec.role, spec.spec, spec.image.digest, 1)
            name = Names(site, spec.name).domain
            seen = SeenServer(name, spec.uuid, Power.RUNNING, mark, spec.memory_mib, (spec.mac,), (), 3600.0)
            there[node.info.host].append(seen)
    hosts = tuple(
        replace(host, servers=tuple(servers), volumes=_volumes(site, servers))
        for host, servers in zip(observe_nothing(desired).hosts, there.values(), strict=True)
    )
    return Observed(hosts, {s.name: Health(True) for s in desired.servers}, _data(desired))


def _data(desired: Desired) -> Data:
    """db-1 has the role, idx-1 follows it; commits wait."""
    token, address = "large.dddd.g1", str(desired.site.services[desired.site.database.service].address)
    follower = SeenDatabase(False, "0-1-9", "0-1-9", address, replicating=True, semi_sync=True, restored=token)
    databases = {
        "db-1": SeenDatabase(True, "0-1-9", semi_sync=True, restored=token, waits_ms=30_000),
        "idx-1": follower,
    }
    return Data(token, 60, True, databases, "db-1")


def _volumes(site: str, servers: list[SeenServer]) -> tuple[str, ...]:
    names = [Names(site, s.mark.server, 1) for s in servers if s.mark]
    return tuple(sorted(file for n in names for file in (n.disk, n.seed, n.console)))


if __name__ == "__main__":
    figures = {k: round(v, 3) for k, v in asdict(measure()).items()}
    print(json.dumps(figures))
