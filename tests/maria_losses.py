"""Both servers of real MariaDBs lost at a random moment while orders arrive: what `status` said that would be lost,
against what a restore from the hosts then really lacked."""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pcloud.backups import choose
from pcloud.desired import Desired
from pcloud.inventory import defaults_dir, load_site
from pcloud.observed import Data, Observed, SeenDatabase
from pcloud.playbook import load_playbook
from pcloud.rpo import measure_rpo
from pcloud.steps.restoring import BESIDE, Beside
from tests.conftest import make_desired
from tests.guests import eventually, mariadb_data
from tests.mariadbs import SERVICE, Place, place_order, two_servers
from tests.test_backup import back_up, caught_up, do, kept, prepare

HOSTS = ("h3", "h7")
TROUBLES = ("none", "one stands", "both stand", "logs change", "a backup")


@dataclass(frozen=True)
class Loss:
    """One loss: how many transactions `status` said, and how many orders were really lost, by when they were
    acknowledged: before the primary was asked, or between that and the cut."""

    trouble: str
    orders: int
    said: int
    said_s: int | None
    lost_before: int
    lost_after: int
    oldest_s: float
    """How long before the cut the oldest lost order had been acknowledged."""

    def __str__(self) -> str:
        late = f" ({self.oldest_s:.1f} s before the cut)" if self.lost_before + self.lost_after else ""
        return (
            f"{self.trouble:<12} {self.orders:>4} orders  said {self.said:>3} of the last {self.said_s} s  "
            f"lost {self.lost_before:>3}, and {self.lost_after} of those ordered since{late}"
        )


class Shopper:
    """Places orders one after the other, and remembers when each was acknowledged."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self.place, self.pauses = place, [chance.uniform(0, 0.2) for _ in range(40)]
        self.acknowledged: dict[str, float] = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._order)

    def _order(self) -> None:
        number = 1
        while not self.stop.is_set():
            number += 1
            try:
                place_order(self.place.db, number)
            except AssertionError:  # the power is cut: it was not acknowledged
                return
            self.acknowledged[f"order-{number}"] = time.monotonic()
            time.sleep(self.pauses[number % len(self.pauses)])

    @contextmanager
    def ordering(self) -> Iterator[None]:
        self.thread.start()
        try:
            yield
        finally:
            self.stop.set()
            self.thread.join(60)


def lose(folder: Path, data: Path, desired: Desired, chance: random.Random, trouble: str) -> Loss:
    """One site's life and end. Raises `AssertionError` when more is lost of what was there than was said."""
    with two_servers(folder, data) as place:
        place_order(place.db, 1)
        place.copy(place.idx)
        place.idx.run("/usr/lib/pcloud/follow", SERVICE)
        for host in HOSTS:
            prepare(place, host)
        shopper = Shopper(place, chance)
        with place.streaming("h3"), place.streaming("h7"):
            eventually(lambda: all(caught_up(place, h) for h in HOSTS), 60)
            back_up(place, "1", *HOSTS, server="idx-1")
            with shopper.ordering():
                time.sleep(chance.uniform(1, 4))
                strike(place, trouble, chance)
                asked = time.monotonic()
                said = measure_rpo(desired, observe(place))
                cut = cut_power(place)
                time.sleep(1)  # what the hosts had received
        assert said is not None and said.reaches is not None
        held = restored(place)
    lost = {n: at for n, at in shopper.acknowledged.items() if n not in held}
    oldest_s = max(0, cut - min(lost.values(), default=cut))
    before = sum(at <= asked for at in lost.values())
    found = Loss(
        trouble, len(shopper.acknowledged), said.transactions, said.seconds, before, len(lost) - before, oldest_s
    )
    assert found.lost_before <= said.transactions, f"more was lost than was said: {found}"
    return found


def strike(place: Place, trouble: str, chance: random.Random) -> None:
    """What happens to the streams before the loss."""
    if trouble in ("one stands", "both stand"):
        readers = place.idx.run("pgrep", "-x", "mariadb-binlog", check=False).stdout.split()
        place.idx.run("kill", "-STOP", *(readers[:1] if trouble == "one stands" else readers))
        time.sleep(chance.uniform(0.5, 3))
    elif trouble == "logs change":
        place.db.sql("FLUSH BINARY LOGS")
        time.sleep(chance.uniform(0, 1))
    elif trouble == "a backup":
        back_up(place, "2", *HOSTS, server="idx-1")


def observe(place: Place) -> Observed:
    """As `status` sees it: the primary first, then what hosts keep."""
    at, now = place.db.sql("SELECT @@gtid_current_pos, DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%dT%H:%i:%sZ')").split("\t")
    primary = SeenDatabase(restored="t", writable=True, position=at, clock=now)
    return Observed((), data=Data(databases={"db-1": primary}, holder="db-1", shelves=tuple(kept(place, *HOSTS))))


def cut_power(place: Place) -> float:
    """Of both; when it was. What stands at that moment never reads on."""
    place.db.run("sh", "-c", "ip link set eth0 down; pkill -KILL -x mariadbd")
    at = time.monotonic()
    place.idx.run("pkill", "-KILL", "-x", "mariadbd", check=False)
    place.idx.run("sh", "-c", "pgrep -r T -x mariadb-binlog | xargs -r kill -KILL", check=False)
    return at


def restored(place: Place) -> set[str]:
    """The orders that a restore from the hosts brings back."""
    choice = choose(kept(place, *HOSTS))
    assert choice is not None
    do(place, Beside("idx-1", "shop", choice, "look"))
    query = "SELECT code FROM shop.partner_partner WHERE code LIKE 'order-%'"
    return set(place.idx.sql(query, f"--socket={BESIDE}/mysqld.sock").split())


def main(seed: int, count: int) -> None:
    """python -m tests.maria_losses SEED COUNT"""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "data").mkdir()
        (top / "image").write_bytes(b"an image's bytes")
        data = mariadb_data(top / "data")
        playbook = load_playbook(defaults_dir("playbooks") / "recover.yaml")
        desired = make_desired(load_site(defaults_dir("inventory") / "demo.yaml"), playbook, top / "image")
        for number in range(count):
            (top / str(number)).mkdir()
            sys.stdout.write(f"{lose(top / str(number), data, desired, chance, chance.choice(TROUBLES))}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
