"""Tombstones: disks that were put away, how old they are, and what they cost.

The date is in a tombstone's name (`Names.tombstone`), and its definition, console and notes have the
same name with another ending: so they are one thing, and go together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pcloud.desired import Names
from pcloud.observed import Observed

_NAME = r"{site}\.[a-z0-9-]+\.g[0-9]+\.tombstone-"
_DATED = re.compile(r"(.+\.tombstone-([0-9]{8}-[0-9]{4}(?:[0-9]{2})?))\.")
_AGE = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_BLOCK = 512


def parse_age(text: str) -> timedelta:
    """Of `12h`, `30d` or `2w`. Raises `ValueError`."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an age such as 12h, 30d or 2w")
    return int(found[1]) * _UNITS[found[2]]


def cutoff(now: datetime, age: timedelta) -> str:
    """The date in the name of a tombstone that is just so old."""
    then = now.astimezone(UTC) - age
    return f"{then.year:04}{then:%m%d-%H%M%S}"


def find_tombstones(site: str, volumes: Iterable[str], before: str = "") -> tuple[str, ...]:
    """The files of the site's tombstones; of those put away before a date, where one is given.

    One whose name has no date that can be read is then left alone: nobody knows how old it is.
    """
    pattern = re.compile(_NAME.format(site=re.escape(site)))
    files = (v for v in volumes if pattern.match(v))
    return tuple(v for v in files if not before or "" < _split(v)[1] < before)


def count_tombstones(files: Iterable[str]) -> int:
    return len({_split(file)[0] for file in files})


def _split(file: str) -> tuple[str, str]:
    """Its tombstone, and that one's date; empty without one that can be read."""
    found = _DATED.match(file)
    return (found[1], found[2]) if found else (file, "")


@dataclass(frozen=True)
class Cost:
    """What a site's tombstones are on the hosts that answer."""

    count: int
    hosts: tuple[str, ...]
    size: int
    """Bytes that they take on their hosts' disks."""
    unknown: tuple[str, ...]
    """Hosts that did not say how much."""
    oldest: str
    """The day, as in `2026-10-31`; empty where no name has one."""

    def words(self, site: str) -> str:
        things = f"{self.count} tombstone{'' if self.count == 1 else 's'}"
        least = "at least " if self.unknown else ""
        since = f", the oldest of {self.oldest}" if self.oldest else ""
        return f"{things}, {least}{self.size / 2**30:.1f} GiB{since}; {self.next(site)}"

    def next(self, site: str) -> str:
        return f"pcloud purge {site} --older-than 30d"


def weigh_command(site: str, pool: str) -> tuple[str, ...]:
    """Prints, on a host, how much of its disk each tombstone takes."""
    return "find", pool, "-maxdepth", "1", "-name", f"{site}.*.tombstone-*", "-printf", r"%b %f\n"


def read_weight(site: str, printed: str) -> int:
    """Bytes, from what `weigh_command` printed."""
    lines = (line.partition(" ") for line in printed.splitlines())
    return sum(int(blocks) * _BLOCK for blocks, _, file in lines if find_tombstones(site, [file]))


def find_cost(site: str, observed: Observed, sizes: Mapping[str, int | None]) -> Cost | None:
    """`sizes`: bytes on each host that has any, None for one that did not say. None without a tombstone."""
    there = {h.name: files for h in observed.hosts if h.reachable and (files := find_tombstones(site, h.volumes))}
    dates = sorted(date for files in there.values() for f in files if (date := _split(f)[1]))
    if not there:
        return None
    oldest = f"{dates[0][:4]}-{dates[0][4:6]}-{dates[0][6:8]}" if dates else ""
    known = {h: size for h in there if (size := sizes.get(h)) is not None}
    count = sum(count_tombstones(files) for files in there.values())
    return Cost(count, tuple(there), sum(known.values()), tuple(h for h in there if h not in known), oldest)


@dataclass(frozen=True)
class Grave:
    """A server that was put away whole: its disk and its definition are there."""

    host: str
    names: Names
    date: str

    @property
    def stem(self) -> str:
        return self.names.tombstone(self.date)

    @property
    def disk(self) -> str:
        return f"{self.stem}.qcow2"

    def __str__(self) -> str:
        return f"{self.names.server} (generation {self.names.generation}, on {self.host})"


def find_graves(site: str, observed: Observed) -> tuple[Grave, ...]:
    """Every server that was put away in place of another one, or by `destroy`; none that was of the past already."""
    pattern = re.compile(rf"{re.escape(site)}\.([a-z0-9-]+)\.g(\d+)\.tombstone-([0-9]{{8}}-[0-9]{{4,6}})\.qcow2")
    found = []
    for host in observed.hosts:
        for file in host.volumes if host.reachable else ():
            if (m := pattern.fullmatch(file)) is None:
                continue
            grave = Grave(host.name, Names(site, m[1], int(m[2])), m[3])
            if f"{grave.stem}.xml" in host.volumes and f"{grave.stem}.past.note" not in host.volumes:
                found.append(grave)
    return tuple(found)
