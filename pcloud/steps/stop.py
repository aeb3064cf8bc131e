"""What the planner knows only a person can mend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.errors import Blocked
from pcloud.steps.base import Met, Report, Unmet, World


@dataclass(frozen=True)
class Stop:
    """Blocks everything that needs this server, and says which command goes on."""

    where: str
    what: str
    next: str
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:  # noqa: ARG002
        raise Blocked(self.what, where=self.where, next=self.next)

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        raise Blocked(self.what, where=self.where, next=self.next)


@dataclass(frozen=True)
class Consent(Stop):
    """A loss that a person accepts by name. `price` is what `--accept-loss` takes for it."""

    price: str = ""


@dataclass(frozen=True)
class PassOver(Consent):
    """Data that are out of reach, and would be passed over for `older` ones."""

    older: str = ""
