"""An image's verified copy on a host."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pcloud.desired import ImageFile, ImageSpec
from pcloud.errors import ImageError, PcloudError
from pcloud.steps.base import Machine, Met, Report, Unmet, World

DIGEST_RATE = 50e6
"""Bytes a second that a slow host hashes at least; sets the deadline of a verification."""


@dataclass(frozen=True)
class PlaceImage:
    """Every file of the image is in the host's pool, with the digests of its manifest."""

    host: str
    image: ImageSpec
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        wrong = self._wrong(world)
        return Unmet("; ".join(wrong.values())) if wrong else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        wrong = self._wrong(world)
        total = sum(f.size for f in self.image.files if f.name in wrong)
        sent = 0
        for file in self.image.files:
            if file.name not in wrong:
                continue
            self._send(world, file, lambda n, sent=sent: report.progress("copying", sent + n, total, "B"))
            sent += file.size
        return {"bytes": sent, "refused": list(wrong.values())}

    def _wrong(self, world: World) -> dict[str, str]:
        """File name to what is wrong with the host's copy, for each file that is not right."""
        pool = world.host(self.host).pool
        paths = {self.image.on_host(pool, f): f for f in self.image.files}
        digests = digests_on(world.shell(self.host), paths, sum(f.size for f in self.image.files))
        wrong = {}
        for path, file in paths.items():
            found = digests.get(path)
            if found is None:
                wrong[file.name] = f"{PurePosixPath(path).name} is missing"
            elif found != file.sha256:
                wrong[file.name] = f"{PurePosixPath(path).name} is corrupt: {found[:12]}, not {file.sha256[:12]}"
        return wrong

    def _send(self, world: World, file: ImageFile, progress: Any) -> None:
        pool = world.host(self.host).pool
        final = self.image.on_host(pool, file)
        part = f"{PurePosixPath(final).name}.part"
        shell = world.shell(self.host)
        shell.run(["rm", "-f", f"{pool}/{part}"], deadline_s=30)
        hypervisor = world.hypervisor(self.host)
        hypervisor.volumes(pool)
        try:
            with world.image_path(self.image.digest, file.name).open("rb") as source:
                hypervisor.upload(pool, part, source, file.size, progress)
            arrived = digests_on(shell, [f"{pool}/{part}"], file.size).get(f"{pool}/{part}")
            if arrived != file.sha256:
                raise ImageError(
                    f"{file.name} of image {self.image.name} arrived as {str(arrived)[:12]}, not {file.sha256[:12]}",
                    where=self.host,
                    next=f"pcloud image verify {self.image.recipe}",
                )
            shell.run(["mv", "-f", f"{pool}/{part}", final], deadline_s=30)
        except PcloudError:
            with suppress(PcloudError):  # half a file of an image would fill a pool that is short of room
                shell.run(["rm", "-f", f"{pool}/{part}"], deadline_s=30)
            raise


def digests_on(shell: Machine, paths: Any, size: int) -> dict[str, str]:
    """Path to sha256, for those of `paths` that exist on the machine."""
    answer = shell.run(["sha256sum", "--", *paths], deadline_s=30 + size / DIGEST_RATE, check=False)
    found = {}
    for line in answer.stdout.splitlines():
        digest, _, path = line.partition("  ")
        found[path.strip()] = digest.lstrip("\\")
    return found
