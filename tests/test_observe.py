"""What running servers say of themselves when they are asked."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from pcloud.errors import HostUnreachable, LibvirtSilent, PcloudError
from pcloud.observe import _Asked, _completed, _observe_host, _observe_servers
from pcloud.observed import HostPower, SeenHost, Witness
from pcloud.steps.fence import PowerProof
from pcloud.world import World
from tests.faults import strike
from tests.scenario import new_world
from tests.simulation import SimWorld

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


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (HostUnreachable("no answer within 5 s"), True),
        (LibvirtSilent("libvirt does not answer: it takes connections and is silent for 15 s"), False),
    ],
)
def test_who_lets_us_in_by_ssh_alone_withdraws_a_persons_word(
    world: SimWorld, error: PcloudError, counts: bool
) -> None:
    world.confirmed["h1"] = "you, at 22:41"
    login: Future[None] = Future()
    login.set_exception(error)
    _observe_host(cast(World, world), world.site.host("h1"), login)
    assert ("h1" in world.confirmed) is counts


@pytest.mark.parametrize(
    ("power", "sees", "counts"),
    [(None, False, True), (HostPower.OFF, False, True), (HostPower.ON, False, False), (None, True, False)],
)
def test_who_sees_the_host_and_a_controller_that_says_on_withdraw_a_persons_word(
    world: SimWorld, power: HostPower | None, sees: bool, counts: bool
) -> None:
    world.confirmed["h1"] = "you, at 22:41"
    said: Future[PowerProof | None] = Future()
    said.set_result(None if power is None else PowerProof(power))
    view: Future[Witness | None] = Future()
    view.set_result(Witness("h2", sees))
    host = _completed(cast(World, world), SeenHost("h1", "no answer", silent=True), _Asked(said, [view]))
    assert ("h1" in world.confirmed) is counts
    assert host.proven_off is counts
