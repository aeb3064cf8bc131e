"""What hosts kept of two real MariaDBs through a life, restored and compared: tables with inserts only, with updates,
and with changes of their definition, by checksum."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from pcloud.backups import choose
from pcloud.steps.restoring import BESIDE, Beside, Close
from tests.guests import Guest, eventually, mariadb_data
from tests.mariadbs import PRIMARY, SERVICE, Place, two_servers
from tests.test_backup import back_up, do, kept, prepare

EVENTS = ("write", "define", "miss", "anew", "failover", "backup")
TABLES = ("only_inserts", "updated", "defined")
LENGTH = 5


def sensible(history: Sequence[str]) -> bool:
    """Nothing twice in a row that does nothing the second time, no more than two that take long."""
    return (
        all(a != b or a == "miss" for a, b in pairwise(history))
        and sum(e in ("failover", "anew") for e in history) <= 2
    )


def histories(seed: int, count: int) -> Iterator[tuple[str, ...]]:
    chance = random.Random(seed)
    while count:
        history = tuple(chance.choices(EVENTS, k=LENGTH))
        if sensible(history):
            count -= 1
            yield history


class Life:
    """A site's two servers, and what its tables held at each position."""

    def __init__(self, place: Place) -> None:
        self.place, self.primary, self.replica = place, place.db, place.idx
        self.held: dict[str, str] = {}
        self.number, self.domain, self.backups = 0, 1000, 0
        self.streams: ExitStack | None = None
        self.primary.sql(
            "USE shop; CREATE TABLE only_inserts (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40));"
            "CREATE TABLE updated (id INT PRIMARY KEY, what VARCHAR(40));"
            "CREATE TABLE defined (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40));"
            "INSERT INTO updated VALUES (1, 'a'), (2, 'b'), (3, 'c')"
        )
        self.anew()
        self.listen(on=True)
        self.backup()

    def note(self) -> None:
        at = self.primary.sql("SELECT @@gtid_current_pos")
        self.held[at] = checksums(self.primary)

    def listen(self, *, on: bool) -> None:
        if self.streams is not None:
            self.streams.close()
            self.streams = None
        if on:
            self.streams = ExitStack()
            self.streams.enter_context(self.place.streaming("h3"))

    def settle(self) -> None:
        def has() -> bool:
            [shelf] = kept(self.place, "h3")
            now = next((t.end for t in shelf.stretches if t.session == shelf.session), "")
            return bool(now == self.primary.sql("SELECT @@gtid_current_pos"))

        eventually(has, 60)

    def write(self) -> None:
        self.number += 1
        n = self.number
        for statement in (
            f"INSERT INTO only_inserts (what) VALUES ('{n}')",
            f"UPDATE updated SET what = CONCAT(what, '{n}') WHERE id = {n % 3 + 1}",
            f"INSERT INTO defined (what) VALUES ('{n}')",
        ):
            self.primary.sql(f"USE shop; {statement}")
            self.note()

    def define(self) -> None:
        self.number += 1
        self.primary.sql(f"USE shop; ALTER TABLE defined ADD COLUMN c{self.number} INT NOT NULL DEFAULT {self.number}")
        self.note()
        self.write()

    def miss(self) -> None:
        """The keeper is away, and what came meanwhile is purged."""
        self.listen(on=False)
        self.write()
        self.primary.sql("FLUSH BINARY LOGS")
        last = self.primary.sql("SHOW MASTER STATUS").split()[0]

        def purged() -> bool:  # who reads a file still keeps it
            self.primary.sql(f"PURGE BINARY LOGS TO '{last}'")
            return len(self.primary.sql("SHOW BINARY LOGS").splitlines()) == 1

        eventually(purged)
        self.listen(on=True)
        self.write()

    def anew(self) -> None:
        self.place.copy(self.replica)
        self.replica.run("/usr/lib/pcloud/follow", SERVICE)
        if self.number % 2:  # as an earlier pcloud left it
            self.replica.sql("STOP SLAVE; RESET MASTER; START SLAVE")
        self.note()

    def failover(self) -> None:
        goal = self.primary.sql("SELECT @@gtid_current_pos")
        self.replica.sql(f"SELECT MASTER_GTID_WAIT('{goal}', 30)")
        self.primary.run("ip", "address", "del", f"{SERVICE}/24", "dev", "eth0")
        self.primary.run("rm", "/var/lib/pcloud/primary")
        self.primary.run("pkill", "-KILL", "-x", "mariadbd")
        self.domain += 1000
        self.replica.run(PRIMARY, "promote", "30", "-", str(self.domain), "promoted")
        self.primary, self.replica = self.replica, self.primary
        eventually(lambda: self.replica.run("mariadb", "-e", "SELECT 1", check=False).returncode == 0)
        self.note()
        self.anew()
        self.write()

    def backup(self) -> None:
        self.settle()
        self.backups += 1
        server = "db-1" if self.primary is self.place.db else "idx-1"
        back_up(self.place, str(self.backups), "h3", server=server)
        self.note()

    def check(self) -> str:
        """What a restore leads to is what the tables held there."""
        self.settle()
        shelves = kept(self.place, "h3")
        choice = choose(shelves)
        assert choice is not None
        do(self.place, Beside("idx-1", "shop", choice, "look"))
        found = checksums(self.place.idx, f"--socket={BESIDE}/mysqld.sock")
        do(self.place, Close("idx-1"))
        assert found == self.held[choice.end], f"at {choice.end}"
        now = self.primary.sql("SELECT @@gtid_current_pos")
        assert choice.end == now or choice.holes, f"it ends at {choice.end} before {now}, and nothing is said"
        return "reaches now" if choice.end == now else f"names {len(choice.holes)} holes"


def checksums(guest: Guest, *options: str) -> str:
    tables = ", ".join(f"shop.{name}" for name in TABLES)
    return guest.sql(f"CHECKSUM TABLE {tables} EXTENDED; SHOW CREATE TABLE shop.defined", *options)


def live(folder: Path, data: Path, history: Sequence[str]) -> str:
    """Plays the history; what a restore then does. Raises `AssertionError` when it is not what the data were."""
    with two_servers(folder, data) as place:
        prepare(place, "h3")
        life = Life(place)
        try:
            for event in history:
                getattr(life, event)()
            return life.check()
        finally:
            life.listen(on=False)


def main(seed: int, count: int) -> None:
    """python -m tests.maria_histories SEED COUNT"""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "data").mkdir()
        data = mariadb_data(top / "data")
        for number, history in enumerate(histories(seed, count)):
            (top / str(number)).mkdir()
            sys.stdout.write(f"{' '.join(history)} -> {live(top / str(number), data, history)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
