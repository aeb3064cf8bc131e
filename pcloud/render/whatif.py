"""Losses that did not happen: a row each, and whether the site could take any one of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pcloud.events import Status
from pcloud.render.words import STYLES, SYMBOLS, Folded, one_line, rough
from pcloud.whatif import Loss, Outlook, Subject

_MANY = 4


def render_what_if(
    outlook: Outlook, losses: Sequence[Loss], unseen: Sequence[Subject], *, measured: bool, why: bool
) -> RenderableType:
    """`unseen`: what there was no time for.

    `measured`: whether times go by past runs; without, none is shown. `why`: the reason of every choice, too.
    """
    site, unsettled = outlook.desired.site.site, outlook.unsettled
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("lost", "had", "made anew on", "database", "about", ""):
        table.add_column(column, justify="right" if column == "about" else "left")
    for loss in losses:
        table.add_row(*_row(loss, measured))
    parts: list[RenderableType] = [table, Text()]
    if why:
        parts += [*(Text(line) for loss in losses for line in reasons_of(loss)), Text()]
    if unsettled:
        parts.append(Text(f"not as it should be now, and counted: {_some(unsettled)}. First: pcloud recover {site}"))
    if unseen:
        parts.append(Text(f"not looked at, as time was up: {_some([str(s) for s in unseen])}; --within gives it more"))
    parts += [Text(line, "bold") for line in verdicts_of(site, losses, unseen)]
    return Folded(Group(*parts))


def _row(loss: Loss, measured: bool) -> list[Text]:
    moved = dict.fromkeys(m.new for m in loss.moves if m.new)
    effects = loss.effects
    database = (
        f"{effects.promoted} takes over"
        if effects.promoted
        else "from a backup or the dump"
        if effects.restored
        else ""
    )
    status = Status.DONE if loss.survived else Status.FAILED
    mark = Text(SYMBOLS[status], STYLES[status])
    return [
        Text(str(loss.subject)),
        Text(_some([m.server for m in loss.moves]) or "-"),
        Text(_some(list(moved)) or "-"),
        Text(database or "-"),
        Text(rough(effects.seconds) if measured and loss.moves else "-"),
        mark.append(f" {_problem(loss)}" if not loss.survived else "", STYLES[status]),
    ]


def _problem(loss: Loss) -> str:
    homeless, effects = loss.homeless, loss.effects
    parts = [f"no {'/'.join(dict.fromkeys(m.short for m in homeless))} for {_some([m.server for m in homeless])}"]
    parts = parts if homeless else []
    parts += ["orders since the last backup or dump are lost"] if effects.restored else []
    parts += [_some([stop.partition(":")[0] for stop in effects.stops]) + " blocked"] if effects.stops else []
    return "; ".join(parts)


def reasons_of(loss: Loss) -> list[str]:
    """Why each server would go where it would, what becomes of the data, and what a person would have to see to."""
    lines = [f"{loss.subject}: {m.server}: {one_line(m.why)}" for m in loss.moves]
    lines += [f"{loss.subject}: {loss.effects.promoted}: {one_line(loss.effects.rpo)}"] if loss.effects.promoted else []
    return lines + [f"{loss.subject}: {one_line(stop)}" for stop in loss.effects.stops]


def verdicts_of(site: str, losses: Sequence[Loss], unseen: Sequence[Subject]) -> list[str]:
    """The last lines: of any one host, then of any one rack."""
    lines = []
    for kind in ("host", "rack"):
        mine = [loss for loss in losses if loss.subject.kind == kind]
        bad = [loss.subject.name for loss in mine if not loss.survived]
        left = [s for s in unseen if s.kind == kind]
        if bad:
            lines.append(f"{site} cannot lose {kind} {_some(bad)}")
        elif left:
            lines.append(f"{site} can lose any of the {len(mine)} {kind}s that were looked at")
        elif mine:
            lines.append(f"{site} can lose any one {kind}")
    return lines


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(one_line(n) for n in names[:_MANY])
    return f"{shown} and {len(names) - _MANY} more" if len(names) > _MANY else shown
