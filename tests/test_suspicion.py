"""Which silent hosts may be fenced, from what is known of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcloud.observed import HostPower, Observed, SeenHost, Witness
from pcloud.suspicion import judge
from tests.simulation import SimWorld, with_options

HEARD_NOWHERE = (Witness("h1", False), Witness("h3", False))
SILENT = SeenHost("h2", "no answer", silent=True, witnesses=HEARD_NOWHERE)


def seen(world: SimWorld, host: SeenHost, *answering: str) -> Observed:
    found = world.observe()
    return replace(found, hosts=tuple(host if h.name == host.name else h for h in found.hosts), answering=answering)


def test_a_host_that_is_silent_here_and_to_two_others_may_be_fenced(world: SimWorld) -> None:
    assert judge(world.desired, seen(world, SILENT), "h2").may


@pytest.mark.parametrize(
    ("host", "words", "next"),
    [
        (
            replace(SILENT, witnesses=(Witness("h1", False), Witness("h3", True))),
            "h3 can reach it",
            "pcloud failover demo h2",
        ),
        (replace(SILENT, witnesses=()), "no other host could be asked", "pcloud lab status demo"),
        (
            replace(
                SILENT, silent=False, problem="libvirt is silent", next="restart it", witnesses=(Witness("h1", True),)
            ),
            "h2 cannot be used: libvirt is silent",
            "restart it; then pcloud recover demo",
        ),
    ],
    ids=["seen by another", "no witness", "half alive"],
)
def test_one_that_may_live_is_not(world: SimWorld, host: SeenHost, words: str, next: str) -> None:
    verdict = judge(world.desired, seen(world, host), "h2")
    assert not verdict.may
    assert words in verdict.why
    assert next in verdict.next


def test_while_a_server_answers_that_no_other_host_has_only_who_is_off_already_counts_as_dead(world: SimWorld) -> None:
    verdict = judge(world.desired, seen(world, SILENT, "fe-1"), "h2")
    assert not verdict.may
    assert "fe-1 does, which no other has" in verdict.why
    assert "pcloud failover demo h2" in verdict.next
    off = replace(SILENT, power=HostPower.OFF, proof="redfish, read twice")
    assert judge(world.desired, seen(world, off, "fe-1"), "h2").may
    given_up = with_options(world.desired, lost=("h2",))
    assert judge(given_up, seen(world, SILENT, "fe-1"), "h2").may
