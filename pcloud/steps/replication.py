"""The database's roles: who accepts writes and holds the address, who follows, and whether commits wait.

In the guest, `/usr/lib/pcloud/primary` takes and releases the role, `copy-from` and `follow` make a
replica (templates/servers/mariadb). The role is a file on the server's own disk, so that a primary
that is only started again is the primary again. A position is a GTID list, as MariaDB writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.clock import Deadline
from pcloud.errors import Blocked, CheckFailed, PcloudError
from pcloud.gtid import behind, rank
from pcloud.kept import Timeline
from pcloud.model import SemiSync as SemiSyncPolicy
from pcloud.steps.base import Met, Report, Unmet, World
from pcloud.steps.database import CLIENT, holds_data

PRIMARY = "/usr/lib/pcloud/primary"
COPY_FROM = "/usr/lib/pcloud/copy-from"
FOLLOW = "/usr/lib/pcloud/follow"
TAKEN = 4
"""How `primary take` ends when somebody else holds the address."""

ROLE_S = 30
SQL_S = 30
POLL_S = 0.5
LATE_S = 10
"""A replica that follows under load is some seconds behind now and then; more is not caught up."""
FOREVER_MS = 2**31 - 1
"""A commit that waits this long (24 days) waits for a person."""


def wait_ms(policy: SemiSyncPolicy) -> int:
    """How long a commit waits for a replica before it goes on without one."""
    return FOREVER_MS if policy.alone == "wait" else round(policy.timeout_s * 1000)


def sql(world: World, server: str, text: str, *, deadline_s: float = SQL_S) -> list[list[str]]:
    """The rows of a server's own MariaDB, over SSH and its socket."""
    said = world.server_shell(server).run(CLIENT, stdin=f"{text}\n".encode(), deadline_s=deadline_s).stdout
    return [line.split("\t") for line in said.splitlines()]


def is_primary(world: World, server: str) -> bool:
    return world.server_shell(server).run([PRIMARY, "status"], deadline_s=ROLE_S).stdout.strip() == "primary"


def position(world: World, server: str) -> str:
    return sql(world, server, "SELECT @@gtid_current_pos")[0][0]


def replication(world: World, server: str) -> Mapping[str, str]:
    """`SHOW SLAVE STATUS` by name; empty for a server that follows nobody."""
    argv = [*(word for word in CLIENT if word not in ("--batch", "--skip-column-names")), "--vertical"]
    said = world.server_shell(server).run(argv, stdin=b"SHOW SLAVE STATUS\n", deadline_s=SQL_S).stdout
    return dict(re.findall(r"^ *(\w+): ?(.*)$", said, re.MULTILINE))


def _become(world: World, server: str, words: list[str], deadline_s: float = ROLE_S) -> str:
    """Gives the server the role; what it prints."""
    answer = world.server_shell(server).run([PRIMARY, *words], deadline_s=deadline_s, check=False)
    if answer.exit_code == TAKEN:
        raise Blocked(
            f"another machine answers at the database's address: {answer.stderr.strip()}",
            where=server,
            next=f"find it (pcloud ssh {world.site.site}/{server} -- ip neigh) and take the address from it; "
            f"then pcloud recover {world.site.site}",
        )
    if answer.exit_code != 0:
        raise CheckFailed(f"it cannot become the primary: {answer.stderr.strip()}", where=server)
    return answer.stdout.strip()


@dataclass(frozen=True)
class Take:
    """One of the servers accepts writes at the service address: who does already, by its own disk, or who has most.

    Not a replica: it is promoted, with its loss measured and said, once it answers.
    """

    servers: tuple[str, ...]
    database: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        for server in self.servers:
            if is_primary(world, server):
                return Met({"primary": server, "position": position(world, server)})
        return Unmet("no server is the primary")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        holding = [s for s in self.servers if holds_data(world, s, self.database)]
        if not holding:
            raise CheckFailed("no server holds the data", where=self.servers[0])
        positions = {s: position(world, s) for s in holding}
        copies = {s for s in holding if replication(world, s)}
        best = max(holding, key=lambda s: (rank(positions[s]), s not in copies, -self.servers.index(s)))
        if best in copies:
            raise Blocked(
                "it is a replica, and no disk that is left says that it was the primary's: what a promotion gives up "
                "is measured now that it answers",
                where=best,
                next=f"pcloud recover {world.site.site}",
            )
        report.progress("taking the address")
        _become(world, best, ["take"])
        return {}


@dataclass(frozen=True)
class Promote:
    """The replica is the primary, with everything that it had received. `rpo` is what that may lose, in words."""

    server: str
    rpo: str
    timeout_s: float
    timeline: Timeline | None = None
    """The one that begins with it."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        if is_primary(world, self.server):
            return Met({"primary": self.server, "rpo": self.rpo, "position": position(world, self.server)})
        return Unmet("it is a replica")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress("applying what was received, and taking the address")
        words = ["promote", f"{self.timeout_s:g}"]
        if self.timeline is not None:
            words += ["-", str(self.timeline.domain), self.timeline.why]
        return {"received": _become(world, self.server, words, self.timeout_s + ROLE_S)}


def _await(world: World, server: str, gtids: str, timeout_s: float) -> None:
    """Until the server's data hold `gtids`. Raises `CheckFailed`."""
    if not gtids:
        return
    if not re.fullmatch(r"[0-9,-]+", gtids):
        raise CheckFailed(f"no position: {gtids[:60]!r}", where=server)
    waited = sql(world, server, f"SELECT MASTER_GTID_WAIT('{gtids}', {timeout_s:.3f})", deadline_s=timeout_s + SQL_S)
    if waited != [["0"]]:
        look = f"pcloud ssh {world.site.site}/{server} -- mariadb -Ee 'SHOW SLAVE STATUS'"
        raise CheckFailed(f"it does not reach {gtids} within {timeout_s:g} s", where=server, next=look)


@dataclass(frozen=True)
class Seed:
    """The server's data are a whole copy of those at `address`, taken at one moment; or it is the primary itself."""

    server: str
    database: str
    address: str
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        if holds_data(world, self.server, self.database) or is_primary(world, self.server):
            return Met()
        return Unmet("it holds no whole copy")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress("copying the data")
        world.server_shell(self.server).run([COPY_FROM, self.address], deadline_s=self.timeout_s)
        return {"position": position(world, self.server)}


@dataclass(frozen=True)
class Follow:
    """The server replicates from `source` at `address`, and has caught up; or it is the primary itself.

    It has when it holds all that its source had after it began. MariaDB's own `Seconds_Behind_Master`
    is 0 until the first event arrives, then that event's age, so that it alone proves nothing.
    """

    server: str
    source: str
    address: str
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        why = self._wrong(replication(world, self.server))
        if why and not is_primary(world, self.server):
            return Unmet(why)
        return Met({"position": position(world, self.server)})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        deadline = Deadline.after(self.timeout_s, world.clock)
        world.server_shell(self.server).run([FOLLOW, self.address], deadline_s=SQL_S)
        goal = position(world, self.source)
        while why := self._wrong(found := replication(world, self.server)) or self._missing(world, goal):
            report.progress(why)
            error = found.get("Last_SQL_Error") or found.get("Last_IO_Error", "")
            if deadline.passed() or found.get("Last_SQL_Error") or report.stopping():
                raise CheckFailed(
                    f"it does not follow: {error or why}",
                    where=self.server,
                    next=f"make it anew: pcloud recover {world.site.site} --rebuild {self.server}",
                )
            world.clock.sleep(POLL_S)
        return {}

    def _wrong(self, found: Mapping[str, str]) -> str:
        """What keeps it from being a replica that is up to date; a clause, or nothing."""
        if found.get("Master_Host") != self.address:
            return "it follows nobody" if not found else f"it follows {found['Master_Host']}"
        for thread in ("IO", "SQL"):
            if found.get(f"Slave_{thread}_Running") != "Yes":
                return f"its {thread} thread is {found.get(f'Slave_{thread}_Running', 'gone').lower()}"
        late = found.get("Seconds_Behind_Master", "NULL")
        if not late.isdigit():
            return "it has not caught up"
        return f"it is {late} s behind" if int(late) > LATE_S else ""

    def _missing(self, world: World, goal: str) -> str:
        missing = behind(position(world, self.server), goal)
        return f"it is {missing} transactions behind" if missing else ""


@dataclass(frozen=True)
class SemiSync:
    """Commits wait for a replica (`on`), `timeout_ms` at most, or for none; where the server is the primary."""

    server: str
    on: bool
    timeout_ms: int
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        (enabled, timeout), status = self._read(world)
        if not self.on:
            return Met() if enabled == "0" else Unmet("commits wait for a replica that is gone")
        if enabled == "1" and timeout == str(self.timeout_ms) and status == "ON":
            return Met({"position": position(world, self.server)})
        if not is_primary(world, self.server):
            return Met({"primary": "another one"})
        return Unmet("commits do not wait" if enabled != "1" else "no replica acknowledges")

    def _read(self, world: World) -> tuple[tuple[str, str], str]:
        rows = sql(
            world,
            self.server,
            "SELECT @@rpl_semi_sync_master_enabled, @@rpl_semi_sync_master_timeout;"
            " SHOW STATUS LIKE 'Rpl_semi_sync_master_status'",
        )
        return (rows[0][0], rows[0][1]), rows[1][1]

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        words = ["wait", str(self.timeout_ms)] if self.on else ["alone"]
        world.server_shell(self.server).run([PRIMARY, *words], deadline_s=ROLE_S)
        deadline = Deadline.after(ROLE_S, world.clock)
        while self.on and self._read(world)[1] != "ON" and not deadline.passed() and not report.stopping():
            report.progress("waiting for the replica's acknowledgement")
            world.clock.sleep(POLL_S)
        return {}


@dataclass(frozen=True)
class Switch:
    """`new` is the primary in place of `old`, which gave the role up and lost nothing.

    Writes pause from the old one's release to the new one's take. When the new one does not
    reach the old one's last position within `pause_s`, the old one takes the role again.
    """

    old: str
    new: str
    pause_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        if is_primary(world, self.new) and not is_primary(world, self.old):
            return Met({"primary": self.new, "position": position(world, self.new)})
        return Unmet(f"{self.new} is a replica")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress(f"{self.new} catches up")
        _await(world, self.new, position(world, self.old), self.pause_s)
        began = world.clock.now()
        report.progress("writes pause")
        try:
            last = world.server_shell(self.old).run([PRIMARY, "release"], deadline_s=ROLE_S).stdout.strip()
            _become(world, self.new, ["promote", f"{self.pause_s:g}", last], self.pause_s + ROLE_S)
        except PcloudError:
            _become(world, self.old, ["take"])
            raise
        return {"pause_s": round(world.clock.now() - began, 2), "last": last}
