"""Which silent hosts may be fenced, from what is known of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcloud.observed import HostPower, Observed, SeenHost, Witness
from pcloud.suspicion import judge
from tests.faults import strike
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


def silent(world: SimWorld, number: int, **changes: object) -> Observed:
    """So many hosts, from the first on, are silent here and to others."""
    found = world.observe()
    view = (Witness("h8", False),)
    hosts = tuple(
        replace(SeenHost(h.name, "no answer", silent=True, power=HostPower.ON, witnesses=view), **changes)  # type: ignore[arg-type]
        if n < number
        else h
        for n, h in enumerate(found.hosts)
    )
    return replace(found, hosts=hosts, vantage="this machine has no route to 10.77.0.11")


def test_half_of_the_hosts_are_not_dead_at_once(world: SimWorld) -> None:
    assert judge(world.desired, silent(world, 3), "h1").may
    verdict = judge(world.desired, silent(world, 4), "h1")
    assert not verdict.may
    assert verdict.why == (
        "4 of 8 hosts are silent at once (seen from h8, too), which is rather a network that is cut; "
        "this machine has no route to 10.77.0.11"
    )
    assert verdict.next.endswith("pcloud failover demo h1 h2 h3 h4")
    left = with_options(world.desired, lost=("h1", "h2"))
    assert judge(left, silent(world, 4), "h2").may
    assert not judge(left, silent(world, 4), "h3").may


def test_who_has_no_power_is_no_sign_of_a_network_that_is_cut(world: SimWorld) -> None:
    off = silent(world, 6, power=HostPower.OFF, proof="redfish, read twice")
    assert all(judge(world.desired, off, f"h{n}").may for n in range(1, 7))


@pytest.mark.parametrize(("sees", "may"), [(False, True), (True, False)])
def test_a_machine_beside_the_hosts_decides(world: SimWorld, sees: bool, may: bool) -> None:
    strike(world, "witness gw")
    views = (Witness("h8", False), Witness("gw", sees))
    assert judge(world.desired, silent(world, 4, witnesses=views), "h1").may is may
