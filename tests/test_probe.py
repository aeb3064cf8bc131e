"""Health questions to real servers (MariaDB and Sphinx among them) and to broken ones."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pymysql
import pytest

from pcloud import probe as probe_module
from pcloud.clock import Deadline
from pcloud.errors import BadInput, Blocked, CommandFailed, HostUnreachable
from pcloud.model import Check, SecretRef
from pcloud.probe import Verdict, probe, search_text, wait_for, wait_until
from pcloud.sql import Refused, ask_named
from pcloud.web import Unanswered
from tests.serving import Request, page, redirect, serve, serve_raw

PASSWORD = "correct horse"


def secrets(ref: SecretRef) -> str:
    return {"db/monitor": PASSWORD, "db/wrong": "hunter2"}[ref.secret]


def ask(
    port: int = 0, *, timeout_s: float = 5, run: Callable[[Sequence[str]], int] | None = None, **kind: Any
) -> Verdict:
    """One question of the given kind at 127.0.0.1:port; the detail has PORT for the port."""
    (name, question) = kind.popitem()
    if port:
        question = {"port": port, **question}
    check = Check.model_validate({"name": "x", name: question})
    started = time.monotonic()
    verdict = probe(check, "127.0.0.1", secrets=secrets, run=run, timeout_s=timeout_s)
    elapsed_s = time.monotonic() - started
    assert 0 <= verdict.elapsed_s <= elapsed_s
    assert elapsed_s < timeout_s + 3
    assert verdict.detail.isprintable()
    assert "hunter2" not in verdict.detail
    return Verdict(verdict.ok, verdict.detail.replace(str(port), "PORT") if port else verdict.detail, elapsed_s)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue is full: packets to it are dropped, as by a machine that is not there."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        yield server.getsockname()[1]
        for sock in waiting:
            sock.close()


# -- tcp


def test_tcp() -> None:
    with serve(lambda r: b"") as port:
        verdict = ask(port, tcp={})
        assert (verdict.ok, verdict.detail) == (True, "127.0.0.1:PORT: accepts connections")
    verdict = ask(port, tcp={})
    assert (verdict.ok, verdict.detail) == (False, "127.0.0.1:PORT: connection refused")


def test_tcp_that_drops(full_port: int) -> None:
    verdict = ask(full_port, tcp={}, timeout_s=0.5)
    assert (verdict.ok, verdict.detail) == (False, "127.0.0.1:PORT: no answer within 0.5 s")


# -- http


def test_http_asks_for_the_page_and_looks_into_it() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> bytes:
        seen.append(request)
        return page("<p>Pépinière\n ouverte", status=200 if request.path == "/livez" else 500)

    with serve(answer) as port:
        good = ask(port, http={"path": "/livez", "contains": "Pépinière ouverte", "host": "shop.example"})
        assert (good.ok, good.detail) == (True, "GET http://127.0.0.1:PORT/livez: 200 with 'Pépinière ouverte'")
        assert seen[0].headers["host"] == "shop.example"
        missing = ask(port, http={"path": "/livez", "contains": "fermée"})
        assert (missing.ok, missing.detail) == (
            False,
            "GET http://127.0.0.1:PORT/livez: 200, but 'fermée' is not in its answer",
        )
        bad = ask(port, http={"path": "/é?x=1"})
        assert (bad.ok, bad.detail) == (False, "GET http://127.0.0.1:PORT/é?x=1: 500 instead of 200")
        assert ask(port, http={"path": "/x", "status": 500}).ok
    refused = ask(port, http={})
    assert (refused.ok, refused.detail) == (False, "GET http://127.0.0.1:PORT/: connection refused")


def test_http_follows_no_redirect() -> None:
    with serve(lambda r: redirect("/login")) as port:
        assert ask(port, http={}).detail == "GET http://127.0.0.1:PORT/: 302 instead of 200"
        assert ask(port, http={"status": 302}).ok


def test_http_of_a_huge_answer() -> None:
    with serve(lambda r: page(b"x" * (3 << 20) + b"end")) as port:
        assert ask(port, http={}).ok
        assert "'end' is not in the first 2 MiB" in ask(port, http={"contains": "end"}).detail


def slowly(first: bytes, byte: bytes) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        sock.sendall(first)
        for _ in range(600):
            time.sleep(0.1)
            sock.sendall(byte)

    return talk


def hang_up(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
BAD_TALKERS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "drips a body": (slowly(HEAD, b"x"), "its answer (200) did not end within 1 s, "),
    "drips a head": (slowly(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "no answer within 1 s"),
    "is silent": (lambda sock: time.sleep(20), "no answer within 1 s"),
    "resets": (hang_up, "connection reset"),
    "answers as MySQL": (lambda sock: sock.sendall(b"J\0\0\0\n5.5.5-10.11\0"), "not a proper HTTP answer"),
}


@pytest.mark.parametrize("case", BAD_TALKERS)
def test_http_of_a_bad_server(case: str) -> None:
    talk, detail = BAD_TALKERS[case]
    with serve_raw(talk) as port:
        verdict = ask(port, http={}, timeout_s=1)
        assert not verdict.ok
        assert verdict.detail.startswith(f"GET http://127.0.0.1:PORT/: {detail}")


def test_http_that_drops(full_port: int) -> None:
    assert ask(full_port, http={}, timeout_s=0.5).detail == "GET http://127.0.0.1:PORT/: no answer within 0.5 s"


# -- sql


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("mariadb")
    port, data = free_port(), folder / "data"
    install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
    subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True, timeout=120)
    argv = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={folder}/s", f"--port={port}"]
    argv += ["--bind-address=127.0.0.1", "--skip-log-bin", f"--pid-file={folder}/pid"]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            up = wait_until(lambda: ask(port, tcp={}), Deadline.after(60))
            assert up.ok, (folder / "log").read_text()
            with (
                pymysql.connect(unix_socket=f"{folder}/s", user="root", charset="utf8mb4", autocommit=True) as db,
                db.cursor() as cursor,
            ):
                cursor.execute("CREATE DATABASE shop CHARACTER SET utf8mb4")
                cursor.execute("CREATE TABLE shop.product (id INT PRIMARY KEY, title TEXT)")
                titles = [(1, "Érable du Japon"), (2, "Érable (à sucre)"), (3, "Rosier @grimpant")]
                cursor.executemany("INSERT INTO shop.product VALUES (%s, %s)", titles)
                cursor.execute("CREATE USER monitor@'127.0.0.1' IDENTIFIED BY %s", (PASSWORD,))
                cursor.execute("GRANT SELECT ON shop.* TO monitor@'127.0.0.1'")
            yield port
        finally:
            process.terminate()
            process.wait(60)


def test_sql(mariadb: int) -> None:
    verdict = ask(mariadb, sql={"query": "SELECT 1"})
    assert (verdict.ok, verdict.detail) == (True, "monitor@127.0.0.1:PORT: SELECT 1: 1")
    count = {"query": "SELECT COUNT(*) FROM shop.product"}
    assert ask(mariadb, sql={**count, "at_least": 3}).ok
    verdict = ask(mariadb, sql={**count, "at_least": 4})
    assert verdict.detail == "monitor@127.0.0.1:PORT: SELECT COUNT(*) FROM shop.product: 3, fewer than 4"
    verdict = ask(mariadb, sql={"query": "SELECT title FROM shop.product ORDER BY id", "at_least": 1})
    assert (verdict.ok, verdict.detail.split(": ")[-1]) == (False, "Érable du Japon instead of a number")
    assert ask(mariadb, sql={"query": "SELECT id FROM shop.product WHERE id > 5", "at_least": 0}).ok is False
    assert ask(mariadb, sql={"query": "SELECT id FROM shop.product WHERE title LIKE 'érable%'"}).detail.endswith(
        ": 2 rows"
    )


def test_sql_that_is_refused(mariadb: int) -> None:
    denied = ask(mariadb, sql={"password": {"secret": "db/wrong"}})
    assert not denied.ok
    assert "SELECT 1: error 1045: Access denied for user 'monitor'@" in denied.detail
    with pytest.raises(Refused, match="error 1045"):
        ask_named("127.0.0.1", mariadb, ("SELECT 1", ()), user="monitor", password="x", timeout_s=5)
    query = ("SELECT * FROM mysql.user", ())
    with pytest.raises(Refused, match="error 1142"):
        ask_named("127.0.0.1", mariadb, query, user="monitor", password=PASSWORD, timeout_s=5)
    with pytest.raises(Unanswered) as silent:
        ask_named("127.0.0.1", free_port(), ("SELECT 1", ()), user="monitor", password="x", timeout_s=5)
    assert not isinstance(silent.value, Refused)
    wrong = ask(mariadb, sql={"query": "SELECT * FROM shop.missing"})
    assert "error 1146: Table 'shop.missing' doesn't exist" in wrong.detail
    assert "error 1064" in ask(mariadb, sql={"query": "SELEC 1"}).detail


def test_sql_is_bounded_in_time_and_memory(mariadb: int) -> None:
    slow = ask(mariadb, sql={"query": "SELECT SLEEP(30)"}, timeout_s=1)
    assert (slow.ok, slow.detail) == (False, "monitor@127.0.0.1:PORT: SELECT SLEEP(30): no answer within 1 s")
    huge = ask(mariadb, sql={"query": "SELECT REPEAT('x', 10000000)"})
    assert (huge.ok, huge.detail.split(": ")[-1]) == (
        False,
        "the connection ended (Lost connection to MySQL server during query (more than 2 MiB came))",
    )


def greeting(sock: socket.socket, then: bytes) -> None:
    """A server that begins as MariaDB does."""
    body = (
        b"\x0a5.5.5-10.11.6-MariaDB\0"
        + struct.pack("<I", 1)
        + b"saltsalt\0"
        + b"\xfe\xf7\x2d\x02\x00\xff\x81\x15"
        + bytes(10)
    )
    body += b"saltsaltsalt\0mysql_native_password\0"
    sock.sendall(struct.pack("<I", len(body))[:3] + b"\0" + body)
    sock.recv(4096)
    sock.sendall(then)
    time.sleep(20)


NOT_MYSQL: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "drips": (slowly(b"\xff\xff\x00\x00", b"x"), "no answer within 1 s"),
    "is silent": (lambda sock: time.sleep(20), "no answer within 1 s"),
    "hangs up": (lambda sock: None, "the connection ended ("),
    "resets": (hang_up, ""),  # told by whoever meets it first: the connection, or the protocol
    "speaks HTTP": (
        lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "what answers does not speak the MySQL protocol",
    ),
    "speaks SSH": (
        lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "what answers does not speak the MySQL protocol",
    ),
    "zeros": (lambda sock: sock.sendall(bytes(4096)), ""),
    "ones": (lambda sock: sock.sendall(b"\x01\0\0\0\x01" * 999), "what answers does not speak the MySQL protocol"),
    "greets, then zeros": (lambda sock: greeting(sock, bytes(4096)), ""),
    "greets, then announces 16 MB": (
        lambda sock: greeting(sock, b"\xff\xff\xff\x02" + b"x" * (3 << 20)),
        "the connection ended (",
    ),
    "greets, then noise": (lambda sock: greeting(sock, b"\x05\0\0\x02\xfe\x01\x02\x03\x04"), ""),
    "says no in colour": (lambda sock: greeting(sock, b"\x0c\0\0\x02\xff\x10\x04#08004\x1b[3"), "error 1040: ?[3"),
}


@pytest.mark.parametrize("case", NOT_MYSQL)
def test_sql_of_what_is_no_database(case: str) -> None:
    talk, detail = NOT_MYSQL[case]
    with serve_raw(talk) as port:
        verdict = ask(port, sql={}, timeout_s=1)
        assert not verdict.ok
        assert verdict.detail.startswith(f"monitor@127.0.0.1:PORT: SELECT 1: {detail}")


def test_sql_of_nothing(full_port: int) -> None:
    assert ask(full_port, sql={}, timeout_s=0.5).detail.endswith("SELECT 1: no answer within 0.5 s")
    assert ask(free_port(), sql={}).detail.endswith("SELECT 1: connection refused")


# -- search


SPHINX = """
source products {{
  type = mysql
  sql_host = 127.0.0.1
  sql_port = {db}
  sql_user = monitor
  sql_pass = {password}
  sql_db = shop
  sql_query_pre = SET NAMES utf8mb4
  sql_query = SELECT id, title FROM product
}}
index products {{
  source = products
  path = {folder}/products
  charset_table = 0..9, A..Z->a..z, a..z, U+C0..U+DE->U+E0..U+FE, U+DF..U+FF
}}
searchd {{
  listen = 127.0.0.1:{port}:mysql41
  log = {folder}/log
  pid_file = {folder}/pid
  binlog_path =
}}
"""


@pytest.fixture(scope="module")
def sphinx(mariadb: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("sphinx")
    port, conf = free_port(), folder / "sphinx.conf"
    conf.touch(0o600)
    conf.write_text(SPHINX.format(db=mariadb, password=PASSWORD, folder=folder, port=port))
    subprocess.run(["indexer", "--config", str(conf), "--all"], check=True, capture_output=True, timeout=60)
    argv = ["searchd", "--config", str(conf), "--nodetach"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            assert wait_until(lambda: ask(port, tcp={}), Deadline.after(30)).ok, (folder / "log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(30)


def test_search(sphinx: int) -> None:
    verdict = ask(sphinx, search={"index": "products", "match": "érable", "at_least": 2})
    assert (verdict.ok, verdict.detail) == (True, "127.0.0.1:PORT: 'érable' in products: 2 hits")
    verdict = ask(sphinx, search={"index": "products", "match": "ÉRABLE", "at_least": 3})
    assert (verdict.ok, verdict.detail) == (False, "127.0.0.1:PORT: 'ÉRABLE' in products: 2 hits, fewer than 3")
    verdict = ask(sphinx, search={"index": "products", "match": "cactus"})
    assert (verdict.ok, verdict.detail) == (False, "127.0.0.1:PORT: 'cactus' in products: 0 hits, fewer than 1")
    assert ask(sphinx, search={"index": "products", "match": "cactus", "at_least": 0}).ok


def test_search_for_words_that_are_operators(sphinx: int) -> None:
    """Escaped, they are words; as they stand each would be an error or another question."""
    for words, hits in (
        ("érable (à sucre)", 1),
        ("érable -japon", 1),
        ("@grimpant", 1),
        ("!rosier", 1),
        ("rosier | érable", 0),
        ("it's érable\\", 0),
        ('"japon érable"', 1),
        ("érable/2 ~x ^a$ =b <<c", 0),
        ("érable' OR 1=1 -- ", 0),
    ):
        verdict = ask(sphinx, search={"index": "products", "match": words, "at_least": 0})
        assert verdict.ok, verdict.detail
        assert verdict.detail.endswith(f" {hits} hits"), verdict.detail
    assert search_text("a-b") == "a\\-b"


def test_search_that_fails(sphinx: int, mariadb: int) -> None:
    missing = ask(sphinx, search={"index": "plants", "match": "érable"})
    assert not missing.ok
    assert "'érable' in plants: error 1064: unknown local index 'plants'" in missing.detail
    other = ask(mariadb, search={"index": "products", "match": "érable"})
    assert not other.ok
    assert "error 1045" in other.detail
    assert ask(free_port(), search={"index": "products", "match": "x"}).detail.endswith("connection refused")


# -- command


def test_command() -> None:
    seen: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> int:
        seen.append(argv)
        return 3

    verdict = ask(command={"argv": ["systemctl", "is-active", "my unit"]}, run=run)
    assert (verdict.ok, verdict.detail) == (False, "systemctl is-active 'my unit': exit code 3 instead of 0")
    assert ask(command={"argv": ["x"], "exit_code": 3}, run=run).ok
    assert seen == [("systemctl", "is-active", "my unit"), ("x",)]
    with pytest.raises(ValueError, match="somebody who runs"):
        ask(command={"argv": ["x"]})


def raising(error: Exception) -> Callable[[Sequence[str]], int]:
    def run(argv: Sequence[str]) -> int:
        raise error

    return run


def test_command_that_cannot_run() -> None:
    for error in (HostUnreachable("does not answer", where="db-1"), CommandFailed("bad", where="db-1")):
        verdict = ask(command={"argv": ["true"]}, run=raising(error))
        assert (verdict.ok, verdict.detail) == (False, f"true: {error.what}")
    for wait_for_a_person in (Blocked("the host key changed"), BadInput("no such secret")):
        with pytest.raises(type(wait_for_a_person)):
            ask(command={"argv": ["true"]}, run=raising(wait_for_a_person))


# -- waiting


class FakeClock:
    """Time that only sleeping moves."""

    def __init__(self) -> None:
        self.at = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.at

    def wall(self) -> Any:
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


def test_waiting_asks_less_and_less_often_until_the_deadline() -> None:
    clock = FakeClock()
    asked: list[float] = []

    def no() -> Verdict:
        asked.append(clock.at)
        return Verdict(False, f"no {len(asked)}", 0)

    heard: list[Verdict] = []
    last = wait_until(no, Deadline.after(10, clock), on_verdict=heard.append)
    assert last.detail == f"no {len(asked)}"
    assert [v.detail for v in heard] == [f"no {n}" for n in range(1, len(asked) + 1)]
    assert clock.slept == sorted(clock.slept)
    assert (clock.slept[0], clock.slept[-1]) == (0.1, 1.0)
    assert 109 <= asked[-1] <= 110
    assert len(asked) < 20


def test_waiting_ends_with_the_first_good_answer_and_asks_at_least_once() -> None:
    clock = FakeClock()
    answers = iter([Verdict(False, "a", 0), Verdict(True, "b", 0)])
    assert wait_until(lambda: next(answers), Deadline.after(10, clock)).detail == "b"
    assert clock.slept == [0.1]
    assert wait_until(lambda: Verdict(False, "late", 0), Deadline.after(0, clock)).detail == "late"


def test_waiting_knocks_before_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log-in or a page costs an emulated guest; a refused connection costs it nothing."""
    port = free_port()
    logins: list[float] = []

    def run(argv: Sequence[str]) -> int:
        logins.append(time.monotonic())
        return 0 if len(logins) > 1 else 1

    check = Check.model_validate({"name": "x", "command": {"argv": ["true"]}})
    opened: list[float] = []
    listener = socket.socket()

    def open_later(verdict: Verdict) -> None:
        if not opened and verdict.detail.endswith("connection refused"):
            time.sleep(0.3)
            listener.bind(("127.0.0.1", port))
            listener.listen()
            opened.append(time.monotonic())

    with listener:
        verdict = wait_for(
            check, "127.0.0.1", Deadline.after(20), secrets=secrets, run=run, ssh_port=port, on_verdict=open_later
        )
    assert verdict.ok
    assert len(logins) == 2
    assert logins[0] > opened[0]


def test_waiting_for_a_machine_that_is_not_there(full_port: int) -> None:
    check = Check.model_validate({"name": "x", "http": {"port": full_port}})
    started = time.monotonic()
    verdict = wait_for(check, "127.0.0.1", Deadline.after(1.5), secrets=secrets)
    assert time.monotonic() - started < 5
    assert not verdict.ok
    assert verdict.detail.startswith(f"127.0.0.1:{full_port}: no answer within")
    assert probe_module.KNOCK_S <= 1
