"""failback: the database's role, moved on purpose."""

from __future__ import annotations

from typing import Annotated

import typer

from pcloud.cli.recover import Json, SiteName, Yes, run
from pcloud.cli.session import Session
from pcloud.desired import Options
from pcloud.observe import observe
from pcloud.plan import Plan
from pcloud.switchover import plan_failback

app = typer.Typer()


@app.command(epilog="Examples: pcloud failback demo · pcloud failback demo --to idx-1 --pause 5")
def failback(
    site: SiteName = "demo",
    to: Annotated[
        str | None, typer.Option("--to", help="Who becomes the primary; left out, the database's own server.")
    ] = None,
    pause: Annotated[
        float, typer.Option("--pause", min=1, max=120, help="Seconds that writes may pause at most.")
    ] = 10,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Swap the database's primary and its replica. Writes pause for a moment; nothing is lost.

    When the replica does not catch up within the pause, the primary stays what it is.
    """

    def make(session: Session) -> Plan:
        return plan_failback(session.desired, observe(session.desired, session.world), to, pause)

    def question(_session: Session, made: Plan) -> str:
        return f"{made.nodes[0].info.reason}: orders wait for {pause:g} s at most. Swap?" if made.nodes else ""

    command = f"pcloud failback {site}" + (f" --to {to}" if to else "")
    run(site, Options(), make, "failback", yes=yes, json=json, question=question, command=command)
