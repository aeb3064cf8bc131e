"""The planner: data cases (what is there -> what would be done), and its properties."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcloud.clock import Clock
from pcloud.decide import Act, Decision, decide
from pcloud.desired import Desired
from pcloud.events import Event, RunState, StepBlocked, StepDone
from pcloud.execute import _Reporter, execute, run_step
from pcloud.generations import quarantined, read_generations
from pcloud.graph import PlanNode
from pcloud.inventory import defaults_dir
from pcloud.model import Site
from pcloud.observed import Observed, Power
from pcloud.plan import Plan, plan
from pcloud.playbook import load_playbook
from pcloud.steps.fence import Fence
from tests.conftest import make_desired
from tests.plan_cases import CASES, DATE, arrange, arrange_sighting, plan_case, told
from tests.simulation import BOOT_S, Died, SimHost, SimWorld, marks_of, with_options


class Memory:
    """A journal and a face that only remember."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append(self, *events: Event) -> None:
        self.events += events

    def show(self, state: RunState, event: Event) -> None:
        pass


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_case(path: Path, world: SimWorld) -> None:
    case = yaml.safe_load(path.read_text())
    assert told(plan_case(world, case)) == case["expect"].strip()


def run_all(world: SimWorld, clock: Clock | None = None) -> RunState:
    made = plan(world.desired, world.observe(), DATE)
    return execute(made, world, Memory(), Memory(), "run", clock or world.clock)


def run_in_order(world: SimWorld) -> list[Event]:
    """The plan's steps one after the other in this thread, so that a test can die in the middle."""
    ended: list[Event] = []
    for node in plan(world.desired, world.observe(), DATE).nodes:
        import threading

        report = _Reporter(node.key, lambda _: None, world.clock.now, threading.Event())
        ended.append(run_step(node.step, world, report))
        if not isinstance(ended[-1], StepDone):
            break
    return ended


def is_whole(world: SimWorld) -> bool:
    return (
        all(len(marks_of(world)[s.name]) == 1 for s in world.desired.servers)
        and world.database[0] == "restored"
        and world.indexed
        and all(not p.endswith(".part") for h in world.hosts.values() for p in h.files)
    )


def test_a_recovery_from_nothing_converges_and_a_second_one_changes_nothing(world: SimWorld) -> None:
    state = run_all(world)
    assert state.finished is not None and state.finished.outcome == "converged", state.steps
    assert is_whole(world)
    again = plan(world.desired, world.observe(), DATE)
    assert [n.key for n in again.nodes] == ["journey"]
    assert again.changes == ()


@pytest.mark.parametrize("options", [{"from_scratch": True}, {"rebuild": ("fe-2",)}, {"rebuild": ("idx-1",)}])
def test_after_a_rebuild_a_second_run_changes_nothing(world: SimWorld, options: dict[str, Any]) -> None:
    run_all(world)
    world.clock.sleep(600)
    made = plan(with_options(world.desired, **options), world.observe(), DATE)
    state = execute(made, world, Memory(), Memory(), "run", world.clock)
    assert state.finished is not None and state.finished.outcome == "converged", state.steps
    assert [n.key for n in plan(world.desired, world.observe(), DATE).nodes] == ["journey"]


def test_every_moment_of_death_is_survived(desired: Desired, image_file: Path) -> None:
    """Killed before and after each effect of a recovery from nothing; the next run completes it."""
    whole = SimWorld(desired, image_file)
    assert all(isinstance(e, StepDone) for e in run_in_order(whole))
    assert whole.effects > 80
    for moment in range(1, whole.effects + 1):
        world = SimWorld(desired, image_file, die_at=moment)
        with pytest.raises(Died):
            run_in_order(world)
        world.die_at = None
        world.clock.sleep(BOOT_S)
        state = run_all(world)
        assert state.finished is not None and state.finished.outcome == "converged", (moment, state.steps)
        assert is_whole(world), moment
        assert [n.key for n in plan(desired, world.observe(), DATE).nodes] == ["journey"], moment


def test_every_effect_failing_once_leaves_nothing_wrong(desired: Desired, image_file: Path) -> None:
    """An error at each effect; nothing runs twice, and the next run completes it."""
    whole = SimWorld(desired, image_file)
    run_in_order(whole)
    for moment in range(1, whole.effects + 1):
        world = SimWorld(desired, image_file, fail_at=moment)
        run_all(world)
        assert all(len(hosts) <= 1 for hosts in marks_of(world).values()), moment
        world.clock.sleep(BOOT_S)
        state = run_all(world)
        assert state.finished is not None and state.finished.outcome == "converged", (moment, state.steps)
        assert is_whole(world), moment


def test_each_step_done_twice_is_met_the_second_time(world: SimWorld) -> None:
    made = plan(world.desired, world.observe(), DATE)
    run_in_order(world)
    import threading

    for node in made.nodes:
        if node.step.waits:
            continue
        before = world.effects
        report = _Reporter(node.key, lambda _: None, world.clock.now, threading.Event())
        event = run_step(node.step, world, report)
        assert isinstance(event, StepDone) and not event.changed, (node.key, event)
        assert world.effects == before, node.key


def test_no_dump_blocks_and_leaves_the_rest_alone(desired: Desired, image_file: Path) -> None:
    from dataclasses import replace

    world = SimWorld(replace(desired, dump=None, dump_problem="the inventory names no dump"), image_file)
    state = run_all(world)
    problem = state.steps["db-1/restore"].problem
    assert isinstance(problem, StepBlocked)
    assert "--empty-database" in problem.next
    assert state.finished is not None and state.finished.outcome == "blocked"
    assert world.database == ("", "")


def test_one_frontend_that_never_answers_does_not_keep_shoppers_out(world: SimWorld) -> None:
    run_all(world)
    host, domain = world.running("fe-2")[0]
    domain.broken = True
    state = run_all(world)
    assert state.steps["journey"].status == "done"
    del host


def test_a_replica_has_caught_up_when_it_holds_what_its_primary_had(world: SimWorld) -> None:
    """MariaDB says 0 s to whoever has not received anything yet, then the age of what came first."""
    run_all(world)
    primary, replica = world.find_data("db-1"), world.find_data("idx-1")
    assert primary is not None and replica is not None
    replica.running, replica.late = False, ["0", "0", "143", "90"]
    primary.position += 20
    state = run_all(world)
    assert state.steps["idx-1/follow"].status == "done", state.steps["idx-1/follow"].problem
    assert replica.position == primary.position and not replica.late


def test_a_database_without_a_replica_comes_back_and_follows_nobody(image_file: Path) -> None:
    data = yaml.safe_load((defaults_dir("inventory") / "demo.yaml").read_text())
    del data["database"]["replica"]
    playbook = load_playbook(defaults_dir("playbooks") / "recover.yaml")
    world = SimWorld(make_desired(Site.model_validate(data), playbook, image_file), image_file)
    run_all(world)
    world.running("db-1")[0][1].power = Power.OFF
    state = run_all(world)
    assert state.finished is not None and state.finished.outcome == "converged"
    assert "db-1/follow" not in state.steps


# -- properties

_HOSTS = ["h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"]
_SERVERS = ["db-1", "idx-1", "fe-1", "fe-2", "fe-3", "fe-4", "lb-1"]
_there = st.builds(
    lambda h, g, p, words: f"{h} g{g} {p} {' '.join(words)}",
    st.sampled_from(_HOSTS),
    st.integers(1, 9),
    st.sampled_from(["running", "off", "paused", "crashed"]),
    st.lists(st.sampled_from(["broken", "young", "redrawn", "diskless", "unrun"]), unique=True),
)
_away = st.builds(
    lambda h, words: f"{h} {' '.join(words)}",
    st.sampled_from(_HOSTS),
    st.lists(st.sampled_from(["off", "mute", "seen"]), unique=True),
)
_note = st.builds(
    lambda s, g, kind: f"demo.{s}.g{g}{kind}.note",
    st.sampled_from(_SERVERS),
    st.integers(1, 9),
    st.sampled_from(["", ".at-0-1-10", ".at-0-1-10", ".at-0-1-11"]),
)
_case = st.fixed_dictionaries(
    {
        "servers": st.dictionaries(st.sampled_from(_SERVERS), st.lists(_there, min_size=1, max_size=2).map(" + ".join)),
        "away": st.lists(_away, unique_by=lambda t: t.split()[0], max_size=3),
        "restored": st.booleans(),
        "indexed": st.booleans(),
        "files": st.dictionaries(st.sampled_from(_HOSTS), st.lists(_note, max_size=3), max_size=4),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=_case)
def test_safety_holds_whatever_is_there(desired: Desired, image_file: Path, case: dict[str, Any]) -> None:
    world = SimWorld(desired, image_file)
    arrange(world, case)
    observed = world.observe()
    decisions = decide(desired, observed)
    made = plan(desired, observed, DATE)
    keys = [n.key for n in made.nodes]
    assert keys == [n.key for n in plan(desired, world.observe(), DATE).nodes], "the same input gives the same plan"
    position = {key: i for i, key in enumerate(keys)}
    assert all(position[need] < position[n.key] for n in made.nodes for need in n.info.needs), "the order can be run"
    for name, d in decisions.items():
        copies = list(observed.copies("demo", name))
        if d.act is Act.BUILD:
            assert set(d.fences) == set(observed.unreachable()), "every host that may run it is proven off first"
        if d.act in (Act.BUILD, Act.REBUILD):
            assert d.host not in observed.unreachable()
            assert all(d.generation > (s.mark.generation if s.mark else 0) for _, s in copies), "generations grow"
    check_fences(made, decisions)
    check_twins(world, made)
    check_put_away(made, observed)
    fenced = {n.info.host for n in made.nodes if isinstance(n.step, Fence)}
    assert not fenced or any(d.fences for d in decisions.values()), "nothing is fenced when nothing is missing"
    before = {h: set(hosts.domains) for h, hosts in world.hosts.items()}
    twice_before = {s for s, hosts in marks_of(world).items() if len(hosts) > 1}
    run_all(world)
    running = {s for s, hosts in marks_of(world).items() if len(hosts) > 1}
    assert running <= twice_before, "pcloud starts no second copy"
    for host in observed.unreachable():
        assert set(world.hosts[host].domains) == before[host], "nothing is made or removed on a silent host"
        assert host in fenced or world.hosts[host].powered or "off" in str(case["away"]), "only a plan's fence cuts"


def check_fences(made: Plan, decisions: Mapping[str, Decision]) -> None:
    """No start of a moved server without its fences before it, on a path of needs that must end well."""
    nodes = {n.key: n for n in made.nodes}
    for d in decisions.values():
        for act in ("disk", "define", "start"):
            node = nodes.get(f"{d.host}/{d.server}/{act}")
            if node is not None and d.fences:
                assert {f"{h}/fence" for h in d.fences} <= _surely_before(nodes, node), (node.key, d.fences)


def _surely_before(nodes: Mapping[str, PlanNode], node: PlanNode) -> set[str]:
    """What has ended well whenever this node starts."""
    direct = {k for need in node.needs if need.enough == len(need.keys) for k in need.keys}
    return direct.union(*(_surely_before(nodes, nodes[k]) for k in direct))


def check_twins(world: SimWorld, made: Plan) -> None:
    """The database and its replica are not put on one host by this plan; who is made anew stays where it was."""
    retired = {n.info.server for n in made.nodes if n.info.action == "retire"}
    defined = {n.info.server: n.info.host for n in made.nodes if n.info.action == "define"}
    starts = {server: host for server, host in defined.items() if server not in retired}
    where = newest_hosts(world) | starts
    if {"db-1", "idx-1"} & set(starts) and {"db-1", "idx-1"} <= set(where) and world.site.database.replica:
        assert where["db-1"] != where["idx-1"]


def check_put_away(made: Plan, observed: Observed) -> None:
    """Only what came back, off first; a new one beside it comes later; of the data only what the primary surely has.

    Where nobody accepts writes yet, the step asks whoever does by then.
    """
    nodes = {n.key: n for n in made.nodes}
    known = read_generations(observed, "demo", ("db-1", "idx-1"))
    old = {(q.host, q.server): q for q in quarantined(observed, "demo", known)}
    writing = [d for d in observed.data.databases.values() if d.writable and d.restored]
    for node in (n for n in made.nodes if n.info.action == "put away"):
        host, server = str(node.info.host), str(node.info.server)
        copy, before = old[host, server], _surely_before(nodes, node)
        assert not copy.runs or f"{host}/{server}/quarantine" in before
        if f"{host}/{server}/define" in nodes:
            assert node.key in _surely_before(nodes, nodes[f"{host}/{server}/define"])
        else:
            answers = made.kept.get(server, "").startswith("healthy") or f"{server}/ready" in before
            assert node.aside and answers, node.key
        if server in ("db-1", "idx-1"):
            seen = observed.host(host)
            stem = f"demo.{server}.g{copy.generation}.at-"
            notes = {v for v in (seen.volumes if seen else ()) if v.startswith(stem)}
            if f"{host}/{server}/inspect" not in nodes:  # else its disk is read first, and the step asks for itself
                assert notes == {f"{stem}0-1-10.note"} if writing else notes and node.aside
            assert len(writing) <= 1


def newest_hosts(world: SimWorld) -> dict[str, str]:
    """Where the copy of each server is that counts: an older one beside it is quarantined, whether it runs or not."""
    copies = sorted(
        (d.mark.generation, d.power is Power.RUNNING, d.mark.server, h)
        for h, host in world.hosts.items()
        for d in host.domains.values()
        if d.mark
    )
    return {server: host for _, _, server, host in copies}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=_case)
def test_whatever_is_there_two_runs_converge_or_say_why(
    desired: Desired, image_file: Path, case: dict[str, Any]
) -> None:
    world = SimWorld(desired, image_file)
    arrange(world, {**case, "away": []})
    for _ in range(4):
        state = run_all(world)
        world.clock.sleep(600)
    assert state.finished is not None
    if state.finished.outcome == "converged":
        assert [n.key for n in plan(desired, world.observe(), DATE).nodes] == ["journey"]
    else:
        assert any(d.act is Act.BLOCK for d in decide(desired, world.observe()).values()) or any(
            d.broken for h in world.hosts.values() for d in h.domains.values()
        ), told(plan(desired, world.observe(), DATE))


def test_no_host_is_filled_beyond_its_memory(world: SimWorld) -> None:
    run_all(world)
    for name, host in world.hosts.items():
        used = sum(d.memory_mib for d in host.domains.values())
        assert used <= 4096, name
    assert max(len(h.domains) for h in world.hosts.values()) == 1
    assert not world.hosts["h8"].domains, "the spare host stays spare"


def test_hosts_of_the_simulation_are_those_of_the_site(world: SimWorld) -> None:
    assert set(world.hosts) == set(_HOSTS)
    assert isinstance(world.hosts["h1"], SimHost)


def test_a_promotion_waits_for_the_proof_and_for_nothing_that_comes_after_it(world: SimWorld) -> None:
    """Neither for an image, nor for a place, a disk or a boot of the next copy."""
    run_all(world)
    arrange_sighting(world)
    world.cut("h1")
    made = plan(world.desired, world.observe(), DATE)
    needs, before, todo = {n.key: n for n in made.nodes}, set[str](), ["idx-1/promote"]
    while todo:
        found = set(needs[todo.pop()].info.needs) - before
        before |= found
        todo += found
    assert {needs[k].info.action for k in before} == {"fence", "note"}
    assert {"h1/fence", "db-1/past", "idx-1/filled"} >= before
