"""Backups of a real MariaDB: taken, proven, kept, continued by the binary log, and brought back.

Two servers in namespaces with the demo site's own files (see test_mariadb.py). The second one's
namespace also plays the hosts that keep: the same network, other folders.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pcloud.backups import choose
from pcloud.errors import CheckFailed, CommandFailed, Transient
from pcloud.kept import Backup, Target, Timeline
from pcloud.steps.backup import Drop, Keep, Stream, Take, look
from pcloud.steps.base import Met, Unmet
from pcloud.steps.keeping import Thin
from pcloud.steps.restoring import BESIDE, Beside, Close, Prove, RestoreBackup
from tests.guests import Guest, eventually
from tests.mariadbs import (
    PRIMARY,
    SERVICE,
    Place,
    Quiet,
    left,
    orders,
    place_order,
    role,
    two_servers,
)

LIMIT_S = 120


@pytest.fixture
def place(tmp_path: Path, data: Path) -> Iterator[Place]:
    """The primary with the shop's data and one order; idx-1 as an image leaves it; h3 and h7 that keep nothing yet."""
    with two_servers(tmp_path, data) as made:
        place_order(made.db, 1)
        for host in ("h3", "h7"):
            prepare(made, host)
        yield made


def prepare(place: Place, host: str) -> None:
    """What `Stream` puts on a host, where this machine's init is none that it could ask."""
    step = Stream(host, "db-1")
    with pytest.raises(CommandFailed, match="neither systemd nor an inittab"):
        do(place, step)


def do(place: Place, step: Any) -> dict[str, Any]:
    """check, do, check, as the executor."""
    found = step.check(place)
    assert isinstance(found, Unmet), found
    facts = step.do(place, Quiet())
    found = step.check(place)
    assert isinstance(found, Met), found
    return {**found.facts, **facts}


def back_up(place: Place, id: str, *hosts: str, server: str = "db-1") -> Backup:
    do(place, Take(server, server, id))
    for host in hosts or ("h3", "h7"):
        do(place, Keep(host, server, id))
    do(place, Drop(server, id))
    return next(b for b in look(place, (hosts or ("h3",))[0]).backups if b.id == id)  # type: ignore[arg-type]


def kept(place: Place, *hosts: str) -> list[Any]:
    return [look(place, host) for host in hosts or ("h3", "h7")]  # type: ignore[arg-type]


def position(guest: Guest) -> str:
    return guest.sql("SELECT @@gtid_current_pos")


def caught_up(place: Place, host: str = "h3") -> bool:
    shelf = look(place, host)  # type: ignore[arg-type]
    now = next((t.end for t in shelf.stretches if t.session == shelf.session), "")
    return now == position(place.db) != ""


def test_a_backup_is_proven_and_kept_on_two_hosts(place: Place) -> None:
    made = back_up(place, "20261126-060000")
    assert made.position == position(place.db) != ""
    assert made.rows > 100
    assert made.tables > 50
    assert made.line == "t"
    assert [s.backups for s in kept(place)] == [(made,), (made,)]
    assert set(place.db.run("ls", "/var/lib/pcloud").stdout.split()) <= {"primary", "relay"}, "nothing is left"
    mode = place.idx.run("stat", "-c", "%a", "/var/lib/pcloud/h3/backups/demo/client.cnf").stdout.strip()
    assert mode == "600"


def test_what_arrives_as_something_else_is_not_kept(place: Place) -> None:
    do(place, Take("db-1", "db-1", "1"))
    path = "/var/lib/pcloud/backup/1.mbs"
    whole = place.db.run("sha256sum", path).stdout
    place.db.run("sh", "-c", f"printf x | dd of={path} bs=1 seek=5000 conv=notrunc 2>/dev/null")
    assert place.db.run("sha256sum", path).stdout != whole
    with pytest.raises(Transient, match="arrived as something else"):
        Keep("h3", "db-1", "1").do(place, Quiet())  # type: ignore[arg-type]
    assert kept(place, "h3")[0].backups == ()
    assert "mbs" not in place.idx.run("ls", "/var/lib/pcloud/h3/backups/demo").stdout


def test_a_full_disk_leaves_no_half_of_a_backup(place: Place) -> None:
    place.idx.run("sh", "-c", "mkdir -p /var/lib/pcloud/h3; mount -t tmpfs -o size=300k tmpfs /var/lib/pcloud/h3")
    prepare(place, "h3")
    do(place, Take("db-1", "db-1", "1"))
    with pytest.raises(CheckFailed, match="no room"):
        Keep("h3", "db-1", "1").do(place, Quiet())  # type: ignore[arg-type]
    assert kept(place, "h3")[0].backups == ()
    assert sorted(place.idx.run("ls", "/var/lib/pcloud/h3/backups/demo").stdout.split()) == sorted(
        ["client.cnf", "keep", "peers", "server-id"]
    )
    do(place, Keep("h7", "db-1", "1"))


def test_a_server_without_room_takes_none(place: Place) -> None:
    place.db.run("sh", "-c", "mount -t tmpfs -o size=20m tmpfs /var/lib/pcloud")
    with pytest.raises(CheckFailed, match="MiB are needed"):
        Take("db-1", "db-1", "1").do(place, Quiet())  # type: ignore[arg-type]


def test_a_backup_that_was_killed_in_the_middle_is_begun_again(place: Place) -> None:
    started = time.monotonic()
    argv = place.db.argv("/usr/lib/pcloud/backup", "take", "1")
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: "1.part" in place.db.run("ls", "/var/lib/pcloud/backup", check=False).stdout, 20)
        place.db.run("pkill", "-KILL", "-f", "pcloud/backup take", check=False)
        place.db.run("pkill", "-KILL", "-x", "mariadb-backup", check=False)
        process.wait(30)
    assert time.monotonic() - started < 30
    assert isinstance(Take("db-1", "db-1", "1").check(place), Unmet)  # type: ignore[arg-type]
    back_up(place, "2")


def test_a_restore_to_a_transaction_and_to_the_last_one(place: Place) -> None:
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        made = back_up(place, "1")
        place_order(place.db, 2)
        middle = position(place.db)
        place_order(place.db, 3)
        end = position(place.db)
        eventually(lambda: caught_up(place))
    assert [s.host for s in kept(place) if s.streaming] == []
    to_middle = choose(kept(place), Target(gtid=middle))
    assert to_middle is not None
    assert to_middle.backup == made
    do(place, Beside("idx-1", "shop", to_middle, "look"))
    there = ("mariadb", "--batch", "--skip-column-names", f"--socket={BESIDE}/mysqld.sock")
    codes = "SELECT code FROM shop.partner_partner WHERE code LIKE 'order-%'"
    assert set(place.idx.run(*there, stdin=codes).stdout.split()) == {"order-1", "order-2"}
    assert place.idx.sql("SHOW DATABASES LIKE 'pcloud'") == "", "the server's own data are not touched"
    do(place, Close("idx-1"))
    everything = choose(kept(place))
    assert everything is not None
    assert everything.end == end
    facts = do(place, RestoreBackup("idx-1", "shop", everything, "demo.backup-1.g2"))
    assert facts["reached"] == end
    assert orders(place.idx) == {"order-1", "order-2", "order-3"}
    assert (role(place.idx), place.idx.sql("SELECT @@read_only")) == ("replica", "1")
    assert set(place.idx.run("ls", "/var/lib/pcloud").stdout.split()) <= {"h3", "h7", "relay"}


def test_a_restored_pair_goes_on_where_the_data_end(place: Place) -> None:
    """Both servers made from the same backup: one takes the role, the other follows, and orders go on, in a
    timeline of their own."""
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1")
        place_order(place.db, 2)
        eventually(lambda: caught_up(place))
        last = position(place.db)
        place.db.run(PRIMARY, "release")
        place.db.sql("DROP DATABASE pcloud; DROP DATABASE shop; CREATE DATABASE shop")
    choice = choose(kept(place))
    assert choice is not None
    timeline = Timeline(1417, 0, last, "db-1", "both hosts were lost; it's restored")
    for server in ("db-1", "idx-1"):
        do(place, RestoreBackup(server, "shop", choice, "demo.backup-1.g2", timeline=timeline))
        row = place.server_shell(server).guest.sql(
            "SELECT CONCAT_WS('|', domain, parent, branched, why) FROM pcloud.timelines"
        )
        assert row == f"1417|0|{last}|both hosts were lost; it s restored"
    assert position(place.db) == position(place.idx) == last
    place.db.run(PRIMARY, "take", "alone")
    place_order(place.db, 3)
    assert position(place.db).startswith(f"{last},1417-")
    assert place.db.sql("SELECT @@gtid_binlog_pos") == position(place.db)
    place.idx.run("/usr/lib/pcloud/follow", SERVICE)
    place_order(place.db, 4)
    eventually(lambda: orders(place.idx) == {"order-1", "order-2", "order-3", "order-4"})


def test_the_stream_is_of_the_line_of_the_data(place: Place) -> None:
    """After a restore the same positions mean other data: a backup is continued by its own line alone."""
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1")
        place.db.sql("SET SESSION sql_log_bin=0; UPDATE pcloud.restored SET token='other'")
        place_order(place.db, 2)
        eventually(lambda: {t.line for t in look(place, "h3").stretches} == {"t", "other"}, 40)  # type: ignore[arg-type]
        place.db.sql("SET SESSION sql_log_bin=0; DROP DATABASE pcloud")
        eventually(lambda: "unmarked" in {t.line for t in look(place, "h3").stretches}, 40)  # type: ignore[arg-type]
    choice = choose(kept(place))
    assert choice is not None
    assert {leg.stretch.line for leg in choice.legs} <= {"t"}


def test_the_stream_goes_on_after_its_server_was_away(place: Place) -> None:
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1")
        place.db.sql("FLUSH BINARY LOGS")
        place_order(place.db, 2)
        place.db.run("pkill", "-KILL", "-x", "mariadbd")
        eventually(lambda: place.db.run("mariadb", "-e", "SELECT 1", check=False).returncode == 0)
        place.db.run(PRIMARY, "boot")
        place_order(place.db, 3)
        eventually(lambda: caught_up(place), 40)
    choice = choose(kept(place))
    assert choice is not None
    assert choice.end == position(place.db)
    do(place, RestoreBackup("idx-1", "shop", choice, "demo.backup-1.g2"))
    assert orders(place.idx) == {"order-1", "order-2", "order-3"}


def spoil(place: Place, host: str) -> None:
    """A bit in the middle of the file is another one; as it was, the second time."""
    lines = ("import sys", "f = open(sys.argv[1], 'r+b')", "f.seek(90000)", "b = f.read(1)[0] ^ 1", "f.seek(90000)")
    change = "; ".join((*lines, "f.write(bytes([b]))"))
    place.idx.run("python3", "-c", change, f"/var/lib/pcloud/{host}/backups/demo/1.mbs.zst")


def test_a_backup_that_rotted_is_refused(place: Place) -> None:
    back_up(place, "1")
    choice = choose(kept(place))
    assert choice is not None
    assert choice.hosts == ("h3", "h7")
    spoil(place, "h3")
    spoil(place, "h7")
    with pytest.raises(CheckFailed, match=r"no copy .* is whole"):
        RestoreBackup("idx-1", "shop", choice, "t2").do(place, Quiet())  # type: ignore[arg-type]
    assert isinstance(RestoreBackup("idx-1", "shop", choice, "t2").check(place), Unmet)  # type: ignore[arg-type]
    spoil(place, "h7")  # which makes it whole again
    do(place, RestoreBackup("idx-1", "shop", choice, "t2"))
    assert orders(place.idx) == {"order-1"}


def test_a_backup_that_was_cut_off_is_none(place: Place) -> None:
    back_up(place, "1")
    place.idx.run("truncate", "-s", "-100", "/var/lib/pcloud/h3/backups/demo/1.mbs.zst")
    first, second = kept(place)
    assert (first.backups, first.damaged) == ((), ("1",))
    assert len(second.backups) == 1
    choice = choose([first, second])
    assert choice is not None
    assert choice.hosts == ("h7",)


def test_a_binary_log_that_rotted_or_was_cut_off_is_not_passed_over(place: Place) -> None:
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1")
        for number in range(2, 8):
            place_order(place.db, number)
        eventually(lambda: caught_up(place))
    choice = choose(kept(place))
    assert choice is not None
    log = place.idx.run("sh", "-c", "ls /var/lib/pcloud/h3/backups/demo/binlog/*/*/binlog.* | tail -n 1").stdout.strip()
    place.idx.run("cp", log, "/tmp/log")
    size = int(place.idx.run("stat", "-c", "%s", log).stdout)
    for change, words in [
        (
            f"printf '\\377' | dd of={log} bs=1 seek={size - 400} conv=notrunc 2>/dev/null",
            "damaged|crc|cannot be applied",
        ),
        (f"truncate -s {size - 400} {log}", "is said to lead to"),
    ]:
        place.idx.run("cp", "/tmp/log", log)
        place.idx.run("sh", "-c", change)
        with pytest.raises((CommandFailed, CheckFailed), match=words):
            RestoreBackup("idx-1", "shop", choice, "t2").do(place, Quiet())  # type: ignore[arg-type]
        assert isinstance(RestoreBackup("idx-1", "shop", choice, "t2").check(place), Unmet)  # type: ignore[arg-type]
    place.idx.run("cp", "/tmp/log", log)
    do(place, RestoreBackup("idx-1", "shop", choice, "t2"))
    assert orders(place.idx) == {f"order-{n}" for n in range(1, 8)}


def test_old_backups_go_and_what_continues_the_others_stays(place: Place) -> None:
    """By where they are in the data: the host's clock says that all of it is from 2020."""
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        for number in (1, 2, 3):
            back_up(place, str(number), "h3")
            place_order(place.db, number + 1)
        eventually(lambda: caught_up(place))
        folder = "/var/lib/pcloud/h3/backups/demo"
        place.idx.run("sh", "-c", f"find {folder} -type f -exec touch -d 2020-01-01 {{}} +")
        before = look(place, "h3")  # type: ignore[arg-type]
        do(place, Thin("h3", 2))
        place_order(place.db, 5)
        eventually(lambda: caught_up(place))
    shelf = look(place, "h3")  # type: ignore[arg-type]
    assert [b.id for b in shelf.backups] == ["2", "3"]
    for backup in shelf.backups:
        choice = choose([shelf], only=backup.id)
        assert choice is not None and choice.end == position(place.db), "the stream goes on, and leads from both"
    first = min(run.numbers[0] for t in before.stretches for run in t.runs)
    assert min(run.numbers[0] for t in shelf.stretches for run in t.runs) > first, "what continues none is gone"


def test_a_time_stops_the_replay(place: Place) -> None:
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1")
        time.sleep(1.1)
        place_order(place.db, 2)
        time.sleep(1.1)
        moment = place.db.run("date", "-u", "+%Y-%m-%dT%H:%M:%SZ").stdout.strip()
        time.sleep(1.1)
        place_order(place.db, 3)
        eventually(lambda: caught_up(place))
    choice = choose(kept(place), Target(time=moment))
    assert choice is not None
    do(place, RestoreBackup("idx-1", "shop", replace(choice), "t2"))
    assert orders(place.idx) == {"order-1", "order-2"}


def test_the_data_are_made_beside_those_that_serve_and_nothing_of_it_stays(place: Place) -> None:
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1")
        place_order(place.db, 2)
        eventually(lambda: caught_up(place))
    choice = choose(kept(place))
    assert choice is not None
    before = place.db.sql("CHECKSUM TABLE shop.partner_partner")
    facts = Prove("db-1", "shop", choice).do(place, Quiet())  # type: ignore[arg-type]
    assert facts["reached"] == choice.end == position(place.db)
    assert int(facts["rows"]) > 100
    assert left(place.db) == ["primary"]
    assert place.db.sql("CHECKSUM TABLE shop.partner_partner") == before


def test_what_cannot_be_applied_is_named_with_the_last_good_position_and_no_row(place: Place) -> None:
    """A row that the backup has not is changed by the binary log: the hole that a keeper did not see."""
    with place.streaming("h3"):
        eventually(lambda: caught_up(place))
        back_up(place, "1")
        place.db.sql(
            "SET SESSION sql_log_bin=0; INSERT INTO shop.partner_partner (code, name) VALUES ('anna', 'Nowak')"
        )
        place_order(place.db, 2)
        good = position(place.db)
        place.db.sql("UPDATE shop.partner_partner SET name='Anna Nowak-Mill' WHERE code='anna'")
        bad = position(place.db)
        eventually(lambda: caught_up(place))
    choice = choose(kept(place))
    assert choice is not None
    for step in (
        Prove("db-1", "shop", choice),
        RestoreBackup("idx-1", "shop", choice, "demo.backup-1.g2", undo=True),
    ):
        with pytest.raises(CheckFailed) as caught:
            step.do(place, Quiet())  # type: ignore[arg-type]
        assert f"transaction {bad} on shop.partner_partner cannot be applied (ERROR 1032)" in caught.value.what
        assert f"the last good position is {good}" in caught.value.what
        assert f"pcloud restore demo --to {good}" in caught.value.next
        assert ("pcloud undo demo" in caught.value.next) == isinstance(step, RestoreBackup)
        assert "Nowak" not in str(caught.value)
    assert left(place.db) == ["primary"]
    to_good = choose(kept(place), Target(gtid=good))
    assert to_good is not None
    facts = do(place, RestoreBackup("idx-1", "shop", to_good, "demo.backup-1.g2"))
    assert facts["reached"] == good


def test_data_beside_never_take_the_last_of_the_disk(place: Place) -> None:
    back_up(place, "1")
    choice = choose(kept(place))
    assert choice is not None
    place.db.run("sh", "-c", "mount -t tmpfs -o size=90m tmpfs /var/lib/pcloud")
    free = "df --output=avail -k /var/lib/pcloud | tail -n 1"
    before = int(place.db.run("sh", "-c", free).stdout)
    for step in (Beside("db-1", "shop", choice, "look"), Prove("db-1", "shop", choice)):
        with pytest.raises(CheckFailed, match="have no room") as caught:
            step.do(place, Quiet())  # type: ignore[arg-type]
        assert int(place.db.run("sh", "-c", free).stdout) == before
        assert ("pcloud restore demo --unproven" in caught.value.next) == isinstance(step, Prove)
