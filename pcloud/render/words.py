"""How facts are worded and marked, the same in every face: times, amounts, symbols, colours.

Every state has a symbol of its own, so that colour only repeats what the symbol says; the
colours are cyan, yellow, red and magenta, which the common kinds of colour blindness keep
apart. NO_COLOR is rich's to respect. What comes from outside (a guest's console, a command's
output) is cleaned: no escape sequence or direction mark reaches a person's terminal.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from pcloud.events import Status, StepInfo, StepProgress

CUT = "cut off"
"""The state of a step that ran when pcloud was killed; no `Status`, since no event tells it."""

UNREACHED = "not reached"
"""The state of a step that never began, once the run is over."""

SYMBOLS: Mapping[str, str] = {
    Status.WAITING: "·",
    Status.RUNNING: "▸",
    Status.DONE: "✓",
    Status.FAILED: "✗",
    Status.BLOCKED: "‖",
    Status.SKIPPED: "–",
    CUT: "≀",
    UNREACHED: "·",
}
STYLES: Mapping[str, str] = {
    Status.WAITING: "dim",
    Status.RUNNING: "bold yellow",
    Status.DONE: "cyan",
    Status.FAILED: "bold red",
    Status.BLOCKED: "bold magenta",
    Status.SKIPPED: "dim",
    CUT: "bold red",
    UNREACHED: "dim",
}
OUTCOME_MARKS: Mapping[str, str] = {
    "converged": Status.DONE,
    "running": Status.RUNNING,
    "failed": Status.FAILED,
    "blocked": Status.BLOCKED,
    "interrupted": Status.SKIPPED,
}
"""Which state's symbol and colour an outcome wears; any other outcome wears `CUT`."""

CRITICAL = "◆"

_DOING: Mapping[str, str] = {
    "image": "sending its image",
    "retire": "putting the old one away",
    "put away": "putting an older copy away",
    "discard": "clearing an interrupted build",
    "disk": "making its disk",
    "seed": "writing its seed",
    "define": "defining it",
    "start": "starting",
    "ready": "booting",
    "restore": "restoring the database",
    "index": "building the search index",
    "journey": "walking as a shopper",
    "inspect": "reading what a dead copy holds",
    "run": "running the playbook's command",
    "ask": "waiting for a person's answer",
    "fence": "cutting its power",
    "rehearse": "cutting its power, and restoring it",
    "power-on": "switching it on",
    "confirm": "asking what can be asked",
}

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[ -/]*[0-~])?|\x9b[0-?]*[ -/]*[@-~]")
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}

_ASCII = str.maketrans(
    {
        "·": ".", "▸": ">", "✓": "+", "✗": "x", "‖": "!", "–": "-", "—": "-", "…": "~", "→": ">", "◆": "*", "━": "=",
        "╸": "-", "─": "-", "├": "|", "└": "`", "│": "|", "≀": "?", "×": "x", "’": "'", "█": "#", "░": ".", "≈": "~",
    }
)  # fmt: skip


def clean(text: str) -> str:
    """Outside text made safe to show: lines kept, escapes, controls and direction marks gone."""
    text = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " "))
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in _UNSEEN)


def one_line(text: str) -> str:
    """`clean`, on a single line."""
    return " ".join(clean(text).split())


def plain_ascii(text: str) -> str:
    """For terminals that cannot write more: accents dropped, symbols replaced."""
    return unicodedata.normalize("NFKD", text.translate(_ASCII)).encode("ascii", "ignore").decode()


class Folded:
    """A renderable that becomes plain ASCII where the console's encoding has no more."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        segments = console.render(self.inner, options)
        if not options.ascii_only:
            yield from segments
            return
        for text, style, control in segments:
            yield Segment(plain_ascii(text), style, control)


class Whole:
    """A table as wide as it is: nothing in it is cut or folded, also in a pipe. To be printed with `soft_wrap`."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = Measurement.get(console, options.update(width=_WIDE), self.table).maximum
        yield from console.render(self.table, options.update(width=width, no_wrap=True))


_WIDE = 10_000


def _sound(seconds: float | None) -> float:
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else 0.0


def clock(seconds: float | None) -> str:
    """A running time: `0:42`, `12:03`, `1:02:03`."""
    minutes, rest = divmod(int(_sound(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(seconds: float | None) -> str:
    """A measured time: `88 ms`, `14.2 s`, `1 min 42 s`, `2 h 05 min`; `-` for none."""
    if seconds is None:
        return "-"
    seconds = _sound(seconds)
    if round(seconds, 3) < 1:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def stamp(seconds: float) -> str:
    """A log line's time since the run's start: `+00:42.3`."""
    minutes, tenths = divmod(math.floor(_sound(seconds) * 10), 600)
    return f"+{minutes:02}:{tenths // 10:02}.{tenths % 10}"


def moment(at: datetime | str, now: datetime) -> str:
    """A date, short and whole: `Nov 27 22:31 Z`, with its year when it is long ago; text that is no date as it is."""
    try:
        at = datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        return one_line(str(at)) or "-"
    at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    year = f" {at.year}" if abs(now - at).days > _YEAR_DAYS else ""
    return f"{_MONTHS[at.month - 1]} {at.day}{year} {at:%H:%M} Z"


def aged(at: datetime | str, now: datetime) -> str:
    """The same, and how long ago that is: `Nov 27 22:31 Z, 3 h ago`."""
    shown = moment(at, now)
    if not shown.endswith(" Z"):
        return shown
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    seconds = (now - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds()
    size, unit = next((size, unit) for size, unit in _AGES if abs(seconds) >= 2 * size or size == 1)
    amount = int(abs(seconds) / size)
    return f"{shown}, {amount} {unit} ago" if seconds >= 0 else f"{shown}, in {amount} {unit}"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_YEAR_DAYS = 300
_AGES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
"""Seconds in one; an age is counted in a unit from two of it on."""


def rough(seconds: float) -> str:
    """A forecast, no more precise than it is: `under 10 s`, `about 40 s`, `about 3 min`."""
    seconds = _sound(seconds)
    if seconds < 10:
        return "under 10 s"
    return f"about {math.ceil(seconds / 10) * 10} s" if seconds <= 90 else f"about {round(seconds / 60)} min"


def _scaled(value: float) -> tuple[float, str]:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return size, unit
    return 1.0, "B"


def size(count: float) -> str:
    """Bytes, in decimal units: `1.2 GB`."""
    divisor, unit = _scaled(_sound(count))
    shown = _sound(count) / divisor
    return f"{shown:.1f} {unit}" if divisor > 1 and shown < 100 else f"{shown:.0f} {unit}"


def fraction(progress: StepProgress | None) -> float | None:
    """How much of it is done, 0 to 1; `None` when that is unknown, or when it only counts seconds."""
    if progress is None or progress.unit == "s" or not _sound(progress.total):
        return None
    return min(1.0, _sound(progress.done) / progress.total)


def amount(progress: StepProgress | None) -> str:
    """`122/200 MB`, `3/7 checks`, `12.5 MB`, or nothing to tell."""
    if progress is None or not (_sound(progress.done) or _sound(progress.total)):
        return ""
    done, total, unit = _sound(progress.done), _sound(progress.total), one_line(progress.unit)
    if unit == "s":
        return f"limit {clock(total)}" if total else ""
    if unit in ("B", "bytes"):
        divisor, name = _scaled(total or done)
        return f"{done / divisor:.0f}/{total / divisor:.0f} {name}" if total else size(done)
    return f"{done:.0f}/{total:.0f} {unit}".rstrip() if total else f"{done:.0f} {unit}".rstrip()


def doing_of(action: str) -> str:
    """What an action does, in words; an action without words is its own."""
    return _DOING.get(action, one_line(action))


def doing(step: StepInfo, progress: StepProgress | None = None) -> str:
    """What a running step is at, for a person: `booting: no answer on port 80`.

    A step's own words replace these when they say more than a word such as `copying` does.
    """
    words = doing_of(step.action) or one_line(step.key)
    said = one_line(progress.doing) if progress else ""
    if said.startswith("waiting: "):
        return f"{words}: {said.removeprefix('waiting: ')}"
    return said if " " in said else words


@cache
def _split(name: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.*?)([0-9]{1,9})", name)
    return (match[1], int(match[2])) if match else (name, None)


def names(many: Iterable[str]) -> str:
    """`fe-1..fe-12 lb-1`: a list as short as it goes, in natural order."""
    runs: list[list[str]] = []
    for name in sorted(set(many), key=lambda n: (_split(n)[0], _split(n)[1] or 0, n)):
        prefix, number = _split(name)
        if runs and number is not None and _split(runs[-1][-1]) == (prefix, number - 1):
            runs[-1].append(name)
        else:
            runs.append([name])
    return " ".join(f"{run[0]}..{run[-1]}" if len(run) > 2 else " ".join(run) for run in runs)


def status_of(statuses: Sequence[str]) -> str:
    """The state of several steps together: the worst, else the liveliest."""
    for worst in (CUT, Status.FAILED, Status.BLOCKED, Status.RUNNING):
        if worst in statuses:
            return worst
    if all(status == Status.DONE for status in statuses):
        return Status.DONE
    for left in (Status.SKIPPED, UNREACHED):
        if left in statuses:
            return left
    return Status.WAITING
