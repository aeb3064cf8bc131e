"""pcloud's own drivers against controllers that others wrote: pyghmi's IPMI server (virtualbmc's) and sushy-tools.

tests/test_power.py has OpenIPMI's simulator, and what each driver does with sushy-tools' emulator in detail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pcloud.clock import SystemClock
from pcloud.errors import Blocked, HostUnreachable
from pcloud.observed import HostPower
from pcloud.power import PowerControl, power_control
from pcloud.power.examine import examine
from pcloud.power.ipmi import Ipmi
from pcloud.power.redfish import Redfish
from pcloud.steps.base import Met, World
from pcloud.steps.fence import Fence, SwitchOn
from tests.controller import PASSWORD, controller
from tests.controller_cases import Silence
from tests.pyghmi_bmc import Foreign, pyghmi_bmc

KINDS = {"pyghmi": 130, "sushy-tools": 140}
"""The kind of server, and the last number of its first address."""


@contextlib.contextmanager
def served(kind: str, folder: Path, number: int, *, power: str = "on", refuses: bool = False) -> Iterator[Foreign]:
    """`number` makes the address: tests may run side by side."""
    limits = {"timeout_s": 5, "off_timeout_s": 2, "start_s": 1}
    if kind == "pyghmi":
        with pyghmi_bmc(folder, f"127.0.0.{KINDS[kind] + number}", power=power, refuses=refuses, **limits) as foreign:
            yield foreign
    else:
        with controller(folder, power=power.capitalize(), refuses=refuses) as one:
            yield Foreign(one.bmc(**limits), one.power_file)


def control_of(foreign: Foreign, password: str = PASSWORD) -> PowerControl:
    ca = Path(foreign.bmc.ca) if foreign.bmc.ca else None
    return power_control("h3", foreign.bmc, lambda _: password, ca, SystemClock())


def world_of(control: PowerControl) -> World:
    site = SimpleNamespace(site="demo")
    world = SimpleNamespace(power=lambda _: control, clock=SystemClock(), confirmed_off=lambda _: "", site=site)
    return cast(World, world)


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_runs_is_fenced_and_switched_on_again(kind: str, tmp_path: Path) -> None:
    way = "ipmi" if kind == "pyghmi" else "redfish"
    with served(kind, tmp_path, 0) as foreign:
        world = world_of(control_of(foreign))
        assert Fence("h3").do(world, Silence())["asked"] == [f"off at once, by {way}"]
        found = Fence("h3").check(world)
        assert isinstance(found, Met) and found.facts["proof"] == f"{way}: on, then off, read twice"
        assert foreign.really() == "off"
        SwitchOn("h3").do(world, Silence())
        assert isinstance(SwitchOn("h3").check(world), Met)
        assert foreign.really() == "on"


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_without_power_is_ordered_off_all_the_same(kind: str, tmp_path: Path) -> None:
    with served(kind, tmp_path, 1, power="off") as foreign:
        control = control_of(foreign)
        assert control.read().power is HostPower.OFF
        assert control.proof == ""
        control.force_off()
        assert "off for" in control.proof
        assert foreign.really() == "off"


@pytest.mark.parametrize(("kind", "why"), [("pyghmi", "Insufficient privilege level"), ("sushy-tools", "answers 409")])
def test_an_order_that_is_refused_blocks_with_the_controllers_own_words(kind: str, why: str, tmp_path: Path) -> None:
    with served(kind, tmp_path, 2, refuses=True) as foreign:
        with pytest.raises(Blocked) as caught:
            Fence("h3").do(world_of(control_of(foreign)), Silence())
        assert why in caught.value.what
        assert "pcloud fence confirm demo/h3" in caught.value.next
        assert foreign.really() == "on"


@pytest.mark.parametrize("kind", KINDS)
def test_another_password_is_said_and_cuts_nothing(kind: str, tmp_path: Path) -> None:
    with served(kind, tmp_path, 3) as foreign:
        with pytest.raises(HostUnreachable) as caught:
            control_of(foreign, "zebra-staple").force_off()
        assert "refuses user admin" in caught.value.what
        assert "correct the secret bmc/password" in caught.value.next
        assert "zebra" not in caught.value.what + caught.value.next
        assert foreign.really() == "on"


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_what_fencing_will_need(kind: str, tmp_path: Path) -> None:
    with served(kind, tmp_path, 4) as foreign:
        bmc, clock = foreign.bmc, SystemClock()
        way = Ipmi(bmc, lambda _: PASSWORD) if kind == "pyghmi" else Redfish(bmc, lambda _: PASSWORD, Path(str(bmc.ca)))
        said = examine(way, 5, clock)
        assert (said.power, said.problem) == ("on", "")
        assert said.answer_s is not None and said.answer_s < 5
        if kind == "pyghmi":
            assert (said.login, said.role, said.may_switch) == ("cipher suite 3", "OPERATOR", True)
        else:
            assert "ForceOff" in said.resets
            assert said.pinned and said.certificate_s is not None and said.certificate_s > 0
        assert foreign.really() == "on"
