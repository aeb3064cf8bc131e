"""What hosts remember of the primary: names of files, read and written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcloud.generations import read_generations
from pcloud.kept import NEVER_SEEN, Sighting
from pcloud.observed import Data, Observed, SeenDatabase, SeenHost
from pcloud.remember import plan_keepers, plan_sighting
from pcloud.sightings import furthest, last_sighting, name_of, outdated, read_heard, read_notes
from tests.simulation import SimWorld

NOON = datetime(2012, 11, 17, 12, tzinfo=UTC)
OLD = "demo.seen.0-1-771.20121117T110000Z.w30000.note"
NEW = "demo.seen.1417-2-5.20121117T113000Z.alone.note"


def test_a_note_says_where_when_and_whether_commits_waited() -> None:
    assert name_of("demo", "0-1-690,1417-2-5", 1417, datetime(2012, 11, 17, 11, 30, tzinfo=UTC), -1) == NEW
    assert name_of("demo", "0-1-690", 1417, NOON, 500) == "demo.seen.1417-0-0.20121117T120000Z.w500.note"


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(-1, 2**31 - 1), st.datetimes(datetime(2000, 1, 1)))
def test_what_was_written_is_read(domain: int, number: int, waits_ms: int, at: datetime) -> None:
    at = at.replace(microsecond=0, tzinfo=UTC)
    note = read_notes("demo", [name_of("demo", f"{domain}-7-{number}", 0, at, waits_ms)])[0]
    assert (note.position, note.at, note.waits_ms) == (f"{domain}-7-{number}", at, waits_ms)


def test_the_newest_timeline_counts_not_the_highest_number() -> None:
    hosts = (SeenHost("h1", volumes=(OLD,)), SeenHost("h2", volumes=(NEW, "demo.seen.nonsense.note", "x")))
    seen = last_sighting("demo", Observed(hosts), NOON)
    assert (seen.position, seen.age_s, seen.waits_ms) == ("1417-2-5", 1800, -1)
    assert last_sighting("other", Observed(hosts), NOON) == NEVER_SEEN
    assert last_sighting("demo", Observed(hosts), NOON - timedelta(days=1)).age_s == 0  # clocks differ


def test_a_note_goes_only_where_the_new_one_says_more() -> None:
    assert outdated("demo", [OLD, NEW, "demo.db-1.g1.note"], NEW) == (OLD,)
    assert outdated("demo", [OLD, NEW], OLD) == ()


def test_two_hosts_are_told_apart_from_the_primarys_own_rack(world: SimWorld) -> None:
    hosts = tuple(SeenHost(h.name) for h in world.site.hosts)
    told = plan_sighting(world.site, Observed(hosts), "db-1", SeenDatabase(True, "0-1-9", waits_ms=30_000), NOON)
    racks = {h.name: h.rack for h in world.site.hosts}
    assert len({racks[n.host] for n in told}) == 2
    assert plan_sighting(world.site, Observed(hosts), "db-1", SeenDatabase(True), NOON) == ()


def test_such_a_note_is_no_generation() -> None:
    found = read_generations(Observed((SeenHost("h1", volumes=(OLD, NEW)),)), "demo")
    assert (found.last, found.newest) == ({}, {})


@pytest.mark.parametrize(
    ("said", "age_s", "seen"),
    [
        ("heard 3.20 5.00 0-1-690,1417-2-5 30000\n", 3.2, Sighting("1417-2-5", 5.0, 30_000, one_clock=True)),
        ("heard 3.20 5.00 - -1\n", 3.2, Sighting("", 5.0, -1, one_clock=True)),
    ],
)
def test_a_keepers_answer_is_read(said: str, age_s: float, seen: Sighting) -> None:
    assert read_heard(said) == (age_s, seen)


@pytest.mark.parametrize(
    "said", ["", "heard 3 5 0-1-6 0\n", "heard 3.20 5.00 0-1 -1\n", "heard 3.20 5.00 0-1-6 -2\n", "x"]
)
def test_what_makes_no_sense_was_not_heard(said: str) -> None:
    assert read_heard(said) is None


def test_the_furthest_counts_and_of_equals_the_latest() -> None:
    note, keeper = Sighting("0-1-700", 600, 30_000), Sighting("0-1-700", 4, -1, one_clock=True)
    assert furthest([note, keeper, Sighting("0-1-690", 2, 30_000), NEVER_SEEN]) == keeper
    assert furthest([Sighting("0-1-771", 5, 0), Sighting("0-1-690,1417-2-5", 60, 0)]).position == "0-1-690,1417-2-5"
    assert furthest([]) == NEVER_SEEN


def test_what_a_keeper_saw_is_remembered_on_two_hosts_once_the_primary_is_silent(world: SimWorld) -> None:
    seen = Sighting("1417-2-9", 90.0, 30_000, one_clock=True)
    first, *others = world.site.hosts
    hosts = (SeenHost(first.name, volumes=(NEW,)), *(SeenHost(h.name) for h in others))
    told = plan_keepers(world.site, Observed(hosts, data=Data(known=seen)), NOON)
    assert [n.name for n in told] == ["demo.seen.1417-2-9.20121117T115830Z.w30000.note"] * 2
    assert next(n.old for n in told if n.host == first.name) == (NEW,)
    known = tuple(SeenHost(h.name, volumes=(told[0].name,)) for h in world.site.hosts)
    assert plan_keepers(world.site, Observed(known, data=Data(known=seen)), NOON) == ()
    noted = Sighting("1417-2-9", 90.0, 30_000)
    assert plan_keepers(world.site, Observed(hosts, data=Data(known=noted)), NOON) == (), "hosts know it already"
