"""Backup, restore and replica beside the same tools by hand, on data of a real size: `python -m benchmarks.data GIB`.

Between the same two ends in the same run, in turns: MariaDB servers in namespaces with their own sshd and disks, no
emulation (tests/mariadbs.py). The second one also is the host that keeps. By hand means a line of shell that knows
these two machines: `mariadb-backup`, `zstd -1`, `ssh`, `sha256sum`, `mbstream`, and MariaDB started on the result. It
makes the same thing, and looks at nothing on the way.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

from pcloud.backups import choose
from pcloud.steps.backup import BACKUP, Drop, Keep, Take, folder_of, look, renew
from pcloud.steps.restoring import RestoreBackup
from pcloud.world import World
from tests.guests import Guest, mariadb_data
from tests.mariadbs import DB, IDX, Place, Quiet, two_servers

ROUNDS = 2
HOST = "h3"
LONGEST_S = 7200
SSH = "ssh -F none -i /srv/by-hand/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
BY_ITSELF = (
    "mariadbd --no-defaults --user=mysql --datadir=$d --socket=/srv/by-hand/s --pid-file=/srv/by-hand/p "
    "--skip-networking --skip-slave-start --innodb-buffer-pool-size=32M --skip-log-bin"
)
WAIT = "for i in {1..600}; do mariadb --no-defaults -S /srv/by-hand/s -e 'DO 1' 2>/dev/null && break; sleep 0.2; done"
GONE = "while [ -e /run/mysqld/mysqld.pid ]; do sleep 0.1; done"
END = "mariadb --no-defaults -S /srv/by-hand/s -e SHUTDOWN; while [ -e /srv/by-hand/p ]; do sleep 0.1; done"


def on_disks(guest: Guest) -> None:
    """Its folders are on the disk, and not in memory; MariaDB is not at work in them then."""
    for path, mode in {"/var/lib/mysql": 755, "/var/lib/pcloud": 755, "/srv/by-hand": 777}.items():
        there = f"/srv/bench{path}"
        made = f"mkdir -p {there} {path} && cp -a {path}/. {there} && chmod {mode} {there}"
        guest.run("sh", "-c", f"{made} && mount --bind {there} {path}")


def fill(guest: Guest, gib: float) -> None:
    """Rows of 4 KB, of which zstd -1 takes about half away, as of a shop's."""
    guest.sql("CREATE TABLE shop.bulk (id INT PRIMARY KEY AUTO_INCREMENT, a VARBINARY(2100), b VARCHAR(2100))")
    values = "CONCAT(RANDOM_BYTES(1000), RANDOM_BYTES(1000)), REPEAT(MD5(RAND()), 62)"
    for _ in range(max(1, round(gib * 8))):
        rows = f"USE shop; INSERT INTO shop.bulk (a, b) SELECT {values} FROM seq_1_to_{(1 << 27) // 4300}"
        guest.run("mariadb", stdin=f"SET SESSION sql_log_bin=0; {rows}", timeout_s=LONGEST_S)


def timed(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def shell(guest: Guest, script: str) -> None:
    guest.run("bash", "-c", f"set -euo pipefail; {script}", timeout_s=LONGEST_S)


def backup_by_hand(place: Place) -> float:
    """Taken, proven as `backup take` proves it, and on a host that has hashed it."""
    take = "mariadb-backup --backup --stream=mbstream --user=root --target-dir=/srv/by-hand/t 2>/dev/null | zstd -q -1"
    prove = (
        "d=/srv/by-hand/d; mkdir $d; zstd -dc /srv/by-hand/b | mbstream -x -C $d; "
        "mariadb-backup --prepare --use-memory=64M --target-dir=$d >/dev/null 2>&1; "
        f"chown -R mysql $d; setsid {BY_ITSELF} >/dev/null 2>&1 & {WAIT}; "
        f"mariadb-check --no-defaults -S /srv/by-hand/s --databases shop >/dev/null; {END}; rm -rf $d"
    )
    fetch = f"{SSH} {DB} cat /srv/by-hand/b >/srv/by-hand/b; sha256sum /srv/by-hand/b; sync /srv/by-hand/b"

    def all_of_it() -> None:
        shell(place.db, f"{take} >/srv/by-hand/b; sha256sum /srv/by-hand/b; {prove}")
        shell(place.idx, fetch)

    return timed(all_of_it)


def swap(place: Place, fill_data: str) -> None:
    """idx-1's data become those that `fill_data` makes in $d: MariaDB ends, they take their place, it starts."""
    hold = "pkill -STOP -f '[b]ackup install'; mariadb -e SHUTDOWN; " + GONE
    start = "pkill -CONT -f '[b]ackup install'; until mariadb -e 'DO 1' 2>/dev/null; do sleep 0.2; done"
    prepare = "mariadb-backup --prepare --use-memory=64M --target-dir=$d >/dev/null 2>&1; rm -f $d/binlog.* $d/relay.*"
    move = "find /var/lib/mysql -mindepth 1 -delete; mv $d/* /var/lib/mysql/; chown -R mysql: /var/lib/mysql; rm -rf $d"
    shell(
        place.idx,
        f"d=/var/lib/pcloud/by-hand; rm -rf $d; mkdir $d; {fill_data} | zstd -dc | mbstream -x -C $d; {prepare}; "
        f"{hold}; {move}; sync; {start}",
    )


def restore_by_hand(place: Place) -> float:
    """From the host through SSH, as a host would send it."""
    return timed(lambda: swap(place, f"{SSH} {IDX} cat /srv/by-hand/b"))


def replica_by_hand(place: Place) -> float:
    take = "mariadb-backup --backup --stream=mbstream --user=root --target-dir=/srv/by-hand/t 2>/dev/null | zstd -q -1"
    return timed(lambda: swap(place, f"{SSH} {DB} '{take}'"))


def backup_by_pcloud(place: Place, number: int) -> float:
    name = f"2026010{number}-000000"

    def all_of_it() -> None:
        Take("db-1", "db-1", name).do(cast(World, place), Quiet())
        Keep(HOST, "db-1", name).do(cast(World, place), Quiet())

    took = timed(all_of_it)
    Drop("db-1", name).do(cast(World, place), Quiet())
    return took


def no_data(guest: Guest) -> None:
    guest.sql("SET SESSION sql_log_bin=0; DROP DATABASE IF EXISTS pcloud; DROP DATABASE IF EXISTS shop")
    guest.sql("SET SESSION sql_log_bin=0; CREATE DATABASE shop")


def restore_by_pcloud(place: Place, number: int) -> float:
    no_data(place.idx)
    choice = choose([look(cast(World, place), HOST)])
    assert choice is not None
    step = RestoreBackup("idx-1", "shop", replace(choice, legs=()), f"t{number}")
    return timed(lambda: step.do(cast(World, place), Quiet()))


def replica_by_pcloud(place: Place) -> float:
    no_data(place.idx)
    return timed(lambda: place.copy(place.idx))


def same(place: Place) -> None:
    count = "SELECT COUNT(*), SUM(CRC32(a)), SUM(CRC32(b)) FROM shop.bulk"
    ours = place.idx.run("mariadb", "-BN", stdin=count, timeout_s=LONGEST_S).stdout
    assert ours == place.db.run("mariadb", "-BN", stdin=count, timeout_s=LONGEST_S).stdout, "the data are not the same"


def log_in(place: Place) -> None:
    """By hand there is a key for everything."""
    place.idx.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/srv/by-hand/key")
    key = place.idx.run("cat", "/srv/by-hand/key.pub").stdout
    for guest in (place.db, place.idx):
        guest.run("sh", "-c", "umask 077; mkdir -p /root/.ssh; cat >/root/.ssh/authorized_keys", stdin=key)


def measure(gib: float, folder: Path) -> dict[str, Any]:
    found: dict[str, list[float]] = {}

    def note(what: str, seconds: float) -> None:
        found.setdefault(what, []).append(round(seconds, 1))
        print(f"{what}: {seconds:.1f} s", file=sys.stderr, flush=True)

    with two_servers(folder, mariadb_data(folder / "template"), before=on_disks) as place:
        log_in(place)
        fill(place.db, gib)
        place.idx.run("install", "-d", "-m", "0700", folder_of(cast(World, place), HOST))
        renew(cast(World, place), HOST)
        size = int(place.db.run("du", "-sb", "/var/lib/mysql").stdout.split()[0])
        passed = []
        for number in range(1, ROUNDS + 1):
            note("backup by hand", backup_by_hand(place))
            place.passed.clear()
            note("backup", backup_by_pcloud(place, number))
            note("restore by hand", restore_by_hand(place))
            note("restore", restore_by_pcloud(place, number))
            same(place)
            note("replica by hand", replica_by_hand(place))
            note("replica", replica_by_pcloud(place))
            same(place)
            passed.append(sum(place.passed))
        place.idx.run(BACKUP, "close", "restore")
    ratio = {k: round(median(found[f"{k} by hand"]) / median(found[k]), 2) for k in ("backup", "restore", "replica")}
    return {
        "asked_gib": gib,
        "gib": round(size / (1 << 30), 1),
        "ratio": ratio,
        "passed_kib": round(max(passed) / 1024, 1),
        **found,
    }


def main() -> None:
    gib = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    with TemporaryDirectory(prefix="pcloud-data-") as folder:
        (Path(folder) / "template").mkdir()
        print(json.dumps(measure(gib, Path(folder))))


if __name__ == "__main__":
    main()
