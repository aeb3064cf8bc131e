"""status, check, ssh, console: the commands that look and change nothing."""

from __future__ import annotations

import json as jsonlib
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from pcloud.cli.console import attach
from pcloud.cli.recover import Json, SiteName
from pcloud.cli.salvage import dead_copies, findings_of
from pcloud.cli.screen import say
from pcloud.cli.session import Session, open_session, out, site_of
from pcloud.decide import find_quarantined
from pcloud.desired import Names, Options
from pcloud.errors import BadInput, CheckFailed, PcloudError
from pcloud.identity import carrier_names
from pcloud.observe import WORKERS, observe
from pcloud.observed import Observed
from pcloud.proofs import last_proof
from pcloud.remember import remember
from pcloud.render.backups import proof_line
from pcloud.render.database import COLUMNS, database_rows, find_alarms
from pcloud.render.words import Whole
from pcloud.rpo import backup_alarms, measure_rpo
from pcloud.steps.room import find_full, make_room
from pcloud.tombstones import Cost, find_cost, find_tombstones, read_weight, weigh_command
from pcloud.unplanned import find_unplanned, say_unplanned

app = typer.Typer()


@app.command(epilog="Example: pcloud status demo --json")
def status(site: SiteName = "demo", json: Json = False) -> None:
    """Show hosts and servers as they are now."""
    with open_session(site, Options(kept=True)) as session:
        found = observe(session.desired, session.world)
        rows = _rows(session, found)
        remember(session.desired, session.world, found)
        cost = _cost(session, found)
        lost = findings_of(session, found, dead_copies(session, found))
    unplanned = find_unplanned(session.desired, found)
    alarms = [*find_alarms(session.desired, found.data), *backup_alarms(session.desired, found)]
    alarms += say_unplanned(unplanned, ())
    rpo = measure_rpo(session.desired, found)
    if json:
        hosts = [{"host": h.name, "reachable": h.reachable, "problem": h.problem} for h in found.hosts]
        say(
            jsonlib.dumps(
                {
                    "site": session.site.site,
                    "hosts": hosts,
                    "servers": rows,
                    "unplanned": [
                        {"server": u.server, "host": u.host, "power": u.power.value, "role": u.role} for u in unplanned
                    ],
                    "data": asdict(found.data),
                    "semi_sync": session.site.database.semi_sync.model_dump(),
                    "alarms": alarms,
                    "if_both_hosts_died": asdict(rpo) | {"text": str(rpo)} if rpo is not None else None,
                    "proof": asdict(proof) if (proof := last_proof(found.data.shelves)) is not None else None,
                    "tombstones": asdict(cost) | {"next": cost.next(session.site.site)} if cost is not None else None,
                    "lost": [asdict(f) for f in lost],
                },
                indent=2,
            )
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("server", "host", "power", "generation", "address", "health"):
        table.add_column(column)
    for row in rows:
        mark = "✓" if row["healthy"] else "✗"
        kept = "".join(f"; an older copy is kept on {c['host']}" for c in row["quarantined"])
        copies = [" and ".join(str(c[key]) for c in row["copies"]) for key in ("host", "power", "generation")]
        table.add_row(
            row["server"],
            *(copies if row["copies"] else ["-", "missing", "-"]),
            row["address"],
            f"{mark} {row['detail']}{kept}",
        )
    piped = not out.is_terminal  # there what is long is not folded
    out.print(Whole(table) if piped else table, soft_wrap=piped)
    out.print(Whole(_database_table(session, found)), soft_wrap=True)
    said = [] if rpo is None else [f"If all hosts with the data died now, {rpo}."]
    proven = proof_line(found.data.shelves, session.site.site, datetime.now(UTC))
    for line in [*said, *([proven] if proven else []), *([] if cost is None else [cost.words(session.site.site)])]:
        out.print(line, soft_wrap=True)
    for alarm in alarms:
        out.print(f"! {alarm}", style="bold red", soft_wrap=True)
    for finding in lost:
        out.print(f"! {finding.text}: {finding.next}", style="bold red", soft_wrap=True)
    for host in found.hosts:
        if not host.reachable:
            out.print(f"host {host.name} does not answer: {host.problem}", markup=False, soft_wrap=True)
            if host.next:
                out.print(f"  next: {host.next}", markup=False, soft_wrap=True)


def _cost(session: Session, found: Observed) -> Cost | None:
    """What tombstones cost: the hosts that have any are asked at once, with one command each."""
    site = session.site.site
    hosts = [h.name for h in found.hosts if h.reachable and find_tombstones(site, h.volumes)]
    with ThreadPoolExecutor(max_workers=max(1, min(WORKERS, len(hosts)))) as pool:
        return find_cost(site, found, dict(zip(hosts, pool.map(lambda h: _weigh(session, h), hosts), strict=True)))


def _weigh(session: Session, host: str) -> int | None:
    """None when the host does not say."""
    site, world = session.site.site, session.world
    try:
        said = world.shell(host).run(weigh_command(site, world.host(host).pool), deadline_s=10)
        return read_weight(site, said.stdout)
    except (PcloudError, ValueError):
        return None


def _database_table(session: Session, found: Observed) -> Table:
    policy = session.site.database.semi_sync
    alone = "wait" if policy.alone == "wait" else f"go on after {policy.timeout_s:g} s"
    table = Table(box=None, header_style="bold", pad_edge=False, caption=f"Without a replica, orders {alone}.")
    for column in COLUMNS:
        table.add_column(column)
    for row in database_rows(session.desired, found.data):
        table.add_row(*row)
    return table


def _rows(session: Session, found: Observed) -> list[dict[str, Any]]:
    """A server's copies are one; more when something is very wrong, and none when it is missing.

    Who stands in for one has a row while it is there.
    """
    old = {(q.host, q.server) for q in find_quarantined(session.desired, found)}
    rows = []
    standing_in = [s for s in session.desired.substitutes if any(found.copies(session.site.site, s.name))]
    for spec in (*session.desired.servers, *standing_in):
        copies = [
            {"host": h.name, "power": s.power.value, "generation": s.mark.generation if s.mark else None}
            for h, s in found.copies(session.site.site, spec.name)
        ]
        health = found.health.get(spec.name)
        rows.append(
            {
                "server": spec.name,
                "copies": [c for c in copies if (c["host"], spec.name) not in old],
                "quarantined": [c for c in copies if (c["host"], spec.name) in old],
                "address": spec.address,
                "healthy": bool(health and health.ok),
                "detail": health.detail if health else "",
            }
        )
    return rows


@app.command(epilog="Examples: pcloud check demo · pcloud check demo --watch --every 30")
def check(
    site: SiteName = "demo",
    watch: Annotated[bool, typer.Option("--watch", help="Walk again and again until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two walks.")] = 10,
    json: Json = False,
) -> None:
    """Ask every check, then walk the journey. Exit 0 when all of it passes."""
    with open_session(site) as session:
        while True:
            answers, sells = _ask_all(session)
            _show_answers(session.site.site, answers, sells, json)
            if not watch:
                break
            time.sleep(every)
    raise typer.Exit(0 if all(a.ok for a in answers) else 1)


@dataclass(frozen=True)
class Answered:
    """One check of one server, or one step of the walk."""

    what: str
    ok: bool
    elapsed_s: float
    detail: str


def _ask_all(session: Session) -> tuple[list[Answered], bool]:
    """Every answer, and whether the whole walk passed."""
    answers = []
    for spec in session.desired.servers:
        for one in session.site.group(spec.group).checks:
            said = session.world.probe(one, spec.name, spec.address)
            answers.append(Answered(f"{spec.name} {one.name}", said.ok, said.elapsed_s, said.detail))
    free = {name: find_full(session.world, name) for name in carrier_names(session.site)}
    answers += [_full(session.site.site, name, mib) for name, mib in free.items() if mib is not None]
    walked = session.world.walk(session.site.journey, lambda _visit, _elapsed: None)
    answers += [Answered(f"journey {s.name}", s.ok, s.elapsed_s, s.detail) for s in walked.steps]
    return answers, walked.ok


def _full(site: str, server: str, free_mib: int) -> Answered:
    return Answered(f"{server} disk", False, 0.0, f"{free_mib} MiB are free; {make_room(site, server)}")


def _show_answers(site: str, answers: list[Answered], sells: bool, json: bool) -> None:
    if json:
        data = {"site": site, "ok": all(a.ok for a in answers), "sells": sells, "results": [asdict(a) for a in answers]}
        say(jsonlib.dumps(data, ensure_ascii=False))
        return
    for a in answers:
        mark = "✓" if a.ok else "✗"
        out.print(f"{mark} {a.what:<20} {a.elapsed_s * 1000:6.0f} ms  {a.detail}", soft_wrap=True)
    out.print(f"{site}: {'a' if sells else 'no'} shopper can buy", style="bold")


Machine = Annotated[str, typer.Argument(help="A server or a host: NAME, or SITE/NAME.", metavar="[SITE/]NAME")]


@app.command(
    epilog="Examples: pcloud ssh fe-1 · pcloud ssh demo/db-1 -- mariadb -e 'SHOW STATUS' · pcloud ssh h3",
    context_settings={"ignore_unknown_options": True},
)
def ssh(
    machine: Machine,
    command: Annotated[list[str] | None, typer.Argument(help="A command, after --.", metavar="[-- COMMAND...]")] = None,
) -> None:
    """Log in to a server or a host, with its pinned key."""
    site, name = site_of(machine)
    with open_session(site) as session:
        argv = session.world.ssh_argv(name, command or (), tty=not command)
        # A child, not exec: ssh closes what it inherits, and the key lives in this process.
        code = subprocess.call(argv)
    raise typer.Exit(code)


@app.command(epilog="Example: pcloud console fe-1 (leave with Ctrl-])")
def console(machine: Machine) -> None:
    """Attach to a server's serial console. Leave with Ctrl-]."""
    site, name = site_of(machine)
    with open_session(site) as session:
        if name not in {s.name for s in session.desired.servers}:
            raise BadInput(f"{site} has no server {name}", next=f"pcloud status {site}")
        copies = list(observe(session.desired, session.world).copies(session.site.site, name))
        if not copies:
            raise CheckFailed(f"{name} is on no host that answers", next=f"pcloud status {site}")
        host = copies[0][0].name
        out.print(f"the console of {name} on {host}; leave with Ctrl-]")
        attach(session.world.hypervisor(host), Names(session.site.site, name).domain)
