"""Until when a frontend was answered by the database: its recorder, over real connections, and who asks it.

The frontend and the database's address are two network namespaces with a cable between them.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pymysql
import pytest

from pcloud.inventory import defaults_dir
from pcloud.kept import NOBODY_HEARD, Heard
from pcloud.lab.namespaces import call_in_network
from pcloud.last_answers import PORT as PORT_TOLD
from pcloud.last_answers import ask_all
from pcloud.observed import Data, Mark, Observed, Power, SeenHost, SeenServer
from pcloud.templating import Templates
from tests.guests import Files, Guest, eventually, guests, mariadb_data, rendered, secret, start_mariadb
from tests.scenario import new_world
from tests.serving import serve_raw
from tests.shoppers import Shoppers

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
        assert site.ago() < 3
        listener = int(site.fe.run("cat", "/run/pcloud-heard/state").stdout.split()[0])
        site.fe.run("kill", "-KILL", str(listener))
        process.wait(10)
        assert site.tell() == "unknown: the watch stands still\n"
    assert "heard: ss has ended" in (site.folder / "watch.log").read_text()
    link.talk(1)
    with site.watching():
        assert site.tell().startswith("unknown: no answer in "), "of the time before it does not know everything"
        link.talk(1)
        assert site.ago() < 3


def test_a_watch_that_stands_still_says_nothing(site: Site) -> None:
    quick = "s/-t 3 /-t 0.3 /; s/^beat_every=.*/beat_every=30/; s/^beat_late=.*/beat_late=100/"
    site.fe.run("sed", "-i", quick, HEARD)
    with site.watching() as process:
        site.connect(3)
        time.sleep(2)
        assert site.ago() >= 2, "it looks up, though nothing comes"
        watch = int(site.fe.run("pgrep", "-f", f"{HEARD} watch").stdout.split()[-1])
        site.fe.run("kill", "-STOP", str(watch))
        time.sleep(1.5)
        assert site.tell() == "unknown: the watch stands still\n"
        site.fe.run("kill", "-CONT", str(watch))
        time.sleep(1)
        assert site.ago() >= 4.5
        assert process.poll() is None


def test_a_watch_that_gets_no_processor_for_a_while_goes_on(site: Site) -> None:
    """Wherever it was when its time stood still; bash once took a piece of a notice for the clock."""
    with site.watching() as process:
        watch = int(site.fe.run("pgrep", "-f", f"{HEARD} watch").stdout.split()[-1])
        stutter = "for n in $(seq 150); do kill -STOP $0; sleep 0.06; kill -CONT $0; sleep 0.02; done"
        with subprocess.Popen(site.fe.argv("bash", "-c", stutter, str(watch))) as stuttering:
            while stuttering.poll() is None:
                link = site.connect()
                since = link.talk(3)
                link.close()
                time.sleep(0.02)
        eventually(lambda: process.poll() is not None or site.tell().startswith("heard "))
        assert process.poll() is None, (site.folder / "watch.log").read_text()
        assert site.told(since)


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
        eventually(lambda: site.tell() == "unknown: the watch stands still\n")  # the kernel sends them in its own time
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
        assert site.ago() < 3


# --- who asks ---------------------------------------------------------------------------------


def asked(port: int, *, names: tuple[str, ...] = ("fe-1",), timeout_s: float = 5) -> dict[str, float]:
    with ThreadPoolExecutor(8) as pool:
        return ask_all(dict.fromkeys(names, "127.0.0.1"), pool, port=port, timeout_s=timeout_s)()


@pytest.mark.parametrize(
    ("said", "age"),
    [
        ([b"heard 1203.42\n"], 1203.42),
        ([b"heard 0.", b"07\n"], 0.07),
        ([b"unknown: nobody watches\n"], None),
        ([b""], None),
        ([b"heard 12.3"], None),
        ([b"heard -1.00\n"], None),
        ([b"heard nan\n"], None),
        ([b"heard 1.00\nheard 2.00\n"], None),
        ([b"heard " + b"9" * 5000 + b".00\n"], None),
        ([b"\x00\xff" * 200_000], None),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nheard 1.00\n"], None),
    ],
)
def test_only_an_age_is_an_answer(said: list[bytes], age: float | None) -> None:
    def talk(sock: socket.socket) -> None:
        for piece in said:
            sock.sendall(piece)
            time.sleep(0.02)

    with serve_raw(talk) as port:
        assert asked(port) == ({} if age is None else {"fe-1": age})


def test_who_is_silent_or_slow_is_given_up_together() -> None:
    def drip(sock: socket.socket) -> None:
        for _ in range(100):
            sock.sendall(b"h")
            time.sleep(0.1)

    for talk in (drip, lambda sock: time.sleep(5)):
        with serve_raw(talk) as port:
            began = time.monotonic()
            assert asked(port, names=tuple(f"fe-{n}" for n in range(1, 9)), timeout_s=0.6) == {}
            assert time.monotonic() - began < 1.5
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert asked(port) == {}


def test_a_frontend_is_asked_over_the_network(site: Site) -> None:
    door = call_in_network(site.fe.pid, lambda: socket.create_server(("10.77.0.21", PORT_TOLD)))

    def tell_once() -> None:
        """As its socket unit does."""
        caller = door.accept()[0]
        with caller:
            caller.sendall(site.tell().encode())

    with site.watching(), door:
        since = site.connect().talk(3)
        threading.Thread(target=tell_once, daemon=True).start()

        def ask() -> dict[str, float]:
            with ThreadPoolExecutor(1) as pool:  # its thread is in this network, as its maker is
                return ask_all({"fe-1": "10.77.0.21"}, pool)()

        heard = call_in_network(site.db.pid, ask)
        assert heard.keys() == {"fe-1"}
        assert time.monotonic() - heard["fe-1"] >= since - 0.03


def test_every_frontend_and_nobody_else_is_given_the_recorder(files: Files, tmp_path: Path) -> None:
    given = {server for server, made in files.items() if HEARD in made}
    assert given == {f"fe-{n}" for n in range(1, 9)}
    assert f"ListenStream={PORT_TOLD}\n" in text_of(files, "/etc/systemd/system/pcloud-heard-tell.socket")
    wanted = text_of(files, "/etc/systemd/system/multi-user.target.d/pcloud-heard.conf")
    assert "Wants=pcloud-heard.service pcloud-heard-tell.socket\n" in wanted
    assert f"address={DATABASE}\nport={PORT}\n" in text_of(files, HEARD)
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "frontend.yaml").write_text("files: []\n")
    own = Templates([tmp_path, defaults_dir("templates")]).index("frontend", carries=False)
    assert HEARD in [entry.path for entry in own], "a site's own frontends too"


def text_of(files: Files, path: str) -> str:
    return files["fe-1"][path].content.decode()


# --- what is made of it -----------------------------------------------------------------------


def test_the_ages_are_no_part_of_what_a_plan_is_made_from() -> None:
    host = SeenHost("h1", servers=())
    seen = Observed((host,), data=Data(heard=Heard({"fe-1": 12.0})))
    assert seen.digest() == Observed((host,), data=Data(heard=Heard({"fe-1": 14.0, "fe-2": 3.0}))).digest()


def test_a_host_that_is_given_up_takes_its_frontends_word_with_it() -> None:
    mark = Mark("demo", "fe-1", "frontend", "s", "i", 1)
    fe = SeenServer("demo-fe-1", "u", Power.RUNNING, mark, 512)
    seen = Observed(
        (SeenHost("h1", servers=(fe,)), SeenHost("h2")),
        data=Data(heard=Heard({"fe-1": 12.0, "fe-2": 3.0}, keepers={"h1": 9.0, "h2": 8.0})),
    )
    assert seen.lose(["h1"]).data.heard == Heard({"fe-2": 3.0}, ("fe-1",), keepers={"h2": 8.0})


def test_simulated_frontends_remember_until_when(image_file: Path) -> None:
    world, clock = new_world(image_file, whole=True)
    Shoppers(world).begin()
    clock.sleep(20)
    assert world.observe().data.heard == NOBODY_HEARD, "the primary itself can be asked"
    primary = next(h for h, _ in world.running("db-1"))
    world.cut(primary)
    began = clock.now()
    other = next(d for _, d in world.running("fe-2"))
    clock.sleep(1200)
    other.started_at = clock.now() - 100
    seen = world.observe()
    assert seen.data.heard.unheard == ("fe-2",)
    assert {round(clock.now() - age, 3) for age in seen.data.heard.balancers.values()} == {round(began, 3)}
    heard = seen.data.heard.frontends
    assert heard.keys() == {"fe-1", "fe-3", "fe-4"}, "fe-2 was started since"
    assert {round(clock.now() - age, 3) for age in heard.values()} == {round(began, 3)}
