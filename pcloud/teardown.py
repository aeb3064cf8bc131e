"""The plans that take away: `destroy` puts a site's servers away, `purge` deletes what was put away."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pcloud.desired import Desired, Names
from pcloud.errors import BadInput, Blocked
from pcloud.events import StepInfo
from pcloud.graph import Need, PlanNode
from pcloud.observed import Observed
from pcloud.plan import Plan, retires, way_back
from pcloud.steps.server import Discard, Purge, Retire
from pcloud.tombstones import count_tombstones, find_tombstones
from pcloud.unplanned import find_unplanned
from pcloud.wording import did_you_mean, show


def plan_put_away(desired: Desired, observed: Observed, servers: Iterable[str], date: str) -> Plan:
    """The copies of these servers, which are in no plan, on hosts that answer, become tombstones.

    Raises `BadInput` for one that the inventory names, or that is nowhere.
    """
    site, found = desired.site.site, find_unplanned(desired, observed)
    for server in servers:
        if any(u.server == server for u in found):
            continue
        if any(s.name == server for s in desired.everyone):
            what = f"{server} is a server of the inventory's"
            following = f"take it out of the inventory first; or make it anew: pcloud recover {site} --rebuild {server}"
            raise BadInput(what, where=site, next=following)
        known = sorted({u.server for u in found})
        raise BadInput(
            f"no host that answers has a server {show(server)}",
            where=site,
            next=did_you_mean(server, known, "those that the inventory does not name are"),
        )
    nodes = []
    for one in (u for u in found if u.server in servers):
        key = f"{one.host}/{one.server}/retire"
        info = StepInfo(key, "destroy", (), one.host, one.server, "retire", "you asked for it")
        nodes.append(PlanNode(info, Retire(one.host, one.names, date)))
    return Plan(site, "destroy", ("destroy",), tuple(nodes), {}, desired.digest(), observed.digest())


def plan_destroy(site: str, desired_digest: str, observed: Observed, date: str) -> Plan:
    """Every server of the site, on every host that answers, becomes a tombstone.

    Raises `Blocked` when a host does not answer: servers may be running there.
    """
    away = observed.unreachable()
    if away:
        raise Blocked(
            f"{', '.join(away)} does not answer; servers may be running there",
            where=site,
            next=f"bring it back, then pcloud destroy {site}",
        )
    nodes = []
    for host in observed.hosts:
        for seen in host.servers:
            if seen.mark is None or seen.mark.site != site:
                continue
            names = Names(site, seen.mark.server, seen.mark.generation)
            key = f"{host.name}/{seen.mark.server}/retire"
            info = StepInfo(key, "destroy", (), host.name, seen.mark.server, "retire", "you asked for it")
            nodes.append(PlanNode(info, Retire(host.name, names, date)))
    done = {n.key for n in nodes}
    for host in observed.hosts:
        left = tuple(
            v for v in host.volumes if re.match(rf"{re.escape(site)}\.[a-z0-9-]+\.g\d+\.", v) and "tombstone" not in v
        )
        owned = {
            f
            for s in host.servers
            if s.mark and s.mark.site == site
            for f in _volumes(site, s.mark.server, s.mark.generation)
        }
        logs = tuple(v for v in left if v not in owned or v.endswith(".console.log"))
        if logs:
            needs = sorted(k for k in done if k.startswith(f"{host.name}/"))
            info = StepInfo(
                f"{host.name}/leftovers/discard",
                "destroy",
                tuple(needs),
                host.name,
                None,
                "discard",
                f"{len(logs)} files that belong to no server",
            )
            nodes.append(PlanNode(info, Discard(host.name, logs, date), frozenset(Need.all_of(k) for k in needs)))
    advice = (way_back(site),) if retires(nodes) else ()
    return Plan(site, "destroy", ("destroy",), tuple(nodes), {}, desired_digest, observed.digest(), advice=advice)


def _volumes(site: str, server: str, generation: int) -> Iterable[str]:
    names = Names(site, server, generation)
    return names.disk, names.seed, names.console


def plan_purge(site: str, desired_digest: str, observed: Observed, before: str = "") -> Plan:
    """Every tombstone of the site, on every host that answers, is deleted for good.

    `before`: only those that were put away before this date (`tombstones.cutoff`).
    """
    nodes = []
    for host in observed.hosts:
        stones = find_tombstones(site, host.volumes, before) if host.reachable else ()
        if stones:
            count = count_tombstones(stones)
            reason = f"{count} tombstone{'' if count == 1 else 's'}"
            info = StepInfo(f"{host.name}/tombstones/purge", "purge", (), host.name, None, "purge", reason)
            nodes.append(PlanNode(info, Purge(host.name, stones)))
    return Plan(site, "purge", ("purge",), tuple(nodes), {}, desired_digest, observed.digest())
