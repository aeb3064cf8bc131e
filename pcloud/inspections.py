"""Notes of what was read from the disk of a dead copy: how far its data go.

Such a note lies beside the disk, in its host's pool, and the position is in its name: so whoever lists
the pool knows it, and no other file has to be read. It goes with the disk when that is put away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pcloud.desired import Names
from pcloud.gtid import behind


def note_of(copy: Names, position: str) -> str:
    """The note's name. `position`: a GTID list, its commas kept; empty for a disk without a transaction."""
    return f"{copy.stem}.at-{position}.note"


def find_inspected(copy: Names, file: str) -> str | None:
    """The position in the name of such a note of this copy; None for any other file."""
    found = re.fullmatch(rf"{re.escape(copy.stem)}\.at-([0-9,-]*)\.note", file)
    return found[1] if found else None


def holds_all(position: str, copy: Names, files: Iterable[str]) -> bool:
    """Whether data at `position` hold all that the copy's notes among these files speak of; not without any."""
    found = [at for file in files if (at := find_inspected(copy, file)) is not None]
    try:
        return bool(position and found) and all(behind(position, at) == 0 for at in found)
    except ValueError:  # nobody's position: then it says nothing
        return False
