"""No restore skips, repeats or crosses a branch, or says that it reaches what it does not: over histories that
nobody thought of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pcloud.backups import all_holes
from pcloud.gtid import by_domain
from pcloud.kept import LATEST, Target
from tests.shelf_histories import Site, Tx, position_of, stamp

keepers = st.integers(0, 1)
events = st.one_of(
    st.tuples(st.just("order"), st.integers(1, 4)),
    st.tuples(st.just("order"), st.integers(1, 4)),
    st.tuples(st.just("backup"), st.none()),
    st.tuples(st.sampled_from(["cut", "mend", "flush", "purge", "failover", "failback", "scratch"]), st.none()),
    st.tuples(st.just("renew"), st.booleans()),
    st.tuples(st.just("leave"), keepers),
    st.tuples(st.just("come back"), keepers),
    st.tuples(st.just("rename"), keepers),
    st.tuples(st.just("tear"), keepers),
    st.tuples(st.just("clock"), st.sampled_from([-100_000, 0, 100_000])),
    st.tuples(st.just("restore"), st.integers(0, 30)),
    st.tuples(st.just("miss"), st.integers(0, 3)),
    st.tuples(st.just("rot"), st.integers(0, 5)),
)


def happen(site: Site, event: str, value: int | bool | None) -> None:  # noqa: C901 (an event each)
    number = int(value or 0)
    match event:
        case "order":
            site.order(number)
        case "backup":
            site.back_up()
        case "cut" | "mend" | "flush" | "purge" | "scratch":
            getattr(site, event)()
        case "failover":
            site.fail_over()
        case "failback":
            site.fail_back()
        case "renew":
            site.renew(honest=bool(value))
        case "leave":
            site.leave(number)
        case "come back":
            site.come_back(number)
        case "rename":
            site.rename(number)
        case "tear":
            site.tear(number)
        case "clock":
            site.set_clock(0, number)
        case "miss":
            site.miss(number % 3 + 1, young=number > 0, honest=number > 1)
        case "rot":
            site.rot(number, number // 2)
        case "restore":
            target = LATEST if number % 3 else Target(time=stamp(max(0, site.now - number)))
            check(site, target)
            site.restore(target)


def check(site: Site, target: Target = LATEST) -> list[Tx] | None:
    """What a restore now would make of the site's data is a moment that they really were in."""
    choice = site.choose(target)
    if choice is None:
        return None
    held = site.replay(choice)
    past = site.pasts[choice.timeline]
    assert held == past[: len(held)], "a moment of that timeline, nothing skipped, repeated or given up"
    if target.time:
        assert all(stamp(tx.at) < target.time or tx in choice_data(site, choice) for tx in held)
    else:
        assert by_domain(position_of(held)) == by_domain(choice.end), "what is said is what is reached"
    for other in choice.instead:
        assert site.replay(other) == held, "another backup leads to the same data"
    return held


def choice_data(site: Site, choice: object) -> list[Tx]:
    return next(h for k in site.keepers for b, h in k.backups if b == choice.backup)  # type: ignore[attr-defined]


@settings(max_examples=250, deadline=None)
@given(st.lists(events, max_size=25))
def test_a_restore_leads_to_a_moment_of_the_data(course: list[tuple[str, int | bool | None]]) -> None:
    site = Site()
    for event, value in course:
        happen(site, event, value)
        check(site)
    for tx in site.pasts[site.primary.domain][-3:]:
        held = check(site, Target(gtid=tx.gtid))
        assert held is None or held[-1] == tx
    for at in range(max(0, site.now - 9), site.now + 1, 3):
        check(site, Target(time=stamp(at)))


usual = st.one_of(
    st.tuples(st.just("order"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["flush", "failover", "failback", "cut", "mend"]), st.none()),
    st.tuples(st.just("renew"), st.just(True)),
    st.tuples(st.just("backup"), st.none()),
    st.tuples(st.just("clock"), st.sampled_from([-100_000, 0, 100_000])),
    st.tuples(st.just("restore"), st.integers(0, 30)),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(usual, max_size=20))
def test_where_no_host_missed_anything_a_restore_reaches_now(course: list[tuple[str, int | bool | None]]) -> None:
    """After a backup, over every promotion and restore since, without another one."""
    site = Site()
    site.order(3)
    site.back_up()
    for event, value in course:
        happen(site, event, value)
        assert check(site) == site.primary.held
        assert all_holes(site.shelves()) == ()


@settings(max_examples=120, deadline=None)
@given(st.lists(events, max_size=20))
def test_what_is_not_reached_is_named(course: list[tuple[str, int | bool | None]]) -> None:
    """Of what hosts that answer keep beyond the end of a restore: a hole, or data that no backup leads to."""
    site = Site()
    for event, value in course:
        happen(site, event, value)
    choice = site.choose()
    if choice is None:
        return
    held, past = set(site.replay(choice)), site.pasts[choice.timeline]
    kept = {tx for k in site.keepers if not k.away for s in k.sessions for f in s.files for tx in f.txs}
    beyond = [tx for tx in past if tx in kept - held]
    assert bool(beyond) <= bool(choice.holes)
    for hole in choice.holes:
        gone = {(hole.domain, n) for n in range(hole.first, hole.last + 1)}
        assert not gone & {tx.place for tx in kept | held}, "it is really nowhere"
    newer = [tx for tx in kept if tx.place[0] > choice.timeline]
    assert bool(newer) == bool(choice.newer)
