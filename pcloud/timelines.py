"""Timelines: the branches of a site's data, each named by a GTID domain of its own.

A promotion and a restore begin one; an orderly fail-back does not, since it gives nothing up. The
means is MariaDB's GTID domain, beside a table in the data that says who began it, when, where and
why (`pcloud.timelines`): binary logs, relay logs, streams and backups then say by themselves to
which branch a transaction belongs, MariaDB itself refuses to continue a branch that was given up
(error 1236), and the counting of what one position lacks of another is right across branches.
The idea is PostgreSQL's timelines; a table alone would leave equal numbers on two branches equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from pcloud.gtid import newest_domain

FIRST = 1000
"""Domains from here on name timelines; those below are data's from before there were any, and mean nothing."""
STEP = 100_000
"""A domain is the timeline's number times this, plus the second in which it was begun: two runs that do not know of
each other differ in that, surely where they are less than a day apart, and else but for one in a hundred thousand."""


def number_of(domain: int) -> int:
    """Which timeline it is: 1 for the first one of a site; 0 for data from before they were numbered so."""
    return domain // STEP


def next_domain(date: str, known: Iterable[int | str]) -> int:
    """The domain of a timeline that begins now, higher than all of `known` (domains, or positions).

    `date` is the plan's (`20121116-214005`): two that begin at different times differ, also where neither knows of
    the other.
    """
    newest = max((k if isinstance(k, int) else newest_domain(k) for k in known), default=0)
    return (number_of(newest) + 1) * STEP + _second(date) % STEP


def _second(date: str) -> int:
    digits = re.sub(r"[^0-9]", "", date)[:14].ljust(14, "0")
    return int(datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp())
