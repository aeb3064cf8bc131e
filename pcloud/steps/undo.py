"""A server that was put away comes back: looked at, then under the names of a new generation, off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pcloud.desired import Names
from pcloud.errors import Blocked, CheckFailed
from pcloud.steps.base import Met, Report, Unmet, World, path_in

LOOK_S = 30
_WHOLE = """[ -s "$1" ] || { echo "its disk is empty"; exit 1; }
[ -s "$2" ] || { echo "its definition is empty"; exit 1; }
base=$(qemu-img info -U --output=json -- "$1" | sed -n 's/^ *"full-backing-filename": "\\(.*\\)",\\{0,1\\}$/\\1/p')
[ -z "$base" ] || [ -e "$base" ] || { echo "its disk stands on $base, which is gone"; exit 1; }
sed -n 's/^ *<\\(kernel\\|initrd\\)>\\(.*\\)<.*/\\2/p' -- "$2" | while read -r file; do
    [ -e "$file" ] || { echo "it boots from $file, which is gone"; exit 1; }
done"""
"""Says what is missing of a disk and a definition, on its host."""


@dataclass(frozen=True)
class Whole:
    """What was put away could run again: its disk and definition are whole, and so is what they stand on."""

    host: str
    names: Names
    date: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        stem = path_in(world.host(self.host).pool, self.names.tombstone(self.date))
        argv = ["sh", "-c", _WHOLE, "whole", f"{stem}.qcow2", f"{stem}.xml"]
        said = world.shell(self.host).run(argv, deadline_s=LOOK_S, check=False)
        if said.exit_code == 0:
            return Met()
        why = (said.stdout.strip() or said.stderr.strip() or "nobody can read it").splitlines()[-1][:300]
        site = world.site.site
        raise Blocked(
            f"{self.names.server} cannot come back: {why}; nothing was touched",
            where=self.host,
            next=f"pcloud status {site}",
        )

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class BringBack:
    """A server that was put away is defined again, as a new generation, and off; its disk is the old one's.

    The definition comes first: while the disk is not under its new name, the tombstone is still whole.
    """

    host: str
    old: Names
    date: str
    names: Names
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        seen = world.hypervisor(self.host).server(self.names.domain)
        if seen is None or seen.mark is None or seen.mark.generation != self.names.generation:
            return Unmet("it is not defined")
        there = self.names.disk in world.hypervisor(self.host).volumes(world.host(self.host).pool)
        return Met({"generation": self.names.generation}) if there else Unmet("its disk is put away")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        pool, shell = world.host(self.host).pool, world.shell(self.host)
        stem = path_in(pool, self.old.tombstone(self.date))
        report.progress("defining")
        xml = shell.run(["cat", "--", f"{stem}.xml"], deadline_s=LOOK_S).stdout
        world.hypervisor(self.host).define(renumbered(xml, self.old, self.names))
        report.progress("bringing its disk back")
        shell.run(["mv", "-n", f"{stem}.qcow2", path_in(pool, self.names.disk)], deadline_s=LOOK_S)
        shell.run(["rm", "-f", f"{stem}.xml"], deadline_s=LOOK_S)
        return {"from": f"{stem}.qcow2"}


def renumbered(xml: str, old: Names, new: Names) -> str:
    """A definition with the names and the mark of another generation. Raises `CheckFailed` for one that is not ours."""
    text, marks = re.subn(
        r"""(<pcloud:server\b[^>]*\bgeneration=)(["'])\d+\2""", rf"\g<1>\g<2>{new.generation}\g<2>", xml
    )
    if marks != 1:
        raise CheckFailed("its definition has no mark of pcloud's", where=old.domain)
    before, after = (n.disk.removesuffix(".qcow2") + "." for n in (old, new))
    return text.replace(f"/{before}", f"/{after}")
