"""The live face: one calm picture at the bottom of a terminal, drawn anew only when it changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pcloud.clock import Clock, SystemClock
from pcloud.events import Event, RunState
from pcloud.render.frame import frame
from pcloud.render.words import Folded

_TICK_S = 0.25
"""Between two looks at the clock. The picture shows whole seconds, so it is drawn once a second
when nothing happens, and at most this often when much does."""


class LiveFace:
    """Events only change what is to be drawn; a thread of its own draws."""

    def __init__(
        self, console: Console, durations: Mapping[str, float] | None = None, clock: Clock | None = None
    ) -> None:
        self._console = console
        self._durations = durations
        self._clock = clock or SystemClock()
        self._seen: tuple[RunState, float] | None = None
        self._drawn: list[Text] = []
        self._gone = False
        self._paused = False
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._live = self._new_live()
        self._ticker: threading.Thread | None = None

    def _new_live(self) -> Live:
        return Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def show(self, state: RunState, event: Event) -> None:  # noqa: ARG002
        self._seen = (state, self._clock.now())
        if self._ticker is None and not self._stop.is_set():
            self._draw()
            self._ticker = threading.Thread(target=self._tick, name="pcloud-live-face", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        while not self._stop.wait(_TICK_S):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._seen is None or self._gone or self._paused:
                return
            state, seen_at = self._seen
            size = self._console.size
            now = state.at + self._clock.now() - seen_at
            lines = frame(state, now, size.width, size.height, self._durations)
            if lines == self._drawn and self._live.is_started:
                return
            self._drawn = lines
            try:
                self._live.start()
                self._live.update(Folded(Group(*lines)), refresh=True)
            except (OSError, SystemExit):  # the terminal went away (rich exits on a broken pipe): the run goes on
                self._gone = True

    @contextmanager
    def pause(self) -> Iterator[None]:
        """The picture makes room for a question, and comes back after it."""
        with self._lock:
            self._paused = True  # not the lock itself: a question may stay unanswered for good
            self._live.transient = True
            self._finish()
        try:
            yield
        finally:
            with self._lock:
                self._live, self._paused = self._new_live(), False
            self._draw()

    def close(self) -> None:
        """Leaves the last picture in the scrollback."""
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join(timeout=5)
        self._draw()
        with self._lock:
            self._finish()
            self._gone = True

    def _finish(self) -> None:
        try:
            self._live.stop()
        except (OSError, SystemExit):
            self._gone = True
