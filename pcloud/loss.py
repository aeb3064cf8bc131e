"""What a promotion gives up: measured from what the replica, the frontends and earlier runs heard of the primary.

An order counts as lost when a shopper was told that it stands and the new primary does not have it.
Three things are known of that, each measured and none assumed:

- the replica: until when it was level with its primary, and whether it acknowledged what it received
  (`pcloud.heard`, written there every two seconds). While it did, the primary answered no shopper
  before the replica had his order; once it fell silent the primary waited its semi-sync time-out;
- the frontends: when the last of them got an answer from the database's address. Every acknowledged
  order passed through one of them, so nothing was acknowledged after that. Where one of them does not
  say it, the primary may have gone on with that one for as long as a host heard it that keeps its
  binary log. Where none does, the balancer says when it last passed on what may acknowledge an order;
- the last position that any run, status or keeper saw, with the time-out that was in force (`sightings.py`).

A primary that died is thereby told from one that only the replica had lost. That a keeper heard nothing
proves nothing: it may have been cut off with the replica.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pcloud.desired import Desired
from pcloud.gtid import behind, given_up, newest_domain, rank
from pcloud.kept import FOREVER_MS, Heard, Sighting, Witnesses
from pcloud.observed import SeenDatabase

UNKNOWN = "unknown"
"""What a person accepts when a loss cannot be counted (`--accept-loss unknown`)."""
MARGIN_S = 3.0
"""The recorders on the servers look every two seconds."""


@dataclass(frozen=True)
class DataLoss:
    """`transactions`: 0 for none, None where they cannot be counted; at least `least` then.

    `seconds` is the time in which a counted loss was written, `since` (ISO 8601, UTC) when the
    replica last heard its primary; empty when it never said so.
    """

    transactions: int | None = 0
    seconds: float = 0.0
    since: str = ""
    least: int = 0
    why: str = ""

    @property
    def none(self) -> bool:
        return self.transactions == 0

    @property
    def price(self) -> str:
        """What a person accepts who accepts this loss: a number, or `unknown`."""
        return UNKNOWN if self.transactions is None else str(self.transactions)

    def accepted(self, price: str) -> bool:
        """Whether who accepts `price` (empty for nothing) accepts this loss."""
        if self.none or price == UNKNOWN:
            return True
        return self.transactions is not None and price.isdigit() and self.transactions <= int(price)

    def __str__(self) -> str:
        why = f": {self.why}" if self.why else ""
        if self.none:
            return f"no acknowledged order is lost{why}"
        if self.transactions is not None:
            return f"up to {self.transactions} transactions of the last {self.seconds:.0f} s are lost{why}"
        least = f", at least {self.least} transactions" if self.least else ""
        return f"how much is lost is unknown, since {self.since or 'a time that nobody knows'}{least}{why}"


def measure(seen: SeenDatabase, known: Sighting, heard: Heard) -> DataLoss:
    """What is given up if `seen`, a replica whose primary is gone, becomes the primary.

    `known` is the last that was seen of the primary, `heard` says until when it answered others.
    """
    lacks = given_up(latest_of(seen), known.position, seen.timeline)
    if newest_domain(known.position) < seen.timeline and not known.answers:
        known = replace(known, waits_ms=-1)  # nobody saw its primary since that took over
    if seen.stuck:  # since its error, which may be long ago
        left = behind(seen.position, latest_of(seen)) + lacks
        return DataLoss(None, least=left, why=f"it cannot apply what it received ({seen.stuck})")
    if dropped := behind(latest_of(seen), claimed(seen)):
        why = "its relay logs are damaged, and hold no more all that it received"
        return DataLoss(None, since=seen.heard_at, least=max(lacks, dropped), why=why)
    if known.answers:
        return _measure_leaving(seen, known, lacks)
    if (loss := _measure_end(seen, known, heard, lacks)) is not None:
        return loss
    if lacks:
        return DataLoss(None, since=seen.heard_at, least=lacks)
    if seen.heard_s is None:
        return DataLoss(None, why="the replica does not say when it last heard its primary")
    if seen.acknowledges is False or (seen.acknowledges is None and known.waits_ms < 0):
        return DataLoss(None, since=seen.heard_at, why="the primary did not wait for it")
    if known.waits_ms >= FOREVER_MS:
        return DataLoss(0, why="commits waited for the replica, for as long as it took")
    return _compare(seen, known, heard)


def _measure_end(seen: SeenDatabase, known: Sighting, heard: Heard, lacks: int) -> DataLoss | None:
    """Of a primary that was seen after its last answer, nothing that came later counts; None where it was not."""
    if known.age_s > (last_answer(heard) or 0.0) - MARGIN_S:
        return None
    if lacks:
        return DataLoss(lacks, max(seen.heard_s or 0.0, known.age_s), why="the primary was seen at its end")
    newest = max(newest_domain(latest_of(seen)), seen.timeline)
    if known.one_clock and newest_domain(known.position) >= newest:
        return DataLoss(0, why="the primary was seen after its last answer, and had no more than this")
    return None


def witnesses_of(desired: Desired, up: Iterable[str], hosts: Iterable[str]) -> Witnesses:
    """Who can say until when the primary answered, of the servers that are `up` and of `hosts`."""
    running, expected = set(up), {s.name for s in desired.servers if s.role == "frontend"}
    there = [s for s in desired.everyone if s.name in running]
    frontends, balancers = (tuple(s.name for s in there if s.role == role) for role in ("frontend", "balancer"))
    return Witnesses(frontends, tuple(sorted(expected - running)), balancers, tuple(hosts))


def last_answer(heard: Heard) -> float | None:
    """How many seconds ago the primary may have answered whoever acknowledged an order; None where nobody can say."""
    answers = list((heard.frontends or heard.balancers).values())
    if heard.frontends and heard.unheard:
        answers += heard.keepers.values()
    return min(answers, default=None)


def latest_of(seen: SeenDatabase) -> str:
    """The latest transaction that it holds, or has received and can apply."""
    return max(seen.reach, seen.position, key=rank) if seen.reach else claimed(seen)


def claimed(seen: SeenDatabase) -> str:
    """The latest that it holds or says to have received, also before a restart: that is kept aside on its disk.

    What it heard of a timeline before its own came with a backup of its data.
    """
    heard = seen.heard_position if seen.source and newest_domain(seen.heard_position) >= seen.timeline else ""
    return max(seen.received, seen.position, heard, key=rank)


def _measure_leaving(seen: SeenDatabase, known: Sighting, lacks: int) -> DataLoss:
    if seen.replicating and known.waits_ms > 0:  # its primary may have been asked a moment later than it
        return DataLoss(0, why="it follows its primary, and commits wait for it")
    if lacks:
        return DataLoss(lacks, seen.heard_s or 0.0, why="its primary answers, and is ahead")
    return DataLoss(None, since=seen.heard_at, why="its primary answers, and commits do not wait for it")


def _compare(seen: SeenDatabase, known: Sighting, heard: Heard) -> DataLoss:
    """Whether the primary can have gone on alone: it waits its time-out first, and answers nobody meanwhile."""
    assert seen.heard_s is not None
    last = last_answer(heard)
    if last is None:
        return DataLoss(None, since=seen.heard_at, why=_unanswered(heard))
    alone_s = seen.heard_s - max(0, known.waits_ms) / 1000
    if last >= alone_s + MARGIN_S:
        last_heard = f"the replica heard the primary {seen.heard_s:.0f} s ago, and it answered last {last:.0f} s ago"
        return DataLoss(0, why=last_heard)
    went_on = f"the primary answered until {last:.0f} s ago, the replica last heard it {seen.heard_s:.0f} s ago"
    return DataLoss(None, since=seen.heard_at, why=went_on)


def _unanswered(heard: Heard) -> str:
    why = "no frontend says when the primary last answered"
    return f"{why}; hosts heard it until {min(heard.keepers.values()):.0f} s ago" if heard.keepers else why
