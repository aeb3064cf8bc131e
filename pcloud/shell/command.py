"""One command on an open connection, from its start to its exit code."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import paramiko

from pcloud.clock import Deadline
from pcloud.errors import CommandFailed

LINGER_S = 2.0  # how long output may stay open after the command itself has ended
GLANCE_S = 0.1  # a wait for output is never longer, so that a deadline is kept to a tenth of a second
_CHUNK = 1 << 16
_AT_ONCE = 64


class TooLate(Exception):
    """The deadline passed."""


class TooMuch(Exception):
    """More output than was allowed."""


@dataclass(frozen=True)
class Ended:
    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass
class _Output:
    """What a command wrote so far: all of stdout up to a limit, or none when a `sink` takes it; the last of stderr."""

    limit: int
    sink: Callable[[bytes], None] | None = None
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)

    def wait(self, channel: paramiko.Channel) -> None:
        """Takes what there is, waiting at most `GLANCE_S` for it."""
        with contextlib.suppress(TimeoutError):
            self._take(channel.recv(_CHUNK))
        self.drain(channel)

    def _take(self, data: bytes) -> None:
        if self.sink is None:
            self.out += data
        else:
            self.sink(data)

    def drain(self, channel: paramiko.Channel) -> None:
        for _ in range(_AT_ONCE):  # a stream must not keep the reader from its deadline
            if not channel.recv_ready() or len(self.out) > self.limit:
                break
            self._take(channel.recv(_CHUNK))
        if len(self.out) > self.limit:
            raise TooMuch
        while channel.recv_stderr_ready():
            self.err += channel.recv_stderr(_CHUNK)
            del self.err[: -self.limit]


class Call:
    """Opening the channel and sending stdin may block on a full socket, so a thread of its own does
    them; the caller's thread only reads, and can therefore keep its deadline whatever happens."""

    def __init__(
        self,
        transport: paramiko.Transport,
        line: str,
        deadline: Deadline,
        stdin: BinaryIO | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._transport = transport
        self._line = line
        self._deadline = deadline
        self._stdin = stdin
        self._progress = progress
        self._channel: paramiko.Channel | None = None
        self._started = threading.Event()
        self._given_up = False
        self._error: BaseException | None = None
        threading.Thread(target=self._talk, daemon=True).start()

    def _talk(self) -> None:
        try:
            channel = self._transport.open_session(timeout=max(0.1, self._deadline.left()))
            self._channel = channel
            if self._given_up:
                _close(channel)
                return
            channel.settimeout(GLANCE_S)
            channel.exec_command(self._line)
            self._started.set()
            self._send(channel)
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread, whatever it is
            self._error = error
            if self._started.is_set() and self._channel is not None:
                _close(self._channel)
        finally:
            self._started.set()

    def _send(self, channel: paramiko.Channel) -> None:
        sent = 0
        while chunk := self._next_chunk():
            rest = chunk
            while rest:
                try:
                    rest = rest[channel.send(rest) :]
                except TimeoutError:
                    continue  # it does not read for now; the caller's thread closes the channel in time
                except OSError:
                    return  # it ended without reading it all; its exit code says whether that is bad
            sent += len(chunk)
            if self._progress is not None:
                self._progress(sent)
        channel.shutdown_write()

    def _next_chunk(self) -> bytes:
        if self._stdin is None:
            return b""
        try:
            return self._stdin.read(_CHUNK)
        except OSError as error:
            raise CommandFailed(f"what it should be given cannot be read: {error.strerror}") from error

    def collect(self, max_output: int, sink: Callable[[bytes], None] | None = None) -> Ended:
        """Reads until the command ended; `sink` takes its stdout. Raises `TooLate`, `TooMuch`, what paramiko does."""
        try:
            if not self._started.wait(self._deadline.left()):
                raise TooLate
            if self._channel is None or self._error is not None:
                raise self._error or EOFError("no channel")
            ended = self._read(self._channel, _Output(max_output, sink))
            if self._error is not None:
                raise self._error
            return ended
        finally:
            self._given_up = True
            if self._channel is not None:
                # Closing sends a message, which on a stuck line would hold us past the deadline.
                threading.Thread(target=_close, args=(self._channel,), daemon=True).start()

    def _read(self, channel: paramiko.Channel, output: _Output) -> Ended:
        # Not with select() on channel.fileno(): paramiko 5.1 closes that pipe while its own thread may write
        # to it, which ends the whole connection.
        linger: Deadline | None = None
        while True:
            exited = channel.exit_status_ready()  # asked before reading, so that nothing follows what is read
            over = channel.closed or (exited and channel.eof_received)
            output.drain(channel)
            if (over and not channel.recv_ready()) or (linger is not None and linger.passed()):
                break
            if self._deadline.passed():
                raise TooLate
            if exited and linger is None:
                linger = Deadline.after(LINGER_S)  # a child that went on in the background holds the output
            if channel.eof_received:
                channel.status_event.wait(GLANCE_S)
            else:
                output.wait(channel)
        if channel.exit_status < 0 and not self._transport.is_active():
            raise self._transport.get_exception() or EOFError("connection closed")
        return Ended(channel.exit_status, bytes(output.out), bytes(output.err))


def _close(channel: paramiko.Channel) -> None:
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # then it is closed already
        channel.close()
