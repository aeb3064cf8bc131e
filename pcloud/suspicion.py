"""Which hosts may be fenced: what is known of one that does not answer, and whether that is enough.

Safety, as sentences:
- Unreachable is not dead. A host is suspected only when SSH and libvirt are both silent.
- This machine may be the one that is cut off: at least one other host must have looked, too.
- A host that another one sees is not dead, whatever its controller says.
- A server that still sells is not cut off because its host's SSH fell silent: while one answers that
  no other host has, no silent host is fenced that is not off already.
- What a person gives up (`pcloud failover`) is fenced whatever it looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcloud.desired import Desired
from pcloud.observed import Observed, SeenHost
from pcloud.steps.fence import confirm_command


@dataclass(frozen=True)
class Suspect:
    """A host that does not answer. `may`: it may be fenced, if it is not off already; `why` is a clause."""

    host: str
    may: bool
    why: str
    next: str = ""


def judge(desired: Desired, observed: Observed, host: str) -> Suspect:
    """The verdict on a host that does not answer, or that a person gave up."""
    site, seen = desired.site.site, observed.host(host)
    if seen is None:
        return Suspect(host, False, f"{host} was not asked", f"pcloud recover {site}")
    if host in desired.options.unfenced:
        return Suspect(
            host,
            False,
            f"{host} does not answer, and its power could not be cut",
            f"pull its plug, then: {confirm_command(site, host)}; then pcloud recover {site}",
        )
    if host in desired.options.lost:
        return Suspect(host, True, f"you gave {host} up")
    if not seen.silent:
        return Suspect(host, False, f"{host} cannot be used: {seen.problem}", _bring_back(desired, seen))
    witnesses = [w.host for w in seen.witnesses if w.sees]
    if witnesses:
        return Suspect(
            host,
            False,
            f"{host} does not answer here ({seen.problem}), but {' and '.join(witnesses)} can reach it: it is not dead",
            f"mend the link; or, if it has to go: pcloud failover {site} {host}",
        )
    if seen.proven_off:
        return Suspect(host, True, f"{host} is off ({seen.proof})")
    if observed.answering:
        what = f"{host} does not answer ({seen.problem}), but {', '.join(observed.answering)} does, which no other has"
        return Suspect(host, False, f"{what}: it may not be dead", _bring_back(desired, seen))
    if not seen.witnesses:
        what = f"{host} does not answer, and no other host could be asked whether it is dead: {seen.problem}"
        return Suspect(host, False, what, _bring_back(desired, seen))
    return Suspect(host, True, f"{host} is silent, here and to {' and '.join(w.host for w in seen.witnesses)}")


def _bring_back(desired: Desired, seen: SeenHost) -> str:
    site, host = desired.site.site, seen.name
    if seen.next:
        return f"{seen.next}; then pcloud recover {site}"
    if desired.site.lab is not None:
        return (
            f"pcloud lab status {site} shows its power and its cable; pcloud lab power-on {site}/{host} "
            f"(or mend, or thaw-host); or, if it has to go: pcloud failover {site} {host}"
        )
    return f"bring {host} back; or, if it has to go: pcloud failover {site} {host}"
