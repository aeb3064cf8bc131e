"""Hosts that the notes know and the inventory does not: what may still run there.

A host that is taken out of the inventory, or gets another name or address there, goes on as it was, and
nobody asks it any more. The notes of its copies say where they were left (`notes.py`).

Safety, as sentences:
- A copy that counts, was noted on such a host and is seen nowhere, may run there: nothing is made in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pcloud.generations import Generations
from pcloud.model import Site
from pcloud.notes import Note


@dataclass(frozen=True)
class Stranger:
    """Where a copy was left."""

    host: str
    address: str
    generation: int

    @property
    def why(self) -> str:
        return (
            f"generation {self.generation} of it was left on {self.host} ({self.address}), "
            "which the inventory does not know: it may be running there"
        )


def find_stranger(site: Site, generations: Generations, server: str, present: Iterable[int]) -> Stranger | None:
    """Of a server whose counting copy is out of sight: the host that nobody asks any more, where it was left on one."""
    known = known_hosts(site)
    for generation in generations.missing(server, frozenset(present)):
        places = generations.noted.get((server, generation), frozenset())
        if places and not places & known:
            host, address = sorted(places)[0]
            return Stranger(host, address, generation)
    return None


def known_hosts(site: Site) -> frozenset[tuple[str, str]]:
    """Names and addresses of the inventory's hosts."""
    return frozenset((h.name, str(h.address)) for h in site.hosts)


def is_left(site: Site, note: Note) -> bool:
    """Whether it names a host that the inventory does not know."""
    return bool(note.at[0]) and note.at not in known_hosts(site)


def forget_command(site: str, host: str) -> str:
    """What a person types once a host has no power any more, or is somebody else's."""
    return f"pcloud hosts forget {site} {host} --i-have-powered-it-off"
