"""Until when frontends got answers from the database: asked once no database can say so itself.

Every acknowledged order passed through a frontend that had just got an answer from the database's
address. So where all frontends say how long ago that was, no order was acknowledged after the last
of these moments. A frontend that does not say it (off, started since, its recorder dead, a shop
whose queries take another way) proves nothing. Ages, no dates: each is measured on the frontend,
to some hundredths of a second, and rather too short than too long.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from concurrent.futures import Executor

from pcloud.clock import Deadline

PORT = 8405
"""Where a frontend tells it (`templates/servers/heard/tell.socket.j2`)."""
TIMEOUT_S = 2.0
_LIMIT = 200
_HEARD = re.compile(rb"heard (\d{1,9}\.\d\d)\n")


def ask_all(
    addresses: Mapping[str, str], pool: Executor, *, port: int = PORT, timeout_s: float = TIMEOUT_S
) -> dict[str, float]:
    """Server to seconds since the database last answered it, for those that know; within `timeout_s`.

    `addresses` are those of the servers, by their names. All are asked at once.
    """
    answers = {name: pool.submit(_ask, address, port, timeout_s) for name, address in addresses.items()}
    return {name: age for name, answer in answers.items() if (age := answer.result()) is not None}


def _ask(address: str, port: int, timeout_s: float) -> float | None:
    """None for whatever is not an age."""
    deadline = Deadline.after(timeout_s)
    said = b""
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as link:
            while len(said) <= _LIMIT and not deadline.passed():
                link.settimeout(max(0.01, deadline.left()))
                piece = link.recv(_LIMIT)
                if not piece:
                    told = _HEARD.fullmatch(said)
                    return float(told[1]) if told else None
                said += piece
    except OSError:
        return None
    return None
