"""One HTTP exchange, bounded in time and in memory as a whole.

httpx bounds each read, so a server that drips a byte a second would hold us for ever; under
asyncio a time-out around the whole exchange cancels it at whatever it is doing. Encodings are
neither asked for nor undone: a small gzip body can be gigabytes.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
import urllib.parse
from dataclasses import dataclass, field

import httpx

from pcloud.clock import Deadline

_REASONS: dict[type[httpx.HTTPError], str] = {
    httpx.ConnectError: "cannot connect",
    httpx.ReadError: "the connection was reset",
    httpx.WriteError: "the connection was reset while asking",
    httpx.RemoteProtocolError: "not a proper HTTP answer",
}
_LETTERS = re.compile(r"(?:%[89A-F][0-9A-F])+")


@dataclass
class Page:
    """What came of a request so far; `status` is 0 until its head came, `cut` when `body` is not all."""

    request: httpx.Request
    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytearray = field(default_factory=bytearray)
    cut: bool = False
    next_request: httpx.Request | None = None

    @property
    def what(self) -> str:
        return f"{self.request.method} {shown(self.request.url)}"


class Unanswered(Exception):
    """No whole answer came; `str()` says why, on one line, with the request in it."""


def client(base_url: str) -> httpx.AsyncClient:
    """A client that goes where it is told only: no proxy of the environment, no redirect, no encoding."""
    return httpx.AsyncClient(
        headers={"User-Agent": "pcloud", "Accept-Encoding": "identity", "Accept": "text/html,*/*;q=0.8"},
        follow_redirects=False,
        trust_env=False,
        timeout=None,  # noqa: S113 - `fetch` bounds the whole instead of each read
        # Reading the certificate authorities costs more than a whole exchange: only where they are of use.
        verify=base_url.startswith("https:"),
        limits=httpx.Limits(max_connections=1),
    )


async def fetch(
    session: httpx.AsyncClient, request: httpx.Request, *, deadline: Deadline, timeout_s: float, limit: int
) -> Page:
    """The answer, at most `limit` bytes of its body. Raises `Unanswered`, at the deadline at the latest.

    `timeout_s` is what the deadline allowed in all, for messages: earlier requests may have used some of it.
    """
    page = Page(request)
    try:
        async with asyncio.timeout(deadline.left()):
            await _receive(session, page, limit)
    except TimeoutError:
        raise Unanswered(f"{page.what}: {_late(page, timeout_s)}") from None
    except httpx.HTTPError as error:
        raise Unanswered(f"{page.what}: {_reason(error)}") from None
    except (httpx.InvalidURL, ValueError, OSError) as error:  # ValueError: UnicodeError of a bad host or header
        raise Unanswered(f"{page.what}: {one_line(str(error)) or type(error).__name__}") from None
    return page


async def _receive(session: httpx.AsyncClient, page: Page, limit: int) -> None:
    response = await session.send(page.request, stream=True)
    try:
        page.status, page.headers, page.next_request = response.status_code, response.headers, response.next_request
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise Unanswered(f"{page.what}: its answer is encoded, which was not asked for")
        async for chunk in response.aiter_raw():
            page.body += chunk[: limit - len(page.body) + 1]
            if len(page.body) > limit:
                del page.body[limit:]
                page.cut = True
                return
    finally:
        await response.aclose()


def _late(page: Page, timeout_s: float) -> str:
    if page.status:
        return f"its answer ({page.status}) did not end within {timeout_s:g} s, {len(page.body)} bytes came"
    return f"no answer within {timeout_s:g} s"


def _reason(error: httpx.HTTPError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            return "connection reset"
        cause = cause.__cause__ or cause.__context__
    start = _REASONS.get(type(error), type(error).__name__)
    return f"{start} ({text})" if (text := one_line(str(error))) else start


def shown(url: httpx.URL) -> str:
    """A URL for people: letters beyond ASCII as themselves, all other escapes kept."""
    return one_line(_LETTERS.sub(lambda found: urllib.parse.unquote(found[0]), str(url)))


def fold(text: str) -> str:
    """For comparing what people read: composed accents (NFC), every run of blanks a single space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def one_line(text: str, limit: int = 300) -> str:
    """For a message: no control characters, no line breaks, not long."""
    folded = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"
