"""Commands on hosts and servers over SSH: pinned keys, deadlines, bounded output.

One `Shell` is one connection to one machine. It opens at its first command, serves several
threads at once, and opens again when the connection was lost. Nothing waits for ever:

- connecting: `connect_timeout_s` for TCP, three times that for the key exchange and the log-in
  together (an emulated guest needs more than a second of CPU for it);
- a command: its own `deadline_s`, also enforced on the far side by coreutils' `timeout`, so
  that a command given up here does not go on there;
- a machine that froze (its kernel still acknowledges TCP): see `connection.Line`.

Only this package imports paramiko. `connection` logs in, `command` runs one command.
"""

from __future__ import annotations

import io
import math
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pcloud.clock import Deadline
from pcloud.errors import CommandFailed, DeadlineExceeded, HostUnreachable
from pcloud.keys import KEY_TYPE
from pcloud.shell.command import Call, Ended, TooLate, TooMuch
from pcloud.shell.connection import LOST, Connection, Target, first_line, printable, private_key

__all__ = ["Completed", "Shell", "ssh_argv"]

MAX_CHANNELS = 8  # sshd's default MaxSessions is 10 a connection


@dataclass(frozen=True)
class Completed:
    """How a command ended. `exit_code` is -1 when a signal killed it. Output is decoded as UTF-8,
    bytes that are not being replaced; `stderr` is at most its last `max_output` bytes."""

    exit_code: int
    stdout: str
    stderr: str


class Shell:
    """One SSH connection to one machine; see the module. Make it with `Shell.open`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._channels = threading.BoundedSemaphore(MAX_CHANNELS)
        self._connection: Connection | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        address: str,
        *,
        user: str,
        key: str,
        known_hosts: Path,
        connect_timeout_s: float,
        name: str,
        port: int = 22,
        pinned_in: str = "",
    ) -> Shell:
        """A shell that will connect at its first command. `key` is the text of a private key.

        Raises `BadInput` for a key that cannot be used. Connecting, in any command, raises
        `Blocked` for a host key that is unknown or changed and for a refused log-in, and
        `HostUnreachable` for everything that may pass.
        """
        own = private_key(key, name)
        return cls(Target(address, port, user, own, known_hosts, connect_timeout_s, name, pinned_in))

    @property
    def address(self) -> str:
        return self._target.address

    @property
    def name(self) -> str:
        return self._target.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; commands that still run get `HostUnreachable`. Again is no error."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,
        stdin: bytes | BinaryIO | None = None,
        check: bool = True,
        max_output: int = 1 << 20,
        progress: Callable[[int], None] | None = None,
        stdout: Callable[[bytes], None] | None = None,
    ) -> Completed:
        """Runs one command, at most `deadline_s` seconds in all, connecting included.

        `stdin` is streamed; `progress` hears the bytes sent so far, from another thread. `stdout`
        takes the command's output as it comes, whatever its length; the answer then holds none. With
        `check`, a non-zero exit raises `CommandFailed`. More than `max_output` bytes of stdout
        always do: half an answer is none. Also raises `DeadlineExceeded`, and what `open` says.
        A child left in the background may keep the output open: two seconds later it is left alone.
        """
        if not argv:
            raise ValueError("a command has at least its name")
        what = _words(argv)
        ended = self._run(what, argv, deadline_s, stdin, max_output, progress, stdout)
        if check:
            self._expect_success(what, ended)
        return Completed(ended.exit_code, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))

    def write(self, path: str, data: bytes, *, mode: int = 0o600, deadline_s: float = 30) -> None:
        """Puts a file in place at once: written beside with `mode`, flushed to disk, renamed.

        Nobody ever sees half of it, nor its bytes under a wider mode, also when the connection
        ends midway. The folder must exist. Raises as `run` does.
        """
        # The size is compared because a lost connection looks like the end of the file to `cat`.
        script = """set -eu; umask 077; new=$(mktemp -- "$1.XXXXXXXX"); trap 'rm -f -- "$new"' EXIT
            chmod -- "$2" "$new"; cat > "$new"; [ "$(stat -c %s -- "$new")" = "$3" ]
            sync -- "$new"; mv -fT -- "$new" "$1"; trap - EXIT; sync -- "$(dirname -- "$1")" """
        self._script(f"write {path}", script, [path, f"{mode:o}", str(len(data))], deadline_s, stdin=data)

    def read(self, path: str, *, limit: int = 1 << 20, deadline_s: float = 30) -> bytes:
        """A file's bytes. A missing file and one of more than `limit` bytes raise `CommandFailed`."""
        script = 'exec head -c "$2" -- "$1"'
        return self._script(f"read {path}", script, [path, str(limit + 1)], deadline_s, max_output=limit)

    def tail(self, path: str, *, lines: int = 40, limit: int = 1 << 16, deadline_s: float = 10) -> str:
        """A file's last lines, at most `limit` bytes; "" when it is missing (nothing was written yet)."""
        script = '[ -e "$1" ] || exit 0; tail -c "$3" -- "$1" | tail -n "$2"'
        args = [path, str(lines), str(limit)]
        return self._script(f"tail {path}", script, args, deadline_s, max_output=limit).decode(errors="replace")

    def _script(
        self, what: str, script: str, args: list[str], deadline_s: float, *, stdin: bytes = b"", max_output: int = 4096
    ) -> bytes:
        ended = self._run(what, ["sh", "-c", script, "sh", *args], deadline_s, stdin, max_output, None)
        self._expect_success(what, ended)
        return ended.stdout

    def _run(
        self,
        what: str,
        argv: Sequence[str],
        deadline_s: float,
        stdin: bytes | BinaryIO | None,
        max_output: int,
        progress: Callable[[int], None] | None,
        stdout: Callable[[bytes], None] | None = None,
    ) -> Ended:
        deadline = Deadline.after(deadline_s)
        late = DeadlineExceeded(
            f"`{what}` did not end within {deadline_s:g} s",
            where=self.name,
            next=f"see what {self.name} is busy with, then run the same command again",
        )
        if not self._channels.acquire(timeout=deadline.left()):
            raise late
        connection = None
        try:
            connection = self._connected(deadline)
            # The far side's own limit is a little later than ours: ours is the one that reports.
            line = shlex.join(["timeout", "-k", "2", str(math.ceil(deadline_s) + 1), *argv])
            source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
            return Call(connection.transport, line, deadline, source, progress).collect(max_output, stdout)
        except TooLate:
            raise late from None
        except TooMuch:
            raise CommandFailed(f"`{what}` wrote more than {max_output} bytes", where=self.name) from None
        except LOST as error:
            raise self._lost(what, connection, error) from error
        finally:
            self._channels.release()

    def _connected(self, deadline: Deadline) -> Connection:
        if not self._lock.acquire(timeout=deadline.left()):
            raise TooLate
        try:
            if self._closed:
                raise HostUnreachable("this connection was closed", where=self.name)
            if self._connection is None or not self._connection.active:
                self._connection = Connection.open(self._target, deadline)
                if self._closed:
                    self._connection.close()
            return self._connection
        finally:
            self._lock.release()

    def _lost(self, what: str, connection: Connection | None, error: BaseException) -> HostUnreachable:
        why = (connection.line.ended if connection else "") or first_line(error)
        return HostUnreachable(
            f"the connection to {self.address} was lost during `{what}` ({why}); it may or may not have ended there",
            where=self.name,
            next=f"see that {self.name} is on and answers, then run the same command again",
        )

    def _expect_success(self, what: str, ended: Ended) -> None:
        if ended.exit_code == 0:
            return
        lines = [printable(line) for line in ended.stderr.decode(errors="replace").splitlines() if line.strip()]
        how = f"ended with exit code {ended.exit_code}" if ended.exit_code > 0 else "was killed by a signal"
        raise CommandFailed("\n  ".join([f"`{what}` {how}", *(line[:300] for line in lines[-5:])]), where=self.name)


def _words(argv: Sequence[str]) -> str:
    """The start of a command, on one line, for messages."""
    text = " ".join(shlex.join(argv[:4]).split())
    cut = len(text) > 100 or len(argv) > 4
    return printable(text[:100]) + (" ..." if cut else "")


def ssh_argv(
    address: str,
    user: str,
    key_path: Path,
    known_hosts: Path,
    *,
    port: int = 22,
    tty: bool,
    command: Sequence[str] = (),
) -> list[str]:
    """The argv of the real `ssh` for a person, as strict about keys as `Shell` is.

    It reads no configuration of the user's, tries only this key, and never asks for a password.
    """
    options = {
        "BatchMode": "yes",
        "CheckHostIP": "no",
        "ConnectTimeout": "10",
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlgorithms": KEY_TYPE,
        "IdentitiesOnly": "yes",
        "IdentityFile": _quoted(key_path),
        "PreferredAuthentications": "publickey",
        "ServerAliveCountMax": "3",
        "ServerAliveInterval": "5",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "UserKnownHostsFile": _quoted(known_hosts),
    }
    flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    tail = [shlex.join(command)] if command else []
    return ["ssh", "-F", "none", *flags, "-p", str(port), "-t" if tty else "-T", "-l", user, "--", address, *tail]


def _quoted(path: Path) -> str:
    """A path as a value of ssh's options, where blanks separate and % starts a token."""
    return '"' + str(path).replace("%", "%%") + '"'
