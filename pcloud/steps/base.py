"""What a step is, and what it may ask of the world.

A step is a frozen value that carries one effect: `check` reads, `do` acts, and the executor
runs check, do, check again. `do` makes its effect visible in its last action, so that a
crash leaves Unmet, never half Met. A gate's effect is to wait: its `do` ends when what it
waits for is true, so it is not asked twice (`waits`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from pcloud.clock import Clock
from pcloud.desired import ServerSpec
from pcloud.kept import Heard, Sighting, Witnesses
from pcloud.model import Check, Host, Journey, SecretRef, Site, Visit
from pcloud.observed import HostPower, Power, SeenServer

GENTLY = ("nice", "-n", "19")
"""Before what a host does with images: the servers that sell there have the processor first."""


class Answer(Protocol):
    """What a command printed and how it ended."""

    @property
    def exit_code(self) -> int: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...


class Machine(Protocol):
    """Commands and small files on a host or a server (`shell.Shell`)."""

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,
        stdin: bytes | BinaryIO | None = None,
        check: bool = True,
        max_output: int = 1 << 20,
        progress: Callable[[int], None] | None = None,
        stdout: Callable[[bytes], None] | None = None,
    ) -> Answer: ...
    def write(self, path: str, data: bytes, *, mode: int = 0o600, deadline_s: float = 30) -> None: ...
    def tail(self, path: str, *, lines: int = 40, limit: int = 1 << 16, deadline_s: float = 10) -> str: ...


class Hypervisor(Protocol):
    """A host's libvirt (`hypervisor.Hypervisor`)."""

    def servers(self) -> tuple[SeenServer, ...]: ...
    def server(self, name: str) -> SeenServer | None: ...
    def power(self, name: str) -> Power | None: ...
    def cpu_s(self, name: str) -> float: ...
    def define(self, xml: str) -> None: ...
    def start(self, name: str) -> None: ...
    def power_off(self, name: str) -> None: ...
    def definition(self, name: str) -> str | None: ...
    def undefine(self, name: str) -> None: ...
    def stopped(self, name: str) -> str | None: ...
    def volumes(self, pool: str) -> tuple[str, ...]: ...
    def create_overlay(self, pool: str, name: str, *, backing: str, size_gib: int) -> None: ...


class PowerReading(Protocol):
    """What a controller said of the power, and by which way (`power.Reading`)."""

    @property
    def power(self) -> HostPower: ...
    @property
    def way(self) -> str:
        """`redfish` or `ipmi`."""
        ...

    @property
    def against(self) -> str:
        """What another way said, where that is something else (`redfish says off`)."""
        ...

    @property
    def remark(self) -> str:
        """What a person should know of the order that led to it, or ""."""
        ...


class Watch(Protocol):
    """Who is told how a long order goes, and may give it up."""

    def progress(self, doing: str) -> None: ...
    def stopping(self) -> bool: ...


class PowerControl(Protocol):
    """A host's management controller (`power.PowerControl`); its ways are tried in order.

    All raise `HostUnreachable` when no way does it within its time, with every way's reason.
    """

    @property
    def proof(self) -> str:
        """What proved that the host is off; "" where nothing did, or no longer."""
        ...

    @property
    def identity(self) -> str:
        """The UUID or serial number of the machine behind it, once it was read; "" where it tells none."""
        ...

    @property
    def took_s(self) -> float | None:
        """From the last order to switch it off until that was proven; None where nothing was ordered, or proven."""
        ...

    def read(self) -> PowerReading: ...
    def force_off(self, watch: Watch | None = None) -> PowerReading:
        """Orders it off, whatever it reads, and returns once that is proven. Raises `Blocked` where its ways or a
        witness contradict each other."""
        ...

    def force_on(self) -> PowerReading: ...


class Verdict(Protocol):
    """What a check said (`probe.Verdict`)."""

    @property
    def ok(self) -> bool: ...
    @property
    def detail(self) -> str: ...


class Visited(Protocol):
    """One step of a walk (`journey.StepResult`)."""

    @property
    def name(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Walk(Protocol):
    """How a walk ended, and the step that it ended at (`journey.JourneyResult`)."""

    @property
    def ok(self) -> bool: ...
    @property
    def failed(self) -> Visited | None: ...


class World(Protocol):
    """The connections and material of a run (`world.World`)."""

    @property
    def site(self) -> Site: ...
    @property
    def clock(self) -> Clock: ...
    def host(self, name: str) -> Host: ...
    def hypervisor(self, host: str) -> Hypervisor: ...
    def shell(self, host: str) -> Machine: ...
    def server_shell(self, server: str) -> Machine: ...
    def power(self, host: str) -> PowerControl: ...
    def confirmed_off(self, host: str) -> str:
        """The person's word that the host has no power (`you, at 22:41`), while it counts; else empty."""
        ...

    def image_path(self, digest: str, file: str) -> Path: ...
    def seed(self, server: str, generation: int) -> bytes: ...
    def domain_xml(self, spec: ServerSpec, host: str, generation: int) -> str: ...
    def probe(self, check: Check, server: str, address: str) -> Verdict: ...
    def hear(self, witnesses: Witnesses) -> tuple[Heard, tuple[Sighting, ...]]:
        """Until when the primary answered those, and where hosts among them saw it; who does not say so is left out."""
        ...

    def address(self, server: str) -> str: ...
    def host_key(self, server: str) -> str:
        """The public line of the key that the server shows to who logs in."""
        ...

    def reveal(self, reference: SecretRef) -> str: ...
    def walk(self, journey: Journey, on_visit: Callable[[Visit, float], None]) -> Walk: ...
    def ask(self, question: str) -> bool: ...


class Report(Protocol):
    """How a running step tells what it is at."""

    def progress(self, doing: str, done: float = 0, total: float = 0, unit: str = "") -> None: ...
    def visit(self, name: str, elapsed_s: float) -> None: ...
    def stopping(self) -> bool:
        """True once a person pressed Ctrl-C: a step that only waits should give up."""
        ...


@dataclass(frozen=True)
class Met:
    """What the step wants is so."""

    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unmet:
    why: str


class Step(Protocol):
    """One effect. `check` may raise `Blocked` when a person must act first."""

    waits: ClassVar[bool]

    def check(self, world: World) -> Met | Unmet: ...
    def do(self, world: World, report: Report) -> Mapping[str, Any]: ...


def path_in(pool: str, name: str) -> str:
    return f"{pool.rstrip('/')}/{name}"
