"""What a dead copy holds: read from disks as real MariaDBs leave them when their power is cut.

The script runs on this machine as it does on a host; the disks are files, and nothing is mounted.
"""

from __future__ import annotations

import csv
import hashlib
import io
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pcloud.binlogtext import Transaction, TransactionReader
from pcloud.errors import BadInput
from pcloud.lostfiles import LostFiles, prepare_folder
from pcloud.steps.hostscript import host_script
from pcloud.steps.salvage import Read, _Answer, sorted_gtids
from tests.dead_disks import as_disk, file_system, partitioned, with_dirty_journal
from tests.guests import eventually, program
from tests.mariadbs import Mariadb, mariadb

TABLE = (
    "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, who VARCHAR(60), "
    "price DECIMAL(8,2), paid MEDIUMBLOB)"
)


def order(who: str, price: str = "1.50") -> str:
    return f"INSERT INTO shop.orders (who, price) VALUES ('{who}', {price})"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@dataclass
class Said:
    code: int
    read: Read
    error: str
    doing: list[str]
    lines: list[bytes]

    @property
    def transactions(self) -> list[Transaction]:
        reader = TransactionReader()
        fed = (reader.feed(line.decode("utf-8", "surrogateescape")) for line in self.lines)
        return [t for t in fed if t is not None]


def argv(verb: str, disk: Path, folder: Path, held: str, state: str = "-") -> list[str]:
    return ["sh", "-c", host_script("salvage.sh"), "salvage", verb, str(disk), str(folder), held, state]


def salvage(verb: str, disk: Path, held: str = "", state: str = "-", *, inside: tuple[str, ...] = ()) -> Said:
    scratch = disk.parent / "salvage"
    done = subprocess.run([*inside, *argv(verb, disk, scratch, held, state)], capture_output=True, timeout=120)
    doing: list[str] = []
    lines: list[bytes] = []
    answer = _Answer(Read(), doing.append, lines.append)
    answer.take(done.stdout)
    assert not (scratch / "scratch").exists()
    return Said(done.returncode, answer.read, done.stderr.decode().strip(), doing, lines)


@pytest.fixture(scope="module")
def primary(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a primary whose power was cut: 0-1-1..9, then 1417-1-1..3 in a second file."""
    home = tmp_path_factory.mktemp("primary")
    with mariadb(data, home / "db-1", 1) as server:
        server.sql(TABLE, *(order(f"buyer {n}") for n in range(1, 8)))
        server.sql("FLUSH BINARY LOGS; SET GLOBAL gtid_domain_id = 1417")
        server.sql(
            order("Müller\\t''"),
            "UPDATE shop.orders SET price = -2 WHERE id < 3",
            "DELETE FROM shop.orders WHERE id = 4",
        )
        assert server.sql("SELECT @@gtid_binlog_pos") == "0-1-9,1417-1-3"
        server.kill()
    return home / "db-1"


@pytest.fixture
def disk(primary: Path, folder: Path) -> Path:
    return as_disk(file_system(primary, folder / "raw"), folder / "db-1.qcow2")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_how_far_a_copy_got_and_what_the_living_data_have_not(disk: Path) -> None:
    before = digest(disk)
    said = salvage("look", disk, "0-2-9,1417-1-1")
    assert (said.code, said.error) == (0, "")
    assert (said.read.at, said.read.missing, said.read.partial) == ("0-1-9,1417-1-3", 2, False)
    assert said.read.first <= said.read.last and said.read.first.endswith("Z")
    assert said.lines == []
    assert salvage("look", disk, "0-1-9,1417-1-3").read.missing == 0
    assert salvage("look", disk, "0-1-9,1417-1-30,5000-2-1").read.missing == 0
    assert salvage("look", disk, "0-1-7").read.missing == 5
    assert salvage("look", disk, "").read.missing == 12
    assert digest(disk) == before


def test_only_as_much_of_the_log_is_read_as_is_needed(disk: Path) -> None:
    assert [d for d in salvage("look", disk, "0-1-9,1417-1-1").doing if "binlog" in d] == [
        "reading binlog.000002, 0 MiB"
    ]
    assert len([d for d in salvage("look", disk, "0-1-8").doing if "binlog" in d]) == 2


def test_the_transactions_in_brief_hold_no_value_of_a_row(disk: Path) -> None:
    said = salvage("list", disk, "0-1-8,1417-1-1")
    told = [(t.gtid, dict(t.tables), t.statements) for t in said.transactions]
    rows = {"shop.orders": 1}
    assert told == [("0-1-9", rows, ()), ("1417-1-2", {"shop.orders": 2}, ()), ("1417-1-3", rows, ())]
    assert b"buyer" not in b"\n".join(said.lines)
    assert not any(t.rows for t in said.transactions)
    every = salvage("list", disk, "").transactions
    assert [t.statements for t in every[:2]] == [("CREATE DATABASE",), ("CREATE TABLE",)]
    assert len(every) == 12


def test_another_branch_with_the_same_domain_begins_where_the_living_one_left_it(disk: Path) -> None:
    """From before timelines: the living primary, server 2, went on at 0-1-6, and is at 0-2-40 by now."""
    said = salvage("list", disk, "0-2-40,1417-1-3", "0-1-6,0-2-40,1417-1-3")
    assert said.read.missing == 3
    assert [t.gtid for t in said.transactions] == ["0-1-7", "0-1-8", "0-1-9"]


def test_a_file_system_whose_journal_was_not_replayed(primary: Path, folder: Path) -> None:
    """As a power cut leaves it: the log's last file is known to the journal only."""
    early = folder / "early"
    subprocess.run(["cp", "-a", str(primary), str(early)], check=True)
    late = folder / "binlog.000002"
    (early / "binlog.000002").rename(late)
    raw = file_system(early, folder / "raw")
    base = file_system(None, folder / "base")
    assert salvage("look", as_disk(raw, folder / "early.qcow2")).read.at == "0-1-9"
    disk = as_disk(with_dirty_journal(raw, [late]), folder / "db-1.qcow2", base)
    before = digest(disk)
    said = salvage("list", disk, "0-1-9")
    assert (said.error, said.read.at, said.read.missing) == ("", "0-1-9,1417-1-3", 3)
    assert [t.gtid for t in said.transactions] == ["1417-1-1", "1417-1-2", "1417-1-3"]
    assert digest(disk) == before


def test_small_file_systems_have_smaller_blocks(primary: Path, folder: Path) -> None:
    disk = as_disk(file_system(primary, folder / "raw", block=1024), folder / "db-1.qcow2")
    assert salvage("look", disk, "0-1-9").read.missing == 3


def test_a_log_in_many_pieces(data: Path, folder: Path) -> None:
    """More extents than an inode holds: they are in a tree of their own."""
    with mariadb(data, folder / "db-1", 1) as server:
        server.sql(TABLE, *(f"INSERT INTO shop.orders (paid) VALUES (REPEAT('{n}', 200000))" for n in range(1, 4)))
        server.kill()
    log = folder / "binlog.000001"
    (folder / "db-1" / log.name).rename(log)
    raw = file_system(folder / "db-1", folder / "raw")
    commands = [f"setb {n} 1" for n in range(1, (64 << 20) // 4096, 2)]  # every other block is taken
    commands += ["cd /var/lib/mysql", f"write {log} {log.name}"]
    debugfs = [program("debugfs", "e2fsprogs")]
    text = "\n".join(commands)
    subprocess.run([*debugfs, "-w", "-f", "-", str(raw)], input=text, text=True, check=True, capture_output=True)
    shown = [*debugfs, "-R", f"ex -l /var/lib/mysql/{log.name}", str(raw)]
    assert len(subprocess.run(shown, capture_output=True, text=True).stdout.splitlines()) > 100
    said = salvage("list", as_disk(raw, folder / "db-1.qcow2"), "0-1-2")
    assert (said.read.at, said.read.damaged) == ("0-1-5", [])
    assert [t.gtid for t in said.transactions] == ["0-1-3", "0-1-4", "0-1-5"]


def test_a_stock_images_disk_has_partitions(primary: Path, folder: Path) -> None:
    small = file_system(None, folder / "boot", 16 << 20)
    swap = folder / "swap"
    swap.write_bytes(bytes(80 << 20))
    subprocess.run([program("mkswap", "util-linux"), "-q", str(swap)], check=True, capture_output=True)
    whole = partitioned([small, swap, file_system(primary, folder / "raw")], folder / "whole")
    said = salvage("look", as_disk(whole, folder / "db-1.qcow2"), "0-1-9")
    assert (said.error, said.read.at, said.read.missing) == ("", "0-1-9,1417-1-3", 3)


def test_disks_that_cannot_be_read_say_why(primary: Path, folder: Path) -> None:
    swap = folder / "swap"
    swap.write_bytes(bytes(16 << 20))
    subprocess.run([program("mkswap", "util-linux"), "-q", str(swap)], check=True, capture_output=True)
    (folder / "zeros").write_bytes(bytes(1 << 20))
    cases = {
        as_disk(swap, folder / "swap.qcow2"): "its disk holds swap; only ext4 can be read",
        as_disk(folder / "zeros", folder / "zeros.qcow2"): "its disk holds neither ext4 nor partitions",
        as_disk(
            partitioned([swap], folder / "p"), folder / "p.qcow2"
        ): "no partition of its disk holds ext4, but: swap",
        as_disk(file_system(None, folder / "none"), folder / "none.qcow2"): "there is no /var/lib/mysql on its disk",
        folder / "missing.qcow2": f"{folder}/missing.qcow2 is not there",
        swap: "the disk cannot be read: qemu-img: Could not open",
    }
    for disk, why in cases.items():
        said = salvage("look", disk)
        assert said.code == 1
        assert why in said.error, disk
        assert len(said.error.splitlines()) == 1


def test_an_image_that_is_gone_from_the_host_is_named(primary: Path, folder: Path) -> None:
    disk = as_disk(file_system(primary, folder / "raw"), folder / "db-1.qcow2", file_system(None, folder / "base"))
    (folder / "db-1.image").unlink()
    said = salvage("look", disk)
    assert said.code == 1
    assert "db-1.image" in said.error


def test_a_copy_without_a_transaction_of_its_own(data: Path, folder: Path) -> None:
    """A server that was never given data holds nothing; one that was, by a dump, holds nobody knows what."""
    assert salvage("look", as_disk(file_system(data, folder / "new"), folder / "new.qcow2")).read.at == ""
    with mariadb(data, folder / "idx-1", 2) as server:
        server.kill()
    raw = file_system(folder / "idx-1", folder / "raw")
    assert salvage("look", as_disk(raw, folder / "empty.qcow2")).read.at == ""
    (folder / "idx-1" / "shop").mkdir()
    raw = file_system(folder / "idx-1", folder / "raw")
    said = salvage("look", as_disk(raw, folder / "copied.qcow2"), "0-1-5")
    assert (said.read.at, said.read.missing) == ("unknown", 0)


def test_what_a_replica_received_and_did_not_apply(data: Path, folder: Path) -> None:
    port = "--port=33197"
    with (
        mariadb(data, folder / "db-1", 1, port, "--bind-address=127.0.0.1") as db,
        mariadb(data, folder / "idx-1", 2) as idx,
    ):
        db.sql("CREATE USER r@'127.0.0.1' IDENTIFIED BY 'x'; GRANT REPLICATION SLAVE ON *.* TO r@'127.0.0.1'", TABLE)
        idx.sql(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=33197, MASTER_USER='r', MASTER_PASSWORD='x',"
            " MASTER_USE_GTID=slave_pos; START SLAVE"
        )
        db.sql(order("applied"), "SET GLOBAL gtid_domain_id=2001", order("applied too"))
        eventually(lambda: "2001-1-1" in idx.sql("SELECT @@gtid_slave_pos"))
        idx.sql("STOP SLAVE SQL_THREAD")
        db.sql(order("received"), f"BEGIN; {order('a')}; {order('b')}; COMMIT")
        eventually(lambda: "2001-1-3" in idx.sql("SHOW SLAVE STATUS"))
        idx.kill()
    said = salvage("list", as_disk(file_system(folder / "idx-1", folder / "raw"), folder / "idx-1.qcow2"), "0-1-5")
    assert said.read.at == "0-1-5,2001-1-3"
    told = [(t.gtid, t.tables["shop.orders"]) for t in said.transactions]
    assert (said.read.missing, told) == (3, [("2001-1-1", 1), ("2001-1-2", 1), ("2001-1-3", 2)])
    held = salvage("list", as_disk(folder / "raw", folder / "idx-1.qcow2"), "0-1-5,2001-1-2")
    assert [t.gtid for t in held.transactions] == ["2001-1-3"]


@pytest.mark.parametrize("cut", [8, 40, 60, 200])
def test_a_transaction_that_the_logs_end_cuts_off_does_not_count(primary: Path, folder: Path, cut: int) -> None:
    torn = folder / "torn"
    subprocess.run(["cp", "-a", str(primary), str(torn)], check=True)
    with (torn / "binlog.000002").open("r+b") as file:
        file.truncate((torn / "binlog.000002").stat().st_size - cut)
    disk = as_disk(file_system(torn, folder / "raw"), folder / "db-1.qcow2")
    said = salvage("list", disk, "0-1-9")
    whole = len(said.transactions)
    assert whole in (1, 2)
    assert (said.read.at, said.read.missing, said.read.damaged) == (f"0-1-9,1417-1-{whole}", whole, [])


def test_a_file_that_had_just_been_begun_is_no_damage_and_another_one_is(primary: Path, folder: Path) -> None:
    begun = folder / "begun"
    subprocess.run(["cp", "-a", str(primary), str(begun)], check=True)
    (begun / "binlog.000003").touch()
    said = salvage("look", as_disk(file_system(begun, folder / "raw"), folder / "begun.qcow2"), "0-1-9")
    assert (said.read.at, said.read.damaged) == ("0-1-9,1417-1-3", [])
    (begun / "binlog.000003").write_bytes(bytes(5000))
    said = salvage("look", as_disk(file_system(begun, folder / "raw"), folder / "zeros.qcow2"), "0-1-9")
    assert (said.read.at, said.read.damaged) == ("0-1-9,1417-1-3", ["binlog.000003: it is no binary log"])
    log = bytearray((primary / "binlog.000002").read_bytes())
    log[log.index(b"M\xc3\xbcller")] ^= 1  # only its checksum says so
    (begun / "binlog.000003").unlink()
    (begun / "binlog.000002").write_bytes(log)
    said = salvage("look", as_disk(file_system(begun, folder / "raw"), folder / "spoilt.qcow2"), "0-1-9")
    assert (said.read.at, len(said.read.damaged)) == ("0-1-9", 1)


def test_a_damaged_file_does_not_hide_the_later_ones(primary: Path, folder: Path) -> None:
    spoilt = folder / "spoilt"
    subprocess.run(["cp", "-a", str(primary), str(spoilt)], check=True)
    with (spoilt / "binlog.000001").open("r+b") as file:
        file.truncate((spoilt / "binlog.000001").stat().st_size - 300)
    disk = as_disk(file_system(spoilt, folder / "raw"), folder / "db-1.qcow2")
    said = salvage("list", disk, "0-1-7")
    assert said.read.at == "0-1-9,1417-1-3"
    assert [t.gtid for t in said.transactions] == ["0-1-8", "1417-1-1", "1417-1-2", "1417-1-3"]
    assert any("binlog.000001" in d for d in said.read.damaged)


def test_a_host_without_room_says_so_and_keeps_nothing(disk: Path) -> None:
    (disk.parent / "salvage").mkdir()
    mount = f'mount -t tmpfs -o size=200m tmpfs "{disk.parent}/salvage"; exec "$@"'
    said = salvage("look", disk, inside=("unshare", "--mount", "sh", "-c", mount, "sh"))
    assert said.code == 1
    assert "has room for" in said.error
    assert len(said.error.splitlines()) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_of_one_that_was_killed(disk: Path, how: signal.Signals) -> None:
    """At once, or by the next one where it could not help itself."""
    scratch = disk.parent / "salvage" / "scratch"
    with subprocess.Popen(argv("look", disk, scratch.parent, ""), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"doing")
        assert (scratch / "fs").exists()
        process.send_signal(how)
        process.wait(30)
    assert scratch.exists() == (how is signal.SIGKILL)
    assert salvage("look", disk).read.at == "0-1-9,1417-1-3"


def test_a_copy_that_runs_is_left_alone(disk: Path) -> None:
    """QEMU holds a lock on the disk of a server that runs."""
    with subprocess.Popen(["qemu-io", str(disk)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        time.sleep(1)
        said = salvage("look", disk)
        process.kill()
    assert said.code == 1
    assert "lock" in said.error


def load(server: Mariadb, path: Path) -> None:
    client = ["mariadb", "--no-defaults", "--binary-mode", "-S", server.socket]
    done = subprocess.run(client, stdin=path.open("rb"), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def export(disk: Path, held: str, folder: Path, columns: dict[str, list[str]]) -> list[Path]:
    prepare_folder(folder, ["db-1.g1.h1"])
    files = LostFiles(folder, "db-1.g1.h1", "what this is\nand what not", columns)
    for line in salvage("sql", disk, held).lines:
        files.take(line)
    return files.finish()


def test_the_sql_applies_what_was_lost_as_transactions_of_whoever_loads_it(
    disk: Path, primary: Path, data: Path, folder: Path
) -> None:
    names = ["id", "who", "price", "paid"]
    sql, *_ = export(disk, "0-1-9", folder / "out", {"shop.orders": names})
    assert sql.read_text("utf-8").startswith("-- what this is\n-- and what not\n")
    assert sql.stat().st_mode & 0o777 == 0o600
    assert (folder / "out").stat().st_mode & 0o777 == 0o700
    with mariadb(data, folder / "living", 2) as living:
        living.sql(TABLE, *(order(f"buyer {n}") for n in range(1, 8)))
        living.sql("SET GLOBAL gtid_domain_id = 2002")
        load(living, sql)
        assert living.sql("SELECT who FROM shop.orders WHERE id = 8") == "Müller\\t'"
        assert living.sql("SELECT GROUP_CONCAT(id) FROM shop.orders WHERE price < 0") == "1,2"
        assert living.sql("SELECT COUNT(*) FROM shop.orders WHERE id = 4") == "0"
        assert living.sql("SELECT @@gtid_binlog_pos") == "0-2-9,2002-2-3"


def test_the_csv_has_each_row_under_its_columns_names(disk: Path, folder: Path) -> None:
    _, table = export(disk, "0-1-9", folder / "out", {"shop.orders": ["id", "who", "price", "paid"]})
    assert table.name == "db-1.g1.h1.shop.orders.csv"
    rows = list(csv.reader(io.StringIO(table.read_text("utf-8"))))
    assert rows[0] == ["gtid", "committed", "row", "id", "who", "price", "paid"]
    assert [[r[0], *r[2:]] for r in rows[1:]] == [
        ["1417-1-1", "insert", "8", "Müller\t'", "1.50", "\\N"],
        ["1417-1-2", "before", "1", "buyer 1", "1.50", "\\N"],
        ["1417-1-2", "after", "1", "buyer 1", "-2.00", "\\N"],
        ["1417-1-2", "before", "2", "buyer 2", "1.50", "\\N"],
        ["1417-1-2", "after", "2", "buyer 2", "-2.00", "\\N"],
        ["1417-1-3", "delete", "4", "buyer 4", "1.50", "\\N"],
    ]
    _, table = export(disk, "0-1-9", folder / "other", {"shop.orders": ["id", "who"]})
    assert table.read_text("utf-8").splitlines()[0] == "gtid,committed,row,@1,@2,@3,@4"


def test_a_folder_that_others_see_or_that_is_used_is_refused(folder: Path) -> None:
    (folder / "open").mkdir(mode=0o755)
    with pytest.raises(BadInput, match="others may look into it"):
        prepare_folder(folder / "open", ["db-1.g1.h1"])
    (folder / "used").mkdir(mode=0o700)
    (folder / "used" / "db-1.g1.h1.sql").touch()
    with pytest.raises(BadInput, match="not overwritten"):
        prepare_folder(folder / "used", ["db-1.g1.h1"])
    prepare_folder(folder / "used", ["db-1.g2.h1"])


def test_half_an_answer_leaves_no_file(disk: Path, folder: Path) -> None:
    prepare_folder(folder / "out", ["x"])
    files = LostFiles(folder / "out", "x", "", {})
    for line in salvage("sql", disk, "0-1-9").lines[:-20]:
        files.take(line)
    files.discard()
    assert list((folder / "out").iterdir()) == []


def test_gtids_are_in_their_domains_order() -> None:
    assert sorted_gtids("1417-2-1,0-1-5,20-1-1") == "0-1-5,20-1-1,1417-2-1"
