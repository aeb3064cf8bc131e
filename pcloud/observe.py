"""`observe`: what is on the hosts, asked of all of them at once, each within its deadline.

A host that does not answer is a fact, not a failure; its controller and other hosts are then
asked about it. Checks are asked of running servers only, and of one copy of each.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from pcloud.alive import VIEWS, look_from
from pcloud.desired import Desired, ServerSpec, liveness
from pcloud.errors import HostUnreachable, PcloudError
from pcloud.model import Check, Host, TcpCheck
from pcloud.observe_data import observe_data
from pcloud.observed import Health, HostPower, Observed, Power, SeenHost, Witness
from pcloud.steps.fence import PowerProof, ask_power
from pcloud.vantage import look_from_here
from pcloud.world import World

WORKERS = 64
PROMPT_S = 1.0
"""When a host that is well has let us in."""

WITNESS_S = 2.0
"""What they have for it; one that lives greets in a fraction of that."""
KNOCK_S = 2
"""What a server has to take a connection that is on no host that answers."""
AGAIN_S = 1.0
"""Until servers that did not answer are looked at again."""
_PID_FILES = "/run/libvirt/qemu"


def observe(desired: Desired, world: World) -> Observed:
    """Asks every host, then every running server of the site. Takes as long as the slowest that may be alive.

    Of a server that runs twice nobody knows which one's data answered: they are not asked about.
    """
    pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="observe")
    try:
        found = _look_at_hosts(desired, world, pool)
        up = [s for s in desired.everyone if _running(found, desired, s)]
        health = _observe_servers(world, up, pool)
        once = {s.name for s in up if _running(found, desired, s) == 1}
        data = observe_data(desired, world, found, once, pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # who still waits for a host that is off waits alone
    return replace(found, health=health, data=data, at=world.clock.wall().timestamp())


def _log_in(world: World, host: Host) -> None:
    # SSH alone first: of a dead host it says so in half the time, as libvirt comes over SSH too.
    world.shell(host.name).run(["true"], deadline_s=2 * world.site.access.connect_timeout_s)


def _observe_host(world: World, host: Host, login: Future[None]) -> SeenHost:
    try:
        login.result()
        hypervisor = world.hypervisor(host.name)
        servers = hypervisor.servers()
        if any(s.power is Power.RUNNING for s in servers):
            ages = _ages(world, host.name)
            servers = tuple(replace(s, age_s=ages.get(s.name, 0.0)) for s in servers)
        capacity = hypervisor.capacity(host.accel)
        return SeenHost(host.name, "", capacity.memory_mib, capacity.accel, servers, hypervisor.volumes(host.pool))
    except PcloudError as error:
        silent = type(error) is HostUnreachable  # then only a person near the host can tell why
        if not silent:
            world.heard_of(host.name)
        return SeenHost(host.name, problem=error.what, next="" if silent else error.next, silent=silent)


@dataclass(frozen=True)
class _Asked:
    """What is being asked about a host that does not answer."""

    power: Future[PowerProof | None]
    views: list[Future[Witness | None]]

    @property
    def all(self) -> set[Future[Any]]:
        return {self.power, *self.views}

    def agree_that_it_is_off(self) -> str:
        """Who says so, when its controller does, others looked and nobody sees it; else "". Once all are done."""
        found, views = self.power.result(), [w for view in self.views if (w := view.result()) is not None]
        off = found is not None and found.power is HostPower.OFF and views and not any(w.sees for w in views)
        return found.proof or found.way if found is not None and off else ""


def _look_at_hosts(desired: Desired, world: World, pool: ThreadPoolExecutor) -> Observed:
    """What the hosts say; of those that do not answer, what their controllers, other hosts and their servers say.

    Who has not let us in after `PROMPT_S` is asked about at once: the seconds until a connection to
    a dead host fails are not spent twice, nor to their end when all agree that it is off. Should it
    answer after all, that is what counts.
    """
    hosts = desired.site.hosts
    logins = {h.name: pool.submit(_log_in, world, h) for h in hosts}
    looks = {h.name: pool.submit(_observe_host, world, h, logins[h.name]) for h in hosts}
    wait(logins.values(), timeout=PROMPT_S)
    near = [name for name, login in logins.items() if login.done() and login.exception() is None]
    slow = [n for n, login in logins.items() if login.running() or (login.done() and login.exception())] if near else []
    asked = {name: _ask_about(world, name, _witnesses(world, near, slow), pool) for name in slow}
    seen = Observed(tuple(looks[name].result() for name in near))
    absent = [s for s in desired.everyone if slow and not any(seen.copies(desired.site.site, s.name))]
    knocks = {s.name: pool.submit(_answers, world, s) for s in absent}
    heard = tuple(_heard(h, looks[h.name], asked.get(h.name)) for h in hosts)
    near, far = [h.name for h in heard if h.reachable], [h.name for h in heard if not h.reachable]
    asked |= {n: _ask_about(world, n, _witnesses(world, near, far), pool) for n in far if n not in asked}
    found = Observed(tuple(h if h.reachable else _completed(world, h, asked[h.name]) for h in heard))
    answering = (name for name, knock in knocks.items() if knock.result())
    vantage = look_from_here(str(world.host(found.severed[0]).address)) if found.severed else ""
    alone = tuple(n for n in answering if not any(found.copies(desired.site.site, n)))
    return replace(found, answering=alone, vantage=vantage)


def _witnesses(world: World, near: list[str], far: list[str]) -> list[str]:
    """Who is asked about a silent host: two that answer, and where half are silent those beside the hosts, too."""
    beside = [w.name for w in world.site.witnesses] if 2 * len(far) >= len(world.site.hosts) else []
    return [*near[:VIEWS], *beside]


def _heard(host: Host, look: Future[SeenHost], asked: _Asked | None) -> SeenHost:
    """What the host says, in its own time; or that it is off, when all agree on that before it has said anything."""
    while asked is not None and not look.done():
        if all(answer.done() for answer in asked.all):
            if proof := asked.agree_that_it_is_off():
                return SeenHost(
                    host.name, problem=f"{host.address} does not answer, and is off, says {proof}", silent=True
                )
            break
        wait({look} | {answer for answer in asked.all if not answer.done()}, return_when=FIRST_COMPLETED)
    return look.result()


def _ask_about(world: World, host: str, witnesses: list[str], pool: ThreadPoolExecutor) -> _Asked:
    power = pool.submit(_ask_power, world, host)
    return _Asked(power, [pool.submit(_look_from, world, witness, host) for witness in witnesses])


def _completed(world: World, host: SeenHost, asked: _Asked) -> SeenHost:
    """The host, with who says that it is off, and who sees it. A person's word counts for silence only: whoever
    sees it, and a controller that says on, withdraw it for good."""
    views = tuple(w for view in asked.views if (w := view.result()) is not None)
    found = asked.power.result()
    if any(w.sees for w in views) or (found is not None and found.power is HostPower.ON):
        world.heard_of(host.name)
    unproven = found is None or (found.power is HostPower.OFF and not found.proof)
    if unproven and host.silent and (word := world.confirmed_off(host.name)):
        found = PowerProof(HostPower.OFF, word)
    if found is None:
        return replace(host, witnesses=views)
    return replace(host, witnesses=views, power=found.power, proof=found.proof)


def _ask_power(world: World, host: str) -> PowerProof | None:
    """None when no controller answers."""
    try:
        return ask_power(world, host)
    except PcloudError:
        return None


def _look_from(world: World, witness: str, host: str) -> Witness | None:
    """Whether `host` answers `witness`; None where that could not be tried."""
    try:
        shell = world.shell(witness)
    except PcloudError:
        return None
    seen = look_from(shell, str(world.host(host).address), WITNESS_S, greeted=True)
    return None if seen is None else Witness(witness, seen)


def _answers(world: World, spec: ServerSpec) -> bool:
    """Whether the server takes a connection: then the processor under it runs, wherever that is."""
    ports = [getattr(c, c.kind).port for c in world.site.group(spec.group).checks if c.command is None]
    knock = (Check(name="knock", tcp=TcpCheck(port=port), timeout_s=KNOCK_S) for port in ports[:1])
    return any(world.probe(check, spec.name, spec.address).ok for check in knock)


def _ages(world: World, host: str) -> dict[str, float]:
    """Seconds since each server's emulator started, by the age of its pid file on the host."""
    shell = world.shell(host)
    listing = shell.run(
        ["find", _PID_FILES, "-maxdepth", "1", "-name", "*.pid", "-printf", r"%T@ %f\n"], deadline_s=10, check=False
    ).stdout
    now = float(shell.run(["date", "+%s.%N"], deadline_s=10).stdout)
    started = (line.partition(" ") for line in listing.splitlines())
    return {name.removesuffix(".pid"): max(0.0, now - float(at)) for at, _, name in started}


def _running(found: Observed, desired: Desired, spec: ServerSpec) -> int:
    """How many copies of it."""
    return sum(s.power is Power.RUNNING for _, s in found.copies(desired.site.site, spec.name))


def _observe_servers(world: World, up: list[ServerSpec], pool: ThreadPoolExecutor) -> dict[str, Health]:
    """Those of a group of which none answers are looked at again: in a rush, what is well is slow once."""

    def look(servers: list[ServerSpec]) -> dict[str, Health]:
        return dict(zip((s.name for s in servers), pool.map(lambda s: _look_at(world, s), servers), strict=True))

    health = look(up)
    well = {s.group for s in up if health[s.name].ok}
    again = [s for s in up if s.group not in well]
    if again:
        world.clock.sleep(AGAIN_S)
        health |= look(again)
    return health


def _look_at(world: World, spec: ServerSpec) -> Health:
    for check in liveness(world.site.group(spec.group).checks):
        verdict = world.probe(check, spec.name, spec.address)
        if not verdict.ok:
            return Health(False, verdict.detail)
    return Health(True)
