"""Sphinx over the network: SphinxQL, one short connection a question.

A connection to searchd costs less than keeping one alive in every thread across restarts and
moves of the indexer. When search does not answer, `SearchAway` says so within two seconds, and
nobody asks again for the next two.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import MySQLdb
from django.conf import settings

CONNECT_S, READ_S, PAUSE_S = 1, 3, 2.0
SORTS = {
    "": "WEIGHT() DESC, id ASC",
    "price-asc": "price_cents ASC, id ASC",
    "price-desc": "price_cents DESC, id ASC",
    "title-asc": "title_order ASC, id ASC",
}
WORD = re.compile(r"[^\W_]+", re.UNICODE)
_away_until = 0.0


class SearchAway(Exception):
    """The search server does not answer, or has no index yet."""


@dataclass(frozen=True)
class Hits:
    """Product keys of one page, best first, and how many there are in all."""

    keys: list[int]
    total: int


def match_expression(text: str) -> str:
    """The words of `text` as a Sphinx query: every word or, failing that, most of them.

    Only letters and digits go in, so none of Sphinx's operators can come from the shopper.
    """
    words = WORD.findall(text)[:12]
    if len(words) > 2:
        return f'"{" ".join(words)}"/{len(words) - 1}'
    return " ".join(words)


def find(text: str, *, offset: int, limit: int, sort: str = "") -> Hits:
    """Products that match `text`. Raises `SearchAway`."""
    expression = match_expression(text)
    if not expression:
        return Hits([], 0)
    order = SORTS.get(sort, SORTS[""])
    # The index's name comes from the settings, the order from SORTS: neither from a shopper.
    query = (
        f"SELECT id FROM {settings.SEARCH['index']} WHERE MATCH(%s) ORDER BY {order} "
        f"LIMIT %s, %s OPTION field_weights=(title=10,category=4,description=1), max_matches=2000"
    )
    rows, meta = _ask(query, (expression, offset, limit))
    return Hits([int(row[0]) for row in rows], int(meta.get("total", len(rows))))


def state() -> str:
    """For `/readyz`: "ok", or why search does not answer. Never raises."""
    global _away_until
    _away_until = 0.0
    try:
        find("a", offset=0, limit=1)
    except SearchAway as error:
        return f"away ({error})"
    return "ok"


def _ask(query: str, values: tuple[object, ...]) -> tuple[list[tuple[object, ...]], dict[str, str]]:
    global _away_until
    if time.monotonic() < _away_until:
        raise SearchAway("did not answer a moment ago")
    try:
        connection = MySQLdb.connect(
            host=settings.SEARCH["host"],
            port=settings.SEARCH["port"],
            charset="utf8",
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            write_timeout=READ_S,
        )
        try:
            cursor = connection.cursor()
            cursor.execute(query, values)
            rows = list(cursor.fetchall())
            cursor.execute("SHOW META")
            return rows, dict(cursor.fetchall())
        finally:
            connection.close()
    except MySQLdb.Error as error:
        _away_until = time.monotonic() + PAUSE_S
        raise SearchAway(str(error.args[-1] if error.args else error)) from error
