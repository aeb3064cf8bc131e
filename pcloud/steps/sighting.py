"""A host remembers where the primary was when it was last seen (`sightings.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from pcloud.steps.base import World, path_in

SHORT_S = 10


@dataclass(frozen=True)
class NoteSighting:
    """The host has the note `name`, and none of `old`, which say less."""

    host: str
    name: str
    old: tuple[str, ...]

    def tell(self, world: World) -> None:
        pool, shell = world.host(self.host).pool, world.shell(self.host)
        shell.write(path_in(pool, self.name), b"", deadline_s=SHORT_S)
        if self.old:
            shell.run(["rm", "-f", *(path_in(pool, name) for name in self.old)], deadline_s=SHORT_S)
