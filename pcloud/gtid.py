"""MariaDB's positions: global transaction ids, `domain-server-sequence`, one a domain, as a list.

Every timeline of a site's data writes in a domain of its own (`timelines.py`), so a position is a
vector: `0-1-690,1417-2-30` holds 690 transactions of the first timeline and 30 of the one that
branched off there. A branch that was given up and the one that lives differ in their domains.
"""

from __future__ import annotations

from collections.abc import Mapping


def parse_gtids(text: str) -> Mapping[int, int]:
    """Domain to sequence number, from a list `domain-server-sequence,...` as MariaDB writes it.

    Raises `ValueError` for anything else. Source: MariaDB's documentation, "Global Transaction ID".
    """
    found: dict[int, int] = {}
    for word in filter(None, text.replace("\n", "").split(",")):
        domain, _server, sequence = word.strip().split("-")
        found[int(domain)] = max(found.get(int(domain), 0), int(sequence))
    return found


def behind(position: str, other: str) -> int:
    """How many transactions of `other` are not in `position`."""
    mine = parse_gtids(position)
    return sum(max(0, sequence - mine.get(domain, 0)) for domain, sequence in parse_gtids(other).items())


def newest_domain(position: str) -> int:
    """The domain of the latest timeline that the position has transactions of; 0 for none."""
    return max(parse_gtids(position), default=0)


def rank(position: str) -> tuple[tuple[int, int], ...]:
    """A key that sorts positions: the one on the newest timeline is the greatest, then the one further on it.

    Later timelines have higher domains (`timelines.next_domain`), so the comparison begins with those.
    """
    return tuple(sorted(parse_gtids(position).items(), reverse=True))


def given_up(position: str, known: str, timeline: int = 0) -> int:
    """How many transactions of `known` whoever goes on from `position` gives up.

    `timeline` is the domain of the data's newest one, which may have no transaction yet. None of a
    timeline before that: what came after the branch was given up when it was left, and said then.
    """
    newest = max(newest_domain(position), timeline)
    return behind(position, known) if newest_domain(known) >= newest else 0


def cap(position: str, goal: str) -> str:
    """As far as both go, in every domain that both have: what of `position` is on the way to `goal`."""
    mine, wanted = by_domain(position), by_domain(goal)
    return ",".join(min(mine[d], wanted[d])[1] for d in sorted(mine.keys() & wanted.keys()))


def merge(position: str, other: str) -> str:
    """As far as either goes, in every domain."""
    mine, theirs = by_domain(position), by_domain(other)
    both = sorted(mine.keys() | theirs.keys())
    return ",".join(max(mine.get(d, (0, "")), theirs.get(d, (0, "")))[1] for d in both)


def earlier(position: str, domain: int) -> str:
    """What of the position is of timelines before that one."""
    return ",".join(text for d, (_, text) in sorted(by_domain(position).items()) if d < domain)


def up_to(position: str, gtid: str) -> str:
    """The position as it was when the transaction `gtid` was the latest: timelines before its own, and it."""
    return ",".join(filter(None, (earlier(position, newest_domain(gtid)), gtid)))


def by_domain(position: str) -> dict[int, tuple[int, str]]:
    """Domain to its latest sequence number, and that transaction's whole id. Raises `ValueError` as `parse_gtids`."""
    found: dict[int, tuple[int, str]] = {}
    for word in filter(None, position.replace("\n", "").split(",")):
        domain, _server, sequence = word.strip().split("-")
        found[int(domain)] = max(found.get(int(domain), (0, "")), (int(sequence), word.strip()))
    return found
