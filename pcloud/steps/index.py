"""The search's index: built whole, or brought up to date, and proven by real searches.

On the indexer, `/usr/lib/pcloud/index` does the work (templates/servers/indexer), also by itself:
whole every night, and whenever the shop changes a product. A new index is made beside the one
that answers and swapped in, so search is never empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.clock import Deadline
from pcloud.errors import CheckFailed
from pcloud.model import Check
from pcloud.steps.base import Met, Report, Unmet, World

STAMP = "/var/lib/pcloud/indexed"


@dataclass(frozen=True)
class BuildIndex:
    """The index is built from the database, and searches find what they should.

    `token` names what it must have been built for: the data, or somebody's wish; empty accepts any index.
    """

    server: str
    address: str
    argv: tuple[str, ...]
    checks: tuple[Check, ...]
    token: str
    timeout_s: float
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        wrong = self._wrong(world)
        if wrong:
            return Unmet(wrong)
        if self.token:
            stamp = world.server_shell(self.server).run(["cat", STAMP], deadline_s=30, check=False).stdout.strip()
            if stamp != self.token:
                return Unmet("the index was built before" if stamp else "nobody has built it")
        return Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        deadline = Deadline.after(self.timeout_s, world.clock)
        machine = world.server_shell(self.server)
        report.progress("indexing")
        machine.run(self.argv, deadline_s=deadline.left())
        while wrong := self._wrong(world):
            report.progress(f"waiting: {wrong}")
            if deadline.passed() or report.stopping():
                raise CheckFailed(
                    f"the new index does not answer: {wrong}",
                    where=self.server,
                    next=f"pcloud ssh {world.site.site}/{self.server}",
                )
            world.clock.sleep(0.5)
        if self.token:
            machine.write(STAMP, f"{self.token}\n".encode(), mode=0o644)
        return {}

    def _wrong(self, world: World) -> str:
        verdicts = (world.probe(check, self.server, self.address) for check in self.checks)
        return next((v.detail for v in verdicts if not v.ok), "")
