"""Which hosts may be fenced: what is known of one that does not answer, and whether that is enough.

Safety, as sentences:
- Unreachable is not dead. A host is suspected only when SSH and libvirt are both silent.
- This machine may be the one that is cut off: at least one other host must have looked, too.
- A host that another one sees is not dead, whatever its controller says.
- Where half of the hosts or more are silent at once and no controller says that they are off, a cut network is
  likelier than so many deaths: then a witness that stands beside the hosts has to say that it sees none of them.
- A controller's Off is a claim: where another host sees the host, or a server answers that no other has,
  the two contradict each other, and a person looks. Else the host is ordered off before anything is believed.
- A server that still sells is not cut off because its host's SSH fell silent: while one answers that
  no other host has, no silent host is fenced that is not proven off.
- A host that carried servers which are not the site's when it was last seen is cut off by a person's word only,
  unless its controller says that it is off (`neighbours.py`).
- What a person gives up (`pcloud failover`) is fenced whatever it looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcloud.desired import Desired
from pcloud.neighbours import find_others
from pcloud.observed import HostPower, Observed, SeenHost
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
        others = find_others(site, observed, host) if seen.silent else None
        beside = f", and with it {others}, not {site}'s" if others else ""
        return Suspect(host, True, f"you gave {host} up{beside}")
    if not seen.silent:
        return Suspect(host, False, f"{host} cannot be used: {seen.problem}", _bring_back(desired, observed, seen))
    return _judge_silent(desired, observed, seen)


def _judge_silent(desired: Desired, observed: Observed, seen: SeenHost) -> Suspect:
    """For a host of which nothing is heard here, by what its controller, other hosts and servers say."""
    host = seen.name
    claims_off = seen.power is HostPower.OFF and not seen.proven_off
    if witnesses := [w.host for w in seen.witnesses if w.sees]:
        who = " and ".join(witnesses)
        if seen.power is HostPower.OFF:
            return _contradicted(desired, seen, f"{who} can reach it")
        what = f"{host} does not answer here ({seen.problem}), but {who} can reach it: it is not dead"
        return Suspect(host, False, what, _reach(desired, observed, seen))
    if seen.proven_off:
        return Suspect(host, True, f"{host} is off ({seen.proof})")
    if host in observed.severed and not _is_seen_by_nobody_beside(desired, seen):
        return _blame_the_network(desired, observed, host)
    if observed.answering:
        who = ", ".join(observed.answering)
        if claims_off and observed.unreachable() == (host,):
            return _contradicted(desired, seen, f"{who} answers, which no other host has")
        what = f"{host} does not answer ({seen.problem}), but {who} does, which no other has"
        return Suspect(host, False, f"{what}: it may not be dead", _bring_back(desired, observed, seen))
    if claims_off:
        return Suspect(host, True, f"{host} is silent, and its controller says off")
    if not seen.witnesses:
        what = f"{host} does not answer, and no other host could be asked whether it is dead: {seen.problem}"
        return Suspect(host, False, what, _bring_back(desired, observed, seen))
    if others := find_others(desired.site.site, observed, host):
        what = f"{host} is silent, and when it was last seen it ran {others}, not {desired.site.site}'s: its power is"
        return Suspect(host, False, f"{what} not ours alone to cut", _bring_back(desired, observed, seen))
    return Suspect(host, True, f"{host} is silent, here and to {' and '.join(w.host for w in seen.witnesses)}")


def _contradicted(desired: Desired, seen: SeenHost, alive: str) -> Suspect:
    """Its controller says off, or a person does, and something lives at its address."""
    host, site = seen.name, desired.site.site
    says = f"it is off by {seen.proof}" if seen.proof else "its controller says off"
    what = f"{says}, and yet {alive}: the controller, or the address, is another machine's"
    fix = f"look at {host} itself; pcloud hosts check {site} compares its controller with it; correct bmc or address"
    return Suspect(host, False, f"{host} does not answer here, {what}", f"{fix} of {host}; then pcloud recover {site}")


def _reach(desired: Desired, observed: Observed, seen: SeenHost) -> str:
    """What to do about a host that others reach. One that refuses port 22 has lost its sshd, not its link."""
    host = seen.name
    power = f" ({seen.power}, says its controller)" if seen.power is not HostPower.UNKNOWN else ""
    if "refuse" in seen.problem:
        mend = f"on the console of {host}{power}: systemctl status ssh; systemctl restart ssh"
    else:
        mend = f"mend the link to {host}{power}"
    leave = f"Or, if it has to go: {_give_up(desired, observed, host)}"
    return f"{mend}; then pcloud recover {desired.site.site}. {leave}"


def _is_seen_by_nobody_beside(desired: Desired, seen: SeenHost) -> bool:
    """Whether a witness that the inventory names was asked, and none of them sees it."""
    beside = {w.name for w in desired.site.witnesses}
    views = [w.sees for w in seen.witnesses if w.host in beside]
    return bool(views) and not any(views)


def _blame_the_network(desired: Desired, observed: Observed, host: str) -> Suspect:
    silent, hosts = observed.severed, len(observed.hosts)
    views = sorted({w.host for h in observed.hosts if h.name in silent for w in h.witnesses})
    others = f" (seen from {' and '.join(views)}, too)" if views else ""
    here = f"; {observed.vantage}" if observed.vantage else ""
    why = f"{len(silent)} of {hosts} hosts are silent at once{others}, which is rather a network that is cut{here}"
    way = "name a machine beside the hosts in the inventory (witnesses), which will be asked"
    return Suspect(
        host, False, why, f"mend the network; or {way}; or, if they have to go: {_give_up(desired, observed, host)}"
    )


def _give_up(desired: Desired, observed: Observed, host: str) -> str:
    """The command that leaves this host, and all others that a person left already or would have to leave with it."""
    seen_alive = {h.name for h in observed.hosts if h.silent and any(w.sees for w in h.witnesses)}
    wanted = {host, *desired.options.lost, *observed.severed, *seen_alive}
    named = [h.name for h in observed.hosts if h.name in wanted]
    return f"pcloud failover {desired.site.site} {' '.join(named)}"


def _bring_back(desired: Desired, observed: Observed, seen: SeenHost) -> str:
    site, host = desired.site.site, seen.name
    if seen.next:
        return f"{seen.next}; then pcloud recover {site}"
    leave = f"or, if it has to go: {_give_up(desired, observed, host)}"
    if desired.site.lab is not None:
        return (
            f"pcloud lab status {site} shows its power and its cable; pcloud lab power-on {site}/{host} "
            f"(or mend, or thaw-host); {leave}"
        )
    return f"bring {host} back; {leave}"
