"""What no single model can see in a site: duplicates, unknown names, circles and capacity.

Pure functions from a site and its document to problems with line numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from ipaddress import IPv4Address

from pcloud.controllers import Place, places_of
from pcloud.document import Document
from pcloud.errors import Problem
from pcloud.identity import MAX_ADDRESSES, range_ends, server_mac, server_names
from pcloud.model import HOST_RESERVE_MIB, SERVER_OVERHEAD_MIB, Group, Site
from pcloud.wording import Key, did_you_mean

MAX_SERVERS = 10_000


def check_site(site: Site, document: Document) -> list[Problem]:
    """Everything that is wrong between the parts of a site, in the order of the file."""
    checks: Sequence[Callable[[Site, Document], Iterator[Problem]]] = (
        _names,
        _references,
        _roles,
        _database,
        _controllers,
        _circles,
        _journey,
        _size,
    )
    problems = [problem for check in checks for problem in check(site, document)]
    if not any(problem.path == "groups" for problem in problems):
        # Only when the number of servers is bounded is it safe to name each of them.
        for check in (_addresses, _macs, _memory):
            problems.extend(check(site, document))
    return sorted(set(problems))


def _twice(document: Document, named: Iterable[tuple[Key, str]], what: str) -> Iterator[Problem]:
    first: dict[str, Key] = {}
    for path, name in named:
        if name in first:
            line = document.line(first[name])
            yield document.problem(path, f"{what} {name} is here twice, first on line {line}; rename one")
        first.setdefault(name, path)


def _names(site: Site, document: Document) -> Iterator[Problem]:
    hosts = [(("hosts", n, "name"), host.name) for n, host in enumerate(site.hosts)]
    hosts += [(("witnesses", n, "name"), witness.name) for n, witness in enumerate(site.witnesses)]
    yield from _twice(document, hosts, "host")
    yield from _twice(document, [(("groups", n, "name"), g.name) for n, g in enumerate(site.groups)], "group")
    yield from _twice(document, [(("groups", n, "prefix"), g.prefix) for n, g in enumerate(site.groups)], "prefix")
    steps = [(("journey", "steps", n, "name"), visit.name) for n, visit in enumerate(site.journey.steps)]
    yield from _twice(document, steps, "step")
    for n, group in enumerate(site.groups):
        checks = [(("groups", n, "checks", m, "name"), check.name) for m, check in enumerate(group.checks)]
        yield from _twice(document, checks, "check")
        for path, name in hosts:
            prefix, _, number = name.rpartition("-")
            if prefix == group.prefix and number.isdigit() and name == f"{prefix}-{int(number)}":
                what = f"host {name} has the name of a server of group {group.name}; rename the host"
                yield document.problem(path, what)


def _controllers(site: Site, document: Document) -> Iterator[Problem]:
    """No two hosts have one controller, however it is written: who fences one would cut off the other."""
    taken: list[tuple[Place, str, Key]] = []
    for n, host in enumerate(site.hosts):
        told = False
        for way, place in places_of(host.bmc):
            path = ("hosts", n, "bmc", way)
            other = next((t for t in taken if t[1] != host.name and t[0].may_be(place)), None)
            if other is not None and not told:
                told = True
                line = document.line(other[2])
                what = (
                    f"this is the controller of host {other[1]} too (line {line}): whoever cuts off one cuts off both"
                )
                yield document.problem(path, f"{what}; write the own one of {host.name}")
            taken.append((place, host.name, path))
        if host.bmc is not None and (host.bmc.redfish or "").startswith("http://") and not host.bmc.insecure:
            what = "over http:// everybody in between reads the password; write https://, or add `insecure: true`"
            yield document.problem(("hosts", n, "bmc", "redfish"), what)


def _references(site: Site, document: Document) -> Iterator[Problem]:
    groups = [group.name for group in site.groups]
    used: list[tuple[Key, str]] = [(("services", name, "group"), s.group) for name, s in site.services.items()]
    used += [(("database", "group"), site.database.group), (("search", "group"), site.search.group)]
    if site.database.replica is not None:
        used.append((("database", "replica"), site.database.replica))
    for n, group in enumerate(site.groups):
        used += [(("groups", n, "needs", m), name) for m, name in enumerate(group.needs)]
        if group.image not in site.images:
            what = f"there is no image {group.image}; {did_you_mean(group.image, list(site.images), 'the images are')}"
            yield document.problem(("groups", n, "image"), what)
    for path, name in used:
        if name not in groups:
            what = f"there is no group {name}; {did_you_mean(name, groups, 'the groups are')}"
            yield document.problem(path, what)


def _roles(site: Site, document: Document) -> Iterator[Problem]:
    groups = {group.name: group for group in site.groups}
    wanted: list[tuple[Key, str, str]] = [
        (("database", "group"), site.database.group, "database"),
        (("search", "group"), site.search.group, "indexer"),
    ]
    storefront = site.services.get(site.journey.service)
    if storefront is not None:
        wanted.append((("services", site.journey.service, "group"), storefront.group, "balancer"))
    for path, name, role in wanted:
        if name in groups and groups[name].role != role:
            fitting = [g.name for g in site.groups if g.role == role]
            hint = f"write {' or '.join(fitting)}" if fitting else f"add a group with role {role}"
            what = f"group {name} has role {groups[name].role}, and this needs role {role}; {hint}"
            yield document.problem(path, what)


def _database(site: Site, document: Document) -> Iterator[Problem]:
    """The address that moves is the database's, and a replica is not where the database is."""
    database, services = site.database, site.services
    if database.service not in services:
        hint = did_you_mean(database.service, list(services), "the services are")
        what = f"there is no service {database.service}, whose address moves with the database; {hint}"
        yield document.problem(("database", "service"), what)
    elif services[database.service].group != database.group:
        what = f"service {database.service} is the database's, so its group is {database.group}"
        yield document.problem(("services", database.service, "group"), what)
    if database.replica == database.group:
        yield document.problem(("database", "replica"), "a replica in the database's own group; name another group")


def _circles(site: Site, document: Document) -> Iterator[Problem]:
    needs = {group.name: set(group.needs) for group in site.groups}
    if len(needs) < len(site.groups):
        return  # which of two groups of one name is needed, nobody knows
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        first = next(n for n, group in enumerate(site.groups) if group.name in circle)
        while circle[0] != site.groups[first].name:
            circle = [*circle[1:], circle[1]]
        what = f"groups need each other: {' needs '.join(circle)}; take one of these needs out"
        yield document.problem(("groups", first, "needs"), what)


def _journey(site: Site, document: Document) -> Iterator[Problem]:
    service = site.journey.service
    if service not in site.services:
        hint = did_you_mean(service, list(site.services), "the services are")
        what = f"there is no service {service}; {hint}"
        yield document.problem(("journey", "service"), what)
    first = site.journey.steps[0]
    if first.get is None:
        what = f"the first step ({first.name}) must open a page; begin with a step that has get"
        yield document.problem(("journey", "steps", 0), what)


def _size(site: Site, document: Document) -> Iterator[Problem]:
    servers = sum(group.count for group in site.groups)
    if servers > MAX_SERVERS:
        yield document.problem(("groups",), f"{servers} servers are more than {MAX_SERVERS}; split the site")
    if all(host.spare for host in site.hosts):
        yield document.problem(("hosts",), "every host is spare; take `spare: true` off the ones to use")


def _addresses(site: Site, document: Document) -> Iterator[Problem]:
    owner: dict[IPv4Address, tuple[str, Key]] = {}
    single: list[tuple[Key, IPv4Address, str]] = [(("network", "gateway"), site.network.gateway, "the gateway")]
    single += [(("hosts", n, "address"), host.address, f"host {host.name}") for n, host in enumerate(site.hosts)]
    single += [(("services", name, "address"), s.address, f"service {name}") for name, s in site.services.items()]
    for path, address, label in single:
        yield from _outside(site, document, path, address, address)
        yield from _taken(document, owner, path, [(address, label)])
    for n, group in enumerate(site.groups):
        given = 0
        for m, spec in enumerate(group.addresses):
            path = ("groups", n, "addresses", m)
            try:
                low, high = range_ends(spec)
            except ValueError as error:
                yield document.problem(path, str(error))
                given = group.count  # how many it should have been, nobody knows
                continue
            size = int(high) - int(low) + 1
            if size > MAX_ADDRESSES - len(owner):
                yield document.problem(path, f"{spec} makes more than {MAX_ADDRESSES} addresses; write fewer")
                return
            yield from _outside(site, document, path, low, high)
            numbered = [(IPv4Address(int(low) + k), _owner(group, given + k)) for k in range(size)]
            yield from _taken(document, owner, path, numbered)
            given += size
        if given < group.count:
            what = f"{given} {'address' if given == 1 else 'addresses'} for {group.count} servers; add "
            yield document.problem(("groups", n, "addresses"), f"{what}{group.count - given}, or lower count")


def _owner(group: Group, position: int) -> str:
    return f"server {group.prefix}-{position + 1}" if position < group.count else f"group {group.name}"


def _outside(site: Site, document: Document, path: Key, low: IPv4Address, high: IPv4Address) -> Iterator[Problem]:
    network = site.network.cidr
    ends = f"{network.network_address + 1} to {network.broadcast_address - 1}"
    for address in dict.fromkeys((low, high)):
        if address not in network:
            yield document.problem(path, f"{address} is not in {network}; write one from {ends}")
            return
        if address in (network.network_address, network.broadcast_address):
            name = "network" if address == network.network_address else "broadcast"
            yield document.problem(path, f"{address} is the {name} address of {network}; write one from {ends}")
            return


def _taken(
    document: Document, owner: dict[IPv4Address, tuple[str, Key]], path: Key, wanted: list[tuple[IPv4Address, str]]
) -> Iterator[Problem]:
    """At most one problem a place: a range that overlaps another is one mistake, not hundreds."""
    told = False
    for address, label in wanted:
        if address in owner and not told:
            other, at = owner[address]
            what = f"{address} is given to {label} and to {other} (line {document.line(at)}); change one"
            yield document.problem(path, what)
            told = True
        owner.setdefault(address, (label, path))


def _macs(site: Site, document: Document) -> Iterator[Problem]:
    owner: dict[str, str] = {}
    for n, group in enumerate(site.groups):
        for server in server_names(group):
            mac = server_mac(site.site, server)
            other = owner.setdefault(mac, server)
            if other != server:
                what = f"{server} and {other} would share the MAC address {mac}; give one group another prefix"
                yield document.problem(("groups", n, "prefix"), what)


def _memory(site: Site, document: Document) -> Iterator[Problem]:
    lab = site.lab.host_memory_mib if site.lab else None
    # None: only the host itself knows, and planning will find out.
    known = {h.name: min((m for m in (h.memory_mib, lab) if m is not None), default=None) for h in site.hosts}
    rooms = {host.name: known[host.name] for host in site.hosts if not host.spare}
    usable = [max(0, memory - HOST_RESERVE_MIB) for memory in rooms.values() if memory is not None]
    if not usable or len(usable) < len(rooms):
        return
    kept = f"{HOST_RESERVE_MIB} MiB a host and {SERVER_OVERHEAD_MIB} MiB a server are kept for the emulator"
    for n, group in enumerate(site.groups):
        if group.memory_mib + SERVER_OVERHEAD_MIB > max(usable):
            what = f"no host has room for a server of {group.memory_mib} MiB: the largest takes "
            what += f"{max(0, max(usable) - SERVER_OVERHEAD_MIB)} ({kept}); lower it, or give hosts more memory_mib"
            yield document.problem(("groups", n, "memory_mib"), what)
    wanted = sum(group.count * (group.memory_mib + SERVER_OVERHEAD_MIB) for group in site.groups)
    if wanted > sum(usable):
        what = f"the servers need {wanted} MiB and the hosts have {sum(usable)} ({kept}); "
        yield document.problem(("groups",), f"{what}lower memory_mib or count, or add a host")
