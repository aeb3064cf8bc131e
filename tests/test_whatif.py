"""What the loss of a host or a rack would mean, against what a recovery does when it is really lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pcloud.cli import make_app
from pcloud.decide import decide
from pcloud.desired import Desired
from pcloud.inventory import defaults_dir
from pcloud.model import Site
from pcloud.observed import Observed
from pcloud.plan import Plan, plan
from pcloud.playbook import load_playbook
from pcloud.render.whatif import reasons_of, render_what_if
from pcloud.whatif import Loss, Subject, as_lost, look, subjects_of
from tests.conftest import make_desired
from tests.consoles import shown_by
from tests.plan_cases import DATE, arrange_sighting
from tests.simulation import SimWorld
from tests.test_plan import run_all

DURATIONS = {"fence": 4.0, "start": 2.0, "fe/ready": 30.0, "db/ready": 50.0, "idx/ready": 50.0, "lb/ready": 20.0}
HOSTS = [f"h{n}" for n in range(1, 9)]


@pytest.fixture
def whole(world: SimWorld) -> SimWorld:
    """db-1 on h1, idx-1 on h4, the frontends on h2, h5, h7 and h3, lb-1 on h6; h8 is spare."""
    run_all(world)
    world.clock.sleep(600)
    arrange_sighting(world)
    return world


def judge_all(desired: Desired, observed: Observed) -> dict[str, Loss]:
    outlook = look(desired, observed, DURATIONS)
    return {str(s): outlook.judge(s) for s in subjects_of(desired.site)}


def places(loss: Loss) -> dict[str, str]:
    return {m.server: m.new for m in loss.moves}


def with_memory(observed: Observed, memory_mib: Mapping[str, int]) -> Observed:
    return replace(
        observed, hosts=tuple(replace(h, memory_mib=memory_mib.get(h.name, h.memory_mib)) for h in observed.hosts)
    )


def shape(made: Plan) -> set[tuple[str, str | None, tuple[str, ...]]]:
    return {(n.key, n.info.host, n.info.needs) for n in made.nodes}


def test_the_page_shows_what_is_so(whole: SimWorld) -> None:
    """The table in docs/failover.md, without times."""
    outlook = look(whole.desired, whole.observe(), {})
    losses = [outlook.judge(s) for s in subjects_of(whole.desired.site)]
    shown = shown_by(render_what_if(outlook, losses, (), measured=False, why=False), width=120)
    page = (Path(__file__).parent.parent / "docs" / "failover.md").read_text("utf-8")
    assert "\n".join(line.rstrip() for line in shown.strip().splitlines()) in page


@pytest.mark.parametrize("host", HOSTS)
def test_it_is_the_plan_that_follows_when_the_host_is_really_lost(whole: SimWorld, host: str) -> None:
    before = whole.observe()
    expected = plan(whole.desired, as_lost(before, [host]), DATE)
    loss = judge_all(whole.desired, before)[host]
    whole.cut(host)
    real = plan(whole.desired, whole.observe(), DATE)
    assert shape(real) == shape(expected)
    assert {n.info.server: n.info.host for n in real.nodes if n.info.action == "define"} == places(loss)
    run_all(whole)
    for server, where in places(loss).items():
        assert [h for h, _ in whole.running(server)] == [where]


def test_the_demo_can_lose_any_host_and_any_rack(whole: SimWorld) -> None:
    losses = judge_all(whole.desired, whole.observe())
    assert list(losses) == [*HOSTS, "rack a", "rack b", "rack c"]
    assert all(loss.survived for loss in losses.values())
    assert losses["h1"].effects.promoted == "idx-1"
    assert "no acknowledged order is lost" in losses["h1"].effects.rpo
    assert not losses["h4"].effects.promoted, "the replica's host: the primary stays what it is"
    assert losses["h8"].moves == ()
    assert set(places(losses["rack a"])) == {"db-1", "fe-1", "fe-4"}
    assert losses["h2"].effects.seconds == losses["h5"].effects.seconds >= 30 + 4
    assert losses["h1"].effects.seconds > losses["h2"].effects.seconds


_memory = st.dictionaries(st.sampled_from(HOSTS), st.sampled_from([900, 1200, 1700, 2400, 4096]), max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(memory_mib=_memory)
def test_what_is_placed_alone_is_what_every_decision_taken_again_says(
    whole: SimWorld, memory_mib: dict[str, int]
) -> None:
    observed = with_memory(whole.observe(), memory_mib)
    outlook = look(whole.desired, observed, DURATIONS)
    for subject in subjects_of(whole.site):
        loss, decided = outlook.judge(subject), decide(whole.desired, as_lost(observed, subject.hosts))
        assert {m.server: m.new for m in loss.moves} == {
            n: d.host for n, d in decided.items() if outlook.decided[n].host in subject.hosts
        }
        for move in loss.moves:
            assert decided[move.server].reason.endswith(move.why)
            assert move.short == (d.short if (d := decided[move.server].no_room) else "")
        alone = look(whole.desired, observed, DURATIONS).judge(subject)
        assert alone.effects == replace(loss.effects, rpo=alone.effects.rpo), "plans of one kind are alike"


def test_who_has_no_room_is_named_with_what_is_short(whole: SimWorld) -> None:
    observed = with_memory(whole.observe(), dict.fromkeys(HOSTS[1:], 1000))
    loss = judge_all(whole.desired, observed)["h1"]
    [homeless] = loss.homeless
    assert (homeless.server, homeless.new, homeless.short) == ("db-1", "", "memory")
    assert "it takes 832 MiB, which no host that answers has left" in homeless.why
    assert not loss.survived
    text = shown_by(render_what_if(look(whole.desired, observed, {}), [loss], [], measured=False, why=True), width=120)
    assert "no memory for db-1" in text
    assert "demo cannot lose host h1" in text


def test_without_a_replica_the_loss_of_the_database_costs_orders(image_file: Path) -> None:
    data = yaml.safe_load((defaults_dir("inventory") / "demo.yaml").read_text())
    del data["database"]["replica"]
    playbook = load_playbook(defaults_dir("playbooks") / "recover.yaml")
    world = SimWorld(make_desired(Site.model_validate(data), playbook, image_file), image_file)
    run_all(world)
    world.clock.sleep(600)
    losses = judge_all(world.desired, world.observe())
    [with_database] = [s for s in HOSTS if "db-1" in places(losses[s])]
    assert losses[with_database].effects.restored
    assert not losses[with_database].survived
    assert all(losses[h].survived for h in HOSTS if h != with_database)


def test_what_is_wrong_now_is_said_and_counts(whole: SimWorld) -> None:
    whole.hosts["h5"].away = whole.hosts["h5"].seen = True
    outlook = look(whole.desired, whole.observe(), DURATIONS)
    assert set(outlook.unsettled) == {"h5", "fe-2"}
    loss = outlook.judge(Subject("host", "h2", ("h2",)))
    assert loss.moves == ()
    assert any(stop.startswith("fe-1: it may be running on h5") for stop in loss.effects.stops), loss.effects.stops
    assert not loss.survived


def test_the_table_says_what_goes_where_and_the_reasons_say_why(whole: SimWorld) -> None:
    outlook = look(whole.desired, whole.observe(), DURATIONS)
    losses = [outlook.judge(s) for s in subjects_of(whole.site)]
    lines = shown_by(render_what_if(outlook, losses, [], measured=True, why=False), width=120).splitlines()
    first = next(line for line in lines if line.startswith("h1 "))
    assert first.split("  ")[0] == "h1" and "db-1" in first and "idx-1 takes over" in first and "✓" in first
    assert lines[-2:] == ["demo can lose any one host", "demo can lose any one rack"]
    h2 = next(loss for loss in losses if str(loss.subject) == "h2")
    assert reasons_of(h2) == ["h2: fe-1: h1: 3008 MiB free, no other frontend there, 1 in rack a"]
    partly = shown_by(render_what_if(outlook, losses[:3], [losses[3].subject], measured=False, why=False), width=120)
    assert "not looked at, as time was up: h4; --within gives it more" in partly
    assert "demo can lose any of the 3 hosts that were looked at" in partly


def test_a_plan_for_a_loss_is_marked_and_never_saved(whole: SimWorld, tmp_path: Path) -> None:
    made = replace(plan(whole.desired, as_lost(whole.observe(), ["h1"]), DATE), lost=("h1",))
    assert json.loads(made.to_json())["as_if_lost"] == ["h1"]
    for argv, words in [
        (["--lose", "h33"], "did you mean h3?"),
        (["--lose-rack", "z"], "the racks are a, b, c"),
        (["--lose", "h1", "--out", str(tmp_path / "p")], "is never run"),
    ]:
        result = CliRunner().invoke(make_app(), ["plan", "demo", *argv])
        assert result.exit_code == 2, result.output
        assert words in result.output
    assert not (tmp_path / "p").exists()
