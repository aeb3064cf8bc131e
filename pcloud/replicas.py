"""Who is the database's primary, and who follows it: decided from what each server says of itself.

A carrier is a server that holds the shop's data: the database's own, and the one that carries the
replica. `resolve` is a pure function, in the manner of Patroni's quorum resolver: run again after
any interruption, it goes on.

Safety, as sentences:
- Two servers that accept writes are a person's business.
- One that accepts writes stays the primary, and is not made anew before another one has its role.
- One that comes back with its own disk says itself whether it is the primary.
- Nobody takes the role while a server that may have it is out of reach, or not asked yet.
- A copy is promoted only when every server that may know more is gone for good: on hosts proven
  off, or empty. What is then lost is measured and said beforehand (`loss.py`). Nothing else is
  asked for: no place for the next copy, no image.
- The dump is restored only where no server holds the data, and none may that is out of reach.
- A server that alone holds the data is not made anew (`holding.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pcloud.chain import Leg
from pcloud.desired import Desired, ServerSpec
from pcloud.gtid import given_up, rank
from pcloud.identity import carrier_names
from pcloud.kept import NEVER_SEEN, NOBODY_HEARD, Heard, Sighting
from pcloud.loss import DataLoss, latest_of, measure
from pcloud.observed import SeenDatabase


class Fate(StrEnum):
    """What becomes of a carrier in this run, before roles are given."""

    STAYS = "stays"
    """It runs and answers."""
    RETURNS = "returns"
    """It is started or waited for, with the disk it has."""
    NEW = "new"
    """It is made anew, and empty; an older copy, if there was one, is gone for good."""
    GONE = "gone"
    """It is gone for good like one that is made anew, and no host has room for another."""
    AWAY = "away"
    """It may be running where nobody can look."""
    ABSENT = "absent"
    """It is nowhere, and nobody asked for it."""


def holds(seen: SeenDatabase | None) -> bool:
    """Whether a server's data are whole."""
    return seen is not None and bool(seen.restored)


@dataclass(frozen=True)
class Carrier:
    """`seen` is what its MariaDB says now; None when it was not asked or did not answer."""

    name: str
    fate: Fate
    seen: SeenDatabase | None = None

    @property
    def holds(self) -> bool:
        return holds(self.seen)

    @property
    def writes(self) -> bool:
        return self.seen is not None and self.seen.writable


class How(StrEnum):
    """How the primary comes to be it."""

    IS = "is"
    TAKES = "takes"
    SETTLES = "settles"
    """Once all are back, by what their disks say."""
    PROMOTED = "promoted"
    FRESH = "fresh"
    """From the dump."""


@dataclass(frozen=True)
class Roles:
    """What is to be done. Every tuple holds servers' names; `problem` and `next` are a person's."""

    primary: str = ""
    how: How = How.IS
    loss: DataLoss | None = None
    """What the role's taking gives up, where its primary is gone."""
    filled: tuple[str, ...] = ()
    """Get the dump."""
    seeded: tuple[str, ...] = ()
    """Get a copy of the primary's data."""
    joined: tuple[str, ...] = ()
    """Are made to follow the primary."""
    streams: tuple[Leg, ...] = ()
    """What hosts streamed of the old primary further than the new one received."""
    alone: bool = False
    """The primary's commits would wait for a replica that is gone."""
    problem: str = ""
    next: str = ""


def carriers_of(desired: Desired) -> tuple[ServerSpec, ...]:
    """The servers that hold the data, the database's own first."""
    return tuple(desired.server(name) for name in carrier_names(desired.site))


def others_of(desired: Desired, name: str, first: str) -> tuple[tuple[str, str], ...]:
    """The other carriers, each with its own address; `first` comes before the rest."""
    carriers = sorted(carriers_of(desired), key=lambda s: s.name != first)
    return tuple((s.name, s.address) for s in carriers if s.name != name)


def resolve(
    site: str,
    address: str,
    carriers: Sequence[Carrier],
    known: Sighting = NEVER_SEEN,
    heard: Heard = NOBODY_HEARD,
    *,
    anew: bool = False,
) -> Roles:
    """The roles of a site's carriers, the preferred primary first.

    `address` is the one that a replica must follow; `known` the primary as anybody saw it last;
    `heard` until when it answered others; `anew` says that a person wants
    everything made again from the dump.
    """
    writing = [c for c in carriers if c.writes]
    if len(writing) > 1:
        both = " and ".join(c.name for c in writing)
        return Roles(
            problem=f"{both} both accept writes",
            next=f"decide whose data count, then take the role from the other: "
            f"pcloud ssh {site}/{writing[-1].name} -- /usr/lib/pcloud/primary release; then pcloud recover {site}",
        )
    primary, how, problem = _find_primary(carriers, anew=anew)
    if primary is None:
        return Roles(problem=problem, next=f"pcloud status {site}; bring its host back, then pcloud recover {site}")
    others = [c for c in carriers if c is not primary and c.fate not in _NOT_THERE]
    fresh, settles = how is How.FRESH, how is How.SETTLES
    return Roles(
        primary.name,
        how,
        _loss(primary, how, known, heard),
        filled=tuple(c.name for c in (primary, *others)) if fresh or settles else (),
        seeded=tuple(c.name for c in ((primary, *others) if settles else () if fresh else others) if not _has_copy(c)),
        joined=tuple(c.name for c in ((primary, *others) if settles else others) if not _follows(c, address)),
        alone=how is How.IS
        and primary.seen is not None
        and primary.seen.semi_sync
        and _deserted(primary, carriers, address),
    )


_NOT_THERE = frozenset({Fate.AWAY, Fate.ABSENT, Fate.GONE})


def _loss(primary: Carrier, how: How, known: Sighting, heard: Heard) -> DataLoss | None:
    """What its taking of the role gives up; None where its data are the whole."""
    seen = primary.seen
    if seen is None or how not in (How.PROMOTED, How.TAKES):
        return None
    if how is How.PROMOTED:
        return measure(seen, known, heard)
    # They were a primary's own; a replica's would say more.
    lost = given_up(latest_of(seen), known.position, seen.timeline)
    return DataLoss(None, least=lost, since=seen.heard_at, why="a later position was seen") if lost else None


def _deserted(primary: Carrier, carriers: Sequence[Carrier], address: str) -> bool:
    """Whether no other carrier follows the primary, or may where nobody can look."""
    others = [c for c in carriers if c is not primary]
    return not any(_follows(c, address) or c.fate in (Fate.AWAY, Fate.RETURNS) for c in others)


def _candidates(carriers: Sequence[Carrier]) -> list[Carrier]:
    return [c for c in carriers if c.fate is Fate.STAYS and c.holds and not c.writes]


def _find_primary(carriers: Sequence[Carrier], *, anew: bool) -> tuple[Carrier | None, How, str]:
    present = [c for c in carriers if c.fate not in _NOT_THERE]
    away = [c.name for c in carriers if c.fate is Fate.AWAY]
    writing = next((c for c in carriers if c.writes and c.fate not in (Fate.NEW, Fate.GONE)), None)
    if writing is not None:
        return writing, How.IS, ""
    returning = [c for c in present if c.fate is Fate.RETURNS]
    if returning and not away:
        return returning[0], How.SETTLES, ""
    if away or returning:
        silent = ", ".join([*away, *(c.name for c in returning)])
        return None, How.IS, f"{silent} may hold the database's latest data"
    holding = _candidates(present) if not anew else []
    if holding:
        best = max(holding, key=lambda c: (rank(_latest(c)), not _is_copy(c), -carriers.index(c)))
        return best, How.PROMOTED if _is_copy(best) else How.TAKES, ""
    if not present:
        return None, How.IS, "no server is left that could carry the database"
    return present[0], How.FRESH, ""


def _is_copy(c: Carrier) -> bool:
    """Whether its data came from a primary, which may have gone on without it."""
    return c.seen is not None and bool(c.seen.source)


def _has_copy(c: Carrier) -> bool:
    return c.fate is Fate.STAYS and c.holds


def _follows(c: Carrier, address: str) -> bool:
    seen = c.seen
    return c.fate is Fate.STAYS and seen is not None and c.holds and seen.replicating and seen.source == address


def _latest(c: Carrier) -> str:
    assert c.seen is not None
    return latest_of(c.seen)
