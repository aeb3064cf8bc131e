"""The plan of `image push`: every image on every host, before the night on which it is needed."""

from __future__ import annotations

from collections.abc import Sequence

from pcloud.desired import Desired, ImageSpec
from pcloud.distribute import find_lacking, find_spread
from pcloud.errors import BadInput
from pcloud.events import StepInfo
from pcloud.graph import Need, PlanNode
from pcloud.observed import Observed
from pcloud.plan import Plan
from pcloud.steps.image import PlaceImage
from pcloud.steps.stop import Stop

_PHASES = ("copies", "verify")


def plan_push(desired: Desired, observed: Observed, names: Sequence[str] = ()) -> Plan:
    """The site's images, or those `names` mean, verified on every host; where they are not, copied first.

    One image after the other, so that the first ones are whole as early as can be. A host that
    does not answer blocks nobody but itself. Raises `BadInput` for an image that the site has not.
    """
    site = desired.site
    nodes: list[PlanNode] = []
    to_copy = 0
    before: str | None = None
    for image in _chosen(desired, names):
        hosts = [h.name for h in observed.hosts if h.reachable]
        spread = find_spread(site, observed, hosts, image)
        if spread is not None:
            info = StepInfo(f"{image.name}/copies", "copies", _keys(before), None, None, "copy image", spread.words)
            nodes.append(PlanNode(info, spread, _ended(before)))
            before = info.key
        to_copy += image.size * (1 if spread else len(find_lacking(site, observed, hosts, image)))
        what = f"{image.recipe} {image.digest[:12]}"
        after = before if spread else None
        for host in hosts:
            key = f"{host}/image/{image.name}"
            info = StepInfo(key, "verify", _keys(after), host, None, "verify image", what)
            nodes.append(PlanNode(info, PlaceImage(host, image), _ended(after)))
    for seen in observed.hosts:
        if not seen.reachable:
            why, then = f"it does not answer: {seen.problem}", f"bring it back, then pcloud image push {site.site}"
            info = StepInfo(f"{seen.name}/blocked", "verify", (), seen.name, None, "blocked", why)
            nodes.append(PlanNode(info, Stop(seen.name, why, then)))
    return Plan(site.site, "image push", _PHASES, tuple(nodes), {}, desired.digest(), observed.digest(), to_copy)


def _chosen(desired: Desired, names: Sequence[str]) -> list[ImageSpec]:
    images = {s.image.name: s.image for s in desired.servers}
    for name in names:
        if name not in images:
            known = ", ".join(images)
            raise BadInput(f"{desired.site.site} has no server of an image {name}", next=f"one of {known}")
    return [image for name, image in images.items() if not names or name in names]


def _keys(key: str | None) -> tuple[str, ...]:
    return (key,) if key else ()


def _ended(key: str | None) -> frozenset[Need]:
    """However it ended: each host's own step makes up for what a chain could not do."""
    return frozenset({Need(frozenset({key}), 0)}) if key else frozenset()
