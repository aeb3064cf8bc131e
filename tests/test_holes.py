"""What hosts kept of real MariaDBs has no hole that nobody sees: by what is in it, whatever its headers claim."""

# ruff: noqa: F811 (the fixture's name)
from __future__ import annotations

import pytest

from pcloud.backups import choose, tell_hole
from pcloud.errors import CheckFailed, CommandFailed
from pcloud.steps.backup import Stream, folder_of, look
from pcloud.steps.base import Met, Unmet
from pcloud.steps.keeping import Reaches, Share
from pcloud.steps.restoring import RestoreBackup
from tests.guests import eventually
from tests.mariadbs import DB, IDX, PRIMARY, SERVICE, Place, Quiet, orders, place_order
from tests.test_backup import (  # noqa: F401 (fixtures)
    LIMIT_S,
    back_up,
    caught_up,
    do,
    kept,
    place,
    position,
)

WHY = "promoted: no acknowledged order is lost"


def replicate(place: Place) -> None:
    place.copy(place.idx)
    place.idx.run("/usr/lib/pcloud/follow", SERVICE)
    eventually(lambda: orders(place.idx) == orders(place.db))


def fail_over(place: Place) -> None:
    """The primary's host is lost, after the other server heard all of it."""
    eventually(lambda: orders(place.idx) == orders(place.db))
    place.db.run("ip", "address", "del", f"{SERVICE}/24", "dev", "eth0")
    place.db.run("rm", "/var/lib/pcloud/primary")
    place.db.run("pkill", "-KILL", "-x", "mariadbd")
    place.idx.run(PRIMARY, "promote", "30", "-", "1417", WHY)


def has_all(place: Place, server: str = "idx-1", host: str = "h3") -> bool:
    return isinstance(Reaches(server, (host,)).check(place), Met)  # type: ignore[arg-type]


def young_primary(place: Place) -> None:
    """A backup; orders that no host streams; the replica, made anew meanwhile, takes over, and orders go on.

    Its binary log begins with `Gtid list []`, as a `RESET MASTER` without a state leaves it.
    """
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1", "h3")
    for number in (10, 11, 12):
        place_order(place.db, number)
    replicate(place)
    place.idx.sql("STOP SLAVE; RESET MASTER; START SLAVE")
    for number in (13, 14):
        place_order(place.db, number)
    fail_over(place)
    place_order(place.idx, 15)


def test_a_server_made_anew_leaves_no_hole_that_nobody_sees(place: Place) -> None:
    """Its header claims that it has all from the beginning. The old primary has what is missing, once it follows."""
    young_primary(place)
    with place.streaming("h3"):
        eventually(lambda: look(place, "h3").streaming and "1417-" in str(look(place, "h3")))  # type: ignore[arg-type]
    choice = choose(kept(place, "h3"))
    assert choice is not None
    assert choice.end == choice.backup.position, "nothing past what is missing"
    [hole] = choice.holes
    assert (hole.first, hole.last) == (2, 4)
    assert "3 transactions are kept by no host that answers" in tell_hole(hole)
    late = Reaches("idx-1", ("h3",)).check(place)  # type: ignore[arg-type]
    assert isinstance(late, Unmet) and "-2 to 0-172818493-4" in late.why
    eventually(lambda: place.db.run("mariadb", "-e", "SELECT 1", check=False).returncode == 0)
    place.db.run("/usr/lib/pcloud/follow", SERVICE)
    with pytest.raises(CommandFailed, match="neither systemd nor an inittab"):
        Stream("h3", "idx-1", (DB, IDX)).do(place, Quiet())  # type: ignore[arg-type]
    with place.streaming("h3"):
        eventually(lambda: has_all(place), 60)
    choice = choose(kept(place, "h3"))
    assert choice is not None and not choice.holes
    place.db.run(PRIMARY, "release")
    place.db.sql("STOP SLAVE; RESET SLAVE ALL; DROP DATABASE pcloud; DROP DATABASE shop; CREATE DATABASE shop")
    do(place, RestoreBackup("db-1", "shop", choice, "demo.backup-1.g2"))
    assert orders(place.db) == {f"order-{n}" for n in (1, 10, 11, 12, 13, 14, 15)}


def test_the_log_of_a_server_made_anew_begins_where_its_data_are(place: Place) -> None:
    replicate(place)
    assert place.idx.sql("SELECT @@gtid_binlog_state") == position(place.db)
    assert place.idx.sql("SELECT BINLOG_GTID_POS('binlog.000001', 4)") == position(place.db)


def test_a_keeper_that_was_away_gets_it_from_another_one(place: Place) -> None:
    with place.streaming("h3"), place.streaming("h7"):
        eventually(lambda: caught_up(place) and caught_up(place, "h7"))
        back_up(place, "1")
    with place.streaming("h3"):
        for number in (2, 3):
            place_order(place.db, number)
        eventually(lambda: caught_up(place))
    place.db.sql("FLUSH BINARY LOGS")
    eventually(lambda: purged(place))
    with place.streaming("h7"), place.streaming("h3"):
        place_order(place.db, 4)
        eventually(lambda: caught_up(place, "h7") and caught_up(place, "h3"))
        choice = choose(kept(place, "h7"))
        assert choice is not None and [(h.first, h.last) for h in choice.holes] == [(2, 3)]
        do(place, Share("h7", ("h3", "h7"), LIMIT_S))
        assert has_all(place, "db-1", "h7")


def purged(place: Place) -> bool:
    """Whether the primary has its last binary log file alone: who reads one still keeps it."""
    last = place.db.sql("SHOW MASTER STATUS").split()[0]
    place.db.sql(f"PURGE BINARY LOGS TO '{last}'")
    return len(place.db.sql("SHOW BINARY LOGS").splitlines()) == 1


def test_a_reader_that_ends_early_is_no_end_of_the_binary_log(place: Place) -> None:
    """Neither for what a host says that it keeps, nor for what is replayed, also up to a time."""
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1", "h3")
        for number in range(2, 6):
            place_order(place.db, number)
        eventually(lambda: caught_up(place))
    choice = choose(kept(place, "h3"))
    assert choice is not None
    folder = folder_of(place, "h3")  # type: ignore[arg-type]
    put = ("sh", "-c", "cat >/usr/local/bin/mariadb-binlog; chmod +x /usr/local/bin/mariadb-binlog")
    for how in ("kill -9 $$", "kill $$", "exit 0", "exit 3"):
        place.idx.run(*put, stdin=f'#!/bin/bash\n/usr/bin/mariadb-binlog "$@" | head -c 3500\n{how}\n')
        with pytest.raises(CheckFailed, match=r"binary log|some are missing|cannot be applied"):
            RestoreBackup("idx-1", "shop", choice, "t2").do(place, Quiet())  # type: ignore[arg-type]
        place.idx.run("sh", "-c", f"rm -f {folder}/binlog/*/*/span.*")
        with pytest.raises(CommandFailed, match="cannot be read"):
            look(place, "h3")  # type: ignore[arg-type]
        place.idx.run("rm", "/usr/local/bin/mariadb-binlog")
    assert choose(kept(place, "h3")) == choice
