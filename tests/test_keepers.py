"""Hosts that keep a database's binary log: what they hold of a replica while the primary is silent, and until when
they heard the primary.

Two real MariaDBs, as in test_promotion.py; the second one's namespace also plays a host that keeps (test_backup.py).
The primary is silent when its cable is cut.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pcloud.backups import choose, continuation
from pcloud.errors import CommandFailed
from pcloud.gtid import behind
from pcloud.kept import NEVER_SEEN, Sighting, Stretch
from pcloud.steps.backup import Drop, Keep, Stream, Take, folder_of, listen, look
from pcloud.steps.base import Unmet
from pcloud.steps.restoring import BESIDE, Beside, Close
from pcloud.steps.stream import TakeStream
from tests.guests import Guest, eventually
from tests.mariadbs import PRIMARY, Pair, Place, Quiet, orders, place_order, slave
from tests.test_backup import LIMIT_S, do
from tests.test_promotion import KEPT, REPLICA, cable, names, pair, place, position, promote, receive_only, watching

__all__ = ["pair"]
HOST = "h3"
PEERS = ("10.77.0.61", "10.77.0.71")
SILENT_S = 60
"""By then a keeper has noticed the silence and has taken what the replica has."""


@pytest.fixture
def keeper(pair: Pair) -> Place:
    """The host keeps a backup and has the stream's program, less patient than it is; `streaming` runs it."""
    made: Place = replace(place(pair), log=pair.folder / "keep.log")
    with pytest.raises(CommandFailed, match="neither systemd nor an inittab"):
        do(made, Stream(HOST, "db-1", PEERS))
    for name, value in {"SILENT_S": 2, "POLL_S": 1}.items():
        made.idx.run("sed", "-i", f"s/^{name}=.*/{name}={value}/", f"{folder_of(made, HOST)}/keep")  # type: ignore[arg-type]
    do(made, Take("db-1", "db-1", "1"))
    do(made, Keep(HOST, "db-1", "1"))
    do(made, Drop("db-1", "1"))
    with made.streaming(HOST):
        eventually(lambda: heard(made)[1].position == position(pair.db) == reached(made))
    return made


def stretches(keeper: Place) -> tuple[Stretch, ...]:
    return look(keeper, HOST).stretches  # type: ignore[arg-type]


def reached(keeper: Place) -> str:
    choice = choose([look(keeper, HOST)])  # type: ignore[arg-type]
    return choice.end if choice is not None else ""


def rests(keeper: Place) -> list[Stretch]:
    return [t for t in stretches(keeper) if "rest" in t.session]


def restored(keeper: Place) -> set[str]:
    """The orders that a restore would bring: on db-1, beside its data."""
    choice = choose([look(keeper, HOST)])  # type: ignore[arg-type]
    assert choice is not None
    keeper.db.run("ip", "link", "set", "eth0", "up")
    do(keeper, Beside("db-1", "shop", choice, "look"))
    there = ("mariadb", "--batch", "--skip-column-names", f"--socket={BESIDE}/mysqld.sock")
    codes = "SELECT code FROM shop.partner_partner WHERE code LIKE 'order-%'"
    found = set(keeper.db.run(*there, stdin=codes).stdout.split())
    do(keeper, Close("db-1"))
    return found


def heard(keeper: Place) -> tuple[float, Sighting]:
    return listen(keeper, HOST) or (-1.0, NEVER_SEEN)  # type: ignore[arg-type]


def table(guest: Guest) -> str:
    """What there is of the replica's table for hosts."""
    return guest.sql("SELECT table_name FROM information_schema.tables WHERE table_name IN ('rest', 'rest_part')")


@pytest.mark.chaos
def test_what_a_replica_applied_is_kept_on_a_host_once_the_primary_is_silent(pair: Pair, keeper: Place) -> None:
    """The host was away while the last orders came: only the replica has them. Both servers are lost after that."""
    place_order(pair.db, 2)
    place_order(pair.db, 3)
    last = position(pair.db)
    eventually(lambda: orders(pair.idx) == names(1, 2, 3))
    cable(pair.db, "down")
    with keeper.streaming(HOST):
        eventually(lambda: not behind(reached(keeper), last), SILENT_S)
        assert not look(keeper, HOST).streaming, "it does not follow the primary"  # type: ignore[arg-type]
        before = stretches(keeper)
        keeper.idx.run("pkill", "-KILL", "-x", "mariadb-binlog")
        time.sleep(6)
        assert [t.session for t in stretches(keeper)] == [t.session for t in before], "the same again is kept once"
    pair.crash(pair.idx)
    assert restored(keeper) == names(1, 2, 3)


@contextmanager
def unapplied(pair: Pair, keeper: Place) -> Iterator[str]:
    """Orders 2 to 4 are acknowledged; 3 and 4 are in relay logs, not applied, as the primary falls silent."""
    with watching(pair, pair.idx), keeper.streaming(HOST):
        keeper.idx.run("pkill", "-STOP", "-f", f"{folder_of(keeper, HOST)}/keep")  # type: ignore[arg-type]
        keeper.idx.run("pkill", "-KILL", "-x", "mariadb-binlog", check=False)
        place_order(pair.db, 2)
        eventually(lambda: orders(pair.idx) == names(1, 2))
        pair.idx.sql("FLUSH RELAY LOGS")
        receive_only(pair, 3)
        pair.idx.sql("FLUSH RELAY LOGS")
        place_order(pair.db, 4)
        last = position(pair.db)
        eventually(lambda: not behind(slave(pair.idx)["Gtid_IO_Pos"], last))
        cable(pair.db, "down")
        keeper.idx.run("pkill", "-CONT", "-f", f"{folder_of(keeper, HOST)}/keep")  # type: ignore[arg-type]
        yield last


def test_what_a_replica_received_and_did_not_apply_outlives_its_disk(pair: Pair, keeper: Place) -> None:
    with unapplied(pair, keeper) as last:
        eventually(lambda: not behind(reached(keeper), last), SILENT_S)
        (rest,) = rests(keeper)
        assert rest.end == last
        assert 2 <= behind(rest.start, last) <= 3, "it begins no later than what the replica has applied"
        assert table(pair.idx) == "rest"
    pair.crash(pair.idx)
    assert restored(keeper) == names(1, 2, 3, 4)


@pytest.mark.chaos
def test_what_a_replica_received_stands_for_nothing_that_came_before_it(pair: Pair, keeper: Place) -> None:
    """The host was away while order 2 came, which the replica has applied; what it received begins after that."""
    with watching(pair, pair.idx):
        place_order(pair.db, 2)
        eventually(lambda: orders(pair.idx) == names(1, 2))
        pair.idx.sql("STOP SLAVE; START SLAVE")
        eventually(lambda: slave(pair.idx)["Slave_IO_Running"] == "Yes")
        receive_only(pair, 3)
        last = position(pair.db)
        cable(pair.db, "down")
        eventually(lambda: table(pair.idx) == "rest", SILENT_S)
        with keeper.streaming(HOST):
            eventually(lambda: bool(rests(keeper)), SILENT_S)
            (rest,) = rests(keeper)
            assert behind(rest.start, last) == 1, "it begins with order 3"
            eventually(lambda: reached(keeper) == last, SILENT_S)
    pair.crash(pair.idx)
    assert restored(keeper) == names(1, 2, 3)


@pytest.mark.chaos
def test_a_promotion_takes_what_its_own_server_lost_from_the_host(pair: Pair, keeper: Place) -> None:
    """MariaDB threw its relay log away, and the disk that it was kept aside on is not there any more."""
    with unapplied(pair, keeper) as last:
        eventually(lambda: not behind(reached(keeper), last), SILENT_S)
    pair.crash(pair.idx)
    pair.idx.run("sh", "-c", f"rm -rf {KEPT} /var/lib/mysql/relay*")
    pair.start(pair.idx)
    assert orders(pair.idx) == names(1, 2)
    legs = continuation(position(pair.idx), "t", [look(keeper, HOST)])  # type: ignore[arg-type]
    assert legs[-1].reaches == last
    for leg in legs:
        step = TakeStream("idx-1", leg, LIMIT_S)
        if isinstance(step.check(keeper), Unmet):  # type: ignore[arg-type]
            step.do(keeper, Quiet())  # type: ignore[arg-type]
    promote(pair)
    assert orders(pair.idx) == names(1, 2, 3, 4)


@pytest.mark.chaos
def test_a_primary_that_returns_leaves_nothing_behind(pair: Pair, keeper: Place) -> None:
    with unapplied(pair, keeper) as last:
        eventually(lambda: bool(rests(keeper)), SILENT_S)
        cable(pair.db, "up")
        pair.idx.sql("START SLAVE SQL_THREAD")
        eventually(lambda: orders(pair.idx) == names(1, 2, 3, 4))
        eventually(lambda: table(pair.idx) == "", 90)
        eventually(lambda: look(keeper, HOST).streaming, 90)  # type: ignore[arg-type]
        place_order(pair.db, 5)
        keeper.idx.run("pkill", "-KILL", "-x", "mariadb-binlog")
        eventually(lambda: not rests(keeper) and not behind(reached(keeper), last), 90)
    assert restored(keeper) >= names(1, 2, 3, 4)


@pytest.mark.chaos
def test_without_room_nothing_is_offered_and_nothing_is_taken(pair: Pair, keeper: Place) -> None:
    folder = folder_of(keeper, HOST)  # type: ignore[arg-type]
    keeper.idx.run("sh", "-c", f"mkdir -p {folder}/rest.new; cp {folder}/keep /tmp/keep")
    keeper.idx.run("sed", "-i", "s/^RESERVE_MIB=.*/RESERVE_MIB=99999999/", f"{folder}/keep")
    with unapplied(pair, keeper):
        eventually(lambda: table(pair.idx) == "rest", SILENT_S)
        time.sleep(5)
        assert rests(keeper) == []
        assert keeper.idx.run("ls", f"{folder}/rest.new", check=False).stdout == ""
    keeper.idx.run("sed", "-i", "s/^RESERVE_MIB=.*/RESERVE_MIB=99999999/", REPLICA)
    pair.idx.sql("SET SESSION sql_log_bin=0; DROP TABLE pcloud.rest")
    with watching(pair, pair.idx):
        time.sleep(6)
        assert table(pair.idx) == ""


@pytest.mark.chaos
def test_a_host_says_until_when_it_heard_the_primary_and_where_it_was(pair: Pair, keeper: Place) -> None:
    with keeper.streaming(HOST):
        place_order(pair.db, 2)
        last = position(pair.db)
        eventually(lambda: heard(keeper)[1].position == last)
        age, seen = heard(keeper)
        assert age < 10
        assert age <= seen.age_s
        assert (seen.waits_ms, seen.one_clock) == (30_000, True)
        pair.db.run(PRIMARY, "alone")
        eventually(lambda: heard(keeper)[1].waits_ms == -1)
        cable(pair.db, "down")
        cut = time.monotonic()
        time.sleep(12)
        age, seen = heard(keeper)
        silent = time.monotonic() - cut
        assert silent - 0.5 <= age <= silent + 11, "an answer is the last one, or a later one"
        assert seen.position == last
    assert heard(keeper)[0] >= age, "also when nothing streams any more"


@pytest.mark.chaos
def test_a_host_trusts_neither_a_clock_that_was_set_nor_a_boot_that_was_before(pair: Pair, keeper: Place) -> None:
    path = f"{folder_of(keeper, HOST)}/heard"  # type: ignore[arg-type]
    boot, asked, answered, wall, *rest = keeper.idx.run("cat", path).stdout.split()
    rest[-1] = "-"

    def said(*words: object) -> tuple[float, float]:
        keeper.idx.run("sh", "-c", 'echo "$1" >"$2"', "sh", " ".join(map(str, (*words, *rest))), path)
        age, seen = heard(keeper)
        return age, seen.age_s

    true = said(boot, asked, answered, wall)
    assert said(boot, asked, answered, float(wall) - 3600) == pytest.approx((true[0], true[1] + 3600), abs=5)
    assert said(boot, asked, answered, float(wall) + 3600) == pytest.approx((0, true[1]), abs=5)
    assert said("another", 5, 6, float(wall) - 60) == pytest.approx((true[0] + 60, true[0] + 61), abs=5)
    keeper.idx.run("rm", path)
    assert listen(keeper, HOST) is None  # type: ignore[arg-type]
