"""What would be lost if every host with the data died now, from what the others keep; and what stands in its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pcloud.backups import TIME, choose, tell_hole
from pcloud.chain import Hole
from pcloud.desired import Desired
from pcloud.gtid import behind
from pcloud.identity import carrier_names
from pcloud.kept import Shelf
from pcloud.observed import Observed
from pcloud.proofs import last_proof


@dataclass(frozen=True)
class Rpo:
    """The recovery point, as of now. Without a backup on another host `reaches` is None: nothing but the dump is left.

    `seconds` is the age of the last transaction that would be there, where any would be lost; None when unknown.
    """

    reaches: str | None
    transactions: int = 0
    seconds: int | None = 0
    holes: tuple[Hole, ...] = ()

    def __str__(self) -> str:
        if self.reaches is None:
            return "all since the dump would be lost: no other host that answers keeps a backup"
        if not self.transactions:
            return f"no transaction would be lost: other hosts lead to {self.reaches or 'where the data are'}"
        count = "1 transaction" if self.transactions == 1 else f"{self.transactions} transactions"
        late = "" if self.seconds is None else f" of the last {self.seconds} s"
        return f"{count}{late} would be lost: other hosts lead to {self.reaches}"


def measure_rpo(desired: Desired, observed: Observed) -> Rpo | None:
    """None where no primary answers: what is lost then is said before a restore."""
    seen = observed.data.databases.get(observed.data.holder)
    if seen is None or not seen.writable:
        return None
    choice = choose(_apart(desired, observed))
    if choice is None:
        return Rpo(None)
    lost = behind(choice.end, seen.position)
    return Rpo(choice.end, lost, _age(seen.clock, choice.ended) if lost else 0, choice.holes)


def _age(now: str, then: str) -> int | None:
    try:
        return max(0, int((datetime.strptime(now, TIME) - datetime.strptime(then, TIME)).total_seconds()))
    except ValueError:
        return None


def carrying(desired: Desired, observed: Observed) -> dict[str, str]:
    """Host to the server with the data that it carries."""
    site = desired.site
    return {h.name: name for name in carrier_names(site) for h, _ in observed.copies(site.site, name)}


def _apart(desired: Desired, observed: Observed) -> tuple[Shelf, ...]:
    hosts = carrying(desired, observed)
    return tuple(s for s in observed.data.shelves if s.host not in hosts)


def backup_alarms(desired: Desired, observed: Observed) -> Iterator[str]:
    """What makes backups worth less than they seem, each with what to do. Nothing for a site that never made any."""
    site, shelves, hosts = desired.site.site, observed.data.shelves, carrying(desired, observed)
    if not any(s.backups or s.streaming for s in shelves) and observed.data.last_backup is None:
        return
    last, streaming = observed.data.last_backup, {s.host for s in shelves if s.streaming}
    noted = set(last.hosts) if last is not None else set()
    for host in sorted((noted | streaming) & hosts.keys()):
        yield f"{host} keeps backups and carries {hosts[host]}: one loss takes both. Next: pcloud recover {site}"
    for host in sorted(noted):
        if host not in streaming:
            answers = any(s.host == host for s in shelves)
            what = "does not stream the binary log" if answers else "keeps backups and does not answer"
            yield f"{host} {what}. Next: pcloud backup {site}"
    proof = last_proof(shelves)
    if proof is not None and proof.wrong:
        what = f"the backup {proof.id} is not what {proof.server} had at {proof.position}: {'; '.join(proof.wrong[:5])}"
        yield f"{what}. Next: pcloud backup {site} --prove compares again"
    rpo = measure_rpo(desired, observed)
    for hole in rpo.holes if rpo is not None else ():
        yield f"{tell_hole(hole)}. Next: pcloud backup {site}, which needs nothing from before it"
