"""A promotion takes all that was received, begins a timeline in the data, and lets commits wait before the first write.

Two real MariaDBs, as in test_mariadb.py. What is received and not applied is made by stopping the replica's
SQL thread; the primary is gone when its cable is cut.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pcloud.errors import Blocked, CheckFailed
from pcloud.gtid import behind
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.kept import FOREVER_MS, Heard, Sighting, Timeline
from pcloud.loss import claimed, latest_of, measure
from pcloud.observe_data import _ask_inside, _see, _with_kept
from pcloud.observed import SeenDatabase
from pcloud.steps.base import Met
from pcloud.steps.database import Restore
from pcloud.steps.promotion import Promote, parse_progress
from pcloud.steps.replication import SemiSync, Switch
from tests.guests import Guest, eventually, guests, rendered
from tests.mariadbs import (
    PRIMARY,
    RESTORED,
    SERVICE,
    Pair,
    Place,
    Quiet,
    copy,
    orders,
    place_order,
    restore,
    role,
    slave,
)

FOLLOW, REPLICA = "/usr/lib/pcloud/follow", "/usr/lib/pcloud/replica"
KEPT, LEFT = "/var/lib/pcloud/relay", "/var/lib/pcloud/relay-left"
FIRST, SECOND = "1417", "2100"
"""Timelines."""
ROWS = "SELECT CONCAT_WS('|', domain, parent, branched, server, why) FROM pcloud.timelines ORDER BY domain"
WAITING = "SELECT CONCAT(IF(@@rpl_semi_sync_master_enabled, 1, 0), ' ', @@rpl_semi_sync_master_timeout)"


@pytest.fixture(params=["copied"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, data: Path) -> Iterator[Pair]:
    """db-1 is the primary, idx-1 follows it; both have order-1. `linked`: its folders are of one file system."""
    with ExitStack() as stack:
        db, idx = stack.enter_context(guests(tmp_path, rendered(tmp_path), ("db-1", "idx-1"), ("mariadb",)))
        made = Pair(db, idx, tmp_path, stack)
        if request.param == "linked":
            idx.run("umount", "/var/lib/mysql", "/var/lib/pcloud")
        made.begin(data)
        restore(db)
        db.run(PRIMARY, "take", "alone")
        place_order(db, 1)
        copy(made, idx)
        idx.run(FOLLOW, SERVICE)
        db.run(PRIMARY, "waits", "20")
        yield made


def place(pair: Pair) -> Any:
    """What the steps ask of a world."""
    site = load_inventory(defaults_dir("inventory") / "demo.yaml").site
    return Place(pair.db, pair.idx, pair.folder, site)


def names(*numbers: int) -> set[str]:
    return {f"order-{n}" for n in numbers}


def cable(guest: Guest, state: str) -> None:
    guest.run("ip", "link", "set", "eth0", state)


def position(guest: Guest) -> str:
    return guest.sql("SELECT @@gtid_current_pos")


@contextmanager
def watching(pair: Pair, guest: Guest) -> Iterator[None]:
    with guest.daemon(REPLICA, "watch", log=pair.folder / f"{guest.name}.watch"):
        yield


def receive_only(pair: Pair, *numbers: int) -> None:
    """These orders are acknowledged, received by the replica, and not applied there."""
    pair.idx.sql("STOP SLAVE SQL_THREAD")
    for number in numbers:
        place_order(pair.db, number)
    eventually(lambda: not behind(slave(pair.idx)["Gtid_IO_Pos"], position(pair.db)))


def promote(pair: Pair, *words: str) -> str:
    return pair.idx.run(PRIMARY, "promote", "20", *words).stdout.splitlines()[0]


def test_a_promotion_begins_a_timeline_that_everybody_carries(pair: Pair) -> None:
    left = position(pair.db)
    cable(pair.db, "down")
    reached = promote(pair, "-", FIRST, "db-1 is gone; nothing is lost")
    assert pair.idx.sql(ROWS) == f"{FIRST}|0|{left}|idx-1|db-1 is gone; nothing is lost"
    assert reached.startswith(f"{left},{FIRST}-")
    place_order(pair.idx, 2)
    # the other one is made anew, as a copy
    pair.db.run("rm", "/var/lib/pcloud/primary")
    pair.db.run("ip", "address", "del", f"{SERVICE}/24", "dev", "eth0")
    pair.db.sql("SET GLOBAL read_only=ON")
    cable(pair.db, "up")
    copy(pair, pair.db)
    assert pair.db.sql(ROWS) == pair.idx.sql(ROWS)
    assert behind(pair.db.sql("SELECT @@gtid_slave_pos"), position(pair.idx)) == 0
    assert pair.db.sql("SELECT @@gtid_binlog_pos") == pair.db.sql("SELECT @@gtid_slave_pos")
    pair.db.run(FOLLOW, SERVICE)
    place_order(pair.idx, 3)
    eventually(lambda: orders(pair.db) == names(1, 2, 3))
    # an orderly fail-back goes on in the same timeline, with the next number
    before = position(pair.idx)
    Switch("idx-1", "db-1", 20).do(place(pair), Quiet())
    pair.idx.run(FOLLOW, SERVICE)
    place_order(pair.db, 4)
    after = position(pair.db)
    assert behind(before, after) == 1
    assert FIRST in after.split(",")[1]
    eventually(lambda: orders(pair.idx) == names(1, 2, 3, 4))
    # and a later promotion begins another one, whose parent this is
    cable(pair.db, "down")
    promote(pair, "-", SECOND, "again")
    assert pair.idx.sql(ROWS).splitlines()[1] == f"{SECOND}|{FIRST}|{after}|idx-1|again"
    place_order(pair.idx, 5)
    pair.crash(pair.idx)
    pair.start(pair.idx)
    pair.idx.run(PRIMARY, "alone")
    place_order(pair.idx, 6)
    assert int(position(pair.idx).split(",")[2].split("-")[2]) == 3


def test_a_replica_follows_over_a_promotion(pair: Pair) -> None:
    Switch("db-1", "idx-1", 20).do(place(pair), Quiet())
    pair.db.run(FOLLOW, SERVICE)
    pair.idx.run(PRIMARY, "promote", "5", "-", FIRST, "in place")
    place_order(pair.idx, 2)
    eventually(lambda: orders(pair.db) == names(1, 2))
    assert pair.db.sql(ROWS) == pair.idx.sql(ROWS)
    assert behind(pair.db.sql("SELECT @@gtid_slave_pos"), position(pair.idx)) == 0


def test_a_dead_branch_is_refused_by_the_living_one(pair: Pair) -> None:
    pair.idx.sql("STOP SLAVE IO_THREAD")
    pair.db.run(PRIMARY, "alone")
    for number in (2, 3, 4):
        place_order(pair.db, number)
    cable(pair.db, "down")
    promote(pair, "-", FIRST, "up to 3 transactions are lost")
    for number in range(5, 12):
        place_order(pair.idx, number)
    pair.db.run("rm", "/var/lib/pcloud/primary")
    pair.db.run("ip", "address", "del", f"{SERVICE}/24", "dev", "eth0")
    cable(pair.db, "up")
    pair.db.run(FOLLOW, SERVICE)
    eventually(lambda: slave(pair.db)["Last_IO_Errno"] == "1236")
    assert orders(pair.db) == names(1, 2, 3, 4)
    assert behind(position(pair.idx), position(pair.db)) == 3


def test_what_was_received_is_applied_though_the_sql_thread_stood(pair: Pair) -> None:
    receive_only(pair, 2, 3)
    cable(pair.db, "down")
    began = time.monotonic()
    promote(pair)
    assert time.monotonic() - began < 15
    assert orders(pair.idx) == names(1, 2, 3)
    assert pair.idx.sql("SELECT COUNT(*) FROM shop.partner_partner WHERE code IN ('order-2')") == "1"


def test_what_was_received_is_applied_though_both_threads_stood(pair: Pair) -> None:
    receive_only(pair, 2, 3)
    cable(pair.db, "down")
    pair.idx.sql("STOP SLAVE")
    reached = promote(pair, "-", FIRST, "x")
    assert orders(pair.idx) == names(1, 2, 3)
    assert reached.split(",")[0].split("-")[2] == "3"
    assert (role(pair.idx), slave(pair.idx)) == ("primary", {})
    assert pair.idx.run("test", "-e", KEPT, check=False).returncode == 1
    place_order(pair.idx, 4)


@pytest.mark.parametrize("pair", ["copied", "linked"], indirect=True)
def test_a_person_who_starts_the_threads_loses_nothing(pair: Pair) -> None:
    """MariaDB throws the relay log away when both threads stood and one is started."""
    with watching(pair, pair.idx):
        receive_only(pair, 2, 3)
        cable(pair.db, "down")
        pair.idx.sql("STOP SLAVE")
        eventually(lambda: pair.idx.run("test", "-e", f"{KEPT}/received", check=False).returncode == 0)
        time.sleep(2.5)
        pair.idx.sql("START SLAVE SQL_THREAD")
        assert orders(pair.idx) == names(1)
        time.sleep(2.5)
        promote(pair)
    assert orders(pair.idx) == names(1, 2, 3)


@pytest.mark.parametrize("pair", ["copied", "linked"], indirect=True)
def test_a_restart_of_the_lagging_replica_loses_nothing(pair: Pair) -> None:
    receive_only(pair, 2, 3)
    cable(pair.db, "down")
    with watching(pair, pair.idx):
        for _ in range(2):
            pair.crash(pair.idx)
            pair.start(pair.idx)
            time.sleep(3)
            assert slave(pair.idx)["Slave_IO_Running"] == slave(pair.idx)["Slave_SQL_Running"] == "No"
        promote(pair)
    assert orders(pair.idx) == names(1, 2, 3)


@pytest.mark.parametrize("pair", ["copied", "linked"], indirect=True)
def test_the_threads_start_once_the_primary_answers(pair: Pair) -> None:
    with watching(pair, pair.idx):
        receive_only(pair, 2, 3)
        cable(pair.db, "down")
        pair.crash(pair.idx)
        pair.start(pair.idx)
        time.sleep(3)
        assert slave(pair.idx)["Slave_SQL_Running"] == "No"
        cable(pair.db, "up")
        eventually(lambda: orders(pair.idx) == names(1, 2, 3))
        eventually(lambda: pair.idx.run("test", "-e", KEPT, check=False).returncode == 1)
        pair.idx.sql("STOP SLAVE")
        time.sleep(5)
        assert slave(pair.idx)["Slave_SQL_Running"] == "No", "who stopped them starts them"


@pytest.mark.parametrize("both", [False, True])
def test_a_transaction_that_cannot_be_applied_is_said_at_once(pair: Pair, both: bool) -> None:
    receive_only(pair, 2, 3, 4)
    pair.idx.sql(
        "SET sql_log_bin=0; INSERT INTO shop.partner_partner (id, code, name) SELECT MAX(id) + 2, 'mine', 'x'"
        " FROM shop.partner_partner"
    )
    cable(pair.db, "down")
    if both:
        pair.idx.sql("STOP SLAVE")
    step = Promote("idx-1", "", 120)
    for _ in range(2):
        with pytest.raises(Blocked) as refused:
            step.do(place(pair), Quiet())
        assert "error 1062" in refused.value.what
        assert "Duplicate entry" in refused.value.what
        assert f"transaction {position(pair.db).rpartition('-')[0]}-3 " in refused.value.what
        assert "--accept-loss unknown" in refused.value.next
    assert orders(pair.idx) == names(1, 2)
    assert role(pair.idx) == "replica"
    pair.idx.sql("SET sql_log_bin=0; DELETE FROM shop.partner_partner WHERE code='mine'")
    step.do(place(pair), Quiet())
    assert orders(pair.idx) == names(1, 2, 3, 4)


def test_a_person_may_leave_the_rest_and_it_is_kept(pair: Pair) -> None:
    """Only what cannot be applied is left."""
    receive_only(pair, 2, 3)
    conflict = "SELECT MAX(id) + 2, 'mine', 'x' FROM shop.partner_partner"
    pair.idx.sql(f"SET sql_log_bin=0; INSERT INTO shop.partner_partner (id, code, name) {conflict}")
    cable(pair.db, "down")
    pair.idx.sql("STOP SLAVE")
    timeline = Timeline(int(FIRST), 0, "", "idx-1", "what was received is lost: unknown")
    Promote("idx-1", "", 120, timeline, leaves=True).do(place(pair), Quiet())
    assert orders(pair.idx) == names(1, 2)
    assert "relay." in pair.idx.run("find", LEFT).stdout
    place_order(pair.idx, 9)


def test_a_delayed_replica_is_promoted_at_once(pair: Pair) -> None:
    pair.idx.sql("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY=3600; START SLAVE")
    for number in (2, 3):
        place_order(pair.db, number)
    eventually(lambda: not behind(slave(pair.idx)["Gtid_IO_Pos"], position(pair.db)))
    cable(pair.db, "down")
    promote(pair)
    assert orders(pair.idx) == names(1, 2, 3)


@pytest.mark.parametrize("both", [False, True])
def test_a_slow_one_shows_progress_and_is_given_up_only_when_nothing_moves(pair: Pair, both: bool) -> None:
    receive_only(pair, 2, 3)
    cable(pair.db, "down")
    if both:
        pair.idx.sql("STOP SLAVE")
    lock = pair.idx.argv("mariadb", "-e", "LOCK TABLES shop.partner_partner WRITE; SELECT SLEEP(600)")
    with subprocess.Popen(lock, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as holder:
        eventually(lambda: "SLEEP" in pair.idx.sql("SHOW PROCESSLIST"))
        report = Quiet()
        with pytest.raises(CheckFailed) as given_up:
            Promote("idx-1", "", 3).do(place(pair), report)
        assert "2 transactions are left" in given_up.value.what
        assert any("applying" in line for line in report.said)
        pair.idx.sql("SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE info LIKE '%SLEEP(600)%'")
        killer = (
            "SELECT id FROM information_schema.processlist WHERE info LIKE '%SLEEP(600)%' AND id <> CONNECTION_ID()"
        )
        pair.idx.sql(f"KILL {pair.idx.sql(killer)}")
        holder.wait(20)
    Promote("idx-1", "", 30).do(place(pair), Quiet())
    assert orders(pair.idx) == names(1, 2, 3)


@pytest.mark.parametrize("both", [False, True])
def test_a_full_disk_is_named_and_with_room_it_goes_on(pair: Pair, both: bool) -> None:
    """MariaDB waits for room, for ever and without a word."""
    receive_only(pair, 2, 3, 4)
    cable(pair.db, "down")
    if both:
        pair.idx.sql("STOP SLAVE")
    fill = "df --output=used -k /var/lib/mysql | tail -n 1 | xargs -I N mount -o remount,size=Nk /var/lib/mysql"
    pair.idx.run("sh", "-c", fill)
    began = time.monotonic()
    with pytest.raises(CheckFailed) as failed:
        Promote("idx-1", "", 120).do(place(pair), Quiet())
    assert time.monotonic() - began < 60
    assert "its disk is full" in failed.value.what
    assert "df -h /var/lib/mysql" in failed.value.next
    pair.idx.run("mount", "-o", "remount,size=2g", "/var/lib/mysql")
    Promote("idx-1", "", 120).do(place(pair), Quiet())
    assert orders(pair.idx) == names(1, 2, 3, 4)


def test_progress_is_read_from_what_the_guest_prints() -> None:
    found = parse_progress("0-1-5 0-1-9,1417-2-1 77\n")
    assert (found.left, found.work) == (5, 77)
    assert parse_progress("- - x").left == 0


def syncs(guest: Guest, log: Path, act: Callable[[], object]) -> Counter[str]:
    """How often MariaDB makes sure that a file is on the disk, meanwhile; by the file's name, without a number."""
    pid = guest.run("pgrep", "-x", "mariadbd").stdout.strip()
    trace = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", "/tmp/syncs", "-p", pid]
    with guest.daemon(*trace, log=log):
        eventually(lambda: "attached" in log.read_text())
        act()
        guest.run("pkill", "-INT", "-x", "strace")
        eventually(lambda: guest.run("pgrep", "-x", "strace", check=False).returncode)
    return Counter(re.findall(r"sync\(\d+<\S*/([a-z_.]*[a-z])[.0-9]*>", guest.run("cat", "/tmp/syncs").stdout))


def test_what_a_replica_acknowledges_is_on_its_disk(pair: Pair) -> None:
    """Each event of a transaction is; here it has four: its GTID, the table, the row, the commit."""
    settings = "SELECT @@sync_relay_log, @@sync_master_info, @@sync_binlog, @@innodb_flush_log_at_trx_commit"
    assert pair.idx.sql(settings).split() == ["1", "1", "1", "1"]
    pair.idx.sql("STOP SLAVE SQL_THREAD")

    def three() -> None:
        for number in (2, 3, 4):
            place_order(pair.db, number)

    found = syncs(pair.idx, pair.folder / "order", three)
    assert found["relay"] == 12
    found = syncs(pair.idx, pair.folder / "follow", lambda: pair.idx.run(FOLLOW, SERVICE))
    assert found["master.info"], "whom it follows is on its disk, too"


@pytest.mark.parametrize("pair", ["linked"], indirect=True)
def test_what_a_replica_had_received_is_not_given_up_unsaid(pair: Pair) -> None:
    """Its disk lost what it had said to be there: nobody promotes it on a plan that counts on that."""
    with watching(pair, pair.idx):
        receive_only(pair, 2, 3)
        eventually(lambda: heard(pair.idx)[1] == position(pair.db))
        cable(pair.db, "down")
    pair.crash(pair.idx)
    pair.idx.run("sh", "-c", f"rm -rf {KEPT} /var/lib/mysql/relay.0*; : >/var/lib/mysql/relay.index")
    pair.start(pair.idx)
    with pytest.raises(Blocked) as refused:
        Promote("idx-1", "", 120).do(place(pair), Quiet())
    assert f"had received {position(pair.db)}, and no relay log that is left holds it" in refused.value.what
    assert role(pair.idx) == "replica"
    Promote("idx-1", "", 120, leaves=True).do(place(pair), Quiet())
    assert (role(pair.idx), orders(pair.idx)) == ("primary", names(1))


def relay_log(guest: Guest) -> str:
    return guest.run("sh", "-c", "ls -S /var/lib/mysql/relay.0* | head -n 1").stdout.strip()


def events(guest: Guest, file: str) -> list[int]:
    said = guest.run("sh", "-c", f"mariadb-binlog --no-defaults {file} | sed -n 's/^# at //p'").stdout
    return [int(word) for word in said.split()]


@pytest.mark.parametrize("how", ["cut", "zeros"])
def test_a_relay_log_with_a_torn_end_is_applied_up_to_it(pair: Pair, how: str) -> None:
    receive_only(pair, 2, 3, 4)
    cable(pair.db, "down")
    pair.crash(pair.idx)
    log = relay_log(pair.idx)
    middle = events(pair.idx, log)[-2] + 25
    pair.idx.run("truncate", "-s", str(middle if how == "cut" else events(pair.idx, log)[-2]), log)
    if how == "zeros":
        pair.idx.run("truncate", "-s", str(middle + 4000), log)
    pair.start(pair.idx)
    promote(pair)
    assert orders(pair.idx) == names(1, 2, 3)


def test_a_relay_log_that_is_damaged_in_the_middle_is_said(pair: Pair) -> None:
    receive_only(pair, 2, 3, 4, 5)
    cable(pair.db, "down")
    pair.crash(pair.idx)
    log = relay_log(pair.idx)
    rows = list(events(pair.idx, log))[-9]
    pair.idx.run("sh", "-c", f"printf 'damaged' | dd of={log} bs=1 seek={rows + 24} conv=notrunc status=none")
    pair.start(pair.idx)
    with pytest.raises(Blocked) as refused:
        Promote("idx-1", "", 120).do(place(pair), Quiet())
    assert "is damaged" in refused.value.what
    kept = orders(pair.idx)
    assert names(1, 2) <= kept < names(1, 2, 3, 4, 5)
    Promote("idx-1", "", 120, leaves=True).do(place(pair), Quiet())
    assert orders(pair.idx) == kept


@pytest.mark.parametrize("both", [False, True])
def test_what_a_damaged_relay_log_had_is_taken_from_a_stream(pair: Pair, both: bool) -> None:
    """The damage is seen before anything is applied; the first promotion says it, the next one has the stream."""
    receive_only(pair, 2, 3, 4, 5)
    end = position(pair.db)
    packed = pair.db.argv("sh", "-c", "cd /var/lib/mysql && tar -cf - binlog.0*")
    tar = subprocess.run(packed, check=True, capture_output=True).stdout
    cable(pair.db, "down")
    log = relay_log(pair.idx)
    rows = events(pair.idx, log)[-9]
    pair.idx.run("sh", "-c", f"printf 'damaged' | dd of={log} bs=1 seek={rows + 24} conv=notrunc status=none")
    if both:
        pair.idx.sql("STOP SLAVE")
    world = place(pair)
    for _ in range(2):
        seen = _with_kept(world, "idx-1", _see(world, partial(_ask_inside, world, "idx-1")))
        assert 0 < behind(latest_of(seen), claimed(seen)) <= 4
        assert claimed(seen) == end
        assert seen.stuck == ""
        assert "its relay logs are damaged" in str(measure(seen, Sighting(end, 1, 30_000), Heard({"fe-1": 0.0})))
        with pytest.raises(Blocked) as refused:
            Promote("idx-1", "", 120).do(world, Quiet())
        assert "the relay log is damaged" in refused.value.what
    assert pair.idx.run(REPLICA, "has", end, check=False).returncode != 0
    subprocess.run(pair.idx.argv(REPLICA, "add", end), input=tar, check=True)
    assert pair.idx.run(REPLICA, "has", end).returncode == 0
    Promote("idx-1", "", 120).do(world, Quiet())
    assert orders(pair.idx) == names(1, 2, 3, 4, 5)


@pytest.mark.parametrize("pair", ["copied", "linked"], indirect=True)
def test_what_is_kept_counts_as_received_also_after_a_restart(pair: Pair) -> None:
    """MariaDB itself has forgotten it; a damaged log counts as far as it can be applied."""
    with watching(pair, pair.idx):
        receive_only(pair, 2, 3, 4)
        latest = position(pair.db)
        eventually(lambda: heard(pair.idx)[1] == latest)
        cable(pair.db, "down")
        pair.crash(pair.idx)
        pair.start(pair.idx)
    world = place(pair)

    def observe() -> SeenDatabase:
        return _with_kept(world, "idx-1", _see(world, partial(_ask_inside, world, "idx-1")))

    assert pair.idx.sql("SELECT @@sync_relay_log") == "1"
    assert "Gtid_IO_Pos" not in slave(pair.idx)
    assert behind(observe().position, latest) == 3
    assert latest_of(observe()) == latest
    for log in {relay_log(pair.idx), pair.idx.run("sh", "-c", f"ls -S {KEPT}/*/relay.0* | head -n 1").stdout.strip()}:
        last = events(pair.idx, log)[-2]
        pair.idx.run("sh", "-c", f"printf 'damaged' | dd of={log} bs=1 seek={last + 24} conv=notrunc status=none")
    assert behind(latest_of(observe()), latest) == 1


def test_a_group_that_spans_relay_logs_is_applied_whole(pair: Pair) -> None:
    pair.idx.sql("STOP SLAVE; SET GLOBAL max_relay_log_size=4096; START SLAVE")
    receive_only(pair, 2)
    rows = ", ".join(f"('bulk-{n}', '{'x' * 100}')" for n in range(300))
    pair.db.sql(f"INSERT INTO shop.partner_partner (code, name) VALUES {rows}; CREATE TABLE shop.more (id INT)")
    place_order(pair.db, 3)
    eventually(lambda: not behind(slave(pair.idx)["Gtid_IO_Pos"], position(pair.db)))
    cable(pair.db, "down")
    pair.idx.sql("STOP SLAVE")
    promote(pair)
    assert orders(pair.idx) == names(1, 2, 3)
    assert pair.idx.sql("SELECT COUNT(*) FROM shop.partner_partner WHERE code LIKE 'bulk-%'") == "300"
    assert pair.idx.sql("SELECT COUNT(*) FROM shop.more") == "0"


KILLER = """#!/bin/bash
# A client that ends its script after as many statements as /tmp/after says; all of them have been executed.
read -r left </tmp/after
{ while IFS= read -r -d ';' statement; do
    [ "$left" -gt 0 ] || break
    left=$((left - 1))
    printf '%s;\\n' "$statement"
done; [ "$left" -gt 0 ] || : >/tmp/killed; } | /usr/bin/mariadb "$@"
[ ! -e /tmp/killed ] || kill -KILL $PPID
"""


@pytest.mark.parametrize("both", [pytest.param(False, marks=pytest.mark.chaos), True])
def test_a_promotion_killed_between_every_two_statements_goes_on(pair: Pair, both: bool) -> None:
    receive_only(pair, 2, 3)
    cable(pair.db, "down")
    if both:
        pair.idx.sql("STOP SLAVE")
    pair.idx.run(
        "sh", "-c", "mkdir -p /tmp/killer; cat >/tmp/killer/mariadb; chmod 755 /tmp/killer/mariadb", stdin=KILLER
    )
    words = f"PATH=/tmp/killer:$PATH {PRIMARY} promote 20 - {FIRST} killed"
    for statements in range(1, 60):
        pair.idx.run("sh", "-c", f"rm -f /tmp/killed; echo {statements} >/tmp/after")
        done = pair.idx.run("sh", "-c", words, check=False)
        if pair.idx.run("test", "-e", "/tmp/killed", check=False).returncode:
            break
        assert pair.idx.sql("SELECT @@read_only") == "1" or names(1, 2, 3) == orders(pair.idx)
    assert done.returncode == 0, done.stderr
    assert statements > 20
    assert orders(pair.idx) == names(1, 2, 3)
    assert len(pair.idx.sql(ROWS).splitlines()) == 1
    assert pair.idx.sql(ROWS).split("|")[2] == position(pair.db)
    assert (role(pair.idx), slave(pair.idx)) == ("primary", {})


def acknowledged(guest: Guest, number: int, seconds: float = 3) -> bool:
    row = f"INSERT INTO shop.partner_partner (code, name) VALUES ('order-{number}', 'x')"
    return guest.run("timeout", str(seconds), "mariadb", "-e", row, check=False).returncode == 0


def test_wait_waits_after_a_promotion_and_after_a_restart(pair: Pair) -> None:
    cable(pair.db, "down")
    said = pair.idx.run(PRIMARY, "-t", str(FOREVER_MS), "promote", "10", "-", FIRST, "x").stdout.splitlines()
    assert said[1] == str(FOREVER_MS)
    for _ in range(2):
        assert pair.idx.sql(WAITING) == f"1 {FOREVER_MS}"
        assert pair.idx.sql("SELECT @@read_only") == "0"
        assert not acknowledged(pair.idx, 7)
        pair.crash(pair.idx)
        pair.start(pair.idx)
    pair.db.run("rm", "/var/lib/pcloud/primary")
    pair.db.run("ip", "address", "del", f"{SERVICE}/24", "dev", "eth0")
    cable(pair.db, "up")
    pair.db.run(FOLLOW, SERVICE)
    eventually(lambda: acknowledged(pair.idx, 8))
    step = SemiSync("idx-1", True, FOREVER_MS)
    step.do(place(pair), Quiet())
    assert isinstance(step.check(place(pair)), Met)


def test_degrade_starts_alone_after_a_promotion_and_remembers_it(pair: Pair) -> None:
    cable(pair.db, "down")
    assert pair.idx.run(PRIMARY, "promote", "10", "-", FIRST, "x").stdout.splitlines()[1] == "alone"
    for number in (5, 6):
        assert acknowledged(pair.idx, number)
        pair.crash(pair.idx)
        pair.start(pair.idx)
    pair.db.run("rm", "/var/lib/pcloud/primary")
    pair.db.run("ip", "address", "del", f"{SERVICE}/24", "dev", "eth0")
    cable(pair.db, "up")
    pair.db.run(FOLLOW, SERVICE)
    SemiSync("idx-1", True, 30000).do(place(pair), Quiet())
    pair.crash(pair.idx)
    pair.start(pair.idx)
    assert pair.idx.sql(WAITING) == "1 30000", "it waits again, as it did before"


def test_degrade_waits_after_a_restart_until_it_is_told_that_the_replica_is_gone(pair: Pair) -> None:
    pair.crash(pair.db)
    pair.start(pair.db)
    assert pair.db.sql(WAITING) == "1 30000"
    eventually(lambda: acknowledged(pair.db, 2))
    eventually(lambda: orders(pair.idx) == names(1, 2))
    cable(pair.idx, "down")
    assert not acknowledged(pair.db, 3)
    off = SemiSync("db-1", False, 30000)
    off.do(place(pair), Quiet())
    assert isinstance(off.check(place(pair)), Met)
    pair.crash(pair.db)
    pair.start(pair.db)
    assert acknowledged(pair.db, 4)


def heard(guest: Guest) -> tuple[float, str]:
    said = guest.sql("SELECT UNIX_TIMESTAMP(at), position FROM pcloud.heard WHERE id=1")
    if not said:
        return 0, ""
    at, at_position = said.split("\t")
    return float(at), at_position


def test_a_replica_says_when_it_was_level_with_its_primary(pair: Pair) -> None:
    with watching(pair, pair.idx), watching(pair, pair.db):
        eventually(lambda: heard(pair.idx)[1] == position(pair.db))
        log = pair.idx.sql("SELECT @@gtid_binlog_pos")
        first = heard(pair.idx)
        eventually(lambda: heard(pair.idx)[0] > first[0])
        assert pair.idx.sql("SELECT @@gtid_binlog_pos") == log
        pair.crash(pair.idx)
        pair.start(pair.idx)
        place_order(pair.db, 2)
        eventually(lambda: heard(pair.idx)[1] == position(pair.db))
        cable(pair.db, "down")
        cut = time.time()
        pair.db.run(PRIMARY, "alone")
        place_order(pair.db, 3)
        time.sleep(14)
        assert cut - 5 < heard(pair.idx)[0] <= cut + 0.5
        cable(pair.db, "up")
        eventually(lambda: heard(pair.idx)[1] == position(pair.db))
        assert pair.db.sql("SELECT COUNT(*) FROM information_schema.tables WHERE table_name='heard'") == "0"
        pair.idx.sql("STOP SLAVE SQL_THREAD")
        place_order(pair.db, 4)
        eventually(lambda: heard(pair.idx)[1] == position(pair.db))  # received counts, applied or not


def test_the_timeline_of_a_dump_is_in_the_data_and_in_no_binary_log(pair: Pair) -> None:
    cable(pair.db, "down")
    pair.idx.sql("STOP SLAVE; RESET SLAVE ALL; UPDATE pcloud.restored SET state='restoring'")
    timeline = Timeline(int(SECOND), 1417, "0-1-5", "db-1", "the dump's; it's all that is left")
    dump = load_inventory(defaults_dir("inventory") / "demo.yaml")
    assert dump is not None
    step = Restore("idx-1", "shop", None, "", "t-2", True, 60, timeline=timeline)
    step.do(place(pair), Quiet())
    assert pair.idx.sql(ROWS) == f"{SECOND}|1417|0-1-5|db-1|the dump s; it s all that is left"
    assert position(pair.idx) == ""
    pair.idx.run(PRIMARY, "take", "alone")
    pair.idx.sql("CREATE TABLE shop.a (id INT)")
    assert position(pair.idx).startswith(f"{SECOND}-")
    assert RESTORED


def test_what_a_host_streamed_further_is_applied_too(pair: Pair) -> None:
    """The replica was cut off, its primary went on alone, and a host streamed what that wrote."""
    receive_only(pair, 2)
    cable(pair.idx, "down")
    pair.db.run(PRIMARY, "alone")
    for number in (3, 4, 5):
        place_order(pair.db, number)
    end = position(pair.db)
    packed = pair.db.argv("sh", "-c", "cd /var/lib/mysql && tar -cf - binlog.0*")
    tar = subprocess.run(packed, check=True, capture_output=True).stdout
    cable(pair.db, "down")
    cable(pair.idx, "up")
    assert pair.idx.run(REPLICA, "has", end, check=False).returncode != 0
    for _ in range(2):  # whoever is interrupted does it again
        subprocess.run(pair.idx.argv(REPLICA, "add", end), input=tar, check=True)
    assert pair.idx.run(REPLICA, "has", end).returncode == 0
    promote(pair)
    assert orders(pair.idx) == names(1, 2, 3, 4, 5)
    assert not behind(position(pair.idx), end)


OLDER = """#!/bin/sh
# What `primary` took before timelines: one number for a promotion, and none of the later words.
case "$1" in -t | commits | waits | alone) exit 2 ;; esac
[ "$1" != promote ] || [ $# -le 3 ] || exit 1
exec /usr/lib/pcloud/primary.now "$@"
"""


def test_a_server_that_an_earlier_pcloud_made_is_promoted(pair: Pair) -> None:
    for guest in (pair.db, pair.idx):
        guest.run("mv", PRIMARY, f"{PRIMARY}.now")
        guest.run("sh", "-c", f"cat >{PRIMARY} && chmod 755 {PRIMARY}", stdin=OLDER)
    step = SemiSync("db-1", True, 30_000)
    assert isinstance(step.check(place(pair)), Met)
    receive_only(pair, 2, 3)
    cable(pair.db, "down")
    timeline = Timeline(int(FIRST), 0, "", "idx-1", "promoted")
    Promote("idx-1", "", 120, timeline, timeout_ms=30_000).do(place(pair), Quiet())
    assert orders(pair.idx) == names(1, 2, 3)
    assert role(pair.idx) == "primary"
    off = SemiSync("idx-1", False, 30_000)
    off.do(place(pair), Quiet())
    assert isinstance(off.check(place(pair)), Met)
