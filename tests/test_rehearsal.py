"""A host's power, cut and restored on a quiet day: what is refused, what is done, and what the forecast learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from pcloud.cli import make_app
from pcloud.cli.recover import past_runs
from pcloud.errors import BadInput, Blocked
from pcloud.events import RunState, Status, StepBlocked, StepInfo
from pcloud.execute import execute
from pcloud.journal import Journal, new_run_id, read_run
from pcloud.kept import Backup, LastBackup, Shelf
from pcloud.model import Bmc as BmcOfHost
from pcloud.observed import HostPower, Observed, Power, SeenServer
from pcloud.places import runs_dir
from pcloud.plan import plan
from pcloud.rehearsal import OPERATION, plan_rehearsal
from pcloud.timing import durations_from, predicted_s
from pcloud.whatif import Subject, as_lost, look
from tests.plan_cases import DATE
from tests.simulated_power import Bmc
from tests.simulated_time import SimClock
from tests.simulation import SimWorld
from tests.test_plan import run_all

FREE, BUSY = "h8", "h5"
BACKUP = Backup("b", "l", "0-1-7", "2026-11-26T06:50:19Z", 1, "0", "idx-1", "10.11", 1, 1, "2026-11-26T06:51:19Z")
GUEST = SeenServer("somebody", "11111111-2222-3333-4444-555555555555", Power.RUNNING, None, 512)


class Ticking(SimClock):
    """Effects take time, and what will happen by itself does."""

    def __init__(self) -> None:
        super().__init__()
        self._later: list[tuple[float, Callable[[], None]]] = []

    def work(self, seconds: float) -> None:
        self.sleep(seconds)

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._later.append((when, act))

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        due = [act for when, act in self._later if when <= self.now()]
        self._later = [(when, act) for when, act in self._later if when > self.now()]
        for act in due:
            act()


@pytest.fixture
def whole(world: SimWorld) -> SimWorld:
    """db-1 on h1, idx-1 on h4, the frontends on h2, h5, h7 and h3, lb-1 on h6; h8 is spare, and has nothing."""
    run_all(world)
    world.clock = Ticking()
    world.clock.sleep(6000)
    return world


def with_host(observed: Observed, name: str, **changes: Any) -> Observed:
    return replace(observed, hosts=tuple(replace(h, **changes) if h.name == name else h for h in observed.hosts))


def with_data(observed: Observed, **changes: Any) -> Observed:
    return replace(observed, data=replace(observed.data, **changes))


def rehearse(world: SimWorld, host: str) -> RunState:
    """As `pcloud fence demo HOST --rehearse` does: observed, planned, executed, journaled."""
    world.controls.clear()
    made = plan_rehearsal(world.desired, world.observe(), host)
    run_id = new_run_id(runs_dir("demo"), datetime.now(UTC), OPERATION)
    with Journal.create(runs_dir("demo"), run_id) as journal:
        execute(made, world, journal, NoFace(), run_id, world.clock)
    return read_run(journal.path)


def refusal(state: RunState) -> StepBlocked:
    """Why the run's one step was blocked."""
    (step,) = state.steps.values()
    assert isinstance(step.problem, StepBlocked), step
    return step.problem


class NoFace:
    def show(self, state: RunState, event: object) -> None: ...
    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("host", "change", "reasons", "go_on"),
    [
        (BUSY, lambda o: o, "fe-2 runs there", "pcloud failover demo h5"),
        (FREE, lambda o: with_host(o, FREE, servers=(GUEST,)), "somebody runs there", ""),
        (FREE, lambda o: with_host(o, FREE, servers=(replace(GUEST, power=Power.PAUSED),)), "somebody is paused", ""),
        (
            FREE,
            lambda o: with_host(o, FREE, problem="no answer", silent=True),
            "it does not answer, so nobody knows what it carries",
            "pcloud power demo/h8 on",
        ),
        (FREE, lambda o: with_host(o, "h2", problem="no answer", silent=True), "h2 does not answer", "pcloud recover"),
        (FREE, lambda o: with_data(o, shelves=(Shelf(FREE, (BACKUP,)),)), "it keeps the only backup", "pcloud backup"),
        (
            FREE,
            lambda o: with_data(o, shelves=(Shelf(FREE, (BACKUP,)), Shelf("h7", (replace(BACKUP, id="a"),)))),
            "it keeps the only copy of backup b",
            "pcloud backup",
        ),
        (FREE, lambda o: with_data(o, shelves=(Shelf(FREE, streaming=True),)), "it streams the binary log", ""),
        (FREE, lambda o: with_data(o, last_backup=LastBackup("b", "", (FREE,))), "it keeps the only backup", ""),
        (
            FREE,
            lambda o: with_host(o, FREE, servers=(replace(GUEST, power=Power.RUNNING), replace(GUEST, name="other"))),
            "somebody, other run there",
            "",
        ),
    ],
)
def test_a_host_that_carries_something_is_refused(
    whole: SimWorld, host: str, change: Callable[[Observed], Observed], reasons: str, go_on: str
) -> None:
    with pytest.raises(Blocked) as caught:
        plan_rehearsal(whole.desired, change(whole.observe()), host)
    assert (caught.value.where, caught.value.exit_code) == (host, 3)
    assert reasons in caught.value.what
    assert go_on in caught.value.next
    assert caught.value.next


def test_the_only_copy_of_the_data_is_not_cut_though_nothing_runs_there(whole: SimWorld) -> None:
    observed = whole.observe()
    off = tuple(replace(s, power=Power.OFF) for s in observed.host("h1").servers)  # type: ignore[union-attr]
    with pytest.raises(Blocked, match="it holds db-1's disk, and no other server is seen to hold all that is on it"):
        plan_rehearsal(whole.desired, with_data(with_host(observed, "h1", servers=off), databases={}), "h1")


def test_backups_that_others_keep_too_keep_nobody_from_it(whole: SimWorld) -> None:
    shelves = tuple(Shelf(host, (BACKUP,), streaming=host != FREE) for host in (FREE, "h7", "h3"))
    seen = with_data(whole.observe(), shelves=shelves, last_backup=LastBackup("b", "", (FREE, "h7", "h3")))
    assert [n.key for n in plan_rehearsal(whole.desired, seen, FREE).nodes] == ["h8/rehearse"]


def test_a_host_without_a_controller_is_bad_input(whole: SimWorld) -> None:
    site = whole.desired.site
    desired = replace(whole.desired, site=site.model_copy(update={"lab": None}))
    with pytest.raises(BadInput, match="no management controller"):
        plan_rehearsal(desired, whole.observe(), FREE)
    hosts = tuple(h.model_copy(update={"bmc": BmcOfHost(ipmi="10.0.9.1")}) for h in site.hosts)
    desired = replace(desired, site=site.model_copy(update={"lab": None, "hosts": hosts}))
    assert plan_rehearsal(desired, whole.observe(), FREE).nodes


def test_its_power_is_cut_and_restored_and_the_forecast_knows_how_long(whole: SimWorld) -> None:
    state = rehearse(whole, FREE)
    (step,) = state.steps.values()
    assert (step.status, step.changed) == (Status.DONE, True), step.problem
    assert step.facts["how"] == "redfish: on, then off, read twice"
    assert 1 <= step.facts["off_s"] < 5 < step.facts["back_s"] < 120
    assert whole.hosts[FREE].powered and not whole.hosts[FREE].away
    durations = durations_from(past_runs("demo"))
    fence = StepInfo("h8/fence", "fence", (), FREE, None, "fence")
    assert predicted_s(fence, durations) == step.facts["off_s"]


def test_a_slow_host_makes_its_own_forecast_slow_and_nobody_elses(whole: SimWorld) -> None:
    whole.hosts[FREE].bmc = Bmc.LATE
    slow = float(next(iter(rehearse(whole, FREE).steps.values())).facts["off_s"])
    whole.hosts[FREE].bmc = Bmc.WELL
    arrangement = with_host(whole.observe(), BUSY, servers=())
    assert slow > 8
    whole.hosts[BUSY].domains.clear()
    quick = float(next(iter(rehearse(whole, BUSY).steps.values())).facts["off_s"])
    assert quick < 4 < slow
    durations = durations_from(past_runs("demo"))
    assert [durations[f"{h}/fence"] for h in (FREE, BUSY)] == [slow, quick]
    whole.cut(FREE)
    made = plan(whole.desired, as_lost(arrangement, [FREE]), DATE)
    assert all(predicted_s(n.info, durations) == slow for n in made.nodes if n.info.action == "fence")


def test_what_if_adds_what_cutting_this_hosts_power_takes(whole: SimWorld) -> None:
    observed = whole.observe()
    known = {"fence": 3.0, "ready": 30.0}
    before = look(whole.desired, observed, known).judge(Subject("host", "h3", ("h3",)))
    after = look(whole.desired, observed, known | {"h3/fence": 23.0}).judge(Subject("host", "h3", ("h3",)))
    assert after.effects.seconds > before.effects.seconds + 10
    outlook = look(whole.desired, observed, known | {"h3/fence": 23.0})
    other, own = (outlook.judge(Subject("host", h, (h,))).effects.seconds for h in ("h2", "h3"))
    assert (other, own) == (before.effects.seconds, after.effects.seconds)


def test_a_rehearsal_of_long_ago_still_counts(whole: SimWorld) -> None:
    off_s = next(iter(rehearse(whole, FREE).steps.values())).facts["off_s"]
    for _ in range(12):
        run_id = new_run_id(runs_dir("demo"), datetime.now(UTC), "recover")
        with Journal.create(runs_dir("demo"), run_id) as journal:
            execute(plan(whole.desired, whole.observe(), DATE), whole, journal, NoFace(), run_id, whole.clock)
    assert durations_from(past_runs("demo"))["h8/fence"] == off_s


@pytest.mark.parametrize("mode", [Bmc.MUTE, Bmc.PASSWORD, Bmc.NEVER, Bmc.REFUSES])
def test_a_controller_that_does_not_do_it_is_found_and_the_host_runs_on(whole: SimWorld, mode: Bmc) -> None:
    whole.hosts[FREE].bmc = mode
    problem = refusal(rehearse(whole, FREE))
    assert problem.what.startswith("its power cannot be cut: ")
    assert problem.next
    assert whole.hosts[FREE].powered and not whole.hosts[FREE].away
    assert "h8/fence" not in durations_from(past_runs("demo"))


def test_another_hosts_controller_is_found_before_the_night_and_that_host_is_switched_on_again(whole: SimWorld) -> None:
    whole.hosts["h7"].bmc = Bmc.CROSSED
    whole.hosts["h7"].domains.clear()
    problem = refusal(rehearse(whole, "h7"))
    assert problem.what.startswith("it is not proven off: redfish says that its power is off, and yet h7 accepts")
    assert whole.hosts["h7"].powered and whole.hosts[FREE].powered


def test_a_server_that_has_started_since_the_plan_keeps_its_host(whole: SimWorld) -> None:
    made = plan_rehearsal(whole.desired, whole.observe(), FREE)
    whole.hosts[FREE].domains = whole.hosts[BUSY].domains
    run_id = new_run_id(runs_dir("demo"), datetime.now(UTC), OPERATION)
    with Journal.create(runs_dir("demo"), run_id) as journal:
        execute(made, whole, journal, NoFace(), run_id, whole.clock)
    assert "runs there" in refusal(read_run(journal.path)).what
    assert whole.hosts[FREE].powered and not whole.hosts[FREE].away


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["fence", "confirm", "demo/h3", "--rehearse"], "a host is fenced, confirmed to be off, or rehearsed"),
        (["fence", "demo/h3", "--rehearse", "--i-have-powered-it-off"], "a host is fenced"),
        (["fence", "demo", "h33", "--rehearse"], 'demo has no host "h33"'),
        (["fence", "demo", "h3"], "a host is fenced"),
    ],
)
def test_words_that_go_ill_together(words: list[str], what: str) -> None:
    ran = CliRunner().invoke(make_app(), words)
    assert ran.exit_code == 2
    assert what in ran.output


def test_a_step_is_data(whole: SimWorld) -> None:
    made = plan_rehearsal(whole.desired, whole.observe(), FREE)
    data = json.loads(made.to_json())
    assert [(s["key"], s["host"], s["action"]) for s in data["steps"]] == [("h8/rehearse", FREE, "rehearse")]
    assert made.changes == made.nodes
    assert made.operation == OPERATION
    assert HostPower.OFF not in {h.power for h in whole.observe().hosts}
