"""What becomes of a server that is there, on the host where it is."""

from __future__ import annotations

from dataclasses import dataclass

from pcloud.decision import UNHEALTHY, Act
from pcloud.desired import Desired, Names, ServerSpec
from pcloud.holding import REFUSES, find_heir, remedy_for_refusal
from pcloud.observed import Health, Observed, Power, SeenHost, SeenServer
from pcloud.steps.room import FULL, make_room


@dataclass(frozen=True)
class Choice:
    act: Act
    reason: str
    next: str = ""


def choose(desired: Desired, observed: Observed, spec: ServerSpec, host: SeenHost, seen: SeenServer) -> Choice:
    """For a server that can be made anew at any time."""
    drift = _drift(spec, seen)
    if _is_lost(desired, host, seen):
        return Choice(Act.REBUILD, "its disk is gone")
    if drift:
        return Choice(Act.REBUILD, f"its {drift} changed")
    return _mend(desired, observed, spec, seen)


def choose_for_data(
    desired: Desired, observed: Observed, spec: ServerSpec, host: SeenHost, seen: SeenServer, *, replaceable: bool
) -> Choice:
    """For a server whose disk may hold what nobody can make again: it is asked before anything else.

    One that is off is started, as nobody can ask it otherwise. One that refuses the monitor is left alone: it has
    its part in the data where it could be asked from inside, and blocks where it could not. So does one whose disk
    is full.
    """
    if _is_lost(desired, host, seen) and not replaceable:
        return Choice(
            Act.BLOCK,
            "its disk is not in the pool (is the storage mounted?)",
            _without_its_disk(desired, observed, spec.name),
        )
    off = seen.power is not Power.RUNNING and not _is_lost(desired, host, seen)
    if spec.name in observed.data.refused and seen.power is Power.RUNNING:
        act = Act.KEEP if spec.name in observed.data.databases else Act.BLOCK
        return Choice(act, REFUSES, remedy_for_refusal(desired, observed))
    if spec.name in observed.data.full and seen.power is Power.RUNNING:
        return _with_full_disk(desired, observed, spec, host, seen, replaceable=replaceable)
    if replaceable and not off:
        return choose(desired, observed, spec, host, seen)
    found, drift = _mend(desired, observed, spec, seen), _drift(spec, seen)
    if found.act is Act.REBUILD:
        return Choice(Act.CYCLE, found.reason)
    if found.act is Act.KEEP and drift:
        reason = f"{found.reason}; its {drift} changed, but it holds data: --rebuild {spec.name} makes it anew"
        return Choice(Act.KEEP, reason)
    return found


def _with_full_disk(
    desired: Desired, observed: Observed, spec: ServerSpec, host: SeenHost, seen: SeenServer, *, replaceable: bool
) -> Choice:
    """A power cycle makes no room: MariaDB would wait for it at its start, too."""
    remedy = f"{make_room(desired.site.site, spec.name)}; then pcloud recover {desired.site.site}"
    if not replaceable:
        return Choice(Act.BLOCK, FULL, remedy)
    found = choose(desired, observed, spec, host, seen)
    if found.act is not Act.KEEP:
        return Choice(found.act, f"{found.reason}; {FULL}")
    return Choice(
        Act.KEEP, FULL, f"{remedy}; or have it made anew: pcloud recover {desired.site.site} --rebuild {spec.name}"
    )


def _mend(desired: Desired, observed: Observed, spec: ServerSpec, seen: SeenServer) -> Choice:
    """For one that has its disk, and is what it should be."""
    health = observed.health.get(spec.name, Health(False, "it does not run"))
    if seen.power is not Power.RUNNING:
        return Choice(Act.START, f"it is {seen.power}")
    if health.ok:
        return Choice(Act.KEEP, "healthy")
    if _is_young(desired, spec, seen):
        return Choice(Act.WAIT, f"it started {seen.age_s:.0f} s ago: {health.detail}")
    return Choice(Act.REBUILD, f"{UNHEALTHY}: {health.detail}")


def _is_young(desired: Desired, spec: ServerSpec, seen: SeenServer) -> bool:
    return seen.age_s < desired.site.group(spec.group).boot_timeout_s


def _is_lost(desired: Desired, host: SeenHost, seen: SeenServer) -> bool:
    mark = seen.mark
    return mark is None or Names(desired.site.site, mark.server, mark.generation).disk not in host.volumes


def _drift(spec: ServerSpec, seen: SeenServer) -> str:
    mark = seen.mark
    if mark is None or (mark.spec == spec.spec and mark.image == spec.image.digest):
        return ""
    return "image" if mark.image != spec.image.digest else "configuration"


def _without_its_disk(desired: Desired, observed: Observed, server: str) -> str:
    """What a person does about a server whose disk cannot be found, and may hold what nobody else has."""
    heir = find_heir(desired, observed, server)
    way = f"let {heir} take over" if heir else "take what is kept of its data"
    return f"mount it and recover again, or {way}: pcloud recover {desired.site.site} --rebuild {server}"
