"""undo: what the last command that put servers away did is taken back."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from pcloud.cli.recover import Json, SiteName, Yes, run
from pcloud.cli.session import Session, plan_whole, stamp
from pcloud.desired import Options
from pcloud.errors import PcloudError
from pcloud.identity import carrier_names
from pcloud.observe import observe
from pcloud.plan import Plan
from pcloud.steps.salvage import UNKNOWN, Living, find_living, read_disk
from pcloud.tombstones import Grave
from pcloud.undo import last_put_away, plan_undo, question_of

app = typer.Typer()


@app.command(
    epilog="Examples: pcloud undo demo · pcloud undo demo --of 20261127-223100 · pcloud undo demo --yes. "
    "Exit codes: 0 it serves again as it did, 1 failed, 2 bad input, 3 there is nothing that can come back, a host is "
    "silent on which one may run, or nobody said yes."
)
def undo(
    site: SiteName,
    of: Annotated[
        str, typer.Option("--of", metavar="DATE", help="What was put away then, as tombstones name it.")
    ] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Bring back what the last restore, --from-scratch, --rebuild or destroy put away.

    Until `pcloud purge`, its disks lie on their hosts. What serves now is put away in its place, so an undo
    can be undone. How far both data go, and what is given up, is said before you are asked.
    """
    asked: list[str] = []

    def back(session: Session) -> Plan:
        found = observe(session.desired, session.world)
        made = plan_undo(session.desired, found, stamp(), of)
        asked.append(_question(session, last_put_away(session.desired, found, of)))
        return made

    def recover(session: Session) -> Plan:
        return plan_whole(session.desired, observe(session.desired, session.world))

    question = lambda _session, _made: asked[-1]  # noqa: E731
    words = f"pcloud undo {site}{f' --of {of}' if of else ''}"
    run(site, Options(), back, "undo", yes=yes, json=json, question=question, command=words, then=recover)


def _question(session: Session, graves: tuple[Grave, ...]) -> str:
    carriers = carrier_names(session.site)
    living = Living("", "")
    with suppress(PcloudError):  # nobody sells: then only what comes back can be looked at
        living = find_living(session.world, carriers)
    ends, held = dict[str, str](), dict[str, int]()
    for grave in graves:
        if grave.names.server in carriers:
            ends[grave.names.server] = ""
            with suppress(PcloudError):
                read = read_disk(session.world, grave.host, grave.disk, living)
                ends[grave.names.server] = read.at if read.at != UNKNOWN else ""
                held[grave.names.server] = read.missing if living.position else 0
    return question_of(session.site.site, graves, ends, living.position, held)
