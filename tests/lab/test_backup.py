"""Both database hosts lose power for good while orders arrive: the shop comes back from what other hosts keep.

A site of four servers on six hosts. The tests share its lab and run in this order; the last one is run by `make chaos`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pcloud import lab
from pcloud.events import StepBlocked
from pcloud.inventory import load_site
from tests.lab.bad_site import SITE, home_of, inventory, link_images, write_inventory
from tests.lab.conftest import Operator
from tests.lab.fire import Crowd, Fire, told

pytestmark = pytest.mark.lab
STREAM_S = 3.0
"""An order that was acknowledged so long before the power went was on two more hosts."""
BESIDE = "/var/lib/pcloud/beside/mysqld.sock"


@dataclass
class Story(Fire):
    """The site, and what the first test leaves for the others."""

    moment: str = ""
    """By the clock of the database's server."""
    before: set[str] = field(default_factory=set)
    last: str = ""

    def kept(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.operator.json("backup", SITE, "--list")
        return rows

    def orders(self, server: str, *options: str) -> set[str]:
        query = "SELECT number FROM shop.order_order"
        return set(self.operator.on(server, "mariadb", "-BN", *options, "-e", query).split())


@pytest.fixture(scope="module")
def story(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The whole small shop; whatever happens, the lab goes down."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("backup")
    link_images(images, home)
    path = write_inventory(folder / "inventory" / f"{SITE}.yaml", inventory(hosts=6))
    made = Story(Operator(home, folder, SITE), load_site(path))
    try:
        up = made.operator.run("lab", "up", SITE)
        assert up.code == 0, up.err
        ran = made.operator.recover()
        assert ran.code == 0, told(ran)
        yield made
    finally:
        with home_of(made.operator):
            lab.down(made.site)


def acknowledged(crowd: Crowd, until: float) -> set[str]:
    return {e.number for e in crowd.entries() if e.number and e.at < until}


def test_both_database_hosts_are_lost_and_what_was_streamed_is_not(story: Story) -> None:
    lost = [story.at("db-1"), story.at("idx-1")]
    with story.shoppers("orders") as crowd:
        ran = story.operator.run("backup", SITE, "--yes")
        assert ran.code == 0, told(ran)
        shelves = [s for s in story.kept() if s["backups"]]
        assert len(shelves) == 2
        assert all(s["streaming"] for s in shelves)
        assert not {s["host"] for s in shelves} & set(lost), "apart from the data"
        assert shelves[0]["backups"] == shelves[1]["backups"]
        killed = story.operator.on(shelves[0]["host"], "pkill", "-c", "-KILL", "-x", "mariadb-binlog").strip()
        assert killed == "1"
        crowd.wait_for_orders(1, time.time())
        story.before = acknowledged(crowd, time.time() - 1)
        story.moment = story.operator.on("db-1", "date", "-u", "+%Y-%m-%dT%H:%M:%SZ").strip()
        after = time.time() + 1
        crowd.wait_for_orders(2, after)
        cut = time.time() + STREAM_S
        assert all(s["streaming"] for s in story.kept() if s["backups"]), "the host's init started it again"
        time.sleep(max(0.0, cut - time.time()))
        for host in lost:
            story.switch_off(host)
    streamed = acknowledged(crowd, cut - STREAM_S)
    assert story.before < streamed
    story.last = max(streamed - acknowledged(crowd, after))

    offered = story.operator.recover()
    assert offered.code == 3, told(offered)
    consent = offered.state.steps["db-1/consent"].problem
    assert isinstance(consent, StepBlocked) and all(f"pcloud power {SITE}/{host} on" in consent.next for host in lost)
    asked = story.operator.run("recover", SITE, "--accept-loss", "unknown")
    assert asked.code == 3, told(asked)
    question = " ".join(asked.err.split())
    assert "the backup of" in question
    assert "nothing known is lost (last known" in question
    assert "and not streamed is" in question
    ran = story.operator.recover("--accept-loss", "unknown")
    assert ran.code == 0, told(ran)
    assert ran.state.steps["db-1/restore"].facts["from"] == shelves[0]["backups"][0]["id"]
    missing = streamed - story.orders("db-1")
    assert not missing


def test_the_data_of_a_moment_are_beside_those_of_now(story: Story) -> None:
    now = story.orders("db-1")
    ran = story.operator.run("restore", SITE, "--to", story.moment, "--beside")
    assert ran.code == 0, told(ran)
    then = story.orders("idx-1", f"--socket={BESIDE}")
    assert story.before <= then < now
    assert story.orders("db-1") == now


@pytest.mark.chaos
def test_the_site_itself_goes_back_to_a_moment(story: Story) -> None:
    closed = story.operator.run("restore", SITE, "--close")
    assert closed.code == 0, told(closed)
    early = story.operator.run("restore", SITE, "--to", "2020-01-01")
    assert (early.code, "nothing that is kept reaches 2020-01-01T00:00:00Z" in " ".join(early.err.split())) == (2, True)
    asked = story.operator.run("restore", SITE, "--to", story.moment)
    assert asked.code == 3, told(asked)
    assert f"what came at or after {story.moment} is given up" in " ".join(asked.err.split())
    ran = story.operator.run("restore", SITE, "--to", story.moment, "--yes")
    assert ran.code == 0, told(ran)
    then = story.orders("db-1")
    assert story.before <= then
    assert story.last not in then
    assert story.operator.run("check", SITE).code == 0
