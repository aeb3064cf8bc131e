"""Backups of a real MariaDB replayed and compared with its replica; and a binary log that rotted.

One pair of servers lives through the whole file: the last test leaves a replica of its own."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pcloud.backups import choose
from pcloud.errors import CheckFailed
from pcloud.likeness import Likeness, ask_rows
from pcloud.steps.proving import TRIES, Compare
from pcloud.steps.restoring import Prove
from tests.guests import eventually
from tests.mariadbs import SERVICE, Place, Quiet, left, place_order, slave, two_servers
from tests.test_backup import LIMIT_S, back_up, caught_up, kept, position, prepare

MORE = """USE shop;
CREATE TABLE loose (id INT PRIMARY KEY, what TEXT) ENGINE=Aria TRANSACTIONAL=0;
INSERT INTO loose VALUES (1, 'a'), (2, 'tab\\there');
CREATE TABLE `odd name` (id INT PRIMARY KEY AUTO_INCREMENT, at TIMESTAMP, b BLOB, v INT AS (id + 1), KEY (at));
INSERT INTO `odd name` (b) VALUES (x'00ff'), (NULL);
CREATE SEQUENCE numbers;
CREATE VIEW seen AS SELECT code FROM partner_partner;
CREATE PROCEDURE act() SELECT 1;
CREATE TRIGGER noted BEFORE INSERT ON `odd name` FOR EACH ROW SET NEW.b = COALESCE(NEW.b, 'x');
CREATE EVENT later ON SCHEDULE EVERY 1 DAY DO SELECT 1;
CREATE DATABASE reports; CREATE TABLE reports.daily (day DATE PRIMARY KEY, total DECIMAL(9, 2));
INSERT INTO reports.daily VALUES ('2026-11-26', 12.5);
CREATE USER anna IDENTIFIED BY 'secret'; GRANT SELECT ON reports.* TO anna;
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Place]:
    """The primary with orders, a replica that follows it, and two hosts that keep a backup of that one, and stream."""
    with two_servers(tmp_path_factory.mktemp("proving"), data) as made:
        place_order(made.db, 1)
        made.copy(made.idx)
        made.idx.run("/usr/lib/pcloud/follow", SERVICE)
        for host in ("h3", "h7"):
            prepare(made, host)
        with made.streaming("h3"), made.streaming("h7"):
            both_have_it(made)
            back_up(made, "1", server="idx-1")
            made.db.sql(MORE)
            yield made


def both_have_it(place: Place) -> None:
    eventually(lambda: caught_up(place, "h3") and caught_up(place, "h7"))


def compare(place: Place, **options: Any) -> dict[str, Any]:
    return dict(Compare("idx-1", ("h3", "h7"), LIMIT_S, **options).do(place, Quiet()))  # type: ignore[arg-type]


def follows(place: Place) -> bool:
    return place.idx.sql("SELECT @@gtid_slave_pos") == position(place.db)


def test_a_backup_and_what_follows_are_compared_with_the_replica_while_orders_go_on(place: Place) -> None:
    place_order(place.db, 2)
    stop, ordered = threading.Event(), [2]

    def shop() -> None:
        while not stop.is_set():
            ordered[0] += 1
            place_order(place.db, ordered[0])

    shopping = threading.Thread(target=shop)
    shopping.start()
    try:
        facts = compare(place)
    finally:
        stop.set()
        shopping.join()
    assert facts["backup"] == "1"
    assert 2 < int(facts["reached"].split("-")[2]) <= int(position(place.db).split("-")[2])
    assert facts["tables"] > 50
    assert ordered[0] > 3, "nobody waited for it"
    eventually(lambda: follows(place))
    assert (slave(place.idx)["Slave_SQL_Running"], left(place.idx)) == ("Yes", ["h3", "h7"])
    for shelf in kept(place):
        [proof] = shelf.proofs
        assert (proof.id, proof.position, proof.server, proof.wrong) == ("1", facts["reached"], "idx-1", ())
        assert (proof.tables, proof.rows) == (facts["tables"], facts["rows"])
    assert "--prove" in compare(place, within_s=0.1)["not compared"]


def test_a_binary_log_that_rotted_is_replaced_by_the_next_hosts(place: Place) -> None:
    """After it was read, so that no list says so."""
    for number in range(1000, 1006):
        place_order(place.db, number)
    both_have_it(place)
    choice = choose(kept(place))
    assert choice is not None
    [host] = {leg.host for leg in choice.legs}
    folder = f"/var/lib/pcloud/{host}/backups/demo"
    log = place.idx.run("sh", "-c", f"ls {folder}/binlog/*/*/binlog.* | tail -n 1").stdout.strip()
    size = int(place.idx.run("stat", "-c", "%s", log).stdout)
    place.idx.run("sh", "-c", f"printf '\\377' | dd of={log} bs=1 seek={size - 400} conv=notrunc 2>/dev/null")
    assert choose(kept(place)) == choice, "nobody sees it"
    report = Quiet()
    facts = Prove("db-1", "shop", choice).do(place, report)  # type: ignore[arg-type]
    assert facts["reached"] == choice.end
    assert any(f"{host}'s binary log does not lead on" in said for said in report.said)
    assert any(f"taking that of {other}" in said for said in report.said for other in ("h3", "h7") if other != host)


def test_data_that_the_shop_cannot_write_to_are_not_proven(place: Place) -> None:
    choice = choose(kept(place))
    assert choice is not None
    Prove("db-1", "shop", choice).do(place, Quiet())  # type: ignore[arg-type]
    place.db.run(
        "sed", "-i", "s/GRANT ALL PRIVILEGES/REVOKE INSERT/; /REVOKE INSERT/s/ TO / FROM /", "/etc/mysql/accounts.sql"
    )
    with pytest.raises(CheckFailed, match="the shop's account cannot write to the data: ERROR 1142") as caught:
        Prove("db-1", "shop", choice).do(place, Quiet())  # type: ignore[arg-type]
    assert "pcloud backup demo --list" in caught.value.next
    assert left(place.db) == ["primary"]


@pytest.mark.parametrize("times", [1, 3])
def test_what_changes_while_it_is_read_is_read_anew(place: Place, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """A table's definition is of no snapshot: between a listing and the rows of its tables, one is altered."""
    asked, read = 0, Compare._ask

    def meanwhile(step: Compare, world: Any, where: str, text: str) -> Likeness:
        nonlocal asked
        if "CONSISTENT SNAPSHOT" in text and not where and asked < times:
            asked += 1
            place.db.sql(f"ALTER TABLE shop.partner_partner COMMENT '{times} {asked}'")
            eventually(lambda: follows(place))
        return read(step, world, where, text)

    monkeypatch.setattr(Compare, "_ask", meanwhile)
    if times < TRIES:
        assert compare(place)["reached"] == position(place.db)
        return
    with pytest.raises(CheckFailed, match=r"3 times: shop\.partner_partner changed meanwhile"):
        compare(place)


def test_hosts_that_do_not_lead_to_the_replica_are_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcloud.steps.proving.STREAM_S", 2)
    place.idx.run("pkill", "-STOP", "-x", "mariadb-binlog")
    place_order(place.db, 2000)
    eventually(lambda: follows(place))
    with pytest.raises(CheckFailed, match="does not lead to"):
        compare(place)
    place.idx.run("pkill", "-CONT", "-x", "mariadb-binlog")


@pytest.mark.chaos
def test_a_reader_that_hangs_is_ended_by_the_server_and_holds_no_definition(place: Place) -> None:
    """As when pcloud's machine loses its power in the middle of a reading."""
    text = ask_rows({"`shop`.`partner_partner`": "InnoDB"}).removesuffix("COMMIT;\n")
    with subprocess.Popen(place.idx.argv("mariadb", "--batch"), stdin=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        reader.stdin.write(text.encode())
        reader.stdin.flush()
        eventually(lambda: place.idx.sql("SELECT COUNT(*) FROM information_schema.innodb_trx") != "0")
        place.db.sql("ALTER TABLE shop.partner_partner COMMENT 'later'")
        place_order(place.db, 3000)
        assert not follows(place)
        eventually(lambda: follows(place), 60)
        reader.kill()


def test_each_difference_is_named_and_kept(place: Place) -> None:
    eventually(lambda: follows(place))
    for change in (
        "UPDATE shop.partner_partner SET name='other' WHERE code='order-1'",
        "DELETE FROM reports.daily",
        "UPDATE shop.loose SET what='b' WHERE id=1",
        "ALTER TABLE shop.`odd name` DROP KEY at",
        "DROP PROCEDURE shop.act; CREATE PROCEDURE shop.act() SELECT 2",
        "CREATE OR REPLACE VIEW shop.seen AS SELECT name FROM shop.partner_partner",
        "DROP TRIGGER shop.noted",
        "DROP EVENT shop.later",
        "REVOKE SELECT ON reports.* FROM anna; GRANT INSERT ON reports.* TO anna",
        "CREATE USER bob",
        "CREATE TABLE shop.alone (id INT)",
    ):
        place.idx.sql(f"SET SESSION sql_log_bin=0; {change}")
    with pytest.raises(CheckFailed) as caught:
        compare(place)
    wrong = kept(place)[0].proofs[0].wrong
    assert wrong == kept(place)[1].proofs[0].wrong
    assert set(wrong) == {
        "table shop.partner_partner has other rows",
        "table reports.daily has 1 rows in it, and 0 on the server",
        "table shop.loose has other rows",
        "table shop.odd name is defined otherwise",
        "table shop.alone is not in it",
        "procedure shop.act is another one",
        "view shop.seen is another one",
        "trigger shop.noted is in it alone",
        "grants 'anna'@'%' on reports is another one",
        "event shop.later is in it alone",
        "account bob@% is not in it",
    }
    assert "; table shop.odd name is defined otherwise; " in caught.value.what
    assert caught.value.what.endswith(", and 6 more")
    assert "secret" not in str(caught.value)
