"""Health questions: one `probe` is one question, bounded in time and memory as a whole.

A wrong answer is data, never an exception: a `Verdict` with a line that says what was asked and
what came. Each kind asks the real thing: HTTP reads the page, SQL runs the query, search runs a
`MATCH` over SphinxQL (a plain index without attributes refuses anything less).
"""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pcloud import sql
from pcloud.clock import Deadline
from pcloud.errors import BadInput, Blocked, PcloudError
from pcloud.model import Check, CommandCheck, HttpCheck, SearchCheck, SecretRef, SqlCheck
from pcloud.web import Page, Unanswered, client, fetch, fold, one_line

BODY_LIMIT = 2 << 20
KNOCK_S = 1.0  # a machine that is not up yet drops the first packet; the kernel repeats it late, we do not
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
_SPHINX_SYNTAX = re.compile(r'([\\()|\-!@~"&/^$=<])')


@dataclass(frozen=True)
class Verdict:
    """What came of one question. `detail` is one line; `elapsed_s` seconds."""

    ok: bool
    detail: str
    elapsed_s: float


Secrets = Callable[[SecretRef], str]
Run = Callable[[Sequence[str]], int]
_Answer = tuple[bool, str]


def probe(check: Check, address: str, *, secrets: Secrets, run: Run | None = None, timeout_s: float) -> Verdict:
    """Asks one check of one server, once; returns within `timeout_s` seconds.

    `run` runs an argv on that server and returns its exit code; a command check needs it, and it
    keeps its own deadline. Raises nothing for a bad answer: only `Blocked` and `BadInput` (a
    secret or a key that a person must mend), and `ValueError` for a command check without `run`.
    """
    started = time.monotonic()
    ok, detail = _ask(check, address, secrets, run, timeout_s)
    return Verdict(ok, one_line(detail), time.monotonic() - started)


def _ask(check: Check, address: str, secrets: Secrets, run: Run | None, timeout_s: float) -> _Answer:
    if check.tcp is not None:
        return _tcp(address, check.tcp.port, timeout_s)
    if check.http is not None:
        return asyncio.run(_http(check.http, address, timeout_s))
    if check.sql is not None:
        return _sql(check.sql, address, secrets(check.sql.password), timeout_s)
    if check.search is not None:
        return _search(check.search, address, timeout_s)
    if check.command is None or run is None:
        raise ValueError(f"the check {check.name} needs somebody who runs its command")
    return _command(check.command, run)


def wait_until(
    ask: Callable[[], Verdict],
    deadline: Deadline,
    *,
    on_verdict: Callable[[Verdict], None] | None = None,
    longest_s: float = LONGEST_PAUSE_S,
) -> Verdict:
    """Asks again until the answer is good or the deadline passed; the last verdict, at least one.

    The pause grows from a tenth of a second to `longest_s`: an emulated guest pays for each question.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        verdict = ask()
        if on_verdict is not None:
            on_verdict(verdict)
        if verdict.ok or deadline.left() <= pause_s:
            return verdict
        deadline.clock.sleep(pause_s)
        pause_s = min(longest_s, pause_s * 1.6)


def wait_for(
    check: Check,
    address: str,
    deadline: Deadline,
    *,
    secrets: Secrets,
    run: Run | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
    ssh_port: int = 22,
) -> Verdict:
    """Waits for one check of a server that may still be booting; the last verdict.

    Knocks at the port until something listens, which costs the guest next to nothing, and only
    then asks the real question (a log-in costs an emulated guest more than a second of CPU).
    """
    port = _port(check) or ssh_port
    heard = wait_until(lambda: _knock(address, port, deadline), deadline, on_verdict=on_verdict)
    if not heard.ok:
        return heard

    def ask() -> Verdict:
        return probe(check, address, secrets=secrets, run=run, timeout_s=max(0.1, deadline.within(check.timeout_s)))

    return wait_until(ask, deadline, on_verdict=on_verdict)


def _port(check: Check) -> int | None:
    asked = check.tcp or check.http or check.sql or check.search
    return asked.port if asked is not None else None


def _knock(address: str, port: int, deadline: Deadline) -> Verdict:
    started = time.monotonic()
    ok, detail = _tcp(address, port, max(0.1, deadline.within(KNOCK_S)))
    return Verdict(ok, detail, time.monotonic() - started)


def _tcp(address: str, port: int, timeout_s: float) -> _Answer:
    where = f"{address}:{port}"
    try:
        socket.create_connection((address, port), timeout=timeout_s).close()
    except OSError as error:
        return False, f"{where}: {sql.connect_problem(error, timeout_s)}"
    return True, f"{where}: accepts connections"


async def _http(check: HttpCheck, address: str, timeout_s: float) -> _Answer:
    base = f"http://{address}:{check.port}" if check.port != 80 else f"http://{address}"
    headers = {"Host": check.host} if check.host else {}
    async with client(base) as session:
        try:
            page = await fetch(
                session,
                session.build_request("GET", base + check.path, headers=headers),
                deadline=Deadline.after(timeout_s),
                timeout_s=timeout_s,
                limit=BODY_LIMIT,
            )
        except Unanswered as problem:
            return False, str(problem)
    return _judge_page(check, page)


def _judge_page(check: HttpCheck, page: Page) -> _Answer:
    if page.status != check.status:
        return False, f"{page.what}: {page.status} instead of {check.status}"
    if check.contains is None:
        return True, f"{page.what}: {page.status}"
    text = page.body.decode("utf-8", "replace")
    if check.contains in text or fold(check.contains) in fold(text):
        return True, f"{page.what}: {page.status} with '{check.contains}'"
    where = f"the first {BODY_LIMIT >> 20} MiB" if page.cut else "its answer"
    return False, f"{page.what}: {page.status}, but '{check.contains}' is not in {where}"


def _sql(check: SqlCheck, address: str, password: str, timeout_s: float) -> _Answer:
    what = f"{check.user}@{address}:{check.port}: {check.query}"
    query = (check.query, ())
    try:
        (rows,) = sql.ask(address, check.port, query, user=check.user, password=password, timeout_s=timeout_s)
    except Unanswered as problem:
        return False, f"{what}: {problem}"
    value = rows[0][0] if rows and rows[0] else None
    if check.at_least is None:
        return True, f"{what}: {value if len(rows) == 1 else f'{len(rows)} rows'}"
    try:
        enough = int(str(value)) >= check.at_least
    except ValueError:
        return False, f"{what}: {value} instead of a number"
    return enough, f"{what}: {value}" + ("" if enough else f", fewer than {check.at_least}")


def _search(check: SearchCheck, address: str, timeout_s: float) -> _Answer:
    what = f"{address}:{check.port}: '{check.match}' in {check.index}"
    # The name is of letters, digits and underscores (the model's pattern); the text goes as a value.
    match = f"SELECT id FROM {check.index} WHERE MATCH(%s) LIMIT 1"
    queries = (match, (search_text(check.match),)), ("SHOW META", ())
    try:
        rows, meta = sql.ask(address, check.port, *queries, user="pcloud", password="", timeout_s=timeout_s)
    except Unanswered as problem:
        return False, f"{what}: {problem}"
    found = {str(row[0]): row[1] for row in meta if len(row) > 1}.get("total_found", "")
    if not str(found).isdigit() or bool(rows) != (int(found) > 0):
        return False, f"{what}: an answer that says not how many hits"
    enough = int(found) >= check.at_least
    return enough, f"{what}: {found} hits" + ("" if enough else f", fewer than {check.at_least}")


def search_text(words: str) -> str:
    """People's words for Sphinx's `MATCH`, its operators escaped (as its own client's EscapeString does)."""
    return _SPHINX_SYNTAX.sub(r"\\\1", words)


def _command(check: CommandCheck, run: Run) -> _Answer:
    what = one_line(shlex.join(check.argv), 100)
    try:
        exit_code = run(check.argv)
    except (Blocked, BadInput):
        raise
    except PcloudError as error:
        return False, f"{what}: {error.what}"
    if exit_code != check.exit_code:
        return False, f"{what}: exit code {exit_code} instead of {check.exit_code}"
    return True, f"{what}: exit code {exit_code}"
