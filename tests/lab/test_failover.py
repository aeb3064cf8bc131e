"""Hosts taken away from a shop that is selling: a table of faults, one lab for all of them.

Each row leaves a whole shop for the next. `make test` runs the story of a loss that is agreed to, `make chaos` all.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pcloud.events import Event, StepBlocked, StepDone, StepProgress, StepStarted, from_json
from pcloud.inventory import load_site
from tests.lab.conftest import DEMO, Operator, Ran
from tests.lab.fire import WARM_ORDERS, Fire, Row, Watch, outcome, slice_of, told, write_row

pytestmark = pytest.mark.lab
WITHIN_S = 240
"""Until the shop is whole again after any one fault."""


@pytest.fixture(scope="module")
def fire(operator: Operator) -> Fire:
    """The whole shop."""
    fire = Fire(operator, load_site(DEMO))
    ran = operator.recover()
    assert ran.code == 0, told(ran)
    return fire


@dataclass
class Story:
    """What was run after the fault, in its order."""

    codes: list[int] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=list)

    def add(self, ran: Ran) -> Ran:
        self.codes.append(ran.code)
        self.events.append(ran.events)
        return ran


@dataclass(frozen=True)
class Fault:
    """`harm` breaks the host of `server`, `mend` is what a person then does until it is whole; a row of the table."""

    name: str
    server: str
    harm: Callable[[Fire, str], None]
    mend: Callable[[Fire, str, Story], None]
    copies: int = 1

    def __str__(self) -> str:
        return self.name


# -- how it is broken


def kill(fire: Fire, host: str) -> None:
    fire.switch_off(host)


def freeze(fire: Fire, host: str) -> None:
    fire.lab("freeze-host", host)


def cut(direction: str) -> Callable[[Fire, str], None]:
    return lambda fire, host: fire.lab("cut", host, "--direction", direction)


def kill_with_bmc(fire: Fire, host: str) -> None:
    fire.lab("bmc", host, "dead")
    fire.switch_off(host)


# -- what a person does then


def recover(fire: Fire, host: str, story: Story) -> None:
    ran = story.add(fire.operator.recover())
    assert ran.code == 0, told(ran)


def recover_with_substitutes(fire: Fire, host: str, story: Story) -> None:
    """No controller answers: whoever can stand in does, and a person's word lets the rest go on."""
    ran = story.add(fire.operator.recover())
    assert ran.code == 3, told(ran)
    stops = [s.problem for s in ran.state.steps.values() if isinstance(s.problem, StepBlocked)]
    command = f"pcloud fence confirm demo/{host} --i-have-powered-it-off"
    assert any(command in stop.next for stop in stops), stops
    if "fe-2/blocked" in ran.state.steps:
        assert ran.state.steps["fe-5/ready"].status == "done", "it stands in for fe-2"
    again = story.add(fire.operator.recover())
    assert again.code == 3, told(again)
    confirmed = fire.operator.run(*command.split()[1:])
    assert confirmed.code == 0, confirmed.err
    recover(fire, host, story)


def killed_at_every_event(fire: Fire, host: str, story: Story) -> None:
    """-9 after the first event of the run, the next run after its second, ..., until one ends by itself."""
    number, came = 0, True
    while came:
        number += 1
        seen: list[Event] = []

        def when(event: Event, seen: list[Event] = seen, number: int = number) -> bool:
            if not isinstance(event, StepProgress):
                seen.append(event)
            return len(seen) == number

        events, came = fire.operator.try_interrupt([], when, signal.SIGKILL)
        story.events.append(events)
        story.codes.append(-9 if came else 0)
        assert number < 60, "it never ends"
    assert number > 5
    recover(fire, host, story)


def until(key: str, kind: type[Event]) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, kind) and getattr(event, "step", "").endswith(key)


def while_it_recovers(key: str, kind: type[Event], act: Callable[[Fire, str, Event], None]) -> Callable[..., None]:
    """Something happens at an event of the recovery; then the same command until the shop is whole."""

    def mend(fire: Fire, host: str, story: Story) -> None:
        process = fire.operator.start("recover", "demo", "--yes", "--json")
        assert process.stdout is not None
        seen: list[Event] = []
        acted = False
        for line in process.stdout:
            seen.append(from_json(line))
            if not acted and until(key, kind)(seen[-1]):
                acted = True
                act(fire, host, seen[-1])
        story.add(Ran(process.wait(timeout=WITHIN_S), "", "", seen))
        assert acted, "the moment never came"
        for _ in range(3):
            if story.add(fire.operator.recover()).code == 0:
                return
        raise AssertionError(f"not whole after {story.codes}: {outcome(story.events)}")

    return mend


def second_host_dies(fire: Fire, host: str, event: Event) -> None:
    """The one on which the lost server is being made."""
    fire.switch_off(str(getattr(event, "step", "")).split("/")[0])


def comes_back(fire: Fire, host: str, event: Event) -> None:
    fire.lab("power-on", host)


def comes_back_and_somebody_starts_it(server: str) -> Callable[[Fire, str, Event], None]:
    def act(fire: Fire, host: str, event: Event) -> None:
        fire.lab("power-on", host)
        fire.inside(host, "virsh", "-q", "-c", "qemu:///system", "start", f"demo.{server}")

    return act


FAULTS = [
    Fault("the database's host loses power", "db-1", kill, recover),
    Fault("a frontend's host loses power, and its controller with it", "fe-2", kill_with_bmc, recover_with_substitutes),
    Fault(
        "the database's host comes back in the middle of the recovery",
        "db-1",
        kill,
        while_it_recovers("idx-1/promote", StepDone, comes_back),
    ),
    Fault("the indexer's host loses power", "idx-1", kill, recover),
    Fault("the balancer's host loses power", "lb-1", kill, recover),
    Fault("the first frontend's host loses power", "fe-1", kill, recover),
    Fault("the second frontend's host loses power", "fe-2", kill, recover),
    Fault("the third frontend's host loses power", "fe-3", kill, recover),
    Fault("the fourth frontend's host loses power", "fe-4", kill, recover),
    Fault("the spare host loses power", "", kill, recover),
    Fault("the database's host is frozen", "db-1", freeze, recover),
    Fault("the cable of the database's host is cut", "db-1", cut("both"), recover),
    Fault("the database's host receives nothing any more", "db-1", cut("in"), recover),
    Fault("nothing that the database's host sends arrives", "db-1", cut("out"), recover),
    Fault("nothing that a frontend's host sends arrives", "fe-3", cut("out"), recover),
    Fault(
        "the database's host loses power, and its controller with it", "db-1", kill_with_bmc, recover_with_substitutes
    ),
    Fault(
        "the database's host loses power, and pcloud is killed at every event of the failover",
        "db-1",
        kill,
        killed_at_every_event,
    ),
    Fault(
        "the host on which the lost database is being made dies, too",
        "db-1",
        kill,
        while_it_recovers("db-1/start", StepDone, second_host_dies),
    ),
    Fault(
        "a frontend's host comes back in the middle of the recovery",
        "fe-1",
        kill,
        while_it_recovers("fe-1/start", StepStarted, comes_back),
    ),
    Fault(
        "the database's host comes back in the middle, and somebody starts its old server there",
        "db-1",
        kill,
        while_it_recovers("db-1/start", StepDone, comes_back_and_somebody_starts_it("db-1")),
        copies=2,
    ),
]


@pytest.mark.chaos
@pytest.mark.parametrize("fault", FAULTS, ids=[f.name.replace(" ", "-") for f in FAULTS])
def test_a_host_is_lost_and_no_order(fire: Fire, fault: Fault) -> None:
    host = fire.at(fault.server) if fault.server else fire.spare()
    watch = Watch(fire.lab_folder, "demo")
    watch.start()
    story = Story()
    with fire.shoppers(f"row-{FAULTS.index(fault)}") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        broken = time.time()
        fault.harm(fire, host)
        fault.mend(fire, host, story)
        crowd.wait_for_orders(WARM_ORDERS, time.time())
        whole = time.time()
        fire.restore()
        crowd.wait_for_orders(1, time.time())
    copies = watch.end()
    met, lost = slice_of(crowd.entries(), broken, whole), fire.audit(crowd)
    gaps = [gap.seconds if gap else 0.0 for gap in (met.longest_without_order, met.longest_without_page)]
    orders = len({e.number for e in crowd.entries() if e.number})
    what = outcome(story.events)
    row = Row(fault.name, what, tuple(story.codes), gaps[0], gaps[1], met.failures, orders, lost, copies)
    if os.environ.get("PCLOUD_WRITE_FAILOVER_MATRIX"):
        write_row(Path(os.environ["PCLOUD_WRITE_FAILOVER_MATRIX"]), row, [f.name for f in FAULTS])
    assert lost == 0
    assert copies == fault.copies
    assert gaps[0] < WITHIN_S
    fire.expect_whole()


ALONE_S = 40
"""The primary waits 30 s for a replica that is gone, then it goes on alone."""


def test_what_only_a_lost_primary_had_is_said_agreed_to_and_found_again(fire: Fire) -> None:
    """The replica's cable is cut, orders go on without it, the primary's host dies, the cable is mended."""
    lost_host, cut_host = fire.at("db-1"), fire.at("idx-1")
    with fire.shoppers("only-a-lost-primary") as crowd:
        crowd.wait_for_orders(WARM_ORDERS, 0)
        fire.lab("cut", cut_host)
        time.sleep(ALONE_S)
        crowd.wait_for_orders(WARM_ORDERS, time.time())
        fire.switch_off(lost_host)
        fire.lab("mend", cut_host)
        time.sleep(5)
        blocked = fire.operator.recover()
        assert blocked.code == 3, told(blocked)
        stop = blocked.state.steps["idx-1/consent"].problem
        assert isinstance(stop, StepBlocked)
        assert "how much is lost is unknown, since 20" in stop.what
        assert "pcloud recover demo --accept-loss unknown" in stop.next
        agreed = fire.operator.recover("--accept-loss", "unknown")
        assert agreed.code == 0, told(agreed)
        crowd.wait_for_orders(1, time.time())
    lost = fire.audit(crowd)
    assert lost > 0, "the shop went on alone, and nothing is missing?"
    fire.restore()
    salvaged = fire.operator.run("salvage", "demo", "--json")
    assert salvaged.code == 0, salvaged.err
    assert salvaged.out.count("order_order") >= lost, salvaged.out
    fire.expect_whole()
