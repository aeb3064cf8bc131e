"""No order is lost: what befalls the servers that hold the data, on real guests, compared with the shoppers' ledger.

Five servers on six hosts. The stories share their lab, and each leaves a whole shop for the next; which of the two
servers is the primary then is left as it is, and each story asks. The first is run by `make test`, all by `make chaos`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pcloud import lab
from pcloud.events import Event, StepBlocked, StepDone, StepFailed, StepStarted
from pcloud.inventory import load_site
from pcloud.sightings import read_notes
from tests.lab.bad_site import POOL, Inventory, group, home_of, inventory, link_images, write_inventory
from tests.lab.conftest import Operator, Ran
from tests.lab.fire import WARM_ORDERS, Crowd, Fire, told
from tests.ledger import unsaid

pytestmark = pytest.mark.lab
SITE = "orders"
ALONE_S = 12
"""Several times what an order takes."""
LAG = 4
"""Orders that the replica has received and not applied."""


def inventory_of_six() -> Inventory:
    """Two frontends: one of them outlives any host, and says until when the primary answered."""
    data = inventory(hosts=6, site=SITE)
    group(data, "frontend").update(count=2, addresses=["10.77.0.21-10.77.0.22"])
    return data


@dataclass
class Shop(Fire):
    """The small shop, and which of its servers hold the data."""

    def holders(self) -> tuple[str, str]:
        """The primary and the other one, by `pcloud status`."""
        primary: str = self.operator.json("status", self.site.site)["data"]["holder"]
        return primary, {"db-1": "idx-1", "idx-1": "db-1"}[primary]

    def variant(self, name: str, change: Callable[[Inventory], None]) -> str:
        data = inventory_of_six()
        change(data)
        return str(write_inventory(self.operator.folder / "variants" / name / f"{SITE}.yaml", data))

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


@contextmanager
def running(images: Path, tmp_path_factory: pytest.TempPathFactory, data: Inventory) -> Iterator[Shop]:
    """A whole shop; whatever happens, its lab goes down."""
    site = str(data["site"])
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp(site)
    link_images(images, home)
    path = write_inventory(folder / "inventory" / f"{site}.yaml", data)
    made = Shop(Operator(home, folder, site), load_site(path))
    try:
        up = made.operator.run("lab", "up", site)
        assert up.code == 0, up.err
        ran = made.operator.recover()
        assert ran.code == 0, told(ran)
        yield made
    finally:
        with home_of(made.operator):
            lab.down(made.site)


@pytest.fixture(scope="module")
def shop(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with running(images, tmp_path_factory, inventory_of_six()) as made:
        yield made


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


@pytest.mark.chaos
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


KILLS_AFTER_S = (0.1, 0.5, 1.0)
"""After its begin; a promotion may be done before the last."""
KILLER = """for s in {}; do
  until pgrep -f '[p]rimary.* promote' >/dev/null; do sleep 0.05; done
  sleep $s; pkill -KILL -f '[p]rimary.* promote' && echo $s >>/run/killed; sleep 1.5
done"""


@pytest.mark.chaos
def test_a_promotion_that_is_killed_again_and_again_goes_on(shop: Shop) -> None:
    """The guest's script three times, each time a little later; then pcloud as often. Who agrees to a loss has none."""
    primary, replica = shop.holders()
    agreed = ("--accept-loss", "unknown")
    with shop.shoppers("killed") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        killer = KILLER.format(" ".join(map(str, KILLS_AFTER_S)))
        detached = ("setsid", "bash", "-c", f"({killer}) </dev/null >/dev/null 2>&1 &")
        shop.operator.on(replica, *detached)
        shop.switch_off(shop.at(primary))
        codes = [shop.operator.recover(*agreed).code for _ in KILLS_AFTER_S]
        assert codes[0] == 1
        assert codes.count(1) == len(shop.operator.on(replica, "cat", "/run/killed").split())
        for after_s in KILLS_AFTER_S:

            def when(event: Event, after_s: float = after_s) -> bool:
                begins = isinstance(event, StepStarted) and event.step.endswith("/promote")
                time.sleep(after_s if begins else 0)
                return begins

            shop.operator.try_interrupt(agreed, when, signal.SIGKILL)
        ran = shop.operator.recover(*agreed)
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
        stop = blocked.state.steps[f"{replica}/consent"].problem
        assert isinstance(stop, StepBlocked)
        assert "how much is lost is unknown, since 20" in stop.what
        assert "its relay logs are damaged" in stop.what
        assert "--accept-loss unknown" in stop.next
        agreed = shop.operator.recover("--accept-loss", "unknown")
        assert agreed.code == 0, told(agreed)
        crowd.wait_for_orders(1, time.time())
    lost = shop.missing(crowd)
    assert lost
    shop.mend()
    salvaged = shop.operator.run("salvage", SITE, "--json")
    assert salvaged.code == 0, salvaged.err
    assert salvaged.out.count("order_order") >= len(lost), salvaged.out


FILL = """fallocate -l $(($(stat -f -c '%f * %S' /) - 4194304)) /var/tmp/full
dd if=/dev/zero of=/var/tmp/rest bs=64k status=none; sync"""
"""Nobody has room then, root no more than MariaDB."""


@pytest.mark.chaos
def test_a_replica_whose_disk_is_full_says_so_and_goes_on_with_room(shop: Shop) -> None:
    primary, replica = shop.holders()
    with shop.shoppers("full") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.receive_only(crowd, replica)
        shop.switch_off(shop.at(primary))
        shop.operator.on(replica, "bash", "-c", FILL)
        failed = shop.operator.recover()
        assert failed.code == 1, told(failed)
        problems = [s.problem for s in failed.state.steps.values() if isinstance(s.problem, StepFailed)]
        assert any("full" in p.what or "No space" in p.what for p in problems), problems
        shop.operator.on(replica, "rm", "/var/tmp/full", "/var/tmp/rest")
        ran = shop.operator.recover()
        assert ran.code == 0, told(ran)
        crowd.wait_for_orders(1, time.time())
    assert shop.expect_kept(crowd, ran) == 0
    shop.mend()


@pytest.mark.chaos
def test_an_empty_newer_database_gives_way_to_the_one_with_the_orders(shop: Shop) -> None:
    """Both hosts are lost, the dump cannot be read; then both hosts are switched on again."""
    assert not any(shelf["backups"] for shelf in shop.operator.json("backup", SITE, "--list")), "else one is restored"
    primary, replica = shop.holders()
    unreadable = shop.variant("unreadable", lambda data: data["database"].update(dump="nowhere.sql.gz"))
    with shop.shoppers("empty") as crowd:
        crowd.wait_for_orders(LAG, 0)
        for server in (primary, replica):
            shop.switch_off(shop.at(server))
        empty = shop.operator.recover("--accept-loss", "unknown", site=unreadable)
        assert empty.code == 3, told(empty)
        assert "db-1/restore" in {k for k, s in empty.state.steps.items() if s.status == "blocked"}
        shop.mend_hosts()
        runs = [shop.operator.recover()]
        while runs[-1].code != 0 and len(runs) < 3:
            runs.append(shop.operator.recover())
        assert runs[-1].code == 0, told(runs[-1])
        crowd.wait_for_orders(1, time.time())
    assert losses(runs[-1]) == []
    assert shop.expect_kept(crowd) == 0
    shop.mend()


@pytest.mark.chaos
def test_the_primary_of_the_replicas_group_is_no_more_replaceable_than_the_other(shop: Shop) -> None:
    """Its inventory drifts, then its host comes back without its storage: it is neither made anew nor passed over."""
    if shop.holders()[0] != "idx-1":
        moved = shop.operator.run("failback", SITE, "--to", "idx-1", "--yes")
        assert moved.code == 0, told(moved)
    drifted = shop.variant("drifted", lambda data: group(data, "indexer").update(memory_mib=800))
    host = shop.at("idx-1")
    with shop.shoppers("guarded") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        drift = shop.operator.recover(site=drifted)
        assert (drift.code, drift.changed()) == (0, set()), told(drift)
        shop.switch_off(host)
        shop.lab("power-on", host)
        shop.inside(host, "mount", "-t", "tmpfs", "none", POOL)
        blocked = shop.operator.recover(site=drifted)
        shop.inside(host, "umount", POOL)
        assert blocked.code == 3, told(blocked)
        assert not {k for k in blocked.changed() if k.startswith(("idx-1/", "db-1/")) or "/idx-1/" in k}, told(blocked)
        ran = shop.operator.recover(site=drifted)
        assert ran.code == 0, told(ran)
        crowd.wait_for_orders(1, time.time())
    assert losses(ran) == []
    assert shop.holders()[0] == "idx-1"
    assert shop.expect_kept(crowd) == 0
    shop.mend()


@pytest.mark.chaos
def test_the_only_copy_is_not_left(shop: Shop) -> None:
    """With and without backups behind it."""
    primary, replica = shop.holders()
    host = shop.at(primary)
    with shop.shoppers("only") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        shop.switch_off(shop.at(replica))
        refused = shop.operator.run("failover", SITE, host, "--yes")
        assert refused.code == 3, told(refused)
        assert " there may hold orders that are nowhere else" in " ".join(refused.err.split()), told(refused)
        assert shop.at(primary) == host
        shop.mend()
        crowd.wait_for_orders(1, time.time())
    assert shop.expect_kept(crowd) == 0


@pytest.mark.chaos
def test_a_monitors_new_password_harms_nobody(shop: Shop) -> None:
    """The databases refuse it: none is power-cycled, retired, or passed over."""
    before = {s: shop.at(s) for s in ("db-1", "idx-1")}
    pids = {h: shop.inside(h, "pgrep", "-f", "guest=").split() for h in before.values()}
    secrets = shop.lab_folder / "secrets.yaml"
    old = secrets.read_text()
    values = yaml.safe_load(old)
    with shop.shoppers("rotated") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        secrets.write_text(yaml.safe_dump({**values, "db/monitor": "another one"}))
        try:
            refused = shop.operator.recover()
        finally:
            secrets.write_text(old)
        assert refused.code == 3, told(refused)
        stops = [s.problem for s in refused.state.steps.values() if isinstance(s.problem, StepBlocked)]
        assert any("refuses the password of monitor" in s.what for s in stops), stops
        assert {s: shop.at(s) for s in before} == before
        assert {h: shop.inside(h, "pgrep", "-f", "guest=").split() for h in before.values()} == pids
        crowd.wait_for_orders(1, time.time())
    assert shop.expect_kept(crowd) == 0
    shop.mend()


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
        runs = shop.recover_with_consent()
        assert f"{replica}/stream-0" in runs[-1].state.steps
        crowd.wait_for_orders(1, time.time())
    assert shop.expect_kept(crowd, *runs) == 0
    shop.mend()


# -- sites of their own


@pytest.mark.chaos
def test_two_hosts_in_all_are_enough(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(images, tmp_path_factory, inventory(hosts=2, site="two")) as shop:
        primary, replica = shop.holders()
        with shop.shoppers("two") as crowd:
            crowd.wait_for_orders(WARM_ORDERS, 0)
            shop.switch_off(shop.at(primary))
            ran = shop.operator.recover()
            assert ran.code == 3, told(ran)
            assert ran.state.steps[f"{replica}/promote"].status == "done"
            assert ran.state.steps["journey"].status == "done"
            crowd.wait_for_orders(WARM_ORDERS, time.time())
            assert losses(ran)[0].startswith("no acknowledged order is lost")
            shop.mend()
            crowd.wait_for_orders(1, time.time())
        assert shop.expect_kept(crowd, ran) == 0
        assert shop.holders() == (replica, primary)
        shop.expect_whole()


@pytest.mark.chaos
def test_where_commits_wait_no_order_is_on_one_disk_alone(
    images: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After a restart of the primary's MariaDB while the replica is away, and from a promotion to the next replica."""
    data = inventory(site="waiting")
    data["database"]["semi_sync"]["alone"] = "wait"
    with running(images, tmp_path_factory, data) as shop:
        primary, replica = shop.holders()
        with shop.shoppers("waiting") as crowd:
            crowd.wait_for_orders(WARM_ORDERS, 0)
            shop.operator.on(replica, "systemctl", "stop", "mariadb")
            shop.operator.on(primary, "systemctl", "restart", "mariadb")
            alone = time.time()
            time.sleep(ALONE_S)
            assert not [e for e in crowd.entries() if e.number and e.at > alone]
            shop.operator.on(replica, "systemctl", "start", "mariadb")
            crowd.wait_for_orders(WARM_ORDERS, time.time())
            shop.switch_off(shop.at(primary))
            began = time.time()
            ran = shop.operator.recover()
            assert ran.code == 0, told(ran)
            promoted, followed = (moment(ran, key) for key in (f"{replica}/promote", f"{primary}/follow"))
            assert promoted < followed
            assert not [e for e in crowd.entries() if e.number and began + promoted < e.at < began + followed]
            crowd.wait_for_orders(WARM_ORDERS, time.time())
        assert losses(ran)[0].startswith("no acknowledged order is lost")
        assert shop.expect_kept(crowd, ran) == 0


def moment(ran: Ran, key: str) -> float:
    """When a step began to do its work or, of a promotion, was done; in seconds after the run's start."""
    kind = StepDone if key.endswith("/promote") else StepStarted
    return next(e.at for e in ran.events if isinstance(e, kind) and e.step == key)
