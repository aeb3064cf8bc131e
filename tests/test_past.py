"""Copies of the past: which become tombstones by themselves, and what a site is like after many failures."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pcloud.decide import decide
from pcloud.desired import Desired, Names
from pcloud.errors import HypervisorError
from pcloud.events import StepDone
from pcloud.execute import _Reporter, run_step
from pcloud.generations import Quarantined, read_generations
from pcloud.inspections import holds_all
from pcloud.leftovers import leftovers
from pcloud.observed import Data, Mark, Observed, Power, SeenDatabase, SeenHost, SeenServer
from pcloud.past import find_position, is_superseded
from pcloud.plan import Plan, plan
from pcloud.steps.noting import NoteGeneration
from pcloud.steps.quarantine import PutAway
from tests.faults import strike
from tests.plan_cases import DATE, arrange, arrange_sighting
from tests.simulated_hosts import SimHypervisor
from tests.simulation import Died, SimWorld
from tests.test_plan import run_all, run_in_order
from tests.wear import wear

COPY = Names("demo", "db-1", 3)
WHOLE = {
    "db-1": "h1 g1 running",
    "idx-1": "h4 g1 running",
    "fe-1": "h2 g1 running",
    "fe-2": "h3 g2 running + h8 g1 off",
    "fe-3": "h5 g1 running",
    "fe-4": "h6 g1 running",
    "lb-1": "h7 g1 running",
}


@pytest.mark.parametrize(
    ("position", "files", "held"),
    [
        ("0-1-771", ["demo.db-1.g3.at-0-1-771.note"], True),
        ("0-1-771", ["demo.db-1.g3.at-0-1-772.note"], False),
        ("0-1-690,1417-2-30", ["demo.db-1.g3.at-0-1-690,1417-2-5.note"], True),
        ("0-1-690,1417-2-30", ["demo.db-1.g3.at-0-1-771,1417-2-5.note"], False),
        ("1417-2-30", ["demo.db-1.g3.at-0-1-1.note"], False),
        ("0-1-9", ["demo.db-1.g3.at-.note"], True),
        ("0-1-9", ["demo.db-1.g3.at-0-1-5.note", "demo.db-1.g3.at-0-1-10.note"], False),
        ("0-1-9", [], False),
        ("0-1-9", ["demo.db-1.g3.note", "demo.db-1.g2.at-0-1-5.note", "demo.db-1.g31.at-0-1-5.note"], False),
        ("0-1-9", ["other.db-1.g3.at-0-1-5.note", "demo.db-1.g3.at-0-1-5.note.part"], False),
        ("0-1-9", ["demo.db-1.g3.at-5.note"], False),
        ("0-1-9", ["demo.db-1.g3.at-0-1--5.note"], False),
        ("", ["demo.db-1.g3.at-0-1-5.note"], False),
        ("", ["demo.db-1.g3.at-.note"], False),
    ],
)
def test_a_note_counts_when_the_living_data_have_all_of_it(position: str, files: list[str], held: bool) -> None:
    assert holds_all(position, COPY, files) is held


def test_the_name_of_a_note_says_what_was_read() -> None:
    assert COPY.inspected(COPY.inspection("0-1-771,1417-2-5")) == "0-1-771,1417-2-5"
    assert COPY.inspection("0-1-771,1417-2-5") == "demo.db-1.g3.at-0-1-771,1417-2-5.note"


@pytest.mark.parametrize(
    ("databases", "position"),
    [
        ({"db-1": SeenDatabase(True, "0-1-9", restored="t"), "idx-1": SeenDatabase(False, "0-1-8")}, "0-1-9"),
        ({"db-1": SeenDatabase(True, "0-1-9"), "idx-1": SeenDatabase(False, "0-1-8", restored="t")}, ""),
        ({"db-1": SeenDatabase(True, "0-1-9", restored="t"), "idx-1": SeenDatabase(True, "0-1-9", restored="t")}, ""),
        ({"idx-1": SeenDatabase(False, "0-1-8", restored="t")}, ""),
        ({}, ""),
    ],
)
def test_only_one_whole_server_that_accepts_writes_says_how_far_the_data_go(
    databases: dict[str, SeenDatabase], position: str
) -> None:
    assert find_position(Observed((), data=Data(databases=databases))) == position


def test_a_note_of_what_was_read_is_no_note_of_a_generation() -> None:
    """It is left beside the copy itself, and must not make that one the newest that ever ran."""
    host = SeenHost("h1", volumes=("demo.db-1.g3.at-0-1-5.note", "demo.db-1.g2.note"))
    assert read_generations(Observed((host,)), "demo").newest == {"db-1": 2}


def test_a_note_whose_copy_is_gone_is_left_over(desired: Desired) -> None:
    mark = Mark("demo", "db-1", "database", "s", "i", 3)
    there = SeenServer("demo.db-1", "u", Power.OFF, mark, 1024)
    files = (COPY.disk, COPY.inspection("0-1-5"), Names("demo", "db-1", 2).inspection("0-1-4"))
    assert leftovers(desired, Observed((SeenHost("h1", servers=(there,), volumes=files),))) == {"h1": files[2:]}


def test_a_server_that_the_inventory_does_not_know_stays(desired: Desired) -> None:
    """Nobody can say that it runs elsewhere, nor what it held."""
    gone = Quarantined("h8", "old-1", 1, 2, False, Names("demo", "old-1", 1))
    mark = Mark("demo", "old-1", "frontend", "s", "i", 1)
    host = SeenHost(
        "h8", servers=(SeenServer("demo.old-1", "u", Power.OFF, mark, 512),), volumes=("demo.old-1.g2.note",)
    )
    assert not is_superseded(desired, Observed((host,)), gone)
    assert decide(desired, Observed((host,)))
    assert "h8/old-1/put-away" not in [n.key for n in plan(desired, Observed((host,)), DATE).nodes]


# -- the plan


def put_away(world: SimWorld, servers: dict[str, str], **case: Any) -> list[str]:
    arrange(world, {"servers": WHOLE | servers, "restored": True, "indexed": True, **case})
    return [n.key for n in plan(world.desired, world.observe(), DATE).nodes if n.info.action == "put away"]


@pytest.mark.parametrize(
    ("servers", "case", "expected"),
    [
        ({}, {}, ["h8/fe-2/put-away"]),
        ({"fe-2": "h3 g2 off + h8 g1 off"}, {}, ["h8/fe-2/put-away"]),
        ({"fe-2": "h3 g2 running broken + h8 g1 off"}, {}, ["h8/fe-2/put-away"]),
        ({"fe-2": "h8 g1 off"}, {"files": {"h5": ["demo.fe-2.g2.note"]}}, ["h8/fe-2/put-away"]),
        ({"fe-2": "h8 g1 off"}, {"files": {"h5": ["demo.fe-2.g2.note"]}, "away": ["h3 seen"]}, []),
        ({"lb-1": "h7 g4 running + h8 g3 running"}, {}, ["h8/fe-2/put-away", "h8/lb-1/put-away"]),
        ({"fe-5": "h8 g1 off"}, {"files": {"h5": ["demo.fe-5.g2.note"]}}, ["h8/fe-2/put-away"]),
    ],
    ids=["runs", "is started", "is made anew", "is missing", "may run where nobody looks", "balancer", "stood in"],
)
def test_an_older_copy_goes_once_its_server_runs(
    world: SimWorld, servers: dict[str, str], case: dict[str, Any], expected: list[str]
) -> None:
    assert put_away(world, servers, **case) == expected
    state = run_all(world)
    assert state.finished is not None
    if not case.get("away"):
        world.clock.sleep(600)
        assert state.finished.outcome == "converged", state.steps
        assert [n.key for n in plan(world.desired, world.observe(), DATE).nodes] == ["journey"]


def surely_before(made: Plan, key: str) -> set[str]:
    needs = {n.key: n.info.needs for n in made.nodes}
    return set(needs[key]).union(*(surely_before(made, k) for k in needs[key]))


def test_it_goes_after_the_walk_and_after_its_own_server_answers(world: SimWorld) -> None:
    arrange(world, {"servers": WHOLE | {"fe-2": "h3 g2 running + h8 g1 running"}, "restored": True, "indexed": True})
    made = plan(world.desired, world.observe(), DATE)
    assert {"journey", "fe-2/ready", "h8/fe-2/quarantine"} <= surely_before(made, "h8/fe-2/put-away")


def test_a_recovery_that_sells_does_not_fail_by_it(world: SimWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, the copy stays quarantined, and the next run puts it away."""
    arrange(world, {"servers": WHOLE, "restored": True, "indexed": True})

    def refuse(hypervisor: SimHypervisor, name: str) -> None:
        raise HypervisorError(f"cannot undefine {name}", where=hypervisor.name)

    with monkeypatch.context() as patch:
        patch.setattr(SimHypervisor, "undefine", refuse)
        state = run_all(world)
    assert state.finished is not None and state.finished.outcome == "converged"
    assert state.steps["h8/fe-2/put-away"].status == "failed"
    assert "demo.fe-2" in world.hosts["h8"].domains
    run_all(world)
    assert "demo.fe-2" not in world.hosts["h8"].domains


READ = {
    "servers": WHOLE | {"db-1": "h1 g2 running + h8 g1 off", "fe-2": "h3 g2 running"},
    "restored": True,
    "indexed": True,
    "primary": "idx-1",
    "files": {"h8": ["demo.db-1.g1.at-0-1-9.note"]},
}


def test_killed_at_any_moment_of_it_the_next_run_completes_it(desired: Desired, image_file: Path) -> None:
    """Once the disk has its new name nobody can read it any more: what was read must be known until the end."""
    moment = 0
    while True:
        moment += 1
        world = SimWorld(desired, image_file)
        arrange(world, READ)
        world.die_at = moment
        try:
            run_in_order(world)
        except Died:
            world.die_at = None
        else:
            break
        run_all(world)
        assert not world.hosts["h8"].domains, moment
        assert [n.key for n in plan(desired, world.observe(), DATE).nodes] == ["journey"], moment
    assert moment > 8


def test_what_was_put_away_can_be_brought_back_with_all_that_was_known_of_it(world: SimWorld) -> None:
    arrange(world, READ)
    run_all(world)
    left = sorted(f.rpartition("/")[2] for f in world.hosts["h8"].files if ".db-1." in f)
    stone = f"demo.db-1.g1.tombstone-{DATE}"
    assert left == [
        f"{stone}.at-0-1-9.note",
        f"{stone}.console.log",
        f"{stone}.past.note",
        f"{stone}.qcow2",
        f"{stone}.xml",
    ]


@pytest.mark.parametrize(
    ("notes", "fault", "gone"),
    [
        (["0-1-9"], "", True),
        (["0-1-10"], "", True),
        (["0-1-11"], "", False),
        (["0-1-9", "0-1-11"], "", False),
        ([], "", False),
        (["0-1-9"], "crash idx-1", False),
    ],
)
def test_what_was_read_in_the_same_run_decides(world: SimWorld, notes: list[str], fault: str, gone: bool) -> None:
    """The plan may be made before the disk is read, and before there is a primary: the step asks for itself."""
    copy = Names("demo", "db-1", 1)
    arrange(world, READ | {"files": {"h8": [copy.inspection(at) for at in notes]}})
    if fault:
        strike(world, fault)
    report = _Reporter("h8/db-1/put-away", lambda _: None, world.clock.now, threading.Event())
    ended = run_step(PutAway("h8", copy, DATE, world.carriers()), world, report)
    assert isinstance(ended, StepDone) and ended.changed is gone
    assert ("demo.db-1" not in world.hosts["h8"].domains) is gone
    assert bool(ended.facts.get("stays")) is not gone


def test_where_nobody_accepts_writes_yet_the_run_finds_out(world: SimWorld) -> None:
    arrange(world, READ)
    strike(world, "crash idx-1")
    assert "h8/db-1/put-away" in [n.key for n in plan(world.desired, world.observe(), DATE).nodes]
    run_all(world)
    assert "demo.db-1" not in world.hosts["h8"].domains


# -- the notes of generations


def test_a_newer_note_takes_the_place_of_older_ones(world: SimWorld) -> None:
    files = ["demo.fe-2.g1.note", "demo.fe-2.g3.note", "demo.fe-1.g1.note", "demo.fe-2.g1.at-0-1-1.note"]
    arrange(world, {"servers": WHOLE | {"fe-2": "h3 g3 running broken"}, "files": {"h5": files}, "restored": True})
    made = plan(world.desired, world.observe(), DATE)
    step = next(n.step for n in made.nodes if n.key == "fe-2/note")
    assert isinstance(step, NoteGeneration) and dict(step.older).keys() == {"h5"}
    run_all(world)
    left = sorted(f.rpartition("/")[2] for f in world.hosts["h5"].files if f.endswith(".note") and ".fe-" in f)
    assert left == ["demo.fe-1.g1.note"]


# -- a site that lives


def test_a_site_that_lives_through_failures_is_as_good_as_new(image_file: Path) -> None:
    """`make soak` plays 500."""
    worn = wear(image_file, 60)
    assert not worn.broken, "\n".join([*worn.broken, *worn.log[-60:]])
    assert len(worn.struck) == 8
    assert worn.tombstones >= 30


def test_a_copy_of_the_data_that_came_back_is_read_and_goes(world: SimWorld) -> None:
    run_all(world)
    world.clock.sleep(600)
    for data in world.carried():
        data.position = 10
    arrange_sighting(world)
    for fault in ("kill h1", "return h1"):
        strike(world, fault)
        world.hosts["h1"].away = fault == "kill h1"
        run_all(world)
        world.clock.sleep(600)
    assert not world.hosts["h1"].domains
