"""The data on a simulated server's disk, and the shell of the server that serves them.

A position is the number of the last transaction: MariaDB's sequence number, in one domain.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from pcloud.errors import CommandFailed, HostUnreachable
from pcloud.gtid import behind
from pcloud.kept import FOREVER_MS
from pcloud.observed import SeenDatabase
from pcloud.steps.backup import BACKUP
from pcloud.steps.copying import COPY_FROM, COPY_TO
from pcloud.steps.door import DOOR
from pcloud.steps.replication import FOLLOW, HEARD, PRIMARY, ROLE_S, TAKEN

if TYPE_CHECKING:
    from tests.simulation import SimWorld

COPY_S, RESTORE_S, INDEX_S = 6.0, 10.0, 4.0
"""How long the real work takes, on virtual time."""
SILENCE_S = 5.0


def gtid(position: int, domain: int = 0, past: Mapping[int, int] = MappingProxyType({})) -> str:
    """As MariaDB writes it; `past` is how far the timelines before went."""
    parts = [*past.items(), *([(domain, position)] if position else [])]
    return ",".join(f"{d}-1-{number}" for d, number in parts)


@dataclass(frozen=True)
class Said:
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""


@dataclass
class SimData:
    """What a disk keeps of a server's data, role and index; and what is gone when it stops."""

    state: str = ""
    token: str = ""
    position: int = 0
    """Of the last transaction, in the timeline's domain."""
    domain: int = 0
    """The timeline's."""
    past: Mapping[int, int] = field(default_factory=dict)
    """How far the timelines went that this one came from, by domain."""
    primary: bool = False
    """The file that says so."""
    source: str = ""
    index: int = -1
    """The position that the index was built at; -1 without one."""
    stamp: str = ""
    running: bool = field(default=False)
    """Both replication threads."""
    semi_sync: bool = False
    received: int = 0
    timeout: str = "30000"
    orders: tuple[int, ...] = ()
    """Shoppers' orders on this disk."""
    relayed: tuple[int, ...] = ()
    """The same with what was received and not applied yet."""
    slow: bool = False
    """It receives, and applies nothing: a long statement is in its way."""
    late: list[str] = field(default_factory=list)
    """What `SHOW SLAVE STATUS` says of its lateness, one answer after the other, while it has not caught up."""
    error: str = ""
    """Why it cannot follow: its data and its source's went different ways."""
    heard: float | None = None
    """When it last heard its primary; kept on its disk."""
    acked: bool = False
    """Its primary waited for its acknowledgement then."""
    copying: tuple[str, float] | None = None
    """Whose data are on their way to it, by the address, and when they will be whole; a power cut ends that."""

    def starts(self) -> None:
        """A boot: the role comes from the disk, and a primary's commits wait as before; replication does not start."""
        self.running, self.semi_sync, self.slow = False, self.semi_sync and self.primary, False
        self.copying = None

    @property
    def reached(self) -> str:
        """Its position as MariaDB writes it."""
        return gtid(self.position, self.domain, self.past)

    def begin_timeline(self, domain: int) -> None:
        if self.position:
            self.past = {**self.past, self.domain: self.position}
        self.domain, self.position, self.received = domain, 1, 0

    def copy_on(self, address: str, until: float, source: SimData | None, now: float) -> None:
        """A copy goes on by itself, until it is whole or its source is gone."""
        if source is None:
            self.copying = None
        elif now >= until:
            self.state, self.token, self.source, self.copying = source.state, source.token, address, None
            self.position, self.domain, self.past, self.received = source.position, source.domain, dict(source.past), 0
            self.orders = self.relayed = source.orders

    def receive(self, source: SimData, now: float) -> None:
        """What the source has and this one lacks; nothing when this one has what the source never had."""
        if self.relayed[: len(self.orders)] != self.orders:
            self.relayed = self.orders
        if source.orders[: len(self.relayed)] != self.relayed:
            self.error = "an error 1236: it has orders that its source never had"
            return
        if source.domain != self.domain:
            self.domain, self.past, self.position, self.received = source.domain, dict(source.past), 0, 0
        self.relayed, self.received = source.orders, max(self.received, source.position)
        self.heard, self.acked = now, source.semi_sync
        if not self.slow and not self.late:
            self.apply()

    def apply(self) -> None:
        """What was received is in the tables."""
        self.position = max(self.position, self.received)
        if len(self.relayed) > len(self.orders):
            self.orders = self.relayed

    @property
    def tables(self) -> int:
        return 60 if self.state in ("restored", "copying") else 0


@dataclass
class SimGuest:
    """A server's shell: its database client, its role, and its indexer."""

    world: SimWorld
    name: str

    @property
    def data(self) -> SimData:
        found = self.world.find_data(self.name)
        if found is None:
            raise HostUnreachable("no answer", where=self.name)
        return found

    def run(self, argv: Sequence[str], *, stdin: bytes | BinaryIO | None = None, **_: Any) -> Said:  # noqa: C901 (a program each)
        if not self.world.answering(self.name):
            self.world.clock.work(SILENCE_S)
            raise HostUnreachable("no answer", where=self.name)
        match list(argv):
            case ["mariadb", *options]:
                text = (stdin if isinstance(stdin, bytes) else stdin.read() if stdin else b"").decode()
                if "--loose-sandbox" in options:
                    return self._load()
                return self._status() if "--vertical" in options else self._sql(text)
            case [program, "-t", timeout, verb, *rest] if program == PRIMARY:
                return self._role(verb, rest, timeout)
            case [program, verb, *rest] if program == PRIMARY:
                return self._role(verb, rest)
            case [program, address] if program == FOLLOW:
                return self._follow(address)
            case [program, verb, *_] if program in (COPY_FROM, COPY_TO, DOOR):
                return self._copying(verb, stdin)
            case ["test", "-x", program] if program == DOOR:
                pass
            case words if tuple(words) == self.world.site.search.argv:
                self.world.clock.work(INDEX_S)
                self.world.effect()
                self.data.index = self.world.source_of(self.name).position
                self.world.effect()
            case ["cat" | "/usr/lib/pcloud/backup", *_] as words:
                return self._beside(words)
            case ["sh", "-c", script, "sh", _] if "</etc/mysql/accounts.sql" in script:
                pass
            case _:
                raise AssertionError(f"the simulation knows no {shlex.join(argv)}")
        return Said()

    def _beside(self, words: list[str]) -> Said:
        """What a proof asks: a MariaDB beside its own; or the index's stamp."""
        if words[0] == BACKUP:
            self.world.clock.work(RESTORE_S / 4)
            return Said()
        return Said(0, self.data.stamp)

    def write(self, path: str, data: bytes, **_: Any) -> None:
        self.world.effect()
        self.data.stamp = data.decode()
        self.world.effect()

    def tail(self, path: str, **_: Any) -> str:
        raise AssertionError(f"no step reads the end of a server's {path}")

    def _role(self, verb: str, rest: list[str], timeout: str = "") -> Said:  # noqa: C901 (a verb each)
        match verb:
            case "commits":
                return self._commits()
            case "waits" | "alone":
                self.world.effect()
                self.data.timeout, self.data.semi_sync = timeout or self.data.timeout, verb == "waits"
                self.world.effect()
                if verb == "waits" and not self.world.followers(self.name):
                    self.world.clock.work(ROLE_S)
            case "status":
                return Said(0, "primary\n" if self.data.primary else "replica\n")
            case "take" | "promote":
                others = [s for s in self.world.holders() if s != self.name]
                if others:
                    return Said(TAKEN, "", f"the address is taken by {others[0]}")
                self.world.effect()
                if verb == "promote":
                    self.data.apply()
                    self.data.running, self.data.source, self.data.received = False, "", 0
                    self.world.effect()
                    if len(rest) > 2:
                        self.data.begin_timeline(int(rest[2]))
                        self.world.effect()
                self.data.primary = True
                if self.world.site.database.semi_sync.alone == "wait":
                    self.data.timeout, self.data.semi_sync = str(FOREVER_MS), True
                self.world.effect()
            case "release":
                self.world.effect()
                self.data.primary = self.data.semi_sync = False
                self.world.effect()
                return Said(0, f"{self.data.reached}\n")
        return Said()

    def _commits(self) -> Said:
        data = self.data
        replicas = len([d for d in self.world.followers(self.name) if d.running])
        role, memory = ("primary" if data.primary else "replica"), ("together" if data.semi_sync else "alone")
        state = "ON" if data.semi_sync and replicas else "OFF"
        return Said(0, f"{role} {int(data.semi_sync)} {data.timeout} {state} {replicas} {memory}\n")

    def _copying(self, verb: str, stdin: bytes | BinaryIO | None) -> Said:
        match verb:
            case "offer" if self.data.state == "restored":
                return Said(0, "100000000 10.11.19-MariaDB\n")
            case "offer":
                raise CommandFailed("its data are not whole", where=self.name)
            case "begin":
                assert isinstance(stdin, bytes)
                return self._copy(stdin.split(b"\n")[0].decode().split()[-1])
            case "ask":
                return self._ask_copy()
        self.world.effect()
        return Said()

    def _copy(self, address: str) -> Said:
        """It goes on by itself."""
        self.world.effect()
        self.data.state, self.data.token, self.data.source, self.data.running = "copying", "", "", False
        self.data.orders = self.data.relayed = ()
        self.data.copying = (address, self.world.clock.now() + COPY_S)
        self.world.effect()
        return Said()

    def _ask_copy(self) -> Said:
        data = self.data
        if (copying := data.copying) is not None:
            done = min(max(0.0, 1 - (copying[1] - self.world.clock.now()) / COPY_S), 1.0) * 1e8
            return Said(0, f"going {done:.0f} 100000000 copying\n")
        if data.state == "copying":
            return Said(0, "ended 3\nthe copy broke off\n")
        return Said(0, "ended 0\n" if data.state == "restored" else "none\n")

    def _follow(self, address: str) -> Said:
        self.world.effect()
        self.data.source, self.data.running, self.data.error = address, True, ""
        self.world.replicate()
        self.world.effect()
        return Said()

    def _status(self) -> Said:
        data = self.data
        if not data.source:
            return Said()
        late = data.late.pop(0) if data.late else "60" if data.slow else "0"
        if not data.late:
            self.world.replicate()
        source = self.world.at_address(data.source) if not data.error else None
        shown = {
            "Master_Host": data.source,
            "Slave_IO_Running": "Yes" if data.running and source else "Connecting" if data.running else "No",
            "Slave_SQL_Running": "Yes" if data.running else "No",
            "Gtid_IO_Pos": gtid(max(data.received, data.position), data.domain, data.past),
            "Seconds_Behind_Master": late if data.running and source else "NULL",
            "Last_IO_Error": data.error,
        }
        return Said(0, "".join(f"{name:>30}: {value}\n" for name, value in shown.items()))

    def _load(self) -> Said:
        """A dump: none of it counts before the mark."""
        self.world.effect()
        return Said()

    def _sql(self, text: str) -> Said:
        data = self.data
        if text.strip() == HEARD:
            return Said(0, "" if data.heard is None else self._heard(data, data.heard))
        if "SELECT definer" in text:
            return Said(0, "60\n")
        if "CALL pcloud_write()" in text:
            return Said(0, "1\n")
        if "MAX(domain)" in text:
            return Said(0, f"{data.domain}\n")
        if "EXECUTE IMMEDIATE" in text:
            return Said(0, f"{data.tables}\n{data.state}\n" if text.startswith("SELECT") else f"{data.state}\n")
        if "@@gtid_current_pos" in text:
            return Said(0, f"{data.reached}\n")
        if wanted := re.search(r"MASTER_GTID_WAIT\('([0-9,-]*)'", text):
            if not data.slow:
                data.apply()
            return Said(0, "-1\n" if behind(data.reached, wanted[1]) else "0\n")
        self._change(text)
        return Said()

    def _heard(self, data: SimData, heard: float) -> str:
        clock = self.world.clock
        return f"{clock.now() - heard:.6f}\t{moment(clock.wall(), clock.now() - heard)}\tNULL\t{int(data.acked)}\n"

    def _change(self, text: str) -> None:
        data = self.data
        if text.startswith("CREATE USER"):  # in a MariaDB beside its own
            return
        self.world.effect()
        if text.startswith("STOP SLAVE"):
            data.running = False
            if "RESET SLAVE ALL" in text:
                data.source, data.received, data.relayed = "", 0, data.orders
        elif marks := re.findall(r"VALUES \(1, '(\w+)', '([^']+)'", text):
            for state, token in marks:
                data.state, data.token, data.position, data.past = state, token, 0, {}
                if state == "restoring":
                    begun = re.search(r"INTO pcloud\.timelines VALUES \((\d+)", text)
                    data.domain = int(begun[1]) if begun else 0
                data.orders = data.relayed = ()
                self.world.clock.work(RESTORE_S / 2)
        else:
            raise CommandFailed(f"the simulation knows no statement {text[:60]}")
        self.world.effect()


def moment(wall: datetime, ago_s: float) -> str:
    return (wall - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def seen_database(data: SimData, *, follows: bool, now: float, wall: datetime) -> SeenDatabase:
    """What observation would find. `follows`: whoever it replicates from answers."""
    silent_s = None if data.heard is None else now - data.heard
    return SeenDatabase(
        writable=data.primary,
        position=data.reached,
        received=gtid(max(data.received, data.position), data.domain, data.past) if data.source else "",
        source=data.source,
        replicating=data.running and follows and not data.error,
        behind_s=0.0 if data.running and follows else None,
        semi_sync=data.semi_sync or (data.running and bool(data.source)),
        restored=data.token if data.state == "restored" else "",
        timeline=data.domain,
        waits_ms=int(data.timeout) if data.primary and data.semi_sync else -1,
        heard_s=silent_s,
        heard_at="" if silent_s is None else moment(wall, silent_s),
        acknowledges=data.acked,
    )
