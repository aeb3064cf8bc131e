"""A run's report as one HTML file: no script, nothing fetched, light or dark as the reader's system is."""

from __future__ import annotations

import os
import tempfile
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from pcloud.errors import PcloudError
from pcloud.render.gantt import chart_of
from pcloud.render.report import Report
from pcloud.render.words import CUT, OUTCOME_MARKS, SYMBOLS, clean, clock, names, one_line, span


def render_html(report: Report) -> str:
    """The page's text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"clean": clean, "one_line": one_line, "span": span, "clock": clock, "names": names}
    template = environment.from_string(files("pcloud.render").joinpath("report.html.j2").read_text(encoding="utf-8"))
    mark = OUTCOME_MARKS.get(report.outcome, CUT)
    longest = max((step.end_s - step.begin_s for step in report.critical_path), default=0.0)
    return template.render(
        report=report,
        chart=chart_of(report),
        symbols=SYMBOLS,
        symbol=SYMBOLS[mark],
        mood="good" if mark == "done" else "busy" if mark == "running" else "bad",
        longest=longest or 1.0,
    )


def write_html(report: Report, path: Path) -> None:
    """Writes beside and renames, so that a reader never meets half a page. Raises `PcloudError`."""
    page = render_html(report).encode("utf-8", "replace")
    try:
        fd, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(page)
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PcloudError(
            f"the report cannot be written: {error.strerror or error}",
            where=str(path),
            next="choose another --html FILE",
        ) from error
