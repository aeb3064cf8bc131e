"""What was proven of backups: replayed to a position and compared with the replica there. Pure; a proof is kept by the
hosts, beside its backup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from pcloud.gtid import parse_gtids, rank
from pcloud.kept import Backup, Proof, Shelf

QUICK_S = 60
"""What takes no longer is proven by each backup."""
_BYTES_S = 500_000
"""Of a compressed backup: copied, prepared, read and compared, by a slow server. What was measured goes before it."""
_START_S = 10
"""A MariaDB is started on it."""


def read_proof(text: str) -> Proof | None:
    """From what a host keeps; None for what makes no sense."""
    try:
        written: Mapping[str, Any] = json.loads(text)
        values = {f.name: written[f.name] for f in fields(Proof) if f.name != "wrong"}
        parse_gtids(values["position"])
        if not all(type(values[f.name]).__name__ == f.type for f in fields(Proof) if f.name != "wrong"):
            return None
        return Proof(**values, wrong=tuple(map(str, written["wrong"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def last_proof(shelves: Iterable[Shelf]) -> Proof | None:
    """The one that reached furthest, of those the latest."""
    return max((p for s in shelves for p in s.proofs), key=lambda p: (rank(p.position), p.at), default=None)


def estimate_s(backup: Backup, shelves: Iterable[Shelf]) -> float:
    """How long a proof of it takes, by the last one and by the sizes of both."""
    shelves = tuple(shelves)
    last = last_proof(shelves)
    sizes = {b.id: b.size for s in shelves for b in s.backups}
    if last is None or not sizes.get(last.id):
        return _START_S + backup.size / _BYTES_S
    return last.took_s * max(1.0, backup.size / sizes[last.id])
