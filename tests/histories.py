"""A model of two data servers through a long life: what orders are acknowledged, where they are, who heard what.

Nothing of pcloud runs here but the judge of a loss: the model says what is true, `pcloud.loss.measure`
says what it can know of that. Times are in seconds; a recorder on a server is up to two seconds behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from pcloud.gtid import given_up
from pcloud.kept import NEVER_SEEN, Sighting
from pcloud.loss import DataLoss, latest_of, measure
from pcloud.observed import SeenDatabase
from pcloud.timelines import STEP

EPOCH = 1_353_100_000.0


@dataclass
class Copy:
    """One server's data. `past` and `domain` are its timelines, `orders` what it holds, in order."""

    name: str
    orders: list[int] = field(default_factory=list)
    past: dict[int, int] = field(default_factory=dict)
    domain: int = STEP
    sequence: int = 0
    connected: bool = True
    heard: float | None = None
    acked: bool = False

    @property
    def position(self) -> str:
        return ",".join(f"{d}-1-{n}" for d, n in {**self.past, self.domain: self.sequence}.items() if n)

    def follow(self, source: Copy) -> None:
        self.orders, self.past = list(source.orders), dict(source.past)
        self.domain, self.sequence = source.domain, source.sequence


@dataclass
class History:
    """`timeout_s`: how long a commit waits for the replica; `acknowledged`: order to when a shopper was told."""

    timeout_s: float
    now: float = 0.0
    primary: Copy = field(default_factory=lambda: Copy("db-1"))
    replica: Copy = field(default_factory=lambda: Copy("idx-1"))
    waits: bool = True
    alone: bool = False
    pending: tuple[int, float] | None = None
    acknowledged: dict[int, float] = field(default_factory=dict)
    answered: float = 0.0
    sighting: tuple[Sighting, float] = (NEVER_SEEN, 0.0)
    agreed: set[int] = field(default_factory=set)
    """Orders that a person gave up."""

    def pass_time(self, seconds: float) -> None:
        """The shop is looked at all the while, and a commit that has waited long enough goes on alone."""
        until = self.now + seconds
        if self.pending is not None and self.pending[1] + self.timeout_s <= until and not self.replica.connected:
            order, since = self.pending
            self.now, self.alone, self.pending = since + self.timeout_s, True, None
            self.acknowledge(order)
        self.now = max(until, self.now)
        self.answered = self.now
        self._hear(0.0)

    def order(self, lag_s: float) -> None:
        if self.pending is not None:
            return
        order = len(self.acknowledged) + len(self.agreed) + 1_000 * (self.primary.domain // STEP)
        self.primary.sequence += 1
        self.primary.orders.append(order)
        if self.replica.connected:
            self._hear(lag_s)
            self.acknowledge(order)
        elif self.waits and not self.alone:
            self.pending = order, self.now
        else:
            self.acknowledge(order)

    def acknowledge(self, order: int) -> None:
        self.acknowledged[order] = self.now
        self.answered = self.now

    def _hear(self, lag_s: float) -> None:
        if self.replica.connected:
            self.replica.follow(self.primary)
            self.replica.heard, self.replica.acked = self.now - lag_s, self.waits

    def cut(self) -> None:
        self.replica.connected = False

    def mend(self, lag_s: float) -> None:
        """It catches up; a commit that waited for it is acknowledged."""
        self.replica.connected, self.alone = True, False
        self._hear(lag_s)
        if self.pending is not None:
            order, self.pending = self.pending[0], None
            self.acknowledge(order)

    def look(self) -> None:
        """Any run, or `pcloud status`."""
        waits_ms = round(self.timeout_s * 1000) if self.waits and not self.alone else -1
        self.sighting = Sighting(self.primary.position, 0.0, waits_ms), self.now

    def set_policy(self, timeout_s: float) -> None:
        """The inventory's policy is changed, and applied by a run."""
        self.timeout_s = timeout_s
        self.look()

    def restart(self) -> None:
        """The primary's MariaDB is restarted: commits wait as before, from its first one on."""
        self.alone, self.pending = False, None

    def switch_waiting(self, on: bool) -> None:
        """As pcloud does it: noted before the first commit that does not wait.

        A person's own SET GLOBAL that no run and no `status` saw afterwards cannot be known of.
        """
        self.waits = on
        self.look()
        if not on and self.pending is not None:
            order, self.pending = self.pending[0], None
            self.acknowledge(order)

    def seen(self) -> SeenDatabase:
        copy = self.replica
        silent_s = None if copy.heard is None else self.now - copy.heard
        at = (
            "" if copy.heard is None else datetime.fromtimestamp(EPOCH + copy.heard, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        )
        return SeenDatabase(
            False, copy.position, copy.position, "10.0.0.60", restored="t", timeline=copy.domain,
            heard_s=silent_s, heard_at=at, acknowledges=copy.acked,
        )  # fmt: skip

    def lose_primary(self, later_s: float) -> DataLoss:
        """It dies now; somebody looks later."""
        self.pending = None
        died, self.now = self.now, self.now + later_s
        known = Sighting(self.sighting[0].position, self.now - self.sighting[1], self.sighting[0].waits_ms)
        return measure(self.seen(), known, {"fe-1": self.now - min(died, self.answered)})

    def missing(self) -> dict[int, float]:
        """Acknowledged orders that the replica lacks and nobody agreed to lose, and when they were (epoch)."""
        held = set(self.replica.orders) | self.agreed
        return {n: EPOCH + at for n, at in self.acknowledged.items() if n not in held}

    def promote(self) -> None:
        """The replica is the primary, on a timeline of its own; the other one is a fresh copy of it."""
        self.agreed |= set(self.missing())
        new = self.replica
        new.past[new.domain], new.domain, new.sequence = new.sequence, new.domain + STEP, 1
        self.primary, self.replica = new, Copy(self.primary.name)
        self.waits, self.alone, self.pending = True, False, None
        self._hear(0.0)
        self.look()
        assert given_up(latest_of(self.seen()), self.sighting[0].position) == 0
