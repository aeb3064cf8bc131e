"""Questions over the MySQL protocol (MariaDB, and Sphinx with SphinxQL), bounded as a whole.

PyMySQL's time-outs are per read, and it believes any length a server announces; the socket that
it is given here counts every wait against one deadline and every byte against one limit.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.constants import CR, ER
from pymysql.cursors import Cursor, DictCursor

from pcloud.clock import Deadline
from pcloud.web import Unanswered, one_line

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

LIMIT = 2 << 20
_NO_MYSQL = "what answers does not speak the MySQL protocol"
Rows = tuple[tuple[Any, ...], ...]
Row = dict[str, Any]
NamedRows = tuple[Row, ...]
# What PyMySQL's parser raises for bytes that are not the protocol.
_NONSENSE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError, struct.error)


_DENIED = frozenset(
    {ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.HOST_NOT_PRIVILEGED}
    | {1227, 1698, 1820, 1862, 4151}  # no such privilege, no password, an expired one (twice), a locked account
)
"""What a server says that answers, and does not let this account in or look."""


class Refused(Unanswered):
    """The server answers, and refuses the account: it is well, for all that anybody knows."""


class _Bounded(socket.socket):
    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__(fileno=sock.detach())
        self._deadline = deadline
        self._room = LIMIT

    def settimeout(self, value: float | None) -> None:
        """Ours hold, whatever PyMySQL wants."""

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        self._arm()
        got = super().recv_into(buffer, nbytes, flags)
        self._room -= got
        if self._room < 0:
            raise OSError(f"more than {LIMIT >> 20} MiB came")
        return got

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self._arm()
        super().sendall(data, flags)

    def _arm(self) -> None:
        if self._deadline.passed():
            raise TimeoutError("timed out")
        super().settimeout(self._deadline.left())


def ask(
    address: str, port: int, *queries: tuple[str, Sequence[str]], user: str, password: str, timeout_s: float
) -> list[Rows]:
    """Each query's rows; a query is its text and the values of its `%s`.

    Raises `Unanswered` (`Refused`, where the account is not let in) with one line, in `timeout_s` at the latest; the
    password is never in it.
    """
    return _bounded(address, port, queries, Cursor, user, password, timeout_s)


def ask_named(
    address: str, port: int, *queries: tuple[str, Sequence[str]], user: str, password: str, timeout_s: float
) -> list[NamedRows]:
    """Like `ask`, each row by the names of its columns."""
    return _bounded(address, port, queries, DictCursor, user, password, timeout_s)


def _bounded(
    address: str,
    port: int,
    queries: Sequence[tuple[str, Sequence[str]]],
    cursor: type[Cursor],
    user: str,
    password: str,
    timeout_s: float,
) -> list[Any]:
    deadline = Deadline.after(timeout_s)
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with _Bounded(plain, deadline) as sock:
                return _ask(sock, address, port, queries, cursor, user, password)
    except pymysql.MySQLError as error:
        if error.args and error.args[0] in _DENIED:
            raise Refused(_problem(error)) from None
        raise Unanswered(f"no answer within {timeout_s:g} s" if deadline.passed() else _problem(error)) from None
    except OSError as error:
        raise Unanswered(connect_problem(error, timeout_s)) from None
    except _NONSENSE as error:
        raise Unanswered(f"{_NO_MYSQL} ({type(error).__name__})") from None


def _ask(
    sock: socket.socket,
    address: str,
    port: int,
    queries: Sequence[tuple[str, Sequence[str]]],
    kind: type[Cursor],
    user: str,
    password: str,
) -> list[Any]:
    connection = pymysql.connect(
        host=address,
        port=port,
        user=user,
        password=password,
        charset="utf8mb4",
        autocommit=None,  # the server's own: one question less
        ssl_disabled=True,
        defer_connect=True,
    )
    try:
        connection.connect(sock)
        answers: list[Any] = []
        with connection.cursor(kind) as cursor:
            for text, values in queries:
                cursor.execute(text, tuple(values) or None)
                answers.append(tuple(cursor.fetchall()))
        return answers
    finally:
        if connection.open:
            connection.close()


def connect_problem(error: OSError, timeout_s: float) -> str:
    """Why a connection could not be made, for a verdict."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    return (error.strerror or str(error)).lower()


def _problem(error: pymysql.MySQLError) -> str:
    number, text = error.args if len(error.args) == 2 else (0, error)
    if number in (CR.CR_SERVER_LOST, CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_GONE_ERROR):
        return f"the connection ended ({one_line(str(text))})"
    if not number:  # PyMySQL's own complaints about what it read have none
        return f"{_NO_MYSQL} ({one_line(str(text))})"
    return f"error {number}: {one_line(str(text))}"
