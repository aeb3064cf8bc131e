"""Who is the primary: cases, and what holds whatever is there."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pcloud.kept import Heard, Sighting
from pcloud.observed import SeenDatabase
from pcloud.replicas import Carrier, Fate, How, Roles, resolve

ADDRESS = "10.0.0.60"


def primary(position: str = "0-1-10", *, semi_sync: bool = True) -> SeenDatabase:
    return SeenDatabase(True, position, semi_sync=semi_sync, restored="t")


def replica(position: str = "0-1-10", *, heard_s: float | None = 12.0, replicating: bool = True) -> SeenDatabase:
    at = "2012-11-16T21:06:48Z" if heard_s is not None else ""
    seen = SeenDatabase(False, position, position, ADDRESS, replicating, 0, True, "t")
    return replace(seen, heard_s=heard_s, heard_at=at, acknowledges=heard_s is not None)


EMPTY = SeenDatabase(False)


def roles(db: Carrier, idx: Carrier, known: str = "", *, anew: bool = False) -> Roles:
    """`known` was seen a minute ago, when commits waited 30 s; frontends had their last answer 11 s ago."""
    return resolve("demo", ADDRESS, [db, idx], Sighting(known, 60.0, 30_000), Heard({"fe-1": 11.0}), anew=anew)


def test_both_well_needs_nothing() -> None:
    found = roles(Carrier("db-1", Fate.STAYS, primary()), Carrier("idx-1", Fate.STAYS, replica()))
    assert (found.primary, found.how, found.seeded, found.joined, found.alone) == ("db-1", How.IS, (), (), False)


def test_from_nothing_both_get_the_dump_and_the_second_follows() -> None:
    found = roles(Carrier("db-1", Fate.NEW), Carrier("idx-1", Fate.NEW))
    assert (found.primary, found.how, found.filled) == ("db-1", How.FRESH, ("db-1", "idx-1"))
    assert (found.seeded, found.joined) == ((), ("idx-1",))


def test_a_lost_primary_is_followed_by_its_replica_and_comes_back_as_one() -> None:
    found = roles(Carrier("db-1", Fate.NEW), Carrier("idx-1", Fate.STAYS, replica("0-1-57")), "0-1-57")
    assert (found.primary, found.how) == ("idx-1", How.PROMOTED)
    assert (found.seeded, found.joined) == (("db-1",), ("db-1",))
    assert found.loss is not None
    assert found.loss.none


def test_a_replica_is_promoted_though_no_host_has_room_for_its_primary() -> None:
    found = roles(Carrier("db-1", Fate.GONE), Carrier("idx-1", Fate.STAYS, replica()))
    assert (found.primary, found.how) == ("idx-1", How.PROMOTED)
    assert (found.seeded, found.joined, found.filled) == ((), (), ())


def test_nobody_is_the_primary_where_no_server_is_left() -> None:
    assert roles(Carrier("db-1", Fate.GONE), Carrier("idx-1", Fate.GONE)).problem


def test_a_lost_replica_frees_the_commits_and_is_copied_anew() -> None:
    found = roles(Carrier("db-1", Fate.STAYS, primary()), Carrier("idx-1", Fate.NEW))
    assert (found.primary, found.how, found.alone) == ("db-1", How.IS, True)
    assert (found.seeded, found.joined) == (("idx-1",), ("idx-1",))


def test_a_person_decides_between_two_primaries() -> None:
    found = roles(Carrier("db-1", Fate.STAYS, primary()), Carrier("idx-1", Fate.STAYS, primary()))
    assert found.primary == ""
    assert found.problem == "db-1 and idx-1 both accept writes"
    assert "pcloud recover demo" in found.next


def test_no_dump_is_restored_while_a_server_that_may_hold_data_is_away() -> None:
    found = roles(Carrier("db-1", Fate.AWAY), Carrier("idx-1", Fate.NEW))
    assert (found.primary, found.filled) == ("", ())
    assert found.problem == "db-1 may hold the database's latest data"


def test_a_replica_is_not_promoted_while_its_primary_may_come_back() -> None:
    for fate in (Fate.AWAY, Fate.RETURNS):
        found = roles(Carrier("db-1", fate), Carrier("idx-1", Fate.STAYS, replica()))
        assert found.how is not How.PROMOTED
        assert found.primary != "idx-1"


def test_an_interrupted_promotion_goes_on() -> None:
    bare = SeenDatabase(False, "0-1-57", restored="t")
    found = roles(Carrier("db-1", Fate.NEW), Carrier("idx-1", Fate.STAYS, bare))
    assert (found.primary, found.how) == ("idx-1", How.TAKES)


def test_a_copy_that_did_not_follow_yet_is_promoted_as_one() -> None:
    """Its primary went on after the copy was taken: what that had is counted, and said."""
    copied = SeenDatabase(False, "0-1-50", source=ADDRESS, restored="t")
    found = roles(Carrier("db-1", Fate.NEW), Carrier("idx-1", Fate.STAYS, copied), "0-1-57")
    assert (found.primary, found.how) == ("idx-1", How.PROMOTED)
    assert found.loss is not None
    assert (found.loss.price, found.loss.least) == ("unknown", 7)


def test_data_without_a_role_that_are_behind_what_was_seen_say_so() -> None:
    bare = SeenDatabase(False, "0-1-50", restored="t")
    found = roles(Carrier("db-1", Fate.NEW), Carrier("idx-1", Fate.STAYS, bare), "0-1-57")
    assert found.how is How.TAKES
    assert found.loss is not None
    assert (found.loss.price, found.loss.least) == ("unknown", 7)


def test_the_newest_timeline_is_promoted_not_the_longest_branch() -> None:
    """A branch that was given up went further, by number, than the one that lives."""
    dead, living = replica("0-1-772"), replica("0-2-690,1417-2-20")
    found = roles(Carrier("db-1", Fate.STAYS, dead), Carrier("idx-1", Fate.STAYS, living))
    assert found.primary == "idx-1"


def test_a_replica_beside_an_emptied_primary_is_promoted_not_just_taken() -> None:
    found = roles(Carrier("db-1", Fate.STAYS, EMPTY), Carrier("idx-1", Fate.STAYS, replica("0-1-50")), "0-1-57")
    assert (found.primary, found.how) == ("idx-1", How.PROMOTED)


def test_data_without_a_role_wait_for_whoever_may_have_it() -> None:
    bare = SeenDatabase(False, "0-1-50", restored="t")
    for fate in (Fate.AWAY, Fate.RETURNS):
        found = roles(Carrier("db-1", fate), Carrier("idx-1", Fate.STAYS, bare))
        assert (found.primary, found.how) != ("idx-1", How.TAKES)


def test_who_gave_the_role_up_goes_before_its_copy() -> None:
    """A failback that was cut off between the old one's release and the new one's promotion."""
    released = SeenDatabase(False, "0-1-50", restored="t")
    found = roles(Carrier("db-1", Fate.STAYS, replica("0-1-50")), Carrier("idx-1", Fate.STAYS, released))
    assert (found.primary, found.how) == ("idx-1", How.TAKES)


_numbers = st.integers(0, 99)
_seen = st.builds(
    lambda writes, n, holds, source, runs: SeenDatabase(
        writes, f"0-1-{n}" if n else "", f"0-1-{n}" if source and n else "", source, runs, None, runs, holds
    ),
    st.booleans(),
    _numbers,
    st.sampled_from(["", "t"]),
    st.sampled_from(["", ADDRESS]),
    st.booleans(),
)
_carrier = st.one_of(
    st.tuples(st.just(Fate.STAYS), _seen),
    st.tuples(st.sampled_from([Fate.NEW, Fate.AWAY, Fate.RETURNS]), st.none() | _seen),
    st.tuples(st.sampled_from([Fate.ABSENT, Fate.GONE]), st.none()),
)


@given(_carrier, _carrier, st.booleans())
def test_safety_whatever_is_seen(
    one: tuple[Fate, SeenDatabase | None], two: tuple[Fate, SeenDatabase | None], anew: bool
) -> None:
    carriers = [Carrier("db-1", *one), Carrier("idx-1", *two)]
    found = resolve("demo", ADDRESS, carriers, Sighting("0-1-5", 9.0), anew=anew)
    by_name = {c.name: c for c in carriers}
    assert bool(found.primary) != bool(found.problem)
    if found.primary:
        others = [c for c in carriers if c.name != found.primary]
        assert by_name[found.primary].fate not in (Fate.ABSENT, Fate.GONE)
        assert not any(c.writes and c.fate is not Fate.NEW for c in others), "two would accept writes"
        if found.how in (How.TAKES, How.PROMOTED, How.FRESH):
            assert not any(c.fate in (Fate.AWAY, Fate.RETURNS) for c in others), "somebody may know more"
        if found.how is How.TAKES:
            seen = by_name[found.primary].seen
            assert seen is not None
            assert not seen.source, "a copy takes the role as if it were the whole"
        if found.how is How.PROMOTED:
            assert found.loss is not None, "promoted without a measured loss"
        if found.how is How.FRESH and not anew:
            assert not any(c.holds and c.fate is Fate.STAYS for c in carriers), "data would be overwritten"
        assert found.primary not in found.seeded or found.how is How.SETTLES
    assert found == resolve("demo", ADDRESS, carriers, Sighting("0-1-5", 9.0), anew=anew)
