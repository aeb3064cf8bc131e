"""reindex: the search's index, brought up to date on purpose."""

from __future__ import annotations

from typing import Annotated

import typer

from pcloud.cli.recover import Json, SiteName, run
from pcloud.cli.session import Session, stamp
from pcloud.desired import Options
from pcloud.events import StepInfo
from pcloud.graph import PlanNode
from pcloud.plan import Plan
from pcloud.steps.index import BuildIndex

app = typer.Typer()

OPERATION = "reindex"


@app.command(
    epilog="Examples: pcloud reindex demo · pcloud reindex demo --batch. "
    "Exit codes: 0 searches find what they should, 1 failed, 2 bad input."
)
def reindex(
    site: SiteName = "demo",
    batch: Annotated[bool, typer.Option("--batch", help="Make all of it anew, as every night.")] = False,
    json: Json = False,
) -> None:
    """Take into the search's index what the shop has changed since it was made.

    The indexer does so by itself every few seconds. Search goes on meanwhile: the new index takes
    the old one's place only when it is whole.
    """

    def make(session: Session) -> Plan:
        nodes = _nodes(session, batch)
        return Plan(session.site.site, OPERATION, (OPERATION,), nodes, {}, session.desired.digest(), "")

    command = f"pcloud reindex {site}" + (" --batch" if batch else "")
    run(site, Options(), make, OPERATION, yes=True, json=json, command=command)


def _nodes(session: Session, batch: bool) -> tuple[PlanNode, ...]:
    """One step an indexer; the token is this wish's own, so that an index made before does not do."""
    search = session.site.search
    argv = search.argv if batch else search.changes_argv
    checks = tuple(c for c in session.site.group(search.group).checks if c.search)
    reason = "all of it anew, as you asked" if batch else "what changed since it was made"
    return tuple(
        PlanNode(
            StepInfo(f"{spec.name}/index", OPERATION, (), None, spec.name, "index", reason),
            BuildIndex(spec.name, spec.address, argv, checks, f"asked.{stamp()}", search.index_timeout_s),
        )
        for spec in session.desired.members(search.group)
    )
