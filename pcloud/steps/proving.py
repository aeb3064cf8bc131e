"""The newest backup, replayed and compared with what the replica has: table by table, at one position."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pcloud.backups import TIME, Choice, choose
from pcloud.clock import Deadline
from pcloud.errors import CheckFailed, PcloudError
from pcloud.kept import Proof, Shelf, Target
from pcloud.likeness import (
    LISTING,
    Likeness,
    ask_definitions,
    ask_rows,
    differences,
    position_of,
    read_likeness,
    unstable,
)
from pcloud.proofs import estimate_s
from pcloud.steps.backup import BACKUP, POLL_S, SHORT_S, STREAM_S, keep, look
from pcloud.steps.base import Met, Report, Unmet, World
from pcloud.steps.database import CLIENT, give_accounts
from pcloud.steps.restoring import PROOF, make

TRIES = 3
"""How often the replica is read anew when a table's definition changed meanwhile."""
CHANGED = r"ERROR (1412|1205|1146|1051)\b"
"""It is another one than at the snapshot's beginning; it is being changed; the table is gone."""


@dataclass(frozen=True)
class Compare:
    """The newest backup and all that follows were replayed beside the replica's data, and are what the replica has.

    Nothing is held for it: the replica's rows are read in one snapshot, of which MariaDB knows the position, while it
    goes on applying; the snapshot ends by itself when nobody reads it (`likeness.READ_S`). Like a gate it changes
    nothing of the site, and is not asked twice.
    """

    server: str
    """The replica."""
    hosts: tuple[str, ...]
    """Who is asked what they keep."""
    timeout_s: float
    within_s: float = 0
    """What would take longer is left to `pcloud backup --prove`; 0: nothing is."""
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:  # noqa: ARG002
        return Unmet("nobody has compared it yet")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        site, began, shelves = world.site.site, world.clock.now(), self._shelves(world)
        newest = choose(shelves)
        if newest is None:
            raise CheckFailed("no host that answers keeps a backup", where=site, next=f"pcloud backup {site}")
        if self.within_s and (needed := estimate_s(newest.backup, shelves)) > self.within_s:
            return {"not compared": f"it would take about {needed:.0f} s: pcloud backup {site} --prove"}
        there = self._read_replica(world, report)
        at = position_of(there)
        choice = self._reach(world, at, report)
        try:
            used, _ = make(world, self.server, "proof", choice, report)
            report.progress("reading every table of it")
            give_accounts(world.server_shell(self.server), f"{PROOF}/mysqld.sock")
            made = self._read(world, "/proof")
        except PcloudError as error:
            if "have no room" in error.what:
                error.next = f"give {self.server} a larger disk (disk_gib)"
            raise
        finally:
            with suppress(PcloudError):
                world.server_shell(self.server).run([BACKUP, "close", "proof"], deadline_s=SHORT_S)
        wrong = differences(there, made)
        took_s, now = round(world.clock.now() - began), world.clock.wall().strftime(TIME)
        proof = Proof(used.backup.id, at, now, self.server, len(there.tables), there.rows, took_s, wrong[:20])
        self._keep(world, used, proof)
        if wrong:
            more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise CheckFailed(
                f"at {at} the backup of {used.backup.taken} with its binary log is not what {self.server} has: "
                f"{'; '.join(wrong[:5])}{more}",
                where=self.server,
                next=f"look at both (pcloud restore {site} --to {at} --beside); if the primary agrees with the backup: "
                f"pcloud recover {site} --rebuild {self.server}; else make another backup: pcloud backup {site}",
            )
        return {"backup": used.backup.id, "reached": at, "tables": proof.tables, "rows": proof.rows}

    def _shelves(self, world: World) -> list[Shelf]:
        found = []
        for host in self.hosts:
            with suppress(PcloudError):
                found.append(look(world, host))
        return found

    def _read_replica(self, world: World, report: Report) -> Likeness:
        """As it was at the snapshot's position: what no snapshot covers was the same before and after it."""
        changed: tuple[str, ...] = ()
        for _ in range(TRIES):
            report.progress(f"reading every table of {self.server}")
            try:
                before = self._definitions(world, "")
                rows = self._ask(world, "", ask_rows(before.tables))
            except PcloudError as error:
                if not re.search(CHANGED, error.what):
                    raise
                changed = (error.what,)
                continue
            if not (changed := unstable(before, self._definitions(world, ""))):
                return before | rows
        raise CheckFailed(
            f"it could not be read as of one moment, {TRIES} times: {', '.join(changed[:5])} changed meanwhile",
            where=self.server,
            next=f"when nobody changes tables: pcloud backup {world.site.site} --prove",
        )

    def _read(self, world: World, place: str) -> Likeness:
        found = self._definitions(world, place)
        return found | self._ask(world, place, ask_rows(found.tables))

    def _definitions(self, world: World, place: str) -> Likeness:
        listed = self._ask(world, place, LISTING)
        return listed | self._ask(world, place, ask_definitions(listed.tables))

    def _ask(self, world: World, place: str, text: str) -> Likeness:
        """Of the server's own data, or of those in a place of it; by a client that ends with them, whoever waits."""
        options = [f"--socket=/var/lib/pcloud{place}/mysqld.sock"] if place else []
        argv, machine = ["timeout", f"{self.timeout_s:.0f}", *CLIENT, *options], world.server_shell(self.server)
        deadline_s = self.timeout_s + SHORT_S
        said = machine.run(argv, stdin=text.encode(), deadline_s=deadline_s, max_output=64 << 20)
        return read_likeness(said.stdout)

    def _reach(self, world: World, at: str, report: Report) -> Choice:
        """What leads to the position, once the hosts have it: the primary had it before the replica."""
        deadline = Deadline.after(STREAM_S, world.clock)
        while (choice := choose(self._shelves(world), Target(gtid=at))) is None:
            if deadline.passed() or report.stopping():
                raise CheckFailed(
                    f"what the hosts keep does not lead to {at}, where {self.server} is",
                    where=world.site.site,
                    next=f"see what is missing: pcloud backup {world.site.site} --list",
                )
            report.progress(f"waiting for the hosts to have {at}")
            world.clock.sleep(POLL_S)
        return choice

    def _keep(self, world: World, used: Choice, proof: Proof) -> None:
        """Beside the backup, on each host that has it."""
        told = []
        for host in used.hosts:
            with suppress(PcloudError):
                keep(world, host, "prove", proof.id, json.dumps(asdict(proof)), deadline_s=SHORT_S)
                told.append(host)
        if not told:
            remedy = f"pcloud backup {world.site.site}, which gives the hosts their program anew"
            raise CheckFailed("no host keeps the proof", where=" and ".join(used.hosts), next=remedy)
