"""What is compared of two copies, what a proof says, when it is made, and how it is shown: decisions and words."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from pcloud.backupplan import plan_backup, plan_prove
from pcloud.backups import choose, read_shelf, without
from pcloud.errors import Blocked
from pcloud.kept import Proof, Shelf, Target
from pcloud.likeness import ask_definitions, ask_rows, differences, position_of, read_likeness, unstable
from pcloud.proofs import estimate_s, last_proof, read_proof
from pcloud.render.backups import COLUMNS, backup_rows, proof_line
from pcloud.render.words import Whole, aged, moment
from pcloud.rpo import backup_alarms
from pcloud.steps.keeping import Thin
from pcloud.steps.proving import Compare
from tests.consoles import shown_whole
from tests.simulation import SimWorld
from tests.test_backupplan import ONE, backup, gtid, stretch, whole  # noqa: F401 (fixtures)
from tests.test_keeping import keeping

# ruff: noqa: F811 (the fixtures' names)

PROOF = Proof(ONE.backups[0].id, gtid(12), "2026-11-26T01:30:00Z", "idx-1", 78, 1234, 20)
WRONG = replace(PROOF, at="2026-11-26T01:40:00Z", wrong=("table shop.orders has other rows",))
NOW = datetime(2026, 11, 26, 3, 40, tzinfo=UTC)


def test_what_a_host_keeps_of_a_proof_is_read_and_nonsense_is_left_out() -> None:
    for proof in (PROOF, WRONG):
        assert read_shelf("h2", f"proof {json.dumps(asdict(proof))}").proofs == (proof,)
    good = asdict(PROOF)
    for text in ("", "{", "[]", "7", json.dumps({**good, "rows": "x"}), json.dumps({**good, "position": "far"})):
        assert read_proof(text) is None
    assert last_proof([]) is None
    further = replace(PROOF, id="2", position=gtid(13), at="2020-01-01T00:00:00Z")
    assert last_proof([Shelf("a", proofs=(PROOF, WRONG)), Shelf("b", proofs=(further,))]) == further, "by position"
    assert last_proof([Shelf("a", proofs=(WRONG, PROOF))]) == WRONG, "of one position the last word counts"


def test_each_backup_is_compared_before_older_ones_go(whole: SimWorld) -> None:
    seen = keeping(whole, *(Shelf(h) for h in whole.hosts))
    made = {n.key: n for n in plan_backup(whole.desired, seen, "20261126-010000").nodes}
    step = made["compare"].step
    assert isinstance(step, Compare) and (step.server, step.within_s) == ("idx-1", 60)
    assert made["compare"].info.needs == ("reach",)
    assert all(n.info.needs == ("compare", "reach") for n in made.values() if isinstance(n.step, Thin))
    taken = plan_prove(whole.desired, keeping(whole, ONE))
    assert [n.key for n in taken.nodes] == ["h2/stream", "compare"]
    assert taken.nodes[-1].step == replace(step, hosts=("h2",), within_s=0)


def test_where_nothing_follows_or_nothing_is_kept_nothing_is_said_to_be_proven(whole: SimWorld) -> None:
    with pytest.raises(Blocked, match="no host that answers keeps a backup"):
        plan_prove(whole.desired, keeping(whole, Shelf("h2")))
    seen = keeping(whole, ONE)
    alone = {n: d for n, d in seen.data.databases.items() if d.writable}
    seen = replace(seen, data=replace(seen.data, databases=alone))
    with pytest.raises(Blocked, match="no replica follows the primary") as caught:
        plan_prove(whole.desired, seen)
    assert caught.value.next.startswith("pcloud recover demo")
    made = {n.key: n for n in plan_backup(whole.desired, seen, "20261126-010000").nodes}
    assert "compare" not in made
    assert "no replica follows that it could be compared with" in made["db-1/backup"].info.reason
    assert all(n.info.needs == ("reach",) for n in made.values() if isinstance(n.step, Thin))


def test_how_long_a_proof_takes_is_what_the_last_one_took() -> None:
    small, large = replace(ONE.backups[0], size=1_000_000), replace(backup(20, 90), size=4_000_000)
    assert estimate_s(large, []) == pytest.approx(18)
    assert estimate_s(replace(large, size=400_000_000), []) > 60
    shelves = [Shelf("h2", (small, large), proofs=(replace(PROOF, id=small.id),))]
    assert estimate_s(large, shelves) == pytest.approx(80)
    assert estimate_s(small, shelves) == pytest.approx(20)


def test_a_difference_is_an_alarm_until_it_is_proven_anew(whole: SimWorld) -> None:
    def alarms(*proofs: Proof) -> str:
        return " ".join(backup_alarms(whole.desired, keeping(whole, replace(ONE, proofs=proofs))))

    assert "table shop.orders has other rows" in alarms(PROOF, WRONG)
    assert "shop.orders" not in alarms(WRONG, replace(PROOF, at="2026-11-26T02:00:00Z"))


def lines(*rows: tuple[str, ...]) -> str:
    return "\n".join("\t".join(r) for r in rows)


def test_what_is_compared() -> None:
    text = lines(
        ("#", "table", "`s`.`a\\\\b`", "InnoDB"),
        ("#", "definition", "`s`.`a\\\\b`"),
        ("a\\\\b", "CREATE TABLE `a\\\\b` (id INT) ENGINE=InnoDB AUTO_INCREMENT=7 COMMENT='#'"),
        ("#", "rows", "`s`.`a\\\\b`", "3"),
        ("#", "checksum", "`s`.`a\\\\b`"),
        ("s.a\\\\b", "123"),
        ("#", "account", "anna@%", "aa"),
    )
    one = read_likeness(text)
    assert (dict(one.tables), one.rows) == ({"`s`.`a\\b`": "InnoDB"}, 3)
    assert differences(one, read_likeness(text.replace("AUTO_INCREMENT=7", "AUTO_INCREMENT=9"))) == ()
    assert differences(one, read_likeness(text.replace("\t3", "\t4"))) == (
        "table s.a\\b has 4 rows in it, and 3 on the server",
    )
    assert differences(one, read_likeness(text.replace("123", "124"))) == ("table s.a\\b has other rows",)
    assert differences(one, read_likeness(text.replace("id INT", "id BIGINT"))) == (
        "table s.a\\b is defined otherwise",
    )
    assert differences(one, read_likeness(text.replace("\taa", "\tbb"))) == ("account anna@% is another one",)
    unread = read_likeness(text.replace("123", "NULL"))
    assert differences(unread, unread) == ("table s.a\\b has other rows",), "what nobody could read is like nothing"
    assert unstable(one, read_likeness(text.replace("id INT", "id BIGINT"))) == ("s.a\\b",)
    assert unstable(one, one) == ()
    assert "`s`.`a\\b`" in ask_rows(one.tables) and "'`s`.`a\\\\b`'" in ask_definitions(one.tables)


@pytest.mark.parametrize(
    ("before", "logged", "at"),
    [
        ("0-1-5", "0-1-7", "0-1-7"),
        ("0-1-5,1417-2-3", "1417-2-4", "0-1-5,1417-2-4"),
        ("0-1-5", "NULL", "0-1-5"),
        ("NULL", "", ""),
        ("0-1-9", "0-1-7,1417-2-1", "0-1-7,1417-2-1"),
    ],
)
def test_a_snapshots_position_is_what_its_server_had_logged_and_followed(before: str, logged: str, at: str) -> None:
    text = lines(("#", "position", "before", before), ("#", "position", "logged", logged))
    assert position_of(read_likeness(text)) == at


def test_in_place_of_a_session_that_rotted_another_hosts_is_taken_and_leads_to_the_same_data() -> None:
    log, longer = stretch(5, 30, 90), stretch(5, 40, 95)
    two = [ONE, replace(ONE, host="h7", stretches=(replace(longer, session="other"),))]
    choice = choose([ONE])
    assert choice is not None
    [leg] = choice.legs
    another = without(choice, two, {("h2", log.line, log.session)})
    assert another is not None and another.end == choice.end
    assert [one.host for one in another.legs] == ["h7"]
    assert without(choice, two, {("h2", log.line, log.session), ("h7", log.line, "other")}) is None
    assert without(choice, [replace(ONE, host="h3", stretches=(stretch(5, 20, 80),))], ()) is None, "none stops short"
    assert leg.host == "h2" and without(choice, [ONE], ()) == replace(
        another, legs=choice.legs, hosts=("h2",), keepers=("h2",)
    )


def test_in_place_of_one_that_rotted_before_a_time_another_is_read_to_that_time() -> None:
    log = stretch(5, 30, 90)
    two = [ONE, replace(ONE, host="h7", stretches=(replace(log, session="other"),))]
    choice = choose(two, Target(time="2026-11-26T01:20:00Z"))
    assert choice is not None and choice.stops_by_time
    [leg] = choice.legs
    another = without(choice, two, {(leg.host, log.line, leg.stretch.session)})
    assert another is not None and another.stops_by_time and another.target == choice.target
    assert [one.host for one in another.legs] == [h for h in ("h2", "h7") if h != leg.host]


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), st.integers(-(10**9), 10**9))
def test_a_time_is_short_and_whole(at: datetime, later_s: int) -> None:
    now = at.replace(tzinfo=UTC) + timedelta(seconds=later_s)
    text = aged(at.strftime("%Y-%m-%dT%H:%M:%SZ"), now)
    when, _, age = text.partition(", ")
    assert when == moment(at, now) and when.endswith(" Z") and len(when) <= 19
    assert str(at.day) in when and at.strftime("%H:%M") in when
    assert age.endswith(" ago") or age.startswith("in ")


def test_times_in_words() -> None:
    assert aged("2026-11-26T03:39:30Z", NOW) == "Nov 26 03:39 Z, 30 s ago"
    assert aged("2026-11-25T22:31:09Z", NOW) == "Nov 25 22:31 Z, 5 h ago"
    assert aged("2026-11-20T22:31:09+02:00", NOW) == "Nov 20 20:31 Z, 5 d ago"
    assert aged("2024-02-29T22:31:09Z", NOW) == "Feb 29 2024 22:31 Z, 1000 d ago".replace("1000", str(1000))
    assert aged("2026-11-26T03:44:00Z", NOW) == "Nov 26 03:44 Z, in 4 min"
    assert (aged("", NOW), aged("soon", NOW)) == ("-", "soon")


def test_a_list_of_backups_is_whole_in_a_pipe() -> None:
    shelves = [replace(ONE, proofs=(PROOF,), damaged=("20261125-010000",)), Shelf("h7")]
    table = Table(*COLUMNS, box=None)
    for row in backup_rows(shelves, NOW):
        table.add_row(*row)
    first, second, third = shown_whole(Whole(table)).splitlines()[1:]
    assert f"alike at {PROOF.position} (Nov 26 01:30 Z, 2 h ago)" in first
    assert f"{gtid(30)} (Nov 26 01:30 Z, 2 h ago)" in first
    assert "damaged" in second and third.split() == ["h7", "none", "none"]
    assert "…" not in first
    assert proof_line(shelves, "demo", NOW).endswith("78 tables, 1234 rows (Nov 26 01:30 Z, 2 h ago).")
    assert "differed from idx-1" in proof_line([replace(ONE, proofs=(WRONG,))], "demo", NOW)
    assert proof_line([ONE], "demo", NOW).endswith("pcloud backup demo --prove")
    assert proof_line([Shelf("h7")], "demo", NOW) == ""
