"""The database's guests: who is the primary, how a replica comes to be, and what survives.

Two real MariaDBs with the demo site's own files and scripts, each in namespaces of its own with
its real address; a cable between them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from pcloud.inventory import defaults_dir, load_site
from pcloud.observe_data import _ask_inside, _see
from pcloud.world import World
from tests.guests import eventually, guests, rendered
from tests.mariadbs import (
    IDX,
    PRIMARY,
    SERVICE,
    Pair,
    Place,
    copy,
    orders,
    place_order,
    restore,
    role,
    slave,
)


@pytest.fixture
def pair(tmp_path: Path, data: Path) -> Iterator[Pair]:
    """Both servers as they are after their first start: no data, no primary, no address `db`."""
    with ExitStack() as stack:
        db, idx = stack.enter_context(guests(tmp_path, rendered(tmp_path), ("db-1", "idx-1"), ("mariadb",)))
        made = Pair(db, idx, tmp_path, stack)
        made.begin(data)
        yield made


def replicate(pair: Pair) -> None:
    """From two empty servers to a primary with a replica that acknowledges."""
    restore(pair.db)
    restore(pair.idx)
    pair.db.run(PRIMARY, "take")
    pair.idx.run("/usr/lib/pcloud/follow", SERVICE)
    pair.db.sql("SET GLOBAL rpl_semi_sync_master_enabled=ON")
    eventually(lambda: "ON" in pair.db.sql("SHOW STATUS LIKE 'Rpl_semi_sync_master_status'"))


def test_nobody_is_the_primary_by_itself(pair: Pair) -> None:
    for guest in (pair.db, pair.idx):
        assert role(guest) == "replica"
        assert guest.sql("SELECT @@read_only") == "1"
        assert SERVICE not in guest.run("ip", "address").stdout


def test_the_primary_takes_and_releases_the_address_and_the_writing(pair: Pair) -> None:
    for _ in range(2):
        pair.db.run(PRIMARY, "take")
        assert role(pair.db) == "primary"
    assert pair.db.sql("SELECT @@read_only") == "0"
    assert pair.idx.run("busybox", "arping", "-c", "1", "-w", "2", "-I", "eth0", SERVICE).returncode == 0
    for _ in range(2):
        pair.db.run(PRIMARY, "release")
        assert role(pair.db) == "replica"
    assert pair.db.sql("SELECT @@read_only") == "1"
    assert SERVICE not in pair.db.run("ip", "address").stdout


def test_two_never_hold_the_address(pair: Pair) -> None:
    pair.db.run(PRIMARY, "take")
    refused = pair.idx.run(PRIMARY, "take", check=False)
    assert refused.returncode == 4
    assert SERVICE in refused.stderr
    assert pair.idx.sql("SELECT @@read_only") == "1"
    assert SERVICE not in pair.idx.run("ip", "address").stdout


def test_a_primary_that_starts_again_is_the_primary_unless_another_took_its_place(pair: Pair) -> None:
    pair.db.run(PRIMARY, "take")
    pair.crash(pair.db)
    pair.start(pair.db)
    assert role(pair.db) == "primary"
    pair.crash(pair.db)
    pair.db.run("ip", "address", "del", f"{SERVICE}/24", "dev", "eth0")
    pair.idx.run(PRIMARY, "take")
    pair.start(pair.db)
    assert role(pair.db) == "replica"
    pair.idx.run(PRIMARY, "release")
    pair.db.run(PRIMARY, "boot")
    assert role(pair.db) == "replica", "it has been told once: later silence does not make it the primary again"


def test_clients_are_cut_off_when_the_role_is_released(pair: Pair) -> None:
    restore(pair.db)
    pair.db.run(PRIMARY, "take", "alone")
    shop = "user IN ('shop')"
    account = pair.db.sql("SELECT CONCAT(user, '@', host) FROM mysql.user WHERE user='shop'").split("@")[1]
    assert account == "10.77.0.0/255.255.255.0"
    pair.db.sql("GRANT ALL ON shop.* TO shop@localhost IDENTIFIED BY 'x'")
    hold = "START TRANSACTION; UPDATE partner_partner SET name='y'; SELECT SLEEP(60);"
    client = pair.db.argv("mariadb", "--user=shop", "--password=x", "shop")
    with subprocess.Popen([*client, "-e", hold], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: pair.db.sql(f"SELECT COUNT(*) FROM information_schema.processlist WHERE {shop}") == "1")
        pair.db.run(PRIMARY, "release", timeout_s=30)
        assert process.wait(30) != 0
    assert pair.db.sql("SELECT COUNT(*) FROM shop.partner_partner WHERE name='y'") == "0"


def test_a_replica_from_nothing_follows_and_acknowledges(pair: Pair) -> None:
    replicate(pair)
    place_order(pair.db, 1)
    eventually(lambda: orders(pair.idx) == {"order-1"})
    refused = pair.idx.run("mariadb", "--user=monitor", "-e", "DELETE FROM shop.partner_partner", check=False)
    assert refused.returncode != 0


def test_a_copy_is_whole_and_follows_from_its_own_moment(pair: Pair) -> None:
    restore(pair.db)
    pair.db.run(PRIMARY, "take", "alone")
    place_order(pair.db, 1)
    pair.idx.sql("CREATE DATABASE shop_old; INSERT INTO mysql.time_zone_name VALUES ('x', 1)")
    copy(pair, pair.idx)
    assert orders(pair.idx) == {"order-1"}
    assert pair.idx.sql("SELECT state FROM pcloud.restored") == "restored"
    assert pair.idx.sql("SELECT @@gtid_slave_pos") == pair.db.sql("SELECT @@gtid_current_pos") != ""
    place_order(pair.db, 2)
    pair.idx.run("/usr/lib/pcloud/follow", SERVICE)
    eventually(lambda: orders(pair.idx) == {"order-1", "order-2"})
    copy(pair, pair.idx)
    pair.idx.run("/usr/lib/pcloud/follow", SERVICE)
    place_order(pair.db, 3)
    eventually(lambda: orders(pair.idx) == {"order-1", "order-2", "order-3"})


def test_a_copy_that_does_not_follow_yet_says_of_whom_it_is_one(pair: Pair) -> None:
    """And is promoted as it is, when its primary is gone before it followed."""
    restore(pair.db)
    pair.db.run(PRIMARY, "take", "alone")
    place_order(pair.db, 1)
    copy(pair, pair.idx)
    pair.crash(pair.idx)
    pair.start(pair.idx)
    shown = slave(pair.idx)
    assert (shown["Master_Host"], shown["Slave_IO_Running"]) == (SERVICE, "No")
    pair.db.run("ip", "link", "set", "eth0", "down")
    pair.idx.run(PRIMARY, "promote", "10")
    assert (role(pair.idx), orders(pair.idx), slave(pair.idx)) == ("primary", {"order-1"}, {})


def test_data_that_pcloud_did_not_bring_are_copied_too(pair: Pair) -> None:
    restore(pair.db)
    pair.db.sql("SET sql_log_bin=0; DROP DATABASE pcloud")
    pair.db.run(PRIMARY, "take", "alone")
    copy(pair, pair.idx)
    assert pair.idx.sql("SELECT CONCAT(state, ' ', token) FROM pcloud.restored") == "restored unmarked"


def test_the_primary_is_never_overwritten(pair: Pair) -> None:
    restore(pair.db)
    pair.db.run(PRIMARY, "take")
    refused = pair.db.run("/usr/lib/pcloud/follow", IDX, check=False)
    assert refused.returncode == 1
    assert "is the primary" in refused.stderr
    pair.db.run("/usr/lib/pcloud/copy-from", "begin", stdin=f"{IDX} 1 10.11 {SERVICE}\nkey\nkey\n")
    state = partial(pair.db.run, "/usr/lib/pcloud/copy-from", "ask")
    eventually(lambda: state().stdout.startswith("ended 1\n"))
    assert "is the primary" in state().stdout
    assert pair.db.sql("SELECT COUNT(*) FROM pcloud.restored") == "1"


def test_what_was_acknowledged_survives_a_crash_of_the_primary(pair: Pair) -> None:
    """Semi-sync and crash recovery: MariaDB takes unacknowledged commits back on a replica that crashed
    as one (MDEV-21117); a primary that is started again must keep all."""
    replicate(pair)
    for number in range(40):
        place_order(pair.db, number)
    pair.crash(pair.db)
    pair.start(pair.db)
    assert orders(pair.db) == {f"order-{n}" for n in range(40)}
    pair.db.sql("SET GLOBAL rpl_semi_sync_master_enabled=ON")
    place_order(pair.db, 40)
    eventually(lambda: orders(pair.idx) == {f"order-{n}" for n in range(41)})


def test_roles_swap_and_swap_back_without_a_gap(pair: Pair) -> None:
    replicate(pair)
    for number, (old, new) in enumerate([(pair.db, pair.idx), (pair.idx, pair.db)]):
        place_order(old, number)
        old.run(PRIMARY, "release")
        last = old.sql("SELECT @@gtid_current_pos")
        assert new.sql(f"SELECT MASTER_GTID_WAIT('{last}', 20)") == "0"
        new.sql("STOP SLAVE; RESET SLAVE ALL")
        new.run(PRIMARY, "take")
        old.run("/usr/lib/pcloud/follow", SERVICE)
        place_order(new, number + 10)
        eventually(partial(lambda one, other: orders(one) == orders(other), old, new))
        assert slave(old)["Slave_SQL_Running"] == slave(old)["Slave_IO_Running"] == "Yes"
    assert orders(pair.db) == {"order-0", "order-1", "order-10", "order-11"}


def test_a_frozen_replica_holds_an_order_back_until_the_policy_says_otherwise(pair: Pair) -> None:
    replicate(pair)
    pair.db.sql("SET GLOBAL rpl_semi_sync_master_timeout=1000")
    pair.idx.run("pkill", "-STOP", "-x", "mariadbd")
    place_order(pair.db, 1)
    assert "OFF" in pair.db.sql("SHOW STATUS LIKE 'Rpl_semi_sync_master_status'")
    pair.idx.run("pkill", "-CONT", "-x", "mariadbd")
    eventually(lambda: "ON" in pair.db.sql("SHOW STATUS LIKE 'Rpl_semi_sync_master_status'"))
    eventually(lambda: orders(pair.idx) == {"order-1"})


def test_a_server_says_from_inside_what_it_says_to_the_monitor(pair: Pair) -> None:
    """As it is asked where the monitor's password is another one than that of its seed."""
    replicate(pair)
    place_order(pair.db, 1)
    eventually(lambda: orders(pair.idx) == {"order-1"})
    site = load_site(defaults_dir("inventory") / "demo.yaml")
    world = cast(World, Place(pair.db, pair.idx, pair.folder / "log", site))
    seen = {name: _see(world, partial(_ask_inside, world, name)) for name in ("db-1", "idx-1")}
    assert (seen["db-1"].writable, seen["idx-1"].writable) == (True, False)
    assert (seen["db-1"].source, seen["idx-1"].source) == ("", SERVICE)
    assert seen["idx-1"].replicating and seen["idx-1"].behind_s == 0
    assert seen["db-1"].position == seen["idx-1"].position == seen["idx-1"].received != ""
    assert seen["db-1"].restored == seen["idx-1"].restored == "t"
    assert seen["db-1"].semi_sync and seen["idx-1"].semi_sync
