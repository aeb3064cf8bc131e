"""Signs of life: whether a machine answers at its address, asked from here and from other hosts.

Whoever accepts a connection lives, and so does whoever refuses one: its kernel answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from pcloud.errors import PcloudError
from pcloud.model import Check, TcpCheck
from pcloud.probe import Verdict
from pcloud.shell import Shell

ANSWER_S = 1.0
"""A machine that lives takes a connection in a fraction of that."""
BEFORE_S = 0.3
VIEWS = 2
"""How many other hosts are asked."""
PORT = 22

Ask = Callable[[Check, str], Verdict]


def look_from(shell: Shell, address: str, limit_s: float, *, greeted: bool = False) -> bool | None:
    """Whether another host reaches the machine's SSH port; None where that could not be tried.

    `greeted`: a port that accepts and says nothing does not count, as programs may stand still that have power.
    """
    connect = f"exec 3<>/dev/tcp/{address}/{PORT}"
    connect += f" && read -r -t {0.75 * limit_s:g} line <&3" if greeted else ""
    argv = ["env", "LC_ALL=C", "timeout", f"{limit_s:g}", "bash", "-c", connect]
    try:
        answer = shell.run(argv, deadline_s=2 * limit_s, check=False)
    except PcloudError:
        return None
    if answer.exit_code in (126, 127):
        return None
    return answer.exit_code == 0 or "refused" in answer.stderr


class Search:
    """Looks for signs that one host lives, around an order to switch it off. Neither call waits long."""

    def __init__(self, ask: Ask, address: str, near: Callable[[], Sequence[tuple[str, str, Shell]]]) -> None:
        """`near`: the other hosts that answered, each by name, address and shell."""
        self._ask = ask
        self._address = address
        self._near = near
        self._before: tuple[tuple[str, str, Future[str]], ...] = ()

    def before(self) -> None:
        """Who answers before the order: when another host's power goes off by it, the controller was the wrong one."""
        near = [(name, address) for name, address, _ in self._near()]
        with _pool() as pool:
            self._before = tuple((n, at, pool.submit(self._answers, at)) for n, at in near)
        wait([answer for _, _, answer in self._before], timeout=BEFORE_S)

    def begin(self) -> Callable[[], str]:
        """Begins; the result, when it is called, is a clause (`10.77.0.11 accepts connections`) or ""."""
        with _pool() as pool:
            here = pool.submit(self._answers, self._address)
            views = [(n, pool.submit(look_from, s, self._address, ANSWER_S)) for n, _, s in self._near()[:VIEWS]]
            again = [(n, pool.submit(self._answers, at)) for n, at, was in self._before if was.done() and was.result()]

        def found() -> str:
            if said := here.result():
                return f"{self._address} {said}"
            if sees := [name for name, view in views if view.result()]:
                return f"{' and '.join(sees)} can reach {self._address}"
            gone = [name for name, answer in again if not answer.result()]
            return f"{' and '.join(gone)}, which answered before the order, does not any more" if gone else ""

        return found

    def _answers(self, address: str) -> str:
        knock = Check(name="knock", tcp=TcpCheck(port=PORT), timeout_s=ANSWER_S)
        verdict = self._ask(knock, address)
        return "accepts connections" if verdict.ok else "refuses connections" if "refused" in verdict.detail else ""


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """For questions that nobody waits for here."""
    pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="alive")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)
