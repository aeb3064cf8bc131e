"""What hosts keep of the database, for `pcloud backup --list` and `pcloud status`: a table's rows, and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pcloud.gtid import rank
from pcloud.kept import Backup, Proof, Shelf
from pcloud.proofs import last_proof
from pcloud.render.words import aged, size

COLUMNS = ("host", "backup", "taken", "position", "size", "tested", "compared with the replica", "binary log up to")


def backup_rows(shelves: Sequence[Shelf], now: datetime) -> list[tuple[str, ...]]:
    """In the words of `COLUMNS`: each host's backups, the latest first, and those that are damaged."""
    rows: list[tuple[str, ...]] = []
    for shelf in shelves:
        kept = [_row(b, shelf, now) for b in reversed(shelf.backups)] or [("none", "", "", "", "", "")]
        kept += [(d, "", "", "", "damaged", "") for d in shelf.damaged]
        log = _log(shelf, now)
        rows += [(shelf.host if n == 0 else "", *row, log if n == 0 else "") for n, row in enumerate(kept)]
    return rows


def _row(backup: Backup, shelf: Shelf, now: datetime) -> tuple[str, ...]:
    proof = last_proof([Shelf("", proofs=tuple(p for p in shelf.proofs if p.id == backup.id))])
    taken, tested = aged(backup.taken, now), aged(backup.tested, now)
    compared = "not yet" if proof is None else f"{'differs' if proof.wrong else 'alike'} at {proof.position}"
    when = f" ({aged(proof.at, now)})" if proof is not None else ""
    return backup.id, taken, backup.position, size(backup.size), tested, f"{compared}{when}"


def _log(shelf: Shelf, now: datetime) -> str:
    last = max(shelf.stretches, key=lambda t: rank(t.end), default=None)
    if last is None:
        return "none"
    when = f" ({aged(last.ended, now)})" if last.ended else ""
    return f"{last.end}{when}{'' if shelf.streaming else ', not streaming'}"


def proof_line(shelves: Sequence[Shelf], site: str, now: datetime) -> str:
    """How far backups were compared with the replica, and when; nothing where there is none."""
    if not any(s.backups for s in shelves):
        return ""
    proof = last_proof(shelves)
    if proof is None:
        return f"No backup was compared with the replica yet: pcloud backup {site} --prove"
    return tell_proof(proof, now)


def tell_proof(proof: Proof, now: datetime) -> str:
    """One sentence."""
    what = f"The backup {proof.id}, replayed to {proof.position}, "
    if proof.wrong:
        return f"{what}differed from {proof.server} at {aged(proof.at, now)}: {'; '.join(proof.wrong[:5])}."
    return f"{what}was what {proof.server} had: {proof.tables} tables, {proof.rows} rows ({aged(proof.at, now)})."
