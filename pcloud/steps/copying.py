"""A replica's data: all that its primary has, copied from server to server by `mariadb-backup`.

The bytes go from the one to the other and not through this machine. A server has no key to another: the operator makes
one for this copy, opens a door for it on the giving side (templates/servers/mariadb/door.sh), where it may do one thing
once, and hands its private half to the taking side (copy-from), which goes on by itself from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.errors import CheckFailed
from pcloud.inventory import defaults_dir
from pcloud.steps.base import Met, Report, Unmet, World
from pcloud.steps.database import holds_data
from pcloud.steps.door import DOOR, SHORT_S, order
from pcloud.steps.job import ask, follow
from pcloud.steps.replication import is_primary, position

FOLDER = "/usr/lib/pcloud"
COPY_FROM, COPY_TO = f"{FOLDER}/copy-from", f"{FOLDER}/copy-to"


@dataclass(frozen=True)
class Seed:
    """The server's data are a whole copy of the primary's, taken at one moment; or it is the primary itself.

    `others` are the servers one of which is the primary, each with its own address, the likeliest first; `address`
    is the database's, whom the copy follows later.
    """

    server: str
    database: str
    others: tuple[tuple[str, str], ...]
    address: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        if holds_data(world, self.server, self.database) or is_primary(world, self.server):
            return Met()
        return Unmet("it holds no whole copy")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        taker, again = world.server_shell(self.server), f"pcloud recover {world.site.site}"
        if taker.run(["test", "-x", DOOR], deadline_s=SHORT_S, check=False).exit_code != 0:
            what = "it was made by an earlier pcloud, and cannot take a copy of this one's kind"
            raise CheckFailed(what, where=self.server, next=f"{again} --rebuild {self.server}")
        began = world.clock.now()
        if ask(taker, [COPY_FROM, "ask"]).code is not None:
            report.progress("copying the data")
            taker.run([COPY_FROM, "begin"], stdin=self._order(world), deadline_s=SHORT_S)
        follow(world, taker, [COPY_FROM, "ask"], report, where=self.server, next=again)
        return {"position": position(world, self.server), "copied_s": round(world.clock.now() - began, 1)}

    def _order(self, world: World) -> bytes:
        source, login = next(((n, at) for n, at in self.others if is_primary(world, n)), ("", ""))
        if not source:
            names = " and ".join(n for n, _ in self.others)
            raise CheckFailed("it is the primary no more", where=names, next=f"pcloud recover {world.site.site}")
        giver = world.server_shell(source)
        if giver.run(["test", "-x", DOOR], deadline_s=SHORT_S, check=False).exit_code != 0:
            for path in (COPY_TO, DOOR):  # made by an earlier pcloud; without a replica it cannot be made anew
                giver.write(path, _text(path), mode=0o755)
        size, version = giver.run([COPY_TO, "offer"], deadline_s=SHORT_S).stdout.split()
        first = f"{login} {size} {version} {self.address}"
        return order(world, source, f"seed-{self.server}", "copy-to", "give", first=first)


def _text(path: str) -> bytes:
    return (defaults_dir("templates") / "servers" / "mariadb" / f"{path.rpartition('/')[2]}.sh").read_bytes()
