"""What one way to a controller is, and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pcloud.errors import PcloudError
from pcloud.model import Bmc, SecretRef
from pcloud.observed import HostPower


class Failed(Exception):
    """One way did not do it, and asking again would not help: a password, a certificate, a right that is missing.

    `why` has the controller as its subject; `next` is what to do about it.
    """

    def __init__(self, why: str, next: str) -> None:
        self.why = why
        self.next = next
        super().__init__(why)


class Passing(Failed):
    """It may pass: no answer, a cut connection, a busy controller. An order may have been obeyed all the same."""


class Busy(Passing):
    """The controller answered, and not what was asked: it may hear an order all the same."""


class Refused(Busy):
    """The controller heard the order and says no: perhaps because it is so already, perhaps not now."""


class Way(Protocol):
    """One protocol to one controller. `limit_s` is for one request; a question may take several.

    `read`, `order` and `started` raise `Failed`.
    """

    name: str
    pause_s: float
    """Between two questions of a kind: a way that logs in for each one leaves the controller some air."""

    @property
    def session(self) -> str:
        """The log-in by which it answered last, where one serves many questions: it ends when the controller does."""
        ...

    @property
    def identity(self) -> str:
        """The UUID, or else the serial number, of the system that was read; "" where it tells none."""
        ...

    def read(self, limit_s: float) -> HostPower: ...
    def order(self, power: HostPower, limit_s: float) -> str:
        """A clause that a person should know about an order that was taken, or "": `it does not list ForceOff`."""
        ...

    def running_s(self, limit_s: float) -> float | None:
        """For how long the controller has been running, by its own clock; None when it does not say."""
        ...

    def close(self) -> None:
        """Ends the log-in, if the controller is quick about it. Raises nothing."""
        ...


def password_of(bmc: Bmc, reveal: Callable[[SecretRef], str]) -> str:
    return secret_of(bmc.password, reveal)


def secret_of(reference: SecretRef, reveal: Callable[[SecretRef], str]) -> str:
    try:
        return reveal(reference)
    except PcloudError as error:
        raise Failed(error.what, error.next) from error


def late(limit_s: float) -> str:
    """The commonest reason, with the controller as its subject."""
    return f"does not answer within {limit_s:g} s"
