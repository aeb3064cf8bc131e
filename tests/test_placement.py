"""Where servers go: the rules at the top of `placement.py`, tried on random sites."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcloud.desired import ServerSpec
from pcloud.hostneeds import specs_of
from pcloud.identity import STATELESS
from pcloud.inventory import defaults_dir
from pcloud.model import HOST_RESERVE_MIB, SERVER_OVERHEAD_MIB, Site
from pcloud.observed import Mark, Observed, Power, SeenHost, SeenServer
from pcloud.placement import NoRoom, Placed, place

_HOST = st.fixed_dictionaries(
    {
        "rack": st.sampled_from("abc"),
        "spare": st.booleans(),
        "memory_mib": st.sampled_from([1024, 1536, 2048, 3072, 4096, 8192]),
        "foreign": st.sampled_from([0, 0, 0, 700]),
        "away": st.sampled_from([False, False, False, False, True]),
    }
)
_hosts = st.lists(_HOST, min_size=1, max_size=12)


@dataclass(frozen=True)
class Case:
    """A site from nothing, and where its servers were put."""

    site: Site
    observed: Observed
    specs: dict[str, ServerSpec]
    chosen: dict[str, Placed | NoRoom]

    @property
    def where(self) -> dict[str, str]:
        return {name: c.host for name, c in self.chosen.items() if isinstance(c, Placed)}

    def on(self, host: str) -> Counter[str]:
        """The host's servers by group."""
        return Counter(self.specs[n].group for n, h in self.where.items() if h == host)

    def left_mib(self, host: str) -> int:
        seen = self.observed.host(host)
        assert seen is not None
        servers = [self.specs[n].memory_mib for n, h in self.where.items() if h == host]
        used = [*servers, *(s.memory_mib for s in seen.servers)]
        return seen.memory_mib - HOST_RESERVE_MIB - sum(m + SERVER_OVERHEAD_MIB for m in used)

    def room_for(self, server: str) -> list[str]:
        """The hosts that could take it even now that all others have their places."""
        need = self.specs[server].memory_mib + SERVER_OVERHEAD_MIB
        return [h.name for h in self.observed.hosts if h.reachable and self.left_mib(h.name) >= need]

    def rack(self, server: str) -> str:
        return self.site.host(self.where[server]).rack

    def members(self, group: str) -> list[str]:
        return [n for n in self.where if self.specs[n].group == group]


def arrange(hosts: list[dict[str, Any]]) -> Case:
    data = yaml.safe_load((defaults_dir("inventory") / "demo.yaml").read_text())
    del data["lab"]
    kept = ("rack", "spare")
    data["hosts"] = [
        {"name": f"h{n}", "address": f"10.77.0.{100 + n}"} | {k: h[k] for k in kept} for n, h in enumerate(hosts, 1)
    ]
    site = Site.model_validate(data)
    foreign = [SeenServer("other", "u", Power.RUNNING, None, 700)]
    observed = Observed(
        tuple(
            SeenHost(f"h{n}", "no answer" if h["away"] else "", h["memory_mib"], servers=tuple(foreign[: h["foreign"]]))
            for n, h in enumerate(hosts, 1)
        )
    )
    specs = {s.name: s for s in specs_of(site, {})}
    chosen = place(site, observed, {}, specs.values(), {n: s.group for n, s in specs.items()})
    return Case(site, observed, specs, chosen)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hosts=_hosts)
def test_the_rules_hold_on_any_site(hosts: list[dict[str, Any]]) -> None:
    case = arrange(hosts)
    assert arrange(hosts).chosen == case.chosen, "the same every time"
    for server, host in case.where.items():
        seen = case.observed.host(host)
        assert seen is not None and seen.reachable
        assert case.left_mib(host) >= 0, f"{server} on {host} takes of its reserve"
    check_who_is_homeless(case)
    check_the_data(case)
    check_frontends(case)
    check_spares(case)
    check_balancer(case)


def check_who_is_homeless(case: Case) -> None:
    """Only who has no room, now that smaller ones came later; and what it is short of is said."""
    for server, chosen in case.chosen.items():
        if isinstance(chosen, NoRoom):
            apart = {case.where.get("db-1")} if server == "idx-1" else set()
            assert not set(case.room_for(server)) - apart, str(chosen)
            answering = {h.name for h in case.observed.hosts if h.reachable} - apart
            assert chosen.short == ("memory" if answering else "hosts")
            assert chosen.need_mib == case.specs[server].memory_mib + SERVER_OVERHEAD_MIB


def check_the_data(case: Case) -> None:
    """Never on one host; in one rack only where no host elsewhere had room, a spare one or not."""
    if {"db-1", "idx-1"} <= case.where.keys():
        assert case.where["db-1"] != case.where["idx-1"]
        if case.rack("db-1") == case.rack("idx-1"):
            assert all(case.site.host(h).rack == case.rack("db-1") for h in case.room_for("idx-1"))


def check_frontends(case: Case) -> None:
    """No two on one host while another has none; two in one rack only where no rack without one had room."""
    frontends = case.members("frontend")
    for server in frontends:
        if case.on(case.where[server])["frontend"] > 1:
            assert all(case.on(h)["frontend"] for h in case.room_for(server))
    racks = Counter(case.rack(s) for s in frontends)
    for server in frontends:
        if racks[case.rack(server)] > 1 and case.on(case.where[server])["frontend"] == 1:
            free = [h for h in case.room_for(server) if not case.on(h)["frontend"]]
            assert all(racks[case.site.host(h).rack] for h in free)


def check_spares(case: Case) -> None:
    """A spare host is taken only where every other one with room has one of the same group, on it or in its rack."""
    for server, host in case.where.items():
        apart = {case.where.get("db-1")} if server == "idx-1" else set()
        if case.site.host(host).spare and case.on(host)[case.specs[server].group] == 1:
            rest = [h for h in case.room_for(server) if not case.site.host(h).spare and h not in apart]
            group = {case.rack(s) for s in case.members(case.specs[server].group)}
            twin = (
                {case.rack(s) for s in ("db-1", "idx-1") if s in case.where} if server in ("db-1", "idx-1") else set()
            )
            assert all(case.site.host(h).rack in group | twin for h in rest), (server, rest)


def check_balancer(case: Case) -> None:
    """With others only where no host is free that is not a spare one."""
    for server in case.members("balancer"):
        host = case.where[server]
        if case.on(host).total() > 1 and not case.site.host(host).spare:
            assert all(case.on(h) or case.site.host(h).spare for h in case.room_for(server))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hosts=_hosts, lost=st.integers(0, 11))
def test_after_a_loss_nothing_moves_but_what_was_there(hosts: list[dict[str, Any]], lost: int) -> None:
    case = arrange(hosts)
    gone = f"h{lost % len(hosts) + 1}"
    staying = {n: h for n, h in case.where.items() if h != gone}
    new = [s for n, s in case.specs.items() if case.where.get(n) == gone]
    after = with_servers(case, staying, without=gone)
    chosen = place(case.site, after, staying, new, {n: s.group for n, s in case.specs.items()})
    assert list(chosen) == [s.name for s in new]
    where = staying | {n: c.host for n, c in chosen.items() if isinstance(c, Placed)}
    assert gone not in where.values()
    if {"db-1", "idx-1"} <= where.keys():
        assert where["db-1"] != where["idx-1"]
    again = Case(case.site, after, case.specs, {n: Placed(h, "") for n, h in where.items() if n not in staying})
    assert all(again.left_mib(h.name) >= 0 for h in after.hosts if h.reachable and h.name in again.where.values())


def with_servers(case: Case, where: dict[str, str], without: str) -> Observed:
    def seen(name: str) -> SeenServer:
        spec = case.specs[name]
        mark = Mark(case.site.site, name, spec.role, "", "", 1)
        return SeenServer(f"demo.{name}", spec.uuid, Power.RUNNING, mark, spec.memory_mib, (spec.mac,))

    hosts = []
    for host in case.observed.hosts:
        there = tuple(seen(n) for n, h in where.items() if h == host.name)
        gone = host.name == without
        problem = "lost" if gone else host.problem
        hosts.append(SeenHost(host.name, problem, host.memory_mib, servers=() if gone else (*host.servers, *there)))
    return Observed(tuple(hosts))


def test_the_demo_survives_the_loss_of_any_rack_with_a_copy_of_its_data_and_a_frontend(demo_site: Site) -> None:
    hosts = [
        {"rack": h.rack, "spare": h.spare, "memory_mib": 4096, "foreign": 0, "away": False} for h in demo_site.hosts
    ]
    case = arrange(hosts)
    for rack in "abc":
        left = {n for n in case.where if case.rack(n) != rack}
        assert {"db-1", "idx-1"} & left
        assert {n for n in left if case.specs[n].role in STATELESS}


@pytest.mark.parametrize(
    ("memory_mib", "words"),
    [
        ([4096, 1024], "it takes 832 MiB, which no host that answers has left: the most is 768 MiB, on h2"),
        ([4096], "no host that answers is left for it, apart from db-1 on h1"),
    ],
)
def test_who_fits_nowhere_says_what_is_short(memory_mib: list[int], words: str) -> None:
    case = arrange([{"rack": "a", "spare": False, "memory_mib": m, "foreign": 0, "away": False} for m in memory_mib])
    assert str(case.chosen["idx-1"]).startswith(words)


def plain(*memory_mib: int) -> Case:
    return arrange([{"rack": "a", "spare": False, "memory_mib": m, "foreign": 0, "away": False} for m in memory_mib])


@pytest.mark.parametrize(
    ("memory_mib", "old", "words"),
    [
        ((4096, 4096), {("h1", "fe-1"): True}, "h2"),
        ((4096, 512), {("h1", "fe-1"): True}, "h1, in place of an older copy of it, as no other host has room"),
        ((4096, 4096), {("h1", "fe-1"): True, ("h2", "fe-1"): True}, "h1, in place of an older copy of it"),
        ((4096, 4096), {("h1", "fe-2"): True}, "h1"),
        ((4096, 4096), {("h1", "fe-1"): False}, "h2, apart from an older copy of it on h1"),
        ((4096, 512), {("h1", "fe-1"): False}, "no: it takes"),
        ((4096,), {("h1", "fe-1"): False}, "no: no host that answers is left for it, apart from an older copy of it"),
    ],
)
def test_a_host_with_an_older_copy_is_the_last_resort(
    memory_mib: tuple[int, ...], old: dict[tuple[str, str], bool], words: str
) -> None:
    case = plain(*memory_mib)
    groups = {n: s.group for n, s in case.specs.items()}
    chosen = place(case.site, case.observed, {}, [case.specs["fe-1"]], groups, old)["fe-1"]
    told = f"no: {chosen}" if isinstance(chosen, NoRoom) else f"{chosen.host}{chosen.reason.partition('rack a')[2]}"
    assert told.startswith(words)
    assert len(words) > 2 or told == words


def test_a_new_server_keeps_away_from_the_balancer() -> None:
    case = arrange([{"rack": "a", "spare": False, "memory_mib": 4096, "foreign": 0, "away": False}] * 2)
    staying = {"lb-1": "h1", "db-1": "h2"}
    groups = {n: s.group for n, s in case.specs.items()}
    observed = with_servers(case, staying, without="")
    chosen = place(case.site, observed, staying, [case.specs["fe-1"]], groups)
    assert chosen["fe-1"] == Placed("h2", "3008 MiB free, no other frontend there or in rack a")
