"""What hosts keep of a site's database: frozen facts. Times are ISO 8601 in UTC (`2026-11-26T06:50:19Z`), so that
they compare as texts; positions are GTID lists as MariaDB writes them."""

from __future__ import annotations

from dataclasses import dataclass

FOREVER_MS = 2**31 - 1
"""A commit that waits this long for a replica (24 days) waits for a person."""


@dataclass(frozen=True)
class Backup:
    """A full backup that was proven good: its manifest."""

    id: str
    line: str
    """The token of the data's last restore: after another one the same positions mean other data."""
    position: str
    taken: str
    """By the primary's clock, which the binary log goes by: nothing in it is later."""
    size: int
    sha256: str
    server: str
    """Whose data it is a copy of."""
    version: str
    """The MariaDB that made it."""
    tables: int
    rows: int
    tested: str
    """When a MariaDB that was started from it read every table through."""


@dataclass(frozen=True)
class Stretch:
    """The binary log as one connection brought it: what comes after `start`, up to and with `end`."""

    line: str
    session: str
    start: str
    end: str
    ended: str
    """When the transaction `end` was committed; empty when the stretch holds none."""


@dataclass(frozen=True)
class Shelf:
    """What one host keeps."""

    host: str
    backups: tuple[Backup, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    streaming: bool = False
    """It follows the primary's binary log at this moment."""
    damaged: tuple[str, ...] = ()
    """Backups whose file is missing or has another size than their manifest says."""


@dataclass(frozen=True)
class Timeline:
    """A branch of the data, from a promotion or a restore to the next one: a row of `pcloud.timelines`."""

    domain: int
    """MariaDB's GTID domain of all that is written in it; later timelines have higher ones."""
    parent: int
    branched: str
    """The position at which it left its parent."""
    server: str
    why: str
    """Why it began, and what was given up."""


@dataclass(frozen=True)
class Target:
    """Where a restore stops: before the first transaction at `time`, with the one named `gtid`, or at the last one."""

    time: str = ""
    gtid: str = ""

    def __str__(self) -> str:
        return self.gtid or self.time or "the last transaction kept"


LATEST = Target()


@dataclass(frozen=True)
class Sighting:
    """The primary as somebody saw it last (`sightings.py`). `age_s` is how long ago, in seconds.

    `waits_ms` is how long a commit waited for a replica then before it went on alone: its semi-sync
    time-out while that was on, -1 while it waited for none.
    """

    position: str = ""
    age_s: float = 0.0
    waits_ms: int = -1
    answers: bool = False
    """It answers still: a person leaves it."""


NEVER_SEEN = Sighting()
