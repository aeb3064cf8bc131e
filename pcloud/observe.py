"""`observe`: what is on the hosts, asked of all of them at once, each within its deadline.

A host that does not answer is a fact, not a failure; its controller and other hosts are then
asked about it. Checks are asked of running servers only, and of one copy of each.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pcloud.desired import Desired, ServerSpec, liveness
from pcloud.errors import HostUnreachable, PcloudError
from pcloud.model import Host
from pcloud.observe_data import observe_data
from pcloud.observed import Health, HostPower, Observed, Power, SeenHost, Witness
from pcloud.steps.fence import ask_power
from pcloud.world import World

WORKERS = 64
WITNESSES = 2
"""How many other hosts are asked whether they reach one that does not answer."""
WITNESS_S = 4
"""What they have for it."""
_PID_FILES = "/run/libvirt/qemu"


def observe(desired: Desired, world: World) -> Observed:
    """Asks every host, then every running server of the site. Takes as long as the slowest."""
    with ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="observe") as pool:
        hosts = tuple(pool.map(lambda h: _observe_host(world, h), desired.site.hosts))
        found = Observed(_look_closer(world, hosts, pool))
        up = [s for s in desired.everyone if _runs(found, desired, s)]
        health = dict(zip((s.name for s in up), pool.map(lambda s: _observe_server(world, s), up), strict=True))
        data = observe_data(desired, world, {s.name for s in up}, pool)
    return replace(found, health=health, data=data)


def _observe_host(world: World, host: Host) -> SeenHost:
    try:
        # SSH alone first: of a dead host it says so in half the time, as libvirt comes over SSH too.
        world.shell(host.name).run(["true"], deadline_s=2 * world.site.access.connect_timeout_s)
        hypervisor = world.hypervisor(host.name)
        servers = hypervisor.servers()
        if any(s.power is Power.RUNNING for s in servers):
            ages = _ages(world, host.name)
            servers = tuple(replace(s, age_s=ages.get(s.name, 0.0)) for s in servers)
        capacity = hypervisor.capacity(host.accel)
        return SeenHost(host.name, "", capacity.memory_mib, capacity.accel, servers, hypervisor.volumes(host.pool))
    except PcloudError as error:
        silent = type(error) is HostUnreachable  # then only a person near the host can tell why
        return SeenHost(host.name, problem=error.what, next="" if silent else error.next, silent=silent)


def _look_closer(world: World, hosts: tuple[SeenHost, ...], pool: ThreadPoolExecutor) -> tuple[SeenHost, ...]:
    """The same, with what controllers and other hosts say of those that do not answer; all asked at once."""
    away = {h.name: h.silent for h in hosts if not h.reachable}
    near = [h.name for h in hosts if h.reachable][:WITNESSES]
    powers = {h: pool.submit(_ask_power, world, h, silent) for h, silent in away.items()}
    views = {h: [pool.submit(_look_from, world, w, h) for w in near] for h in away}
    seen = {h: tuple(w for view in views[h] if (w := view.result()) is not None) for h in away}
    asked = {h: powers[h].result() for h in away}
    return tuple(
        replace(h, power=asked[h.name][0], proof=asked[h.name][1], witnesses=seen[h.name]) if h.name in asked else h
        for h in hosts
    )


def _ask_power(world: World, host: str, silent: bool) -> tuple[HostPower, str]:
    """Whether the host has power, and who says so where it has none; a person's word counts for silence only."""
    try:
        found = ask_power(world, host)
    except PcloudError:
        word = world.confirmed_off(host) if silent else ""
        return (HostPower.OFF, word) if word else (HostPower.UNKNOWN, "")
    return found.power, found.proof


def _look_from(world: World, witness: str, host: str) -> Witness | None:
    """Whether `host` answers `witness` on its SSH port; None where that could not be tried.

    Alive is what greets, and what refuses: then its kernel answers. A port that accepts and
    says nothing is a machine whose programs stand still.
    """
    greet = f"exec 3<>/dev/tcp/{world.host(host).address}/22 && read -r -t {WITNESS_S - 1} line <&3"
    argv = ["env", "LC_ALL=C", "timeout", str(WITNESS_S), "bash", "-c", greet]
    try:
        answer = world.shell(witness).run(argv, deadline_s=2 * WITNESS_S, check=False)
    except PcloudError:
        return None
    if answer.exit_code in (126, 127):
        return None
    return Witness(witness, answer.exit_code == 0 or "refused" in answer.stderr)


def _ages(world: World, host: str) -> dict[str, float]:
    """Seconds since each server's emulator started, by the age of its pid file on the host."""
    shell = world.shell(host)
    listing = shell.run(
        ["find", _PID_FILES, "-maxdepth", "1", "-name", "*.pid", "-printf", r"%T@ %f\n"], deadline_s=10, check=False
    ).stdout
    now = float(shell.run(["date", "+%s.%N"], deadline_s=10).stdout)
    started = (line.partition(" ") for line in listing.splitlines())
    return {name.removesuffix(".pid"): max(0.0, now - float(at)) for at, _, name in started}


def _runs(found: Observed, desired: Desired, spec: ServerSpec) -> bool:
    return any(s.power is Power.RUNNING for _, s in found.copies(desired.site.site, spec.name))


def _observe_server(world: World, spec: ServerSpec) -> Health:
    for check in liveness(world.site.group(spec.group).checks):
        verdict = world.probe(check, spec.name, spec.address)
        if not verdict.ok:
            return Health(False, verdict.detail)
    return Health(True)
