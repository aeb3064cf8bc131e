"""What one way to a controller is, and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pcloud.errors import PcloudError
from pcloud.model import Bmc, SecretRef
from pcloud.observed import HostPower


class Failed(Exception):
    """One way did not do it. `why` has the controller as its subject; `next` is what to do about it."""

    def __init__(self, why: str, next: str) -> None:
        self.why = why
        self.next = next
        super().__init__(why)


class Refused(Failed):
    """The controller heard the order and says no: perhaps because it is so already."""


class Way(Protocol):
    """One protocol to one controller. Both raise `Failed` within `limit_s` seconds."""

    name: str

    def read(self, limit_s: float) -> HostPower: ...
    def order(self, power: HostPower, limit_s: float) -> None: ...


def password_of(bmc: Bmc, reveal: Callable[[SecretRef], str]) -> str:
    try:
        return reveal(bmc.password)
    except PcloudError as error:
        raise Failed(error.what, error.next) from error


def late(limit_s: float) -> str:
    """The commonest reason, with the controller as its subject."""
    return f"does not answer within {limit_s:g} s"
