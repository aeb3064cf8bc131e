"""Search as the indexer runs it: its own MariaDB, Sphinx, and the script that keeps the index.

Real daemons with the demo site's files, in namespaces; asked over the network, from the other server.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from pcloud.inventory import defaults_dir
from pcloud.lab.namespaces import call_in_network
from tests.guests import Guest, eventually, guests, mariadb_data, rendered, secret, start_mariadb

DUMP = defaults_dir("templates") / "shop" / "dump" / "shop.sql.gz"
INDEX = "/usr/lib/pcloud/index"
ADDRESS = "10.77.0.71"
MAPLE = 2
"""The number of the product with the word bloodgood."""
EVERY = "sleep 10"


@dataclass(frozen=True)
class Indexer:
    """idx-1 with its data, its index made; and another server of the site."""

    guest: Guest
    other: Guest

    def hits(self, words: str, columns: str = "id", index: str = "products") -> list[Any]:
        """What searchd answers over the network."""
        return self._ask(9306, None, f"SELECT {columns} FROM {index} WHERE MATCH(%s) LIMIT 0, 1000", words)

    def rows(self, user: str, query: str) -> list[Any]:
        """What its MariaDB answers to an account of the site, over the network."""
        return self._ask(3306, user, query)

    def _ask(self, port: int, user: str | None, query: str, *values: str) -> list[Any]:
        account: dict[str, Any] = {"user": user, "password": secret(f"db/{user}"), "database": "shop"} if user else {}

        def ask() -> list[Any]:
            charset = "utf8mb4" if user else "utf8"
            with (
                pymysql.connect(host=ADDRESS, port=port, charset=charset, connect_timeout=5, **account) as link,
                link.cursor() as cursor,
            ):
                cursor.execute(query, values or None)
                return [row[0] for row in cursor.fetchall()]

        return call_in_network(self.other.pid, ask)

    def change(self, sets: str, *, table: str = "catalogue_product") -> None:
        """Changes the maple as the shop does: the row's date is changed with it."""
        key = "id" if table == "catalogue_product" else "product_id"
        self.guest.sql(f"UPDATE shop.{table} SET {sets}, date_updated = UTC_TIMESTAMP(6) WHERE {key} = {MAPLE}")


@pytest.fixture(scope="module")
def indexer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexer]:
    folder = tmp_path_factory.mktemp("indexer")
    data = mariadb_data(tmp_path_factory.mktemp("data"))
    with ExitStack() as stack:
        recipes = ("mariadb", "indexer")
        guest, other = stack.enter_context(guests(folder, rendered(folder), ("idx-1", "db-1"), recipes))
        start_mariadb(guest, stack, folder / "mariadb.log", data)
        guest.sql(f"SET sql_log_bin=0; USE shop;\n{gzip.decompress(DUMP.read_bytes()).decode()}")
        folders = "/run/sphinxsearch /var/log/sphinxsearch /var/lib/sphinxsearch /var/lib/sphinxsearch/data"
        guest.run("install", "-d", "-o", "sphinxsearch", "-g", "sphinxsearch", *folders.split())
        guest.run("sed", "-i", f"s/{EVERY}/sleep 1/", INDEX)
        searchd = ("setpriv", "--reuid=sphinxsearch", "--regid=sphinxsearch", "--clear-groups", "/usr/bin/searchd")
        config = ("--nodetach", "--config", "/etc/sphinxsearch/sphinx.conf")
        stack.enter_context(guest.daemon(*searchd, *config, log=folder / "searchd.log"))
        made = Indexer(guest, other)
        eventually(lambda: guest.run("bash", "-c", ": <>/dev/tcp/127.0.0.1/9306", check=False).returncode == 0)
        guest.run(INDEX, "changes")  # the first time, that is all of it
        yield made


def test_the_database_lets_in_whom_it_should(indexer: Indexer) -> None:
    for user in ("shop", "sphinx", "monitor"):
        assert indexer.rows(user, "SELECT COUNT(*) FROM catalogue_product") == [596]
    assert indexer.rows("shop", "SELECT title FROM catalogue_product WHERE title = 'Érable du Japon ''Bloodgood'''")
    assert indexer.rows("shop", "SELECT COUNT(*) FROM order_order") == [0]
    with pytest.raises(pymysql.MySQLError, match="read-only"):
        indexer.rows("shop", "DELETE FROM catalogue_product")
    indexer.guest.run("/usr/lib/pcloud/primary", "take", "alone")
    for user in ("sphinx", "monitor"):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            indexer.rows(user, "DELETE FROM catalogue_product")
    indexer.guest.run("/usr/lib/pcloud/primary", "release")


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ("érable", "erable"),
        ("érable", "ÉRABLES"),
        ("œillet", "oeillet"),
        ("hortensia", "Hortensias"),
        ("chêne", "chene"),
        ("pêcher", "PECHER"),
    ],
)
def test_search_folds_accents_capitals_and_plurals(indexer: Indexer, asked: str, same: str) -> None:
    found = indexer.hits(asked)
    assert found
    assert set(indexer.hits(same)) == set(found)


def test_search_finds_what_a_shopper_means(indexer: Indexer) -> None:
    maples = indexer.rows("sphinx", "SELECT id FROM catalogue_product WHERE title LIKE '%Érable du Japon%'")
    assert set(indexer.hits("érable japon")) >= set(maples)
    bloodgood = indexer.rows("sphinx", "SELECT id FROM catalogue_product WHERE title LIKE '%Bloodgood%'")
    assert indexer.hits("bloodg") == bloodgood, "three letters or more find what begins so"
    assert indexer.hits(indexer.rows("sphinx", "SELECT upc FROM catalogue_product WHERE id = 1")[0]) == [1]
    assert indexer.hits("xylophone") == []


@pytest.mark.parametrize("how", ["changes", "batch"])
def test_a_changed_product_is_found_by_its_new_words_only(indexer: Indexer, how: str) -> None:
    for new, old in (("xylophone", "glockenspiel"), ("glockenspiel", "xylophone")):
        indexer.change(f"title = 'Érable {new}'")
        indexer.guest.run(INDEX, how)
        assert indexer.hits(new) == [MAPLE]
        assert indexer.hits(old) == []


@pytest.mark.parametrize("how", ["changes", "batch"])
def test_a_product_taken_off_the_shelf_is_not_found(indexer: Indexer, how: str) -> None:
    for public, found in ((0, []), (1, [MAPLE])):
        indexer.change(f"is_public = {public}")
        indexer.guest.run(INDEX, how)
        assert indexer.hits("bloodgood") == found


def test_a_new_price_is_what_searches_are_ordered_by(indexer: Indexer) -> None:
    (before,) = indexer.hits("bloodgood", "price_cents")
    indexer.change("price = price + 1", table="partner_stockrecord")
    indexer.guest.run(INDEX, "changes")
    assert indexer.hits("bloodgood", "price_cents") == [before + 100]


def test_changes_alone_are_made_again_not_everything(indexer: Indexer) -> None:
    indexer.guest.run(INDEX, "batch")
    indexer.change("description = CONCAT(description, ' trombone')")
    indexer.guest.run(INDEX, "changes")
    assert indexer.hits("trombone", index="products_main") == []
    assert indexer.hits("trombone", index="products_delta") == [MAPLE]
    assert indexer.hits("érable", index="products_delta") == [MAPLE], "of all maples, the changed one"


def test_search_answers_in_full_while_everything_is_made_anew(indexer: Indexer) -> None:
    expected = set(indexer.hits("érable"))
    wrong: list[object] = []
    ended = threading.Event()

    def shop() -> None:
        while not ended.is_set():
            try:
                found = set(indexer.hits("érable"))
                if found != expected:
                    wrong.append(found)
            except (OSError, pymysql.MySQLError) as error:
                wrong.append(error)

    shopper = threading.Thread(target=shop)
    shopper.start()
    for how in ("batch", "changes", "batch"):
        indexer.guest.run(INDEX, how)
    ended.set()
    shopper.join(30)
    assert wrong == []


def test_a_change_is_found_by_itself_and_an_idle_indexer_stays_idle(indexer: Indexer, tmp_path: Path) -> None:
    delta = ("stat", "-c", "%i %Y", "/var/lib/sphinxsearch/data/products_delta.spd")
    asked = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'COM_SELECT'"
    with indexer.guest.daemon(INDEX, "follow", log=tmp_path / "follow.log"):
        indexer.change("description = CONCAT(description, ' clavecin')")
        eventually(lambda: indexer.hits("clavecin") == [MAPLE])
        made, before = indexer.guest.run(*delta).stdout, int(indexer.guest.sql(asked))
        eventually(lambda: int(indexer.guest.sql(asked)) > before + 30)
        assert indexer.guest.run(*delta).stdout == made, "it looked several times, and nothing had changed"


def test_a_database_that_is_away_is_said_and_the_index_stays(indexer: Indexer) -> None:
    found = indexer.hits("érable")
    indexer.guest.sql("RENAME TABLE shop.catalogue_product TO shop.elsewhere")
    failed = indexer.guest.run(INDEX, "batch", check=False)
    indexer.guest.sql("RENAME TABLE shop.elsewhere TO shop.catalogue_product")
    assert failed.returncode == 1
    assert "catalogue_product" in failed.stdout + failed.stderr
    assert indexer.hits("érable") == found
