"""What is wrong with a host's management controller: what each way to it said, to findings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from pcloud.controllers import is_same_machine
from pcloud.hoststate import Controller, Finding, HostFacts
from pcloud.model import Host, Site

CHECK = "bmc"
DAY_S = 86_400.0
SOON_S = 30 * DAY_S
"""A certificate that ends so soon is to be replaced."""
OFF_S = {"redfish": 300.0, "ipmi": DAY_S}
"""A controller's clock that is so wrong makes its log hard to read; by IPMI it does not tell its time zone."""
FORCES = ("ForceOff", "Off")


def check_controllers(site: Site, host: Host, facts: HostFacts) -> Iterator[Finding]:
    """Of each way: what keeps it from cutting the power, else what is doubtful, else what it says."""
    if not facts.controllers and host.bmc is None and facts.refused is None:
        yield Finding(host.name, CHECK, "ok", "not configured: pcloud cannot cut its power")
    some = any(not said.problem for said in facts.controllers)
    for said in facts.controllers:
        found = [*_wrong(site, host, facts, said, some), *(() if said.problem else _doubtful(site, host, said))]
        yield from found or [Finding(host.name, CHECK, "ok", _told(said))]


def check_shared(facts: Iterable[HostFacts]) -> tuple[Finding, ...]:
    """Hosts whose controllers lead to one machine, however they are written."""
    hosts: dict[str, list[str]] = {}
    for one in facts:
        for identity in {said.identity for said in one.controllers if said.identity}:
            hosts.setdefault(identity, []).append(one.host)
    fix = "correct bmc of all but one: who cuts off one would cut off another"
    return tuple(
        Finding(name, CHECK, "bad", f"it has one controller with {', '.join(n for n in names if n != name)}", fix)
        for names in hosts.values()
        if len(names) > 1
        for name in names
    )


def _wrong(site: Site, host: Host, facts: HostFacts, said: Controller, some: bool) -> Iterator[Finding]:
    """`some`: another way works."""
    if said.problem:
        what = f"pcloud cannot cut its power by {said.way}: {said.problem}"
        yield Finding(host.name, CHECK, "warn" if some else "bad", what, said.next)
        return
    if said.power != "on" and facts.refused is None:
        what = f"{said.way} says that its power is {said.power}, and yet it answers: another machine's controller"
        yield Finding(host.name, CHECK, "bad", what, f"correct bmc of {host.name}, before a wrong machine is cut off")
    elif site.lab is None and not is_same_machine(said.identity, facts.uuid, facts.serial):
        what = f"{said.way} leads to the machine {said.identity}, and this is {facts.uuid or facts.serial}"
        fix = f"correct bmc of {host.name} (a copied line, or two cables that are swapped)"
        # Many controllers send another number by IPMI than their machine's firmware knows.
        yield Finding(host.name, CHECK, "warn" if said.way == "ipmi" else "bad", what, fix)
    if said.may_switch is False:
        what = f"the user's role by {said.way} is {said.role}, which may not switch the power"
        yield Finding(host.name, CHECK, "bad", what, f"at the controller of {host.name}, make it an Operator")


def _doubtful(site: Site, host: Host, said: Controller) -> Iterator[Finding]:
    def warn(what: str, fix: str) -> Finding:
        return Finding(host.name, CHECK, "warn", f"{said.way}: {what}", fix)

    bmc = host.bmc
    if said.way == "redfish" and bmc is not None and (bmc.redfish or "").startswith("http://"):
        what = "its password goes over http://, where everybody in between can read it"
        yield warn(what, f"write https:// in bmc.redfish of {host.name}, and pin its ca")
    if said.resets and not set(FORCES) & set(said.resets):
        what = f"it lists {', '.join(said.resets[:12])}, and no ForceOff, which is ordered all the same"
        yield warn(what, f"try it on a quiet day: pcloud fence {site.site} {host.name} --rehearse")
    if said.answer_s is not None and said.answer_s > said.limit_s / 2:
        yield warn(f"an answer takes {said.answer_s:.1f} s", f"raise bmc.timeout_s of {host.name}")
    if said.offset_s is not None and abs(said.offset_s) > OFF_S[said.way]:
        way = "ahead of" if said.offset_s > 0 else "behind"
        what = f"its clock is {_span(abs(said.offset_s))} {way} this machine's, and so is its log"
        yield warn(what, f"set the clock of {host.name}'s controller, or name it a time server")
    if said.certificate_s is not None and said.certificate_s < SOON_S and not said.pinned:
        yield warn(f"its certificate ends on {_date(said)}", "renew it; or pin it as ca, which needs no date")


def _told(said: Controller) -> str:
    """What is as it should be, in one line."""
    parts = [f"{said.way} says that its power is {said.power}", said.login]
    parts += [f"role {said.role}"] if said.role else ["it does not tell the user's role"]
    if said.way == "redfish":
        running = said.running_s
        parts.append(f"started {_span(running)} ago" if running is not None else "it does not tell when it started")
    parts += [f"an answer takes {said.answer_s:.1f} s"] if said.answer_s is not None else []
    if said.certificate_ends is not None:
        parts.append(f"its certificate{' is pinned and' if said.pinned else ''} ends on {_date(said)}")
    return "; ".join(part for part in parts if part)


def _date(said: Controller) -> str:
    return f"{datetime.fromtimestamp(said.certificate_ends or 0, UTC):%Y-%m-%d}"


def _span(seconds: float) -> str:
    for size, word in ((DAY_S, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"
