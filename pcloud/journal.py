"""What runs leave on disk: `sites/SITE/runs/RUN/events.jsonl`, one fsynced event a line.

A run that was killed leaves at most one torn line, the last: it is dropped when the file is
read. Damage anywhere else is an error that names the line, never a guess. One operation a
site at a time holds `sites/SITE/lock` with flock(2), which dies with its process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

from pydantic import TypeAdapter

from pcloud.clock import Clock, Deadline, SystemClock
from pcloud.errors import BadInput, Blocked, PcloudError
from pcloud.events import Event, IllegalTransition, RunStarted, RunState, advance, begin, from_json, to_json
from pcloud.files import make_own_folder
from pcloud.kept import NEVER_SEEN, LastBackup, Sighting
from pcloud.places import runs_dir, site_dir
from pcloud.timing import journey_s

EVENTS = "events.jsonl"
RUNNING = "running"
KILLED = "interrupted (killed)"
DAMAGED = "damaged"

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_PROGRESS = b'{"event":"StepProgress"'
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in get_args(Event)}
POSITIONS = 10
"""How many runs back a position of the database is looked for."""

_LOCK_PATIENCE_S = 0.5
"""A reader that asks who holds the lock holds it for microseconds: a run waits that out."""


def new_run_id(runs_dir: Path, date: datetime, operation: str) -> str:
    """`20250301-031502-recover`: sorts by date (UTC), and says what it was. The second one of a second ends in `-2`."""
    first = f"{date.astimezone(UTC):%Y%m%d-%H%M%S}-{operation}"
    names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not (runs_dir / name).exists())


class Journal:
    """A run's events, appended by one thread. Closed by `close()` or as a context manager."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def create(cls, runs_dir: Path, run_id: str) -> Journal:
        """A new, empty journal: folder 0700, file 0600. Raises `PcloudError`; a run id is used once."""
        if not _RUN_ID.fullmatch(run_id):
            raise BadInput(f"{run_id!r} cannot name a run", next="use letters, digits, `.`, `_` and `-`")
        folder = runs_dir / run_id
        try:
            runs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
            fd = os.open(folder / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            for parent in (folder, runs_dir):
                _sync_folder(parent)
        except FileExistsError as error:
            what = f"run {run_id} exists already: another one began in the same second"
            raise Blocked(what, where=str(folder), next="start it again") from error
        except OSError as error:
            raise _unwritable(folder, error) from error
        return cls(folder / EVENTS, fd)

    def append(self, *events: Event) -> None:
        """One line each, then one fsync. Raises `PcloudError`, and then leaves no half line."""
        data = "".join(f"{to_json(event)}\n" for event in events).encode("utf-8", "replace")
        before = os.fstat(self._fd).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, before)
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unwritable(path: Path, error: OSError) -> PcloudError:
    return PcloudError(
        f"the run's journal cannot be written: {error.strerror or error}",
        where=str(path),
        next="make room or fix the folder's rights, or set PCLOUD_HOME to another folder; then start again",
    )


def read_events(path: Path, *, progress: bool = True) -> list[Event]:
    """A journal's events, in order; without `StepProgress` when `progress` is false.

    A torn last line is dropped. Raises `PcloudError` naming `file:line` for other damage.
    """
    return [event for _, event in _numbered(path, progress)]


def _numbered(path: Path, progress: bool) -> Iterator[tuple[int, Event]]:
    try:
        lines = path.read_bytes().split(b"\n")  # not splitlines(): JSON may hold U+2028, U+0085
    except OSError as error:
        raise PcloudError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not progress and line.startswith(_PROGRESS):
            continue
        try:
            event = _event(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise _damaged(path, number, str(error)) from error
        yield number, event


def _event(line: bytes) -> Event:
    """Like `from_json`, and every field is of its type. Raises `ValueError`."""
    event = from_json(line.decode("utf-8"))
    checked: Event = _ADAPTERS[type(event)].validate_python(asdict(event))
    return checked


def _damaged(path: Path, line: int, why: str) -> PcloudError:
    return PcloudError(
        f"the journal is damaged: {why}",
        where=f"{path}:{line}",
        next="the hosts know what exists: start the operation again; this file is only the record of one run",
    )


def read_run(path: Path, *, progress: bool = True) -> RunState:
    """The state a journal tells of. Raises `PcloudError` for damage, and for a journal with no event."""
    state: RunState | None = None
    for number, event in _numbered(path, progress):
        try:
            state = advance(state, event) if state else begin(event)
        except IllegalTransition as error:
            raise _damaged(path, number, str(error)) from error
    if state is None:
        raise PcloudError("the run was killed before its first event", where=str(path), next="start it again")
    return state


def sites() -> tuple[str, ...]:
    """The sites that have runs here, by name."""
    home = site_dir("any").parent
    return tuple(sorted(folder.parent.name for folder in home.glob("*/runs") if folder.is_dir()))


def _journals(site: str) -> list[tuple[str, Path]]:
    """`(date, events.jsonl)` of the site's runs that have begun, oldest first."""
    found: list[tuple[str, Path]] = []
    for path in runs_dir(site).glob(f"*/{EVENTS}"):
        with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
            first = _event(file.readline())
            if isinstance(first, RunStarted):
                found.append((first.date, path))
    return sorted(found)


def find_run(site: str, run_id: str | None = None) -> Path:
    """A run's `events.jsonl`: the named one, else the one that began last. Raises `BadInput`."""
    if run_id is not None:
        path = runs_dir(site) / run_id / EVENTS
        if _RUN_ID.fullmatch(run_id) and path.is_file():
            return path
        raise BadInput(f"site {site} has no run {run_id}", next=f"pcloud runs {site}")
    journals = _journals(site)
    if not journals:
        raise BadInput(f"site {site} has no run on this machine yet", next=f"pcloud recover {site}")
    return journals[-1][1]


@dataclass(frozen=True)
class RunSummary:
    """One run in a list. `journey_s`: seconds from its start to the first full journey."""

    site: str
    run: str
    operation: str
    started: str
    outcome: str
    duration_s: float
    journey_s: float | None
    path: Path


def list_runs(site: str, limit: int | None = None, operation: str = "") -> list[RunSummary]:
    """The site's runs (the last `limit`, of an operation), oldest first; one that cannot be read is `damaged`."""
    held = find_holder(site)
    named = re.compile(rf".*-{re.escape(operation)}(-\d+)?")
    journals = [(d, p) for d, p in _journals(site) if not operation or named.fullmatch(p.parent.name)]
    return [_summary(site, date, path, held) for date, path in (journals[-limit:] if limit else journals)]


def _summary(site: str, date: str, path: Path, held: Holder | None) -> RunSummary:
    run = path.parent.name
    try:
        state = read_run(path, progress=False)
    except PcloudError:
        return RunSummary(site, run, "", date, DAMAGED, 0.0, None, path)
    return RunSummary(site, run, state.started.operation, date, outcome(state, held), state.at, journey_s(state), path)


def outcome(state: RunState, held: Holder | None) -> str:
    """How a run ended; without an end it goes on (its lock is `held`) or was killed."""
    if state.finished is not None:
        return state.finished.outcome
    return RUNNING if held is not None and held.run == state.started.run else KILLED


def find_position(site: str) -> Sighting:
    """The database's last position that a run recorded (a step's fact `position`), as old as the run's start."""
    for date, path in reversed(_journals(site)[-POSITIONS:]):
        with contextlib.suppress(PcloudError, ValueError):
            steps = read_run(path, progress=False).steps.values()
            found = [s.facts["position"] for s in steps if s.facts.get("position")]
            if found:
                began = datetime.fromisoformat(date)
                age_s = (datetime.now(UTC) - began).total_seconds()
                return Sighting(str(found[-1]), max(0.0, age_s))
    return NEVER_SEEN


def find_backup(site: str) -> LastBackup | None:
    """The backup that the last run that left one did (a step's facts `backup` and `position`, and its host)."""
    backups = [path for _, path in _journals(site) if path.parent.name.endswith("-backup")]
    for path in reversed(backups[-POSITIONS:]):
        with contextlib.suppress(PcloudError, ValueError):
            kept = [s for s in read_run(path, progress=False).steps.values() if s.facts.get("backup") and s.info.host]
            if kept:
                facts = kept[0].facts
                hosts = sorted({s.info.host for s in kept if s.info.host})
                return LastBackup(str(facts["backup"]), str(facts.get("position", "")), tuple(hosts))
    return None


@dataclass(frozen=True)
class Holder:
    """Who holds a site's lock. `since` is ISO 8601 UTC; `who` is user@machine."""

    pid: int
    run: str
    who: str
    since: str


class RunLock:
    """The right to change a site, from this machine: one process at a time.

    It keeps two runs of one operator's machine apart; what keeps two machines apart is the
    servers' generation. Use as a context manager, or `acquire` and `release`.
    """

    def __init__(self, site: str, run_id: str, clock: Clock | None = None) -> None:
        self.site = site
        self.run_id = run_id
        self._clock = clock or SystemClock()
        self._fd = -1

    def acquire(self) -> None:
        """Raises `Blocked`, naming the run that holds the lock."""
        path = _lock_path(self.site)
        make_own_folder(path.parent)
        fd = _open_lock(path, os.O_RDWR | os.O_CREAT)
        try:
            self._take(fd)
            mine = Holder(os.getpid(), self.run_id, _who(), self._clock.wall().isoformat(timespec="seconds"))
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(asdict(mine)).encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _take(self, fd: int) -> None:
        deadline = Deadline.after(_LOCK_PATIENCE_S, self._clock)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if deadline.passed():
                    raise _busy(self.site, _holder(fd)) from error
            self._clock.sleep(0.05)

    def release(self) -> None:
        """The file stays: removing it would let two runs lock two files of one name."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


def _lock_path(site: str) -> Path:
    return site_dir(site) / "lock"


def _open_lock(path: Path, flags: int) -> int:
    """Raises `BadInput` for a link: what it leads to would be emptied."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise BadInput("the lock is a link", where=str(path), next="see who made it, and remove it") from error


def _who() -> str:
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _holder(fd: int) -> Holder:
    try:
        return TypeAdapter(Holder).validate_json(os.pread(fd, 4096, 0))
    except ValueError:  # it has the lock and did not write its name yet
        return Holder(0, "", "", "")


def _busy(site: str, holder: Holder) -> Blocked:
    if not holder.pid:
        return Blocked(f"another run of site {site} is just starting", where=site, next=f"pcloud runs {site}")
    return Blocked(
        f"run {holder.run} of {holder.who} is at work on this site since {holder.since} (process {holder.pid})",
        where=site,
        next=f"let it end (pcloud report {site} {holder.run} shows how far it is), "
        f"or stop it with: kill -INT {holder.pid}; then start again",
    )


def find_holder(site: str) -> Holder | None:
    """Who works on the site from this machine right now."""
    try:
        fd = _open_lock(_lock_path(site), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.01)  # it may be between taking the lock and writing its name
        return _holder(fd)
    finally:
        os.close(fd)
    return None
