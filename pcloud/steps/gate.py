"""Gates: steps that wait for something to be true, never longer than their deadline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.clock import Deadline
from pcloud.desired import Names
from pcloud.diagnosis import find_cause
from pcloud.errors import Blocked, CheckFailed, HostUnreachable, PcloudError
from pcloud.identity import server_names
from pcloud.model import Check, Journey, Visit
from pcloud.observed import Power
from pcloud.steps.base import Met, Report, Unmet, World, path_in

POLL_S = (0.25, 1.0)
"""The first and the longest pause between two probes: each costs an emulated guest CPU."""

CONSOLE_LINES = 15
"""How much of a server's console is shown when it does not come up."""

_TRACE = re.compile(r"\+0x[0-9a-f]+/0x[0-9a-f]|Call Trace:|</?TASK>")
"""A kernel's call trace, which would push the line that says why out of what is shown."""

SETTLE_S = 2.0
"""A failed walk is tried again after this long."""


@dataclass(frozen=True)
class StillSick:
    """A server that did not answer as it should does not now, either: else it is left alone, and the run says so."""

    server: str
    address: str
    checks: tuple[Check, ...]
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:
        for check in self.checks:
            verdict = world.probe(check, self.server, self.address)
            if not verdict.ok:
                return Met({"saw": verdict.detail})
        raise Blocked(
            "it answers again: it was slow, and is left as it is",
            where=self.server,
            next=f"pcloud recover {world.site.site}",
        )

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class Ready:
    """The server answers all its checks, within its group's boot time-out."""

    server: str
    host: str
    address: str
    names: Names
    checks: tuple[Check, ...]
    timeout_s: float
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:
        for check in self.checks:
            verdict = world.probe(check, self.server, self.address)
            if not verdict.ok:
                return Unmet(verdict.detail)
        return Met({"cpu_s": round(world.hypervisor(self.host).cpu_s(self.names.domain), 2)})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        started = world.clock.now()
        deadline = Deadline.after(self.timeout_s, world.clock)
        pause = POLL_S[0]
        while True:
            found = self.check(world)
            if isinstance(found, Met):
                return {**found.facts, "waited_s": round(world.clock.now() - started, 2)}
            report.progress(f"waiting: {found.why}", world.clock.now() - started, self.timeout_s, "s")
            how = world.hypervisor(self.host).stopped(self.names.domain)
            if how is not None:
                raise self._never(world, f"{self.server} {how} while it should boot")
            if deadline.passed():
                raise self._never(world, f"{self.server} did not come up within {self.timeout_s:g} s ({found.why})")
            if report.stopping():
                raise CheckFailed(f"given up, as you asked ({found.why})", where=self.server)
            world.clock.sleep(deadline.within(pause))
            pause = min(pause * 1.3, POLL_S[1])

    def _never(self, world: World, what: str) -> PcloudError:
        console = path_in(world.host(self.host).pool, self.names.console)
        try:
            tail = world.shell(self.host).tail(console, lines=2 * CONSOLE_LINES)
        except PcloudError as error:
            tail = ""
            what += f"; its console could not be read: {error.what}"
        lines = [line.rstrip() for line in tail.replace("\r", "\n").splitlines() if line.strip()]
        tail = "\n".join(lines)
        telling = [line for line in lines if not _TRACE.search(line)]
        shown = "\n".join(f"  | {line}" for line in telling[-CONSOLE_LINES:])
        paused = self._paused(world)
        cause = "the pool of its host is full" if paused else find_cause(tail)
        return CheckFailed(
            f"{what}; likely: {cause}" + (f"\nits console ends with:\n{shown}" if shown else ""),
            where=f"{self.server} on {self.host}",
            next=self._remedy(world, paused),
        )

    def _paused(self, world: World) -> bool:
        """A hypervisor pauses a server whose disk it cannot write."""
        with suppress(PcloudError):
            return world.hypervisor(self.host).power(self.names.domain) is Power.PAUSED
        return False

    def _remedy(self, world: World, paused: bool) -> str:
        """Where to look, and the command that goes on; never one that costs a database its data."""
        site = self.names.site
        if paused:
            return (
                f"make room on {self.host}: pcloud ssh {site}/{self.host} -- df -h; pcloud purge {site} deletes "
                f"tombstones; then pcloud recover {site} lets it go on where it stopped"
            )
        holds_data = self.server in server_names(world.site.group(world.site.database.group))
        anew = "" if holds_data else f" --rebuild {self.server}"
        return f"pcloud console {site}/{self.server}; then pcloud recover {site}{anew}"


@dataclass(frozen=True)
class WalkJourney:
    """A shopper's whole walk through the real shop passes."""

    journey: Journey
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:  # noqa: ARG002
        return Unmet("nobody walked it yet")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        deadline = Deadline.after(self.journey.deadline_s, world.clock)
        tries = 0
        wrong = ""

        def passed(visit: Visit, elapsed_s: float) -> None:
            report.visit(visit.name, elapsed_s)

        while True:
            tries += 1
            report.progress("walking" if tries == 1 else f"walking again ({wrong})")
            started = world.clock.now()
            walked = world.walk(self.journey, passed)
            if walked.ok:
                return {"tries": tries, "walk_s": round(world.clock.now() - started, 2)}
            wrong = f"{walked.failed.name}: {walked.failed.detail}" if walked.failed else "no step"
            if deadline.passed() or report.stopping():
                raise CheckFailed(
                    f"no shopper could buy after {tries} walks: {wrong}",
                    where=self.journey.service,
                    next=f"pcloud check {world.site.site}",
                )
            world.clock.sleep(deadline.within(SETTLE_S))


@dataclass(frozen=True)
class AwaitSale:
    """A shopper could buy, or `patience_s` are over: what comes after it may begin either way.

    Each page has `patience_s`, too, so a shop that is slow and sells is waited for a little longer.
    """

    journey: Journey
    patience_s: float
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:  # noqa: ARG002
        return Unmet("nobody walked yet")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        started, deadline = world.clock.now(), Deadline.after(self.patience_s, world.clock)
        journey = self.journey.model_copy(update={"timeout_s": self.patience_s})
        while True:
            sells = world.walk(journey, lambda visit, elapsed_s: report.visit(visit.name, elapsed_s)).ok
            if sells or deadline.passed() or report.stopping():
                return {"sells": sells, "waited_s": round(world.clock.now() - started, 2)}
            world.clock.sleep(deadline.within(POLL_S[1]))


@dataclass(frozen=True)
class Ask:
    """A person says yes."""

    question: str
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:  # noqa: ARG002
        return Unmet("nobody was asked yet")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress(f"asks: {self.question}")
        if not world.ask(self.question):
            raise Blocked(
                f"a person has to confirm: {self.question}",
                next=f"pcloud recover {world.site.site}, on a terminal, and answer yes",
            )
        return {"confirmed": True}


@dataclass(frozen=True)
class RunCommand:
    """A playbook's own command, on a host or a server."""

    argv: tuple[str, ...]
    host: str | None
    server: str | None
    deadline_s: float
    exit_code: int
    check_argv: tuple[str, ...] | None
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:
        if self.check_argv is None:
            return Unmet("runs every time")
        answer = self._machine(world).run(self.check_argv, deadline_s=self.deadline_s, check=False)
        return Met() if answer.exit_code == 0 else Unmet(f"{self.check_argv[0]} ended with {answer.exit_code}")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress(f"running {self.argv[0]}")
        answer = self._machine(world).run(self.argv, deadline_s=self.deadline_s, check=False)
        if answer.exit_code != self.exit_code:
            last = (answer.stderr or answer.stdout).strip().splitlines()[-1:] or [""]
            raise CheckFailed(
                f"{self.argv[0]} ended with {answer.exit_code} instead of {self.exit_code}: {last[0]}",
                where=self.host or self.server or "",
                next=f"pcloud ssh {world.site.site}/{self.host or self.server}",
            )
        return {"exit_code": answer.exit_code}

    def _machine(self, world: World) -> Any:
        if self.host is not None:
            return world.shell(self.host)
        if self.server is not None:
            return world.server_shell(self.server)
        raise HostUnreachable("the playbook's run names neither a host nor a server")
