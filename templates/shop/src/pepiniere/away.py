"""When the database is away: a page that says so, at once, and health for the balancer.

A frontend that just failed to reach the database does not try again for a second or two:
shoppers get their answer quickly and threads are not all spent in time-outs. A database that
refuses gives 503, which the balancer tries on another frontend, if one can answer; a database
that is silent gives 504, which it does not, as that would add up the waiting of each.

A database that only takes no changes for now, because its replica does not acknowledge them,
still answers whoever looks around: a change that failed holds back further changes, not pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections, connection
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

SLOW_S = 2.0
PAUSE_S, SLOW_PAUSE_S = 1.0, 2.0
# 1040 too many connections, 1045/1044 access denied (accounts not made yet), 1049 unknown
# database, 1146 no such table (dump not restored yet), 1205/1213 rows that another order holds,
# 1290 read-only server, 1927 connection killed, 2002-2013 away.
AWAY = {1040, 1044, 1045, 1049, 1053, 1077, 1079, 1129, 1130, 1146, 1205, 1213, 1290, 1927}
AWAY |= {2002, 2003, 2005, 2006, 2013, 2026}
READS = ("GET", "HEAD")
ORDER = "/checkout/preview/"


class DatabaseAway:
    """Middleware: turns a database that is away into a 503 that explains itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.away_until = {"reads": 0.0, "changes": 0.0}

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.came_at = time.monotonic()
        kind = "reads" if request.method in READS else "changes"
        if request.came_at < self.away_until[kind]:
            return sorry(request, 503)
        response = self.get_response(request)
        if response.status_code in (503, 504):
            until = time.monotonic() + (SLOW_PAUSE_S if response.status_code == 504 else PAUSE_S)
            self.away_until["changes"] = until
            if kind == "reads":
                self.away_until["reads"] = until
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return after(request) if is_away(error) else None


def is_away(error: BaseException) -> bool:
    """Whether an exception says that the database cannot be used now."""
    if isinstance(error, InterfaceError):
        return True
    code = error.args[0] if getattr(error, "args", None) else None
    return code in AWAY if isinstance(error, OperationalError) or code == 1146 else False


def after(request: HttpRequest) -> HttpResponse:
    """The answer to a request that met a database that is away: 504 when that took long."""
    return sorry(request, 504 if time.monotonic() - getattr(request, "came_at", float("inf")) > SLOW_S else 503)


def sorry(request: HttpRequest, status: int) -> HttpResponse:
    """A page that comes back by itself; for an order, one that sends it again when the shopper says so."""
    ordered = request.method == "POST" and request.path == ORDER
    token = request.POST.get("csrfmiddlewaretoken", "") if ordered else ""
    page = render_to_string("unsure.html" if ordered else "away.html", {"token": token})
    response = HttpResponse(page, status=status)
    response["Retry-After"] = "2"
    response["Cache-Control"] = "no-store"
    return response


def readiness() -> tuple[int, str]:
    """Status and text for `/readyz`: the database must answer, search is only reported."""
    from .search import sphinx

    close_old_connections()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM catalogue_product")
            row: Any = cursor.fetchone()
    except Exception as error:
        if not is_away(error):
            raise
        return 503, f"database: away ({error.args[0] if error.args else error})\n"
    finally:
        close_old_connections()
    return 200, f"database: ok, {row[0]} products\nsearch: {sphinx.state()}\n"
