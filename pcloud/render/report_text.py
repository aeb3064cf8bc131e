"""A run's report for the terminal: what matters first, readable in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pcloud.journal import RunSummary
from pcloud.render.overview import Trouble
from pcloud.render.report import PathReport, Report
from pcloud.render.words import (
    CRITICAL,
    CUT,
    OUTCOME_MARKS,
    STYLES,
    SYMBOLS,
    Folded,
    Whole,
    aged,
    clean,
    clock,
    names,
    one_line,
    span,
)

_BAR = 24
_SHORT = 0.05
"""Of the longest step: what is shorter may share its line with its neighbours."""
_WAIT_S = 0.5


def render_report(report: Report) -> RenderableType:
    """The whole report of one run."""
    parts: list[RenderableType] = [_head(report)]
    for title, body in _sections(report):
        parts += [Text(), Text(title, "bold"), Padding(body, (0, 0, 0, 2))]
    if report.next:
        parts += [Text(), Text.assemble(("next: ", "bold"), one_line(report.next))]
    return Folded(Group(*parts))


def render_runs(runs: Sequence[RunSummary], now: datetime) -> RenderableType:
    """A list of runs, oldest first, whole; `journey` is the time to the first full one."""
    table = _table("run", "began", "site", "outcome", ">took", ">journey")
    for run in runs:
        times = (span(run.duration_s), span(run.journey_s))
        began = aged(run.started, now)
        table.add_row(one_line(run.run), began, one_line(run.site), _outcome(run.outcome), *times)
    return Folded(Whole(table))


def _outcome(outcome: str) -> Text:
    mark = OUTCOME_MARKS.get(outcome, CUT)
    return Text.assemble((f"{SYMBOLS[mark]} {one_line(outcome)}", STYLES[mark]))


def _head(report: Report) -> Text:
    text = Text.assemble((one_line(report.site), "bold"), f"  {one_line(report.operation)}  ", _outcome(report.outcome))
    text.append(f"  after {span(report.seconds)}\n")
    text.append(f"run {one_line(report.run)}, begun {one_line(report.started)}\n", "dim")
    if report.first_journey_s is not None:
        text.append("first full journey after ").append(span(report.first_journey_s), "bold cyan")
    elif any(step.step == "journey" for step in report.steps):
        text.append("no full journey: nobody was seen to be able to buy", "bold")
    return text


def _sections(report: Report) -> Iterator[tuple[str, RenderableType]]:
    if report.problems:
        yield "Problems", Group(*(_problem(problem) for problem in report.problems))
    told = (("Dead copies of the data", report.findings), ("Proof", (report.compared,)))
    yield from ((title, Text("\n".join(map(one_line, said)))) for title, said in told if any(said))
    if report.phases:
        yield "Phases", _phases(report)
    if report.servers:
        yield "Servers", _servers(report)
    if report.proofs:
        yield "Proven off", _proofs(report)
    if report.critical_path:
        yield f"{CRITICAL} What took the time (critical path)", _path(report.critical_path)
    if report.journey:
        yield "The shopper's walk", _walk(report)
    if report.kept:
        yield "Kept", Text(f"{names(map(one_line, report.kept))}: healthy, left alone")
    if report.facts:
        lines = (f"{one_line(name)}: {one_line(str(value))}" for name, value in report.facts.items())
        yield "Also", Text("\n".join(lines))


def _table(*columns: str) -> Table:
    """Columns whose name begins with `>` are right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return table


def _status(status: str) -> Text:
    return Text(f"{SYMBOLS[status]} {status}", STYLES[status])


def _phases(report: Report) -> Table:
    table = _table("phase", "state", ">began", ">took", ">steps", ">changed")
    for phase in report.phases:
        began = clock(phase.begin_s) if phase.begin_s is not None else "-"
        row = (span(phase.seconds), str(phase.steps), str(phase.changed))
        table.add_row(one_line(phase.name), _status(phase.status), began, *row)
    return table


def _servers(report: Report) -> Table:
    table = _table("server", "host", "state", ">took", ">ready after", ">boot CPU")
    for server in report.servers:
        table.add_row(
            one_line(server.name),
            one_line(server.host) or "-",
            _status(server.status),
            span(server.seconds),
            span(server.ready_s),
            f"{server.cpu_s:.1f} s" if server.cpu_s is not None else "-",
        )
    return table


def _proofs(report: Report) -> Table:
    table = _table("host", ">at", "proof", "asked")
    for proof in report.proofs:
        asked = ", ".join(map(one_line, proof.asked)) or "nothing"
        table.add_row(one_line(proof.host), clock(proof.at_s), one_line(proof.proof), asked)
    return table


def _path(path: Sequence[PathReport]) -> Table:
    """Neighbours that took next to nothing share a line."""
    table = _table("step", ">began", ">took", "")
    longest = max((step.end_s - step.begin_s for step in path), default=0.0)
    for short, group in groupby(path, key=lambda step: step.end_s - step.begin_s < _SHORT * longest):
        steps = list(group)
        if short and len(steps) > 1:
            took = steps[-1].end_s - steps[0].begin_s
            table.add_row(Text(f"{len(steps)} short steps", "dim"), clock(steps[0].begin_s), span(took), "")
            continue
        for step in steps:
            took = step.end_s - step.begin_s
            bar = Text("━" * round(_BAR * took / longest) if longest > 0 else "", "yellow")
            if step.waited_s >= _WAIT_S:
                bar.append(f" after waiting {span(step.waited_s)}", "dim")
            table.add_row(one_line(step.step), clock(step.begin_s), span(took), bar)
    return table


def _walk(report: Report) -> Table:
    table = _table("", ">")
    table.show_header = False
    for visit in report.journey:
        table.add_row(
            Text.assemble((f"{SYMBOLS['done']} ", STYLES["done"]), one_line(visit.name)), span(visit.elapsed_s)
        )
    return table


def _problem(problem: Trouble) -> RenderableType:
    head = Text.assemble((f"{SYMBOLS[problem.status]} {one_line(problem.step)}", STYLES[problem.status]))
    head.append(f"  {problem.status} after {span(problem.at)}", "dim")
    body = [Text(line) for line in clean(problem.what).splitlines()]
    if problem.where:
        body.append(Text(f"where: {one_line(problem.where)}"))
    if problem.next:
        body.append(Text.assemble(("next: ", "bold"), one_line(problem.next)))
    if problem.skipped:
        body.append(Text(f"not tried because of it: {problem.skipped} more", "dim"))
    return Group(head, Padding(Group(*body), (0, 0, 0, 2)))
