"""Servers that the inventory does not name any more: what a person may put away, by name, and what is said of them."""

from __future__ import annotations

import pytest

from pcloud.errors import BadInput
from pcloud.execute import execute
from pcloud.observed import Power
from pcloud.plan import plan
from pcloud.teardown import plan_put_away
from pcloud.unplanned import find_unplanned, say_unplanned
from tests.conftest import regroup
from tests.plan_cases import DATE, arrange
from tests.simulation import SimWorld
from tests.test_plan import Memory

WHOLE = {
    "servers": {
        "db-1": "h1 g1 running",
        "idx-1": "h4 g1 running",
        "fe-1": "h2 g1 running",
        "fe-2": "h5 g1 running",
        "fe-3": "h3 g1 running",
        "fe-4": "h7 g1 running",
        "lb-1": "h6 g1 running",
    },
    "restored": True,
    "indexed": True,
}


@pytest.fixture
def renamed(world: SimWorld) -> SimWorld:
    arrange(world, WHOLE)
    regroup(world, "database", {"prefix": "mysql"})
    return world


def test_data_that_are_in_no_plan_are_named_and_put_away_by_name_only(renamed: SimWorld) -> None:
    seen = renamed.observe()
    assert say_unplanned(find_unplanned(renamed.desired, seen), ()) == (
        "db-1 (database) runs at 10.77.0.61 on h1, and the inventory names no such server: give it its name back in "
        "the inventory; or put it away: pcloud destroy demo db-1; then pcloud recover demo",
    )
    assert plan(renamed.desired, seen, DATE).advice == say_unplanned(find_unplanned(renamed.desired, seen), ())
    made = plan_put_away(renamed.desired, seen, ["db-1"], DATE)
    assert [n.key for n in made.nodes] == ["h1/db-1/retire"]
    state = execute(made, renamed, Memory(), Memory(), "run", renamed.clock)
    assert state.finished is not None and state.finished.outcome == "converged"
    assert not any(d.mark and d.mark.server == "db-1" for d in renamed.hosts["h1"].domains.values())
    again = plan(renamed.desired, renamed.observe(), DATE)
    assert "idx-1/promote" in {n.key for n in again.nodes}
    assert not again.blocked


@pytest.mark.parametrize(
    ("server", "what"),
    [("fe-1", "fe-1 is a server of the inventory's"), ("db-2", 'no host that answers has a server "db-2"')],
)
def test_only_what_is_in_no_plan_is_put_away_by_name(renamed: SimWorld, server: str, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        plan_put_away(renamed.desired, renamed.observe(), [server], DATE)


def test_one_that_is_off_holds_no_address(world: SimWorld) -> None:
    arrange(world, WHOLE)
    for domain in (d for h in world.hosts.values() for d in h.domains.values() if d.mark):
        if domain.mark is not None and domain.mark.role == "frontend":
            domain.power = Power.OFF
    regroup(world, "frontend", {"prefix": "web"})
    nodes = {n.key: n for n in plan(world.desired, world.observe(), DATE).nodes}
    assert {n.info.reason for k, n in nodes.items() if k.endswith("/retire")} == {"the inventory names no such server"}
