"""The shopper's walk: opens pages, follows links and sends forms, as a browser without scripts.

It stops at the first step that is not as it should be, never leaves the shop's own address, and
each step is bounded as a whole in time and in memory.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import bs4
import httpx
from bs4 import BeautifulSoup, Tag
from soupsieve import SelectorSyntaxError

from pcloud.clock import Clock
from pcloud.forms import Unusable, attribute, submission
from pcloud.model import Journey, Visit
from pcloud.web import Page, Unanswered, client, fetch, fold, one_line, shown

BODY_LIMIT = 4 << 20
MAX_REDIRECTS = 10


@dataclass(frozen=True)
class StepResult:
    """One step; `detail` is one line: what was asked, and what is wrong with the answer when it is."""

    name: str
    ok: bool
    elapsed_s: float
    detail: str


@dataclass(frozen=True)
class JourneyResult:
    """The steps that were tried, in order; only the last one may have failed."""

    ok: bool
    steps: tuple[StepResult, ...]

    @property
    def elapsed_s(self) -> float:
        return sum(step.elapsed_s for step in self.steps)

    @property
    def failed(self) -> StepResult | None:
        return None if self.ok or not self.steps else self.steps[-1]


def walk(
    journey: Journey, base_url: str, *, clock: Clock, on_step: Callable[[Visit, float], None] | None = None
) -> JourneyResult:
    """Walks once from the start, with cookies of its own; each step takes `journey.timeout_s` at most.

    `base_url` is `http://ADDRESS[:PORT]`. `on_step` hears of each step that passed, with its
    seconds. Raises nothing for a shop that answers badly: that is a failed step.
    """
    return asyncio.run(_walk(journey, base_url.rstrip("/"), clock, on_step))


async def _walk(
    journey: Journey, base_url: str, clock: Clock, on_step: Callable[[Visit, float], None] | None
) -> JourneyResult:
    steps: list[StepResult] = []
    async with client(base_url) as session:
        shopper = _Shopper(session, base_url, journey.timeout_s)
        for visit in journey.steps:
            started = clock.now()
            try:
                detail, ok = await shopper.visit(visit), True
            except (Unusable, Unanswered) as problem:
                detail, ok = str(problem), False
            elapsed_s = clock.now() - started
            steps.append(StepResult(visit.name, ok, elapsed_s, one_line(detail)))
            if not ok:
                return JourneyResult(False, tuple(steps))
            if on_step is not None:
                on_step(visit, elapsed_s)
    return JourneyResult(True, tuple(steps))


@dataclass(frozen=True)
class _Opened:
    """The page that a step left open."""

    url: httpx.URL
    soup: BeautifulSoup

    def link_base(self) -> httpx.URL:
        base = self.soup.find("base", href=True)
        return self.url.join(attribute(base, "href")) if base is not None else self.url


class _Shopper:
    def __init__(self, session: httpx.AsyncClient, base_url: str, timeout_s: float) -> None:
        self._session = session
        self._base_url = base_url
        self._home = httpx.URL(base_url)
        self._timeout_s = timeout_s
        self._open: _Opened | None = None

    async def visit(self, visit: Visit) -> str:
        """One step; what it saw, on one line. Raises `Unusable` and `Unanswered`."""
        ends = asyncio.get_running_loop().time() + self._timeout_s
        request = self._request(visit)
        page = await self._fetch(request, ends)
        for _ in range(MAX_REDIRECTS):
            if page.next_request is None:
                break
            page = await self._fetch(page.next_request, ends)
        else:
            raise Unusable(f"{_asked(request)}: more than {MAX_REDIRECTS} redirects, the last to {shown(page.request.url)}")
        if page.cut:
            raise Unusable(f"{page.what}: its answer has more than {BODY_LIMIT >> 20} MiB")
        self._open = _Opened(page.request.url, _parse(page))
        return _judge(visit, page, self._open.soup)

    async def _fetch(self, request: httpx.Request, ends: float) -> Page:
        url = request.url
        if (url.scheme, url.host, url.port) != (self._home.scheme, self._home.host, self._home.port):
            raise Unusable(f"it leads to {shown(url)}, which is not {self._base_url}")
        left = max(0.001, ends - asyncio.get_running_loop().time())
        try:
            return await fetch(self._session, request, timeout_s=left, limit=BODY_LIMIT)
        except Unanswered as problem:
            raise Unanswered(str(problem).replace(f"within {left:g} s", f"within {self._timeout_s:g} s")) from None
