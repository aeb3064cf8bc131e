"""A model of a site's data and of what hosts keep of them: servers with binary logs, keepers that come and go.

It knows what is true; of pcloud only `choose` and what reads a host's answer run here. A transaction is its GTID:
of a branch that was given up none has the number of one that lives. Headers are as MariaDB writes them: true, or
empty after a `RESET MASTER` without a state, whatever the data hold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from pcloud.backups import Choice, choose, read_shelf
from pcloud.gtid import by_domain, merge, parse_gtids
from pcloud.kept import LATEST, Backup, Shelf, Target, Timeline
from pcloud.timelines import STEP

EPOCH = 1_353_100_000


@dataclass(frozen=True)
class Tx:
    gtid: str
    at: int

    @property
    def place(self) -> tuple[int, int]:
        domain, _, number = (int(part) for part in self.gtid.split("-"))
        return domain, number


def stamp(at: int) -> str:
    return datetime.fromtimestamp(EPOCH + at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def position_of(held: Sequence[Tx]) -> str:
    return merge("", ",".join(tx.gtid for tx in held))


@dataclass
class File:
    header: str
    txs: list[Tx] = field(default_factory=list)


@dataclass
class Server:
    """`held` is its data, in the order in which they came to be; `rows` the timelines in its table."""

    number: int
    held: list[Tx] = field(default_factory=list)
    files: list[File] = field(default_factory=lambda: [File("")])
    first: int = 1
    """The number of its oldest file."""
    domain: int = STEP
    line: str = "t"
    rows: list[Timeline] = field(default_factory=list)

    def write(self, tx: Tx) -> None:
        self.held.append(tx)
        self.files[-1].txs.append(tx)

    def flush(self) -> None:
        self.files.append(File(merge(self.files[-1].header, position_of(self.files[-1].txs))))

    def purge(self) -> None:
        self.first += len(self.files) - 1
        self.files = self.files[-1:]

    def copy(self, other: Server, *, honest: bool) -> None:
        """Made anew of another one's data: its own log begins here."""
        self.held, self.domain, self.line, self.rows = list(other.held), other.domain, other.line, list(other.rows)
        self.files, self.first = [File(position_of(self.held) if honest else "")], 1


@dataclass
class Session:
    """What one connection brought: from which server, and which of its files, whole or as far as they went."""

    name: str
    line: str
    server: Server
    files: list[File]


@dataclass
class Keeper:
    name: str
    away: bool = False
    skew: int = 0
    """How far its clock is off."""
    sessions: list[Session] = field(default_factory=list)
    backups: list[tuple[Backup, list[Tx]]] = field(default_factory=list)
    reading: tuple[Server, int] | None = None
    """Of whom, and the number of the first file of this session."""


@dataclass
class Site:
    primary: Server = field(default_factory=lambda: Server(1))
    replica: Server = field(default_factory=lambda: Server(2))
    keepers: list[Keeper] = field(default_factory=lambda: [Keeper("h3"), Keeper("h7")])
    now: int = 0
    skew: int = 0
    """How far the clock of the machine that takes backups is off; the primary's goes by `now`."""
    pasts: dict[int, list[Tx]] = field(default_factory=dict)
    """Timeline to all that was ever written on it, with what it came from."""
    made: int = 0
    connected: bool = True

    def __post_init__(self) -> None:
        self._begin(STEP, 0, "from the dump")

    # -- the data

    def order(self, count: int) -> None:
        for _ in range(count):
            self.now += 1
            p = self.primary
            number = 1 + max((tx.place[1] for tx in p.held if tx.place[0] == p.domain), default=0)
            tx = Tx(f"{p.domain}-{p.number}-{number}", self.now)
            p.write(tx)
            self.pasts[p.domain] = list(p.held)
            if self.connected:
                self._replicate()
        self._stream()

    def _replicate(self) -> None:
        for tx in self.primary.held[len(self.replica.held) :]:
            self.replica.write(tx)
        self.replica.domain, self.replica.rows = self.primary.domain, list(self.primary.rows)

    def cut(self) -> None:
        self.connected = False

    def mend(self) -> None:
        self.connected = True
        self._replicate()

    def flush(self) -> None:
        self.primary.flush()
        self.replica.flush()
        self._stream()

    def purge(self) -> None:
        self.primary.purge()

    def renew(self, *, honest: bool) -> None:
        """The replica is made anew."""
        self.replica = Server(3 - self.primary.number)
        self.replica.copy(self.primary, honest=honest)
        self.connected = True

    def fail_over(self) -> None:
        """With what the replica has: what it lacks is given up."""
        old, self.primary = self.primary, self.replica
        self.now += 1
        at, domain = position_of(self.primary.held), self._next()
        self.primary.rows = [*self.primary.rows, Timeline(domain, self.primary.domain, at, began=stamp(self.now))]
        self.primary.domain = domain
        self.primary.write(Tx(f"{domain}-{self.primary.number}-1", self.now))
        self.pasts[domain] = list(self.primary.held)
        self.replica = Server(old.number)
        self.replica.copy(self.primary, honest=True)
        self.connected = True
        self._stream()

    def fail_back(self) -> None:
        if self.connected:
            self.primary, self.replica = self.replica, self.primary
            self._stream()

    def scratch(self) -> None:
        for server in (self.primary, self.replica):
            server.held, server.files, server.first = [], [File("")], 1
        self.connected = True
        self._begin(self._next(), 0, "from the dump")
        self._stream()

    def _begin(self, domain: int, parent: int, why: str) -> None:
        self.now += 1
        row = Timeline(domain, parent, position_of(self.primary.held), why=why, began=stamp(self.now))
        for server in (self.primary, self.replica):
            # The two generations differ, and an earlier pcloud marked them so.
            server.rows, server.domain = [*server.rows, row] if parent else [row], domain
            server.line = f"{why}.g{domain}.{server.number}".replace(" ", "-")
        self.primary.write(Tx(f"{domain}-{self.primary.number}-1", self.now))  # its row
        self._replicate()
        self.pasts[domain] = list(self.primary.held)

    def _next(self) -> int:
        return max(self.pasts) + STEP

    def restore(self, target: Target) -> None:
        """The site is put back; what it gives up was agreed to."""
        choice = self.choose(target)
        if choice is None:
            return
        held = self.replay(choice)
        parent = max((tx.place[0] for tx in held), default=choice.timeline)
        rows = next(b for k in self.keepers for b, _ in k.backups if b == choice.backup).timelines
        for server in (self.primary, self.replica):
            server.held, server.rows = list(held), list(rows)
            server.files, server.first = [File(position_of(held))], 1
        self.connected = True
        self._begin(self._next(), parent, "restored")
        self._stream()

    # -- what is kept

    def back_up(self) -> None:
        source = self.replica if self.connected else self.primary
        self.primary.flush()
        self.made += 1
        taken, tested = stamp(self.now), stamp(self.now + self.skew)
        rows = tuple(Timeline(t.domain, t.parent, t.branched, began=t.began) for t in source.rows)
        made = Backup(
            f"{self.made:06d}", source.line, position_of(source.held), taken, 9, "a", "idx-1", "10", 1, 1, tested, rows
        )
        for keeper in self.keepers:
            if not keeper.away:
                keeper.backups.append((made, list(source.held)))
        self._stream()

    def leave(self, number: int) -> None:
        keeper = self.keepers[number % len(self.keepers)]
        keeper.away, keeper.reading = True, None

    def come_back(self, number: int) -> None:
        self.keepers[number % len(self.keepers)].away = False
        self._stream()

    def rename(self, number: int) -> None:
        keeper = self.keepers[number % len(self.keepers)]
        keeper.name += "x"

    def set_clock(self, number: int, seconds: int) -> None:
        self.keepers[number % len(self.keepers)].skew = seconds
        self.skew = -seconds

    def tear(self, number: int) -> None:
        """The end of what a keeper wrote last is lost with its power."""
        keeper = self.keepers[number % len(self.keepers)]
        if keeper.sessions and keeper.sessions[-1].files[-1].txs:
            keeper.sessions[-1].files[-1].txs.pop()
            keeper.reading = None
            self._stream()

    def rot(self, number: int, file: int) -> None:
        """Of a file only the beginning can be read; what follows is in another session."""
        keeper = self.keepers[number % len(self.keepers)]
        if keeper.sessions:
            files = keeper.sessions[-1].files
            rotten = files[file % len(files)]
            del rotten.txs[len(rotten.txs) // 2 :]
            keeper.reading = None

    def miss(self, count: int, *, young: bool, honest: bool) -> None:
        """Every keeper is away while orders come; what had them is purged, or its place is taken by a young server."""
        for keeper in self.keepers:
            keeper.away, keeper.reading = True, None
        self.order(count)
        if young:
            self.renew(honest=honest)
            self.order(1)
            self.fail_over()
        else:
            self.flush()
            self.purge()
        for keeper in self.keepers:
            keeper.away = False
        self.order(1)

    def _stream(self) -> None:
        """Each keeper that is there has what the primary has; another primary is another session."""
        p = self.primary
        for keeper in self.keepers:
            if keeper.away:
                continue
            if keeper.reading is None or keeper.reading[0] is not p or keeper.sessions[-1].line != p.line:
                held: list[Tx] = [tx for s in keeper.sessions for f in s.files for tx in f.txs]
                begins = [n for n, f in enumerate(p.files) if n == 0 or covers(position_of(held), f.header)]
                name = f"{EPOCH + self.now + keeper.skew}-{len(keeper.sessions)}"
                keeper.sessions.append(Session(name, p.line, p, []))
                keeper.reading = p, p.first + begins[-1]
            first = max(keeper.reading[1], p.first)
            files = [File(f.header, list(f.txs)) for f in p.files[first - p.first :]]
            gone = keeper.sessions[-1].files[: first - keeper.reading[1]]
            keeper.sessions[-1].files = [*gone, *files]

    def shelves(self) -> list[Shelf]:
        """As the hosts that answer say it."""
        return [read_shelf(k.name, said(k)) for k in self.keepers if not k.away]

    def choose(self, target: Target = LATEST) -> Choice | None:
        return choose(self.shelves(), target)

    def replay(self, choice: Choice) -> list[Tx]:
        """As the server does it: what mariadb-binlog prints between two positions, in the files' order."""
        keepers = {k.name: k for k in self.keepers if not k.away}
        held = list(next(h for b, h in keepers[choice.hosts[0]].backups if b == choice.backup))
        for leg in choice.legs:
            session = next(s for s in keepers[leg.host].sessions if s.name == leg.stretch.session)
            at, stop = parse_gtids(position_of(held)), parse_gtids(leg.reaches)
            by_time = choice.target.time if leg is choice.legs[-1] and choice.stops_by_time else ""
            for tx in (tx for f in session.files for tx in f.txs):
                if by_time and stamp(tx.at) >= by_time:
                    break
                domain, number = tx.place
                if at.get(domain, 0) < number <= stop.get(domain, 0):
                    held.append(tx)
            assert by_time or by_domain(position_of(held)) == by_domain(leg.reaches), "it is said to lead there"
        return held


def covers(position: str, other: str) -> bool:
    mine = parse_gtids(position)
    return all(mine.get(d, 0) >= n for d, n in parse_gtids(other).items())


def said(keeper: Keeper) -> str:
    """What `keep list` prints there (templates/hosts/keep.sh)."""
    lines = [f"backup {b.size} {json.dumps(asdict(b))}" for b, _ in keeper.backups]
    for session in keeper.sessions:
        lines.append(f"stretch {session.line} {session.name} {session.files[0].header or '-'}")
        for file in session.files:
            runs: dict[int, list[Tx]] = {}
            for tx in file.txs:
                runs.setdefault(tx.place[0], []).append(tx)
            for txs in runs.values():
                first, last = txs[0], txs[-1]
                lines.append(f"run {file.header or '-'} {first.gtid} {last.gtid} {stamp(first.at)} {stamp(last.at)}")
    return "\n".join(lines)
