"""A host's controller, by all its ways: what it says, and orders that are seen through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pcloud.clock import Clock, Deadline
from pcloud.errors import Blocked, HostUnreachable
from pcloud.observed import HostPower
from pcloud.power.proof import APART_S, Answer, Proven, Unproven, weigh
from pcloud.power.way import Busy, Failed, Passing, Refused, Way

POLL_S = 0.3
"""Between the first two rounds over all ways."""
LOOK_S = 2.0
"""Between two readings while time has to pass, and for how long an order is looked at that nobody answered."""
DARK_S = 90.0
"""A controller that falls silent after an order (its network port went down with the host) has so long to come back."""
SECOND = 0.3
"""The part of `timeout_s` that the second way has for its answer where nothing is proven by it."""
START_S = 60.0
FRESH_S = 5.0
"""What a witness saw longer ago is asked again."""
TRIES = 3
"""How often a witness is asked who speaks against a controller, and a host ordered off that comes back on."""


@dataclass(frozen=True)
class Reading:
    """What a controller said of the power, and by which way: `redfish` or `ipmi`.

    `against`: what another way said, where that is something else (`redfish says off`).
    `remark`: what a person should know of the order that led to it.
    """

    power: HostPower
    way: str
    against: str = ""
    remark: str = ""


class Witness(Protocol):
    """Who looks whether the host lives (`alive.Search`)."""

    def before(self) -> None:
        """Just before the order."""
        ...

    def begin(self) -> Callable[[], str]:
        """Begins to look; what it returns waits for the result: a clause (`10.77.0.11 accepts connections`), or ""."""
        ...


class Nobody:
    """The witness of a host that nobody can look at."""

    def before(self) -> None: ...
    def begin(self) -> Callable[[], str]:
        return str


class Watch(Protocol):
    """Who is told how a long order goes, and may give it up."""

    def progress(self, doing: str) -> None: ...
    def stopping(self) -> bool: ...


class _Unwatched:
    def progress(self, doing: str) -> None: ...
    def stopping(self) -> bool:
        return False


@dataclass
class _Course:
    """One order while it takes place. Ways by name: when each was first given it, and what is wrong with each."""

    wanted: HostPower
    deadline: Deadline
    watch: Watch
    ordered_at: dict[str, float] = field(default_factory=dict)
    orders: dict[str, Failed] = field(default_factory=dict)
    looks: dict[str, Failed] = field(default_factory=dict)
    """Of the last look, where that failed."""
    remark: str = ""
    heard: bool = False
    """A way has answered since the last order."""

    def reason(self, name: str) -> Failed:
        """What the order came to, and what the last look said, where there is more to say."""
        order, look = self.orders.get(name), self.looks.get(name)
        if order is None or look is None or look.why in order.why:
            return order or look or Passing("was not asked", "")
        return Passing(f"{order.why}; then {look.why}", look.next)

    def may_help(self, name: str) -> bool:
        found = [f for f in (self.orders.get(name), self.looks.get(name)) if f is not None]
        return all(isinstance(f, Passing) for f in found)


class PowerControl:
    """A host's controller; its ways are tried in order. May be used by several threads.

    It remembers what was answered, and so what is proven: a new one knows nothing.
    """

    def __init__(
        self,
        host: str,
        ways: Sequence[Way],
        timeout_s: float,
        off_timeout_s: float,
        clock: Clock,
        *,
        start_s: float = START_S,
        witness: Witness | None = None,
        rivals: Callable[[], Mapping[str, PowerControl]] = dict,
    ) -> None:
        """`rivals`: the controls of other hosts, by name; none of them may lead to the same machine."""
        self._host = host
        self._ways = tuple(ways)
        self._timeout_s = timeout_s
        self._off_timeout_s = off_timeout_s
        self._start_s = start_s
        self._clock = clock
        self._witness = witness or Nobody()
        self._rivals = rivals
        self._one = threading.Lock()  # these little machines choke on questions side by side
        self._answers: dict[str, list[Answer]] = {way.name: [] for way in ways}
        self._unheard: set[str] = set()
        self._in_vain_s = 0.0
        self._proof = ""
        self.took_s: float | None = None
        """From the last order to switch it off until that was proven."""

    @property
    def proof(self) -> str:
        """What proved that the host is off (`redfish: on, then off, read twice`); "" where nothing does."""
        return self._proof

    @property
    def identity(self) -> str:
        """The UUID or serial number of the machine behind it, once it was read; "" where it tells none."""
        return next((way.identity for way in self._ways if way.identity), "")

    def read(self) -> Reading:
        """Raises `HostUnreachable` with every way's reason."""
        problems: dict[str, Failed] = {}
        ways = self._in_turn()
        for number, way in enumerate(ways):
            try:
                power = self._read(way, self._timeout_s)
            except Failed as failed:
                problems[way.name] = failed
                continue
            return self._compared(Reading(power, way.name), ways[number + 1 :])
        raise self._silent({way.name: problems[way.name] for way in self._ways})

    def _in_turn(self) -> list[Way]:
        """As they are written; but who did not answer last time is asked last."""
        return sorted(self._ways, key=lambda way: way.name in self._unheard)

    def force_off(self, watch: Watch | None = None) -> Reading:
        """Orders it off, whatever it reads, and returns once that is proven (`proof.py`).

        Raises `HostUnreachable` with every way's reason, `Blocked` where the ways or a witness contradict each other.
        """
        course, start, self.took_s = self._course(HostPower.OFF, watch), self._clock.now(), None
        self._witness.before()
        for _ in range(TRIES):
            way = self._switched(course)
            began, signs = self._clock.now(), self._witness.begin()
            self._agree(way, course)
            if how := self._proven(way, course):
                if self._clock.now() - began > FRESH_S:
                    signs = self._witness.begin()
                self._hear(signs(), way, course)
                self._compare(way)
                self._proof, self.took_s = f"{way.name}: {how}", self._clock.now() - start
                return Reading(HostPower.OFF, way.name, remark=course.remark)
        again = Failed("says off, and then on again", f"see who switches {self._host} on")
        raise self._silent({way.name: again})

    def force_on(self) -> Reading:
        """Orders it on and reads until it is. Raises `HostUnreachable` with every way's reason."""
        self._proof = ""
        return Reading(HostPower.ON, self._switched(self._course(HostPower.ON, None)).name)

    def close(self) -> None:
        for way in self._ways:
            way.close()

    def _course(self, wanted: HostPower, watch: Watch | None) -> _Course:
        """Half the time for a controller of which nobody has heard yet, less what it was asked in vain before."""
        heard = any(self._answers.values())
        limit_s = self._off_timeout_s if heard else self._off_timeout_s / 2 - self._in_vain_s
        return _Course(wanted, Deadline.after(limit_s, self._clock), watch or _Unwatched())

    # -- until it reads as wanted

    def _switched(self, course: _Course) -> Way:
        """The way by which it reads as wanted after an order by that way. Orders again until the time is over."""
        pause = POLL_S
        while True:
            ways = [w for w in self._in_turn() if course.may_help(w.name)]
            for way in ways:
                if self._tried(way, course, alone=len(ways) == 1):
                    return way
            if not any(course.may_help(w.name) for w in ways) or self._is_over(course):
                raise self._silent({w.name: course.reason(w.name) for w in self._ways})
            self._clock.sleep(pause)
            pause = min(2 * pause, LOOK_S)

    def _is_over(self, course: _Course) -> bool:
        """A controller that nobody has heard since it was given the order has longer to come back."""
        if course.watch.stopping():
            return True
        if course.heard or not course.ordered_at:
            return course.deadline.passed()
        return self._clock.now() >= min(course.ordered_at.values()) + max(DARK_S, self._off_timeout_s)

    def _tried(self, way: Way, course: _Course, *, alone: bool) -> bool:
        """One look, one order, and what becomes of it."""
        before = self._look(way, course)
        if before is None and not isinstance(course.looks[way.name], Busy):
            return False
        again = way.name in course.ordered_at
        if before is course.wanted and (again or course.wanted is HostPower.ON):
            return True
        if not again:
            course.deadline = Deadline.after(self._off_timeout_s, self._clock)
        patience = self._order(way, course)
        end = Deadline.after(patience if alone or patience > LOOK_S else 0, self._clock)
        pause = way.pause_s
        while self._look(way, course) is not course.wanted:
            if end.passed() or self._is_over(course) or not course.may_help(way.name):
                return False
            self._clock.sleep(pause)
            pause = min(1.3 * pause, 1.0)
        return True

    def _look(self, way: Way, course: _Course) -> HostPower | None:
        """None when it does not say."""
        try:
            power = self._read(way, self._timeout_s)
        except Failed as failed:
            course.looks[way.name] = failed
            course.heard = course.heard or isinstance(failed, Busy)
            return None
        course.looks.pop(way.name, None)
        course.heard = True
        return power

    def _order(self, way: Way, course: _Course) -> float:
        """Gives it; for how long the power may take before it is given again."""
        began = self._clock.now()
        course.ordered_at.setdefault(way.name, began)
        course.heard = False
        try:
            with self._one:
                course.remark = way.order(course.wanted, self._timeout_s)
        except Refused as refused:  # perhaps it is so already: what it reads decides
            self._keep(way, began, HostPower.UNKNOWN)
            course.orders[way.name] = refused
            return 0
        except Failed as failed:  # it may have been obeyed all the same
            course.orders[way.name] = failed
            return LOOK_S if isinstance(failed, Passing) else 0
        self._keep(way, began, HostPower.UNKNOWN)
        course.orders[way.name] = Passing(
            f"took the order, and the power does not read {course.wanted} after {self._off_timeout_s:g} s",
            f"look at the machine and its controller, or raise bmc.off_timeout_s of {self._host}",
        )
        return max(LOOK_S, course.deadline.left() / 2)

    # -- until that is proven

    def _proven(self, way: Way, course: _Course) -> str:
        """How it is proven; "" when it reads on again, and has to be ordered once more."""
        end = Deadline.after(self._start_s + max(DARK_S, self._off_timeout_s), self._clock)
        while True:
            verdict = weigh(self._answers[way.name], course.ordered_at[way.name], None, self._start_s)
            if isinstance(verdict, Unproven) and verdict.wait_s > APART_S:
                verdict = weigh(
                    self._answers[way.name], course.ordered_at[way.name], self._running_s(way), self._start_s
                )
            if isinstance(verdict, Proven):
                return verdict.how
            if end.passed() or course.watch.stopping():
                raise self._silent({way.name: Failed(f"says off, but {verdict.why}", "ask again in a minute")})
            if verdict.wait_s > LOOK_S:
                course.watch.progress(f"{way.name} says off; {verdict.why}")
            self._clock.sleep(min(max(verdict.wait_s, APART_S), LOOK_S))
            try:
                if self._read(way, self._timeout_s) is not HostPower.OFF:
                    del course.ordered_at[way.name]
                    return ""
            except Failed as failed:
                if not isinstance(failed, Passing):
                    raise self._silent({way.name: failed}) from failed

    def _running_s(self, way: Way) -> float | None:
        with self._one:
            return way.running_s(self._timeout_s)

    def _agree(self, way: Way, course: _Course) -> None:
        """Every other way that answers says off, too, by the end of the time that an order has."""
        for other in (w for w in self._ways if w is not way):
            limit_s = SECOND * self._timeout_s if other.name in self._unheard else self._timeout_s
            while True:
                try:
                    power = self._read(other, limit_s)
                except Failed:
                    break  # who does not answer contradicts nobody
                if power is HostPower.OFF:
                    break
                if course.deadline.passed() or course.watch.stopping():
                    raise self._contradicted(f"{way.name} says that its power is off, and {other.name} that it is on")
                self._clock.sleep(LOOK_S)

    def _hear(self, said: str, way: Way, course: _Course) -> None:
        """Who says that the host lives is asked again: what was on its way as the power went off is no sign."""
        for left in reversed(range(TRIES)):
            if not said:
                return
            if not left or course.watch.stopping():
                raise self._contradicted(f"{way.name} says that its power is off, and yet {said}")
            self._clock.sleep(LOOK_S)
            said = self._witness.begin()()

    def _compare(self, way: Way) -> None:
        """Two hosts with one controller: what it says can be true of one of them only."""
        for name, rival in self._rivals().items():
            if self.identity and name != self._host and rival.identity == self.identity:
                what = f"{way.name} says that its power is off, and so it does of {name}: they have one controller"
                raise self._contradicted(f"{what} ({self.identity})")

    def _contradicted(self, what: str) -> Blocked:
        self._proof = ""
        return Blocked(
            f"{what}: one of the two is not {self._host}'s",
            where=self._host,
            next=f"see whose controller and whose address these are (pcloud hosts check compares them), and correct "
            f"bmc or address of {self._host}",
        )

    # -- one question

    def _read(self, way: Way, limit_s: float) -> HostPower:
        began = self._clock.now()
        try:
            with self._one:
                power = way.read(limit_s)
        except Failed as failed:
            if isinstance(failed, Busy):
                self._unheard.discard(way.name)
            else:
                self._unheard.add(way.name)
                self._in_vain_s += self._clock.now() - began
            raise
        self._unheard.discard(way.name)
        self._keep(way, began, power)
        return power

    def _keep(self, way: Way, began: float, power: HostPower) -> None:
        if power is HostPower.ON:
            self._proof = ""
        self._answers[way.name].append(Answer(began, self._clock.now(), power, way.session))

    def _compared(self, first: Reading, others: Sequence[Way]) -> Reading:
        """What is off by one way and on by another is on."""
        if first.power is HostPower.OFF:
            for other in others:
                try:
                    if self._read(other, SECOND * self._timeout_s) is HostPower.ON:
                        return replace(first, power=HostPower.ON, way=other.name, against=f"{first.way} says off")
                except Failed:
                    continue
        return first

    def _silent(self, problems: Mapping[str, Failed]) -> HostUnreachable:
        if not problems:
            return HostUnreachable(
                "it has no management controller in the inventory", where=self._host, next=f"add bmc to {self._host}"
            )
        what = "; ".join(f"{name}: {failed.why}" for name, failed in problems.items())
        nexts = "; ".join(dict.fromkeys(failed.next for failed in problems.values()))
        return HostUnreachable(what, where=self._host, next=nexts)
