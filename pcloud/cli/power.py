"""power, fence: a host's power, by its controller or by a person's word."""

from __future__ import annotations

import json as jsonlib
from enum import StrEnum
from typing import Annotated

import typer

from pcloud import confirmations
from pcloud.cli.recover import Json, Yes, run
from pcloud.cli.screen import say
from pcloud.cli.session import Session, open_session, out, site_of
from pcloud.desired import Options
from pcloud.errors import BadInput, Blocked, HostUnreachable, PcloudError
from pcloud.events import StepInfo
from pcloud.graph import PlanNode
from pcloud.inventory import find_inventory, load_site
from pcloud.observe import observe
from pcloud.observed import HostPower, Power
from pcloud.plan import Plan
from pcloud.rehearsal import OPERATION, plan_rehearsal
from pcloud.steps.base import Step
from pcloud.steps.fence import Confirm, Fence, SwitchOn, ask_power, confirm_command
from pcloud.wording import did_you_mean, show

app = typer.Typer()

HostName = Annotated[str, typer.Argument(metavar="HOST", help="A host, as h3 or demo/h3.")]
CONFIRM = "confirm"
ACTIONS: dict[type, str] = {Fence: "fence", SwitchOn: "power-on", Confirm: CONFIRM}
EXITS = "Exit codes: 0 as you asked, 1 failed, 2 bad input, 3 no controller answers: a person must act."
MEANING = (
    "--i-have-powered-it-off is your word that you cut the power of {host} yourself, and that it stays cut: its "
    "servers will be started elsewhere, and if it still ran, two of them would sell the same goods"
)


class Switch(StrEnum):
    ON = "on"
    OFF = "off"
    STATUS = "status"


@app.command(epilog=f"Examples: pcloud power demo/h3 status · pcloud power h3 off · pcloud power h3 on --yes. {EXITS}")
def power(
    host: HostName,
    switch: Annotated[Switch, typer.Argument(help="off cuts it at once, and does not shut it down first.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Ask a host's management controller for its power, or switch it."""
    site, name = _target(host)
    match switch:
        case Switch.STATUS:
            _status(site, name, json)
        case Switch.OFF:
            _run(site, name, Fence(name), "power off", f"pcloud power {site}/{name} off", yes=yes, json=json)
        case Switch.ON:
            _run(site, name, SwitchOn(name), "power on", f"pcloud power {site}/{name} on", yes=True, json=json)


def _status(site: str, host: str, json: bool) -> None:
    with open_session(site) as session:
        try:
            reading = session.world.power(host).read()
        except HostUnreachable as error:
            raise Blocked(error.what, where=host, next=error.next) from error
    if json:
        say(jsonlib.dumps({"site": site, "host": host, "power": reading.power, "by": reading.way}))
    else:
        out.print(f"{host} is {reading.power}, says its controller ({reading.way})")


@app.command(
    epilog="Examples: pcloud fence demo/h3 · pcloud fence h3 --yes · pcloud fence demo h8 --rehearse · "
    f"pcloud fence confirm demo/h3 --i-have-powered-it-off. {EXITS}"
)
def fence(
    host: HostName,
    confirmed: Annotated[
        str | None, typer.Argument(metavar="[HOST]", help="The host, after the word confirm or a site.")
    ] = None,
    i_have_powered_it_off: Annotated[
        bool, typer.Option("--i-have-powered-it-off", help="With confirm: you cut its power, and it stays cut.")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Cut the power of a host that carries nothing, and restore it.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Order a host off at once, whatever its controller says, and prove that it is.

    `--rehearse` switches it on again, and remembers how long it took: forecasts go by that. It is
    refused (3) where the host carries anything: a server that runs, the only copy of data or of a
    backup, a stream of the binary log.

    `pcloud fence confirm HOST` takes your word instead, for one hour, where no controller answers.
    It is refused when the host accepts connections, or when its controller says that it is on.
    """
    confirms = host == CONFIRM
    ill = confirmed is None or rehearse if confirms else i_have_powered_it_off or (confirmed and not rehearse)
    if ill:
        raise BadInput(
            "a host is fenced, confirmed to be off, or rehearsed",
            next="pcloud fence HOST, pcloud fence SITE HOST --rehearse, or: pcloud fence confirm HOST",
        )
    site, name = _target(f"{host}/{confirmed}" if confirmed and not confirms else confirmed or host)
    if rehearse:
        _rehearse(site, name, yes=yes, json=json)
    elif not confirms:
        _run(site, name, Fence(name), "fence", f"pcloud fence {site}/{name}", yes=yes, json=json)
    elif not i_have_powered_it_off:
        raise BadInput(MEANING.format(host=name), next=f"when that is so: {confirm_command(site, name)}")
    else:
        command = confirm_command(site, name)
        _run(site, name, Confirm(name), confirmations.OPERATION, command, yes=True, json=json)


def _rehearse(site: str, host: str, *, yes: bool, json: bool) -> None:
    def make(session: Session) -> Plan:
        return plan_rehearsal(session.desired, observe(session.desired, session.world), host)

    def question(_session: Session, _made: Plan) -> str:
        return (
            f"Cut the power of {host}, on which nothing runs, and switch it on again? Until it answers it takes none."
        )

    command = f"pcloud fence {site} {host} --rehearse"
    run(site, Options(kept=True), make, OPERATION, yes=yes, json=json, question=question, command=command)


def _target(text: str) -> tuple[str, str]:
    """The site and the host that the person named. Raises `BadInput` when there is no such host."""
    name, host = site_of(text)
    site = load_site(find_inventory(name))
    known = [h.name for h in site.hosts]
    if host not in known:
        raise BadInput(f"{site.site} has no host {show(host)}", next=did_you_mean(host, known, "the hosts are"))
    return name, host


def _run(site: str, host: str, step: Step, operation: str, command: str, *, yes: bool, json: bool) -> None:
    """One step as a run of its own: planned, asked for, journaled and reported like any other."""

    def make(session: Session) -> Plan:
        if isinstance(step, SwitchOn):
            confirmations.withdraw(session.site.site, host, session.world.clock.wall())
        action = ACTIONS[type(step)]
        info = StepInfo(f"{host}/{action}", operation, (), host, None, action, "you asked for it")
        return Plan(
            session.site.site, operation, (operation,), (PlanNode(info, step),), {}, session.desired.digest(), ""
        )

    def question(session: Session, _made: Plan) -> str:
        return _question(session, host) if isinstance(step, Fence) and not yes else ""

    run(site, Options(), make, operation, yes=yes, json=json, question=question, command=command)


def _says_off(session: Session, host: str) -> bool:
    try:
        return ask_power(session.world, host).power is HostPower.OFF
    except HostUnreachable:
        return False


def _question(session: Session, host: str) -> str:
    """What will stop; nothing to ask about a host that does not answer and whose controller says off."""
    try:
        seen = session.world.hypervisor(host).servers()
    except PcloudError:
        if _says_off(session, host):
            return ""
        return f"Cut the power of {host}? It does not say which servers run there; all of them stop at once."
    names = sorted(s.mark.server if s.mark else s.name for s in seen if s.power is Power.RUNNING)
    what = (
        f"{', '.join(names)} {'runs' if len(names) == 1 else 'run'} there and will stop"
        if names
        else "No server runs there"
    )
    return f"Cut the power of {host} at once? {what}."
