"""Until when frontends and the balancer got answers: asked once no database can say so itself.

Every acknowledged order passed through a frontend that had just got an answer from the database's
address. So where all frontends say how long ago that was, no order was acknowledged after the last
of these moments. A frontend that does not say it (off, started since, its recorder dead, a shop
whose queries take another way) proves nothing. Ages, no dates: each is measured on the frontend,
to some hundredths of a second, and rather too short than too long.

The balancer says when it last passed on an answer, other than an error, to what was not only read: every
acknowledged order was one of them. It is asked for the night in which no frontend is left that knows.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from pcloud.clock import Deadline

PORT = 8405
"""Where a frontend tells it (`templates/servers/heard/tell.socket.j2`), and a balancer (`haproxy.cfg.j2`)."""
TIMEOUT_S = 2.0
_LIMIT = 400
_HEARD = re.compile(rb"heard (\d{1,9}\.\d\d)\n")
_HEADER = re.compile(rb"HTTP/1\.[01] 200 [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def ask_all(
    addresses: Mapping[str, str], pool: Executor, *, http: bool = False, port: int = PORT, timeout_s: float = TIMEOUT_S
) -> Callable[[], dict[str, float]]:
    """Asks all at once; what it returns waits for the answers, `timeout_s` at most.

    `addresses` are those of the servers, by their names; the answers say how many seconds ago, for those that know.
    Balancers are asked by `http`: a frontend reads nothing that a caller sends.
    """
    request = _REQUEST if http else b""
    asked = {name: pool.submit(_ask, address, port, timeout_s, request) for name, address in addresses.items()}
    return lambda: {name: age for name, answer in asked.items() if (age := answer.result()) is not None}


def _ask(address: str, port: int, timeout_s: float, request: bytes) -> float | None:
    """None for whatever is not an age."""
    deadline = Deadline.after(timeout_s)
    said = b""
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as link:
            link.sendall(request)
            while len(said) <= _LIMIT and not deadline.passed():
                link.settimeout(max(0.01, deadline.left()))
                piece = link.recv(_LIMIT)
                if not piece:
                    header = _HEADER.match(said) if request else None
                    told = _HEARD.fullmatch(said, header.end() if header else 0)
                    return float(told[1]) if told else None
                said += piece
    except OSError:
        return None
    return None
