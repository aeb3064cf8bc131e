"""Virtual time. `SimClock` adds up what is slept; `VirtualTime` lets many actors share one clock, one at a time.

An actor is a thread, and only one of them runs: whoever sleeps hands over to the one that wakes
first. So the real executor, its threads and their waiting take microseconds, and the same
scenario always takes the same course.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

EPOCH = 1_353_100_000
LATEST_S = 100_000.0
"""Whoever still works at this time never ends."""


class Died(BaseException):
    """The operator's process was killed: nothing after this happens."""


class SimClock:
    """Time passes only when somebody sleeps."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return datetime.fromtimestamp(EPOCH + self._now, UTC)

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
        time.sleep(0)  # else who polls uses up a deadline before another thread gets the processor

    def work(self, seconds: float) -> None:
        """How long an effect takes: nothing, where time is only added up."""

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Something that will happen by itself: never, where nobody waits for it."""


@dataclass
class _Actor:
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ident: int = 0


class VirtualTime(SimClock):
    """The thread that made it is the first actor."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: list[tuple[float, int, _Actor | Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._current = self._main = _Actor(ident=threading.get_ident())
        self._others = 0
        self._idle = False
        """The first actor waits for something that another one does."""
        self.dead = False

    # -- for actors

    def sleep(self, seconds: float) -> None:
        """Others go on meanwhile. Raises `Died` in whoever wakes after the process was killed."""
        me = self._current
        if threading.get_ident() != me.ident:
            return  # a thread of a step's own: it works within its step's turn
        self._push(self._now + seconds, me)
        self._hand_over(me)
        if self.dead:
            raise Died

    def work(self, seconds: float) -> None:
        self.sleep(seconds)

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """The first actor: until it is so, while others go on (`wake`)."""
        while not ready():
            self._idle = True
            self._hand_over(self._main)

    def wake(self) -> None:
        """What the first actor waits for may be so now."""
        if self._idle:
            self._idle = False
            self._push(self._now, self._main)

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._push(max(when, self._now), act)

    def spawn(self, work: Callable[[], None]) -> None:
        """Another actor, which begins when its turn comes."""
        actor = _Actor()
        self._others += 1
        threading.Thread(target=self._live, args=(actor, work), daemon=True).start()
        self._push(self._now, actor)

    def _live(self, actor: _Actor, work: Callable[[], None]) -> None:
        actor.turn.acquire()
        actor.ident = threading.get_ident()
        self._current = actor
        try:
            if not self.dead:
                work()
        except Died:
            self.dead = True
        finally:
            self._others -= 1
            if self.dead:
                self.wake()
            self._hand_over(None)

    # -- the turns

    def _push(self, when: float, who: _Actor | Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._numbers), who))

    def _hand_over(self, me: _Actor | None) -> None:
        """To whoever wakes next; what happens by itself before that happens here."""
        while True:
            assert self._queue, "everybody waits for somebody else"
            when, _, who = heapq.heappop(self._queue)
            assert when < LATEST_S, "nothing comes to an end"
            self._now = max(self._now, when)
            if isinstance(who, _Actor):
                break
            who()
        if who is me:
            return
        who.turn.release()
        if me is not None:
            me.turn.acquire()
            self._current = me

    def bury(self) -> None:
        """Every other actor ends, wherever it is: the process was killed. No time passes."""
        self.dead = True
        waiting = sorted((e for e in self._queue if isinstance(e[2], _Actor)), key=lambda e: e[:2])
        later = [e for e in self._queue if not isinstance(e[2], _Actor)]
        for _, _, actor in waiting:
            if actor is self._main or not isinstance(actor, _Actor):
                continue
            self._queue = [(self._now, 0, self._main)]  # who ends hands over to this one
            self._idle = False
            actor.turn.release()
            self._main.turn.acquire()
            self._current = self._main
        assert not self._others, "an actor lives on"
        self._queue = later
        heapq.heapify(self._queue)
        self.dead = False


class Inbox:
    """A queue of the first actor's: what other actors put, in their order (`queue.SimpleQueue`)."""

    def __init__(self, time: VirtualTime) -> None:
        self._time, self._events = time, deque[Any]()

    def put(self, event: Any) -> None:
        self._events.append(event)
        self._time.wake()

    def get(self, *, timeout: float = 0) -> Any:
        self._time.wait_for(lambda: bool(self._events) or self._time.dead)
        if self._time.dead:
            raise Died
        return self._events.popleft()


class Turns:
    """A pool of threads that take turns (`ThreadPoolExecutor`)."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        self._time.spawn(lambda: work(*args))
        return Future()
