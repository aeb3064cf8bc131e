"""Who holds the data, and which copy of a data server counts: cases, and what holds whatever is there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcloud.desired import Desired, Names
from pcloud.generations import Generations, quarantined, read_generations
from pcloud.gtid import behind
from pcloud.holding import irreplaceable, keep_primary, remedy_for_refusal
from pcloud.leftovers import find_strays, leftovers
from pcloud.observed import Data, Mark, Observed, Power, SeenDatabase, SeenHost, SeenServer
from tests.simulation import with_options

ADDRESS = "10.77.0.60"
CARRIERS = ("db-1", "idx-1")
EMPTY = SeenDatabase(False)


def primary(position: str = "0-1-10") -> SeenDatabase:
    return SeenDatabase(True, position, semi_sync=True, restored="t")


def replica(position: str = "0-1-10", received: str = "", *, replicating: bool = True) -> SeenDatabase:
    return SeenDatabase(False, position, received or position, ADDRESS, replicating, 0, True, "t")


def seen(refused: tuple[str, ...] = (), **databases: SeenDatabase) -> Observed:
    return Observed((), data=Data(databases={n.replace("_", "-"): d for n, d in databases.items()}, refused=refused))


@pytest.mark.parametrize(
    ("observed", "kept"),
    [
        (seen(db_1=primary(), idx_1=replica()), {"db-1"}),
        (seen(db_1=replica(), idx_1=primary()), {"idx-1"}),
        (seen(db_1=primary()), {"db-1"}),
        (seen(idx_1=primary()), {"idx-1"}),
        (seen(idx_1=replica()), {"db-1", "idx-1"}),
        (seen(db_1=replica(), idx_1=replica()), {"db-1", "idx-1"}),
        (seen(), {"db-1", "idx-1"}),
        (seen(db_1=EMPTY), {"idx-1"}),
        (seen(db_1=EMPTY, idx_1=replica()), {"idx-1"}),
        # A primary without whole data is nobody's heir.
        (seen(db_1=replace(primary(), restored=""), idx_1=replica()), {"db-1", "idx-1"}),
        # One that stopped following may have what its primary never had, whatever the sum of their numbers says.
        (seen(db_1=primary("0-1-10"), idx_1=replica("0-1-12", replicating=False)), {"db-1", "idx-1"}),
        (seen(db_1=primary("0-1-90"), idx_1=replica("0-1-9,1417-2-1", replicating=False)), {"db-1", "idx-1"}),
        (seen(db_1=primary("0-1-10"), idx_1=replica("0-1-9", "0-1-11", replicating=False)), {"db-1", "idx-1"}),
        (seen(db_1=primary("0-1-10"), idx_1=replica("0-1-9", replicating=False)), {"db-1"}),
        # One that follows was asked a moment after its primary.
        (seen(db_1=primary("0-1-10"), idx_1=replica("0-1-12")), {"db-1"}),
    ],
)
def test_who_may_be_made_anew(desired: Desired, observed: Observed, kept: set[str]) -> None:
    assert irreplaceable(desired, observed) == kept


_numbers = st.integers(0, 20)
_position = st.lists(st.tuples(st.sampled_from([0, 1417, 2003]), _numbers), unique_by=lambda t: t[0]).map(
    lambda parts: ",".join(f"{domain}-1-{n}" for domain, n in parts)
)
_answer = st.none() | st.builds(
    SeenDatabase,
    st.booleans(),
    _position,
    _position,
    st.sampled_from(["", ADDRESS]),
    st.just(False),
    st.none(),
    st.booleans(),
    st.sampled_from(["", "t"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_answer, _answer)
def test_nothing_is_given_up_that_is_not_seen_elsewhere(
    desired: Desired, one: SeenDatabase | None, two: SeenDatabase | None
) -> None:
    databases = {n: d for n, d in zip(CARRIERS, (one, two), strict=True) if d is not None}
    kept = irreplaceable(desired, Observed((), data=Data(databases=databases)))
    for name, other in (CARRIERS, CARRIERS[::-1]):
        mine, theirs = databases.get(name), databases.get(other)
        if mine is not None and mine.writable:
            assert name in kept
        if name not in kept and not (mine is not None and not mine.restored):
            assert theirs is not None and theirs.writable and theirs.restored
            assert mine is None or not behind(theirs.position, mine.position) + behind(theirs.position, mine.received)


def test_a_person_gives_up_no_primary_and_no_only_copy(desired: Desired) -> None:
    def why(observed: Observed, server: str) -> str:
        return keep_primary(desired, observed, server)[0]

    assert "it is the primary" in why(seen(db_1=replica(), idx_1=primary()), "idx-1")
    assert "it is the primary" in why(seen(idx_1=primary()), "idx-1")
    assert "no other server is seen to hold" in why(seen(idx_1=replica()), "idx-1")
    assert "no other server is seen to hold" in why(
        seen(db_1=replica("0-1-9", replicating=False), idx_1=replica("0-1-10", replicating=False)), "idx-1"
    )
    assert why(seen(db_1=replica("0-1-9", replicating=False), idx_1=replica("0-1-10")), "db-1") == ""
    dead_branch = seen(db_1=replica("0-1-12", replicating=False), idx_1=primary("0-1-10,1417-2-3"))
    assert why(dead_branch, "db-1") == "", "what the living data lack is of the past"
    assert why(seen(db_1=primary()), "idx-1") == "", "one that is silent goes at a person's word"
    assert why(seen(), "fe-1") == ""


def test_one_that_refuses_the_monitor_and_cannot_be_asked_at_all_may_be_the_primary(desired: Desired) -> None:
    both = seen(("db-1", "idx-1"))
    assert "nobody knows whether it is the primary" in keep_primary(desired, both, "idx-1")[0]
    assert keep_primary(desired, both, "idx-1")[1] == remedy_for_refusal(desired, both)
    assert remedy_for_refusal(desired, both).startswith("put the old password back")
    assert "--rebuild" not in remedy_for_refusal(desired, both), "it is not known which one goes first"
    assert keep_primary(desired, seen(("idx-1",), db_1=primary()), "idx-1") == ("", "")


def test_the_way_of_a_new_password_names_the_replica_first(desired: Desired) -> None:
    steps = ["recover demo --rebuild idx-1", "failback demo --to idx-1", "recover demo --rebuild db-1"]
    both = seen(("db-1", "idx-1"), db_1=primary(), idx_1=replica())
    text = remedy_for_refusal(desired, both)
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    then = remedy_for_refusal(desired, seen(("db-1",), db_1=primary(), idx_1=replica()))
    assert steps[0] not in then and steps[1] in then, "the replica has it already"


# -- which copy counts


def server(name: str, generation: int, power: Power = Power.OFF) -> SeenServer:
    mark = Mark("demo", name, "database", "spec", "image", generation)
    return SeenServer(f"demo.{name}", "uuid", power, mark, 1024)


def host(name: str, *servers: SeenServer, files: tuple[str, ...] = (), run: bool = True) -> SeenHost:
    names = [Names("demo", s.mark.server, s.mark.generation) for s in servers if s.mark is not None]
    logs = tuple(n.console for n in names) if run else ()
    return SeenHost(name, "", 4096, "tcg", servers, (*(n.disk for n in names), *logs, *files))


def generations(*hosts: SeenHost, **databases: SeenDatabase) -> Generations:
    data = Data(databases={n.replace("_", "-"): d for n, d in databases.items()})
    return read_generations(Observed(hosts, data=data), "demo", CARRIERS)


OLD, NEW = Names("demo", "db-1", 1), Names("demo", "db-1", 2)
NOTES = (OLD.note, OLD.filled, NEW.note)


def test_a_later_copy_without_data_takes_nobodys_place() -> None:
    known = generations(host("h1", server("db-1", 1)), host("h2", server("db-1", 2), files=NOTES))
    assert not known.outdated(server("db-1", 1)) and not known.outdated(server("db-1", 2))
    assert known.current("db-1") == {1} and known.next("db-1") == 3


@pytest.mark.parametrize("how", ["noted", "seen"])
def test_a_later_copy_with_data_does(how: str) -> None:
    new = server("db-1", 2, Power.RUNNING)
    hosts = [host("h1", server("db-1", 1)), host("h2", new, files=(*NOTES, *([NEW.filled] if how == "noted" else [])))]
    known = generations(*hosts, **({"db_1": replica()} if how == "seen" else {}))
    assert known.outdated(server("db-1", 1)) and known.current("db-1") == {2}
    assert [(q.host, q.newest) for q in quarantined(Observed(tuple(hosts)), "demo", known)] == [("h1", 2)]


def test_what_was_restored_and_never_used_does_not_outdate_what_was() -> None:
    restored = SeenDatabase(False, "", restored="t")
    hosts = host("h1", server("db-1", 1)), host("h2", server("db-1", 2, Power.RUNNING), files=NOTES)
    assert not generations(*hosts, db_1=restored).outdated(server("db-1", 1))
    assert generations(*hosts, db_1=replace(restored, source=ADDRESS)).outdated(server("db-1", 1)), "a later copy"
    assert generations(*hosts, db_1=replace(restored, writable=True)).outdated(server("db-1", 1))


def test_without_a_word_about_any_the_newest_counts_but_not_where_it_is_seen_empty() -> None:
    """A site from before there were notes of what was filled."""
    hosts = host("h1", server("db-1", 1)), host("h2", server("db-1", 2, Power.RUNNING), files=(OLD.note, NEW.note))
    assert generations(*hosts).outdated(server("db-1", 1))
    assert not generations(*hosts, db_1=EMPTY).outdated(server("db-1", 1))
    unrun = host("h2", server("db-1", 2), files=(OLD.note, NEW.note), run=False)
    assert not generations(hosts[0], unrun).outdated(server("db-1", 1))


def test_nobody_knows_whose_answer_it_is_where_two_run() -> None:
    hosts = host("h1", server("db-1", 1, Power.RUNNING)), host("h2", server("db-1", 2, Power.RUNNING))
    assert generations(*hosts, db_1=EMPTY).outdated(server("db-1", 1))


def test_a_copy_that_another_server_took_over_from_is_of_the_past() -> None:
    hosts = host("h1", server("db-1", 1)), host("h2", server("db-1", 2), files=(*NOTES, NEW.past))
    for databases in (
        {"idx_1": primary()},
        {},
        {"idx_1": EMPTY},
    ):  # it has the role; it, or one before it, may have had
        assert generations(*hosts, **databases).outdated(server("db-1", 1))
    assert not generations(*hosts, idx_1=replica()).outdated(server("db-1", 1)), "it never took over"


def test_what_nobody_took_over_stays_what_it_is_once_that_is_noted() -> None:
    """Also when the other one cannot be asked later."""
    files = (*NOTES, NEW.past)
    old, new = host("h1", server("db-1", 1)), host("h2", server("db-1", 2), files=files)
    assert generations(old, new, idx_1=replica()).void == {("db-1", 2)}
    noted = host("h2", server("db-1", 2), files=(*files, NEW.void))
    assert not generations(old, noted).outdated(server("db-1", 1))
    assert generations(old, noted, idx_1=replica()).void == frozenset()


def test_other_servers_go_by_their_generation_alone() -> None:
    known = generations(host("h1", server("fe-1", 1)), host("h2", files=("demo.fe-1.g2.note",)))
    assert known.outdated(server("fe-1", 1))


def test_a_used_disk_counts_though_libvirt_does_not_know_it() -> None:
    """The older copy beside it does not become the newest."""
    known = generations(host("h1", server("db-1", 1)), host("h2", files=(NEW.disk, NEW.console)))
    assert known.outdated(server("db-1", 1))


def test_what_is_out_of_sight_and_counts() -> None:
    known = generations(host("h2", server("db-1", 2, Power.RUNNING), files=NOTES), db_1=EMPTY)
    assert known.elsewhere("db-1", {2}), "generation 1 holds data, and is on no host that answers"
    assert not known.elsewhere("db-1", {1, 2})
    buried = host("h2", server("db-1", 2), files=(*NOTES, f"{OLD.tombstone('20121116-2140')}.qcow2"))
    assert not generations(buried).elsewhere("db-1", {2}), "it was put away"


# -- disks that libvirt does not know


def test_a_used_disk_of_a_data_server_is_no_leftover(desired: Desired) -> None:
    used, unused = Names("demo", "db-1", 3), Names("demo", "idx-1", 4)
    at = SeenHost("h1", "", 4096, "tcg", (), (used.disk, used.seed, used.console, unused.disk, "demo.fe-9.g1.qcow2"))
    observed = Observed((at,), data=Data(databases={"idx-1": replica()}))
    assert {name: s.names.generation for name, s in find_strays(desired, observed).items()} == {"db-1": 3}
    assert leftovers(desired, observed) == {"h1": (unused.disk, "demo.fe-9.g1.qcow2")}
    for options in ({"rebuild": ("db-1",)}, {"from_scratch": True}):
        assert find_strays(with_options(desired, **options), observed) == {}, "a person wants it anew"
    led = replace(observed, data=Data(databases={"idx-1": primary()}))
    assert find_strays(desired, led) == {}, "the primary answers, with whole data"
