"""Which hosts lack an image, and who could pass it on: pure, from what was observed.

A host's list of files says nothing about their content, so this only decides whether a copy is
worth a step of its own; `PlaceImage` verifies each copy whatever is found here.
"""

from __future__ import annotations

from collections.abc import Iterable

from pcloud.desired import ImageSpec
from pcloud.model import Site
from pcloud.observed import Observed
from pcloud.steps.image import SpreadImage

PEERS = 3
"""How many hosts that have an image are asked to prove it."""


def find_lacking(site: Site, observed: Observed, hosts: Iterable[str], image: ImageSpec) -> tuple[str, ...]:
    """Those of `hosts` that answer and have no file of the name that the image's copy has there.

    Neighbours first: a chain of hosts crosses from rack to rack as seldom as it can.
    """
    lacking = {h for h in hosts if _answers(observed, h) and not _has(site, observed, h, image)}
    return tuple(sorted(lacking, key=lambda h: (site.host(h).rack, h)))


def find_spread(site: Site, observed: Observed, hosts: Iterable[str], image: ImageSpec) -> SpreadImage | None:
    """The step that copies the image to those of `hosts` that lack it; None when `PlaceImage` alone does as well."""
    lacking = find_lacking(site, observed, hosts, image)
    peers = tuple(h.name for h in observed.hosts if h.reachable and _has(site, observed, h.name, image))[:PEERS]
    return SpreadImage(lacking, peers, image) if len(lacking) > 1 or (lacking and peers) else None


def _answers(observed: Observed, host: str) -> bool:
    seen = observed.host(host)
    return seen is not None and seen.reachable


def _has(site: Site, observed: Observed, host: str, image: ImageSpec) -> bool:
    seen = observed.host(host)
    names = {image.on_host(site.host(host).pool, f).rpartition("/")[2] for f in image.files}
    return seen is not None and names <= set(seen.volumes)
