"""Copies of the past, on hosts that came back: which of them become tombstones by themselves.

Safety, as sentences:
- A copy that may hold data which no other server has is never put away by itself. Whether the
  living data hold all of it, only its disk can tell: what was read from it is noted beside it
  (`inspections.py`).
- It is compared with the position of the one server that accepts writes; without such a server,
  or with two, nothing is known.
- A copy is put away once its server runs elsewhere; before that only to make room for its server
  on the same host.
"""

from __future__ import annotations

from pcloud.desired import Desired
from pcloud.generations import Quarantined
from pcloud.identity import carrier_names
from pcloud.inspections import find_inspections, holds_all
from pcloud.observed import Observed


def may_hold_data(desired: Desired, server: str) -> bool:
    """Whether what is on its disk may be nowhere else; of a server that the inventory does not know, too."""
    role = next((s.role for s in desired.everyone if s.name == server), "database")
    return role == "database" or server in carrier_names(desired.site)


def is_superseded(desired: Desired, observed: Observed, old: Quarantined) -> bool:
    """Whether nothing that is only on its disk would be missed."""
    if not may_hold_data(desired, old.server):
        return True
    seen = observed.host(old.host)
    return seen is not None and holds_all(find_position(observed), old.names, seen.volumes)


def may_be_superseded(desired: Desired, observed: Observed, old: Quarantined) -> bool:
    """The same, where nobody accepts writes yet: whether it may be so once somebody does."""
    seen = observed.host(old.host)
    unknown = not find_position(observed) and seen is not None and bool(find_inspections(old.names, seen.volumes))
    return unknown or is_superseded(desired, observed, old)


def find_position(observed: Observed) -> str:
    """How far the living data go: the position of the only server that accepts writes; empty without one."""
    writing = [d for d in observed.data.databases.values() if d.writable]
    return writing[0].position if len(writing) == 1 and writing[0].restored else ""
