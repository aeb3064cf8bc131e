"""The shopper's walk: opens pages, follows links and sends forms, as a browser without scripts.

It stops at the first step that is not as it should be, never leaves the shop's own address, and
each step is bounded as a whole in time and in memory.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, Tag, XMLParsedAsHTMLWarning
from soupsieve import SelectorSyntaxError

from pcloud.clock import Clock, Deadline
from pcloud.forms import Submission, Unusable, attribute, submission
from pcloud.model import Journey, Visit
from pcloud.web import Page, Unanswered, client, fetch, fold, one_line, shown

BODY_LIMIT = 4 << 20
MAX_REDIRECTS = 10
MAX_DEPTH = 2000  # html.parser leaves <p> and <li> open, so honest pages can be deep
_CHARSET = re.compile(r"charset=\"?([A-Za-z0-9._-]{1,40})", re.IGNORECASE)

# A page that is XML, or a single word, is judged like any other.
warnings.filterwarnings("ignore", category=XMLParsedAsHTMLWarning)
warnings.filterwarnings("ignore", category=MarkupResemblesLocatorWarning)


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
        shopper = Browser(session, base_url, journey.timeout_s)
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


class _Page(BeautifulSoup):
    """A parsed page, whose parsing ends at a deadline.

    Python 3.11's html.parser needs minutes for some hostile pages (`<a ` repeated); its callbacks
    come often enough to stop it. Deep nesting would make each selector as slow.
    """

    def __init__(self, body: bytes, charset: str | None, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__(body, "html.parser", from_encoding=charset)

    def handle_starttag(self, *args: Any, **kwargs: Any) -> Tag | None:
        self._look()
        return super().handle_starttag(*args, **kwargs)

    def handle_data(self, data: str) -> None:
        self._look()
        super().handle_data(data)

    def object_was_parsed(self, *args: Any, **kwargs: Any) -> None:
        self._look()
        super().object_was_parsed(*args, **kwargs)

    def _look(self) -> None:
        if self._deadline.passed():
            raise Unusable("the page is too strange to be read in time")
        if len(self.tagStack) > MAX_DEPTH:
            raise Unusable(f"the page's elements are nested more than {MAX_DEPTH} deep")


class Browser:
    """One person's browser: cookies, and the page that the last step left open.

    `status` is that of the last step's answer, 0 when none came.
    """

    def __init__(self, session: httpx.AsyncClient, base_url: str, timeout_s: float) -> None:
        self.status = 0
        self._session = session
        self._base_url = base_url
        self._home = httpx.URL(base_url)
        self._timeout_s = timeout_s
        self._url = self._home
        self._soup: BeautifulSoup | None = None

    async def visit(self, visit: Visit) -> str:
        """One step; what it saw, on one line. Raises `Unusable` and `Unanswered`."""
        deadline = Deadline.after(self._timeout_s)
        self.status = 0
        request = self._request(visit)
        page = await self._arrive(visit, request, deadline)
        self.status = page.status
        if page.cut:
            raise Unusable(f"{page.what}: its answer has more than {BODY_LIMIT >> 20} MiB")
        try:
            soup = _Page(bytes(page.body), _charset(page), deadline)
            self._url, self._soup = page.request.url, soup
            return f"{page.what}: {_judge(visit, page, soup)}"
        except Unusable as problem:
            raise Unusable(f"{page.what}: {problem}") from None

    async def try_visit(self, visit: Visit) -> str:
        """Like `visit`; a page that is not as it should be is left again, by the button that goes back."""
        before = self._url, self._soup
        try:
            return await self.visit(visit)
        except (Unusable, Unanswered):
            self._url, self._soup = before
            raise

    def text(self, selector: str) -> str:
        """What the first match on the open page says, "" when there is none."""
        found = _select(self._soup, selector) if self._soup is not None else []
        return one_line(found[0].get_text()) if found else ""

    async def _arrive(self, visit: Visit, request: httpx.Request, deadline: Deadline) -> Page:
        """The answer to a request, at the end of its redirects (or at the one that the step asks for)."""
        now = request
        for _ in range(MAX_REDIRECTS + 1):
            page = await fetch(self._session, now, deadline=deadline, timeout_s=self._timeout_s, limit=BODY_LIMIT)
            if page.next_request is None or page.status == visit.status:
                return page
            now = page.next_request
            if not self._is_home(now.url):
                raise Unusable(f"{_asked(request)}: redirects to {shown(now.url)}, which is not on {self._base_url}")
        raise Unusable(f"{_asked(request)}: more than {MAX_REDIRECTS} redirects, the last to {shown(now.url)}")

    def _is_home(self, url: httpx.URL) -> bool:
        home = self._home
        return (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port)

    def _request(self, visit: Visit) -> httpx.Request:
        if visit.get is not None:
            return self._session.build_request("GET", self._base_url + visit.get)
        selector = visit.follow or visit.submit or ""
        if self._soup is None:
            raise Unusable(f"no page is open in which to find '{selector}': a journey starts with get")
        matches = _select(self._soup, selector)
        here = shown(self._url)
        if not matches:
            raise Unusable(f"{here}: nothing matches '{selector}'{_title(self._soup)}")
        try:
            base = self._link_base(self._soup)
            sent = _followed(matches, base) if visit.follow else _submitted(self._soup, matches, base, visit)
        except (Unusable, httpx.InvalidURL, ValueError) as problem:  # ValueError: urllib's for a bad [address]
            raise Unusable(f"{here}: '{selector}': {problem}") from None
        if not self._is_home(sent.url):
            raise Unusable(f"{here}: '{selector}' leads to {shown(sent.url)}, which is not on {self._base_url}")
        headers = {"Referer": str(self._url.copy_with(fragment=None))}
        if sent.method == "GET":
            return self._session.build_request("GET", sent.url, headers=headers)
        headers["Content-Type"] = sent.content_type
        return self._session.build_request(sent.method, sent.url, content=sent.content, headers=headers)

    def _link_base(self, soup: BeautifulSoup) -> httpx.URL:
        base = soup.find("base", href=True)
        return self._url.join(attribute(base, "href")) if base is not None else self._url


def _followed(matches: list[Tag], base: httpx.URL) -> Submission:
    first = matches[0]
    own = first if first.name == "a" and first.has_attr("href") else None
    link = own or first.find_parent("a", href=True) or first.find("a", href=True)
    if link is None:
        raise Unusable(f"the first match is a <{first.name}> with no link in or around it")
    return Submission("GET", base.join(attribute(link, "href").strip()))


def _submitted(soup: BeautifulSoup, matches: list[Tag], base: httpx.URL, visit: Visit) -> Submission:
    found = (m if m.name == "form" else m.find_parent("form") or m.find("form") for m in matches)
    form = next((f for f in found if f is not None), None)
    if form is None:
        raise Unusable("it matches no form, nor anything in or around one")
    return submission(soup, form, base, visit.fields)


def _select(soup: BeautifulSoup, selector: str) -> list[Tag]:
    try:
        return list(soup.select(selector))
    except (SelectorSyntaxError, ValueError) as error:
        raise Unusable(f"'{selector}' is not a CSS selector ({one_line(str(error), 80)})") from None


def _judge(visit: Visit, page: Page, soup: BeautifulSoup) -> str:
    """What the page shows, as asked; raises `Unusable` for the first thing that it does not."""
    if page.status != visit.status:
        raise Unusable(f"{page.status} instead of {visit.status}{_title(soup)}")
    if visit.contains:
        # Words that inline tags divide read as one; blocks side by side read as two.
        readings = (soup.get_text(" "), soup.get_text(), _raw(page, soup))
        folded = [fold(text) for text in readings]
        for wanted in visit.contains:
            if not any(fold(wanted) in text for text in folded):
                raise Unusable(f"{page.status}, but '{wanted}' is not on the page{_title(soup)}")
    seen = f"{page.status}"
    if visit.finds is not None:
        count = len(_select(soup, visit.finds))
        if count < visit.at_least:
            raise Unusable(f"{seen}, but {count} of '{visit.finds}' instead of {visit.at_least}{_title(soup)}")
        seen += f", {count} of '{visit.finds}'"
    return seen


def _raw(page: Page, soup: BeautifulSoup) -> str:
    return page.body.decode(soup.original_encoding or "utf-8", "replace")


def _title(soup: BeautifulSoup) -> str:
    """The page's title, which often says what went wrong."""
    title = soup.find("title")
    text = one_line(title.get_text(), 80) if title is not None else ""
    return f" (titled '{text}')" if text else ""


def _charset(page: Page) -> str | None:
    found = _CHARSET.search(page.headers.get("content-type", ""))
    return found[1] if found else None


def _asked(request: httpx.Request) -> str:
    return f"{request.method} {shown(request.url)}"
