"""What shows a run while it runs, and which one fits where the output goes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from rich.console import Console

from pcloud.events import Event, RunState
from pcloud.render.lines import JsonFace, LogFace
from pcloud.render.live import LiveFace


class Face(Protocol):
    """Shows each event, after it is in the journal. Never raises because nobody looks any more."""

    def show(self, state: RunState, event: Event) -> None:
        """`state` is the run's state with `event` in it."""
        ...

    def pause(self) -> AbstractContextManager[None]:
        """Draws nothing inside: a person is asked something."""
        ...

    def close(self) -> None: ...


def choose_face(json: bool, console: Console, durations: Mapping[str, float] | None = None) -> Face:
    """JSON lines when asked for, a picture on a terminal, a log everywhere else.

    `durations` (`timing.durations_from` of past runs) let the picture tell how long is left.
    """
    if json:
        return JsonFace(console)
    if console.is_terminal and console.is_interactive and not console.is_dumb_terminal:
        return LiveFace(console, durations)
    return LogFace(console)
