"""A site that lives through one failure after the other: a host dies, is recovered, comes back, is recovered.

`python -m tests.scenarios --wear 500` plays as many; `tests/test_past.py` fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from pcloud.decide import find_quarantined
from pcloud.identity import carrier_names
from pcloud.observed import Observed
from pcloud.placement import NoRoom, place
from pcloud.teardown import plan_purge
from pcloud.whatif import look, subjects_of
from tests.random_story import HOSTS
from tests.scenario import Course, new_world
from tests.shoppers import Shoppers
from tests.simulated_operator import Operator
from tests.simulation import SimWorld

ON_A_HOST = 30
"""Files of the site's that a host has at most, its images and what it runs included, once its tombstones are purged."""


@dataclass
class Worn:
    """How it went; `broken` is empty when the site is as good as new."""

    broken: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    """How often each host died."""
    most_files: int = 0
    """Of any host, tombstones left out."""
    tombstones: int = 0


def wear(image_file: Path, failures: int, seed: int = 1) -> Worn:
    """The same for the same seed."""
    world, time = new_world(image_file, whole=True)
    operator, dice, worn = Operator(world, Shoppers(world), time), Random(seed), Worn()
    course = Course(operator)
    operator.shoppers.begin()
    for number in range(1, failures + 1):
        host = dice.choice(HOSTS)
        worn.struck[host] += 1
        if not _fail_once(course, host):
            worn.broken.append(f"failure {number}, {host}: {operator.outcome}")
            break
    time.sleep(3)
    course.judge_end()
    worn.broken += [*dict.fromkeys(operator.broken), *_judge_data(world), *_judge_capacity(world)]
    files = [[f for f in h.files if "tombstone-" not in f] for h in world.hosts.values()]
    worn.most_files, worn.tombstones = max(map(len, files)), _purge(world)
    left = {name: len(h.files) for name, h in world.hosts.items() if len(h.files) > ON_A_HOST}
    worn.broken += [f"{name} has {count} files left" for name, count in left.items()]
    worn.log = operator.log
    return worn


def _fail_once(course: Course, host: str) -> bool:
    """Whether both recoveries went well."""
    course.strike(f"kill {host}")
    course.command("recover")
    gone_well = course.operator.outcome == "converged"
    course.strike(f"return {host}")
    course.operator.time.sleep(40)
    course.command("recover")
    return gone_well and course.operator.outcome == "converged"


def _judge_data(world: SimWorld) -> Iterator[str]:
    """No order is only on a disk that was put away."""
    source = world.at_address("")
    held = set(source.orders) if source is not None else set()
    for (host, disk), data in world.disks.items():
        if f"{world.host(host).pool}/{disk}" not in world.hosts[host].files and set(data.orders) - held:
            yield f"{disk} on {host} was put away, and held {sorted(set(data.orders) - held)}"


def _purge(world: SimWorld) -> int:
    """All tombstones are deleted; how many disks that were."""
    observed = world.observe()
    disks = sum("tombstone-" in v and v.endswith(".qcow2") for h in observed.hosts for v in h.volumes)
    for node in plan_purge(world.site.site, "", observed).nodes:
        assert node.info.host is not None
        for volume in node.step.volumes:  # type: ignore[attr-defined]
            del world.hosts[node.info.host].files[f"{world.host(node.info.host).pool}/{volume}"]
    return disks


def _judge_capacity(world: SimWorld) -> Iterator[str]:
    """Every server fits on any host but its twin's, and any host or rack can be lost that could be at first."""
    desired, observed = world.desired, world.observe()
    for old in find_quarantined(desired, observed):
        yield f"{old.host} keeps {old.server} g{old.generation}"
    outlook = look(desired, observed, {})
    for subject in subjects_of(desired.site):
        if not (loss := outlook.judge(subject)).survived:
            yield f"the loss of {subject} is not survived: {loss.moves} {loss.effects.stops}"
    groups = {s.name: s.group for s in desired.everyone}
    where = {s.name: h for s in desired.servers for h, _ in world.running(s.name)}
    carriers = carrier_names(desired.site)
    for spec in desired.servers:
        twins = {where[n] for n in carriers if spec.name in carriers and n != spec.name}
        for host in HOSTS:
            alone = Observed(tuple(h if h.name == host else replace(h, problem="left out") for h in observed.hosts))
            staying = {n: h for n, h in where.items() if n != spec.name}
            if host not in twins and isinstance(place(desired.site, alone, staying, [spec], groups)[spec.name], NoRoom):
                yield f"{spec.name} does not fit on {host}"
