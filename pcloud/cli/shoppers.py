"""lab shoppers: a shop under load, and whether it kept every order that it acknowledged."""

from __future__ import annotations

import json as jsonlib
import signal
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pcloud import lab
from pcloud.cli.session import LIVES, Session, default_site, err, open_session, out
from pcloud.errors import Blocked
from pcloud.inventory import find_inventory, load_site
from pcloud.lab.requirements import require_lab
from pcloud.model import Site, SqlCheck
from pcloud.shoppers import Ledger, read_ledger, shop_around
from pcloud.shopping import Audit, Gap, Summary, audit, summarise
from pcloud.sql import ask
from pcloud.web import Unanswered

app = typer.Typer()

MOST, LONGEST_S = 50, 3600
ASK_S = 20
"""Until the database has answered."""


@app.command(
    epilog="Examples: pcloud lab shoppers demo --number 4 --for 120 --ledger orders.jsonl · "
    "pcloud lab shoppers demo --check orders.jsonl. An order counts once the shopper saw its number; who gets no "
    "answer sends hers again. Ctrl-C ends early. Exit codes: 0 all well, 1 the check found an order missing or twice."
)
def shoppers(
    site: Annotated[str, typer.Argument(help=LIVES, default_factory=default_site, show_default="the only one")],
    number: Annotated[int, typer.Option("--number", min=1, max=MOST, help="How many, each with her own browser.")] = 4,
    duration: Annotated[
        float, typer.Option("--for", min=1, max=LONGEST_S, metavar="SECONDS", help="How long they shop.")
    ] = 60,
    pause: Annotated[
        float, typer.Option("--pause", min=0.1, max=60, metavar="SECONDS", help="Between two pages, more or less.")
    ] = 1,
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="Write every request and order here, a JSON line each.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Send nobody: compare this ledger with the database.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print data instead of text.")] = False,
) -> None:
    """Send shoppers who browse, search, fill baskets and order, and say what they met."""
    if check is not None:
        _check(site, check, json)
        return
    wanted = load_site(find_inventory(site))
    require_lab(wanted)
    lab.enter(wanted)
    with Ledger(ledger) as book:
        _shop(wanted, book, number, duration, pause)
        told = summarise(sorted(book.entries, key=lambda e: e.at))
    if json:
        out.print_json(jsonlib.dumps({"site": site, **asdict(told)}))
    else:
        out.print(summary_text(told), soft_wrap=True)


def _shop(site: Site, book: Ledger, number: int, duration: float, pause: float) -> None:
    service = site.services[site.journey.service]
    port = "" if service.port == 80 else f":{service.port}"
    enough = threading.Event()
    before = {n: signal.signal(n, lambda *_: enough.set()) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with err.status(f"{number} shoppers at http://{service.address}{port} for {duration:g} s"):
            shop_around(
                f"http://{service.address}{port}",
                book,
                number=number,
                duration_s=duration,
                pause_s=pause,
                stopped=enough.is_set,
            )
    finally:
        for n, old in before.items():
            signal.signal(n, old)


def _check(site: str, path: Path, json: bool) -> None:
    entries = read_ledger(path)
    with open_session(site) as session:
        found = audit(entries, *stored_orders(session))
    if json:
        out.print_json(jsonlib.dumps({"site": site, "ledger": str(path), **asdict(found)}))
    else:
        out.print(_audit_text(found), soft_wrap=True)
    raise typer.Exit(0 if found.fine else 1)


def stored_orders(session: Session) -> tuple[tuple[str, ...], int]:
    """Every order's number in the database that holds the service address, and baskets with several orders."""
    site, account = session.site, SqlCheck()
    service = site.services[site.database.service]
    table = f"`{site.database.name}`.order_order"
    twice = f"SELECT basket_id FROM {table} WHERE basket_id IS NOT NULL GROUP BY basket_id HAVING COUNT(*) > 1"
    try:
        numbers, doubled = ask(
            str(service.address),
            service.port,
            (f"SELECT number FROM {table}", ()),
            (twice, ()),
            user=account.user,
            password=session.world.reveal(account.password),
            timeout_s=ASK_S,
        )
    except Unanswered as problem:
        raise Blocked(
            f"the database does not say which orders it has: {problem}",
            where=str(service.address),
            next=f"pcloud status {site.site}",
        ) from None
    return tuple(str(row[0]) for row in numbers), len(doubled)


def _audit_text(found: Audit) -> str:
    if found.fine:
        return f"all {found.acknowledged} acknowledged orders are in the database, each once"
    lines = [f"{found.acknowledged} orders were acknowledged"]
    if found.missing:
        lines.append(f"not in the database: {' '.join(found.missing)}")
    if found.twice:
        lines.append(f"more than once there: {' '.join(found.twice)}")
    if found.doubled:
        lines.append(f"baskets with more than one order: {found.doubled}")
    return "\n".join(lines)


def summary_text(told: Summary) -> str:
    """What the shoppers met, for people."""
    again = f", {told.resent} of them sent more than once" if told.resent else ""
    lines = [
        f"{told.shoppers} shoppers, {told.seconds:.0f} s: {told.requests} requests, {told.orders} orders{again}",
        f"longest without an order  {_gap(told.longest_without_order)}",
        f"longest without a page    {_gap(told.longest_without_page)}",
    ]
    for kind, reasons in told.failed.items():
        lines.append(f"failed: {kind:<9} {', '.join(f'{n} x {reason}' for reason, n in reasons.items())}")
    return "\n".join(lines if told.failed else [*lines, "no request failed"])


def _gap(gap: Gap | None) -> str:
    if gap is None:
        return "there was none"
    return f"{gap.seconds:.1f} s, from {datetime.fromtimestamp(gap.at, UTC):%H:%M:%S} UTC on"
