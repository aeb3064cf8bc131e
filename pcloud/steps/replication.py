"""The database's roles: who accepts writes and holds the address, who follows, and whether commits wait.

In the guest, `/usr/lib/pcloud/primary` takes and releases the role and says whether commits wait, `follow`
makes a copy a replica (templates/servers/mariadb). The role is a file on the server's own disk, so that a
primary that is only started again is the primary again. A position is a GTID list, as MariaDB writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.clock import Deadline
from pcloud.errors import Blocked, CheckFailed, DeadlineExceeded, PcloudError
from pcloud.gtid import behind, given_up, rank
from pcloud.kept import FOREVER_MS
from pcloud.model import SemiSync as SemiSyncPolicy
from pcloud.steps.base import Answer, Met, Report, Unmet, World
from pcloud.steps.database import CLIENT, holds_data
from pcloud.steps.room import FULL, find_full, make_room

PRIMARY = "/usr/lib/pcloud/primary"
FOLLOW = "/usr/lib/pcloud/follow"
TAKEN = 4
"""How `primary take` ends when somebody else holds the address."""
OLDER = 2
"""How `primary` ends when it does not know a word: the server was made by an earlier pcloud."""
STUCK = 6
"""How `primary promote` ends when a transaction cannot be applied."""

ROLE_S = 30
SQL_S = 30
STATUS_S = 10
POLL_S = 0.5
LATE_S = 10
"""A replica that follows under load is some seconds behind now and then; more is not caught up."""
HEARD = (
    "SELECT TIMESTAMPDIFF(MICROSECOND, at, UTC_TIMESTAMP(3)) / 1000000 AS age,"
    " DATE_FORMAT(at, '%Y-%m-%dT%H:%i:%sZ') AS moment, position, acked FROM pcloud.heard WHERE id = 1"
)
"""What a replica noted of its primary: how long ago, when, and where it was level with it; whether it acknowledged."""


def read_heard(row: Mapping[str, Any]) -> dict[str, Any]:
    """As fields of a `SeenDatabase`."""
    acked = row["acked"]
    return {
        "heard_s": max(0.0, float(row["age"])),
        "heard_at": str(row["moment"]),
        "heard_position": str(row["position"] or ""),
        "acknowledges": None if acked is None else bool(int(acked)),
    }


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


def timeline(world: World, server: str) -> int:
    """The domain of the newest timeline of the server's data; 0 where none was ever begun."""
    rows = sql(world, server, _TIMELINE)
    return int(rows[0][0]) if rows and rows[0][0].isdigit() else 0


_TIMELINE = (
    "SET @named = (SELECT COUNT(*) FROM information_schema.tables"
    " WHERE table_schema = 'pcloud' AND table_name = 'timelines'); "
    "EXECUTE IMMEDIATE IF(@named, 'SELECT COALESCE(MAX(domain), 0) FROM pcloud.timelines', 'SELECT 0');"
)


def replication(world: World, server: str) -> Mapping[str, str]:
    """`SHOW SLAVE STATUS` by name; empty for who follows nobody. Raises `CheckFailed` where its disk is full."""
    argv = [*(word for word in CLIENT if word not in ("--batch", "--skip-column-names")), "--vertical"]
    try:
        said = world.server_shell(server).run(argv, stdin=b"SHOW SLAVE STATUS\n", deadline_s=STATUS_S).stdout
    except DeadlineExceeded:
        if find_full(world, server) is None:
            raise
        raise CheckFailed(FULL, where=server, next=make_room(world.site.site, server)) from None
    return dict(re.findall(r"^ *(\w+): ?(.*)$", said, re.MULTILINE))


def refused(world: World, server: str, answer: Answer) -> PcloudError:
    """Why the server did not become the primary."""
    said, site = answer.stderr.strip(), world.site.site
    if answer.exit_code == TAKEN:
        return Blocked(
            f"another machine answers at the database's address: {said}",
            where=server,
            next=f"find it (pcloud ssh {site}/{server} -- ip neigh) and take the address from it; "
            f"then pcloud recover {site}",
        )
    stuck = re.search(r"^(\S+) (\d+) (.*)$", said, re.MULTILINE)
    if answer.exit_code != STUCK or stuck is None:
        why = said or f"its command ended with {answer.exit_code}"
        return CheckFailed(f"it cannot become the primary: {why}", where=server)
    gtid, number, text = stuck.groups()
    error = f"error {number}: {text}" if number != "0" else text
    return Blocked(
        f"it received transaction {gtid} and cannot apply it: {error}",
        where=server,
        next=f"{how_to_mend(site, server)}, and run the same command again; or promote without it and all that came "
        f"after it, which are lost: pcloud recover {site} --accept-loss unknown",
    )


def how_to_mend(site: str, server: str) -> str:
    """What a person does where a transaction cannot be applied: MariaDB's error stays until its thread is started."""
    return f"mend it (pcloud ssh {site}/{server} -- mariadb) and START SLAVE SQL_THREAD there"


def timed(timeout_ms: int | None) -> list[str]:
    return [PRIMARY] if timeout_ms is None else [PRIMARY, "-t", str(timeout_ms)]


def _become(world: World, server: str, argv: list[str], deadline_s: float = ROLE_S) -> list[str]:
    """Gives the server the role; the lines that it prints."""
    machine = world.server_shell(server)
    answer = machine.run(argv, deadline_s=deadline_s, check=False)
    if answer.exit_code == OLDER:
        words = [w for w in argv[argv.index("take") if "take" in argv else 1 :] if w != "alone"]
        answer = machine.run([PRIMARY, *words], deadline_s=deadline_s, check=False)
    if answer.exit_code != 0:
        raise refused(world, server, answer)
    return answer.stdout.splitlines()


def say_commits(said: str) -> str:
    """Whether commits wait for a replica, from what the server says it has set."""
    if not said.isdigit():
        return "wait for no replica"
    return "wait for a replica" if int(said) == FOREVER_MS else f"wait for a replica, {int(said) / 1000:g} s at most"


@dataclass(frozen=True)
class Take:
    """One of the servers accepts writes at the service address: who does already, by its own disk, or who has most.

    Neither a replica nor data that end before `known`, the last position that was seen: those take the role
    with their loss measured and said, once they answer. `timeout_ms` is how long its
    commits wait for a replica (None: as it was made, or told last); `alone` says that there is none to wait for,
    which a policy that waits for ever does not hear.
    """

    servers: tuple[str, ...]
    database: str
    timeout_ms: int | None = None
    alone: bool = False
    known: str = ""
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
        short = given_up(positions[best], self.known, timeline(world, best))
        if best in copies or short:
            what = f"its data end {short} transactions before what was seen" if short else "it is a replica"
            raise Blocked(
                f"{what}, and no disk that is left says that it was the primary's: what is given up with it is "
                "measured now that it answers",
                where=best,
                next=f"pcloud recover {world.site.site}",
            )
        report.progress("taking the address")
        said = _become(world, best, [*timed(self.timeout_ms), "take", *(["alone"] if self.alone else [])])
        return {"commits": say_commits(said[1])} if len(said) > 1 else {}


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
class Commits:
    """What a server says of its commits: whether they wait, how long at most, and for how many replicas that answer."""

    primary: bool
    enabled: bool
    timeout_ms: int
    acknowledged: bool
    alone: bool
    """It was told that its replica is gone, and knows it after a start, too."""


def commits(world: World, server: str) -> Commits:
    answer = world.server_shell(server).run([PRIMARY, "commits"], deadline_s=SQL_S, check=False)
    if answer.exit_code == OLDER:
        return _ask_commits(world, server)
    if answer.exit_code != 0:
        raise CheckFailed(f"it does not say whether commits wait: {answer.stderr.strip()}", where=server)
    said = answer.stdout.split()
    role, enabled, timeout, status, replicas, memory = said
    waited = status == "ON" and replicas != "0"
    return Commits(role == "primary", enabled == "1", int(timeout), waited, memory == "alone")


def _ask_commits(world: World, server: str) -> Commits:
    """Of a server that an earlier pcloud made: what its MariaDB says. It remembers nothing over a start."""
    rows = sql(
        world,
        server,
        "SELECT @@rpl_semi_sync_master_enabled, @@rpl_semi_sync_master_timeout;"
        " SHOW STATUS LIKE 'Rpl_semi_sync_master_status'",
    )
    enabled = rows[0][0] == "1"
    return Commits(is_primary(world, server), enabled, int(rows[0][1]), rows[1][1] == "ON", not enabled)


@dataclass(frozen=True)
class SemiSync:
    """Commits wait for a replica (`on`), `timeout_ms` at most, or for none; where the server is the primary."""

    server: str
    on: bool
    timeout_ms: int
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        found = commits(world, self.server)
        if not self.on:
            told = found.alone or not found.primary
            return Met() if not found.enabled and told else Unmet("commits wait for a replica that is gone")
        if not found.primary:
            return Met({"primary": "another one"})
        if not found.enabled or found.timeout_ms != self.timeout_ms:
            return Unmet("commits do not wait" if not found.enabled else f"commits wait {found.timeout_ms / 1000:g} s")
        if not found.acknowledged or found.alone:
            return Unmet("no replica acknowledges")
        return Met({"position": position(world, self.server)})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        shell = world.server_shell(self.server)
        if self.on:
            report.progress("waiting for the replica's acknowledgement")
        argv = [*timed(self.timeout_ms), "waits", f"{ROLE_S}"] if self.on else [PRIMARY, "alone"]
        answer = shell.run(argv, deadline_s=2 * ROLE_S, check=False)  # the check says what it came to
        if answer.exit_code == OLDER:
            self._set(world, report)
        return {}

    def _set(self, world: World, report: Report) -> None:
        """On a server that an earlier pcloud made."""
        values = f"rpl_semi_sync_master_timeout={self.timeout_ms}, GLOBAL rpl_semi_sync_master_enabled={self.on:d}"
        sql(world, self.server, f"SET GLOBAL {values}")
        deadline = Deadline.after(ROLE_S, world.clock)
        while self.on and not commits(world, self.server).acknowledged and not deadline.passed():
            if report.stopping():
                return
            world.clock.sleep(POLL_S)


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
            _become(world, self.new, [PRIMARY, "promote", f"{self.pause_s:g}", last], self.pause_s + ROLE_S)
        except PcloudError:
            _become(world, self.old, [PRIMARY, "take"])
            raise
        return {"pause_s": round(world.clock.now() - began, 2), "last": last}
