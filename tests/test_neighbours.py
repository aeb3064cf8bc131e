"""What hosts remember of servers that are not the site's, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcloud.neighbours import find_others, plan_notes
from pcloud.observed import Mark, Power, SeenServer
from pcloud.suspicion import judge
from tests.faults import strike
from tests.plan_cases import note_others
from tests.simulation import SimWorld, with_options


def others(world: SimWorld, host: str = "h2") -> str:
    return str(find_others("demo", world.look(), host) or "")


def test_two_other_hosts_know_who_else_runs_there(world: SimWorld) -> None:
    strike(world, "guest h2 other.db-1")
    strike(world, "guest h2 zz-mail")
    note_others(world)
    assert sum(any("others-on-h2" in f for f in h.files) for h in world.hosts.values()) == 2
    assert not any("others-on-h2" in f for f in world.hosts["h2"].files)
    assert others(world) == "other.db-1 and 1 more"
    assert others(world, "h1") == ""
    assert plan_notes(world.site, world.look(), world.clock.wall()) == (), "what is known is not written again"


def test_once_it_is_seen_to_be_alone_nothing_is_said_of_it(world: SimWorld) -> None:
    strike(world, "guest h2 other.db-1")
    note_others(world)
    world.clock.sleep(60)
    strike(world, "guest-gone h2 other.db-1")
    note_others(world)
    assert others(world) == ""
    assert sum("others-on-h2" in f for h in world.hosts.values() for f in h.files) == 2, "notes do not gather"


def test_the_latest_word_of_two_hosts_counts(world: SimWorld) -> None:
    world.hosts["h5"].files["/var/lib/pcloud/pool/demo.others-on-h2.20121116T214000.1-other.db-1.note"] = "empty"
    world.hosts["h6"].files["/var/lib/pcloud/pool/demo.others-on-h2.20121116T214100.0.note"] = "empty"
    world.hosts["h6"].files["/var/lib/pcloud/pool/other.others-on-h2.20121116T214200.1-x.note"] = "empty"
    assert others(world) == ""
    world.hosts["h7"].files["/var/lib/pcloud/pool/demo.others-on-h2.20121116T214200.1-back.note"] = "empty"
    assert others(world) == "back"


@pytest.mark.parametrize(("power", "site", "counts"), [("running", "other", True), ("off", "other", False)])
def test_another_sites_server_counts_while_it_runs(world: SimWorld, power: str, site: str, counts: bool) -> None:
    seen = SeenServer(f"{site}.db-1", "u", Power(power), Mark(site, "db-1", "database", "s", "i", 1), 512)
    found = world.look()
    hosts = tuple(replace(h, servers=(*h.servers, seen)) if h.name == "h2" else h for h in found.hosts)
    assert bool(plan_notes(world.site, replace(found, hosts=hosts), world.clock.wall())) is counts


def test_a_shared_host_is_cut_off_by_name_only(world: SimWorld) -> None:
    strike(world, "guest h2 other.db-1")
    note_others(world)
    strike(world, "freeze h2")
    verdict = judge(world.desired, world.look(), "h2")
    assert not verdict.may
    assert "it ran other.db-1, not demo's" in verdict.why
    assert "pcloud failover demo h2" in verdict.next
    named = judge(with_options(world.desired, lost=("h2",)), world.look(), "h2")
    assert (named.may, named.why) == (True, "you gave h2 up, and with it other.db-1, not demo's")
