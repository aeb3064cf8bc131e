"""pcloud hosts forget: a host that left the inventory has no power any more, by a person's word."""

from __future__ import annotations

from typing import Annotated

import typer

from pcloud.cli.recover import Json, run
from pcloud.cli.session import Session
from pcloud.desired import Options
from pcloud.errors import BadInput
from pcloud.forgetting import plan_forget
from pcloud.observe import observe
from pcloud.plan import Plan
from pcloud.strangers import forget_command

app = typer.Typer()

SiteName = Annotated[str, typer.Argument(help="A site: the name of its inventory, or a path to one.", metavar="SITE")]
HostName = Annotated[str, typer.Argument(help="The host, as the inventory named it.", metavar="HOST")]
MEANING = (
    "--i-have-powered-it-off is your word that {host} has no power, or nothing of {site} on it: what was left there "
    "will be made elsewhere, and if it still ran, two of it would sell the same goods"
)


@app.command(
    epilog="Example: pcloud hosts forget demo h3 --i-have-powered-it-off. Exit codes: 0 forgotten, 1 failed, 2 bad "
    "input, 3 it accepts connections."
)
def forget(
    site: SiteName,
    host: HostName,
    i_have_powered_it_off: Annotated[
        bool, typer.Option("--i-have-powered-it-off", help="You cut its power, and it stays cut.")
    ] = False,
    json: Json = False,
) -> None:
    """Forget a host that left the inventory, so that what it had may be made elsewhere.

    It is refused where one of its addresses accepts connections. Should it come back, its copies are
    older than what took their place.
    """
    command = forget_command(site, host)
    if not i_have_powered_it_off:
        raise BadInput(MEANING.format(host=host, site=site), next=f"when that is so: {command}")

    def make(session: Session) -> Plan:
        found = observe(session.desired, session.world)
        return plan_forget(session.site, session.desired.digest(), found, host)

    run(site, Options(), make, "forget", yes=True, json=json, command=command)
