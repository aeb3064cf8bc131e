"""An image's verified copy on a host, and on many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

from pcloud.desired import ImageSpec
from pcloud.errors import PcloudError
from pcloud.steps.base import GENTLY, Machine, Met, Report, Unmet, World
from pcloud.steps.copies import copy_file

DIGEST_RATE = 50e6
"""Bytes a second that a slow host hashes at least; sets the deadline of a verification."""


@dataclass(frozen=True)
class PlaceImage:
    """Every file of the image is in the host's pool, with the digests of its manifest."""

    host: str
    image: ImageSpec
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        wrong = find_wrong(world, self.host, self.image)
        return Unmet("; ".join(wrong.values())) if wrong else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        wrong = find_wrong(world, self.host, self.image)
        total = sum(f.size for f in self.image.files if f.name in wrong)
        sent = 0
        for file in self.image.files:
            if file.name not in wrong:
                continue
            told = lambda n, sent=sent: report.progress("copying", sent + n, total, "B")  # noqa: E731
            for problem in copy_file(world, self.image, file, (self.host,), sent=told).values():
                raise problem
            sent += file.size
        return {"bytes": sent, "refused": list(wrong.values())}


@dataclass(frozen=True)
class SpreadImage:
    """Copies an image to many hosts in the time of one: each passes it on (see `copies`).

    Only a head start for the `PlaceImage` of each host, which stays the judge of its copy and
    makes the ones that this could not: so it leaves problems to them, and waits like a gate.
    `peers` are hosts that seem to have a copy; with one that really has, nothing is sent from here.
    """

    hosts: tuple[str, ...]
    peers: tuple[str, ...]
    image: ImageSpec
    waits: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """For the plan: how much goes to how many."""
        many = f"{len(self.hosts)} hosts, each passing it on" if len(self.hosts) > 1 else self.hosts[0]
        return f"{self.image.size / 1e6:.0f} MB to {many}"

    def check(self, world: World) -> Met | Unmet:
        lacking = [h for h, wrong in self._look(world, self.hosts).items() if wrong]
        return Unmet(f"not on {', '.join(lacking)}") if lacking else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        found = self._look(world, (*self.hosts, *self.peers))
        total = sum(f.size for f in self.image.files)
        problems: dict[str, PcloudError] = {}
        done = 0
        for file in self.image.files:
            lacking = [h for h in self.hosts if file.name in found.get(h, ()) and h not in problems]
            have = [h for h, wrong in found.items() if file.name not in wrong]
            told = lambda n, done=done: report.progress("copying", done + n, total, "B")  # noqa: E731
            if lacking and not report.stopping():
                problems |= copy_file(world, self.image, file, lacking, have=have, sent=told)
            done += file.size
        copied = sum(1 for h in self.hosts if found.get(h) and h not in problems)
        refused = [f"{h}: {why}" for h, wrong in found.items() for why in wrong.values() if "is corrupt" in why]
        left = {h: e.what for h, e in problems.items()}
        return {"bytes": total, "copies": copied, "refused": refused, "left": left}

    def _look(self, world: World, hosts: Sequence[str]) -> dict[str, dict[str, str]]:
        """Host to what is wrong with its copy, for each host that answers."""

        def look(host: str) -> dict[str, str] | None:
            try:
                return find_wrong(world, host, self.image)
            except PcloudError:
                return None

        with ThreadPoolExecutor(max_workers=min(64, len(hosts))) as pool:
            found = dict(zip(hosts, pool.map(look, hosts), strict=True))
        return {host: wrong for host, wrong in found.items() if wrong is not None}


def find_wrong(world: World, host: str, image: ImageSpec) -> dict[str, str]:
    """File name to what is wrong with the host's copy, for each file that is not right."""
    pool = world.host(host).pool
    paths = {image.on_host(pool, f): f for f in image.files}
    digests = digests_on(world.shell(host), paths, sum(f.size for f in image.files))
    wrong = {}
    for path, file in paths.items():
        found = digests.get(path)
        if found is None:
            wrong[file.name] = f"{PurePosixPath(path).name} is missing"
        elif found != file.sha256:
            wrong[file.name] = f"{PurePosixPath(path).name} is corrupt: {found[:12]}, not {file.sha256[:12]}"
    return wrong


def digests_on(shell: Machine, paths: Any, size: int) -> dict[str, str]:
    """Path to sha256, for those of `paths` that exist on the machine."""
    answer = shell.run([*GENTLY, "sha256sum", "--", *paths], deadline_s=30 + size / DIGEST_RATE, check=False)
    found = {}
    for line in answer.stdout.splitlines():
        digest, _, path = line.partition("  ")
        found[path.strip()] = digest.lstrip("\\")
    return found
