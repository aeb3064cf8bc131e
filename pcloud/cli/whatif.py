"""what-if: which hosts and racks the site could lose."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from pcloud import timing
from pcloud.cli.recover import Json, SiteName, past_runs
from pcloud.cli.screen import say
from pcloud.cli.session import open_session, out
from pcloud.clock import Deadline, SystemClock
from pcloud.observe import observe
from pcloud.render.whatif import render_what_if
from pcloud.whatif import Loss, Subject, look, subjects_of

app = typer.Typer()

EXITS = "Exit codes: 0 every host can be lost, 1 one or more cannot or was not looked at, 2 bad input."


@app.command(
    "what-if",
    epilog=f"Examples: pcloud what-if demo · pcloud what-if demo --why · pcloud what-if demo --json · "
    f"the whole plan of one loss: pcloud plan demo --lose h3, or --lose-rack a. {EXITS}",
)
def what_if(
    site: SiteName = "demo",
    why: Annotated[bool, typer.Option("--why", help="The reason of every choice, too.")] = False,
    within: Annotated[float, typer.Option("--within", min=1, max=3600, help="Seconds to think at most.")] = 60,
    json: Json = False,
) -> None:
    """Show for every host and rack what its loss would mean: whether all fits, where it goes, who takes over.

    Nothing is changed and nothing is cut off: it is the plan that a recovery would make if that host
    were gone and proven off. Times are those of past runs. A loss is survived (✓) when every server
    has a place, nobody has to act, and no data would go back to the dump.
    """
    with open_session(site, makes=True) as session:
        desired, observed = session.desired, observe(session.desired, session.world)
    durations = timing.durations_from(past_runs(desired.site.site))
    deadline = Deadline.after(within, SystemClock())
    outlook = look(desired, observed, durations)
    losses: list[Loss] = []
    unseen: list[Subject] = []
    for subject in subjects_of(desired.site):
        if deadline.passed():
            unseen.append(subject)
        else:
            losses.append(outlook.judge(subject))
    survives = all(loss.survived for loss in losses if loss.subject.kind == "host")
    survives &= not any(s.kind == "host" for s in unseen)
    if json:
        data = {
            "site": desired.site.site,
            "any_host": survives,
            "unsettled": outlook.unsettled,
            "unseen": [str(s) for s in unseen],
            "losses": [_as_data(loss, bool(durations)) for loss in losses],
        }
        say(jsonlib.dumps(data, indent=2, ensure_ascii=False))
    else:
        out.print(render_what_if(outlook, losses, unseen, measured=bool(durations), why=why))
    raise typer.Exit(0 if survives else 1)


def _as_data(loss: Loss, measured: bool) -> dict[str, Any]:
    effects = loss.effects
    return {
        "kind": loss.subject.kind,
        "name": loss.subject.name,
        "hosts": loss.subject.hosts,
        "survived": loss.survived,
        "fits": not loss.homeless,
        "moves": [
            {"server": m.server, "from": m.old, "to": m.new or None, "why": m.why, "short": m.short or None}
            for m in loss.moves
        ],
        "promoted": effects.promoted or None,
        "rpo": effects.rpo or None,
        "from_dump": effects.restored,
        "blocked": effects.stops,
        "seconds": round(effects.seconds, 1) if measured and loss.moves else None,
    }
