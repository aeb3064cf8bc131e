"""What is restored, from where, and what that gives up: decisions, from what hosts keep."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pcloud.backupplan import plan_backup, question_of
from pcloud.backups import (
    choose,
    continuation,
    expired,
    keepers,
    loss,
    missed,
    needless,
    order,
    read_shelf,
    tell_hole,
)
from pcloud.cli import make_app
from pcloud.cli.backup import read_target
from pcloud.desired import Options
from pcloud.errors import BadInput, Blocked
from pcloud.events import RunState, Status
from pcloud.execute import execute
from pcloud.gtid import behind
from pcloud.kept import LATEST, Backup, Run, Shelf, Stretch, Target
from pcloud.plan import plan
from pcloud.steps.backup import Keep, Take
from pcloud.steps.database import Restore
from pcloud.steps.restoring import NoBackup, RestoreBackup
from tests.plan_cases import DATE, arrange_sighting
from tests.simulation import SimWorld, marks_of, with_options
from tests.test_plan import Memory, is_whole, run_all


def at(minute: int) -> str:
    return f"2026-11-26T{minute // 60:02d}:{minute % 60:02d}:00Z"


def gtid(number: int) -> str:
    return f"0-1-{number}" if number else ""


def backup(number: int, minute: int, line: str = "t") -> Backup:
    stamp = f"20261126-{minute // 60:02d}{minute % 60:02d}00"
    return Backup(stamp, line, gtid(number), at(minute), 9, "ab", "idx-1", "10.11", 60, 900, at(minute))


def stretch(start: int, end: int, minute: int, line: str = "t", session: int | None = None) -> Stretch:
    """One that ended at `minute`, begun (as a session) a minute before."""
    begun = minute - 1 if session is None else session
    run = Run(gtid(start + 1), gtid(end), at(max(0, minute - 1)), at(minute), gtid(start))
    return Stretch(line, f"20261126-{begun // 60:02d}{begun % 60:02d}30", gtid(start), (run,))


ONE = Shelf("h2", (backup(10, 60),), (stretch(5, 30, 90),), True)
"""A backup at 1:00 with ten transactions, and the binary log until 1:30 with thirty."""
CUT = Shelf("h7", (backup(10, 60),), (stretch(5, 20, 80), stretch(25, 40, 100)), True)
"""The same backup, and a hole in its binary log between 20 and 25."""

CHOICES = [
    ("all there is", [ONE], LATEST, "h2", gtid(30), 1),
    ("the copy of the one fills the hole of the other", [ONE, CUT], LATEST, "h2", gtid(40), 2),
    ("never over a hole", [CUT], LATEST, "h7", gtid(20), 1),
    ("a transaction within the binary log", [ONE], Target(gtid=gtid(15)), "h2", gtid(15), 1),
    ("the backup itself", [ONE], Target(gtid=gtid(10)), "h2", gtid(10), 0),
    ("a transaction beyond the hole", [CUT], Target(gtid=gtid(28)), None, "", 0),
    ("a transaction that nobody has", [ONE, CUT], Target(gtid=gtid(41)), None, "", 0),
    ("a transaction before the first backup", [ONE], Target(gtid=gtid(9)), None, "", 0),
    ("a time", [ONE], Target(time=at(70)), "h2", gtid(30), 1),
    ("the very second of the backup", [ONE], Target(time=at(60)), "h2", gtid(30), 1),
    ("a time before the first backup", [ONE], Target(time=at(59)), None, "", 0),
    ("the only whole copy", [replace(ONE, backups=(), damaged=("1",)), CUT], LATEST, "h7", gtid(40), 2),
    ("only other data's binary log", [replace(ONE, stretches=(stretch(5, 50, 95, "u"),))], LATEST, "h2", gtid(10), 0),
    ("no backup, only its binary log", [replace(ONE, backups=())], LATEST, None, "", 0),
    ("nothing", [], LATEST, None, "", 0),
]


@pytest.mark.parametrize(("name", "shelves", "target", "host", "end", "legs"), CHOICES, ids=[c[0] for c in CHOICES])
def test_what_is_restored(
    name: str, shelves: list[Shelf], target: Target, host: str | None, end: str, legs: int
) -> None:
    found = choose(shelves, target)
    if host is None or found is None:
        assert (found, host) == (None, None), name
        return
    assert (found.hosts[0], found.end, len(found.legs)) == (host, end, legs)


def test_of_two_lines_of_data_no_clock_says_which_one_goes_on() -> None:
    """Data from before timelines: the laptop that took the first backup had a clock a day ahead."""
    one = replace(backup(50, 60), taken="2026-11-27T03:00:00Z", tested="2026-11-28T03:00:20Z")
    two = backup(70, 100, "u")
    for first, second in ((one, two), (replace(one, taken=at(1)), replace(two, taken=at(2)))):
        found = choose([Shelf("h7", (first, second), (stretch(49, 52, 80), stretch(69, 90, 110, "u")))])
        assert found is not None
        assert (found.backup.line, found.end, found.newer) == ("u", gtid(90), "")


def test_data_that_no_backup_stands_under_are_named() -> None:
    """After a restore, before the next backup: what was ordered since is in a binary log that continues nothing."""
    found = choose([replace(ONE, stretches=(*ONE.stretches, stretch(15, 22, 120, "u")))])
    assert found is not None
    assert found.end == gtid(30)
    assert f"until {at(120)}, has no backup" in loss(found, gtid(30))


def test_a_hole_is_named_in_what_a_restore_gives_up() -> None:
    found = choose([CUT])
    assert found is not None
    assert "5 transactions are kept by no host that answers: 0-1-21 to 0-1-25" in loss(found, gtid(40))
    assert f"written after {at(80)} and before {at(99)}" in tell_hole(found.holes[0])


def test_what_a_header_claims_is_not_what_is_there() -> None:
    """A server made anew: its binary log begins with an empty list, and with transaction 31."""
    young = replace(stretch(30, 45, 110), start="")
    found = choose([replace(ONE, stretches=(stretch(5, 20, 80), young))])
    assert found is not None
    assert (found.end, [(h.first, h.last) for h in found.holes]) == (gtid(20), [(21, 30)])


LOSSES = [
    (LATEST, gtid(30), "nothing known is lost"),
    (LATEST, gtid(33), "3 transactions are lost, up to 0-1-33, and all that came after those"),
    (LATEST, "", f"no later position is known: orders after {at(90)} may be lost"),
    (Target(gtid=gtid(12)), gtid(30), "the 18 transactions after it, up to 0-1-30, are given up"),
    (Target(time=at(70)), gtid(30), f"what came at or after {at(70)} is given up"),
    (Target(time=at(99)), gtid(33), "3 transactions are lost, up to 0-1-33, and all that came after those"),
]


@pytest.mark.parametrize(("target", "known", "words"), LOSSES)
def test_what_is_lost_is_said(target: Target, known: str, words: str) -> None:
    found = choose([ONE], target)
    assert found is not None
    assert words in loss(found, known)


numbers = st.integers(0, 12)
stretches = st.lists(
    st.builds(
        lambda start, more, minute, line, session: stretch(start, start + more, minute, line, session),
        numbers,
        st.integers(1, 6),
        numbers,
        st.sampled_from("tu"),
        numbers,
    ),
    max_size=8,
)
shelves = st.lists(
    st.builds(
        lambda name, backups, kept: Shelf(f"h{name}", tuple(backups), tuple(kept)),
        st.integers(1, 3),
        st.lists(st.builds(backup, numbers, numbers, st.sampled_from("tu")), max_size=3, unique_by=lambda b: b.taken),
        stretches,
    ),
    max_size=3,
    unique_by=lambda s: s.host,
)
targets = st.one_of(
    st.just(LATEST),
    st.builds(lambda n: Target(gtid=gtid(n)), st.integers(1, 20)),
    st.builds(lambda n: Target(time=at(n)), numbers),
)


@given(shelves, targets)
def test_no_transaction_is_skipped_and_none_of_other_data_is_applied(kept: list[Shelf], target: Target) -> None:
    found = choose(kept, target)
    if found is None:
        return
    reached = found.backup.position
    for leg in found.legs:
        assert leg.stretch.line == found.backup.line
        assert leg.stretch in next(s for s in kept if s.host == leg.host).stretches
        assert behind(reached, leg.stretch.start) == 0, "nothing is missing between"
        assert behind(reached, leg.reaches) > 0, "each leads further"
        assert behind(leg.stretch.end, leg.reaches) == 0
        reached = leg.reaches
    if target.gtid:
        assert behind(target.gtid, found.backup.position) == 0
        assert behind(found.end, target.gtid) == 0
    if target.time:
        assert found.backup.taken <= target.time


@given(shelves, targets, shelves)
def test_what_more_is_kept_never_takes_a_restore_away(kept: list[Shelf], target: Target, more: list[Shelf]) -> None:
    if choose(kept, target) is not None:
        assert choose([*kept, *more], target) is not None


@given(st.lists(st.builds(backup, numbers, numbers), unique_by=lambda b: b.id), st.integers(1, 4))
def test_the_latest_backups_stay_and_the_one_just_made(backups: list[Backup], keep: int) -> None:
    just = backups[0].id if backups else ""
    gone = expired(backups, keep, just)
    staying = [b for b in backups if b.id not in gone]
    assert min(keep, len(backups)) <= len(staying) <= keep + 1
    assert not backups or just in {b.id for b in staying}
    assert all(order(b) > max(order(g) for g in backups if g.id in gone) for b in staying if gone and b.id != just)


@given(st.lists(st.builds(backup, numbers, numbers), unique_by=lambda b: b.id), st.integers(1, 4), stretches)
def test_what_is_thinned_takes_no_restore_away(backups: list[Backup], keep: int, kept: list[Stretch]) -> None:
    gone = expired(backups, keep)
    staying = tuple(b for b in backups if b.id not in gone)
    limits = {(line, domain): number for line, domain, number in needless(staying, kept)}
    left = [t for t in kept if any(r.numbers[1] > limits.get((t.line, r.domain), 0) for r in t.runs)]
    for backup in staying:
        before, after = (choose([Shelf("h1", staying, tuple(s))], only=backup.id) for s in (kept, left))
        assert before is not None and after is not None and before.end == after.end


def test_a_keeper_is_given_what_it_lacks_and_no_more() -> None:
    assert missed(CUT, ONE) == ONE.stretches
    assert missed(ONE, CUT) == (CUT.stretches[1],)
    assert missed(replace(ONE, stretches=(*ONE.stretches, *CUT.stretches)), CUT) == ()


KEEPERS = [
    ("who carries no data comes first", [("h1", "a"), ("h2", "b"), ("h3", "c")], {"h1"}, set(), ["h2", "h3"]),
    ("two racks", [("h1", "a"), ("h2", "a"), ("h3", "b")], set(), set(), ["h1", "h3"]),
    ("who keeps goes on", [("h1", "a"), ("h2", "b"), ("h3", "c")], set(), {"h2", "h3"}, ["h2", "h3"]),
    ("a host with the data rather than one copy alone", [("h1", "a"), ("h2", "b")], {"h1"}, set(), ["h2", "h1"]),
    ("only one", [("h1", "a")], set(), set(), ["h1"]),
]


@pytest.mark.parametrize(("name", "hosts", "carrying", "keeping", "chosen"), KEEPERS, ids=[k[0] for k in KEEPERS])
def test_who_keeps(
    name: str, hosts: list[tuple[str, str]], carrying: set[str], keeping: set[str], chosen: list[str]
) -> None:
    assert keepers(hosts, carrying, keeping, 2) == chosen, name


def said(made: Backup, size: int | str = 9) -> str:
    return f"backup {size} {json.dumps(asdict(made))}"


def test_what_a_host_says_is_read_and_nonsense_is_left_out() -> None:
    good = backup(10, 60)
    lines = [
        "stream t s",
        said(good),
        said(backup(11, 61), 8),
        "backup 9 {",
        "backup 9 []",
        "backup",
        "",
        "what is this",
    ]
    lines += ["run - 0-1-1 0-1-1 a b", "stretch t s -", "run - 0-1-1 0-1-3 a b", "run 0-1-3 0-1-4 0-1-5 c d"]
    lines += [
        "run 0-1-6 0-1-7 0-1-7 e f",
        "stretch t s",
        "stretch t s x",
        "run - 0-1-9 0-2-8 a b",
        "run - x y a b",
        "run",
    ]
    lines += [said(replace(good, position="no"))]
    shelf = read_shelf("h2", "\n".join(lines))
    assert shelf.backups == (good,)
    assert shelf.streaming
    run = Run("0-1-1", "0-1-5", "a", "d", "")
    assert shelf.stretches == (Stretch("t", "s", "", (run, Run("0-1-7", "0-1-7", "e", "f", "0-1-6"))),)
    assert (shelf.streaming, shelf.session) == (True, "s")
    assert backup(11, 61).id in shelf.damaged


@given(st.text())
def test_whatever_a_host_says_it_keeps_no_backup_by_chance(text: str) -> None:
    assert read_shelf("h2", text).backups == ()


TARGETS = [
    ("2026-11-26 06:50", Target(time="2026-11-26T06:50:00Z")),
    ("2026-11-26T06:50:09+02:00", Target(time="2026-11-26T04:50:09Z")),
    ("2026-11-26", Target(time="2026-11-26T00:00:00Z")),
    ("0-172818493-1200", Target(gtid="0-172818493-1200")),
    ("0-1-2,1-1-3", Target(gtid="0-1-2,1-1-3")),
    (None, LATEST),
]


@pytest.mark.parametrize(("text", "target"), TARGETS)
def test_a_time_or_a_position(text: str | None, target: Target) -> None:
    assert read_target(text) == target


@pytest.mark.parametrize(
    "text",
    ["nonsense", "", "yesterday", "2026-13-01", "0-1", "0-1-2;x", "2026-11-26 25:00", "-1", "0001-01-01T00:00+14:00"],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="neither a time nor a position"):
        read_target(text)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--close", "--beside"), "--close goes with nothing else"),
        (("--to", "nonsense", "--yes"), "neither a time nor a position"),
    ],
)
def test_bad_input_touches_nothing(argv: tuple[str, ...], words: str) -> None:
    ran = CliRunner().invoke(make_app(), ["restore", "demo", *argv])
    assert ran.exit_code == 2 or isinstance(ran.exception, BadInput), ran.output
    assert words in str(ran.exception) + ran.output


# -- the plans


@pytest.fixture
def whole(world: SimWorld) -> SimWorld:
    """db-1 on h1, idx-1 on h4, the frontends on h2, h5, h7 and h3, lb-1 on h6; h8 is spare."""
    run_all(world)
    assert is_whole(world)
    world.clock.sleep(600)
    arrange_sighting(world)
    return world


@pytest.fixture
def bare(whole: SimWorld) -> SimWorld:
    """Both hosts of the database lost for good, and a person has said so."""
    for server in ("db-1", "idx-1"):
        [host] = marks_of(whole)[server]
        whole.cut(host)
    whole.shelves = (ONE, CUT)
    whole.desired = with_options(whole.desired, accept_loss="unknown")
    return whole


def steps(world: SimWorld, **options: object) -> dict[str, object]:
    desired = with_options(world.desired, **options) if options else world.desired
    return {n.key: n.step for n in plan(desired, world.observe(), DATE).nodes}


def test_the_backup_goes_before_the_dump_and_both_get_the_same_line(bare: SimWorld) -> None:
    made = plan(bare.desired, bare.observe(), DATE)
    restores = {n.key: n for n in made.nodes if isinstance(n.step, RestoreBackup)}
    assert set(restores) == {"db-1/restore", "idx-1/restore"}
    assert len({n.step.token for n in restores.values() if isinstance(n.step, RestoreBackup)}) == 1
    assert all("lost" in n.info.reason and at(100) in n.info.reason for n in restores.values())


def test_servers_that_answer_and_hold_nothing_get_the_backup_too(whole: SimWorld) -> None:
    """What a recovery leaves that failed while it restored."""
    whole.shelves = (ONE,)
    for server in ("db-1", "idx-1"):
        found = whole.find_data(server)
        assert found is not None
        found.state, found.token, found.position, found.primary = "", "", 0, False
    assert set(whole.observe().data.databases) == {"db-1", "idx-1"}
    assert isinstance(steps(whole)["db-1/restore"], RestoreBackup)


def test_from_scratch_means_the_dump(bare: SimWorld) -> None:
    found = steps(bare, from_scratch=True)
    assert [type(found["db-1/restore"])] == [Restore]


def test_a_site_that_never_made_a_backup_gets_the_dump(bare: SimWorld) -> None:
    bare.shelves = ()
    assert isinstance(steps(bare)["db-1/restore"], Restore)


def test_nothing_older_is_restored_while_the_backups_are_on_hosts_that_are_silent(bare: SimWorld) -> None:
    bare.shelves, bare.keeping = (), ("h2",)
    bare.hosts["h2"].away = True
    assert isinstance(steps(bare)["db-1/restore"], NoBackup)
    state: RunState = execute(plan(bare.desired, bare.observe(), DATE), bare, Memory(), Memory(), "run", bare.clock)
    assert state.finished is not None and state.finished.outcome == "blocked"
    assert state.steps["db-1/restore"].status is Status.BLOCKED
    assert not any(d.state == "restored" for d in (bare.find_data(s) for s in bare.carriers()) if d is not None)


def test_a_restore_makes_the_carriers_anew_and_nobody_else(whole: SimWorld) -> None:
    observed = whole.observe()
    observed = replace(observed, data=replace(observed.data, shelves=(ONE,)))
    desired = replace(whole.desired, options=Options(kept=True, until=Target(gtid=gtid(12))))
    made = plan(desired, observed, DATE)
    assert {n.info.server for n in made.changes if n.info.action == "retire"} == {"db-1", "idx-1"}
    question = question_of(desired, observed, Target(gtid=gtid(12)))
    assert f"the binary log up to {gtid(12)}" in question
    assert "nobody can order meanwhile" in question
    without = replace(desired, options=replace(desired.options, without=("h2",)))
    with pytest.raises(Blocked, match="no backup that is kept reaches"):
        question_of(without, observed, Target(gtid=gtid(12)))


def test_a_backup_is_of_the_replica_and_kept_apart_from_the_data(whole: SimWorld) -> None:
    observed = whole.observe()
    observed = replace(observed, data=replace(observed.data, shelves=tuple(Shelf(h.name) for h in observed.hosts)))
    made = plan_backup(whole.desired, observed, "20261126-010000")
    takes = [n.step.server for n in made.nodes if isinstance(n.step, Take)]
    kept = [n.step.host for n in made.nodes if isinstance(n.step, Keep)]
    data = {host for server in ("db-1", "idx-1") for host in marks_of(whole)[server]}
    assert takes == ["idx-1"]
    assert len(kept) == 2 and not set(kept) & data
    racks = {h.rack for h in whole.site.hosts if h.name in kept}
    assert len(racks) == 2


def test_without_a_primary_there_is_no_backup(bare: SimWorld) -> None:
    with pytest.raises(Blocked, match="no database with data accepts writes"):
        plan_backup(bare.desired, bare.observe(), "1")


def run(first: str, last: str, minute: int, start: str = "") -> Run:
    return Run(first, last, at(minute - 5), at(minute), start)


BASE = replace(ONE.backups[0], position="0-1-10")
DEAD = Stretch("t", "20121117-010000", "0-1-5", (run("0-1-6", "0-1-72", 80, "0-1-5"),))
"""The primary's, up to its end; the replica had 0-1-60 then, and was promoted with that."""
LIVING = Stretch("t", "20121117-013000", "0-1-60", (run("1417-2-1", "1417-2-30", 95, "0-1-60"),))


@pytest.mark.parametrize(
    ("backup", "stretches", "stops"),
    [
        pytest.param("0-1-10", (DEAD, LIVING), ("0-1-60", "0-1-60,1417-2-30"), id="over the promotion"),
        pytest.param("0-1-60,1417-2-20", (DEAD, LIVING), ("0-1-60,1417-2-30",), id="after the promotion"),
        pytest.param("0-1-60,1417-2-20", (DEAD,), (), id="the dead branch continues nothing"),
        pytest.param("0-1-10", (DEAD,), ("0-1-72",), id="nothing is known of a promotion"),
        pytest.param("0-1-65", (DEAD, LIVING), ("0-1-72",), id="a backup of the dead branch stays on it"),
    ],
)
def test_what_a_promotion_gave_up_is_not_restored(
    backup: str, stretches: tuple[Stretch, ...], stops: tuple[str, ...]
) -> None:
    found = choose([Shelf("h7", (replace(BASE, position=backup),), stretches)])
    assert found is not None
    assert tuple(leg.reaches for leg in found.legs) == stops


def test_a_transaction_that_was_given_up_is_reached_when_it_is_named() -> None:
    found = choose([Shelf("h7", (BASE,), (DEAD, LIVING))], Target(gtid="0-1-70"))
    assert found is not None
    assert [leg.reaches for leg in found.legs] == ["0-1-70"]
    assert choose([Shelf("h7", (BASE,), (DEAD, LIVING))], Target(gtid="0-1-50,1417-2-3")) is None, "no such moment"


def test_a_timeline_is_not_begun_before_where_it_branched_off() -> None:
    """Of the file before, only the beginning can be read: the next one's header says how far it went."""
    rotten = Stretch(
        "t", "s", "0-1-5", (run("0-1-6", "0-1-40", 80, "0-1-5"), run("1417-2-1", "1417-2-9", 95, "0-1-60"))
    )
    found = choose([Shelf("h7", (BASE,), (rotten,))])
    assert found is not None
    assert (found.end, [(h.first, h.last) for h in found.holes]) == ("0-1-40", [(41, 60)])


def test_of_two_branches_backed_up_the_one_that_lives_is_restored() -> None:
    dead, living = replace(BASE, id="1", position="0-1-72"), replace(BASE, id="2", position="0-1-60,1417-2-1")
    found = choose([Shelf("h7", (dead, living), (DEAD, LIVING))])
    assert found is not None
    assert (found.backup.id, found.end) == ("2", "0-1-60,1417-2-30")


@pytest.mark.parametrize(
    ("at", "reaches"),
    [
        pytest.param("0-1-60", ["0-1-72"], id="what the old primary wrote alone"),
        pytest.param("0-1-72", [], id="nothing further"),
        pytest.param("0-1-3", [], id="not over a hole"),
        pytest.param("0-1-60,1417-2-10", ["0-1-60,1417-2-30"], id="of its own timeline only"),
    ],
)
def test_a_replica_takes_what_hosts_streamed_of_its_timeline(at: str, reaches: list[str]) -> None:
    shelves = [
        Shelf("h7", (), (DEAD, LIVING)),
        Shelf("h5", (), (replace(DEAD, line="other", runs=(run("0-1-6", "0-1-99", 80),)),)),
    ]
    assert [leg.reaches for leg in continuation(at, "t", shelves)] == reaches


def test_a_promotion_is_preceded_by_the_streams(whole: SimWorld) -> None:
    """The replica was cut off; a host streamed further. What still may be lost is unknown, and asked for."""
    replica = whole.find_data("idx-1")
    assert replica is not None
    replica.position = 5
    replica.received = 0
    replica.heard = whole.clock.now() - 300
    domain = replica.domain
    stretch = Stretch(replica.token, "20121117-010000", "", (run(f"{domain}-1-1", f"{domain}-1-90", 95),))
    whole.shelves = (Shelf("h7", (), (stretch,)),)
    whole.cut(next(iter(marks_of(whole)["db-1"])))
    seen = whole.observe()
    assert any(n.key == "idx-1/consent" for n in plan(whole.desired, seen, DATE).nodes)
    made = plan(with_options(whole.desired, accept_loss="unknown"), seen, DATE)
    nodes = {n.key: n for n in made.nodes}
    assert "idx-1/stream-0" in nodes["idx-1/promote"].info.needs
    assert f"h7 streamed its primary's binary log up to {replica.domain}-1-90" in nodes["idx-1/stream-0"].info.reason
