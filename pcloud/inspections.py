"""Notes of what was read from the disk of a dead copy (`Names.inspection`), against the living data.

Such a note lies beside the disk, in its host's pool, and the position is in its name: so whoever lists
the pool knows it, and no other file has to be read. It goes with the disk when that is put away.
"""

from __future__ import annotations

from collections.abc import Iterable

from pcloud.desired import Names
from pcloud.gtid import behind


def find_inspections(copy: Names, files: Iterable[str]) -> tuple[str, ...]:
    """The positions that the copy's notes among these files speak of."""
    return tuple(at for file in files if (at := copy.inspected(file)) is not None)


def holds_all(position: str, copy: Names, files: Iterable[str]) -> bool:
    """Whether data at `position` hold all that the copy's notes speak of; not without any note."""
    found = find_inspections(copy, files)
    try:
        return bool(position and found) and all(behind(position, at) == 0 for at in found)
    except ValueError:  # nobody's position: then it says nothing
        return False
