"""A person's word that a host has no power: kept in the journal, and for how long it counts.

`pcloud fence confirm` is a run of its own; its one step is the word. It counts for an hour, and
only until the host is heard of again: whoever reaches the host withdraws it, so that a plug
pulled and put back does not make a later silence look like a proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pcloud.errors import PcloudError
from pcloud.events import Status
from pcloud.journal import EVENTS, read_run
from pcloud.places import runs_dir

OPERATION = "fence-confirm"
COUNTS = timedelta(hours=1)
WITHDRAWN = "withdrawn"
"""A file beside the run's events: the host was heard of after the word was given."""


@dataclass(frozen=True)
class Confirmation:
    """`at`: when the word was given, in UTC. `folder`: that run's."""

    host: str
    at: datetime
    folder: Path

    def __str__(self) -> str:
        return f"you, at {self.at.astimezone():%H:%M}"


def step_key(host: str) -> str:
    """The key of the step that holds the word about this host."""
    return f"{host}/confirm"


def find_confirmation(site: str, host: str, now: datetime) -> Confirmation | None:
    """The newest word about this host that still counts."""
    return next(_counting(site, host, now), None)


def withdraw(site: str, host: str, now: datetime) -> None:
    """The host was heard of: no word about it counts any longer."""
    for confirmation in _counting(site, host, now):
        (confirmation.folder / WITHDRAWN).touch(mode=0o600)


def _counting(site: str, host: str, now: datetime) -> Iterator[Confirmation]:
    """Newest first. A journal that is damaged says nothing."""
    for path in sorted(runs_dir(site).glob(f"*-{OPERATION}/{EVENTS}"), reverse=True):
        if (path.parent / WITHDRAWN).exists():
            continue
        with suppress(PcloudError, ValueError):
            state = read_run(path, progress=False)
            step = state.steps.get(step_key(host))
            at = datetime.fromisoformat(state.started.date)
            if step is not None and step.status is Status.DONE and step.changed and timedelta(0) <= now - at < COUNTS:
                yield Confirmation(host, at, path.parent)
