"""From a dead copy on a host to what a person is told: findings, the inspection's note, and what `salvage` reads."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from pcloud.binlogtext import TransactionReader, read_value
from pcloud.cli.salvage import _read_all
from pcloud.cli.session import Session
from pcloud.desired import Desired, Names
from pcloud.errors import CommandFailed
from pcloud.generations import read_generations
from pcloud.inventory import defaults_dir, load_site
from pcloud.model import Site
from pcloud.observed import Data, Observed, SeenDatabase, SeenHost
from pcloud.plan import plan
from pcloud.playbook import load_playbook
from pcloud.render.report import report_of
from pcloud.salvage import LONGEST, DeadCopy, Reading, find_copies, find_findings, living_position, note_name, read_note
from pcloud.steps.base import Met, Unmet
from pcloud.steps.replication import PRIMARY
from pcloud.steps.salvage import Inspect, read_notes
from tests.conftest import make_desired
from tests.dead_disks import as_disk, file_system
from tests.mariadbs import Mariadb, Quiet, Said, mariadb
from tests.plan_cases import DATE
from tests.scenario import new_world
from tests.shoppers import Shoppers
from tests.simulated_operator import Operator
from tests.test_salvage import TABLE, order

DB1 = Names("demo", "db-1", 1)
CARRIERS = ("db-1", "idx-1")


# -- what is told


def copies(*hosts: SeenHost) -> list[DeadCopy]:
    observed = Observed(hosts)
    return find_copies("demo", CARRIERS, observed, read_generations(observed, "demo").newest)


def test_dead_copies_are_seen_by_their_files() -> None:
    there = (
        "demo.db-1.g1.qcow2",
        "demo.db-1.g1.at-0-1-771,1417-1-3.note",
        "demo.db-1.g2.note",
        "demo.fe-1.g1.qcow2",
        "demo.idx-1.g3.qcow2",
        "demo.idx-1.g2.tombstone-20261127-101500.qcow2",
        "demo.idx-1.g2.tombstone-20261127-101500.at-0-1-5.note",
        "demo.idx-1.g1.tombstone-20261127-101500.qcow2.xml",
        "demo.db-1.g1.console.log",
        "demonstration.db-1.g1.qcow2",
    )
    silent = SeenHost("h2", problem="no answer", volumes=("demo.db-1.g1.qcow2",))
    note = "demo.db-1.g1.at-0-1-771,1417-1-3.note"
    away = "demo.idx-1.g2.tombstone-20261127-101500"
    assert copies(SeenHost("h1", volumes=there), silent) == [
        DeadCopy("h1", "db-1", 1, "demo.db-1.g1.qcow2", False, note, "0-1-771,1417-1-3"),
        DeadCopy("h1", "idx-1", 2, f"{away}.qcow2", True, f"{away}.at-0-1-5.note", "0-1-5"),
    ]


def told(copy: DeadCopy, held: str, reading: Reading | None = None) -> list[str]:
    notes = {(copy.host, copy.note): reading.to_json()} if reading else {}
    return [f.text for f in find_findings("demo", [copy], held, notes)]


COPY = DeadCopy("h1", "db-1", 1, "d", False, "n", "0-1-771")
FIRST, LAST = "2026-11-28T01:23:28Z", "2026-11-28T01:24:28Z"


def test_a_copy_with_what_the_living_data_have_not_is_told() -> None:
    reading = Reading("0-1-771", "0-1-684,1417-2-1", 87, FIRST, LAST)
    text = "db-1's copy of generation 1 on h1 holds 87 transactions that the shop's data have not"
    assert told(COPY, "0-1-684,1417-2-90", reading) == [f"{text}, from {FIRST} to {LAST}"]
    assert told(COPY, "0-1-684,1417-2-90") == [text]
    assert told(COPY, "0-1-771,1417-2-90") == []
    assert told(COPY, "0-1-683,1417-2-90", reading)[0].endswith("88 transactions that the shop's data have not")
    assert "at least 87 transactions" in told(COPY, "0-1-684,1417-2-1", Reading("", "", 87, FIRST, LAST, True))[0]
    assert find_findings("demo", [COPY], "0-1-1", {})[0].next == "pcloud salvage demo"


def test_what_a_note_counted_holds_while_the_living_data_go_on_from_there() -> None:
    """Two branches in one domain: the position alone says that nothing is missing."""
    reading = Reading("0-1-771", "0-2-690", 87, FIRST, LAST)
    assert "87 transactions" in told(COPY, "0-2-900", reading)[0]
    assert told(COPY, "0-2-900", Reading("0-1-771", "0-2-901", 87)) == [], "it was restored from before"


def test_nothing_is_told_without_a_primary_and_nobody_is_sent_to_old_tombstones() -> None:
    assert told(COPY, "") == []
    unread = DeadCopy("h1", "db-1", 1, "d")
    assert told(unread, "0-1-1") == ["nobody has read yet what db-1's copy of generation 1 on h1 holds"]
    assert told(DeadCopy("h1", "db-1", 1, "d", True), "0-1-1") == []


def test_the_living_position_is_the_primarys() -> None:
    replica, primary = SeenDatabase(False, "0-1-5"), SeenDatabase(True, "0-1-7")
    assert living_position(Data(databases={"db-1": replica, "idx-1": primary})) == "0-1-7"
    assert living_position(Data(databases={"db-1": replica})) == ""


def test_a_notes_name_fits_a_file_system_whatever_the_number_of_timelines() -> None:
    many = ",".join(f"{n * 1000 + 417}-181403965-{n}" for n in range(500))
    name = note_name(DB1, many)
    assert len(name) < 255
    kept = DB1.inspected(name)
    assert kept is not None and kept.endswith(",499417-181403965-499") and len(kept) <= LONGEST
    assert DB1.inspected(note_name(DB1, "")) == ""
    assert read_note("no note") is None


def test_values_are_read_as_they_are_printed() -> None:
    printed = ["NULL", "'a'", "''", "'it's \\x0a two'", "-1 (4294967295)", "1.50", "b'0'"]
    assert [read_value(text) for text in printed] == [None, "a", "", "it's \n two", "-1", "1.50", "b'0'"]


def test_a_transaction_that_was_received_again_counts_once() -> None:
    reader = TransactionReader()
    event = "#261128  1:26:45 server id 1  end_log_pos 651 CRC32 0x0b285c21 \t"
    lines = ["# relay", f"{event}GTID 0-1-2 trans", "START TRANSACTION", "### INSERT INTO `s`.`t`"]
    lines += [f"{event}Start: binlog v 4", *lines[1:], f"{event}Xid = 1"]
    done = [t for line in lines if (t := reader.feed(line))]
    assert [(t.gtid, t.tables) for t in done] == [("0-1-2", {"s.t": 1})]


# -- the step, on a real disk beside a real primary


@dataclass
class Local:
    """This machine as the host h1 whose pool is `pool`; `living` is db-1's MariaDB of today."""

    pool: Path
    site: Site
    living: Mariadb | None = None
    ran: list[list[str]] = field(default_factory=list)

    def host(self, name: str) -> Any:
        return self.site.host(name).model_copy(update={"pool": str(self.pool)})

    def shell(self, name: str) -> Local:
        return self

    server_shell = hypervisor = shell

    def volumes(self, pool: str) -> tuple[str, ...]:
        return tuple(sorted(f.name for f in Path(pool).iterdir()))

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,
        stdin: bytes | BinaryIO | None = None,
        check: bool = True,
        stdout: Callable[[bytes], None] | None = None,
        **_: Any,
    ) -> Said:
        words = list(argv)
        self.ran.append(words)
        if words[0] == PRIMARY:
            return Said(0, "primary\n" if self.living else "replica\n", "")
        if words[0] == "mariadb":
            assert self.living is not None
            words = ["mariadb", "--no-defaults", "-S", self.living.socket, "--batch", "--skip-column-names"]
        assert stdin is None or isinstance(stdin, bytes)
        done = subprocess.run(words, input=stdin or b"", capture_output=True, timeout=deadline_s)
        if check and done.returncode != 0:
            raise CommandFailed(done.stderr.decode(), where="h1")
        if stdout is not None:
            for start in range(0, len(done.stdout), 777):
                stdout(done.stdout[start : start + 777])
        return Said(done.returncode, "" if stdout is not None else done.stdout.decode(), done.stderr.decode())

    def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        Path(path).write_bytes(data)
        Path(path).chmod(mode)


@pytest.fixture(scope="module")
def world(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """h1 has db-1's generation 1 with two orders that the living primary has not; another branch of the data."""
    home = tmp_path_factory.mktemp("home")
    pool = home / "pool"
    pool.mkdir()
    with mariadb(data, home / "old", 1) as old:
        old.sql(TABLE, *(order(who) for who in ("both", "Ann Lost", "Bob Lost")))
        old.kill()
    as_disk(file_system(home / "old", home / "raw"), pool / DB1.disk)
    site = load_site(defaults_dir("inventory") / "demo.yaml")
    with mariadb(data, home / "new", 2) as new:
        new.sql("SET GLOBAL server_id = 1", TABLE, order("both"))
        new.sql("SET GLOBAL server_id = 2", "SET GLOBAL gtid_slave_pos = '0-1-3'")  # as one that was promoted
        new.sql("SET GLOBAL gtid_domain_id = 1417", order("new"))
        yield Local(pool, site, new)


@pytest.fixture
def fresh(world: Local) -> Local:
    for note in world.pool.glob("*.note"):
        note.unlink()
    world.ran.clear()
    return world


def test_an_inspection_leaves_a_note_and_says_what_is_missing(fresh: Local) -> None:
    world = cast(Any, fresh)
    step = Inspect("h1", DB1, CARRIERS)
    assert isinstance(step.check(world), Unmet)
    facts = step.do(world, Quiet())
    assert (facts["holds"], facts["missing"]) == ("0-1-5", 2)
    assert facts["found"].startswith("db-1's copy of generation 1 on h1 holds 2 transactions that the shop's data have")
    assert facts["found"].endswith("Z: pcloud salvage demo")
    assert "position" not in facts, "that would be taken for the living primary's"
    note = fresh.pool / "demo.db-1.g1.at-0-1-5.note"
    assert note.stat().st_mode & 0o777 == 0o600
    reading = read_note(read_notes(world, "h1", [note.name])[note.name])
    assert reading is not None
    assert (reading.position, reading.held, reading.missing) == ("0-1-5", "0-1-3,1417-2-1", 2)
    assert step.check(world) == Met()
    assert b"Lost" not in note.read_bytes() + json.dumps(dict(facts)).encode()


def test_what_keeps_it_from_reading_is_told_and_fails_nothing(fresh: Local, tmp_path: Path) -> None:
    (tmp_path / DB1.disk).write_bytes(b"no disk")
    for living, why in ((fresh.living, "cannot be read"), (None, "no primary")):
        facts = Inspect("h1", DB1, CARRIERS).do(cast(Any, Local(tmp_path, fresh.site, living)), Quiet())
        assert why in facts["unread"] and facts["next"]
        assert not list(tmp_path.glob("*.note"))


def test_a_damaged_log_leaves_no_note_that_says_how_far_it_goes(fresh: Local, tmp_path: Path) -> None:
    """What cannot be read may be what nobody else has: such a copy is never taken for one that holds nothing."""
    data = tmp_path / "data"
    shutil.copytree(fresh.pool.parent / "old", data, ignore=shutil.ignore_patterns("s.sock"))
    (data / "binlog.000002").write_bytes(bytes(5000))
    as_disk(file_system(data, tmp_path / "raw"), tmp_path / DB1.disk)
    facts = Inspect("h1", DB1, CARRIERS).do(cast(Any, Local(tmp_path, fresh.site, fresh.living)), Quiet())
    assert "binlog.000002: it is no binary log" in facts["unread"]
    assert "at least 2 transactions" in facts["found"]
    assert not list(tmp_path.glob("*.note"))


def read_all(world: Local, folder: Path | None = None) -> Any:
    session = cast(Session, _Session(world.site, world))
    copy = DeadCopy("h1", "db-1", 1, DB1.disk)
    return _read_all(session, [copy], folder)[0]


@dataclass
class _Session:
    site: Site
    world: Local


def test_salvage_lists_what_is_missing_and_keeps_the_rows_to_itself(fresh: Local) -> None:
    done = read_all(fresh)
    assert (done.problem, done.missing, done.position) == ("", 2, "0-1-5")
    rows = {"shop.orders": 1}
    assert [(t.gtid, dict(t.tables)) for t in done.transactions] == [("0-1-4", rows), ("0-1-5", rows)]
    assert "Lost" not in json.dumps(done.as_json())
    assert (fresh.pool / "demo.db-1.g1.at-0-1-5.note").exists()
    assert not any("INSERT" in word for words in fresh.ran for word in words[:5])


def test_salvage_writes_the_rows_for_a_person(fresh: Local, tmp_path: Path) -> None:
    done = read_all(fresh, tmp_path / "lost")
    sql, table = done.files
    assert [sql.name, table.name] == ["db-1.g1.h1.sql", "db-1.g1.h1.shop.orders.csv"]
    lines = table.read_text().splitlines()
    assert lines[0] == "gtid,committed,row,id,who,price,paid"
    assert [line.split(",")[3:5] for line in lines[1:]] == [["2", "Ann Lost"], ["3", "Bob Lost"]]
    assert "### INSERT INTO `shop`.`orders`" in sql.read_text()
    assert "Lost" not in json.dumps(done.as_json())


def test_a_disk_that_cannot_be_read_leaves_no_file(fresh: Local, tmp_path: Path) -> None:
    (tmp_path / DB1.disk).write_bytes(b"no disk")
    done = read_all(Local(tmp_path, fresh.site, fresh.living), tmp_path / "lost")
    assert "cannot be read" in done.problem and done.next
    assert list((tmp_path / "lost").iterdir()) == []


# -- in a recovery


def test_a_dead_copy_is_read_after_the_walk_and_once(tmp_path: Path) -> None:
    """The replica was deaf, orders went on, its primary's host died; then that host comes back."""
    image = tmp_path / "disk.qcow2"
    image.write_bytes(b"an image's bytes")
    world, time = new_world(image, whole=True)
    operator = Operator(world, Shoppers(world), time)
    desired: Desired = make_desired(world.site, load_playbook(defaults_dir("playbooks") / "recover.yaml"), image)
    for data in world.carried():
        data.orders, data.position = ((1, 2, 3), 12) if data.primary else ((1,), 10)
        data.relayed, data.received = data.orders, data.position
    world.cut("h1")
    operator.command("recover --accept-loss unknown")
    world.hosts["h1"].powered, world.hosts["h1"].away = True, False
    made = plan(desired, world.observe(), DATE)
    node = next(n for n in made.nodes if n.key == "h1/db-1/inspect")
    assert "journey" in node.info.needs
    assert [n.info.action for n in made.changes] == ["put away"], "looking changes nothing"
    operator.command("recover")
    assert operator.outcome == "converged"
    facts = operator.states[-1].steps["h1/db-1/inspect"].facts
    assert facts["missing"] == 2
    told_of = report_of(operator.states[-1]).findings
    assert told_of == (
        "db-1's copy of generation 1 on h1 holds 2 transactions that the shop's data have not: pcloud salvage demo",
    )
    assert "h1/db-1/inspect" not in {n.key for n in plan(desired, world.observe(), DATE).nodes}
