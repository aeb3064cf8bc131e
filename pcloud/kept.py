"""What hosts keep of a site's database: frozen facts. Times are ISO 8601 in UTC (`2026-11-26T06:50:19Z`), so that
they compare as texts; positions are GTID lists as MariaDB writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pcloud.gtid import merge, newest_domain, parse_gtids

FOREVER_MS = 2**31 - 1
"""A commit that waits this long for a replica (24 days) waits for a person."""


@dataclass(frozen=True)
class Timeline:
    """A branch of the data, from a promotion or a restore to the next one: a row of `pcloud.timelines`."""

    domain: int
    """MariaDB's GTID domain of all that is written in it; later timelines have higher ones."""
    parent: int
    branched: str
    """The position at which it left its parent."""
    server: str = ""
    why: str = ""
    """Why it began, and what was given up."""
    began: str = ""


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
    timelines: tuple[Timeline, ...] = ()
    """The rows of `pcloud.timelines` in it, without their reasons."""
    data: int = 0
    """How many bytes the data have that are made of it; 0 where that was not measured."""

    @property
    def timeline(self) -> int:
        """The domain of the newest timeline of its data, which may have no transaction yet."""
        return max((newest_domain(self.position), *(t.domain for t in self.timelines)))


@dataclass(frozen=True)
class Proof:
    """A backup that was replayed up to a position, and compared with what the replica had there."""

    id: str
    """The backup's."""
    position: str
    at: str
    """When."""
    server: str
    """The replica."""
    tables: int
    rows: int
    took_s: int
    wrong: tuple[str, ...] = ()
    """What differed, a clause each."""


@dataclass(frozen=True)
class Run:
    """Transactions of one GTID domain that follow each other, none missing, as the events in the files say."""

    first: str
    last: str
    began: str
    """When the transaction `first` was committed, by its primary's clock."""
    ended: str
    start: str = ""
    """What the file that `first` is in says that it begins after."""

    @property
    def domain(self) -> int:
        return newest_domain(self.last)

    @property
    def numbers(self) -> tuple[int, int]:
        """The sequence numbers of the first and the last."""
        return parse_gtids(self.first)[self.domain], parse_gtids(self.last)[self.domain]


@dataclass(frozen=True)
class Stretch:
    """The binary log as one connection brought it."""

    line: str
    session: str
    start: str
    """What its first file says that it begins after: a claim, which a server that was made anew may get wrong."""
    runs: tuple[Run, ...] = ()
    """What is in it."""

    @property
    def end(self) -> str:
        """The position at its end, where its claim is true."""
        return merge(self.start, ",".join(run.last for run in self.runs))

    @property
    def ended(self) -> str:
        """When its last transaction was committed; empty when it holds none."""
        return max((run.ended for run in self.runs), default="")


@dataclass(frozen=True)
class Shelf:
    """What one host keeps."""

    host: str
    backups: tuple[Backup, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    streaming: bool = False
    """It follows the primary's binary log at this moment."""
    session: str = ""
    """The session that it writes then."""
    damaged: tuple[str, ...] = ()
    """Backups whose file is missing or has another size than their manifest says."""
    proofs: tuple[Proof, ...] = ()


@dataclass(frozen=True)
class LastBackup:
    """What is remembered of the last backup, also where no host that keeps it answers."""

    id: str
    position: str
    """Its latest transaction; empty where only the hosts are known."""
    hosts: tuple[str, ...]


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
    one_clock: bool = False
    """Its age was measured where it was seen: no two clocks need to agree."""


NEVER_SEEN = Sighting()


@dataclass(frozen=True)
class Witnesses:
    """Who is asked until when the primary answered: servers that run, and hosts. `gone` are frontends that do not."""

    frontends: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    balancers: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Heard:
    """How many seconds ago the primary last answered others; who does not know it for certain is not in it."""

    frontends: Mapping[str, float] = field(default_factory=dict)
    """Every acknowledged order passed through one that had just got an answer."""
    unheard: tuple[str, ...] = ()
    """Frontends that do not say it."""
    balancers: Mapping[str, float] = field(default_factory=dict)
    """When one last passed on an answer that may have acknowledged an order."""
    keepers: Mapping[str, float] = field(default_factory=dict)
    """Hosts that stream its binary log. They hear it whether or not anybody can order."""

    def without(self, gone: Iterable[str]) -> Heard:
        """As if these servers and hosts had not been asked."""
        left = set(gone)
        frontends, balancers, keepers = (
            {n: age for n, age in said.items() if n not in left}
            for said in (self.frontends, self.balancers, self.keepers)
        )
        lost = tuple(n for n in self.frontends if n not in frontends)
        return Heard(frontends, (*self.unheard, *lost), balancers, keepers)


NOBODY_HEARD = Heard()
