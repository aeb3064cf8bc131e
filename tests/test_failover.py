"""A host that a person leaves: what becomes of it and its servers, and when that is refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import cast

import pytest
from typer.testing import CliRunner

from pcloud.cli import make_app
from pcloud.cli.look import _rows
from pcloud.cli.session import Session
from pcloud.desired import Options
from pcloud.errors import Blocked
from pcloud.events import Event, RunState, Status, StepBlocked
from pcloud.execute import _Reporter, execute
from pcloud.failover import describe_loss, find_unfenced, leave_alone, plan_failover
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.kept import NEVER_SEEN, Backup, Shelf
from pcloud.observed import Observed
from pcloud.plan import Plan, plan
from pcloud.steps.gate import AwaitSale
from pcloud.world import World
from tests.plan_cases import DATE, arrange_sighting
from tests.simulated_power import Bmc
from tests.simulation import SimWorld, marks_of, with_options
from tests.test_plan import Memory, is_whole, run_all


@pytest.fixture
def whole(world: SimWorld) -> SimWorld:
    """db-1 on h1, idx-1 on h4, the frontends on h2, h5, h7 and h3, lb-1 on h6; h8 is spare."""
    run_all(world)
    assert is_whole(world)
    world.clock.sleep(600)
    arrange_sighting(world)
    return world


def host_of(world: SimWorld, server: str) -> str:
    [host] = marks_of(world)[server]
    return host


def go(world: SimWorld, made: Plan) -> RunState:
    return execute(made, world, Memory(), Memory(), "run", world.clock)


def leave(world: SimWorld, host: str) -> RunState:
    return go(world, plan_failover(with_options(world.desired, lost=(host,)), world.observe(), DATE))


@pytest.mark.parametrize("server", ["db-1", "idx-1", "fe-1", "lb-1"])
def test_what_a_healthy_host_runs_is_stopped_and_made_elsewhere(whole: SimWorld, server: str) -> None:
    host = host_of(whole, server)
    state = leave(whole, host)
    assert state.finished is not None and state.finished.outcome == "converged", state.steps
    assert whole.hosts[host].powered
    assert f"{host}/fence" not in state.steps
    assert host_of(whole, server) != host
    assert is_whole(whole)
    whole.clock.sleep(600)
    again = leave(whole, host)
    assert again.finished is not None
    assert f"{host}/leave" not in again.steps, "nothing of the site's runs there"
    run_all(whole)
    left = {n.info.action for n in plan(whole.desired, whole.observe(), DATE).nodes}
    assert left - {"inspect", "put away"} == {"walk the journey"}, "but for the old copy, where it may hold data"


def test_a_silent_one_whose_power_cannot_be_cut_keeps_its_servers(whole: SimWorld) -> None:
    host = host_of(whole, "fe-1")
    whole.hosts[host].bmc = Bmc.MUTE
    whole.hosts[host].away = whole.hosts[host].seen = True
    state = leave(whole, host)
    assert state.finished is not None and state.finished.outcome == "blocked"
    assert state.steps[f"{host}/fence"].status is Status.BLOCKED
    assert host_of(whole, "fe-1") == host
    assert whole.serving("fe-1")


def test_without_a_controller_others_stand_in_until_a_person_has_pulled_the_plug(whole: SimWorld) -> None:
    host, desired = host_of(whole, "fe-1"), whole.desired
    whole.hosts[host].bmc = Bmc.MUTE
    whole.hosts[host].away = True  # and all that it runs goes on, where nobody looks
    state = leave(whole, host)
    problem = state.steps[f"{host}/fence"].problem
    assert isinstance(problem, StepBlocked)
    assert f"pcloud fence confirm demo/{host} --i-have-powered-it-off" in problem.next
    assert find_unfenced(state) == (host,)

    again = replace(desired, options=leave_alone(Options(lost=(host,)), (host,)))
    second = go(whole, plan(again, whole.observe(), DATE))
    assert second.finished is not None and second.finished.outcome == "blocked"
    assert second.steps["fe-5/ready"].status is Status.DONE
    assert second.steps["journey"].status is Status.DONE
    assert host_of(whole, "fe-5") != host and host_of(whole, "fe-1") == host
    assert plan(again, whole.observe(), DATE).changes == (), "who stands in already is enough"
    inventory = load_inventory(defaults_dir("inventory") / "demo.yaml")
    rows = {row["server"]: row for row in _rows(Session(inventory, desired, cast(World, whole)), whole.observe())}
    assert (rows["fe-1"]["copies"], rows["fe-5"]["healthy"]) == ([], True), "status shows who stands in"

    whole.cut(host)
    whole.confirmed[host] = "you, at 22:41"
    last = go(whole, plan(desired, whole.observe(), DATE))
    assert last.finished is not None and last.finished.outcome == "converged", last.steps
    assert host_of(whole, "fe-1") != host
    assert marks_of(whole)["fe-5"] == [], "it is not needed any longer"
    whole.clock.sleep(600)
    assert [n.key for n in plan(desired, whole.observe(), DATE).nodes] == ["journey"]


def test_what_must_keep_its_address_has_nobody_who_stands_in(whole: SimWorld) -> None:
    host, desired = host_of(whole, "db-1"), whole.desired
    whole.hosts[host].bmc = Bmc.MUTE
    whole.hosts[host].away = True
    assert find_unfenced(leave(whole, host)) == (host,)
    again = replace(desired, options=leave_alone(Options(lost=(host,)), (host,)))
    made = plan(again, whole.observe(), DATE)
    assert made.changes == ()
    assert {n.info.server for n in made.blocked} == {"db-1"}


def test_a_run_that_was_interrupted_has_no_second_one(whole: SimWorld) -> None:
    host = host_of(whole, "fe-1")
    whole.hosts[host].bmc = Bmc.MUTE
    whole.hosts[host].away = True
    made = plan_failover(with_options(whole.desired, lost=(host,)), whole.observe(), DATE)
    asked = threading.Event()

    class CtrlC(Memory):
        def append(self, *events: Event) -> None:
            if any(isinstance(e, StepBlocked) for e in events):
                asked.set()

    state = execute(made, whole, CtrlC(), Memory(), "run", whole.clock, asked)
    assert state.steps[f"{host}/fence"].status is Status.BLOCKED
    assert state.finished is not None and state.finished.outcome == "interrupted"
    assert find_unfenced(state) == ()


def test_one_with_nothing_of_the_site_is_not_fenced(whole: SimWorld) -> None:
    empty = next(h for h in whole.hosts if not whole.hosts[h].domains)
    desired, observed = with_options(whole.desired, lost=(empty,)), whole.observe()
    made = plan_failover(desired, observed, DATE)
    assert [n.key for n in made.nodes] == ["journey"]
    assert "no power is cut" in describe_loss(desired, observed, made)


def only_with_room_on(observed: Observed, *hosts: str) -> Observed:
    return replace(observed, hosts=tuple(h if h.name in hosts else replace(h, memory_mib=1) for h in observed.hosts))


def test_a_healthy_server_that_fits_nowhere_else_keeps_its_host(whole: SimWorld) -> None:
    host = host_of(whole, "fe-1")
    full = only_with_room_on(whole.observe(), host)
    with pytest.raises(Blocked, match="fe-1 is healthy there, and without h2 it could not be made") as refused:
        plan_failover(with_options(whole.desired, lost=(host,)), full, DATE)
    assert f"pcloud fence demo/{host}" in refused.value.next
    whole.hosts[host].away = True  # then there is nothing to keep, and the plan says what fits
    silent = only_with_room_on(whole.observe(), host)
    assert plan_failover(with_options(whole.desired, lost=(host,)), silent, DATE).blocked


def test_the_only_copy_of_the_data_keeps_its_host(whole: SimWorld) -> None:
    whole.cut(host_of(whole, "idx-1"))
    host = host_of(whole, "db-1")
    desired, observed = with_options(whole.desired, lost=(host,)), whole.observe()
    accepted = with_options(whole.desired, lost=(host,), accept_loss="unknown")
    assert any(n.info.action == "restore" for n in plan(accepted, observed, DATE).nodes)  # what is prevented
    for wish in (desired, accepted):
        with pytest.raises(Blocked, match="db-1 there may hold orders that are nowhere else") as refused:
            plan_failover(wish, observed, DATE)
    assert refused.value.next.startswith("pcloud recover demo")


def test_a_backup_is_no_reason_to_leave_the_only_copy_of_the_data(whole: SimWorld) -> None:
    """Orders after the last backup, and after what hosts streamed of the binary log, are on that copy alone."""
    whole.cut(host_of(whole, "idx-1"))
    host = host_of(whole, "db-1")
    whole.running("db-1")[0][1].hung = True
    backup = Backup("20261120-030000", "t", "0-1-5", "2026-11-20T03:00:00Z", 1, "a" * 64, "idx-1", "10.11", 60, 1, "t")
    desired = with_options(whole.desired, lost=(host,))
    whole.shelves = (Shelf("h7", (backup,)),)
    accepted = with_options(whole.desired, lost=(host,), accept_loss="unknown")
    for wish, left in ((desired, "this would be left: the backup of"), (accepted, "a backup would be restored")):
        with pytest.raises(Blocked, match=f"db-1 there may hold orders that are nowhere else; without it {left}"):
            plan_failover(wish, whole.observe(), DATE)
    whole.shelves, whole.keeping = (), (host,)
    with pytest.raises(Blocked, match=r"this would be left: the last backup .* is on h1, which cannot be asked"):
        plan_failover(desired, whole.observe(), DATE)
    with pytest.raises(Blocked, match="without it no backup could be asked"):
        plan_failover(accepted, whole.observe(), DATE)


@pytest.mark.parametrize("silent", [("db-1", "idx-1"), ("db-1",)])
def test_no_power_is_cut_before_a_person_agrees_to_the_loss(whole: SimWorld, silent: tuple[str, ...]) -> None:
    """A host that only we do not reach may hold the latest data, and go on: no consent, no cut."""
    hosts = tuple(host_of(whole, server) for server in silent)
    for host in hosts:
        whole.hosts[host].away = True
    if len(silent) == 1:  # the replica fell behind, so that its promotion has a price
        whole.find_data("idx-1").heard = None  # type: ignore[union-attr]
    refused = go(whole, plan_failover(with_options(whole.desired, lost=hosts), whole.observe(), DATE))
    assert refused.finished is not None and refused.finished.outcome == "blocked"
    stopped = [s.problem for k, s in refused.steps.items() if k.endswith("/consent")]
    assert len(stopped) == 1 and isinstance(stopped[0], StepBlocked)
    assert f"pcloud failover demo {' '.join(hosts)} --accept-loss unknown" in stopped[0].next
    for host in hosts:
        assert whole.hosts[host].powered
        assert refused.steps[f"{host}/fence"].status is Status.SKIPPED
    accepted = with_options(whole.desired, lost=hosts, accept_loss="unknown")
    agreed = go(whole, plan_failover(accepted, whole.observe(), DATE))
    assert agreed.finished is not None and agreed.finished.outcome == "converged"
    assert not any(whole.hosts[h].powered for h in hosts)


def test_the_question_says_that_data_come_from_a_backup(whole: SimWorld) -> None:
    for server in ("db-1", "idx-1"):
        whole.cut(host_of(whole, server))
    host = next(h for h, at in whole.hosts.items() if "demo.db-1" in at.domains)
    desired, observed = with_options(whole.desired, lost=(host,), accept_loss="unknown"), whole.observe()
    question = describe_loss(desired, observed, plan_failover(desired, observed, DATE))
    assert "db-1 gets its data back: no server holds the data: the latest dump" in question


def test_the_question_says_what_will_stop(whole: SimWorld) -> None:
    def ask(host: str) -> str:
        desired, observed = with_options(whole.desired, lost=(host,)), whole.observe()
        return describe_loss(desired, observed, plan_failover(desired, observed, DATE))

    database, frontend = host_of(whole, "db-1"), host_of(whole, "fe-1")
    assert ask(frontend).startswith(f"{frontend} answers, and fe-1 (healthy) runs there. Stop what runs on {frontend}")
    assert "takes the database over" not in ask(frontend)
    assert "idx-1 takes the database over first, with nothing lost. Stop what runs on h1, and take" in ask(database)
    whole.hosts[frontend].away = True
    assert ask(frontend).startswith(f"{frontend} does not answer. Cut the power of {frontend}")


def test_a_host_that_there_is_not_is_bad_input() -> None:
    result = CliRunner().invoke(make_app(), ["failover", "demo", "h33", "--yes"])
    assert result.exit_code == 2
    assert 'demo has no host "h33"' in result.output
    assert "did you mean h3?" in result.output


def test_a_lost_database_sells_again_before_anything_heavy_begins(whole: SimWorld) -> None:
    whole.cut(host_of(whole, "db-1"))
    made = plan(whole.desired, whole.observe(), DATE)
    heavy = [n for n in made.nodes if n.info.action in ("copy image", "verify image", "start")]
    assert heavy and all("sale" in n.info.needs for n in heavy)
    state = go(whole, made)
    assert state.finished is not None and state.finished.outcome == "converged", state.steps
    assert state.steps["sale"].facts["sells"] is True


def test_nobody_waits_for_a_sale_that_needs_the_lost_servers(whole: SimWorld) -> None:
    for server in ("db-1", "lb-1"):
        whole.cut(host_of(whole, server))
    made = plan(whole.desired, whole.observe(), DATE)
    starts = [n for n in made.nodes if n.info.action == "start"]
    assert starts and all("idx-1/promote" in n.info.needs for n in starts)
    assert "sale" not in [n.key for n in made.nodes]


def test_a_sale_that_does_not_come_is_waited_for_and_no_failure(world: SimWorld) -> None:
    report = _Reporter("sale", lambda event: None, world.clock.now, threading.Event())
    began = world.clock.now()
    found = AwaitSale(world.site.journey, 8).do(world, report)
    assert found["sells"] is False
    assert 8 <= world.clock.now() - began < 10


def test_ctrl_c_ends_the_wait_for_a_sale(world: SimWorld) -> None:
    stop = threading.Event()
    stop.set()
    began = world.clock.now()
    AwaitSale(world.site.journey, 8).do(world, _Reporter("sale", lambda event: None, world.clock.now, stop))
    assert world.clock.now() - began < 1


def test_a_failover_that_may_lose_orders_names_itself_as_the_next_command(whole: SimWorld) -> None:
    host = host_of(whole, "db-1")
    whole.hosts[host].powered = False
    whole.clock.sleep(600)
    seen = whole.observe()
    unheard = replace(seen, data=replace(seen.data, known=NEVER_SEEN))
    made = plan_failover(with_options(whole.desired, lost=(host,)), unheard, DATE)
    assert f"accept the loss: pcloud failover demo {host} --accept-loss unknown" in str(made)
