"""What a promotion gives up, measured once more when its primary is proven gone.

Between the plan and the proof a person reads, and a host is switched off; a primary that nobody reached may have
acknowledged orders until then. Whoever answers tells when that was, and the replica when it heard of the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pcloud.errors import Blocked, PcloudError
from pcloud.gtid import rank
from pcloud.kept import Heard, Sighting, Witnesses
from pcloud.loss import DataLoss, last_answer, measure
from pcloud.observed import SeenDatabase
from pcloud.sightings import furthest
from pcloud.steps.base import World
from pcloud.steps.replication import HEARD, read_heard, replication, sql


@dataclass(frozen=True)
class Basis:
    """What the loss `said` was measured from, at the time `asked_at` (`Clock.now`); `witnesses` can be asked again."""

    said: DataLoss
    seen: SeenDatabase
    known: Sighting
    witnesses: Witnesses
    asked_at: float


def check_loss(world: World, server: str, basis: Basis) -> None:
    """Raises `Blocked` where more would be given up than was said. Its primary answers nobody any more."""
    if basis.said.transactions is None:
        return
    heard, sightings = world.hear(basis.witnesses)
    if last_answer(heard) is None:  # it answered nobody later than now
        heard = Heard({"": 0.0})
    elapsed_s = world.clock.now() - basis.asked_at
    planned = replace(basis.known, age_s=basis.known.age_s + elapsed_s, answers=False)
    known = furthest([planned, *sightings])
    then = basis.seen if basis.seen.heard_s is None else replace(basis.seen, heard_s=basis.seen.heard_s + elapsed_s)
    if measure(then, known, heard).accepted(basis.said.price):
        return
    loss = measure(replace(then, **_ask(world, server, then)), known, heard)
    if not loss.accepted(basis.said.price):
        site = world.site.site
        raise Blocked(
            f"it can take over, but {loss}; when the run was planned: {basis.said}",
            where=server,
            next=f"bring the primary's disk back, then pcloud recover {site}; or accept the loss: "
            f"pcloud recover {site} --accept-loss {loss.price}",
        )


def _ask(world: World, server: str, seen: SeenDatabase) -> Mapping[str, Any]:
    """What the replica says now; nothing new where it does not."""
    try:
        received = replication(world, server).get("Gtid_IO_Pos", "")
        rows = sql(world, server, HEARD)
    except PcloudError:
        return {}
    row = [None if word == "NULL" else word for word in rows[0]] if rows else []
    found = read_heard(dict(zip(("age", "moment", "position", "acked"), row, strict=True))) if row else {}
    return {**found, "received": max(received, seen.received, key=rank)}
