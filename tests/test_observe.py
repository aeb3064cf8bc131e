"""What running servers say of themselves when they are asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from pcloud.observe import _observe_servers
from pcloud.world import World
from tests.faults import strike
from tests.scenario import new_world

FRONTENDS = ("fe-1", "fe-2", "fe-3", "fe-4")


@pytest.mark.parametrize(
    ("busy", "sick"),
    [
        ({}, set()),
        (dict.fromkeys(FRONTENDS, 1), set()),
        (dict.fromkeys(FRONTENDS, 2), set(FRONTENDS)),
        ({"fe-2": 1}, {"fe-2"}),  # its kind answers: the plan has it looked at again before it is put away
        ({"lb-1": 1}, set()),
    ],
)
def test_where_none_of_a_kind_answers_all_are_looked_at_again(
    busy: dict[str, int], sick: set[str], image_file: Path
) -> None:
    world, _ = new_world(image_file, whole=True)
    for server, looks in busy.items():
        strike(world, f"busy {server} {looks}")
    up = [s for s in world.desired.servers if s.role in ("frontend", "balancer")]
    with ThreadPoolExecutor(4) as pool:
        health = _observe_servers(cast(World, world), up, pool)
    assert {n for n, h in health.items() if not h.ok} == sick
