"""The one tree of errors.

    PcloudError                 exit 1: it failed
    ├── BadInput                exit 2: an inventory, playbook, recipe, option or file is wrong
    │   └── BadDocument         every problem of one YAML file at once, each with its line
    ├── Blocked                 exit 3: waits for a person; says which command goes on
    ├── Transient               exit 1: may pass if tried again; the only kind that is retried
    │   ├── HostUnreachable     a host does not answer (which is not "dead")
    │   │   └── LibvirtSilent   the host answers, its libvirt does not
    │   └── DeadlineExceeded    something was waited for, and its time ran out
    ├── HypervisorError         libvirt refused or failed
    ├── CommandFailed           a command on a host, a server or this machine ended badly
    ├── ImageError              an image is missing, corrupt, or could not be built
    └── CheckFailed             a check or a journey's step answered, and the answer is wrong

Each error says `what` happened, `where` (host, server, `file:line`) and what to do `next`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PcloudError(Exception):
    """Something pcloud can explain. `str()` is the whole message, on one or more lines."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", next: str = "") -> None:
        self.what = what
        self.where = where
        self.next = next
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  next: {self.next}" if self.next else head


class BadInput(PcloudError):
    exit_code = 2


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a document: `file:line: path: what, and what to do`."""

    file: str
    line: int
    path: str
    what: str

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}: {path}{self.what}"


class BadDocument(BadInput):
    """A YAML file that cannot be used, with all its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class Blocked(PcloudError):
    exit_code = 3


class Transient(PcloudError):
    pass


class HostUnreachable(Transient):
    pass


class LibvirtSilent(HostUnreachable):
    pass


class DeadlineExceeded(Transient):
    pass


class HypervisorError(PcloudError):
    pass


class CommandFailed(PcloudError):
    pass


class ImageError(PcloudError):
    pass


class CheckFailed(PcloudError):
    pass
