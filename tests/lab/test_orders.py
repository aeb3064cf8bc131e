"""No order is lost: what befalls the servers that hold the data, on real guests, compared with the shoppers' ledger.

Four servers on six hosts. The stories share their lab, and each leaves a whole shop for the next; which of the two
servers is the primary then is left as it is, and each story asks. Two are run by `make test`, all by `make chaos`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pcloud import lab
from pcloud.inventory import load_site
from pcloud.sightings import read_notes
from tests.lab.bad_site import POOL, Inventory, home_of, inventory, link_images, write_inventory
from tests.lab.conftest import Operator, Ran
from tests.lab.fire import WARM_ORDERS, Crowd, Fire, told
from tests.ledger import unsaid

pytestmark = pytest.mark.lab
SITE = "orders"
LAG = 4
"""Orders that the replica has received and not applied."""


def inventory_of_six() -> Inventory:
    return inventory(hosts=6, site=SITE)


@dataclass
class Shop(Fire):
    """The small shop, and which of its servers hold the data."""

    def holders(self) -> tuple[str, str]:
        """The primary and the other one, by `pcloud status`."""
        primary: str = self.operator.json("status", SITE)["data"]["holder"]
        return primary, {"db-1": "idx-1", "idx-1": "db-1"}[primary]

    def sql(self, server: str, query: str) -> str:
        return self.operator.on(server, "mariadb", "-BN", "-e", query).strip()

    def receive_only(self, crowd: Crowd, replica: str) -> None:
        """From now on the replica receives orders and applies none; some were acknowledged then."""
        self.sql(replica, "STOP SLAVE SQL_THREAD")
        crowd.wait_for_orders(LAG, time.time())

    def expect_kept(self, crowd: Crowd, *runs: Ran) -> int:
        """Each acknowledged order is there, or its loss was said by these runs; how many are missing."""
        missing = self.missing(crowd)
        assert unsaid(missing, [loss for ran in runs for loss in losses(ran)]) == []
        return len(missing)

    def mend(self) -> None:
        """A whole shop again, whoever is its primary."""
        self.mend_hosts()
        ran = self.operator.recover()
        assert ran.code == 0, told(ran)


def losses(ran: Ran) -> list[str]:
    """What its promotions said that they give up."""
    steps = [step for state in ran.states for step in state.steps.items()]
    return [str(step.facts["loss"]) for key, step in steps if key.endswith("/promote") and "loss" in step.facts]


@pytest.fixture(scope="module")
def shop(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The whole shop; whatever happens, the lab goes down."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("orders")
    link_images(images, home)
    path = write_inventory(folder / "inventory" / f"{SITE}.yaml", inventory_of_six())
    made = Shop(Operator(home, folder, SITE), load_site(path))
    try:
        up = made.operator.run("lab", "up", SITE)
        assert up.code == 0, up.err
        ran = made.operator.recover()
        assert ran.code == 0, told(ran)
        yield made
    finally:
        with home_of(made.operator):
            lab.down(made.site)


def test_what_was_received_and_not_applied_is_in_the_shop(shop: Shop) -> None:
    """The replica lags, and its primary's host loses its power. Before that, `status` remembers the position."""
    primary, replica = shop.holders()
    seen = shop.operator.json("status", SITE)["data"]["databases"][primary]
    notes = {h.name: read_notes(SITE, shop.inside(h.name, "ls", POOL).split()) for h in shop.site.hosts}
    remembering = {host: {n.position for n in found} for host, found in notes.items() if found}
    assert len(remembering) == 2
    assert shop.at(primary) not in remembering
    for positions in remembering.values():
        assert len(positions) == 1
        assert positions <= set(seen["position"].split(",")), (positions, seen)
    with shop.shoppers("lagging") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        shop.switch_off(shop.at(primary))
        ran = shop.operator.recover()
        assert ran.code == 0, told(ran)
        crowd.wait_for_orders(WARM_ORDERS, time.time())
    assert losses(ran)[0].startswith("no acknowledged order is lost")
    assert shop.expect_kept(crowd, ran) == 0
    shop.mend()


def test_the_power_of_both_goes_and_comes_back(shop: Shop) -> None:
    """Who was the primary is it again: nobody is promoted."""
    primary, replica = shop.holders()
    hosts = [shop.at(primary), shop.at(replica)]
    with shop.shoppers("blinking") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        for host in hosts:
            shop.switch_off(host)
        shop.mend_hosts()
        ran = shop.operator.recover()
        assert ran.code == 0, told(ran)
        crowd.wait_for_orders(WARM_ORDERS, time.time())
    assert losses(ran) == []
    assert shop.holders() == (primary, replica)
    assert shop.expect_kept(crowd) == 0
    shop.expect_whole()
