"""Backups go from the database's server straight to the hosts that keep them, and back: whole, or visibly not.

Two real MariaDBs with their own sshd, as in test_backup.py; idx-1's namespace also plays the hosts. What a test needs
is made once: the tests follow each other on the same servers, each with a backup of its own id.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from pcloud.backups import Choice, choose
from pcloud.errors import CheckFailed, PcloudError, Transient
from pcloud.kept import Backup
from pcloud.steps.backup import BACKUP, Drop, Keep, Take, find_begun, look, read_manifest, renew
from pcloud.steps.base import Met, Unmet
from pcloud.steps.door import order
from pcloud.steps.job import NO_ROOM, State, parse_state
from pcloud.steps.restoring import PROOF, RestoreBackup
from pcloud.world import World
from tests.guests import eventually
from tests.mariadbs import DB, IDX, Place, Quiet, as_it_was, between, fill, left, orders, place_order, two_servers

MIB = 1 << 20
KEPT = "/var/lib/pcloud/{}/backups/demo"
ID = "20261126-060000"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Place]:
    """The primary with the shop's data, an order, and 12 MiB that do not compress; the backup ID, taken and proven."""
    with two_servers(tmp_path_factory.mktemp("servers"), data) as place:
        place_order(place.db, 1)
        fill(place.db, 12)
        for host in ("h3", "h7"):
            place.idx.run("install", "-d", "-m", "0700", KEPT.format(host))
            renew(cast(World, place), host)
        place.passed.clear()
        do(place, Take("db-1", "db-1", ID))
        yield place


@pytest.fixture
def place(made: Place) -> Place:
    """As `made`, and the hosts keep nothing."""
    for host in ("h3", "h7"):
        eventually(lambda host=host: state(made, host).code is not None, 60)  # type: ignore[misc]
        made.idx.run("sh", "-c", f"cd {KEPT.format(host)} && rm -f -- *.mbs.* *.json *.part; rm -rf /run/pcloud-keep*")
    for guest in (made.db, made.idx):
        as_it_was(guest)
    made.idx.run(BACKUP, "close", "restore")
    made.passed.clear()
    return made


def do(place: Place, step: Any) -> dict[str, Any]:
    """check, do, check, as the executor."""
    assert isinstance(step.check(place), Unmet)
    facts = step.do(place, Quiet())
    found = step.check(place)
    assert isinstance(found, Met), found
    return {**found.facts, **facts}


def program(host: str) -> str:
    return f"{KEPT.format(host)}/keep"


def state(place: Place, host: str) -> State:
    return parse_state(place.idx.run(program(host), "ask").stdout)


def files(place: Place, host: str) -> list[str]:
    """The names of what the host keeps and did not before."""
    return [n for n in place.idx.run("ls", KEPT.format(host)).stdout.split() if n != "keep"]


def manifest(place: Place) -> Backup:
    found = read_manifest(cast(World, place), "db-1", ID)
    assert found is not None
    return found


def begin(place: Place, host: str) -> None:
    """What `Keep` begins, and then the laptop is gone."""
    backup = manifest(place)
    text = json.dumps({**backup.__dict__, "timelines": []})
    words = ("fetch", ID, str(backup.size), backup.sha256, DB)
    given = order(cast(World, place), "db-1", f"keep-{host}", "backup", "give", ID, first=text)
    place.idx.run(program(host), "job", *words, stdin=given)


def restores(place: Place, *hosts: str) -> Choice:
    found = choose([look(cast(World, place), h) for h in hosts or ("h3",)])
    assert found is not None
    return found


def into(place: Place, *hosts: str, token: str) -> RestoreBackup:
    """A restore into idx-1, which has no data then."""
    place.idx.sql(
        "SET SESSION sql_log_bin=0; DROP DATABASE IF EXISTS pcloud; DROP DATABASE IF EXISTS shop; CREATE DATABASE shop"
    )
    return RestoreBackup("idx-1", "shop", restores(place, *hosts), token)


def same_rows(place: Place) -> bool:
    checksum = "CHECKSUM TABLE shop.bulk, shop.partner_partner"
    return place.idx.sql(checksum) == place.db.sql(checksum)


def test_a_backup_and_a_restore_pass_nothing_through_here_but_orders(place: Place) -> None:
    for host in ("h3", "h7"):
        do(place, Keep(host, "db-1", ID))
    assert [files(place, h) for h in ("h3", "h7")] == [[f"{ID}.json", f"{ID}.mbs.zst"]] * 2
    sums = place.idx.run("sh", "-c", f"sha256sum {KEPT.format('h3')}/*.zst {KEPT.format('h7')}/*.zst").stdout
    assert sums.count(manifest(place).sha256) == 2
    assert manifest(place).size > 12 * MIB, "it is larger than what may pass here"
    do(place, into(place, token="whole"))
    assert orders(place.idx) == {"order-1"} and same_rows(place)
    assert set(left(place.idx)) <= {"h3", "h7"}
    assert sum(place.passed) < MIB
    keys = "cat /root/.ssh/authorized_keys2; find / -xdev -path '*pcloud-keep*' -name key 2>/dev/null"
    assert [g.run("sh", "-c", keys, check=False).stdout for g in (place.db, place.idx)] == ["", ""], "no key is left"


@pytest.mark.parametrize("way", ["the sender dies", "the host's program dies"])
def test_a_copy_that_broke_off_goes_on_where_it_was(place: Place, way: str) -> None:
    between(place.db, "tail", "time.sleep(60 if n == 100 else 0)")
    begin(place, "h3")
    part = f"{KEPT.format('h3')}/{ID}.{manifest(place).sha256}.part"
    eventually(lambda: place.idx.run("sh", "-c", f"stat -c %s {part} || echo 0").stdout.split()[-1] >= str(5 * MIB))
    assert look(cast(World, place), "h3").backups == (), "half a backup is none"
    if way == "the sender dies":
        place.db.run("pkill", "-KILL", "-f", "/usr/local/bin/tail")
        eventually(lambda: state(place, "h3").code is not None)
        assert state(place, "h3").code == 3
    else:
        place.idx.run("pkill", "-KILL", "-f", "h3/backups/demo/keep (run|supervise)")
        place.idx.run("pkill", "-KILL", "-x", "ssh")
        place.db.run("pkill", "-KILL", "-f", "/usr/local/bin/tail")
        eventually(lambda: state(place, "h3").code is not None)
    as_it_was(place.db)
    had = int(place.idx.run("stat", "-c", "%s", part).stdout)
    do(place, Keep("h3", "db-1", ID))
    assert had > 5 * MIB
    assert int(place.idx.run("sh", "-c", "cat /run/pcloud-keep*h3*/from").stdout) == had
    assert files(place, "h3") == [f"{ID}.json", f"{ID}.mbs.zst"]


def test_a_byte_that_changed_on_its_way_is_seen(place: Place) -> None:
    change = "data = data[:500] + bytes([data[500] ^ 1]) + data[501:] if n == 40 else data"
    between(place.idx, "ssh", change)
    with pytest.raises(Transient, match="arrived as something else"):
        Keep("h3", "db-1", ID).do(cast(World, place), Quiet())
    assert files(place, "h3") == []
    as_it_was(place.idx)
    do(place, Keep("h3", "db-1", ID))
    between(place.idx, "mbstream", "pass")
    between(place.db, "cat", "pass")
    between(place.idx, "tee", change)  # on the host before it is sent, or on the server before it is unpacked
    step = into(place, token="changed")
    with pytest.raises(CheckFailed, match="no copy of the backup"):
        step.do(cast(World, place), Quiet())
    assert isinstance(step.check(cast(World, place)), Unmet)
    assert place.idx.run(BACKUP, "held", "restore").stdout == ""
    assert set(left(place.idx)) <= {"h3", "h7"}
    place.idx.run("rm", "/usr/local/bin/tee")
    do(place, step)
    assert same_rows(place)


def test_two_hosts_at_once_are_served_one_after_the_other(place: Place) -> None:
    between(place.db, "tail", "time.sleep(4 if n == 100 else 0)")
    begin(place, "h3")
    eventually(lambda: state(place, "h3").done > MIB)
    said = Quiet()
    Keep("h7", "db-1", ID).do(cast(World, place), said)
    assert "waiting for its turn" in said.said
    assert files(place, "h7") == files(place, "h3") == [f"{ID}.json", f"{ID}.mbs.zst"]


def test_a_host_without_room_is_told_before_anything_is_sent(place: Place) -> None:
    place.idx.run("mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", KEPT.format("h7"))
    renew(cast(World, place), "h7")
    with pytest.raises(CheckFailed, match=r"no room: \d+ MiB are free here, \d+ MiB are needed"):
        Keep("h7", "db-1", ID).do(cast(World, place), Quiet())
    assert state(place, "h7").code == NO_ROOM
    assert files(place, "h7") == []
    place.idx.run("umount", KEPT.format("h7"))
    do(place, Keep("h7", "db-1", ID))


def test_a_restore_that_was_begun_goes_on_without_the_laptop(place: Place) -> None:
    """Cut off in the middle it leaves nothing; the next one takes what a job brought meanwhile."""
    do(place, Keep("h3", "db-1", ID))
    step = into(place, token="laptop")
    backup = manifest(place)
    take = ("receive", "restore", str(backup.data), backup.sha256)
    given = order(cast(World, place), "idx-1", "from-h3", "backup", *take)
    words = ("send-backup", IDX, ID, "restore")
    between(place.idx, "cat", "time.sleep(60 if n == 100 else 0)")
    place.idx.run(program("h3"), "job", *words, stdin=given)
    eventually(lambda: state(place, "h3").done > MIB)
    place.idx.run("pkill", "-KILL", "-x", "ssh")
    eventually(lambda: state(place, "h3").code == 3)
    eventually(lambda: place.idx.run("test", "-e", "/var/lib/pcloud/restore", check=False).returncode == 1)
    place.idx.run("rm", "/usr/local/bin/cat")
    given = order(cast(World, place), "idx-1", "from-h3", "backup", *take)
    place.idx.run(program("h3"), "job", *words, stdin=given)
    began = ("sh", "-c", "stat -c %y /run/pcloud-keep*h3*/words")
    before = place.idx.run(*began).stdout
    facts = do(place, step)
    assert place.idx.run(*began).stdout == before, "it was not begun anew"
    assert facts["from"] == ID and same_rows(place)


def test_a_backup_that_a_laptop_began_is_gone_on_with(place: Place) -> None:
    """The same command finds what the server has or is at, and takes no second one."""
    clock = place.clock
    new = clock.wall().strftime("%Y%m%d-%H%M%S")
    before = manifest(place)
    place.db.run("mv", "/var/lib/pcloud/backup", "/var/lib/pcloud/aside")
    place.db.run(BACKUP, "job", "take", new)
    assert find_begun(cast(World, place), "db-1") == new
    place.db.run(BACKUP, "job", "take", "1")  # which is not begun beside it
    facts = do(place, Take("db-1", "db-1", new))
    assert facts["backup"] == new
    assert place.db.run(BACKUP, "words").stdout.strip() == f"take {new}"
    taken = read_manifest(cast(World, place), "db-1", new)
    assert taken is not None and taken.rows == before.rows and taken.data >= before.data > 12 * MIB
    assert place.db.run("test", "-e", PROOF, check=False).returncode == 1
    assert find_begun(cast(World, place), "db-1") == new, "no host has it yet"
    do(place, Drop("db-1", new))
    assert find_begun(cast(World, place), "db-1") is None
    place.db.run("sh", "-c", "rm -rf /var/lib/pcloud/backup; mv /var/lib/pcloud/aside /var/lib/pcloud/backup")


def test_a_backup_of_before_is_restored(place: Place) -> None:
    """Packed by gzip, with a manifest that knows no size of the data."""
    do(place, Keep("h3", "db-1", ID))
    place.idx.run(
        "sh",
        "-c",
        f"cd {KEPT.format('h3')} && zstd -dc {ID}.mbs.zst | gzip -1 >{ID}.mbs.gz && rm {ID}.mbs.zst && sed -i "
        f"s/{manifest(place).sha256}/$(sha256sum <{ID}.mbs.gz | cut -c1-64)/ {ID}.json && sed -i "
        f'"s/\\"size\\": [0-9]*/\\"size\\": $(stat -c %s {ID}.mbs.gz)/; s/, \\"data\\": [0-9]*//" {ID}.json',
    )
    found = restores(place).backup
    assert found == replace(manifest(place), size=found.size, sha256=found.sha256, data=0)
    do(place, into(place, token="before"))
    assert same_rows(place)


def test_a_backup_that_is_gone_is_no_matter_of_trying_again(place: Place) -> None:
    place.db.run("mv", f"/var/lib/pcloud/backup/{ID}.mbs", "/var/lib/pcloud/backup/aside")
    with pytest.raises(PcloudError, match="is not here any more") as caught:
        Keep("h3", "db-1", ID).do(cast(World, place), Quiet())
    assert not isinstance(caught.value, Transient)
    place.db.run("mv", "/var/lib/pcloud/backup/aside", f"/var/lib/pcloud/backup/{ID}.mbs")


def test_a_job_that_writes_what_it_is_at_is_asked_meanwhile(place: Place) -> None:
    place.idx.run("sh", "-c", "mkdir -p /run/pcloud-backup; cd /run/pcloud-backup; : >total; : >doing")
    ask = f"flock /run/pcloud-backup/lock {BACKUP} ask"
    assert parse_state(place.idx.run("sh", "-c", ask).stdout) == State(None, 0, 0, "beginning")


@pytest.mark.chaos
def test_a_cable_that_is_cut_ends_a_copy_and_it_goes_on(place: Place) -> None:
    """Also where neither end hears of the other's: the server's turn is not taken for ever."""
    between(place.db, "tail", "time.sleep(2 if n in (100, 110, 120) else 0)")
    begin(place, "h3")
    eventually(lambda: state(place, "h3").done > MIB)
    place.db.run("ip", "link", "set", "eth0", "down")
    eventually(lambda: state(place, "h3").code == 3, 90)
    place.db.run("ip", "link", "set", "eth0", "up")
    reach = ("timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{DB}/22")
    eventually(lambda: place.idx.run(*reach, check=False).returncode == 0)
    as_it_was(place.db)
    began = time.monotonic()
    do(place, Keep("h3", "db-1", ID))
    assert time.monotonic() - began < 120


@pytest.mark.chaos
def test_what_moves_is_not_given_up(place: Place) -> None:
    """Though each pause is longer than a poll. That what stands still is given up is not shown for this job."""
    place.idx.run("sed", "-i", "s/JOB_STILL_S-[0-9]*/JOB_STILL_S-3/", program("h3"))
    between(place.db, "tail", "time.sleep(0.4 if n % 10 == 0 else 0)")
    began = time.monotonic()
    do(place, Keep("h3", "db-1", ID))
    assert time.monotonic() - began > 6
    renew(cast(World, place), "h3")
