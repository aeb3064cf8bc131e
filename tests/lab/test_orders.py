"""No order is lost: what befalls the servers that hold the data, on real guests, compared with the shoppers' ledger.

Four servers on six hosts. The stories share their lab, and each leaves a whole shop for the next; which of the two
servers is the primary then is left as it is, and each story asks. Two are run by `make test`, all by `make chaos`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pcloud import lab
from pcloud.events import Event, StepBlocked, StepFailed, StepStarted
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

    def recover_with_consent(self) -> list[Ran]:
        """As a person who agrees to what is asked: all runs, the last one without a question."""
        runs = [self.operator.recover()]
        if runs[0].code == 3:
            runs.append(self.operator.recover("--accept-loss", "unknown"))
        assert runs[-1].code == 0, told(runs[-1])
        return runs

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


def cycle_server(shop: Shop, server: str) -> None:
    """Its emulator ends at once, and is started again: what the guest had not written is gone."""
    host = shop.at(server)
    for command in ("destroy", "start"):
        shop.inside(host, "virsh", "-q", "-c", "qemu:///system", command, f"{SITE}.{server}")


def cycle_host(shop: Shop, server: str) -> None:
    host = shop.at(server)
    shop.switch_off(host)
    shop.lab("power-on", host)


@pytest.mark.chaos
@pytest.mark.parametrize("cycle", [cycle_server, cycle_host])
def test_the_lagging_replica_loses_its_power_after_the_primary(shop: Shop, cycle: Callable[[Shop, str], None]) -> None:
    """MariaDB would throw away at its start what was received."""
    primary, replica = shop.holders()
    with shop.shoppers("cycled") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        shop.switch_off(shop.at(primary))
        cycle(shop, replica)
        ran = shop.operator.recover()
        assert ran.code == 0, told(ran)
        crowd.wait_for_orders(1, time.time())
    assert losses(ran)[0].startswith("no acknowledged order is lost")
    assert shop.expect_kept(crowd, ran) == 0
    shop.mend()


@pytest.mark.chaos
def test_both_lose_their_power_at_once_and_only_the_lagging_replica_comes_back(shop: Shop) -> None:
    primary, replica = shop.holders()
    with shop.shoppers("at-once") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        back = shop.at(replica)
        for host in (shop.at(primary), back):
            shop.switch_off(host)
        shop.lab("power-on", back)
        runs = shop.recover_with_consent()
        crowd.wait_for_orders(1, time.time())
    assert shop.expect_kept(crowd, *runs) == 0
    shop.mend()


@pytest.mark.chaos
def test_the_power_of_the_whole_site_goes_and_comes_back_while_the_replica_lags(shop: Shop) -> None:
    primary, replica = shop.holders()
    with shop.shoppers("dark") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        for host in shop.site.hosts:
            shop.switch_off(host.name)
        shop.mend_hosts()
        ran = shop.operator.recover()
        assert ran.code == 0, told(ran)
        crowd.wait_for_orders(1, time.time())
    assert losses(ran) == []
    assert shop.holders() == (primary, replica)
    assert shop.expect_kept(crowd) == 0
    shop.mend()


KILLS_AFTER_S = (0.2, 1.0, 2.0)
KILLER = """for s in {}; do
  until pgrep -f '[p]rimary.* promote' >/dev/null; do sleep 0.05; done
  sleep $s; pkill -KILL -f '[p]rimary.* promote' && echo $s >>/run/killed; sleep 1.5
done"""


@pytest.mark.chaos
def test_a_promotion_that_is_killed_again_and_again_goes_on(shop: Shop) -> None:
    """The guest's script three times, each time a little later; then pcloud as often."""
    primary, replica = shop.holders()
    with shop.shoppers("killed") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        killer = KILLER.format(" ".join(map(str, KILLS_AFTER_S)))
        detached = ("setsid", "bash", "-c", f"({killer}) </dev/null >/dev/null 2>&1 &")
        shop.operator.on(replica, *detached)
        shop.switch_off(shop.at(primary))
        codes = [shop.operator.recover().code for _ in KILLS_AFTER_S]
        assert codes == [1] * len(KILLS_AFTER_S)
        assert len(shop.operator.on(replica, "cat", "/run/killed").split()) == len(KILLS_AFTER_S)
        for after_s in KILLS_AFTER_S:
            begun = time.monotonic()

            def when(event: Event, after_s: float = after_s, begun: float = begun) -> bool:
                return isinstance(event, StepStarted) and event.step.endswith("/promote")

            shop.operator.interrupt([], when, signal.SIGKILL)
        ran = shop.operator.recover()
        assert ran.code == 0, told(ran)
        crowd.wait_for_orders(1, time.time())
    assert shop.expect_kept(crowd, ran) == 0
    shop.mend()


DAMAGE = """set -e
status=$(mariadb -Ee 'SHOW SLAVE STATUS')
file=/var/lib/mysql/$(sed -n 's/^ *Relay_Log_File: //p' <<<"$status")
from=$(sed -n 's/^ *Relay_Log_Pos: //p' <<<"$status")
printf damaged-damaged | dd of="$file" bs=1 seek=$((from + ($(stat -c %s "$file") - from) / 2)) conv=notrunc status=none
sync"""


@pytest.mark.chaos
def test_what_a_damaged_relay_log_had_is_said_and_found_again(shop: Shop) -> None:
    primary, replica = shop.holders()
    with shop.shoppers("damaged") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        shop.operator.on(replica, "bash", "-c", DAMAGE)
        shop.switch_off(shop.at(primary))
        blocked = shop.operator.recover()
        assert blocked.code == 3, told(blocked)
        stops = [s.problem for s in blocked.state.steps.values() if isinstance(s.problem, StepBlocked)]
        assert any("damaged" in s.what and "--accept-loss unknown" in s.next for s in stops), stops
        agreed = shop.operator.recover("--accept-loss", "unknown")
        assert agreed.code == 0, told(agreed)
        crowd.wait_for_orders(1, time.time())
    lost = shop.missing(crowd)
    assert lost
    shop.mend()
    salvaged = shop.operator.run("salvage", SITE, "--json")
    assert salvaged.code == 0, salvaged.err
    assert salvaged.out.count("order_order") >= len(lost), salvaged.out


@pytest.mark.chaos
def test_what_a_damaged_relay_log_had_comes_from_the_streams(shop: Shop) -> None:
    ran = shop.operator.run("backup", SITE, "--yes")
    assert ran.code == 0, told(ran)
    primary, replica = shop.holders()
    with shop.shoppers("streamed") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        shop.operator.on(replica, "bash", "-c", DAMAGE)
        shop.switch_off(shop.at(primary))
        runs = [shop.operator.recover()]
        while runs[-1].code == 3 and len(runs) < 2:
            runs.append(shop.operator.recover())
        assert runs[-1].code == 0, told(runs[-1])
        crowd.wait_for_orders(1, time.time())
    assert shop.expect_kept(crowd, *runs) == 0
    shop.mend()


@pytest.mark.chaos
def test_a_replica_whose_disk_is_full_says_so_and_goes_on_with_room(shop: Shop) -> None:
    primary, replica = shop.holders()
    with shop.shoppers("full") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        shop.operator.on(replica, "bash", "-c", "dd if=/dev/zero of=/var/tmp/full bs=1M status=none; sync; df / >&2")
        shop.switch_off(shop.at(primary))
        failed = shop.operator.recover()
        assert failed.code == 1, told(failed)
        problems = [s.problem for s in failed.state.steps.values() if isinstance(s.problem, StepFailed)]
        assert any("full" in p.what or "No space" in p.what for p in problems), problems
        shop.operator.on(replica, "rm", "/var/tmp/full")
        ran = shop.operator.recover()
        assert ran.code == 0, told(ran)
        crowd.wait_for_orders(1, time.time())
    assert shop.expect_kept(crowd, ran) == 0
    shop.mend()
