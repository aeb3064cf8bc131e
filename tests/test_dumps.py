"""Dumps as they are met: what is said of each before anything is done for it, and what a MariaDB takes of it.

The dumps are made by mariadb-dump of a MariaDB with the demo site's own files, and changed as other
programs, other versions and accidents change them.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pcloud.clock import SystemClock
from pcloud.desire import desire, read_dump
from pcloud.desired import Dump, Options
from pcloud.dumps import BadDump, glance, look
from pcloud.dumps.statements import LONGEST
from pcloud.errors import CheckFailed, CommandFailed
from pcloud.inventory import defaults_dir, load_inventory, load_site
from pcloud.playbook import load_playbook
from pcloud.steps.base import Met, Unmet
from pcloud.steps.database import Restore
from pcloud.steps.restoring import ProveDump
from tests.guests import Guest, guests, rendered, secret, start_mariadb
from tests.mariadbs import Inside, Quiet, Said
from tests.simulation import image_spec

ACCOUNTS = ("shop@10.77.0.0/255.255.255.0",)
MADE = """
CREATE TABLE products (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100), price DECIMAL(8,2), photo BLOB);
CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, pid INT, who VARCHAR(200),
    FOREIGN KEY (pid) REFERENCES products (id));
CREATE VIEW dear AS SELECT id, name FROM products WHERE price > 10;
INSERT INTO products (name, price, photo) VALUES ('Érable', 19.90, x'00ff27'), ('it''s; "quoted" \\\\ 🌳', 9.90, NULL),
    ('-- Dump completed', 1, NULL), ('USE mysql;\\n/* COLLATE utf8mb4_0900_ai_ci', 1, NULL);
INSERT INTO orders (pid, who) VALUES (1, 'Anna Nowak, 3 Mill Lane'), (2, 'Björn');
DELIMITER //
CREATE TRIGGER counted BEFORE INSERT ON orders FOR EACH ROW BEGIN SET NEW.who = CONCAT(NEW.who, '; '); END//
CREATE PROCEDURE later(n INT) BEGIN SELECT n; -- it's; one
END//
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM orders WHERE id < 0//
DELIMITER ;
"""
OPTIONS = ("--single-transaction", "--routines", "--events", "--triggers")


@dataclass
class Place:
    """A server with the demo site's own MariaDB, as much of a World as a restore asks for."""

    guest: Guest
    folder: Path
    clock = SystemClock()
    site = load_site(defaults_dir("inventory") / "demo.yaml")

    @property
    def world(self) -> Any:
        return self

    def server_shell(self, server: str) -> Streaming:
        return Streaming(self.guest, server)

    def dump(self, *options: str, of: str = "source") -> bytes:
        argv = self.guest.argv("mariadb-dump", *(options or OPTIONS), of)
        return subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout

    def file(self, data: bytes, name: str = "shop.sql") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def restore(self, path: Path, dump: Dump | None = None, *, token: str = "demo.x.g1") -> Restore:
        self.guest.sql("DROP DATABASE IF EXISTS pcloud; DROP DATABASE IF EXISTS shop; CREATE DATABASE shop")
        return Restore("db-1", "shop", dump or look(path, "shop", ACCOUNTS), "", token, False, 60)


class Streaming(Inside):
    """A stream is sent as it is read: what fails in its middle has sent the half of it."""

    def run(self, argv, *, deadline_s, stdin=None, check=True, progress=None, **rest):  # type: ignore[no-untyped-def]
        if stdin is None or isinstance(stdin, bytes):
            return super().run(argv, deadline_s=deadline_s, stdin=stdin, check=check, **rest)
        with subprocess.Popen(
            self.guest.argv(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            try:
                shutil.copyfileobj(stdin, process.stdin)
                process.stdin.close()
            except BrokenPipeError:
                pass
            except BaseException:
                process.kill()
                raise
            return Said(process.wait(deadline_s), process.stdout.read().decode(), process.stderr.read().decode())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("dumps")
    with ExitStack() as stack:
        made = stack.enter_context(guests(folder, rendered(folder), ("db-1", "idx-1"), ("mariadb",)))
        start_mariadb(made[0], stack, folder / "db-1.log", data)
        place = Place(made[0], folder)
        place.guest.sql(f"SET sql_log_bin=0; SET GLOBAL read_only=0; CREATE DATABASE source; USE source; {MADE}")
        yield place


def checksum(place: Place, schema: str) -> str:
    tables = "products, orders"
    sums = place.guest.sql(f"CHECKSUM TABLE {tables}", schema)
    what = "SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE() UNION SELECT"
    rest = "event_name FROM information_schema.events WHERE event_schema = DATABASE() UNION SELECT trigger_name FROM"
    named = place.guest.sql(f"{what} {rest} information_schema.triggers WHERE trigger_schema = DATABASE()", schema)
    return re.sub(rf"\b{schema}\.", "", f"{sums}\n{named}")


def run(place: Place, step: Restore) -> Met | Unmet:
    assert isinstance(step.check(place.world), Unmet)
    step.do(place.world, Quiet())
    return step.check(place.world)


def crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


def without_last_line(text: bytes) -> bytes:
    return re.sub(rb"\n-- Dump completed.*\n$", b"\n", text)


MYSQL8_HEAD = b"""-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)
/*!50503 SET NAMES utf8mb4 */;
/*!80000 SET @OLD_INFORMATION_SCHEMA_STATS_EXPIRY=@@INFORMATION_SCHEMA_STATS_EXPIRY */;
/*!80000 SET SESSION INFORMATION_SCHEMA_STATS_EXPIRY=0 */;
SET @MYSQLDUMP_TEMP_LOG_BIN = @@SESSION.SQL_LOG_BIN;
SET @@SESSION.SQL_LOG_BIN= 0;
"""
PMA = (
    b'-- phpMyAdmin SQL Dump\n-- version 5.2.1\n\nSET SQL_MODE = "NO_AUTO_VALUE_ON_ZERO";\nSTART TRANSACTION;\n'
    b"/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;\n/*!40101 SET NAMES utf8mb4 */;\n"
    b"CREATE TABLE `products` (`id` int NOT NULL, `name` varchar(9) COMMENT 'a; b') ENGINE=InnoDB;\n"
    b"INSERT INTO `products` (`id`, `name`) VALUES\n(1, 'a\\'; b'),\n(2, 'c');\nCOMMIT;\n\n"
    b"/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */;\n"
)
ADMINER = (
    b"-- Adminer 4.8.1 MySQL 10.11 dump\n\nSET NAMES utf8;\nSET foreign_key_checks = 0;\nDELIMITER ;;\n\n"
    b"DROP PROCEDURE IF EXISTS `p`;;\nCREATE PROCEDURE `p`()\nBEGIN SELECT 1; END;;\n\nDELIMITER ;\n\n"
    b"DROP TABLE IF EXISTS `products`;\nCREATE TABLE `products` (`id` int) ENGINE=InnoDB;\n\n-- 2026-11-27 03:00:01\n"
)

WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "gzip": gzip.compress,
    "gzip in two members": lambda d: gzip.compress(d[:1000]) + gzip.compress(d[1000:]),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "BOM": lambda d: b"\xef\xbb\xbf" + d,
    "CRLF": crlf,
    "BOM, CRLF, gzip": lambda d: gzip.compress(b"\xef\xbb\xbf" + crlf(d)),
    "--skip-comments": lambda d: re.sub(rb"(?m)^--.*\n", b"", without_last_line(d)),
    "leaves autocommit off": lambda d: d.replace(b"LOCK TABLES", b"SET autocommit=0;\nLOCK TABLES", 1),
    "MySQL 8's comments": lambda d: MYSQL8_HEAD + d,
    "resets replication": lambda d: d + b"CHANGE MASTER TO MASTER_LOG_FILE='a', MASTER_LOG_POS=4;\n-- Dump completed\n",
}


@pytest.mark.parametrize("change", WHOLE.values(), ids=WHOLE)
def test_a_whole_dump_is_restored_as_it_was_made(place: Place, change: Callable[[bytes], bytes]) -> None:
    path = place.file(change(place.dump()))
    glance(path)
    assert run(place, place.restore(path)) == Met({"token": "demo.x.g1"})
    assert checksum(place, "shop") == checksum(place, "source")
    assert place.guest.sql("SHOW SLAVE STATUS") == "" == place.guest.sql("SELECT @@gtid_current_pos")


@pytest.mark.parametrize(
    "options",
    [
        ("--databases",),
        ("--databases", "--add-drop-database", "--routines", "--events"),
        ("--skip-extended-insert", "--complete-insert", "--hex-blob"),
        ("--no-autocommit", "--skip-lock-tables"),
        ("--default-character-set=latin1", "--skip-set-charset"),
        ("--master-data=1", "--gtid"),
        ("--dump-date", "--tz-utc", "--order-by-primary", "--insert-ignore"),
    ],
    ids=" ".join,
)
def test_the_options_of_mariadb_dump(place: Place, options: tuple[str, ...]) -> None:
    place.guest.sql("DROP DATABASE IF EXISTS shop; CREATE DATABASE shop")
    place.guest.sql(f"SET sql_log_bin=0; {MADE}", "shop")
    if "latin1" in str(options):
        with pytest.raises(BadDump, match="not UTF-8"):
            look(place.file(place.dump(*options, of="shop")), "shop", ACCOUNTS)
        return
    before = checksum(place, "shop")
    assert isinstance(run(place, place.restore(place.file(place.dump(*options, of="shop")))), Met)
    assert checksum(place, "shop").split("\n")[:2] == before.split("\n")[:2]


@pytest.mark.parametrize("text", [PMA, ADMINER], ids=["phpMyAdmin", "Adminer"])
def test_other_programs_dumps(place: Place, text: bytes) -> None:
    assert isinstance(run(place, place.restore(place.file(text))), Met)
    with pytest.raises(BadDump, match="cut off"):
        look(place.file(text[: text.rindex(b"\n\n") + 1]), "shop")


def all_databases(place: Place) -> bytes:
    argv = place.guest.argv("mariadb-dump", "--all-databases")
    return subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout


def zstd(text: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=text, capture_output=True, check=True).stdout


def latin_1(text: bytes) -> bytes:
    return re.sub(rb"BLOB|blob", b"text", text).decode().encode("latin-1", "replace")


def big(text: bytes) -> bytes:
    return text.replace(b"UNLOCK TABLES", b"INSERT INTO a VALUES ('" + b"x" * (LONGEST + 1) + b"');\nUNLOCK TABLES", 1)


DEFINED = b"CREATE DEFINER=`old`@`%` VIEW v AS SELECT 1;\n"
BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zstd": (
        lambda d: subprocess.run(["zstd", "-c"], input=d, capture_output=True, check=True).stdout,
        "zstd: unzstd it",
    ),
    "compressed twice": (lambda d: gzip.compress(gzip.compress(d)), "compressed twice"),
    "xz in gzip": (lambda d: gzip.compress(lzma.compress(d)), "compressed twice"),
    "UTF-16": (lambda d: d.decode().encode("utf-16"), "is UTF-16"),
    "UTF-16 without a mark": (lambda d: d.decode().encode("utf-16-le"), "is UTF-16"),
    "UTF-16 in gzip": (lambda d: gzip.compress(d.decode().encode("utf-16")), "is UTF-16.*once it is unpacked"),
    "empty": (lambda _: b"", "is empty"),
    "empty gzip": (lambda _: gzip.compress(b""), "is empty once it is unpacked"),
    "zip": (lambda _: b"PK\x03\x04" + bytes(99), "zip archive"),
    "a web page": (lambda _: b"<!DOCTYPE html><title>Log in</title>", "web page"),
    "binary": (lambda _: bytes(range(256)), "binary"),
    "PostgreSQL": (lambda _: b"--\n-- PostgreSQL database dump\n--\nSET x = 0;\n", "PostgreSQL"),
    "half of a gzip": (lambda d: gzip.compress(d)[:700], "damaged or cut off"),
    "spoilt gzip": (lambda d: gzip.compress(d)[:-8] + b"12345678", "damaged or cut off"),
    "cut in a row": (lambda d: d[: d.index(b"Nowak")], "line 55 begins a statement that does not end"),
    "cut between statements": (lambda d: d[: d.index(b"UNLOCK TABLES")], "is cut off"),
    "--compact": (lambda d: re.sub(rb"(?m)^(--|/\*!40|/\*M!|UNLOCK|LOCK).*\n", b"", d), r"cut off.*--skip-comments"),
    "cut, the words in a row": (lambda d: d[: d.index(b"-- Dump completed") + 17], "does not end"),
    "a warning in line 1": (lambda d: b"mysqldump: [Warning] Using a password\n" + d, "line 1 is neither SQL"),
    "an error in the middle": (
        lambda d: d.replace(b"UNLOCK", b"mysqldump: Error 2013: Lost\nUNLOCK", 1),
        "is neither SQL",
    ),
    "a client's command": (lambda d: d.replace(b"UNLOCK", b"\\! rm -rf /;\nUNLOCK", 1), "is neither SQL"),
    "comments alone": (lambda _: b"-- a\n-- Dump completed\n", "no statement"),
    "no table": (lambda _: b"SET NAMES utf8mb4;\n-- Dump completed\n", "makes no table"),
    "another database": (lambda d: b"CREATE DATABASE `boutique`;\nUSE `boutique`;\n" + d, "line 1 .* boutique"),
    "USE alone": (lambda d: b"-- x\n\nUSE boutique;\n" + d, "line 3 is about the database boutique"),
    "USE of another case": (lambda d: b"use Shop;\n" + d, "line 1 is about the database Shop"),
    "in a versioned comment": (lambda d: b"/*!40000 DROP DATABASE IF EXISTS `a b`*/;\n" + d, "database a b"),
    "a table of mysql": (
        lambda d: b"REPLACE INTO `mysql`.`global_priv` VALUES ('%','a','{}');\n" + d,
        "mysql, a server's",
    ),
    "pcloud's mark": (lambda d: b"USE `pcloud`;\n" + d, "pcloud's own"),
    "MySQL 8's collation": (
        lambda d: d.replace(
            b"CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci", b"CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci"
        ),
        "line 46 wants utf8mb4_0900_ai_ci",
    ),
    "its collation of the connection": (
        lambda d: b"/*!50003 SET collation_connection  = utf8mb4_0900_ai_ci */ ;\n" + d,
        "line 1 wants utf8mb4_0900_ai_ci",
    ),
    "gb18030": (lambda d: b"SET NAMES gb18030;\n" + d, "wants gb18030"),
    "GTID_PURGED": (
        lambda d: b"SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3E11FA47:1-5';\n" + d,
        "line 1 sets GTID_PURGED.*--set-gtid-purged=OFF",
    ),
    "an index on an expression": (
        lambda d: b"CREATE TABLE a (b varchar(9),\n KEY `i` ((lower(`b`))));\n" + d,
        "line 1 has an index on an expression",
    ),
    "root's password": (lambda d: b"SET PASSWORD FOR root@localhost = PASSWORD('x');\n" + d, "account root"),
    "shop's grants": (lambda d: b"GRANT USAGE ON *.* TO `shop`@`%`;\n" + d, "account shop"),
    "a definer": (lambda d: DEFINED + d, r"line 1 has the definer old@%.*sed 's/DEFINER=`old`@`%`/"),
    "a long statement": (big, "begins a statement of more than 64 MiB"),
    "Latin-1": (latin_1, "not UTF-8"),
}


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_restored_is_said_beforehand(place: Place, change: Callable[[bytes], bytes], said: str) -> None:
    path = place.file(change(re.sub(rb" DEFINER=\S+", b"", place.dump(*OPTIONS, "--hex-blob"))))
    with pytest.raises(BadDump) as caught:
        look(path, "shop", ACCOUNTS)
    assert re.search(said, str(caught.value)), str(caught.value)
    assert "Nowak" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "no file but a pipe"), (".", "is a folder"), ("nowhere.sql", "is not there")):
        for asked in (glance, lambda p: look(p, "shop")):
            with pytest.raises(BadDump, match=said):
                asked(tmp_path / name)


def test_a_whole_servers_dump_is_refused_where_it_begins_to_be_one(place: Place) -> None:
    with pytest.raises(BadDump, match=r"line \d+ is about the database (mysql|pcloud|source)"):
        look(place.file(all_databases(place)), "shop", ACCOUNTS)


def test_accounts_that_the_dump_makes_are_there(place: Place) -> None:
    text = b"CREATE USER IF NOT EXISTS `old`@`%` ACCOUNT LOCK;\n" + DEFINED + place.dump()
    assert isinstance(run(place, place.restore(place.file(text))), Met)
    place.guest.sql("DROP USER old")


def test_tables_that_are_not_transactional_are_named(place: Place) -> None:
    text = b"CREATE TABLE `notes` (a INT COMMENT 'ENGINE=Aria') ENGINE=MyISAM;\n" + place.dump()
    found = look(place.file(text), "shop", ACCOUNTS)
    assert found.notes == ("not transactional, so neither safe in a crash nor the same on the replica: notes (MyISAM)",)


def test_a_dump_written_anew_after_the_look_is_never_marked(place: Place) -> None:
    whole = place.dump()
    spoils: tuple[Callable[[Path], object], ...] = (
        lambda p: p.write_bytes(whole[: whole.index(b"DROP TABLE IF EXISTS `products`")]),
        lambda p: p.write_bytes(whole.replace(b"Bj", b"bj")),
        lambda p: p.write_bytes(gzip.compress(whole)[:400]),
        lambda p: p.unlink(),
    )
    for spoil in spoils:
        path = place.file(whole)
        step = place.restore(path)
        spoil(path)
        with pytest.raises(CheckFailed, match="not the file any more") as caught:
            step.do(place.world, Quiet())
        assert str(path) in caught.value.what
        assert isinstance(step.check(place.world), Unmet)


def test_what_a_mariadb_refuses_is_said_with_the_dumps_own_line_and_no_row(place: Place) -> None:
    row = b"INSERT INTO `orders` VALUES (3,1,'Anna Nowak');\nINSERT INTO `products` VALUES (9,'No','Mill Lane',NULL);\n"
    text = place.dump().replace(b"UNLOCK TABLES;\n", b"UNLOCK TABLES;\nSET sql_mode='STRICT_ALL_TABLES';\n" + row, 1)
    text = text.replace(b"(3,1,'Anna Nowak')", b"(3,1 'Anna Nowak')")
    path = place.file(text)
    line = text[: text.index(b"(3,1 'Anna")].count(b"\n") + 1
    step = place.restore(path)
    with pytest.raises(CommandFailed, match=f"line {line}: ") as caught:
        step.do(place.world, Quiet())
    assert "Nowak" not in str(caught.value)
    assert "Mill" not in str(caught.value)
    assert "the same command again" not in str(caught.value)
    assert isinstance(step.check(place.world), Unmet)


def test_definers_that_slipped_through_are_found_in_what_was_made(place: Place) -> None:
    text = DEFINED + place.dump()
    path = place.file(text)
    step = place.restore(path, replace(look(path, "shop", (*ACCOUNTS, "old@%"))))
    with pytest.raises(CheckFailed, match="definers without an account: old@%"):
        step.do(place.world, Quiet())
    assert isinstance(step.check(place.world), Unmet)


def test_only_what_restores_a_dump_reads_it(tmp_path: Path) -> None:
    """Other commands look at its first bytes; a plan that needs it reads it once, and again when it changed."""
    image = tmp_path / "disk.qcow2"
    image.write_bytes(b"an image")
    path = tmp_path / "shop.sql"
    path.write_bytes(PMA[: len(PMA) // 2])
    text = (
        (defaults_dir("inventory") / "demo.yaml").read_text().replace("../templates/shop/dump/shop.sql.gz", str(path))
    )
    written = tmp_path / "demo.yaml"
    written.write_text(text)
    inventory = load_inventory(written)
    images = {name: image_spec(name, image) for name in inventory.site.images}
    playbook = load_playbook(defaults_dir("playbooks") / "recover.yaml")
    desired, _ = desire(inventory, playbook, images, secret, Options())
    assert (desired.dump, desired.dump_problem) == (Dump(str(path), ""), "")
    assert set(ACCOUNTS) < set(desired.accounts)
    assert "cut off" in read_dump(desired).dump_problem
    path.write_bytes(PMA)
    assert replace(read_dump(desired).dump or Dump("", ""), size=0) == Dump(str(path), hashlib.sha256(PMA).hexdigest())
    path.unlink()
    assert read_dump(desired).dump is None


def test_a_dump_is_loaded_beside_data_that_serve_and_nothing_of_it_stays(place: Place) -> None:
    """Also one that fails there: of the server's own data not a byte is changed."""
    place.guest.sql("DROP DATABASE IF EXISTS shop; CREATE DATABASE shop; CREATE TABLE shop.own AS SELECT 1 a")
    good = place.file(place.dump())
    bad = place.file(place.dump() + b"INSERT INTO nowhere VALUES (1);\n-- Dump completed\n", "bad.sql")
    assert ProveDump("db-1", "shop", look(good, "shop", ACCOUNTS), 60).do(place.world, Quiet()) == {"dump": str(good)}
    with pytest.raises(CommandFailed, match=r"Table 'shop\.nowhere' doesn't exist"):
        ProveDump("db-1", "shop", look(bad, "shop", ACCOUNTS), 60).do(place.world, Quiet())
    large = replace(look(good, "shop", ACCOUNTS), size=1 << 50)
    with pytest.raises(CommandFailed, match="MiB are needed") as caught:
        ProveDump("db-1", "shop", large, 60).do(place.world, Quiet())
    assert "--from-scratch --unproven" in caught.value.next
    assert place.guest.sql("SHOW TABLES IN shop") == "own"
    assert "proof" not in place.guest.run("ls", "/var/lib/pcloud").stdout
    assert place.guest.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE command = 'Query'") == "1"
