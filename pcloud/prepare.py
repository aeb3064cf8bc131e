"""What is installed and configured on a host before servers can live there: planned, shown, then done.

The plan is a pure function of the host's facts, so a second one finds nothing to do. What it
never holds: a change of the network, a reboot, anything that removes, and anything that stops
a server or a service.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from threading import Event

from pcloud.clock import Clock, SystemClock
from pcloud.errors import PcloudError
from pcloud.hostchecks import autostarted, guests_started, libvirt_enabled, missing_packages, pool_fault
from pcloud.hostfacts import VIRSH
from pcloud.hoststate import GUESTS_UNIT, HostFacts
from pcloud.model import Host
from pcloud.shell import Shell

WORKERS = 16
UPDATE_S = 300.0
INSTALL_S = 1800.0
SHORT_S = 60.0
POOL_MODE = "0711"
# No recommended packages: dnsmasq among them would let libvirt's own network start.
APT = (
    "env",
    "DEBIAN_FRONTEND=noninteractive",
    "NEEDRESTART_MODE=l",  # it lists what should be restarted, and restarts nothing
    "apt-get",
    "--quiet",
    "--option=DPkg::Lock::Timeout=120",
    "--option=Dpkg::Options::=--force-confold",
)


@dataclass(frozen=True)
class Action:
    """One command on one host, as root, and why. Run twice, it does no harm."""

    host: str
    what: str
    argv: tuple[str, ...]
    why: str
    deadline_s: float = SHORT_S

    @property
    def command(self) -> str:
        return shlex.join(self.argv)


@dataclass(frozen=True)
class Done:
    """How an action ended. `problem` is empty when it went well; what came after it was not tried otherwise."""

    action: Action
    elapsed_s: float
    problem: str = ""
    next: str = ""


Tell = Callable[[Action, Done | None], None]
"""Hears each action as it starts (None) and as it ends, from the host's own thread."""


def plan_prepare(host: Host, facts: HostFacts) -> tuple[Action, ...]:
    """What is to be done on one host, in order; nothing for one that did not let pcloud look."""
    if facts.refused is not None or facts.uid != 0 or facts.late or not facts.system.startswith("Debian "):
        return ()
    missing = missing_packages(facts)
    actions = [*_install(host, missing), *_pool(host, facts)]
    if facts.systemd and (missing or not libvirt_enabled(facts) or not facts.libvirt):
        why = "comes with the packages" if missing else "it would not be there after a reboot"
        why = why if missing or facts.libvirt else "it does not answer"
        actions.append(_do(host, "start libvirtd, now and at boot", "systemctl enable --now libvirtd.service", why))
    if guests_started(facts):
        # Never --now: to stop this unit is to shut every server of the host down.
        others = [s.name for s in facts.servers if s.mark is None]
        whose = f"; these are not pcloud's, and are no longer started either: {', '.join(others)}" if others else ""
        why = f"a host that comes back must start no server{whose}"
        actions.append(_do(host, "let libvirt-guests start nothing at boot", f"systemctl disable {GUESTS_UNIT}", why))
    for server in autostarted(facts):
        argv = (*VIRSH, "autostart", "--disable", server.uuid)
        why = "a host that comes back must start no server"
        actions.append(Action(host.name, f"let libvirt not start {server.name} at boot", argv, why))
    return tuple(actions)


def _install(host: Host, missing: Sequence[str]) -> list[Action]:
    if not missing:
        return []
    # --no-remove: apt gives up rather than take a package away.
    install = (*APT, "install", "--yes", "--no-remove", "--no-install-recommends", *missing)
    return [
        Action(host.name, "read the package lists", (*APT, "update"), "before an installation", UPDATE_S),
        Action(host.name, f"install {' '.join(missing)}", install, "missing", INSTALL_S),
    ]


def _pool(host: Host, facts: HostFacts) -> list[Action]:
    fault = pool_fault(facts)
    if not fault:
        return []
    argv = ("install", "--directory", f"--mode={POOL_MODE}", "--owner=root", "--group=root", "--", host.pool)
    what = f"make the folder {host.pool}" if facts.pool is None else f"correct the folder {host.pool}"
    return [Action(host.name, f"{what} ({POOL_MODE}, root)", argv, f"it {fault}")]


def _do(host: Host, what: str, command: str, why: str) -> Action:
    return Action(host.name, what, tuple(command.split()), why)


def prepare(
    actions: Sequence[Action],
    shell: Callable[[str], Shell],
    tell: Tell,
    interrupted: Callable[[], None],
    clock: Clock | None = None,
) -> tuple[Done, ...]:
    """Does the actions: hosts at once, one host's in order, which ends at the first that fails.

    `shell` gives the shell of a host by its name. Takes as long as the slowest host. On Ctrl-C
    `interrupted` is called, the commands that run may end, and nothing new starts.
    """
    hosts = [(shell(name), tuple(group)) for name, group in groupby(actions, key=lambda a: a.host)]
    if not hosts:
        return ()
    used = clock or SystemClock()
    stop = Event()
    with ThreadPoolExecutor(max_workers=min(WORKERS, len(hosts)), thread_name_prefix="prepare") as pool:
        try:
            results = pool.map(lambda pair: _on_host(pair[0], pair[1], tell, stop, used), hosts)
            return tuple(done for result in results for done in result)
        except KeyboardInterrupt:
            stop.set()
            interrupted()
            raise


def _on_host(shell: Shell, actions: Sequence[Action], tell: Tell, stop: Event, clock: Clock) -> list[Done]:
    results: list[Done] = []
    for action in actions:
        if stop.is_set():
            break
        tell(action, None)
        began = clock.now()
        try:
            shell.run(action.argv, deadline_s=action.deadline_s, max_output=16 << 20)
            done = Done(action, clock.now() - began)
        except PcloudError as error:
            next_step = error.next or f"run it on {action.host} yourself: {action.command}"
            done = Done(action, clock.now() - began, error.what, next_step)
        results.append(done)
        tell(action, done)
        if done.problem:
            break
    return results
