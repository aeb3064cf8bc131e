"""Copies of the past, on hosts that came back: which of them become tombstones by themselves.

Safety, as sentences:
- A copy that may hold data which no other server has is never put away by itself. Whether the
  living data hold all of it, only its disk can tell: the note of whoever has read that disk names
  the last position that it got to (`Names.inspection`).
- It is compared with the position of the one server that accepts writes; without such a server,
  or with two, nothing is known.
- A copy is put away once its server runs elsewhere; before that only to make room for its server
  on the same host.
"""

from __future__ import annotations

from collections.abc import Iterable

from pcloud.desired import Desired, Names
from pcloud.generations import Quarantined
from pcloud.gtid import behind
from pcloud.identity import carrier_names
from pcloud.observed import Observed


def is_superseded(desired: Desired, observed: Observed, old: Quarantined) -> bool:
    """Whether nothing that is only on its disk would be missed."""
    role = next((s.role for s in desired.everyone if s.name == old.server), "unknown")
    if role not in ("database", "unknown") and old.server not in carrier_names(desired.site):
        return True
    seen = observed.host(old.host)
    return seen is not None and holds_all(find_position(observed), old.names, seen.volumes)


def find_position(observed: Observed) -> str | None:
    """How far the living data go: the position of the only server that accepts writes; None without one."""
    writing = [d for d in observed.data.databases.values() if d.writable]
    return writing[0].position if len(writing) == 1 and writing[0].restored else None


def holds_all(position: str | None, copy: Names, files: Iterable[str]) -> bool:
    """Whether data at `position` hold all that the copy's notes among these files speak of; not without any."""
    found = [at for file in files if (at := copy.inspected(file)) is not None]
    try:
        return position is not None and bool(found) and all(behind(position, at) == 0 for at in found)
    except ValueError:  # nobody's position: then it says nothing
        return False
