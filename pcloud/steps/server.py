"""A server on its host: retired, made, started."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.desired import Names, ServerSpec
from pcloud.errors import Blocked
from pcloud.observed import Power
from pcloud.steps.base import Met, Report, Unmet, World, path_in
from pcloud.steps.image import digests_on


@dataclass(frozen=True)
class Retire:
    """The server's old generation is off and undefined; its disk is kept as a tombstone."""

    host: str
    names: Names
    date: str
    why: str = ""
    """Noted beside it for `undo`: `past` where another copy had taken its place before, `undo-DATE` where what was
    put away at DATE comes back for it."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        seen = world.hypervisor(self.host).server(self.names.domain)
        if seen is not None and (seen.mark is None or seen.mark.site != self.names.site):
            raise Blocked(
                f"{self.names.domain} is not pcloud's; it will not be touched",
                where=self.host,
                next=f"rename or remove it: virsh -c qemu:///system domrename {self.names.domain} NEW-NAME",
            )
        if seen is not None and seen.mark is not None and seen.mark.generation <= self.names.generation:
            return Unmet(f"generation {seen.mark.generation} is still defined")
        mine = {self.names.disk, self.names.seed, self.names.console}
        left = mine & set(world.hypervisor(self.host).volumes(world.host(self.host).pool))
        return Unmet(f"{sorted(left)[0]} is still there") if left else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        hypervisor, shell = world.hypervisor(self.host), world.shell(self.host)
        pool = world.host(self.host).pool
        tombstone = path_in(pool, self.names.tombstone(self.date))
        report.progress("powering off")
        hypervisor.power_off(self.names.domain)
        definition = hypervisor.definition(self.names.domain)
        if definition is not None:
            shell.write(f"{tombstone}.xml", definition.encode(), mode=0o600)
        report.progress("putting away")
        if self.why:
            shell.write(f"{tombstone}.{self.why}.note", b"")
        there = hypervisor.volumes(pool)
        for name, kept in ((self.names.disk, f"{tombstone}.qcow2"), (self.names.console, f"{tombstone}.console.log")):
            if name in there:
                shell.run(["mv", "-n", path_in(pool, name), kept], deadline_s=30)
        shell.run(["rm", "-f", path_in(pool, self.names.seed)], deadline_s=30)
        hypervisor.undefine(self.names.domain)
        for name in there:  # last, as it says that this copy may go, and nobody can read its disk any more
            if (at := self.names.inspected(name)) is not None:
                shell.run(["mv", "-n", path_in(pool, name), f"{tombstone}.at-{at}.note"], deadline_s=30)
        return {"tombstone": f"{tombstone}.qcow2"}


@dataclass(frozen=True)
class Leave:
    """None of the site's servers runs on this host, which answers; their disks stay as they are."""

    host: str
    site: str
    waits: ClassVar[bool] = False

    def _running(self, world: World) -> list[str]:
        seen = world.hypervisor(self.host).servers()
        mine = (s for s in seen if s.mark is not None and s.mark.site == self.site)
        return sorted(s.name for s in mine if s.power is not Power.OFF)

    def check(self, world: World) -> Met | Unmet:
        running = self._running(world)
        return Unmet(f"{', '.join(running)} still {'runs' if len(running) == 1 else 'run'}") if running else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        for name in self._running(world):
            report.progress(f"powering {name} off")
            world.hypervisor(self.host).power_off(name)
        return {}


@dataclass(frozen=True)
class Discard:
    """What an interrupted build left in the pool is gone; disks become tombstones."""

    host: str
    volumes: tuple[str, ...]
    date: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        left = sorted(set(self.volumes) & set(world.hypervisor(self.host).volumes(world.host(self.host).pool)))
        return Unmet(f"{left[0]} belongs to no server") if left else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        pool, shell = world.host(self.host).pool, world.shell(self.host)
        for name in self.volumes:
            path = path_in(pool, name)
            if name.endswith(".qcow2"):
                tombstone = path.removesuffix(".qcow2") + f".tombstone-{self.date}.qcow2"
                shell.run(["mv", "-n", path, tombstone], deadline_s=30)
            else:
                shell.run(["rm", "-f", path], deadline_s=30)
        return {"discarded": len(self.volumes)}


@dataclass(frozen=True)
class MakeDisk:
    """The server's disk is there: a thin layer over the image's verified copy."""

    host: str
    spec: ServerSpec
    names: Names
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        there = self.names.disk in world.hypervisor(self.host).volumes(world.host(self.host).pool)
        return Met() if there else Unmet(f"{self.names.disk} is not there")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        pool = world.host(self.host).pool
        backing = self.spec.image.on_host(pool, self.spec.image.disk)
        world.hypervisor(self.host).create_overlay(pool, self.names.disk, backing=backing, size_gib=self.spec.disk_gib)
        return {}


@dataclass(frozen=True)
class MakeSeed:
    """The server's seed is on its host, readable by nobody else: it holds secrets."""

    host: str
    spec: ServerSpec
    names: Names
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        path = path_in(world.host(self.host).pool, self.names.seed)
        want = hashlib.sha256(world.seed(self.spec.name, self.names.generation)).hexdigest()
        found = digests_on(world.shell(self.host), [path], 1 << 20).get(path)
        return (
            Met() if found == want else Unmet(f"{self.names.seed} is {'not there' if found is None else 'different'}")
        )

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        data = world.seed(self.spec.name, self.names.generation)
        world.shell(self.host).write(path_in(world.host(self.host).pool, self.names.seed), data, mode=0o600)
        return {"bytes": len(data)}


@dataclass(frozen=True)
class Define:
    """libvirt knows the server, by its derived identity and with pcloud's mark."""

    host: str
    spec: ServerSpec
    names: Names
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        seen = world.hypervisor(self.host).server(self.names.domain)
        if seen is None:
            return Unmet("not defined")
        if seen.mark is None or seen.mark.site != self.names.site:
            raise Blocked(
                f"a server named {self.names.domain} is there that is not pcloud's; it will not be touched",
                where=self.host,
                next=f"rename or remove it: virsh -c qemu:///system domrename {self.names.domain} NEW-NAME",
            )
        wanted = (self.spec.spec, self.spec.image.digest, self.names.generation)
        if (seen.mark.spec, seen.mark.image, seen.mark.generation) != wanted:
            return Unmet(f"generation {seen.mark.generation} is defined")
        return Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        world.hypervisor(self.host).define(world.domain_xml(self.spec, self.host, self.names.generation))
        return {"generation": self.names.generation}


@dataclass(frozen=True)
class Start:
    """The server runs."""

    host: str
    names: Names
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        power = world.hypervisor(self.host).power(self.names.domain)
        return Met() if power is Power.RUNNING else Unmet(str(power or "not defined"))

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        world.hypervisor(self.host).start(self.names.domain)
        return {}


@dataclass(frozen=True)
class Cycle:
    """The server is powered off and on again, on the disk it has."""

    host: str
    names: Names
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:  # noqa: ARG002
        return Unmet("it has to go off first")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        report.progress("powering off")
        world.hypervisor(self.host).power_off(self.names.domain)
        world.hypervisor(self.host).start(self.names.domain)
        return {}


@dataclass(frozen=True)
class Purge:
    """Tombstones are deleted for good; only ever at a person's explicit word."""

    host: str
    volumes: tuple[str, ...]
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        left = set(self.volumes) & set(world.hypervisor(self.host).volumes(world.host(self.host).pool))
        return Unmet(f"{len(left)} tombstones") if left else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        pool = world.host(self.host).pool
        world.shell(self.host).run(["rm", "-f", *(path_in(pool, v) for v in self.volumes)], deadline_s=60)
        return {"purged": len(self.volumes)}
