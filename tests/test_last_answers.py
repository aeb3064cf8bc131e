"""Until when a frontend was answered by the database: its recorder, over real connections, and who asks it.

The frontend and the database's address are two network namespaces with a cable between them.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pymysql
import pytest

from pcloud.lab.namespaces import call_in_network
from tests.guests import Files, Guest, eventually, guests, mariadb_data, rendered, secret, start_mariadb

HEARD = "/usr/lib/pcloud/heard"
DATABASE = "10.77.0.60"
PORT = 3306
AS_SHOP = ("setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups")
LATE_S = 0.2
"""How much later than it was an answer may be told on this machine."""


@dataclass
class Link:
    """A connection between the frontend and the database's address, both ends in our hands."""

    near: socket.socket
    far: socket.socket

    def talk(self, pieces: int) -> float:
        """The database says this much, each piece after a question; when the last one had come."""
        for _ in range(pieces):
            self.near.sendall(b"question")
            self.far.recv(100)
            self.far.sendall(b"answer")
            assert self.near.recv(100) == b"answer"
        return time.monotonic()

    def close(self) -> None:
        self.near.close()
        self.far.close()


@dataclass
class Site:
    fe: Guest
    db: Guest
    folder: Path
    stack: ExitStack
    links: list[Link] = field(default_factory=list)
    listener: socket.socket | None = None

    def connect(self, pieces: int = 0, *, family: int = socket.AF_INET) -> Link:
        if self.listener is None:
            self.listener = call_in_network(self.db.pid, lambda: socket.create_server((DATABASE, PORT)))

        def reach() -> socket.socket:
            near = socket.socket(family)
            near.settimeout(5)
            near.connect(("::ffff:" * (family == socket.AF_INET6) + DATABASE, PORT))
            return near

        near = call_in_network(self.fe.pid, reach)
        link = Link(near, self.listener.accept()[0])
        self.links.append(link)
        link.talk(pieces)
        return link

    def tell(self) -> str:
        return self.fe.run(*AS_SHOP, HEARD, "tell").stdout

    def ago(self) -> float:
        told = self.tell()
        found = re.fullmatch(r"heard (\d+\.\d\d)\n", told)
        assert found, told
        return float(found[1])

    def told(self, since: float) -> bool:
        """Whether the frontend says that moment: never an earlier one, and hardly a later one."""
        before = time.monotonic()
        age = self.ago()
        return time.monotonic() - age >= since - 0.03 and before - age <= since + LATE_S

    @contextmanager
    def watching(self) -> Iterator[subprocess.Popen[bytes]]:
        """The recorder, as its unit starts it."""
        self.fe.run("install", "-d", "-o", "www-data", "/run/pcloud-heard")
        with self.fe.daemon(*AS_SHOP, HEARD, "watch", log=self.folder / "watch.log") as process:
            eventually(lambda: self.fe.run("test", "-s", "/run/pcloud-heard/state", check=False).returncode == 0)
            yield process
        self.fe.run("sh", "-c", "pkill -x ss; rm -r /run/pcloud-heard", check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return rendered(tmp_path_factory.mktemp("image"))


@pytest.fixture
def site(files: Files, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        fe, db = stack.enter_context(guests(tmp_path, files, ("fe-1", "db-1"), ("mariadb",)))
        db.run("ip", "address", "add", f"{DATABASE}/24", "dev", "eth0")
        made = Site(fe, db, tmp_path, stack)
        yield made
        for link in made.links:
            link.close()
        if made.listener is not None:
            made.listener.close()


def test_an_idle_connection_says_when_it_was_last_answered(site: Site) -> None:
    with site.watching():
        link = site.connect()
        since = link.talk(3)
        time.sleep(1.5)
        assert site.told(since)
        assert site.told(link.talk(1)), "and again, after one more answer"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_shorter_than_any_look(site: Site, family: int) -> None:
    with site.watching():
        link = site.connect(family=family)
        since = link.talk(3)
        link.close()
        time.sleep(1.5)
        assert site.told(since)
        other = site.connect(3)
        site.connect(2).close()
        other.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        since = other.talk(1)
        time.sleep(0.5)
        other.far.close()  # with a reset
        other.near.close()
        time.sleep(0.5)
        assert site.told(since)
        unread = site.connect(3)
        unread.far.sendall(b"answer")
        since = time.monotonic()
        time.sleep(0.5)
        unread.close()  # the shop's side resets what it has not read
        time.sleep(0.5)
        assert site.told(since)


def test_silence_after_a_power_cut_does_not_move_the_moment(site: Site) -> None:
    with site.watching():
        asking, idle = site.connect(3), site.connect()
        since = idle.talk(3)
        site.db.run("ip", "link", "set", "eth0", "down")
        asking.near.sendall(b"question")
        time.sleep(2)
        assert site.told(since), "while the connections stand"
        asking.near.close()
        idle.near.close()
        time.sleep(0.5)
        assert site.told(since), "and once the shop has given them up"


def test_what_is_no_answer(site: Site) -> None:
    with site.watching():
        assert re.fullmatch(r"unknown: no answer in the \d+ s of this watch\n", site.tell())
        since = site.connect(3).talk(0)
        time.sleep(1)
        handshake, greeted = site.connect(), site.connect()
        greeted.far.sendall(b"greeting")
        refused = site.connect(2)
        assert site.told(since), "a handshake, a greeting, a refused login"
        for link in (handshake, greeted, refused):
            link.far.close()
            link.near.close()
        assert site.listener is not None
        site.listener.close()
        with pytest.raises(ConnectionRefusedError):
            call_in_network(site.fe.pid, lambda: socket.create_connection((DATABASE, PORT), 5))
        assert site.told(since), "their ends, and a reset"
        elsewhere = call_in_network(site.db.pid, lambda: socket.create_server((DATABASE, PORT + 1)))
        near = call_in_network(site.fe.pid, lambda: socket.create_connection((DATABASE, PORT + 1), 5))
        link = Link(near, elsewhere.accept()[0])
        link.talk(5)
        assert site.told(since), "another service of that server"
        link.close()
        elsewhere.close()
        assert site.told(since)


def test_who_does_not_watch_says_nothing(site: Site) -> None:
    assert site.tell() == "unknown: nobody watches\n"
    with site.watching() as process:
        link = site.connect(3)
        assert site.ago() < 1
        listener = int(site.fe.run("cat", "/run/pcloud-heard/state").stdout.split()[0])
        site.fe.run("kill", "-KILL", str(listener))
        process.wait(10)
        assert site.tell() == "unknown: the watch stands still\n"
    assert "heard: ss has ended" in (site.folder / "watch.log").read_text()
    link.talk(1)
    with site.watching():
        assert site.tell().startswith("unknown: no answer in "), "of the time before it does not know everything"
        link.talk(1)
        assert site.ago() < 1


def test_a_watch_that_stands_still_says_nothing(site: Site) -> None:
    late = f"{HEARD}-late"
    site.fe.run("sh", "-c", f"sed 's/^beat_late=1000$/beat_late=250/' {HEARD} >{late}; chmod 755 {late}")
    with site.watching() as process:
        site.connect(3)
        time.sleep(3)
        assert site.fe.run(late, "tell").stdout.startswith("heard ")
        watch = int(site.fe.run("pgrep", "-f", f"{HEARD} watch").stdout.split()[-1])
        site.fe.run("kill", "-STOP", str(watch))
        time.sleep(3)
        assert site.fe.run(late, "tell").stdout == "unknown: the watch stands still\n"
        site.fe.run("kill", "-CONT", str(watch))
        time.sleep(2.5)
        assert site.fe.run(late, "tell").stdout.startswith("heard ")
        assert process.poll() is None


def test_what_the_kernel_could_not_tell_makes_the_watch_begin_anew(site: Site) -> None:
    """Its listener stands still while more connections end than the kernel keeps for it."""
    with site.watching() as process:
        site.connect(3)
        listener = int(site.fe.run("cat", "/run/pcloud-heard/state").stdout.split()[0])
        site.fe.run("kill", "-STOP", str(listener))
        count = 6000

        def refused() -> None:
            for _ in range(count):
                with socket.socket() as sock:
                    sock.connect_ex(("127.0.0.1", 1))

        call_in_network(site.fe.pid, refused)
        assert site.tell() == "unknown: the watch stands still\n"
        site.fe.run("kill", "-CONT", str(listener))
        assert process.wait(60) == 1
    assert "heard: " in (site.folder / "watch.log").read_text()


def test_what_mariadb_says_is_told_apart(site: Site) -> None:
    """A query's result is an answer; a greeting and a refused login are none."""
    (site.folder / "data").mkdir()
    data = mariadb_data(site.folder / "data")
    with site.watching():
        start_mariadb(site.db, site.stack, site.folder / "mariadb.log", data)

        def ask(password: str) -> None:
            pymysql.connect(host=DATABASE, port=PORT, user="shop", password=password, connect_timeout=5).close()

        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            call_in_network(site.fe.pid, lambda: ask("wrong"))
        assert site.tell().startswith("unknown: no answer in ")
        call_in_network(site.fe.pid, lambda: ask(secret("db/shop")))
        assert site.ago() < 1
