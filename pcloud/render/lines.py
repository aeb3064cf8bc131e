"""The faces that write lines: a log for people and grep, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.text import Text

from pcloud.events import (
    Event,
    Interrupted,
    JourneyStepPassed,
    RunFinished,
    RunStarted,
    RunState,
    StepBlocked,
    StepDone,
    StepFailed,
    StepProgress,
    StepSkipped,
    StepStarted,
    to_json,
)
from pcloud.render.words import (
    CUT,
    OUTCOME_MARKS,
    STYLES,
    Folded,
    amount,
    clean,
    doing,
    fraction,
    one_line,
    span,
    stamp,
)
from pcloud.timing import journey_s

PROGRESS_EVERY_S = 10.0
_WORD_WIDTH = 9
_KEY_WIDTH = 28

Line = tuple[str, str, str]
"""word, step key, text"""

_LOUD = {"failed": "failed", "blocked": "blocked", "done": "done", "skipped": "skipped", "start": "running"}


class LogFace:
    """One line an event: `+00:42.3  done      h3/fe-1/start   14.2 s`. Nothing is wrapped or cut."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: dict[str, float] = {}
        self._gone = False

    def show(self, state: RunState, event: Event) -> None:
        for word, key, text in self._lines(state, event):
            self._write(event.at, word, key, text)

    def pause(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        pass

    def _write(self, at: float, word: str, key: str, text: str) -> None:
        if self._gone:
            return
        line = Text()
        line.append(f"{stamp(at):<10}", "dim").append(f"{word:<{_WORD_WIDTH}} ", _style(word))
        line.append(f"{one_line(key):<{_KEY_WIDTH}} {clean(text)}".replace("\n", " ").rstrip())
        try:
            self._console.print(Folded(line), soft_wrap=True)
        except (OSError, SystemExit):  # nobody reads any more (rich exits on a broken pipe): the run goes on
            self._gone = True

    def _lines(self, state: RunState, event: Event) -> Iterator[Line]:
        match event:
            case StepProgress():
                yield from self._progress(state, event)
            case RunStarted() | Interrupted() | RunFinished():
                yield from _run_lines(state, event)
            case StepFailed() | StepBlocked():
                yield from _problem(event)
            case _:
                yield _step_line(state, event)

    def _progress(self, state: RunState, event: StepProgress) -> Iterator[Line]:
        last = self._told.get(event.step, state.steps[event.step].started_at or 0.0)
        if event.at - last < PROGRESS_EVERY_S:
            return
        self._told[event.step] = event.at
        share = fraction(event)
        parts = [doing(state.steps[event.step].info, event), f"{share:.0%}" if share is not None else "", amount(event)]
        yield "progress", event.step, "  ".join(part for part in parts if part)


def _run_lines(state: RunState, event: RunStarted | Interrupted | RunFinished) -> Iterator[Line]:
    match event:
        case RunStarted():
            yield "run", event.run, f"{event.operation} {event.site}: {len(event.steps)} steps"
            for server, why in event.kept.items():
                yield "kept", server, one_line(why)
        case Interrupted():
            yield "stopping", "", "nothing new starts; what runs may end"
        case RunFinished():
            journey = journey_s(state)
            walked = f", first full journey after {span(journey)}" if journey is not None else ""
            yield event.outcome, state.started.run, f"after {span(event.at)}{walked}"


def _step_line(state: RunState, event: StepStarted | JourneyStepPassed | StepDone | StepSkipped) -> Line:
    step = state.steps[event.step]
    match event:
        case StepStarted():
            return (
                "start",
                event.step,
                doing(step.info) + (f" ({one_line(step.info.reason)})" if step.info.reason else ""),
            )
        case JourneyStepPassed():
            return "shopper", event.step, f"{one_line(event.visit)} {span(event.elapsed_s)}"
        case StepDone():
            facts = " ".join(f"{one_line(name)}={one_line(str(value))}" for name, value in event.facts.items())
            return "done" if event.changed else "same", event.step, f"{span(step.seconds)}  {facts}"
        case StepSkipped():
            return "skipped", event.step, f"because of {one_line(event.because)}"


def _style(word: str) -> str:
    return STYLES.get(_LOUD.get(word, ""), STYLES[OUTCOME_MARKS.get(word, CUT)] if word in OUTCOME_MARKS else "")


def _problem(event: StepFailed | StepBlocked) -> Iterator[Line]:
    word = "failed" if isinstance(event, StepFailed) else "blocked"
    for line in clean(event.what).splitlines() or [""]:
        yield word, event.step, line
    for name, text in (("where", event.where), ("next", event.next)):
        if text:
            yield word, event.step, f"{name}: {one_line(text)}"


class JsonFace:
    """The journal's own lines, as they come."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._gone = False

    def show(self, state: RunState, event: Event) -> None:  # noqa: ARG002
        if self._gone:
            return
        line = to_json(event).encode("utf-8", "replace").decode()
        if not (self._console.encoding or "").lower().startswith("utf"):
            line = json.dumps(json.loads(line), separators=(",", ":"))
        try:
            self._console.file.write(line + "\n")
            self._console.file.flush()
        except OSError:  # nobody reads any more: the run goes on
            self._gone = True

    def pause(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        pass
