"""What can go wrong in a scenario, as words: `kill h1`, `cut h2 seen`, `bmc h1 hangs`, `hang db-1`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from pcloud.desired import Names
from pcloud.inventory import defaults_dir, load_site
from pcloud.model import Host, SemiSync, Witness
from pcloud.observed import Power
from tests.conftest import regroup
from tests.simulated_data import SimData
from tests.simulated_power import Bmc
from tests.simulation import DEMO_DUMP, SimDomain, SimHost, SimWorld

CYCLE_S = 6.0


def _kill(world: SimWorld, host: str) -> str:
    world.cut(host)
    return f"{host} loses its power"


def _unplug(world: SimWorld, host: str) -> str:
    world.cut(host)
    world.hosts[host].bmc = Bmc.MUTE
    return f"{host} loses its power, and its controller with it"


def _freeze(world: SimWorld, host: str) -> str:
    if world.hosts[host].powered:
        world.hosts[host].away = world.hosts[host].frozen = True
    return f"{host} stands still"


def _cut(world: SimWorld, host: str, *words: str) -> str:
    if world.hosts[host].powered:
        world.hosts[host].away, world.hosts[host].seen = True, "seen" in words
    return f"{host}'s cable is cut" if "seen" not in words else f"{host} does not answer us, and others see it"


def _mend(world: SimWorld, host: str) -> str:
    """The cable, the freezing, and the controller; not the power."""
    at = world.hosts[host]
    at.bmc = Bmc.WELL
    if at.powered:
        at.away = at.seen = at.frozen = False
    world.replicate()
    return f"{host} is mended"


def _return(world: SimWorld, host: str) -> str:
    """Power comes back; its servers are as libvirt left them: off."""
    at = world.hosts[host]
    if at.powered:
        return _mend(world, host)
    at.bmc = Bmc.WELL
    world.turn_on(host)
    return f"{host} has power again, and boots"


def _bmc(world: SimWorld, host: str, mode: str) -> str:
    world.hosts[host].bmc, world.hosts[host].bmc_since = Bmc(mode), world.clock.now()
    return f"{host}'s controller: {mode}"


def _cycle(world: SimWorld, host: str) -> str:
    """Somebody, or a watchdog, switches it off and on: its servers are off when it is back."""
    if not world.hosts[host].powered:
        return f"{host} has no power to be cycled"
    world.cut(host)
    bmc, clock = world.hosts[host].bmc, world.clock

    def back() -> None:
        if not world.hosts[host].powered:
            _return(world, host)
            world.hosts[host].bmc = bmc

    clock.at(clock.now() + CYCLE_S, back)
    return f"{host} is in the middle of a power cycle"


def _domain(world: SimWorld, server: str) -> tuple[str, SimDomain] | None:
    return next(iter(world.running(server)), None)


def _crash(world: SimWorld, server: str) -> str:
    if found := _domain(world, server):
        found[1].power = Power.OFF
    return f"{server} is killed"


def _hang(world: SimWorld, server: str) -> str:
    if found := _domain(world, server):
        found[1].hung = True
    return f"{server} stands still"


def _busy(world: SimWorld, server: str, looks: str) -> str:
    """In a rush it sells, and answers no other question so many times."""
    if found := _domain(world, server):
        found[1].busy = int(looks)
    return f"{server} is slow, and sells"


def _disk(world: SimWorld, server: str) -> str:
    """A running server keeps its open file: it shows when it is switched off."""
    if found := _domain(world, server):
        host, domain = found
        assert domain.mark is not None
        name = Names(world.site.site, server, domain.mark.generation).disk
        world.hosts[host].files.pop(f"{world.host(host).pool}/{name}", None)
        domain.power = Power.OFF
    return f"{server} is killed, and its disk is gone"


def _undefine(world: SimWorld, server: str) -> str:
    """A person, or a host made anew: the pool is there, and libvirt knows nothing of it."""
    if found := _domain(world, server):
        world.hosts[found[0]].domains.pop(Names(world.site.site, server).domain)
    return f"{server} is switched off, and libvirt does not know it any more"


def _start(world: SimWorld, host: str, server: str) -> str:
    """A person starts a copy, or what stands still of it, by hand."""
    name, hypervisor = Names(world.site.site, server).domain, world.hypervisor(host)
    hypervisor.power_off(name)
    hypervisor.start(name)
    return f"{server} on {host} is started by hand"


def _forget(world: SimWorld, host: str, server: str) -> str:
    world.hosts[host].domains.pop(Names(world.site.site, server).domain, None)
    return f"libvirt on {host} does not know {server} any more"


def _rotate(world: SimWorld) -> str:
    """Who is made anew from now on knows the new one."""
    for host in world.hosts.values():
        for domain in host.domains.values():
            domain.refuses = domain.mark is not None and domain.mark.server in world.carriers()
    return "the monitor has a new password, which no running database knows"


def _rotate_back(world: SimWorld) -> str:
    for host in world.hosts.values():
        for domain in host.domains.values():
            domain.refuses = False
    return "the monitor has its old password again"


def _dump_gone(world: SimWorld) -> str:
    problem = "the dump cannot be used: Input/output error"
    world.desired = replace(world.desired, dump=None, dump_problem=problem)
    return "the dump cannot be read"


def _dump_back(world: SimWorld) -> str:
    world.desired = replace(world.desired, dump=DEMO_DUMP, dump_problem="")
    return "the dump can be read again"


def _data(world: SimWorld, server: str) -> SimData:
    return world.find_data(server) or SimData()


def _deaf(world: SimWorld, server: str) -> str:
    _data(world, server).running = False
    return f"{server} stops following"


def _slow(world: SimWorld, server: str) -> str:
    _data(world, server).slow = True
    return f"{server} receives, and does not apply"


def _semi_sync_off(world: SimWorld, server: str) -> str:
    """By hand: what is acknowledged before anybody looks at the site again, nobody can know of."""
    _data(world, server).semi_sync = False
    world.by_hand.append((world.clock.now(), float("inf")))
    return f"{server}'s commits wait for nobody"


def _policy(world: SimWorld, alone: str) -> str:
    """A person changes the inventory: `wait`, or how many seconds a commit waits."""
    policy = SemiSync(alone="wait") if alone == "wait" else SemiSync(timeout_s=float(alone))
    database = world.site.database.model_copy(update={"semi_sync": policy})
    world.desired = replace(world.desired, site=world.site.model_copy(update={"database": database}))
    return f"the inventory says now: {f'commits wait {alone} s' if alone != 'wait' else 'no order without a replica'}"


def _pause(world: SimWorld, seconds: str) -> str:
    """Between the plan and the run, as the first event: a person reads it, and thinks."""
    world.clock.sleep(float(seconds))
    return f"{seconds} s have passed"


def _file(world: SimWorld, host: str, name: str) -> str:
    world.hosts[host].files[f"{world.host(host).pool}/{name}"] = "left"
    return f"{host} has a file {name}"


def _full(world: SimWorld, host: str) -> str:
    world.hosts[host].full = True
    return f"{host}'s disk is full"


def _unfull(world: SimWorld, host: str) -> str:
    world.hosts[host].full = False
    return f"{host} has room again"


def _reinstall(world: SimWorld, host: str) -> str:
    """It answers, and knows nothing any more."""
    world.hosts[host] = SimHost()
    for at in [at for at in world.disks if at[0] == host]:
        del world.disks[at]
    return f"{host} is installed anew, its disks empty"


def _set_hosts(world: SimWorld, hosts: Iterable[Host]) -> None:
    site = world.site.model_copy(update={"hosts": tuple(hosts)})
    world.desired = replace(world.desired, site=site)


def _remove(world: SimWorld, host: str) -> str:
    """It goes on as it was; nobody asks it any more."""
    world.machines[str(world.host(host).address)] = host
    _set_hosts(world, (h for h in world.site.hosts if h.name != host))
    return f"{host} is taken out of the inventory"


def _add(world: SimWorld, host: str) -> str:
    known = load_site(defaults_dir("inventory") / "demo.yaml").host(host)
    _set_hosts(world, sorted([*world.site.hosts, known], key=lambda h: h.name))
    return f"{host} is put into the inventory"


def _regroup(world: SimWorld, group: str, *words: str) -> str:
    """`frontend prefix=web count=2 addresses=10.77.0.21-10.77.0.24`: a person changes the inventory."""
    changes: dict[str, Any] = dict(word.split("=") for word in words)
    if "addresses" in changes:
        changes["addresses"] = tuple(changes["addresses"].split(","))
    regroup(world, group, changes)
    return f"the inventory says now of {group}: {', '.join(words)}"


def _guest(world: SimWorld, host: str, name: str) -> str:
    world.hosts[host].domains[name] = SimDomain(None, name, 512, (), Power.RUNNING)
    return f"{name}, which is not the site's, runs on {host}"


def _guest_gone(world: SimWorld, host: str, name: str) -> str:
    world.hosts[host].domains.pop(name, None)
    return f"{name} is gone from {host}"


def _witness(world: SimWorld, name: str) -> str:
    """On this side of whatever is cut."""
    one = Witness(name=name, address=IPv4Address("10.77.0.2"))
    world.desired = replace(world.desired, site=world.site.model_copy(update={"witnesses": (one,)}))
    return f"{name} is named as a witness"


def _rename(world: SimWorld, host: str, name: str) -> str:
    """The same machine under another name."""
    world.hosts[name] = world.hosts.pop(host)
    for at in [at for at in world.disks if at[0] == host]:
        world.disks[name, at[1]] = world.disks.pop(at)
    world.newest = {s: (g, name if h == host else h) for s, (g, h) in world.newest.items()}
    _set_hosts(world, (h.model_copy(update={"name": name}) if h.name == host else h for h in world.site.hosts))
    return f"{host} is called {name} from now on"


def _readdress(world: SimWorld, host: str, name: str, address: str) -> str:
    """Another machine has the host's name; it itself runs on where it was, as `name`, and nobody asks it."""
    world.hosts[name], world.hosts[host] = world.hosts[host], SimHost()
    world.machines[str(world.host(host).address)] = name
    for at in [at for at in world.disks if at[0] == host]:
        world.disks[name, at[1]] = world.disks.pop(at)
    world.newest = {s: (g, name if h == host else h) for s, (g, h) in world.newest.items()}
    new = {"address": IPv4Address(address)}
    _set_hosts(world, (h.model_copy(update=new) if h.name == host else h for h in world.site.hosts))
    return f"{host} is another machine, at {address}"


def _truth(world: SimWorld, host: str) -> str:
    """For the tests of the simulation: what a false word did counts like everything else."""
    world.lied.discard(host)
    return f"{host} had power all the time"


def _lose_orders(world: SimWorld) -> str:
    """For the tests of the simulation."""
    for data in world.disks.values():
        data.orders = data.relayed = ()
    return "orders are gone from every disk"


FAULTS: Mapping[str, Callable[..., str]] = {
    "kill": _kill,
    "unplug": _unplug,
    "freeze": _freeze,
    "cut": _cut,
    "mend": _mend,
    "return": _return,
    "bmc": _bmc,
    "cycle": _cycle,
    "crash": _crash,
    "hang": _hang,
    "busy": _busy,
    "disk-gone": _disk,
    "start": _start,
    "undefine": _undefine,
    "forget": _forget,
    "dump-gone": _dump_gone,
    "dump-back": _dump_back,
    "rotate": _rotate,
    "rotate-back": _rotate_back,
    "deaf": _deaf,
    "slow": _slow,
    "semi-sync-off": _semi_sync_off,
    "policy": _policy,
    "pause": _pause,
    "file": _file,
    "full": _full,
    "unfull": _unfull,
    "reinstall": _reinstall,
    "remove": _remove,
    "add": _add,
    "guest": _guest,
    "guest-gone": _guest_gone,
    "witness": _witness,
    "regroup": _regroup,
    "rename": _rename,
    "readdress": _readdress,
    "truth": _truth,
    "lose-orders": _lose_orders,
}


def strike(world: SimWorld, words: str) -> str:
    """Makes the fault happen; what happened, as a sentence."""
    verb, *rest = words.split()
    return FAULTS[verb](world, *rest)
