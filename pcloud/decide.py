"""What each server needs: one decision a server, from facts alone.

Safety, as sentences:
- A server that may be running on a host that does not answer is not built anywhere else.
- Two running copies of a server are a person's business.
- A server that pcloud did not make is never touched.
- A server that is booting is waited for, not rebuilt.
- A server is not blamed for what it depends on.
- Data is not thrown away by the way: a database that drifted is kept, one that does not
  answer is power-cycled; it is made anew only when it is missing or when a person names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pcloud.desired import Desired, Names, ServerSpec
from pcloud.observed import Health, Observed, Power, SeenHost, SeenServer
from pcloud.placement import Placed, place


class Act(StrEnum):
    KEEP = "keep"
    WAIT = "wait"
    START = "start"
    CYCLE = "cycle"
    REBUILD = "rebuild"
    BUILD = "build"
    BLOCK = "block"


UNHEALTHY = "unhealthy"

MAKES = frozenset({Act.BUILD, Act.REBUILD})
"""Acts after which the server is a new one."""


@dataclass(frozen=True)
class Decision:
    """`host` is where the server is or will be; `old` the generation that must go first."""

    server: str
    act: Act
    reason: str
    host: str = ""
    generation: int = 0
    old: int | None = None
    was_healthy: bool = False
    next: str = ""


def decide(desired: Desired, observed: Observed) -> dict[str, Decision]:
    """A decision for every server of the site, in the inventory's order."""
    last = _last_generations(observed, desired.site.site)
    decided = {spec.name: _decide_one(desired, observed, spec, last.get(spec.name, 0)) for spec in desired.servers}
    guilty = _first_not_kept(desired, decided)
    decided = {name: _spare_the_innocent(desired, guilty, d) for name, d in decided.items()}
    decided = {name: _only_what_was_asked(desired, d) for name, d in decided.items()}
    return _with_places(desired, observed, decided)


def _decide_one(desired: Desired, observed: Observed, spec: ServerSpec, last: int) -> Decision:
    """`last` is the highest generation of the server that any host knows of."""
    site = desired.site.site
    copies = sorted(observed.copies(site, spec.name), key=lambda c: -_generation(c[1]))
    running = [(h, s) for h, s in copies if s.power is not Power.OFF]
    if len(running) > 1:
        hosts = " and ".join(h.name for h, _ in running)
        return Decision(
            spec.name,
            Act.BLOCK,
            f"it runs twice, on {hosts}",
            next=f"keep one, power the other off: pcloud ssh {site}/{running[-1][0].name} -- "
            f"virsh destroy {Names(site, spec.name).domain}",
        )
    foreign = _foreign(observed, site, spec)
    if foreign is not None:
        host, seen = foreign
        return Decision(
            spec.name,
            Act.BLOCK,
            f"{host.name} has a server {seen.name} with its name or address that is not pcloud's",
            next=f"rename or remove it: pcloud ssh {site}/{host.name} -- virsh domrename {seen.name} NEW-NAME",
        )
    if not copies:
        away = observed.unreachable()
        if away:
            return Decision(
                spec.name,
                Act.BLOCK,
                f"it may be running on {', '.join(away)}, which does not answer: {_why(observed, away[0])}",
                next=_bring_back(desired, observed, away[0]),
            )
        return Decision(spec.name, Act.BUILD, "it is missing", generation=last + 1)
    host, seen = (running or copies)[0]
    return _decide_present(desired, observed, spec, host, seen, last + 1)


def _decide_present(
    desired: Desired, observed: Observed, spec: ServerSpec, host: SeenHost, seen: SeenServer, anew: int
) -> Decision:
    """`anew` is the generation that the server would have if it were made again."""
    site = desired.site.site
    generation = _generation(seen)
    health = observed.health.get(spec.name, Health(False, "it does not run"))

    def decision(act: Act, reason: str) -> Decision:
        if act is Act.REBUILD:
            return Decision(spec.name, act, reason, host.name, anew, generation, health.ok)
        remedy = f"mount it and recover again, or take the dump: pcloud recover {site} --rebuild {spec.name}"
        return Decision(spec.name, act, reason, host.name, generation, None, health.ok, remedy)

    if desired.options.from_scratch or spec.name in desired.options.rebuild:
        return decision(Act.REBUILD, "you asked for it")
    drift = _drift(spec, seen)
    lost = Names(site, spec.name, generation).disk not in host.volumes
    if spec.role == "database":
        act, reason = _choose_for_data(desired, spec, seen, health, drift, lost)
    else:
        act, reason = _choose(desired, spec, seen, health, drift, lost)
    return decision(act, reason)


def _choose(
    desired: Desired, spec: ServerSpec, seen: SeenServer, health: Health, drift: str, lost: bool
) -> tuple[Act, str]:
    """For a server that can be made anew at any time."""
    if lost:
        return Act.REBUILD, "its disk is gone"
    if drift:
        return Act.REBUILD, f"its {drift} changed"
    if seen.power is not Power.RUNNING:
        return Act.START, f"it is {seen.power}"
    if health.ok:
        return Act.KEEP, "healthy"
    if seen.age_s < desired.site.group(spec.group).boot_timeout_s:
        return Act.WAIT, f"it started {seen.age_s:.0f} s ago: {health.detail}"
    return Act.REBUILD, f"{UNHEALTHY}: {health.detail}"


def _choose_for_data(
    desired: Desired, spec: ServerSpec, seen: SeenServer, health: Health, drift: str, lost: bool
) -> tuple[Act, str]:
    """For a server whose disk holds what nobody can make again."""
    if lost:
        return Act.BLOCK, "its disk is not in the pool (is the storage mounted?)"
    act, reason = _choose(desired, spec, seen, health, "", lost=False)
    if act is Act.REBUILD:
        return Act.CYCLE, reason
    if act is Act.KEEP and drift:
        return act, f"{reason}; its {drift} changed, but it holds data: --rebuild {spec.name} makes it anew"
    return act, reason


def _first_not_kept(desired: Desired, decided: Mapping[str, Decision]) -> dict[str, str]:
    """Group to its first server that is not as it should be, where there is one."""
    return {s.group: s.name for s in reversed(desired.servers) if decided[s.name].act is not Act.KEEP}


def _spare_the_innocent(desired: Desired, guilty: Mapping[str, str], d: Decision) -> Decision:
    """A running server whose only fault may be what it needs is waited for instead."""
    if d.act is not Act.REBUILD or not d.reason.startswith(UNHEALTHY):
        return d
    needs = desired.site.group(desired.server(d.server).group).needs
    first = next((guilty[g] for g in needs if g in guilty), None)
    if first is None or d.old is None:
        return d
    return Decision(d.server, Act.WAIT, f"{d.reason}; {first} comes first", d.host, d.old)


def _only_what_was_asked(desired: Desired, d: Decision) -> Decision:
    only = desired.options.only
    if not only or d.server in only or desired.server(d.server).group in only or d.act is Act.KEEP:
        return d
    return Decision(d.server, Act.KEEP, f"not asked for; it would {d.act}: {d.reason}", d.host, d.old or d.generation)


def _with_places(desired: Desired, observed: Observed, decided: Mapping[str, Decision]) -> dict[str, Decision]:
    staying = {n: d.host for n, d in decided.items() if d.host}
    new = [s for s in desired.servers if decided[s.name].act is Act.BUILD]
    places = place(desired.site, observed, staying, new, {s.name: s.group for s in desired.servers})
    return {name: _placed(desired, d, places.get(name)) if d.act is Act.BUILD else d for name, d in decided.items()}


def _placed(desired: Desired, d: Decision, placed: Placed | None) -> Decision:
    if placed is None:
        need = desired.server(d.server).memory_mib
        return Decision(
            d.server,
            Act.BLOCK,
            f"no host that answers has {need} MiB left for it",
            next=f"pcloud status {desired.site.site}; then add a host to the inventory, or give it less memory_mib",
        )
    return Decision(d.server, d.act, f"{d.reason}; {placed.host}: {placed.reason}", placed.host, d.generation)


def _drift(spec: ServerSpec, seen: SeenServer) -> str:
    mark = seen.mark
    if mark is None or (mark.spec == spec.spec and mark.image == spec.image.digest):
        return ""
    return "image" if mark.image != spec.image.digest else "configuration"


def _generation(seen: SeenServer) -> int:
    return seen.mark.generation if seen.mark else 0


def _foreign(observed: Observed, site: str, spec: ServerSpec) -> tuple[SeenHost, SeenServer] | None:
    name = Names(site, spec.name).domain
    for host, seen in observed.lookalikes(name, spec.uuid, spec.mac):
        if seen.mark is None or (seen.mark.site, seen.mark.server) != (site, spec.name):
            return host, seen
    return None


def _last_generations(observed: Observed, site: str) -> dict[str, int]:
    """Server to the highest generation that any host knows of, by its mark or by a left file."""
    pattern = re.compile(rf"{re.escape(site)}\.([a-z0-9-]+)\.g(\d+)\.")
    marks = (s.mark for h in observed.hosts for s in h.servers if s.mark is not None and s.mark.site == site)
    files = (pattern.match(v) for h in observed.hosts for v in h.volumes)
    known = [(m.server, m.generation) for m in marks] + [(f[1], int(f[2])) for f in files if f]
    last: dict[str, int] = {}
    for server, generation in known:
        last[server] = max(last.get(server, 0), generation)
    return last


def _why(observed: Observed, host: str) -> str:
    seen = observed.host(host)
    return seen.problem if seen else ""


def _bring_back(desired: Desired, observed: Observed, host: str) -> str:
    site, seen = desired.site.site, observed.host(host)
    if seen is not None and seen.next:
        return f"{seen.next}; then pcloud recover {site}"
    if desired.site.lab is not None:
        return (
            f"pcloud lab status {site} shows its power and its cable; pcloud lab power-on {site}/{host} "
            f"(or mend, or thaw-host; power-off first if it hangs); then pcloud recover {site}"
        )
    return (
        f"bring {host} back, or take it out of the inventory once it is switched off for good; "
        f"then pcloud recover {site}"
    )


def leftovers(desired: Desired, observed: Observed) -> dict[str, tuple[str, ...]]:
    """Host to the files of this site that belong to no server: an interrupted build's."""
    site = desired.site.site
    unfinished = r"\.part|\.[A-Za-z0-9]{8}"
    pattern = re.compile(rf"{re.escape(site)}\.[a-z0-9-]+\.g\d+\.(qcow2|seed\.iso|console\.log)({unfinished})?$")
    found = {}
    for host in observed.hosts:
        kept = {n for s in host.servers if s.mark and s.mark.site == site for n in _files(site, s)}
        lost = tuple(v for v in host.volumes if pattern.fullmatch(v) and v not in kept)
        if lost:
            found[host.name] = lost
    return found


def _files(site: str, seen: SeenServer) -> tuple[str, ...]:
    if seen.mark is None:
        return ()
    names = Names(site, seen.mark.server, seen.mark.generation)
    return names.disk, names.seed, names.console
