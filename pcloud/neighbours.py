"""Servers on our hosts that are not this site's: another site's, or somebody's own. Pure.

When a host falls silent, nobody can ask it any more what else its loss of power would stop. So every command
that sees such servers leaves a small file about it on other hosts, by its name alone.

Safety, as sentences:
- A host that carried servers of others when it was last seen keeps its power until a person says so by name.
- What was never seen is not known, and nothing is said of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pcloud.model import Site
from pcloud.notes import NOTES, Keepers
from pcloud.observed import Observed, Power, SeenHost

_SEEN = r"(?P<at>\d{8}T\d{6})\.(?P<count>\d+)(?:-(?P<name>[A-Za-z0-9._-]+))?"
_LONGEST = 60
"""Characters of a server's name that are kept."""


@dataclass(frozen=True)
class Others:
    """How many servers that are not the site's run on a host, and the first one's name in libvirt."""

    count: int
    name: str = ""

    def __str__(self) -> str:
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.name}{more}"


@dataclass(frozen=True)
class _Note:
    holder: str
    file: str
    host: str
    at: str
    others: Others


@dataclass(frozen=True)
class ToNote:
    """What one host is to remember: the file `name`, instead of `old`."""

    holder: str
    name: str
    old: tuple[str, ...]


def find_others(site: str, observed: Observed, host: str) -> Others | None:
    """What ran on the host when it was last seen that is not the site's; None where nothing did, or nobody knows."""
    notes = [n for n in _read(site, observed) if n.host == host]
    last = max(notes, key=lambda n: n.at, default=None)
    return last.others if last is not None and last.others.count else None


def plan_notes(site: Site, observed: Observed, now: datetime) -> tuple[ToNote, ...]:
    """Where what is seen now is not what the notes say, or too few hosts have them."""
    notes = list(_read(site.site, observed))
    keepers = Keepers.of(site, observed)
    found: list[ToNote] = []
    for host in observed.hosts:
        if not host.reachable:
            continue
        seen, mine = _seen(site.site, host), [n for n in notes if n.host == host.name]
        last = max((n.at for n in mine), default="")
        agreeing = {n.holder for n in mine if n.at == last and n.others == seen}
        if (not mine and not seen.count) or len(agreeing) >= NOTES:
            continue
        ending = f"{seen.count}-{seen.name}" if seen.count else "0"
        name = f"{site.site}.others-on-{host.name}.{now:%Y%m%dT%H%M%S}.{ending}.note"
        chosen = keepers.find(host.name)
        holders = sorted({*chosen, *(n.holder for n in mine)} - {host.name})
        older = {h: tuple(n.file for n in mine if n.holder == h and n.file != name) for h in holders}
        found += [ToNote(holder, name, files) for holder, files in older.items()]
    return tuple(found)


def _seen(site: str, host: SeenHost) -> Others:
    names = sorted(s.name for s in host.servers if s.power is not Power.OFF and (s.mark is None or s.mark.site != site))
    return Others(len(names), re.sub(r"[^A-Za-z0-9._-]", "-", names[0])[:_LONGEST] if names else "")


def _read(site: str, observed: Observed) -> Iterator[_Note]:
    start = f"{site}.others-on-"
    pattern = re.compile(rf"{re.escape(start)}(?P<host>[a-z0-9-]+)\.{_SEEN}\.note")
    for host in observed.hosts:
        for file in host.volumes:
            if file.startswith(start) and (m := pattern.fullmatch(file)) is not None:
                yield _Note(host.name, file, m["host"], m["at"], Others(int(m["count"]), m["name"] or ""))
