"""A data server without room: its MariaDB waits, and what is asked of it hangs. What pcloud says then, and how soon.

Two real MariaDBs, as in test_promotion.py; the replica's data are on a small file system.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from pcloud.errors import CheckFailed
from pcloud.observe_data import _read_rows, look_at_database
from pcloud.sql import NamedRows
from pcloud.steps.database import CLIENT
from pcloud.steps.promotion import Promote
from pcloud.steps.replication import Follow
from pcloud.steps.room import FULL, find_full
from pcloud.web import Unanswered
from tests.guests import Guest, eventually, secret
from tests.mariadbs import IDX, SERVICE, Pair, Quiet, orders, place_order, role, slave
from tests.test_promotion import cable, names, pair, place, watching

__all__ = ["pair"]
HANGS_S = 3
SOON_S = 8.0
"""What a busy machine needs for what takes a fraction of a second."""


def over_the_network(asker: Guest, address: str) -> Callable[..., list[NamedRows]]:
    """The monitor's questions, as `pcloud.sql` bounds them."""

    def ask(*queries: str) -> list[NamedRows]:
        argv = [*(w for w in CLIENT if w != "--skip-column-names"), f"--host={address}", "--user=monitor"]
        argv += [f"--password={secret('db/monitor')}"]
        try:
            said = [asker.run(*argv, stdin=q, check=False, timeout_s=HANGS_S) for q in queries]
        except subprocess.TimeoutExpired:
            raise Unanswered(f"no answer within {HANGS_S} s") from None
        if any(one.returncode for one in said):
            raise Unanswered("connection refused")
        return [_read_rows(one.stdout) if one.stdout else () for one in said]

    return ask


def fill(pair: Pair) -> None:
    """The replica receives a transaction for which there is no room."""
    pair.db.sql("CREATE TABLE shop.big (id INT PRIMARY KEY, data LONGTEXT)")
    eventually(lambda: slave(pair.idx)["Gtid_IO_Pos"] == position_of(pair.db))
    used = pair.idx.run("df", "--output=used", "-k", "/var/lib/mysql").stdout.split()[-1]
    pair.idx.run("mount", "-o", f"remount,size={int(used) + 1500}k", "/var/lib/mysql")
    pair.idx.run("sh", "-c", "mount -t tmpfs -o size=64k tmpfs /tmp; head -c 1M /dev/zero >/tmp/full", check=False)
    pair.db.sql("SET GLOBAL rpl_semi_sync_master_timeout=500; INSERT INTO shop.big VALUES (1, REPEAT('x', 3000000))")
    eventually(lambda: "Waiting for someone to free space" in pair.idx.sql("SHOW PROCESSLIST"))


def position_of(guest: Guest) -> str:
    return guest.sql("SELECT @@gtid_current_pos")


def hangs(guest: Guest, statement: str) -> bool:
    try:
        guest.run("mariadb", "-e", statement, timeout_s=HANGS_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def soon(act: Callable[[], Any]) -> Any:
    began = time.monotonic()
    try:
        return act()
    finally:
        assert time.monotonic() - began < SOON_S


def test_a_replica_without_room_is_told_from_a_silent_one(pair: Pair) -> None:
    world, asked = place(pair), over_the_network(pair.db, IDX)
    assert look_at_database(world, "idx-1", asked)[0] is not None
    assert find_full(world, "idx-1") is None
    with watching(pair, pair.idx):
        fill(pair)
        for _ in range(2):
            assert soon(lambda: look_at_database(world, "idx-1", asked)) == (None, "full")
        time.sleep(3)  # who watches the replica has looked, too
        assert not hangs(pair.idx, "SHOW GLOBAL STATUS LIKE 'Slave_running'"), "nobody has asked what hangs"
        assert find_full(world, "idx-1") == 0
        cable(pair.db, "down")
        with pytest.raises(CheckFailed) as named:
            soon(lambda: Promote("idx-1", "", 120).do(world, Quiet()))
        assert "its disk is full, 0 MiB are free: primary: MariaDB waits for room on its disk" in named.value.what
        assert role(pair.idx) == "replica"
        with pytest.raises(CheckFailed) as named:
            Follow("idx-1", "db-1", SERVICE, 20).check(world)  # which asks what hangs, and is bounded
        assert (named.value.what, named.value.where) == (FULL, "idx-1")
        assert "pcloud ssh demo/idx-1 -- df -h /var/lib/mysql" in named.value.next
        assert hangs(pair.idx, "SHOW SLAVE STATUS"), "else none of this is needed"


@pytest.mark.chaos
def test_with_room_it_goes_on_by_itself(pair: Pair) -> None:
    """MariaDB looks once a minute."""
    world, asked = place(pair), over_the_network(pair.db, IDX)
    with watching(pair, pair.idx):
        fill(pair)
        assert look_at_database(world, "idx-1", asked) == (None, "full")
        pair.idx.run("mount", "-o", "remount,size=2g", "/var/lib/mysql")
        eventually(lambda: look_at_database(world, "idx-1", asked)[0] is not None, 90)
        place_order(pair.db, 2)
        eventually(lambda: orders(pair.idx) == names(1, 2))


def test_the_disk_is_asked_of_an_older_server_and_of_one_that_does_not_start(pair: Pair) -> None:
    """The monitor of an older server sees no threads; MariaDB waits for room at its start, too."""
    pair.idx.sql("SET sql_log_bin=0; REVOKE PROCESS ON *.* FROM monitor@'%'")
    world, asked = place(pair), over_the_network(pair.db, IDX)
    assert look_at_database(world, "idx-1", asked)[0] is not None
    fill(pair)
    assert soon(lambda: look_at_database(world, "idx-1", asked)) == (None, "full")
    pair.crash(pair.db)
    assert look_at_database(world, "db-1", over_the_network(pair.idx, SERVICE)) == (None, "unknown")
    fills = "df --output=used -k /var/lib/mysql | tail -n 1 | xargs -I N mount -o remount,size=Nk /var/lib/mysql"
    pair.db.run("sh", "-c", fills)
    assert look_at_database(world, "db-1", over_the_network(pair.idx, SERVICE)) == (None, "full")
