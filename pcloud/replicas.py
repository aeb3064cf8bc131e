"""Who is the database's primary, and who follows it: decided from what each server says of itself.

A carrier is a server that holds the shop's data: the database's own, and the one that carries the
replica. `resolve` is a pure function, in the manner of Patroni's quorum resolver: run again after
any interruption, it goes on.

Safety, as sentences:
- Two servers that accept writes are a person's business.
- One that accepts writes stays the primary, and is not made anew before another one has its role.
- One that comes back with its own disk says itself whether it is the primary.
- Nobody takes the role while a server that may have it is out of reach, or not asked yet.
- A copy is promoted only when every server that may know more is gone for good: made anew, on
  hosts proven off, or empty. What may then be missing is measured and said beforehand.
- The dump is restored only where no server holds the data, and none may that is out of reach.
- A server that alone holds the data is not made anew (`holding.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pcloud.desired import Desired, ServerSpec
from pcloud.gtid import behind, reach
from pcloud.identity import carrier_names
from pcloud.observed import SeenDatabase


class Fate(StrEnum):
    """What becomes of a carrier in this run, before roles are given."""

    STAYS = "stays"
    """It runs and answers."""
    RETURNS = "returns"
    """It is started or waited for, with the disk it has."""
    NEW = "new"
    """It is made anew, and empty; an older copy, if there was one, is gone for good."""
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
class Rpo:
    """What a promotion may lose: the last position that the replica received, against the last one known."""

    received: str
    known: str
    semi_sync: bool
    waited_s: float | None = None
    """How long a commit waits for the replica before it goes on alone; None: for ever."""

    def __str__(self) -> str:
        lost = behind(self.received, self.known)
        known = f"last known {self.known}" if self.known else "no later position is known"
        if lost:
            verdict = f"{lost} transactions are lost"
        elif self.semi_sync and self.waited_s is None:
            verdict = "commits waited for it: no acknowledged order is missing"
        elif self.semi_sync:  # whether it heard of all can only its primary tell, and that one is gone
            verdict = (
                f"commits waited for it, {self.waited_s:g} s at most: no acknowledged order is missing, "
                "unless it was out of its primary's reach for longer"
            )
        else:
            verdict = "commits did not wait for it: what came after that is lost, and not counted"
        return f"received {self.received or 'nothing'}, {known}; {verdict}"


@dataclass(frozen=True)
class Roles:
    """What is to be done. Every tuple holds servers' names; `problem` and `next` are a person's."""

    primary: str = ""
    how: How = How.IS
    rpo: Rpo | None = None
    filled: tuple[str, ...] = ()
    """Get the dump."""
    seeded: tuple[str, ...] = ()
    """Get a copy of the primary's data."""
    joined: tuple[str, ...] = ()
    """Are made to follow the primary."""
    alone: bool = False
    """The primary's commits would wait for a replica that is gone."""
    problem: str = ""
    next: str = ""


def carriers_of(desired: Desired) -> tuple[ServerSpec, ...]:
    """The servers that hold the data, the database's own first."""
    return tuple(desired.server(name) for name in carrier_names(desired.site))


def resolve(
    site: str,
    address: str,
    carriers: Sequence[Carrier],
    known: str = "",
    *,
    anew: bool = False,
    waits_s: float | None = None,
) -> Roles:
    """The roles of a site's carriers, the preferred primary first.

    `address` is the one that a replica must follow; `known` the last position of the primary that
    anybody saw; `anew` says that a person wants everything made again from the dump; `waits_s` how
    long a commit waits for a replica before it goes on alone (None: for ever).
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
    others = [c for c in carriers if c is not primary and c.fate not in (Fate.AWAY, Fate.ABSENT)]
    fresh, settles = how is How.FRESH, how is How.SETTLES
    seen = primary.seen
    return Roles(
        primary.name,
        how,
        _rpo(seen, known, waits_s) if how is How.PROMOTED and seen is not None else None,
        filled=tuple(c.name for c in (primary, *others)) if fresh or settles else (),
        seeded=tuple(c.name for c in ((primary, *others) if settles else () if fresh else others) if not _has_copy(c)),
        joined=tuple(c.name for c in ((primary, *others) if settles else others) if not _follows(c, address)),
        alone=how is How.IS and seen is not None and seen.semi_sync and _deserted(primary, carriers, address),
    )


def _deserted(primary: Carrier, carriers: Sequence[Carrier], address: str) -> bool:
    """Whether no other carrier follows the primary, or may where nobody can look."""
    others = [c for c in carriers if c is not primary]
    return not any(_follows(c, address) or c.fate in (Fate.AWAY, Fate.RETURNS) for c in others)


def _heirs(carriers: Sequence[Carrier]) -> list[Carrier]:
    return [c for c in carriers if c.fate is Fate.STAYS and c.holds and not c.writes]


def _find_primary(carriers: Sequence[Carrier], *, anew: bool) -> tuple[Carrier | None, How, str]:
    present = [c for c in carriers if c.fate not in (Fate.AWAY, Fate.ABSENT)]
    away = [c.name for c in carriers if c.fate is Fate.AWAY]
    writing = next((c for c in carriers if c.writes and c.fate is not Fate.NEW), None)
    if writing is not None:
        return writing, How.IS, ""
    returning = [c for c in present if c.fate is Fate.RETURNS]
    if returning and not away:
        return returning[0], How.SETTLES, ""
    if away or returning:
        silent = ", ".join([*away, *(c.name for c in returning)])
        return None, How.IS, f"{silent} may hold the database's latest data"
    holding = _heirs(present) if not anew else []
    if holding:
        best = max(holding, key=lambda c: (_reach(c), not _is_copy(c), -carriers.index(c)))
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


def _reach(c: Carrier) -> int:
    """How far its data go, in transactions."""
    assert c.seen is not None
    return max(reach(c.seen.position), reach(c.seen.received))


def _rpo(seen: SeenDatabase, known: str, waits_s: float | None) -> Rpo:
    received = seen.received if reach(seen.received) >= reach(seen.position) else seen.position
    return Rpo(received, known, seen.semi_sync, waits_s)
