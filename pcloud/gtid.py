"""MariaDB's positions: global transaction ids, `domain-server-sequence`, one a domain, as a list."""

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


def reach(position: str) -> int:
    """How many transactions it stands for, in all domains."""
    return sum(parse_gtids(position).values())
