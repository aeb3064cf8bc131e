"""Who keeps backups, what is remembered of them, and what would be lost: decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcloud.backupnotes import last_backup, name_of, read_notes
from pcloud.backupplan import plan_backup, question_of
from pcloud.backups import choose
from pcloud.errors import Blocked
from pcloud.identity import carrier_names
from pcloud.kept import LATEST, Backup, LastBackup, Run, Shelf, Stretch, Target, Timeline
from pcloud.observed import Observed
from pcloud.plan import plan
from pcloud.rpo import backup_alarms, carrying, measure_rpo
from pcloud.steps.backup import EndStream, Stream
from pcloud.steps.keeping import NoteBackup, Pass, Reaches, Thin
from pcloud.steps.restoring import NoBackup, RestoreBackup
from tests.plan_cases import DATE
from tests.simulation import SimWorld, marks_of, with_options
from tests.test_backupplan import ONE, at, backup, bare, gtid, run, stretch, whole  # noqa: F401 (fixtures)
from tests.test_plan import is_whole, run_all

# ruff: noqa: F811 (the fixtures' names)


def keeping(world: SimWorld, *shelves: Shelf, last: LastBackup | None = None) -> Observed:
    seen = world.observe()
    return replace(seen, data=replace(seen.data, shelves=shelves, last_backup=last))


def restores(world: SimWorld, observed: Observed, **options: object) -> object:
    desired = with_options(world.desired, **options)
    return next(n.step for n in plan(desired, observed, DATE).nodes if n.key == "db-1/restore")


OLD = Shelf("h3", (backup(5, 10),))
LAST = LastBackup(ONE.backups[0].id, gtid(10), ("h2", "h7"))


@pytest.mark.parametrize("called", ["silent", "renamed"])
def test_an_older_backup_is_not_taken_where_the_last_one_cannot_be_asked_for(bare: SimWorld, called: str) -> None:
    last = LAST if called == "silent" else replace(LAST, hosts=("old-h2", "old-h7"))
    if called == "silent":
        bare.hosts["h2"].away = bare.hosts["h7"].away = True
    seen = keeping(bare, OLD, last=last)
    found = restores(bare, seen)
    assert isinstance(found, NoBackup)
    assert f"the last backup ({LAST.id}) is on {' and '.join(last.hosts)}" in found.what
    assert f"--from-backup {OLD.backups[0].id}" in found.next
    assert isinstance(restores(bare, keeping(bare, last=last)), NoBackup), "nor is the dump"
    agreed = restores(bare, seen, from_backup=OLD.backups[0].id)
    assert isinstance(agreed, RestoreBackup) and agreed.choice.backup == OLD.backups[0]
    assert isinstance(restores(bare, seen, without=last.hosts), RestoreBackup)
    with pytest.raises(Blocked, match="the last backup"):
        question_of(replace(bare.desired, options=replace(bare.desired.options, until=LATEST)), seen, LATEST)


@pytest.mark.parametrize(
    "shelf", [ONE, replace(OLD, stretches=(stretch(5, 10, 70),))], ids=["it is there", "another one reaches as far"]
)
def test_a_backup_that_reaches_as_far_is_taken(bare: SimWorld, shelf: Shelf) -> None:
    bare.hosts["h7"].away = True
    assert isinstance(restores(bare, keeping(bare, shelf, last=LAST)), RestoreBackup)


def test_what_its_keepers_deleted_is_waited_for_by_nobody(bare: SimWorld) -> None:
    assert isinstance(restores(bare, keeping(bare, OLD, last=LAST)), RestoreBackup)


def test_hosts_remember_the_last_backup_by_the_name_of_a_file() -> None:
    empty = replace(backup(0, 60), position="", timelines=(Timeline(2417, 0, ""),))
    names = [name_of("demo", b, ("h7", "h3")) for b in (backup(10, 60), empty)]
    assert names[0] == "demo.backup.20261126-010000.0-1-10.h3+h7.note"
    assert names[1] == "demo.backup.20261126-010000.2417-0-0.h3+h7.note"
    noise = [
        "demo.seen.0-1-5.20261128T012126Z.alone.note",
        "other" + names[0],
        names[0] + ".part",
        "demo.backup.x.note",
    ]
    assert list(read_notes("demo", [*names, *noise]).values()) == [
        LastBackup("20261126-010000", "0-1-10", ("h3", "h7")),
        LastBackup("20261126-010000", "2417-0-0", ("h3", "h7")),
    ]


def test_a_fresh_laptop_knows_the_last_backup(whole: SimWorld) -> None:
    for host, number in (("h1", 10), ("h2", 30), ("h5", 20)):
        whole.hosts[host].files[f"/pool/{name_of('demo', backup(number, number), ('h7',))}"] = ""
    last = last_backup("demo", whole.observe())
    assert last is not None and last.position == gtid(30)


def test_another_backup_that_leads_there_is_taken_where_one_rotted() -> None:
    """Both copies of last night's rotted: the night before it and the binary log since lead to the same data."""
    first, second = backup(10, 60), backup(50, 120)
    shelf = Shelf("h7", (first, second), (stretch(9, 90, 150),))
    for target in (LATEST, Target(gtid=gtid(90)), Target(time=at(150)), Target(time=at(130))):
        found = choose([shelf], target)
        assert found is not None
        assert found.backup == second
        assert [(c.backup, c.end) for c in found.instead] == [(first, found.end)]
    named = choose([shelf], only=first.id)
    assert named is not None and named.backup == first
    cut = choose([replace(shelf, stretches=(stretch(9, 49, 100), stretch(50, 90, 150)))])
    assert cut is not None and cut.instead == (), "what ends before it does not stand in for it"


def test_what_both_hosts_would_take_with_them_is_said(whole: SimWorld) -> None:
    primary = whole.find_data("db-1")
    assert primary is not None
    d = primary.domain
    primary.position = 9
    taken = replace(backup(1, 60), position=f"{d}-1-1", timelines=(Timeline(d, 0, ""),))

    def say(host: str, streamed: int) -> str:
        log = Stretch("t", "s", "", (Run(f"{d}-1-1", f"{d}-1-{streamed}", at(1), at(70)),))
        seen = keeping(whole, Shelf(host, (taken,), (log,)))
        databases = {name: replace(found, clock=at(75)) for name, found in seen.data.databases.items()}
        return str(measure_rpo(whole.desired, replace(seen, data=replace(seen.data, databases=databases))))

    assert say("h7", 9) == f"no transaction would be lost: other hosts lead to {d}-1-9"
    assert say("h7", 5) == f"4 transactions of the last 300 s would be lost: other hosts lead to {d}-1-5"
    [data_host] = marks_of(whole)["idx-1"]
    assert say(data_host, 9).startswith("all since the dump would be lost"), "it would go with its host"


def test_a_keeper_that_carries_the_data_is_named_and_replaced(whole: SimWorld) -> None:
    [data_host] = marks_of(whole)["idx-1"]
    last = LastBackup("20261126-010000", gtid(10), tuple(sorted((data_host, "h7"))))
    shelves = [Shelf(h, ONE.backups, ONE.stretches, True, "s") for h in last.hosts]
    seen = keeping(whole, *shelves, last=last)
    assert any(f"{data_host} keeps backups and carries idx-1" in a for a in backup_alarms(whole.desired, seen))
    made = {n.key: n for n in plan(whole.desired, seen, DATE).nodes}
    [new] = [n.step.host for n in made.values() if isinstance(n.step, Stream)]
    assert new not in carrying(whole.desired, seen) and new not in last.hosts
    assert [n.step for n in made.values() if isinstance(n.step, Pass)] == [
        Pass(new, last.hosts, last.id, whole.site.database.backups.timeout_s)
    ]
    [note] = [n.step for n in made.values() if isinstance(n.step, NoteBackup)]
    assert set(note.keepers) == {"h7", new}
    end = next(n for n in made.values() if isinstance(n.step, EndStream))
    assert end.step == EndStream(data_host) and "backups/note" in end.info.needs and end.aside
    apart = keeping(whole, *shelves, last=replace(last, hosts=("h5", "h7")))
    assert not any(isinstance(n.step, Stream) for n in plan(whole.desired, apart, DATE).nodes)


def test_a_keeper_that_stands_still_or_is_silent_is_named(whole: SimWorld) -> None:
    seen = keeping(whole, replace(ONE, streaming=False), last=replace(LAST, hosts=("h2", "gone")))
    alarms = list(backup_alarms(whole.desired, seen))
    assert any("h2 does not stream" in a for a in alarms)
    assert any("gone keeps backups and does not answer" in a for a in alarms)
    assert list(backup_alarms(whole.desired, keeping(whole))) == []


def test_nothing_is_thinned_before_a_restore_reaches_now(whole: SimWorld) -> None:
    made = plan_backup(whole.desired, keeping(whole, *(Shelf(h) for h in whole.hosts)), "20261126-010000")
    nodes = {n.key: n for n in made.nodes}
    assert isinstance(nodes["reach"].step, Reaches)
    thins = [n for n in made.nodes if isinstance(n.step, Thin)]
    assert thins and all("reach" in n.info.needs and n.step.just == "20261126-010000" for n in thins)  # type: ignore[attr-defined]


def test_both_servers_of_a_site_from_scratch_carry_one_mark(world: SimWorld) -> None:
    """Their generations differ: the token is the primary's, whoever is backed up and whoever is streamed."""
    run_all(world)
    assert is_whole(world)
    for _ in range(2):
        whole_again = with_options(world.desired, rebuild=("idx-1",))
        run_all(replace_desired(world, whole_again))
    run_all(replace_desired(world, with_options(world.desired, from_scratch=True, rebuild=())))
    tokens = {d.token for s in carrier_names(world.site) if (d := world.find_data(s)) is not None}
    assert len(tokens) == 1


def replace_desired(world: SimWorld, desired: object) -> SimWorld:
    world.desired = desired  # type: ignore[assignment]
    return world


MARKS = [("t", "u"), ("u", "t"), ("t", "t")]


@given(st.sampled_from(MARKS), st.integers(0, 9), st.integers(1, 9))
def test_a_timeline_is_continued_whatever_mark_its_servers_carry(marks: tuple[str, str], held: int, more: int) -> None:
    """Backup and stream of two servers that an earlier pcloud restored with two marks."""
    position = f"2417-1-{held}" if held else ""
    taken = Backup("1", marks[0], position, at(1), 9, "a", "idx-1", "10", 1, 1, at(2), (Timeline(2417, 0, ""),))
    log = Stretch(marks[1], "s", "", (run("2417-1-1", f"2417-1-{held + more}", 30),))
    found = choose([Shelf("h7", (taken,), (log,))])
    assert found is not None and (found.end, found.newer) == (f"2417-1-{held + more}", "")
