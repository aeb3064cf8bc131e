"""A model of two data servers through a long life: which orders are acknowledged, where they are, who heard what.

Only servers, hosts and shoppers are a model. What is decided is decided by pcloud: `plan` says who takes the role, on
which sentence, and which backup is restored; `check_loss` looks once more before a promotion; notes on hosts are read
and written as `sightings` names them. Times are in seconds; a recorder on a server is up to two seconds behind.

A replica here does what the scripts in templates/servers/mariadb do, as tests/test_promotion.py shows on real
MariaDBs: what it acknowledged is on its disk; MariaDB forgets what it received and has not applied when it starts, or
a person starts its threads; that is kept aside, and a promotion applies it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pcloud.desired import Desired
from pcloud.errors import Blocked
from pcloud.gtid import behind, by_domain, parse_gtids
from pcloud.kept import (
    FOREVER_MS,
    NEVER_SEEN,
    NOBODY_HEARD,
    Backup,
    Heard,
    Run,
    Shelf,
    Sighting,
    Stretch,
    Witnesses,
)
from pcloud.loss import UNKNOWN
from pcloud.model import Site
from pcloud.observed import Data, Health, Observed, SeenDatabase, SeenHost
from pcloud.plan import Plan, plan
from pcloud.recall import looks_at_shelves
from pcloud.remember import plan_sighting
from pcloud.sightings import furthest, last_sighting
from pcloud.steps.database import Restore
from pcloud.steps.measuring import check_loss
from pcloud.steps.promotion import Promote
from pcloud.steps.replication import HEARD
from pcloud.steps.restoring import RestoreBackup
from pcloud.steps.server import MakeDisk
from pcloud.steps.sighting import NoteSighting
from pcloud.steps.stop import Consent, PassOver
from pcloud.steps.stream import TakeStream
from tests.left_behind import OFF, Places
from tests.simulated_data import Said
from tests.simulation import with_options

EPOCH = 1_353_100_000.0
ADDRESS = "10.77.0.60"
ASKS_S = 5.0
"""How often a keeper asks the primary where it is."""
KEEPER = "h8"
"""It carries no data, and keeps a backup and the primary's binary log."""
STUCK = "error 1062: Duplicate entry '…'"


class Written(NamedTuple):
    """A transaction; `order` is 0 for one that is none."""

    domain: int
    number: int
    order: int


def position(written: Iterable[Written]) -> str:
    last = {w.domain: w.number for w in written}
    return ",".join(f"{d}-1-{n}" for d, n in sorted(last.items()))


def moment(at: float) -> str:
    return datetime.fromtimestamp(EPOCH + at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Copy:
    """One server's disk, and whether it runs. `received` holds all of `data`, and what is not applied yet."""

    name: str
    line: str = "t"
    domain: int = 1000
    data: list[Written] = field(default_factory=list)
    received: list[Written] = field(default_factory=list)
    shown: bool = True
    """MariaDB itself knows what it received; else it is kept aside."""
    source: str = ""
    role: bool = False
    applies: bool = True
    stuck: bool = False
    heard: float | None = None
    heard_position: str = ""
    acked: bool | None = None

    def write(self, order: int) -> None:
        number = max((w.number for w in self.data if w.domain == self.domain), default=0) + 1
        self.data.append(Written(self.domain, number, order))
        self.received = list(self.data)

    def hear(self, primary: Copy, at: float, acked: bool | None) -> None:
        """It gets what its primary has; a row of its own says when, and what it had received then."""
        self.received, self.domain, self.shown = list(primary.data), primary.domain, True
        self.heard, self.heard_position, self.acked = at, position(self.received), acked
        self.apply()

    def apply(self) -> None:
        if self.applies and not self.stuck:
            self.data = list(self.received)

    @property
    def holds(self) -> set[int]:
        return {w.order for w in self.data}

    def seen(self, now: float, waits_ms: int, *, follows: bool) -> SeenDatabase:
        """What its MariaDB says of itself."""
        threads = bool(self.source) and follows and self.applies and not self.stuck and self.shown
        silent_s = None if self.heard is None else now - self.heard
        return SeenDatabase(
            self.role,
            position(self.data),
            position(self.received) if self.source and self.shown else "",
            self.source,
            threads,
            semi_sync=waits_ms >= 0 if self.role else threads,
            restored=self.line,
            timeline=self.domain,
            waits_ms=waits_ms if self.role else -1,
            heard_s=silent_s,
            heard_at="" if self.heard is None else moment(self.heard),
            heard_position=self.heard_position,
            acknowledges=self.acked,
            stuck=STUCK if self.stuck else "",
        )


@dataclass
class History:
    """`timeout_s`: how long a commit waits for the replica; `acknowledged`: order to when a shopper was told.

    `desired` and `whole` are a site and its hosts as all is well; of these the model changes what its history does.
    """

    desired: Desired
    whole: Observed
    timeout_s: float = 30.0
    now: float = 0.0
    primary: Copy = field(default_factory=lambda: Copy("db-1", role=True))
    replica: Copy = field(default_factory=lambda: Copy("idx-1", source=ADDRESS))
    connected: bool = True
    dead: bool = False
    """The primary's host has no power; its disk may come back."""
    waits: bool = True
    alone: bool = False
    pending: tuple[int, float] | None = None
    acknowledged: dict[int, float] = field(default_factory=dict)
    answered: float | None = None
    frontends: bool = True
    """They can be asked."""
    balancer: bool = True
    """So can the balancer."""
    passed_on: float = 0.0
    """When that last passed an order on."""
    asked: tuple[Sighting, float, float] | None = None
    """What the keeper saw of the primary last, when, and when it last heard it."""
    notes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Host to its notes of the primary."""
    silent: set[str] = field(default_factory=set)
    """Hosts that can neither be told nor asked."""
    backup: Backup | None = None
    kept: list[Written] = field(default_factory=list)
    """As far as the keeper's backup and its stream go; the last of it was committed at `kept_at`."""
    kept_at: float = 0.0
    streaming: bool = False
    wanted_s: float | None = None
    """A policy in the inventory that the next one who takes the role is given."""
    forgets: bool = False
    """pcloud is killed right after somebody took the role: nobody is told of it."""
    orders: int = 0
    begun: set[int] = field(default_factory=lambda: {1000})
    """The domain of every timeline."""
    places: Places = field(init=False)
    said: list[str] = field(default_factory=list)
    """Sentences on which a server took the role, or was filled."""

    def __post_init__(self) -> None:
        self.places = Places(self.desired.site, self.whole)

    @property
    def date(self) -> str:
        """As a plan has it; every look takes a while."""
        self.now += 0.001
        return datetime.fromtimestamp(EPOCH + self.now, UTC).strftime("%Y%m%d-%H%M%S%f")

    # -- the shop

    @property
    def waits_ms(self) -> int:
        return min(FOREVER_MS, round(self.timeout_s * 1000)) if self.waits and not self.alone else -1

    def pass_time(self, seconds: float) -> None:
        """The shop is looked at all the while, and a commit that has waited long enough goes on alone."""
        until = self.now + seconds
        if not self.dead:
            if self.pending is not None and self.pending[1] + self.timeout_s <= until and not self.connected:
                order, since = self.pending
                alone_at = max(self.now, since + self.timeout_s)
                self._be_asked(alone_at)
                self.now, self.alone, self.pending = alone_at, True, None
                self._acknowledge(order)
            self._be_asked(until)
            self.answered = until
        self.now = max(until, self.now)
        self._replicate(0.0)

    def _be_asked(self, until: float) -> None:
        """By the keeper, every five seconds; nothing changes until then."""
        at = until - until % ASKS_S
        if not self.streaming or until < self.now:
            return
        if at >= self.now or self.asked is None:
            latest = position(self.primary.data).rpartition(",")[2]
            at = max(at, self.now)
            self.asked = Sighting(latest, 0.0, self.waits_ms, one_clock=True), at, until
        self.asked = (*self.asked[:2], until)

    def shop(self, seconds: float) -> None:
        """An order every two seconds."""
        until = self.now + seconds
        while self.now < until:
            self.order(0.5)
            self.pass_time(min(2.0, until - self.now))

    def order(self, lag_s: float) -> None:
        """As AFTER_SYNC has it: nobody is told before the replica has it, or the wait for that is over."""
        if self.pending is not None or self.dead:
            return
        self.orders += 1
        self.primary.write(self.orders)
        self._stream()
        if self.connected and self.replica.source:
            self._replicate(lag_s)
            self._acknowledge(self.orders)
        elif self.waits and not self.alone:
            self.pending = self.orders, self.now
        else:
            self._acknowledge(self.orders)

    def _acknowledge(self, order: int) -> None:
        self.acknowledged[order] = self.answered = self.passed_on = self.now

    def _replicate(self, lag_s: float) -> None:
        if self.connected and not self.dead and self.replica.source:
            self.replica.hear(self.primary, self.now - lag_s, self.waits)

    def _stream(self) -> None:
        if self.streaming:
            self.kept, self.kept_at = list(self.primary.data), self.now

    # -- what befalls it

    def cut(self) -> None:
        self.connected = False

    def mend(self, lag_s: float) -> None:
        """It catches up; a commit that waited for it is acknowledged."""
        if self.dead:
            return
        self.connected, self.alone = True, False
        self._replicate(lag_s)
        if self.pending is not None:
            order, self.pending = self.pending[0], None
            self._acknowledge(order)

    def stop_applying(self, *, error: bool) -> None:
        """The replica's SQL thread is stopped, or slow, or stands at a transaction that it cannot apply."""
        self.replica.applies, self.replica.stuck = False, error

    def apply_again(self) -> None:
        self.replica.applies, self.replica.stuck = True, False
        if self.replica.shown:
            self.replica.apply()

    def restart_replica(self) -> None:
        """A start of its MariaDB, a power cut, or a person who stops and starts its threads while nobody answers."""
        self.replica.shown, self.replica.applies = False, True
        self._replicate(0.0)

    def lose_relay(self) -> None:
        """Its host's power went, and its disk had lied: what was not applied is not there."""
        self.replica.received = list(self.replica.data)
        self.restart_replica()

    def restart_primary(self) -> None:
        """Its commits wait as before, from its first one on."""
        if not self.dead:
            self.alone, self.pending = False, None

    def keep(self) -> None:
        """A backup on a host, and its binary log from there on."""
        if self.dead:
            return
        at, line, whose = moment(self.now), self.primary.line, self.primary.name
        self.backup = Backup(f"b{at}", line, position(self.primary.data), at, 9, "s" * 64, whose, "10.11", 9, 9, at)
        self.kept, self.kept_at, self.streaming = list(self.primary.data), self.now, True

    def stop_streaming(self) -> None:
        self.streaming = False

    # -- a person and pcloud

    def look(self) -> None:
        """Any run, or `pcloud status`."""
        if self.dead:
            return
        seen = self.primary.seen(self.now, self.waits_ms, follows=True)
        wall = datetime.fromtimestamp(EPOCH + self.now, UTC)
        for note in plan_sighting(self.desired.site, self._hosts(), self.primary.name, seen, wall):
            self._tell(note)

    def _tell(self, note: NoteSighting) -> None:
        if note.host not in self.silent:
            self.notes[note.host] = (self.notes[note.host] - set(note.old)) | {note.name}

    def set_policy(self, timeout_s: float) -> None:
        """The inventory is changed, and a run applies it: hosts are told of a shorter wait before it counts."""
        shorter, then = timeout_s < self.timeout_s, self.timeout_s
        self.timeout_s = timeout_s
        if shorter:
            self.look()
        if self.silent and shorter:
            self.timeout_s = then  # as nobody could be told

    def switch_waiting(self, on: bool) -> None:
        """As pcloud does it: noted before the first commit that does not wait.

        A person's own SET GLOBAL that no run and no `status` saw afterwards cannot be known of.
        """
        if self.dead or (self.silent and not on):
            return
        self.waits = on
        self.look()
        if not on and self.pending is not None:
            order, self.pending = self.pending[0], None
            self._acknowledge(order)

    def switch_off_by_hand(self) -> None:
        """Nobody sees it but the replica, which gets an order that waited for no acknowledgement."""
        if self.connected and not self.dead and self.pending is None:
            self.waits = False
            self.order(0.0)
            self._replicate(0.0)

    def lose_primary(self) -> None:
        self.dead, self.pending = True, None

    def primary_returns(self) -> None:
        """With its disk, before anybody took over."""
        self.dead, self.alone = False, False
        self._replicate(0.0)

    # -- what is seen

    def _hosts(self, *, silent: bool = False) -> Observed:
        """The hosts, and the notes on them. The primary's has no power, or does not answer us (`silent`)."""
        found, here = list[SeenHost](), self.places.host(self.primary.name)
        for host in self.places.hosts():
            notes = () if host.name in self.silent else tuple(self.notes.get(host.name, ()))
            if host.name == here and (self.dead or silent):
                off = OFF if self.dead else {}
                found.append(SeenHost(host.name, "no answer", silent=True, **off))  # type: ignore[arg-type]
            else:
                found.append(host if host.silent else replace(host, volumes=host.volumes + notes))
        up = [n for n in self.whole.health if n != self.primary.name or not (self.dead or silent)]
        up += [left.copy.name for left in self.places.back if left.runs]
        return Observed(tuple(found), {n: Health(ok=True) for n in up})

    @property
    def _keeper_answers(self) -> bool:
        return KEEPER not in self.places.off and not (self.dead and self.places.host(self.primary.name) == KEEPER)

    def hear(self) -> tuple[Heard, tuple[Sighting, ...]]:
        """fe-2 is on the primary's host: nobody orders there once that is cut off."""
        knows = self.frontends and self.answered is not None
        frontends = {"fe-1": self.now - (self.answered or 0.0)} if knows else {}
        balancers = {"lb-1": self.now - self.passed_on} if self.balancer else {}
        unheard = ("fe-2",) if knows else ("fe-1", "fe-2")
        if self.asked is None or not self._keeper_answers:
            return Heard(frontends, unheard, balancers), ()
        seen, at, heard_at = self.asked
        heard = Heard(frontends, unheard, balancers, {KEEPER: self.now - heard_at})
        return heard, (replace(seen, age_s=self.now - at),)

    def observe(self, *, silent: bool = False) -> Observed:
        away, site = self.dead or silent, self.desired.site.site
        hosts, follows = self._hosts(silent=silent), not self.dead and self.connected
        seen = self._databases(away=away, follows=follows)
        wall = datetime.fromtimestamp(EPOCH + self.now, UTC)
        heard, sightings = self.hear() if away else (NOBODY_HEARD, ())
        known = furthest([last_sighting(site, hosts, wall), *sightings]) if away else NEVER_SEEN
        looked = looks_at_shelves(self.desired.options, seen, known, heard)
        data = Data(
            self.replica.line, indexed=True, databases=seen, holder=self.primary.name if self.primary.name in seen and
            not away else "", known=known,
            shelves=self._shelves() if looked else (), heard=heard, asked_at=self.now,
        )  # fmt: skip
        return replace(hosts, data=data)

    def _databases(self, *, away: bool, follows: bool) -> dict[str, SeenDatabase]:
        """A server that runs twice is not asked. One that was left behind and runs has the role by its disk; while
        another machine has the address it gives it up."""
        seen = {self.replica.name: self.replica.seen(self.now, -1, follows=follows)}
        if not away:
            seen[self.primary.name] = self.primary.seen(self.now, self.waits_ms, follows=True)
        seen = {n: d for n, d in seen.items() if n in self.places.at}
        twice = {n for n in seen if self.places.running(n) > 1}
        old = [left.copy for left in self.places.back if left.runs and left.copy.name not in seen]
        seen |= {c.name: replace(c, role=self.dead).seen(self.now, -1, follows=False) for c in old}
        return {n: d for n, d in seen.items() if n not in twice}

    def _shelves(self) -> tuple[Shelf, ...]:
        if self.backup is None or not self._keeper_answers:
            return ()
        own = self.backup
        before, at = parse_gtids(own.position), moment(self.kept_at)
        runs = tuple(
            Run(f"{domain}-1-{before.get(domain, 0) + 1}", last, at, at, own.position)
            for domain, (number, last) in sorted(by_domain(position(self.kept)).items())
            if number > before.get(domain, 0)
        )
        return (Shelf(KEEPER, (own,), (Stretch(own.line, own.id, own.position, runs),), self.streaming),)

    # -- a recovery

    def recover(self, accept: str = "", pause_s: float = 0.0, *, silent: bool = False, cut: bool = False) -> str:
        """`pcloud recover --yes`, or `failover` of the primary's host where that has power; a person reads the plan
        for `pause_s`, and the replica may be cut off meanwhile. The price that it asks for; "refused"; or "" when
        somebody took the role."""
        lost = () if self.dead else (self.places.host(self.primary.name),)
        desired = with_options(self.desired, accept_loss=accept, lost=lost)
        made = plan(desired, self.observe(silent=silent and not self.dead), self.date)
        self.places.check(made)
        self.connected = self.connected and not (cut and pause_s)
        self.shop(pause_s)
        if asked := [n.step for n in made.nodes if isinstance(n.step, Consent)]:
            return asked[0].price
        promoted = next((n for n in made.nodes if isinstance(n.step, Promote)), None)
        if promoted is None:
            return "refused"
        self.lose_primary()
        assert isinstance(promoted.step, Promote)
        return self._promote(made, promoted.step, promoted.info.reason)

    def _promote(self, made: Plan, step: Promote, reason: str) -> str:
        new, received = self.replica, list(self.replica.received)
        try:
            if step.basis is not None:
                check_loss(Asked(self), step.server, step.basis)  # type: ignore[arg-type]
        except Blocked:
            return "refused"
        for stream in (n.step for n in made.nodes if isinstance(n.step, TakeStream)):
            received += [w for w in self.kept if w not in received and not behind(stream.leg.reaches, position([w]))]
        said = [g for g in new.heard_position.split(",") if g and int(g.split("-")[0]) >= new.domain]
        lacks = new.stuck or behind(position(received), ",".join(said))
        if lacks and not step.leaves:
            return "refused"
        new.data = new.data if new.stuck else received
        assert step.timeline is not None
        self.places.leave(self.primary)
        self._take_over(new, step.timeline.domain, reason, made)
        return ""

    def _take_over(self, new: Copy, domain: int, reason: str, made: Plan) -> None:
        """It is the primary, on a timeline of its own; the other one is a fresh copy of it, and the hosts are told."""
        self.now += 1.0
        self.said.append(reason)
        assert domain > new.domain
        assert domain not in self.begun, "two branches with one name"
        self.begun.add(domain)
        old, self.primary = self.primary, new
        lost = old.name
        new.domain, new.role, new.source, new.stuck, new.applies = domain, True, "", False, True
        new.write(0)
        self.replica = Copy(lost, new.line, source=ADDRESS)
        self.dead, self.connected, self.waits, self.alone, self.streaming = False, True, True, False, False
        self.timeout_s, self.wanted_s = self.wanted_s or self.timeout_s, None
        if self.forgets and any(left.copy is old for left in self.places.left):
            made = self._be_killed(lost, made)
        self.places.learn(made)
        self.places.move(made, new)
        self._replicate(0.0)
        self.tidy()
        if not self.forgets:
            self.look()

    def _be_killed(self, lost: str, made: Plan) -> Plan:
        """pcloud ends with the promotion, and the old primary's host is back before the next run. That run's plan."""
        self.places.learn(made, f"{self.primary.name}/promote")
        self.places.power_on(self.places.left[-1].host, runs=True)
        for _ in range(3):
            again = plan(self.desired, self.observe(), self.date)
            self.places.check(again)
            self._nobody_is_promoted(again)
            if any(isinstance(n.step, MakeDisk) and n.step.names.server == lost for n in again.nodes):
                self.places.tidy(again, self.primary)
                return again
            self.places.tidy(again, self.primary)
        raise AssertionError(f"{lost} is not made anew")

    def lose_replica(self, seconds: float) -> None:
        """Its host dies; the primary goes on without one for so long, and pcloud makes it anew elsewhere."""
        if self.dead:
            return
        self.places.leave(self.replica)
        self.connected = False
        made = plan(self.desired, self.observe(), self.date)
        self.places.check(made)
        self._nobody_is_promoted(made)
        self.switch_waiting(False)
        self.shop(seconds)
        self.places.learn(made)
        self.places.move(made, self.primary)
        self.replica = Copy(self.replica.name, self.primary.line, source=ADDRESS)
        self.switch_waiting(True)
        self.mend(0.0)
        self.tidy()

    def come_back(self, runs: bool) -> None:
        """The host of a primary that was taken over from has power again; its server runs, or not."""
        left = next((x for x in self.places.left if not x.back), None)
        if left is not None:
            self.places.power_on(left.host, runs=runs)
            if not self.dead:
                self.tidy()

    def tidy(self) -> None:
        """Runs of `recover` until there is nothing to do about what came back; then it is said what only that holds."""
        while self.places.back:
            made = plan(self.desired, self.observe(), self.date)
            self.places.check(made)
            self._nobody_is_promoted(made)
            self.places.learn(made)
            if not self.places.tidy(made, self.primary):
                break
        self.places.judge(self.observe(), self.primary)

    def _nobody_is_promoted(self, made: Plan) -> None:
        """A restore that does nothing where a server holds data (`others`) is none."""
        roles = [n.key for n in made.nodes if isinstance(n.step, Promote | Consent)]
        roles += [n.key for n in made.nodes if isinstance(n.step, RestoreBackup | Restore) and not n.step.others]
        assert not roles, f"{self.primary.name} lives, and the plan has {roles}"

    def lose_both(self) -> None:
        """And both disks: what is kept is restored, or the dump. One of the hosts that remember went with them."""
        self.lose_primary()
        self.silent = set()
        here = {self.places.host(n) for n in self.places.at}
        silent = {h: SeenHost(h, "no answer", silent=True, **OFF) for h in here}  # type: ignore[arg-type]
        gone = [silent.get(h.name, h) for h in self._hosts().hosts]
        wall = datetime.fromtimestamp(EPOCH + self.now, UTC)
        known = last_sighting(self.desired.site.site, Observed(tuple(gone)), wall)
        found = Observed(tuple(gone), data=Data(known=known, shelves=self._shelves(), asked_at=self.now))
        made = plan(self.desired, found, self.date)
        if any(isinstance(n.step, PassOver) for n in made.nodes):  # a person knows that the disks are gone, too
            made = plan(with_options(self.desired, accept_loss=UNKNOWN), found, self.date)
        node = next(n for n in made.nodes if n.info.action == "restore")
        new = Copy("db-1", node.step.token, source="")  # type: ignore[attr-defined]
        timeline, choice = node.step.timeline, getattr(node.step, "choice", None)  # type: ignore[attr-defined]
        if choice is not None:
            new.data = [w for w in self.kept if not behind(choice.end, position([w]))]
            assert isinstance(node.step, RestoreBackup)
        new.domain = max((w.domain for w in new.data), default=0)
        self.backup = None
        self.primary = Copy("idx-1")
        self.places.lose_disks(here)
        self.places.at.clear()
        self._take_over(new, timeline.domain, node.info.reason, made)

    # -- what must hold

    def missing(self) -> dict[int, float]:
        """Acknowledged orders that the primary lacks, and when they were (epoch)."""
        return {n: EPOCH + at for n, at in self.acknowledged.items() if n not in self.primary.holds}


@dataclass
class Asked:
    """As much of a World as `check_loss` asks: it is its own clock, and the replica's shell."""

    history: History

    @property
    def site(self) -> Site:
        return self.history.desired.site

    @property
    def clock(self) -> Asked:
        return self

    def now(self) -> float:
        return self.history.now

    def hear(self, witnesses: Witnesses) -> tuple[Heard, tuple[Sighting, ...]]:
        assert witnesses.frontends
        return self.history.hear()

    def server_shell(self, server: str) -> Asked:
        assert server == self.history.replica.name
        return self

    def run(self, argv: Sequence[str], *, stdin: bytes, **_: Any) -> Said:
        copy, now = self.history.replica, self.history.now
        if "--vertical" in argv:
            return Said(0, f" Gtid_IO_Pos: {position(copy.received) if copy.shown else ''}\n")
        assert stdin.decode().strip() == HEARD
        if copy.heard is None:
            return Said()
        acked = "NULL" if copy.acked is None else int(copy.acked)
        return Said(0, f"{now - copy.heard}\t{moment(copy.heard)}\t{copy.heard_position}\t{acked}\n")
