"""Shoppers who put a shop under load: what one does next, and what a ledger of them all says. Pure.

A shopper walks one round after another: looks around, searches, fills a basket, orders. Who gets
no answer asks again, an order included: the shop makes one order of a basket, however often it is
sent. An order counts as acknowledged once its number was on her screen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from random import Random

from pcloud.model import Visit

SEARCH, ORDER = "search", "order"
NUMBER = ".order-number"
"""Where the page that thanks for an order shows its number."""
_WORDS = ("érable", "rosier", "chêne", "pommier")
_ADDRESS = {
    "first_name": "Jeanne",
    "last_name": "Dupré",
    "line1": "3 rue des Lilas",
    "postcode": "45000",
    "line4": "Orléans",
}
_IN_STOCK = "article.product:not(:has(.stock.out))"


def round_of(random: Random, shopper: int) -> tuple[Visit, ...]:
    """One round, from the home page to an order; a different product each time."""
    page = random.randint(1, 4)
    return (
        Visit(name="home", get="/", finds="nav a[data-category]"),
        Visit(name=SEARCH, get=f"/search/?q={random.choice(_WORDS)}", finds="article.product"),
        Visit(name="browse", get=f"/catalogue/?page={page}", finds=_IN_STOCK),
        Visit(name="product", follow=f"{_IN_STOCK} a", finds="form.add-to-basket"),
        Visit(name="basket", submit="form.add-to-basket", fields={"quantity": "1"}, finds=".basket-item"),
        Visit(name="checkout", get="/checkout/", finds="form.checkout"),
        Visit(
            name="guest",
            submit="form.checkout",
            fields={"username": f"shopper{shopper}@example.org"},
            finds="form.checkout-address",
        ),
        Visit(name="address", submit="form.checkout-address", fields=_ADDRESS, finds="form.checkout-shipping"),
        Visit(name="shipping", submit="form.checkout-shipping", finds="form.checkout-order"),
        Visit(name=ORDER, submit="form.checkout-order", contains=("Merci pour votre commande",), finds=NUMBER),
    )


class Verdict(StrEnum):
    FINE = "fine"
    SILENT = "silent"
    """No answer, or one that says that the shop is away."""
    WRONG = "wrong"
    """A page, and not the one that was asked for."""


class Next(StrEnum):
    GO_ON = "go on"
    AGAIN = "again"
    ANEW = "anew"
    """With a new browser, from the home page."""


def next_move(kind: str, verdict: Verdict) -> Next:
    """What a shopper does after a step of her round."""
    if verdict is Verdict.SILENT:
        return Next.AGAIN
    # A search that is away costs a shopper her hits, not her order.
    return Next.GO_ON if verdict is Verdict.FINE or kind == SEARCH else Next.ANEW


def verdict_of(status: int, *, fine: bool, answered: bool) -> Verdict:
    """`answered`: a whole answer came; `status` is its status."""
    if fine:
        return Verdict.FINE
    return Verdict.WRONG if answered and status < 500 else Verdict.SILENT


@dataclass(frozen=True)
class Entry:
    """One request of one shopper. `at` is the moment of its end, in seconds since 1970."""

    at: float
    shopper: int
    kind: str
    verdict: str
    status: int
    seconds: float
    problem: str = ""
    number: str = ""
    """Of the order that was acknowledged."""
    sent: int = 1
    """How many times this order was sent, this one included."""

    @property
    def reason(self) -> str:
        """A failure in a word or two."""
        return f"{self.status}" if self.status >= 400 else "no answer" if self.status == 0 else "another page"


def to_line(entry: Entry) -> str:
    return json.dumps(asdict(entry), ensure_ascii=False)


def read_lines(lines: Iterable[str]) -> tuple[Entry, ...]:
    """A ledger's entries in the order of their moments. Raises `ValueError` with the line's number."""
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Entry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number} is no entry of a ledger: {error}") from error
    return tuple(sorted(found, key=lambda e: e.at))


@dataclass(frozen=True)
class Gap:
    """A time without: `at` is when it began, in seconds since 1970."""

    at: float
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What a ledger says. Gaps run between two such moments, and until the ledger's end."""

    shoppers: int
    seconds: float
    requests: int
    pages: int
    """Requests that were answered as they should be."""
    orders: int
    resent: int
    """Orders that had to be sent more than once."""
    failed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By kind of request, then by reason."""
    longest_without_order: Gap | None = None
    longest_without_page: Gap | None = None

    @property
    def failures(self) -> int:
        return sum(sum(reasons.values()) for reasons in self.failed.values())


def summarise(entries: Sequence[Entry]) -> Summary:
    failed: dict[str, Counter[str]] = {}
    for entry in entries:
        if entry.verdict != Verdict.FINE:
            failed.setdefault(entry.kind, Counter())[entry.reason] += 1
    orders = [e for e in entries if e.number]
    pages = [e.at for e in entries if e.verdict == Verdict.FINE]
    end = entries[-1].at if entries else 0.0
    return Summary(
        shoppers=len({e.shopper for e in entries}),
        seconds=round(end - entries[0].at + entries[0].seconds, 3) if entries else 0.0,
        requests=len(entries),
        pages=len(pages),
        orders=len({e.number for e in orders}),
        resent=sum(e.sent > 1 for e in orders),
        failed={kind: dict(sorted(reasons.items())) for kind, reasons in sorted(failed.items())},
        longest_without_order=longest_gap([e.at for e in orders], end),
        longest_without_page=longest_gap(pages, end),
    )


def longest_gap(moments: Sequence[float], end: float) -> Gap | None:
    """The longest time between two neighbours, the last of which is `end`; None when there is no moment."""
    steps = zip(moments, [*moments[1:], end], strict=True) if moments else ()
    return max((Gap(a, round(b - a, 3)) for a, b in steps), key=lambda g: g.seconds, default=None)


@dataclass(frozen=True)
class Audit:
    """The ledger beside the database: `missing` and `twice` are numbers of acknowledged orders."""

    acknowledged: int
    missing: tuple[str, ...]
    twice: tuple[str, ...]
    doubled: int
    """Baskets of which the database has more than one order, whoever sent them."""

    @property
    def fine(self) -> bool:
        return not (self.missing or self.twice or self.doubled)


def audit(entries: Iterable[Entry], stored: Iterable[str], doubled: int) -> Audit:
    """`stored` are the numbers of all orders in the database, `doubled` the baskets with more than one."""
    count, told = Counter(stored), sorted({e.number for e in entries if e.number})
    return Audit(len(told), tuple(n for n in told if not count[n]), tuple(n for n in told if count[n] > 1), doubled)
