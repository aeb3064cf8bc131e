"""salvage: what dead copies of the data hold that the living data have not, listed and written for a person."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pcloud.binlogtext import Transaction, TransactionReader
from pcloud.cli.recover import Json, SiteName
from pcloud.cli.screen import say
from pcloud.cli.session import Session, check_hosts, err, open_session, out
from pcloud.desired import Names
from pcloud.errors import BadInput, Blocked, PcloudError
from pcloud.generations import read_generations
from pcloud.identity import carrier_names
from pcloud.lostfiles import LostFiles, prepare_folder
from pcloud.observe import observe
from pcloud.observed import Observed
from pcloud.render.words import Whole
from pcloud.salvage import DeadCopy, Finding, find_copies, find_findings, living_position
from pcloud.steps.replication import sql
from pcloud.steps.salvage import SALVAGE_S, UNKNOWN, Living, find_living, leave_note, read_disk, read_notes

app = typer.Typer()

SHOWN = 100
"""Transactions of a copy that are listed from its first and from its last; all are in the JSON."""
COLUMNS_SQL = (
    "SELECT CONCAT(table_schema, '.', table_name), column_name FROM information_schema.columns WHERE table_schema"
    " NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1, ordinal_position"
)


@dataclass
class Salvaged:
    """One copy, as it was read; `problem` says why it could not be."""

    copy: DeadCopy
    position: str = ""
    missing: int = 0
    first: str = ""
    last: str = ""
    partial: bool = False
    damaged: list[str] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    problem: str = ""
    next: str = ""

    def as_json(self) -> dict[str, Any]:
        data = {k: v for k, v in asdict(self).items() if k not in ("copy", "transactions", "files")}
        told = [{"gtid": t.gtid, "at": t.at, "tables": t.tables, "statements": t.statements} for t in self.transactions]
        copy = asdict(self.copy)
        return {
            **{k: copy[k] for k in ("host", "server", "generation", "file", "tombstone")},
            **data,
            "transactions": told,
            "files": [str(f) for f in self.files],
        }


@app.command(
    epilog="Examples: pcloud salvage demo · pcloud salvage demo --host h1 --out lost · pcloud salvage demo --json. "
    "Exit codes: 0 read (also when nothing is missing), 1 a disk could not be read, 2 bad input, 3 a host that may "
    "have a copy does not answer, and nothing else was found."
)
def salvage(
    site: SiteName = "demo",
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="HOST", help="Only this host; may be repeated.")
    ] = None,
    server: Annotated[
        list[str] | None, typer.Option("--server", metavar="SERVER", help="Only copies of this one; may be repeated.")
    ] = None,
    tombstones: Annotated[
        bool, typer.Option("--tombstones", help="Also copies that were put away and never read.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the transactions there, as SQL and as CSV (customers' data)."),
    ] = None,
    json: Json = False,
) -> None:
    """List the transactions that dead copies of the data hold and the living data have not.

    They are read from the copies' disks where these lie. No copy is started or changed, and nothing
    is written into the living database: what to do with the rows is for a person to decide.
    """
    with open_session(site) as session:
        check_hosts(session.site, host or ())
        _check_servers(session, server or ())
        found = observe(session.desired, session.world)
        every = dead_copies(session, found)
        asked = [c for c in every if (not host or c.host in host) and (not server or c.server in server)]
        told = {(f.host, f.server, f.generation) for f in findings_of(session, found, asked)}
        chosen = [c for c in asked if tombstones or not c.tombstone or (c.host, c.server, c.generation) in told]
        silent = [h.name for h in found.hosts if not h.reachable and (not host or h.name in host)]
        if not chosen and silent:
            raise Blocked(
                f"{' and '.join(silent)} does not answer, and no other host has a dead copy of the data",
                where=session.site.site,
                next=f"bring it back, then pcloud salvage {site}",
            )
        read = _read_all(session, chosen, folder)
    if json:
        say(jsonlib.dumps({"site": session.site.site, "copies": [s.as_json() for s in read], "silent": silent}))
    else:
        _show(session.site.site, read, silent, put_away=len(asked) - len(chosen))
    raise typer.Exit(1 if any(s.problem for s in read) else 0)


def dead_copies(session: Session, found: Observed) -> list[DeadCopy]:
    site = session.site
    return find_copies(site.site, carrier_names(site), found, read_generations(found, site.site).newest)


def findings_of(session: Session, found: Observed, copies: Sequence[DeadCopy]) -> list[Finding]:
    """What to tell of them. Notes are read of copies that may hold something, one call a host."""
    notes: dict[tuple[str, str], str] = {}
    wanted = [c for c in copies if c.note]
    for host in dict.fromkeys(c.host for c in wanted):
        files = [c.note for c in wanted if c.host == host]
        try:
            notes |= {(host, name): text for name, text in read_notes(session.world, host, files).items()}
        except PcloudError:
            continue  # then the names of the notes have to do
    return find_findings(session.site.site, copies, living_position(found.data), notes)


def _check_servers(session: Session, names: Sequence[str]) -> None:
    known = carrier_names(session.site)
    for name in names:
        if name not in known:
            raise BadInput(f"{name} does not carry the data", where="--server", next=f"one of {', '.join(known)}")


def _read_all(session: Session, copies: Sequence[DeadCopy], folder: Path | None) -> list[Salvaged]:
    if not copies:
        return []
    world = session.world
    if folder is not None:
        prepare_folder(folder, [_stem(c) for c in copies])
    carriers = carrier_names(session.site)
    living = find_living(world, carriers)
    columns = _columns(session, carriers) if folder is not None else {}
    read = []
    for copy in copies:
        err.print(f"{copy}: reading its disk", soft_wrap=True)
        done = Salvaged(copy)
        try:
            _read(session, done, living, folder, columns)
        except PcloudError as error:
            done.problem, done.next = f"{error.where}: {error.what}", error.next
        read.append(done)
    return read


def _columns(session: Session, carriers: Sequence[str]) -> dict[str, list[str]]:
    """`database.table` to the names of its columns in the living data; empty when nobody tells."""
    found: dict[str, list[str]] = {}
    for carrier in carriers:
        try:
            for table, column in sql(session.world, carrier, COLUMNS_SQL):
                found.setdefault(table, []).append(column)
        except (PcloudError, ValueError):
            found = {}
            continue
        break
    return found


def _read(
    session: Session, done: Salvaged, living: Living, folder: Path | None, columns: Mapping[str, Sequence[str]]
) -> None:
    copy, reader = done.copy, TransactionReader()
    files = LostFiles(folder, _stem(copy), _head(session.site.site, copy), columns) if folder is not None else None

    def take(line: bytes) -> None:
        lost = files.take(line) if files is not None else reader.feed(line.decode("utf-8", "surrogateescape"))
        if lost is not None:
            done.transactions.append(Transaction(lost.gtid, lost.at, lost.tables, lost.statements))

    try:
        read = read_disk(
            session.world,
            copy.host,
            copy.file,
            living,
            verb="sql" if files is not None else "list",
            doing=lambda text: err.print(f"  {text}", soft_wrap=True),
            line=take,
            deadline_s=SALVAGE_S,
        )
        done.files = files.finish() if files is not None else []
    except BaseException:
        if files is not None:
            files.discard()
        raise
    done.position, done.missing, done.first, done.last = read.at, read.missing, read.first, read.last
    done.partial, done.damaged = read.partial, read.damaged
    if not (copy.tombstone or copy.note or read.damaged or read.at == UNKNOWN):
        names = Names(session.site.site, copy.server, copy.generation)
        leave_note(session.world, copy.host, names, read.reading(living))


def _stem(copy: DeadCopy) -> str:
    return f"{copy.server}.g{copy.generation}.{copy.host}"


def _head(site: str, copy: DeadCopy) -> str:
    return (
        f"Transactions of {site} that {copy} holds and the living data have not.\n"
        "Customers' data. Read it before you load any of it: the living data went on without these rows, may have\n"
        "given their numbers to others, and may have them already where somebody typed them in again. Row by row it\n"
        "is in the comments that begin with ###, and in the CSV files beside this one. What is loaded becomes new\n"
        "transactions of the database that it is loaded into: the old GTIDs are in comments only."
    )


def _show(site: str, read: Sequence[Salvaged], silent: Sequence[str], put_away: int) -> None:
    if not read:
        out.print(f"{site}: no dead copy of the data is on any host that answers")
    for done in read:
        _show_copy(done)
    if put_away:
        noun = "copy was" if put_away == 1 else "copies were"
        out.print(f"{put_away} {noun} put away and not read: pcloud salvage {site} --tombstones", soft_wrap=True)
    for host in silent:
        out.print(f"host {host} does not answer: what it holds was not seen", soft_wrap=True)


def _show_copy(done: Salvaged) -> None:
    if done.problem:
        out.print(f"✗ {done.copy} could not be read: {done.problem}", soft_wrap=True)
        out.print(f"  next: {done.next}", soft_wrap=True)
        return
    if done.position == UNKNOWN:
        text = "holds data, and its binary log no transaction: nothing says how far they go"
        out.print(f"? {done.copy} {text}", soft_wrap=True)
    elif not done.missing:
        out.print(f"✓ {done.copy} holds nothing that the living data have not", soft_wrap=True)
    else:
        least = "at least " if done.partial else ""
        when = f"from {done.first} to {done.last}"
        out.print(f"! {done.copy} holds {least}{done.missing} transactions that they have not, {when}", soft_wrap=True)
        out.print(Whole(_table(done.transactions)), soft_wrap=True)
    for damage in done.damaged:
        out.print(f"  {damage}: what comes after that is not shown", soft_wrap=True)
    for path in done.files:
        out.print(f"  written: {path}", soft_wrap=True)


def _table(transactions: Sequence[Transaction]) -> Table:
    table = Table("committed", "transaction", "rows", box=None, header_style="bold", pad_edge=False)
    for n, lost in enumerate(transactions):
        if SHOWN <= n < len(transactions) - SHOWN:
            if n == SHOWN:
                table.add_row("", f"{len(transactions) - 2 * SHOWN} more", "--json has them all")
            continue
        rows = [f"{name} {count}" for name, count in lost.tables.items()]
        table.add_row(lost.at, lost.gtid, ", ".join([*rows, *lost.statements]))
    return table
