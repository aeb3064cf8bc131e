"""failover: hosts that a person leaves."""

from __future__ import annotations

from typing import Annotated

import typer

from pcloud.cli.consent import AcceptLoss, price_of
from pcloud.cli.recover import Json, Yes, run
from pcloud.cli.session import Session, stamp
from pcloud.desired import Options
from pcloud.failover import describe_loss, plan_failover
from pcloud.observe import observe
from pcloud.observed import Observed
from pcloud.plan import Plan

app = typer.Typer()

SiteName = Annotated[str, typer.Argument(help="A site: the name of its inventory, or a path to one.", metavar="SITE")]
HostNames = Annotated[
    list[str], typer.Argument(help="The hosts to leave, as the inventory names them.", metavar="HOST...")
]


@app.command(
    epilog="Examples: pcloud failover demo h3 · pcloud failover demo h3 --yes --json · to see it first: pcloud plan "
    "demo --lose h3. Exit codes: 0 converged, 1 failed, 2 bad input, 3 blocked, waiting for a person."
)
def failover(
    site: SiteName, hosts: HostNames, yes: Yes = False, accept_loss: AcceptLoss = "", json: Json = False
) -> None:
    """Leave a host, or several at once, and recover the site without them.

    One that answers hands the database over first and its servers are stopped; the power of one that does
    not is cut, and proven off.

    A recovery like any other, also where the host answers and its servers are healthy: it is asked
    about first, and --yes is your yes. It is refused where the host answers and has what nothing
    else would have: a healthy server that fits nowhere, or a database without a replica. A host
    with no server of the site's is not fenced.
    """
    seen: list[Observed] = []

    def make(session: Session) -> Plan:
        seen.append(observe(session.desired, session.world))
        return plan_failover(session.desired, seen[-1], stamp())

    def question(session: Session, made: Plan) -> str:
        return describe_loss(session.desired, seen[-1], made)

    command = f"pcloud failover {site} {' '.join(hosts)}"
    lost = Options(lost=tuple(dict.fromkeys(hosts)), accept_loss=price_of(accept_loss))
    run(site, lost, make, "recover", yes=yes, json=json, question=question, command=command, again=True)
