"""What hosts keep: thinned, shared, remembered, and asked whether a restore from it reaches now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pcloud.backupnotes import name_of, read_notes
from pcloud.backups import choose, expired, missed, needless, tell_hole
from pcloud.clock import Deadline
from pcloud.errors import CheckFailed, PcloudError
from pcloud.gtid import behind
from pcloud.kept import Stretch
from pcloud.steps.backup import LIST_S, POLL_S, SHORT_S, STREAM_S, find_backup, folder_of, keep, look, renew
from pcloud.steps.base import Met, Report, Unmet, World, path_in
from pcloud.steps.pipe import pipe
from pcloud.steps.replication import position

ENOUGH = 3
"""How many hosts have to remember the last backup; the others do where they can be told."""


@dataclass(frozen=True)
class Thin:
    """The host keeps the `keep` latest backups and the one `just` made, and of the binary log what continues them."""

    host: str
    keep: int
    just: str = ""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        shelf = look(world, self.host)
        gone = expired(shelf.backups, self.keep, self.just)
        if gone:
            return Unmet(f"{len(gone)} backups are more than {self.keep}")
        return Met({"backups": len(shelf.backups)})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        shelf = look(world, self.host)
        gone = expired(shelf.backups, self.keep, self.just)
        limits = needless([b for b in shelf.backups if b.id not in gone], shelf.stretches)
        said = ",".join(f"{line}/{domain}/{number}" for line, domain, number in limits)
        keep(world, self.host, "thin", said, *gone, deadline_s=LIST_S)
        return {"deleted": len(gone)}


@dataclass(frozen=True)
class Share:
    """The host has of the binary log what it missed and another one of `hosts` keeps."""

    host: str
    hosts: tuple[str, ...]
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        missed = self._missed(world)
        return Unmet(f"{missed[0][0]} keeps what it missed") if missed else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        program = f"{folder_of(world, self.host)}/keep"
        missed = self._missed(world)
        for other, stretch, name in missed:
            pipe(
                world.shell(other),
                [f"{folder_of(world, other)}/keep", "hand", stretch.line, stretch.session],
                world.shell(self.host),
                [program, "add", stretch.line, name],
                deadline_s=self.timeout_s,
                sent=lambda n: report.progress("copying the binary log", n, 0, "B"),
            )
        return {"sessions": len(missed)}

    def _missed(self, world: World) -> tuple[tuple[str, Stretch, str], ...]:
        """The other's name, its stretch, and what the stretch is called here."""
        own, others = look(world, self.host), (look(world, h) for h in self.hosts if h != self.host)
        return tuple((o.host, t, f"{t.session}-{o.host}") for o in others for t in missed(own, o))


@dataclass(frozen=True)
class Reaches:
    """A restore from what the hosts keep would reach where the primary was a moment ago."""

    primary: str
    hosts: tuple[str, ...]
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        wanted = position(world, self.primary)
        choice = choose([look(world, h) for h in self.hosts])
        if choice is None:
            return Unmet("no host keeps a backup")
        if late := behind(choice.end, wanted):
            holes = "".join(f"; {tell_hole(hole)}" for hole in choice.holes)
            return Unmet(
                f"a restore would reach {choice.end}, {late} transactions before the primary's {wanted}{holes}"
            )
        return Met({"reaches": choice.end, "from": choice.backup.id})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        deadline = Deadline.after(STREAM_S, world.clock)
        while isinstance(found := self.check(world), Unmet):
            if deadline.passed() or report.stopping():
                remedy = f"a backup needs nothing from before it: pcloud backup {world.site.site}"
                raise CheckFailed(found.why, where=self.primary, next=remedy)
            report.progress(found.why)
            world.clock.sleep(POLL_S)
        return {}


@dataclass(frozen=True)
class Pass:
    """The host has the backup `id`, which one of `hosts` keeps: the same bytes, hashed there after they arrived."""

    host: str
    hosts: tuple[str, ...]
    id: str
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        found = find_backup(world, self.host, self.id)
        return Unmet("the backup is not there") if found is None else Met({"backup": found.id})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        folder = folder_of(world, self.host)
        for other in self.hosts:
            backup = find_backup(world, other, self.id)
            if backup is None:
                continue
            give = [renew(world, other), "give", self.id]
            sent = lambda n, size=backup.size: report.progress("copying", n, size, "B")  # noqa: E731
            taker = world.shell(self.host)
            pipe(
                world.shell(other),
                give,
                taker,
                [f"{folder}/keep", "part", self.id],
                deadline_s=self.timeout_s,
                sent=sent,
            )
            report.progress("hashing")
            keep(
                world, self.host, "seal", self.id, backup.sha256, json.dumps(asdict(backup)), deadline_s=self.timeout_s
            )
            return {"copied_from": other}
        raise CheckFailed(
            "no host that answers keeps it any more", where=self.id, next=f"pcloud backup {world.site.site}"
        )


@dataclass(frozen=True)
class NoteBackup:
    """Hosts remember the backup `id`, and that `keepers` keep it; and no other one. `ENOUGH` of them have to."""

    hosts: tuple[str, ...]
    keepers: tuple[str, ...]
    id: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        know = [h for h in self.hosts if self._knows(world, h)]
        if len(know) < min(ENOUGH, len(self.hosts)):
            return Unmet(f"{len(know)} hosts know of it")
        return Met({"hosts": know})

    def _knows(self, world: World, host: str) -> bool:
        with suppress(PcloudError):
            noted = read_notes(world.site.site, world.hypervisor(host).volumes(world.host(host).pool)).values()
            return [(n.id, n.hosts) for n in noted] == [(self.id, tuple(sorted(self.keepers)))]
        return False

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        site = world.site.site
        backup = next((b for k in self.keepers if (b := find_backup(world, k, self.id)) is not None), None)
        if backup is None:
            raise CheckFailed("no host keeps it", where=self.id, next=f"pcloud backup {site}")
        name = name_of(site, backup, self.keepers)
        for host in self.hosts:
            report.progress(f"telling {host}")
            with suppress(PcloudError):
                self._tell(world, host, name)
        return {}

    def _tell(self, world: World, host: str, name: str) -> None:
        pool, shell = world.host(host).pool, world.shell(host)
        shell.write(path_in(pool, name), b"", deadline_s=SHORT_S)
        old = [n for n in read_notes(world.site.site, world.hypervisor(host).volumes(pool)) if n != name]
        if old:
            shell.run(["rm", "-f", "--", *(path_in(pool, n) for n in old)], deadline_s=SHORT_S)
