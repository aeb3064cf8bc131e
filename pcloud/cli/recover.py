"""plan, recover, destroy, purge: the commands that change a site."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from pcloud import places, timing
from pcloud.cli.consent import AcceptLoss, Empty, FromBackup, FromScratch, Unproven, accept, find_question, price_of
from pcloud.cli.planfile import read_plan, write_plan
from pcloud.cli.screen import say
from pcloud.cli.session import Session, confirm, err, hosts_of, open_session, out, plan_whole
from pcloud.clock import SystemClock
from pcloud.desired import Options
from pcloud.errors import BadInput
from pcloud.events import RunState
from pcloud.execute import execute
from pcloud.failover import find_unfenced, finds_replica, leave_alone
from pcloud.inventory import find_inventory, load_site
from pcloud.journal import Journal, RunLock, list_runs, new_run_id, read_run
from pcloud.model import Site
from pcloud.observe import observe
from pcloud.plan import Plan, check_same
from pcloud.rehearsal import OPERATION
from pcloud.remember import remember
from pcloud.render.faces import Face, choose_face
from pcloud.render.plan import render_plan
from pcloud.render.report import report_of
from pcloud.render.report_text import render_report
from pcloud.steps.restoring import RestoreBackup
from pcloud.steps.stop import Stop
from pcloud.whatif import as_lost

app = typer.Typer()


SiteName = Annotated[str, typer.Argument(help="A site: the name of its inventory, or a path to one.", metavar="SITE")]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="Only this server or group; may be repeated.", metavar="NAME")
]
Rebuild = Annotated[
    list[str] | None,
    typer.Option("--rebuild", help="Make this server anew, whatever its state; may be repeated.", metavar="SERVER"),
]
Lose = Annotated[
    list[str] | None,
    typer.Option("--lose", help="As if this host were lost; may be repeated. Nothing is cut off.", metavar="HOST"),
]
LoseRack = Annotated[
    list[str] | None, typer.Option("--lose-rack", help="The same for all hosts of a rack.", metavar="RACK")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _options(
    only: list[str] | None, rebuild: list[str] | None, scratch: bool, empty: bool, accept_loss: str = ""
) -> Options:
    rebuilt, asked = tuple(sorted(rebuild or ())), tuple(sorted(only or ()))
    return Options(scratch, rebuilt, asked, empty, accept_loss=price_of(accept_loss))


PAST_RUNS = 10
"""How many runs back predictions look."""
REHEARSALS = 50
"""And how many rehearsals of fences: there is one a host, now and then."""


def past_runs(site: str) -> list[RunState]:
    """The site's latest runs that went well, and its rehearsals: what predictions are made from."""
    runs = (*list_runs(site, REHEARSALS, OPERATION), *list_runs(site, PAST_RUNS))
    paths = {r.path: None for r in runs if r.outcome == "converged"}
    return [read_run(path, progress=False) for path in paths]


def _show_plan(made: Plan, past: list[RunState]) -> RenderableType:
    return render_plan(
        [n.info for n in made.nodes],
        kept=made.kept,
        durations=timing.durations_from(past),
        title=f"{made.operation} {made.site}{_without(made.lost)}",
        blocked=[n.step for n in made.nodes if isinstance(n.step, Stop)],
        to_copy=made.to_copy,
        copy_rate=timing.copy_rate(past),
    )


def _without(lost: tuple[str, ...]) -> str:
    return f", if {' and '.join(lost)} {'were' if len(lost) > 1 else 'was'} lost" if lost else ""


@app.command(
    "plan",
    epilog="Examples: pcloud plan demo · pcloud plan demo --out night.json · pcloud plan demo --from-scratch · "
    "pcloud plan demo --lose h3 · pcloud plan demo --lose h1 --lose h4 · pcloud plan demo --lose-rack a",
)
def plan_command(
    site: SiteName = "demo",
    write: Annotated[Path | None, typer.Option("--out", help="Write the plan to a file for `recover --plan`.")] = None,
    only: Only = None,
    rebuild: Rebuild = None,
    from_scratch: FromScratch = False,
    empty_database: Empty = False,
    accept_loss: AcceptLoss = "",
    lose: Lose = None,
    lose_rack: LoseRack = None,
    json: Json = False,
) -> None:
    """Show what a recovery would do, and why. Changes nothing.

    With --lose or --lose-rack, what it would do if those hosts were gone and proven off.
    """
    if write is not None and (lose or lose_rack):
        raise BadInput("a plan for a loss that did not happen is never run", next="leave out --out, or --lose")
    lost = hosts_of(load_site(find_inventory(site)), lose or (), lose_rack or ())
    options = _options(only, rebuild, from_scratch, empty_database, accept_loss)
    with open_session(site, options, makes=True) as session:
        made = plan_whole(session.desired, as_lost(observe(session.desired, session.world), lost))
    made = replace(made, lost=lost)
    if write is not None:
        write_plan(write, made)
    if json:
        say(made.to_json(), nl=False)
    else:
        out.print(_show_plan(made, past_runs(made.site)))
        for sentence in made.advice:
            out.print(f"! {sentence}", markup=False, soft_wrap=True)
        if write is not None:
            out.print(f"\nwritten to {write}; run it with: pcloud recover {site} --plan {write}")


@app.command(
    epilog="Examples: pcloud recover demo · pcloud recover demo --yes --json · pcloud recover demo --only fe-2 · "
    "pcloud recover demo --plan night.json"
)
def recover(
    site: SiteName = "demo",
    yes: Yes = False,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="Run exactly this saved plan, or refuse.")] = None,
    only: Only = None,
    rebuild: Rebuild = None,
    from_scratch: FromScratch = False,
    empty_database: Empty = False,
    from_backup: FromBackup = "",
    unproven: Unproven = False,
    accept_loss: AcceptLoss = "",
    json: Json = False,
) -> None:
    """Rebuild what is broken, keep what works, and prove it by a shopper's walk.

    Where a replica has to take over and orders may be lost, the plan says how many, and waits for
    your word: at the terminal, or by --accept-loss.
    """
    options = _options(only, rebuild, from_scratch, empty_database, accept_loss)
    options = replace(options, from_backup=from_backup, unproven=unproven)
    saved = read_plan(plan_file) if plan_file is not None else ""

    def make(session: Session) -> Plan:
        made = plan_whole(session.desired, observe(session.desired, session.world))
        if plan_file is not None:
            check_same(saved, made, str(plan_file))
        return made

    run(site, options, make, "recover", yes=yes or plan_file is not None, json=json, again=plan_file is None)


@dataclass(frozen=True)
class _Way:
    """How a command goes about its runs. `command` is what a person types to do the same again."""

    operation: str
    command: str
    yes: bool
    json: bool
    faces: list[Face] = field(default_factory=list)

    def ask(self, text: str) -> bool:
        """A question in the middle of a run."""
        with self.faces[-1].pause():
            confirm(text, yes=self.yes, command=self.command)
        return True


def run(
    name: str,
    options: Options,
    make: Callable[[Session], Plan],
    operation: str,
    *,
    yes: bool,
    json: bool,
    question: Callable[[Session, Plan], str] | None = None,
    command: str = "",
    again: bool = False,
    then: Callable[[Session], Plan] | None = None,
) -> None:
    """Plan, show, ask, execute, report; exits with the run's code.

    `question`: what to ask before something is changed, "" for nothing. `command`: what a person
    types to do the same again, where that is not the operation and the site. `again`: hosts whose
    power could not be cut are left alone in a second run. `then`: what follows a run that converged, unasked.
    """
    way = _Way(operation, command or f"pcloud {operation} {name}", yes, json)
    makes = operation in ("recover", "undo") or options.until is not None
    with open_session(name, options, makes=makes, ask=way.ask) as session:
        state = _run_once(session, make, question, way)
        if state is not None and again and finds_replica(state):
            if not json:
                out.print("\nOnce more: the replica answers, and what its promotion gives up can be measured.\n")
            state = _run_once(session, make, question, way) or state
        if state is None:
            return
        if then is not None and state.finished is not None and state.finished.outcome == "converged":
            way = replace(way, command=f"pcloud recover {name}")
            state = _run_once(session, then, lambda _session, _made: "", way) or state
        if _sells(state):  # else a question at an address that nobody holds takes long
            remember(session.desired, session.world)
        unfenced = find_unfenced(state) if again else ()
        if unfenced:
            state = _run_without(session, unfenced, way) or state
    _exit(state, way.command)


def _run_once(
    session: Session, make: Callable[[Session], Plan], question: Callable[[Session, Plan], str] | None, way: _Way
) -> RunState | None:
    """One run, from its plan to its report; None when there was nothing to do."""
    run_id = new_run_id(places.runs_dir(session.site.site), datetime.now(UTC), way.operation.replace(" ", "-"))
    with RunLock(session.site.site, run_id):
        made = make(session)
        if not way.json:
            out.print(_show_plan(made, past_runs(made.site)), end="\n\n")
        if (asked := find_question(made, asks=not way.yes and not way.json)) is not None:
            confirm(f"{asked.what}. Accept that?", yes=False, command=asked.next)
            session = replace(session, desired=accept(session.desired, asked.price))
            made = make(session)
        if made.changes:
            text = question(session, made) if question is not None else _question(made)
            confirm(text, yes=way.yes or not text, command=way.command)
        elif not made.nodes:
            out.print("nothing to do") if not way.json else None
            return None
        return _run_plan(made, session, run_id, way)


def _run_without(session: Session, unfenced: tuple[str, ...], way: _Way) -> RunState | None:
    """Once more, with these hosts left alone: who can stand in for what they have does. None when nobody can."""
    desired = replace(session.desired, options=leave_alone(session.desired.options, unfenced))
    run_id = new_run_id(places.runs_dir(session.site.site), datetime.now(UTC), f"{way.operation}-again")
    with RunLock(session.site.site, run_id):
        made = plan_whole(desired, observe(desired, session.world))
        if not made.changes:
            return None
        if not way.json:
            out.print(f"\nWithout {' and '.join(unfenced)}, whose power could not be cut:\n")
            out.print(_show_plan(made, past_runs(made.site)), end="\n\n")
        confirm(_question(made), yes=way.yes, command=way.command, declined="nobody stands in")
        return _run_plan(made, session, run_id, way)


def _run_plan(made: Plan, session: Session, run_id: str, way: _Way) -> RunState:
    site = session.site.site
    with Journal.create(places.runs_dir(site), run_id) as journal:
        way.faces.append(choose_face(way.json, out, timing.durations_from(past_runs(site))))
        state = _execute(made, session, journal, way.faces[-1], run_id, way.command)
    if not way.json:
        out.print(_closing(made, state))
        for sentence in made.advice:
            out.print(f"! {sentence}", markup=False, soft_wrap=True)
        if way.operation == "recover" and timing.journey_s(state) is not None:
            out.print(_invitation(session.site, timing.journey_s(state)), soft_wrap=True)
    return state


def _invitation(site: Site, journey_s: float | None) -> str:
    """The last lines: where the shop is, when it sold again, and how to look at it."""
    service = site.services[site.journey.service]
    port = "" if service.port == 80 else f":{service.port}"
    look = f"pcloud lab open {site.site}, then http://127.0.0.1:8080" if site.lab else "any browser that reaches it"
    return (
        f"\nstorefront          http://{service.address}{port}\n"
        f"first full journey  {journey_s:.1f} s after the start\n"
        f"look at it          {look}"
    )


def _closing(made: Plan, state: RunState) -> RenderableType:
    """The report; one line when there was nothing to report."""
    idle = made.operation == "recover" and not made.changes
    if not idle or state.finished is None or state.finished.outcome != "converged":
        return render_report(report_of(state))
    lines = [f"{made.site}: nothing was changed, {len(made.kept)} servers are healthy, and a shopper could buy"]
    return "\n".join([*lines, *report_of(state).findings])


def _question(made: Plan) -> str:
    servers = sorted({n.info.server for n in made.changes if n.info.server})
    retired = sum(n.info.action == "retire" for n in made.nodes)
    gone = f", {retired} of them in place of one that is there now (its disk is kept as a tombstone)" if retired else ""
    older = sum(n.info.action == "put away" for n in made.nodes)
    gone += f", {older} older cop{'y' if older == 1 else 'ies'} put away as tombstones" if older else ""
    losses = {n.info.reason: None for n in made.nodes if isinstance(n.step, RestoreBackup)}
    first = "".join(f"{loss}.\n" for loss in losses)
    return f"{first}{made.operation} {made.site}: {len(made.changes)} steps on {len(servers)} servers{gone}?"


def _execute(made: Plan, session: Session, journal: Journal, face: Face, run_id: str, command: str) -> RunState:
    asked = threading.Event()

    def stop(*_: object) -> None:
        """The first only asks: an exception could strike between an event and what it stands for."""
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return execute(made, session.world, journal, face, run_id, SystemClock(), asked)
    except KeyboardInterrupt:
        face.close()
        err.print(f"stopped at once. Go on with: {command}")
        os._exit(1)  # threads may still wait for a host; the journal is on disk, the next run looks for itself
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        face.close()


def _sells(state: RunState) -> bool:
    finished = state.finished is not None and state.finished.outcome == "converged"
    return finished or timing.journey_s(state) is not None


def _exit(state: RunState, command: str) -> None:
    outcome = state.finished.outcome if state.finished else "failed"
    if outcome == "interrupted":
        err.print(f"stopped. Go on with: {command}")
    raise typer.Exit({"converged": 0, "blocked": 3}.get(outcome, 1))
