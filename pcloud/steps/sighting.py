"""Hosts remember where the primary was when it was last seen (`sightings.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.steps.base import Met, Report, Unmet, World, path_in

SHORT_S = 10


@dataclass(frozen=True)
class NoteSighting:
    """Each host has the note, and none of those that say less. `hosts`: host and the notes that go from it."""

    name: str
    hosts: tuple[tuple[str, tuple[str, ...]], ...]
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        for host, _ in self.hosts:
            path = path_in(world.host(host).pool, self.name)
            if world.shell(host).run(["test", "-e", path], deadline_s=SHORT_S, check=False).exit_code != 0:
                return Unmet(f"{host} does not remember it")
        return Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        for host, old in self.hosts:
            report.progress(f"telling {host}")
            pool, shell = world.host(host).pool, world.shell(host)
            shell.write(path_in(pool, self.name), b"", deadline_s=SHORT_S)
            if old:
                shell.run(["rm", "-f", *(path_in(pool, name) for name in old)], deadline_s=SHORT_S)
        return {}
