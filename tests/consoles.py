"""Consoles that remember what was written to them, and what no face may write."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime

from rich.console import Console, RenderableType

from pcloud.events import Event, RunState, advance, begin, fold
from pcloud.render.faces import Face

UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


class Ticking:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def wall(self) -> datetime:
        return datetime(2025, 3, 1, tzinfo=UTC)

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def new_console(*, terminal: bool = False, encoding: str = "utf-8", width: int = 80, height: int = 24) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    environment = {"TERM": "xterm-256color"}
    return Console(file=file, force_terminal=terminal, width=width, height=height, _environ=environment)


def written(console: Console) -> str:
    assert isinstance(console.file, io.TextIOWrapper)
    raw = console.file.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode(console.file.encoding)


def shown_by(renderable: RenderableType, *, encoding: str = "utf-8", width: int = 80) -> str:
    console = new_console(encoding=encoding, width=width)
    console.print(renderable)
    return written(console)


def shown_whole(renderable: RenderableType, *, width: int = 80) -> str:
    """As a list is printed."""
    console = new_console(width=width)
    console.print(renderable, soft_wrap=True)
    return written(console)


def play(face: Face, events: list[Event]) -> RunState:
    state = begin(events[0])
    face.show(state, events[0])
    for event in events[1:]:
        state = advance(state, event)
        face.show(state, event)
    face.close()
    return state


def until(events: list[Event], seconds: float) -> RunState:
    return fold([event for event in events if event.at <= seconds])
