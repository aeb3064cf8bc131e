"""`pcloud runs` and `pcloud report`: what earlier runs did, from their journals alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pcloud.cli.screen import say
from pcloud.cli.session import out
from pcloud.errors import BadInput
from pcloud.journal import find_holder, find_run, list_runs, outcome, read_run, sites
from pcloud.render.report import Report, report_of
from pcloud.render.report_html import write_html
from pcloud.render.report_text import render_report, render_runs

app = typer.Typer(no_args_is_help=True)

SiteArgument = Annotated[str | None, typer.Argument(help="The site; left out: every site with runs here.")]


@app.command()
def runs(
    site: SiteArgument = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, of each site.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List past runs: when, how they ended, how long, and when a shopper could buy."""
    found = [run for name in ([site] if site else sites()) for run in list_runs(name, limit)]
    found.sort(key=lambda run: run.started)
    if as_json:
        for run in found:
            fields = ("site", "run", "operation", "started", "outcome", "duration_s", "journey_s")
            say(json.dumps({name: getattr(run, name) for name in fields}, ensure_ascii=False))
        return
    if not found:
        whose = f"site {site} has" if site else "there are"
        raise BadInput(f"{whose} no runs on this machine yet", next=f"pcloud recover {site or 'SITE'}")
    out.print(render_runs(found, datetime.now(UTC)), soft_wrap=True)


@app.command()
def report(
    site: Annotated[str | None, typer.Argument(help="The site; left out: the one that ran last.")] = None,
    run: Annotated[str | None, typer.Argument(help="The run, as `pcloud runs` names it; left out: the last.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one HTML file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Show what a run did, how long it took and why, also when it was killed."""
    found = _load(site or _last_site(), run)
    if html is not None:
        write_html(found, html)
    if as_json:
        say(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    elif html is not None:
        out.print(f"wrote {html}", soft_wrap=True)
    else:
        out.print(render_report(found))


def _load(site: str, run: str | None) -> Report:
    state = read_run(find_run(site, run))
    return report_of(state, outcome(state, find_holder(site)))


def _last_site() -> str:
    last = [runs[-1] for name in sites() if (runs := list_runs(name, 1))]
    if not last:
        raise BadInput("there are no runs on this machine yet", next="pcloud recover SITE")
    return max(last, key=lambda run: run.started).site
