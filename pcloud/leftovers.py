"""Files of the site that belong to no server: what an interrupted build left, and disks that libvirt lost.

Safety, as sentences:
- The used disk of a data server that libvirt does not know is not rubbish: where it may hold what no other
  server is seen to hold, it stays as it is, and its server is not made anew beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pcloud.desired import Desired, Names
from pcloud.generations import Generations, read_generations, used_disks
from pcloud.holding import irreplaceable
from pcloud.identity import carrier_names
from pcloud.observed import Observed, SeenHost


@dataclass(frozen=True)
class Stray:
    """A data server's copy of which only the files are there."""

    host: str
    names: Names

    @property
    def files(self) -> tuple[str, ...]:
        return self.names.disk, self.names.seed, self.names.console


def find_strays(desired: Desired, observed: Observed, generations: Generations | None = None) -> Mapping[str, Stray]:
    """By server, where its latest data may be on the disk; none that a person wants made anew."""
    found = {s.names.server: s for s in _undefined(desired, observed)}
    if not found:
        return {}
    kept, site, options = irreplaceable(desired, observed), desired.site.site, desired.options
    generations = generations or read_generations(observed, site, carrier_names(desired.site))
    anew = set(found) if options.from_scratch or options.until is not None else set(options.rebuild)
    return {
        server: stray
        for server, stray in found.items()
        if server in kept - anew and stray.names.generation in generations.current(server)
    }


def _undefined(desired: Desired, observed: Observed) -> Iterator[Stray]:
    """Used disks on hosts that answer, of generations that no host has as a server."""
    site = desired.site.site
    for server in carrier_names(desired.site):
        defined = {s.mark.generation for _, s in observed.copies(site, server) if s.mark is not None}
        for host in observed.hosts:
            for generation in used_disks(host, site, server) if host.reachable else ():
                if generation not in defined:
                    yield Stray(host.name, Names(site, server, generation))


def leftovers(desired: Desired, observed: Observed) -> dict[str, tuple[str, ...]]:
    """Host to the files of this site that belong to no server: an interrupted build's."""
    site = desired.site.site
    unfinished = r"\.part|\.[A-Za-z0-9]{8}"
    kinds = r"qcow2|seed\.iso|console\.log|at-[0-9,-]*\.note"
    pattern = re.compile(rf"{re.escape(site)}\.[a-z0-9-]+\.g\d+\.({kinds})({unfinished})?$")
    strays = find_strays(desired, observed).values()
    found = {}
    for host in observed.hosts:
        kept = {n for s in strays if s.host == host.name for n in s.files} | set(_files_of(site, host))
        lost = tuple(v for v in host.volumes if pattern.fullmatch(v) and v not in kept)
        if lost and host.reachable:
            found[host.name] = lost
    return found


def _files_of(site: str, host: SeenHost) -> Iterator[str]:
    for seen in host.servers:
        if seen.mark is not None and seen.mark.site == site:
            names = Names(site, seen.mark.server, seen.mark.generation)
            yield from (names.disk, names.seed, names.console)
            yield from (v for v in host.volumes if names.inspected(v) is not None)
