"""pcloud destroy, purge: servers are put away, and what was put away is deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from pcloud.cli.recover import Json, SiteName, Yes, run
from pcloud.cli.session import Session, stamp
from pcloud.desired import Options
from pcloud.errors import BadInput
from pcloud.observe import observe
from pcloud.plan import Plan
from pcloud.teardown import plan_destroy, plan_purge, plan_put_away
from pcloud.tombstones import cutoff, parse_age

app = typer.Typer()


@app.command(epilog="Examples: pcloud destroy demo · pcloud destroy demo fe-4 (once the inventory does not name it)")
def destroy(
    site: SiteName,
    servers: Annotated[
        list[str] | None,
        typer.Argument(help="Only these, which the inventory does not name any more.", metavar="[SERVER...]"),
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Power the site's servers off and put them away; their disks stay as tombstones."""

    def make(session: Session) -> Plan:
        found = observe(session.desired, session.world)
        if servers:
            return plan_put_away(session.desired, found, servers, stamp())
        return plan_destroy(session.site.site, session.desired.digest(), found, stamp())

    run(site, Options(), make, "destroy", yes=yes, json=json)


@app.command(
    epilog="Examples: pcloud purge demo · pcloud purge demo --older-than 30d · pcloud purge demo --older-than 12h --yes"
)
def purge(
    site: SiteName,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", help="Only what was put away longer ago than this: 12h, 30d, 2w.", metavar="AGE"),
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete the site's tombstones for good."""
    before = _cutoff(site, older_than) if older_than is not None else ""

    def make(session: Session) -> Plan:
        found = observe(session.desired, session.world)
        return plan_purge(session.site.site, session.desired.digest(), found, before)

    command = f"pcloud purge {site} --older-than {older_than}" if before else ""
    run(site, Options(), make, "purge", yes=yes, json=json, command=command)


def _cutoff(site: str, age: str) -> str:
    try:
        return cutoff(datetime.now(UTC), parse_age(age))
    except ValueError as error:
        raise BadInput(str(error), where="--older-than", next=f"pcloud purge {site} --older-than 30d") from error
