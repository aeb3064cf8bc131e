"""A replica is a whole copy of its primary, or visibly none: `mariadb-backup` from server to server.

Two real MariaDBs, each with its own sshd, as in test_mariadb.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from pcloud.errors import CheckFailed, CommandFailed, Transient
from pcloud.gtid import behind
from pcloud.inventory import defaults_dir, load_site
from pcloud.steps.base import Met, Unmet
from pcloud.steps.copying import COPY_FROM, COPY_TO, Seed
from pcloud.steps.door import DOOR, open_door
from pcloud.steps.job import NO_ROOM, State, follow, parse_state, tell
from pcloud.world import World
from tests.guests import eventually, guests, rendered
from tests.mariadbs import (
    DB,
    PRIMARY,
    SERVICE,
    Pair,
    Place,
    Quiet,
    as_it_was,
    between,
    fill,
    left,
    orders,
    place_order,
    restore,
    slave,
)

KEYS = "/root/.ssh/authorized_keys2"
EVERYTHING = """
CREATE DATABASE erp; CREATE TABLE erp.stock (id INT PRIMARY KEY, n INT) ENGINE=MyISAM;
INSERT INTO erp.stock VALUES (1, 7);
CREATE TABLE erp.words (id INT PRIMARY KEY, t TEXT) ENGINE=Aria; INSERT INTO erp.words VALUES (1, 'été');
CREATE DATABASE relay; CREATE TABLE relay.binlog (id INT); INSERT INTO relay.binlog VALUES (5);
USE shop; CREATE TABLE t (id INT PRIMARY KEY, n INT);
CREATE EVENT tidy ON SCHEDULE EVERY 1 HOUR DO DELETE FROM t;
CREATE PROCEDURE twice(x INT) SELECT 2 * x; CREATE FUNCTION half(x INT) RETURNS INT DETERMINISTIC RETURN x / 2;
CREATE TRIGGER counts BEFORE INSERT ON t FOR EACH ROW SET NEW.n = 42;
CREATE VIEW many AS SELECT id FROM t WHERE n > 1;
CREATE USER clerk@'%' IDENTIFIED BY 'its own'; GRANT SELECT ON erp.* TO clerk@'%';
"""
WHOLE = """
SELECT 'stock', id, n FROM erp.stock; SELECT 'words', t FROM erp.words; SELECT 'binlog', id FROM relay.binlog;
SELECT 'event', event_schema, event_name, event_definition FROM information_schema.events;
SELECT 'routine', routine_name, routine_definition FROM information_schema.routines
    WHERE routine_schema = 'shop' ORDER BY 2;
SELECT 'trigger', trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = 'shop';
SELECT 'view', table_name, view_definition FROM information_schema.views WHERE table_schema = 'shop';
SELECT 'account', user, host, authentication_string FROM mysql.user ORDER BY 2, 3; SHOW GRANTS FOR clerk@'%';
SELECT 'mark', state, token FROM pcloud.restored;
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Pair]:
    """db-1 is the primary with one order; idx-1 has MariaDB with nothing in it."""
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        db, idx = stack.enter_context(guests(folder, rendered(folder), ("db-1", "idx-1"), ("mariadb",)))
        made = Pair(db, idx, folder, stack)
        made.begin(data)
        restore(db)
        db.run(PRIMARY, "take", "alone")
        place_order(db, 1)
        yield made


@pytest.fixture
def pair(servers: Pair) -> Pair:
    """As `servers`, whatever the tests before made of them."""
    eventually(lambda: state(servers).code is not None, 60)
    for guest in (servers.db, servers.idx):
        as_it_was(guest)
    servers.idx.run("sed", "-i", "s/JOB_STILL_S-[0-9]*/JOB_STILL_S-120/", COPY_FROM)
    servers.idx.run("sh", "-c", "rm -rf /run/pcloud-copy-from /var/lib/pcloud/restore")
    servers.idx.sql(
        "STOP SLAVE; RESET SLAVE ALL; SET SESSION sql_log_bin=0; DROP DATABASE IF EXISTS pcloud;"
        "DROP DATABASE IF EXISTS shop; CREATE DATABASE shop"
    )
    servers.db.run(PRIMARY, "take", "alone")
    servers.db.sql("SET SESSION sql_log_bin=0; UPDATE pcloud.restored SET state='restored'")
    servers.db.sql("DROP TABLE IF EXISTS shop.bulk; DELETE FROM shop.partner_partner WHERE code = 'order-99'")
    return servers


def world(pair: Pair) -> World:
    return cast(
        World, Place(pair.db, pair.idx, pair.folder / "log", load_site(defaults_dir("inventory") / "demo.yaml"))
    )


SEED = Seed("idx-1", "shop", (("db-1", DB),), SERVICE)


def seed(pair: Pair) -> dict[str, Any]:
    """check, do, check, as the executor."""
    assert isinstance(SEED.check(world(pair)), Unmet)
    facts = SEED.do(world(pair), Quiet())
    assert isinstance(SEED.check(world(pair)), Met)
    return dict(facts)


def begin(pair: Pair) -> None:
    pair.idx.run(COPY_FROM, "begin", stdin=SEED._order(world(pair)))


def state(pair: Pair) -> State:
    return parse_state(pair.idx.run(COPY_FROM, "ask").stdout)


def uncompressed(pair: Pair) -> None:
    """So that what is sent is what the sender read, byte for byte."""
    for guest in (pair.db, pair.idx):
        guest.run("sh", "-c", "cat >/usr/local/bin/zstd; chmod 755 /usr/local/bin/zstd", stdin="#!/bin/sh\nexec cat\n")


def follows(pair: Pair) -> None:
    pair.idx.run("/usr/lib/pcloud/follow", SERVICE)
    place_order(pair.db, 99)
    eventually(lambda: "order-99" in orders(pair.idx))
    assert slave(pair.idx)["Slave_SQL_Running"] == "Yes"


def test_a_copy_is_all_that_the_primary_has(pair: Pair) -> None:
    """Other schemas, tables without transactions, routines, triggers, views, events, accounts; and nothing else."""
    pair.db.sql(EVERYTHING)
    pair.idx.sql("CREATE DATABASE old; CREATE USER gone@localhost")
    seed(pair)
    assert pair.idx.sql(WHOLE) == pair.db.sql(WHOLE)
    assert "tidy" in pair.idx.sql(WHOLE) and "counts" in pair.idx.sql(WHOLE) and "half" in pair.idx.sql(WHOLE)
    assert pair.idx.sql("SHOW DATABASES") == pair.db.sql("SHOW DATABASES")
    assert pair.idx.sql("SELECT @@server_id, @@read_only, @@report_host").split() == ["172818503", "1", "idx-1"]
    assert pair.idx.run(PRIMARY, "status").stdout == "replica\n"
    assert left(pair.idx) == [], "no place and no first statements are left"
    assert "90-first.cnf" not in pair.idx.run("ls", "/etc/mysql/mariadb.conf.d").stdout
    assert pair.db.run("cat", KEYS).stdout == "", "the door is shut"
    assert left(pair.db) == ["primary"]
    follows(pair)
    pair.crash(pair.idx)
    pair.start(pair.idx)
    assert pair.idx.sql("SELECT @@gtid_slave_pos") == pair.db.sql("SELECT @@gtid_current_pos")


def test_tables_without_transactions_are_of_the_same_moment_as_the_position(pair: Pair) -> None:
    """They are written all the time while a copy is made: a dump has rows of after its position, and stops (1062)."""
    pair.db.sql(
        "CREATE TABLE shop.a_stats (id INT PRIMARY KEY) ENGINE=MyISAM; CREATE TABLE shop.z_stats LIKE shop.a_stats"
    )
    fill(pair.db, 8)
    row = "INSERT INTO shop.a_stats VALUES ($i); INSERT INTO shop.z_stats VALUES ($i);"
    rows = f'i=0; while :; do i=$((i+1)); echo "{row}"; done'
    with pair.db.daemon("bash", "-c", f"({rows}) | mariadb", log=pair.folder / "writes"):
        eventually(lambda: int(pair.db.sql("SELECT COUNT(*) FROM shop.z_stats")) > 100)
        seed(pair)
        pair.idx.run("/usr/lib/pcloud/follow", SERVICE)
        time.sleep(1)
        pair.db.run("pkill", "-f", "INSERT INTO shop.a_stats", check=False)
        writers = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'root' AND id <> CONNECTION_ID()"
        eventually(lambda: pair.db.sql(writers) == "0")
    last = pair.db.sql("SELECT @@gtid_current_pos")
    assert pair.idx.sql(f"SELECT MASTER_GTID_WAIT('{last}', 60)") == "0", slave(pair.idx)["Last_SQL_Error"]
    sums = "CHECKSUM TABLE shop.a_stats, shop.z_stats, shop.bulk"
    assert pair.idx.sql(sums) == pair.db.sql(sums)


@pytest.mark.chaos
def test_the_same_command_goes_on_with_a_copy_that_was_begun(pair: Pair) -> None:
    """The laptop that began it is gone: the copy is not, and nobody begins a second one."""
    between(pair.db, "mariadb-backup", "time.sleep(3 if n == 300 else 0)")
    begin(pair)
    eventually(lambda: state(pair).done > 1 << 20)
    running = ("pgrep", "-f", "copy-from supervise")
    before = pair.idx.run(*running).stdout
    pair.idx.run(COPY_FROM, "begin", stdin="nonsense")
    assert pair.idx.run(*running).stdout == before
    SEED.do(world(pair), Quiet())
    assert pair.db.run("cat", KEYS).stdout == "", "no second door was opened"
    assert orders(pair.idx) == {"order-1"}


@pytest.mark.parametrize(
    "moment", [1.0, *(pytest.param(s, marks=pytest.mark.chaos) for s in (0.0, 0.4, 1.6, 2.2, 3.0, 4.5))]
)
def test_a_copy_that_was_killed_is_seen_and_made_again(pair: Pair, moment: float) -> None:
    """Wherever it was: the server shows no data, or whole ones."""
    fill(pair.db, 20)
    begin(pair)
    time.sleep(moment)
    pair.idx.run("pkill", "-KILL", "-f", "copy-from (work|supervise)|backup (open|adopt)", check=False)
    pair.idx.run("pkill", "-KILL", "-x", "mbstream|mariadb-backup|ssh|zstd", check=False)
    if moment in (1.0, 2.2):
        pair.crash(pair.idx)
        pair.start(pair.idx)
    eventually(lambda: pair.idx.run("mariadb", "-e", "DO 1", check=False).returncode == 0)
    eventually(lambda: state(pair).code is not None)
    if isinstance(SEED.check(world(pair)), Unmet):
        seed(pair)
    count = "SELECT COUNT(*) FROM shop.bulk"
    assert pair.idx.sql(count) == pair.db.sql(count)
    assert behind(pair.idx.sql("SELECT @@gtid_slave_pos"), pair.db.sql("SELECT @@gtid_current_pos")) == 0
    follows(pair)


def test_a_sender_that_dies_leaves_an_empty_server(pair: Pair) -> None:
    between(pair.db, "mariadb-backup", "time.sleep(3 if n == 300 else 0)")
    begin(pair)
    eventually(lambda: state(pair).done > 1 << 20)
    pair.db.run("pkill", "-KILL", "-x", "mariadb-backup")
    with pytest.raises(Transient, match="broke off"):
        follow(
            world(pair), cast(Any, world(pair).server_shell("idx-1")), [COPY_FROM, "ask"], Quiet(), where="x", next="y"
        )
    assert isinstance(SEED.check(world(pair)), Unmet)
    assert pair.idx.sql("SELECT state FROM pcloud.restored") == "copying"
    assert left(pair.idx) == []
    seed(pair)


@pytest.mark.chaos
def test_a_cable_that_is_cut_ends_the_copy(pair: Pair) -> None:
    between(pair.db, "mariadb-backup", "time.sleep(3 if n == 300 else 0)")
    begin(pair)
    eventually(lambda: state(pair).done > 1 << 20)
    pair.db.run("ip", "link", "set", "eth0", "down")
    eventually(lambda: state(pair).code == 3, 60)
    pair.db.run("ip", "link", "set", "eth0", "up")
    seed(pair)


@pytest.mark.chaos
def test_nothing_that_moves_is_given_up(pair: Pair) -> None:
    """No deadline for the whole: time counts only while nothing comes."""
    pair.idx.run("sed", "-i", "s/JOB_STILL_S-120/JOB_STILL_S-3/", COPY_FROM)
    uncompressed(pair)
    between(pair.db, "mariadb-backup", "time.sleep(0.25 if n % 50 == 0 else 0)")
    facts = seed(pair)
    assert facts["copied_s"] > 6


@pytest.mark.chaos
def test_what_stands_still_is_not_waited_for(pair: Pair) -> None:
    pair.idx.run("sed", "-i", "s/JOB_STILL_S-120/JOB_STILL_S-3/", COPY_FROM)
    between(pair.db, "mariadb-backup", "time.sleep(60 if n == 300 else 0)")
    begin(pair)
    eventually(lambda: state(pair).code is not None, 20)
    assert "nothing moved for 3 s" in state(pair).trouble
    assert isinstance(SEED.check(world(pair)), Unmet)


def test_a_byte_that_changed_on_its_way_is_seen(pair: Pair) -> None:
    """In what is not compressed, too: no checksum but the sender's own sees it there."""
    fill(pair.db, 8)
    between(pair.idx, "ssh", "data = data[:500] + bytes([data[500] ^ 1]) + data[501:] if n == 40 else data")
    with pytest.raises(Transient, match="is not what was sent"):
        SEED.do(world(pair), Quiet())
    assert isinstance(SEED.check(world(pair)), Unmet)
    assert left(pair.idx) == []
    uncompressed(pair)
    with pytest.raises(Transient, match="is not what was sent"):
        SEED.do(world(pair), Quiet())
    assert isinstance(SEED.check(world(pair)), Unmet)
    pair.idx.run("rm", "/usr/local/bin/ssh")
    seed(pair)


def test_no_copy_is_begun_without_room(pair: Pair) -> None:
    restore(pair.idx)
    pair.idx.sql("UPDATE pcloud.restored SET state='restoring'")
    fill(pair.db, 20)
    pair.idx.run("mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", "/var/lib/pcloud")
    with pytest.raises(
        CheckFailed, match=r"150 MiB are free here, \d+ MiB are needed; the data at 10.77.0.61 have \d+ MiB"
    ):
        SEED.do(world(pair), Quiet())
    assert state(pair).code == NO_ROOM
    assert pair.idx.sql("SELECT state FROM pcloud.restored") == "restoring", "nothing was touched"
    pair.idx.run("umount", "/var/lib/pcloud")
    seed(pair)


@pytest.mark.chaos
def test_a_disk_that_fills_up_meanwhile_is_given_back(pair: Pair) -> None:
    pair.idx.run("mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", "/var/lib/pcloud")
    between(pair.db, "mariadb-backup", "time.sleep(10 if n == 100 else 0)")
    begin(pair)
    eventually(lambda: state(pair).doing == "copying")
    pair.idx.run("sh", "-c", "head -c 280M /dev/zero >/var/lib/pcloud/other", check=False)
    eventually(lambda: state(pair).code is not None, 60)
    assert "no room" in state(pair).trouble
    assert state(pair).code == NO_ROOM
    assert left(pair.idx) == ["other"]
    assert isinstance(SEED.check(world(pair)), Unmet)


def test_data_that_are_not_whole_are_not_copied(pair: Pair) -> None:
    pair.db.sql("SET SESSION sql_log_bin=0; UPDATE pcloud.restored SET state='restoring'")
    with pytest.raises(CommandFailed, match="not whole: restoring"):
        SEED.do(world(pair), Quiet())
    assert pair.idx.sql("SHOW DATABASES LIKE 'pcloud'") == ""


@pytest.mark.chaos
def test_one_copy_of_a_server_at_a_time(pair: Pair) -> None:
    between(pair.db, "mariadb-backup", "time.sleep(3 if n == 300 else 0)")
    begin(pair)
    eventually(lambda: state(pair).done > 1 << 20)
    pair.db.run("sh", "-c", f"{COPY_TO} give >/dev/null")
    assert state(pair).doing != "copying", "the second one waited"
    eventually(lambda: state(pair).code == 0, 60)


def test_another_release_of_mariadb_is_refused(pair: Pair) -> None:
    order = SEED._order(world(pair)).replace(b" 10.11.", b" 11.8.", 1)
    pair.idx.run(COPY_FROM, "begin", stdin=order)
    eventually(lambda: state(pair).code is not None)
    assert "both have to be of one release" in state(pair).trouble


def test_a_door_lets_one_key_do_one_thing_once(pair: Pair, tmp_path: Path) -> None:
    def come(key: str, *command: str) -> tuple[int, str, str]:
        pair.idx.run("sh", "-c", "umask 077; cat >/run/key", stdin=key)
        options = [
            "-F",
            "none",
            "-i",
            "/run/key",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
        ]
        done = pair.idx.run("ssh", *options, f"root@{DB}", *command, check=False)
        return done.returncode, done.stdout, done.stderr

    key = open_door(world(pair), "db-1", "one", "copy-to", "offer")
    other = open_door(world(pair), "db-1", "two", "copy-to", "offer")
    assert pair.db.run("stat", "-c", "%a", KEYS).stdout == "600\n"
    code, said, _ = come(key, "cat", "/etc/mysql/replica.cnf")
    assert (code, re.fullmatch(r"\d+ 10\.11\.\S+\n", said) is not None) == (0, True), "it runs what the door is for"
    assert come(key)[0] == 255, "once"
    name = re.search(r"two-[0-9a-f]{8}", pair.db.run("cat", KEYS).stdout)
    assert name is not None
    pair.db.run(DOOR, "shut", name[0])
    assert come(other)[0] == 255
    late = open_door(world(pair), "db-1", "three", "copy-to", "offer")
    pair.db.run("sed", "-i", 's/expiry-time="[0-9]*"/expiry-time="20200101000000"/', KEYS)
    assert come(late)[0] == 255
    for words in (("sh", "-c"), ("copy-to", 'x";reboot'), ("copy-to",)):
        refused = pair.db.run(DOOR, "open", "four", *words, stdin="ssh-ed25519 " + "A" * 68, check=False)
        assert refused.returncode == 1
    assert pair.db.run(DOOR, "open", "four", "copy-to", "offer", stdin='" AAAA\nssh-rsa x', check=False).returncode == 1
    assert "four" not in pair.db.run("cat", KEYS).stdout


@pytest.mark.chaos
def test_a_primary_of_an_earlier_pcloud_is_copied_too(pair: Pair) -> None:
    pair.db.run("rm", DOOR, COPY_TO)
    seed(pair)
    assert orders(pair.idx) == {"order-1"}


def test_who_is_the_primary_no_more_is_not_copied(pair: Pair) -> None:
    pair.db.run(PRIMARY, "release")
    with pytest.raises(CheckFailed, match="the primary no more"):
        SEED.do(world(pair), Quiet())


def test_how_far_a_job_is() -> None:
    assert parse_state("going 10 20 preparing what was copied\n") == State(None, 10, 20, "preparing what was copied")
    assert parse_state("ended 3\nit broke off\n") == State(3, trouble="it broke off")
    assert parse_state("none\n") == State(-1)
    for text in ("", "going x 2 y", "ended"):
        with pytest.raises(ValueError, match="a job says"):
            parse_state(text)


def test_a_copy_says_how_fast_it_is_and_how_long_it_takes() -> None:
    quiet = Quiet()
    tell(quiet, State(None, 0, 400_000_000, "copying"), State(None, 100_000_000, 400_000_000, "copying"), 10)
    tell(quiet, State(None, 0, 0, "preparing"), State(None, 5, 0, "preparing"), 10)
    tell(quiet, State(None, 9, 100, "copying"), State(None, 0, 100, "copying"), 10)
    assert quiet.said == ["copying, 10.0 MB/s, about 30 s more", "preparing", "copying"]
