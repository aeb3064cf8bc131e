"""backup and restore: the database's data, kept on hosts and brought back."""

from __future__ import annotations

import json as jsonlib
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from pcloud.backupplan import plan_backup, plan_beside, plan_close, plan_prove, question_of, source_of
from pcloud.backups import TIME, all_holes, choose, tell_hole
from pcloud.cli.consent import FromBackup, Unproven
from pcloud.cli.recover import Json, SiteName, Yes, run
from pcloud.cli.screen import say
from pcloud.cli.session import Session, open_session, out, stamp
from pcloud.desired import Desired, Options
from pcloud.errors import BadInput, Blocked
from pcloud.kept import Target
from pcloud.model import Site
from pcloud.observe import observe
from pcloud.observed import Observed
from pcloud.plan import Plan, plan
from pcloud.recall import choose_from, shelves_of
from pcloud.render.backups import COLUMNS, backup_rows, proof_line
from pcloud.render.words import Whole, aged
from pcloud.steps.backup import find_begun

app = typer.Typer()

DAY = r"\d{4}-\d\d-\d\d"
"""It could be a position, too; nobody who writes it means one."""
GTID = r"\d{1,10}-\d{1,10}-\d{1,20}"
LOOK = Options(kept=True)


@app.command(
    epilog="Examples: pcloud backup demo · pcloud backup demo --list · pcloud backup demo --prove · "
    "pcloud backup demo --yes --json. Exit codes: 0 the backup is proven and on its hosts, 1 failed, or it is not what "
    "the replica has, 2 bad input, 3 no primary is well, or nobody said yes."
)
def backup(
    site: SiteName = "demo",
    listed: Annotated[bool, typer.Option("--list", help="Only show what hosts keep.")] = False,
    prove: Annotated[
        bool, typer.Option("--prove", help="Make none: replay the newest one and compare it with the replica.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take a full backup of the database, prove it by restoring it, and keep it on two hosts.

    The same hosts follow the primary's binary log from then on, so that `pcloud restore` can go to
    any moment after a backup. Nothing of the shop stops meanwhile. Where that takes less than a minute,
    the backup is replayed to where the replica is, and every table compared; --prove does so however
    long it takes. A difference is named, and the exit code is 1.
    """
    if listed and prove:
        raise BadInput("--list goes with nothing else", next=f"pcloud backup {site} --prove")
    if listed:
        _list(site, json)
        return

    def make(session: Session) -> Plan:
        found = observe(session.desired, session.world)
        if prove:
            return plan_prove(session.desired, found)
        begun = find_begun(session.world, source_of(session.desired, found)[0])
        return plan_backup(session.desired, found, begun or stamp())

    command = f"pcloud backup {site}{' --prove' if prove else ''}"
    run(site, LOOK, make, "backup", yes=yes or prove, json=json, command=command)


def _list(name: str, json: bool) -> None:
    with open_session(name, LOOK) as session:
        shelves = observe(session.desired, session.world).data.shelves
    kept = [s for s in shelves if s.backups or s.stretches or s.streaming or s.damaged]
    if json:
        say(jsonlib.dumps([asdict(s) for s in kept], indent=2))
        return
    choice = choose(kept)
    if choice is None:
        out.print(f"no host that answers keeps a backup; make one: pcloud backup {session.site.site}")
        return
    now = datetime.now(UTC)
    table = Table(*COLUMNS, box=None)
    for row in backup_rows(kept, now):
        table.add_row(*row)
    out.print(Whole(table), soft_wrap=True)
    reach = f"a restore would reach {choice.end} of {aged(choice.ended, now)}, from the backup {choice.backup.id}"
    for line in (reach, proof_line(kept, session.site.site, now)):
        out.print(line, soft_wrap=True)
    for hole in all_holes(kept):
        out.print(f"! {tell_hole(hole)}", style="bold red", soft_wrap=True)


@app.command(
    epilog="Examples: pcloud restore demo · pcloud restore demo --to '2026-11-26 06:50' --beside · "
    "pcloud restore demo --to 0-172818493-1200 · pcloud restore demo --close. "
    "Exit codes: 0 restored, 1 failed, 2 bad input, 3 no backup reaches it, or nobody said yes."
)
def restore(
    site: SiteName = "demo",
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME|GTID",
            help="Up to this time (UTC, or with +02:00), or with this transaction; left out, all that is kept.",
        ),
    ] = None,
    beside: Annotated[
        bool, typer.Option("--beside", help="Beside the running data, for a look; the site is not touched.")
    ] = False,
    close: Annotated[bool, typer.Option("--close", help="Delete what --beside made.")] = False,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="HOST", help="Use nothing that this host keeps.")
    ] = None,
    from_backup: FromBackup = "",
    unproven: Unproven = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Bring the database's data back from a backup and the binary log, up to a moment.

    Into the site, the data are made beside those of a server first, and checked, while the shop sells;
    then its servers with data are made anew. Their old disks stay as tombstones: `pcloud undo` brings them
    back. What will be lost is said before you are asked.
    """
    if close and (beside or to):
        raise BadInput("--close goes with nothing else", next=f"pcloud restore {site} --close")
    target = read_target(to)
    words = [f"pcloud restore {site}", *([f"--to '{to}'"] if to else []), *(f"--without {h}" for h in without or ())]
    words += [f"--from-backup {from_backup}"] if from_backup else []
    command = " ".join([*words, *(["--beside"] if beside else ["--close"] if close else [])])
    command += " --unproven" if unproven else ""
    hosts = tuple(without or ())
    look = replace(LOOK, without=hosts, from_backup=from_backup)
    if beside or close:

        def apart(session: Session) -> Plan:
            _check_hosts(session.site, hosts)
            found = observe(session.desired, session.world)
            if close:
                return plan_close(session.desired, found)
            _check_reach(session.desired, found, target)
            return plan_beside(session.desired, found, target, f"{stamp()} {target}")

        run(site, look, apart, "restore", yes=True, json=json, command=command)
        return
    asked: list[str] = []

    def into(session: Session) -> Plan:
        _check_hosts(session.site, hosts)
        found = observe(session.desired, session.world)
        _check_reach(session.desired, found, target)
        asked.append(question_of(session.desired, found, target))
        return replace(plan(session.desired, found, stamp()), operation="restore")

    options = replace(look, until=target, unproven=unproven)
    question = lambda _session, _made: asked[0]  # noqa: E731
    run(site, options, into, "restore", yes=yes, json=json, question=question, command=command)


def read_target(text: str | None) -> Target:
    """A time or a GTID, as a person writes it. Raises `BadInput`."""
    if text is None:
        return Target()
    if re.fullmatch(rf"{GTID}(,{GTID}){{0,9}}", text) and not re.fullmatch(DAY, text):
        return Target(gtid=text)
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(
            f"{text!r} is neither a time nor a position",
            where="--to",
            next="write a time such as '2026-11-26 06:50:00' (UTC), or a GTID such as 0-172818493-1200",
        ) from None
    return Target(time=at.strftime(TIME))


def _check_hosts(site: Site, without: tuple[str, ...]) -> None:
    for name in without:
        if name not in {h.name for h in site.hosts}:
            known = ", ".join(h.name for h in site.hosts)
            raise BadInput(f"{site.site} has no host {name}", where="--without", next=f"one of {known}")


def _check_reach(desired: Desired, found: Observed, target: Target) -> None:
    """What nothing kept reaches, or what no clock has reached, is a person's slip, where backups are there."""
    shelves, site, only = shelves_of(desired, found), desired.site, desired.options.from_backup
    choice = choose_from(desired, found, target)
    if choice is not None:
        if target.time > max(choice.ended, datetime.now(UTC).strftime(TIME)):
            raise BadInput(f"{target} is yet to come", where="--to", next="name a time that has passed")
        return
    latest = choose(shelves)
    look = f"pcloud backup {site.site} --list"
    if latest is None:
        raise Blocked("no host that answers keeps a backup", where=site.site, next=look)
    if only and only not in {b.id for s in shelves for b in s.backups}:
        raise BadInput(f"no host that answers keeps a backup {only}", where="--from-backup", next=look)
    oldest = min(b.taken for s in shelves for b in s.backups)
    by = f" from the backup {only}" if only else ""
    raise BadInput(
        f"nothing that is kept reaches {target}{by}: it goes from {oldest} to {latest.end} at {latest.ended}",
        where="--to",
        next=look,
    )
