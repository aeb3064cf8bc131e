"""A saved plan runs if it is what the plan is now, says what that does, and gives up no more than it said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from pcloud.errors import BadInput, Blocked
from pcloud.plan import Plan, check_same, plan
from tests.plan_cases import CASES, DATE, arrange
from tests.simulation import SimWorld, with_options


@pytest.fixture
def promotion(world: SimWorld) -> Callable[[str, str], Plan]:
    """The plan of a promotion, of what was last `seen` of the primary and what the replica has `received`."""
    [case] = [c for c in CASES if c.stem == "database-host-away"]
    arrange(world, yaml.safe_load(case.read_text()))
    found = world.observe()

    def make(seen: str, received: str) -> Plan:
        replica = replace(found.data.databases["idx-1"], received=received, position=received)
        known = replace(found.data.known, position=seen)
        data = replace(found.data, known=known, databases={**found.data.databases, "idx-1": replica})
        return plan(with_options(world.desired, accept_loss="unknown"), replace(found, data=data), DATE)

    return make


def refusal(saved: str, now: Plan) -> Blocked:
    with pytest.raises(Blocked) as caught:
        check_same(saved, now, "night.json")
    assert "--out night.json" in caught.value.next
    return caught.value


def test_the_same_plan_runs_though_its_reasons_have_other_times(promotion: Callable[[str, str], Plan]) -> None:
    made = promotion("0-1-10", "0-1-10")
    data = json.loads(made.to_json())
    for step in data["steps"]:
        step["reason"] += " 20 s ago"
    check_same(made.to_json(), made, "night.json")
    check_same(json.dumps(data), made, "night.json")


def test_a_loss_that_has_grown_is_not_run(promotion: Callable[[str, str], Plan]) -> None:
    none, many, more = (promotion(f"0-1-{n}", "0-1-10") for n in (10, 5000, 5001))
    assert none.losses["idx-1"].none and not many.losses["idx-1"].none
    for shown, now in ((none, many), (many, more)):
        said = refusal(shown.to_json(), now)
        assert f"more would be lost than when this plan was made: {now.losses['idx-1']}" in said.what
    for shown in (many, more):
        check_same(shown.to_json(), none, "night.json")
    check_same(more.to_json(), many, "night.json")
    forged = json.loads(more.to_json())
    del forged["losses"]
    refusal(json.dumps(forged), more)


STEPS: dict[str, Any] = {"action": "keep", "host": "h9", "server": "fe-9", "phase": "sale", "needs": [], "key": "h9/x"}


@pytest.mark.parametrize("change", [*STEPS, "site", "operation", "kept", "added"])
def test_a_file_that_says_something_else_is_not_run(promotion: Callable[[str, str], Plan], change: str) -> None:
    made = promotion("0-1-10", "0-1-10")
    data = json.loads(made.to_json())
    if change in STEPS:
        at = next(i for i, s in enumerate(data["steps"]) if s["needs"] and s["host"] and s["server"])
        data["steps"][at][change] = STEPS[change]
    elif change == "kept":
        data["kept"].popitem()
    elif change == "added":
        data["steps"].append({**data["steps"][0], "key": "h9/y"})
    else:
        data[change] = "other"
    refusal(json.dumps(data), made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"digest": 1}',
        '{"site": 1, "operation": 1, "digest": 1, "kept": 1, "steps": []}',
        '{"site": 1, "operation": 1, "digest": 1, "kept": {}, "steps": [1]}',
        '{"site": 1, "operation": 1, "digest": 1, "kept": {}, "steps": [{"key": []}]}',
        '{"site": 1, "operation": 1, "digest": 1, "kept": {}, "steps": {}, "losses": {"idx-1": {"x": 1}}}',
        '{"site": 1, "operation": 1, "digest": 1, "kept": {}, "steps": {}, "losses": {"idx-1": 3}}',
        '{"site": 1, "operation": 1, "digest": 1, "kept": {}, "steps": {}, "losses": []}',
        '{"site": 1, "operation": 1, "digest": 1, "kept": {}, "steps": {}, "losses": {"x": {"transactions": null}}}',
        '{"site": 1, "operation": 1, "digest": 1, "kept": {}, "steps": {}, "losses":'
        ' {"x": {"transactions": 1e999, "least": 0}}}',
    ],
)
def test_what_is_no_plan_is_refused_as_such(promotion: Callable[[str, str], Plan], text: str) -> None:
    with pytest.raises(BadInput, match="not a plan file"):
        check_same(text, promotion("0-1-10", "0-1-10"), "night.json")
