"""The primary's last position that anybody saw, remembered on two hosts as the name of an empty file.

A name is read with the list of the pool's files, which every observation asks for anyway:

    demo.seen.1417-172818493-771.20261128T012126Z.w30000.note     it waited 30,000 ms for a replica
    demo.seen.1417-172818493-690.20261128T011955Z.alone.note      its commits waited for none

The position is that of the newest timeline: those before it do not move any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pcloud.gtid import newest_domain, rank
from pcloud.kept import NEVER_SEEN, Sighting
from pcloud.model import Site
from pcloud.notes import Keepers
from pcloud.observed import Observed

_TIME = "%Y%m%dT%H%M%SZ"
_FILE = r"{site}\.seen\.([0-9]+-[0-9]+-[0-9]+)\.([0-9]{{8}}T[0-9]{{6}}Z)\.(?:w([0-9]+)|alone)\.note"


@dataclass(frozen=True)
class SightingNote:
    """One such file. `at` is when the primary was seen, by the clock of the machine that saw it."""

    name: str
    position: str
    at: datetime
    waits_ms: int


def name_of(site: str, position: str, timeline: int, at: datetime, waits_ms: int) -> str:
    """The file's name. A timeline that has no transaction yet is there with the number 0."""
    domain = max(timeline, newest_domain(position))
    latest = _of_domain(position, domain) or f"{domain}-0-0"
    waits = f"w{waits_ms}" if waits_ms >= 0 else "alone"
    return f"{site}.seen.{latest}.{at.astimezone(UTC).strftime(_TIME)}.{waits}.note"


def _of_domain(position: str, domain: int) -> str:
    return next((g for g in position.replace("\n", "").split(",") if g.startswith(f"{domain}-")), "")


def read_notes(site: str, names: Iterable[str]) -> tuple[SightingNote, ...]:
    """Those among the names of a pool's files."""
    pattern = re.compile(_FILE.format(site=re.escape(site)))
    found = []
    for name in names:
        if (match := pattern.fullmatch(name)) is not None:
            try:
                at = datetime.strptime(match[2], _TIME).replace(tzinfo=UTC)
            except ValueError:
                continue
            found.append(SightingNote(name, match[1], at, int(match[3]) if match[3] else -1))
    return tuple(found)


def all_notes(site: str, observed: Observed) -> tuple[SightingNote, ...]:
    """What all hosts that answer remember."""
    return tuple(n for h in observed.hosts for n in read_notes(site, h.volumes))


def last_sighting(site: str, observed: Observed, now: datetime) -> Sighting:
    """What the hosts that answer remember: the furthest position on the newest timeline, and its age."""
    last = last_note(site, (v for h in observed.hosts for v in h.volumes))
    if last is None:
        return NEVER_SEEN
    return Sighting(last.position, max(0.0, (now - last.at).total_seconds()), last.waits_ms)


def read_heard(text: str) -> tuple[float, Sighting] | None:
    """What `keep heard` printed on a host (templates/hosts/heard.sh): how many seconds ago the primary last answered
    it, and where it saw the primary last. None where it never heard one, or for what makes no sense."""
    said = re.fullmatch(r"heard (\d+\.\d\d) (\d+\.\d\d) (-|[0-9,-]+) (-1|\d+)\n", text)
    if said is None:
        return None
    position = "" if said[3] == "-" else said[3]
    try:
        latest = _of_domain(position, newest_domain(position))
    except ValueError:
        return None
    return float(said[1]), Sighting(latest, float(said[2]), int(said[4]), one_clock=True)


def furthest(sightings: Iterable[Sighting]) -> Sighting:
    """The one that says most: on the newest timeline, of those the furthest, of equals the latest."""
    seen = (s for s in sightings if s != NEVER_SEEN)
    return max(seen, key=lambda s: (rank(s.position), -s.age_s, -s.waits_ms), default=NEVER_SEEN)


def outdated(site: str, names: Iterable[str], new: str) -> tuple[str, ...]:
    """The notes on one host that say no more than the new one."""
    mine = read_notes(site, [new])[0]
    others = [n for n in read_notes(site, names) if n.name != new]
    return tuple(n.name for n in others if (rank(n.position), n.at) <= (rank(mine.position), mine.at))


def holders(site: Site, observed: Observed, primary_host: str) -> tuple[str, ...]:
    """The hosts that are to remember it: not the primary's own, and not of its rack, where others answer."""
    return Keepers.of(site, observed).find(primary_host)


def last_note(site: str, names: Iterable[str]) -> SightingNote | None:
    """The one that says most: the furthest on the newest timeline, of equals the latest, of one second the worst."""
    return max(read_notes(site, names), key=lambda n: (rank(n.position), n.at, -n.waits_ms), default=None)
