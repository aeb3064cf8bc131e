"""Shoppers at work: each a browser of her own, in one thread together; every request in a ledger."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Self, TextIO

from pcloud.clock import Deadline
from pcloud.errors import BadInput
from pcloud.forms import Unusable
from pcloud.journey import Browser
from pcloud.model import Visit
from pcloud.shopping import (
    NUMBER,
    ORDER,
    Entry,
    Next,
    next_move,
    read_lines,
    round_of,
    to_line,
    verdict_of,
)
from pcloud.web import Unanswered, client, one_line

PATIENCE_S = 10.0
"""How long a shopper waits for a page."""
ROUND_PAUSES = 10
RETRY_S = 1.0
"""What she waits before she asks again."""


class Ledger:
    """JSON lines, each on the disk before the shopper goes on."""

    def __init__(self, path: Path | None) -> None:
        self.entries: list[Entry] = []
        self._file: TextIO | None = None
        if path is not None:
            try:
                self._file = path.open("a", encoding="utf-8")
            except OSError as error:
                raise BadInput(
                    f"the ledger cannot be written: {error.strerror}", where=str(path), next="name a file that can be"
                ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, entry: Entry) -> None:
        if self._file is not None:
            self._file.write(f"{to_line(entry)}\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.entries.append(entry)


def read_ledger(path: Path) -> tuple[Entry, ...]:
    """The entries of a file that a `Ledger` wrote. Raises `BadInput`."""
    try:
        return read_lines(path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise BadInput(
            f"it is not a ledger that can be read: {error}",
            where=str(path),
            next="pcloud lab shoppers SITE --ledger FILE writes one",
        ) from error


def shop_around(
    base_url: str,
    ledger: Ledger,
    *,
    number: int,
    duration_s: float,
    pause_s: float,
    seed: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Lets `number` shoppers loose at `base_url` until `duration_s` have passed or `stopped` says so.

    Between pages each pauses for `pause_s`, more or less. Ends within `PATIENCE_S` of its time:
    what was asked is waited for.
    """
    deadline = Deadline.after(duration_s)

    async def all_of_them() -> None:
        ends = asyncio.Event()
        crowd = [_Shopper(n, base_url, ledger, pause_s, Random(f"{seed}/{n}"), ends) for n in range(number)]  # noqa: S311
        apart_s = ROUND_PAUSES * pause_s / number  # so that their orders do not come all at once
        walks = [asyncio.create_task(shopper.shop(n * apart_s)) for n, shopper in enumerate(crowd)]
        while not (deadline.passed() or stopped() or any(walk.done() for walk in walks)):
            await asyncio.sleep(0.1)
        ends.set()
        await asyncio.gather(*walks)

    asyncio.run(all_of_them())


class _Shopper:
    def __init__(
        self, number: int, base_url: str, ledger: Ledger, pause_s: float, random: Random, ends: asyncio.Event
    ) -> None:
        self._number, self._base_url, self._ledger = number, base_url, ledger
        self._pause_s, self._random, self._ends = pause_s, random, ends

    async def shop(self, delay_s: float) -> None:
        """Round after round, until the end."""
        await self._rest(delay_s)
        while not self._ends.is_set():
            async with client(self._base_url) as session:
                browser = Browser(session, self._base_url, PATIENCE_S)
                while not self._ends.is_set() and await self._go_round(browser):
                    pass

    async def _go_round(self, browser: Browser) -> bool:
        """One round; false when she gives this browser up."""
        for visit in round_of(self._random, self._number):
            sent = 0
            while not self._ends.is_set():
                sent += 1
                move = await self._ask(browser, visit, sent)
                again = move is Next.AGAIN
                await self._rest(RETRY_S if again else self._pause_s * self._random.uniform(0.5, 1.5))
                if move is Next.ANEW:
                    return False
                if not again:
                    break
        return True

    async def _ask(self, browser: Browser, visit: Visit, sent: int) -> Next:
        began, fine, answered, problem = time.time(), True, True, ""
        try:
            await browser.try_visit(visit)
        except Unusable as error:
            fine, problem = False, str(error)
        except Unanswered as error:
            fine, answered, problem = False, False, str(error)
        verdict = verdict_of(browser.status, fine=fine, answered=answered)
        told = browser.text(NUMBER) if fine and visit.name == ORDER else ""
        now = time.time()
        status, seconds = browser.status if answered else 0, round(now - began, 3)
        name, text = visit.name, one_line(problem)
        self._ledger.write(Entry(round(now, 3), self._number, name, verdict.value, status, seconds, text, told, sent))
        return next_move(visit.name, verdict)

    async def _rest(self, seconds: float) -> None:
        """A pause that the end cuts short."""
        try:
            async with asyncio.timeout(seconds):
                await self._ends.wait()
        except TimeoutError:
            return
