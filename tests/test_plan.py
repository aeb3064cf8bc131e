"""The planner: data cases (what is there -> what would be done), and its properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcloud.clock import Clock
from pcloud.decide import Act, decide
from pcloud.desired import Desired, Names
from pcloud.events import Event, RunState, StepBlocked, StepDone
from pcloud.execute import _Reporter, execute, run_step
from pcloud.observed import Mark, Power
from pcloud.plan import Plan, plan
from tests.simulation import BOOT_S, Died, SimDomain, SimHost, SimWorld, marks_of, with_options

CASES = sorted((Path(__file__).parent / "cases" / "plan").glob("*.yaml"))
DATE = "20121116-2140"


class Memory:
    """A journal and a face that only remember."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append(self, *events: Event) -> None:
        self.events += events

    def show(self, state: RunState, event: Event) -> None:
        pass


def put(world: SimWorld, text: str, server: str) -> None:
    """`h4 g1 running ok|broken|old|young|redrawn`: a server that is there."""
    host, generation, power, *words = text.split()
    spec = world.desired.server(server)
    names = Names(world.site.site, server, int(generation[1:]))
    mark = Mark(
        world.site.site,
        server,
        spec.role,
        "old" if "redrawn" in words else spec.spec,
        spec.image.digest,
        int(generation[1:]),
    )
    domain = SimDomain(mark, spec.uuid, spec.memory_mib, (spec.mac,), Power(power), broken="broken" in words)
    domain.started_at = world.clock.now() - (5 if "young" in words else 100_000)
    world.hosts[host].domains[names.domain] = domain
    pool = world.host(host).pool
    if "diskless" not in words:
        world.hosts[host].files |= {f"{pool}/{names.disk}": "used", f"{pool}/{names.seed}": "seed"}


def arrange(world: SimWorld, case: dict[str, Any]) -> None:
    for server, text in case.get("servers", {}).items():
        for one in text.split(" + "):
            put(world, one, server)
    for host, name in case.get("foreign", {}).items():
        world.hosts[host].domains[name] = SimDomain(None, "f" * 8, 512, ())
    for host in case.get("away", []):
        world.hosts[host].away = True
    for host, files in case.get("files", {}).items():
        world.hosts[host].files |= {f"{world.host(host).pool}/{f}": "left" for f in files}
    if case.get("restored"):
        world.database, world.tables = ("restored", "demo.dddddddddddddddd.g1"), 60
    world.indexed = bool(case.get("indexed"))


def told(made: Plan) -> str:
    lines = [f"{n.key}: {n.info.reason}" if n.info.reason else n.key for n in made.nodes]
    return "\n".join([*lines, *(f"keep {s}: {why}" for s, why in made.kept.items())])


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_case(path: Path, world: SimWorld) -> None:
    case = yaml.safe_load(path.read_text())
    arrange(world, case)
    desired = with_options(
        world.desired, **{k: tuple(v) if isinstance(v, list) else v for k, v in case.get("options", {}).items()}
    )
    assert told(plan(desired, world.observe(), DATE)) == case["expect"].strip()


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
        all(len(hosts) == 1 for hosts in marks_of(world).values())
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


@pytest.mark.parametrize("options", [{"from_scratch": True}, {"rebuild": ("fe-2",)}, {"rebuild": ("db-1",)}])
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


# -- properties

_HOSTS = ["h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"]
_SERVERS = ["db-1", "idx-1", "fe-1", "fe-2", "fe-3", "fe-4", "lb-1"]
_there = st.builds(
    lambda h, g, p, words: f"{h} g{g} {p} {' '.join(words)}",
    st.sampled_from(_HOSTS),
    st.integers(1, 9),
    st.sampled_from(["running", "off", "paused", "crashed"]),
    st.lists(st.sampled_from(["broken", "young", "redrawn", "diskless"]), unique=True),
)
_case = st.fixed_dictionaries(
    {
        "servers": st.dictionaries(st.sampled_from(_SERVERS), st.lists(_there, min_size=1, max_size=2).map(" + ".join)),
        "away": st.lists(st.sampled_from(_HOSTS), unique=True, max_size=3),
        "restored": st.booleans(),
        "indexed": st.booleans(),
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
        if not copies and observed.unreachable():
            assert d.act is Act.BLOCK, "a server that may run on a silent host is not built"
        if d.act in (Act.BUILD, Act.REBUILD):
            assert d.host not in case["away"]
            assert all(d.generation > (s.mark.generation if s.mark else 0) for _, s in copies), "generations grow"
    before = {h: set(hosts.domains) for h, hosts in world.hosts.items()}
    run_all(world)
    running = [s for s, hosts in marks_of(world).items() if len(hosts) > 1]
    twice_before = [
        s
        for s, text in case["servers"].items()
        if text.count("running") + text.count("paused") + text.count("crashed") > 1
    ]
    assert set(running) <= set(twice_before), "pcloud starts no second copy"
    for host in case["away"]:
        assert set(world.hosts[host].domains) == before[host], "a silent host is left alone"


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
