"""A lab of its own, and programs run in it as a person would, with what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from pcloud import places
from pcloud.errors import CommandFailed
from pcloud.images import find_image
from pcloud.inventory import defaults_dir, load_site
from pcloud.lab.processes import find_parts, members

PCLOUD = str(Path(sys.executable).with_name("pcloud"))
DEMO = defaults_dir("inventory") / "demo.yaml"
ROOT = Path(__file__).resolve().parent.parent
LONGEST_S = 900
QUIET_CPUS = 0.15
"""Busy CPUs below which nothing else is thought to run. Not the load average: it remembers our own
last recovery for minutes."""


def busy_s() -> float:
    """Seconds of CPU that this machine has spent since its start, on anything."""
    words = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(words[:8]) - words[3] - words[4]) / os.sysconf("SC_CLK_TCK")  # not: idle, iowait, guest twice


@dataclass(frozen=True)
class Cost:
    """What a program took, its children (ssh, mostly) included; `peak_mib` is the largest one's."""

    wall_s: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True)
class Ran:
    code: int
    lines: list[tuple[float, str]]
    """What it printed, each line with the seconds since the program was launched."""
    err: str
    cost: Cost

    @property
    def out(self) -> str:
        return "\n".join(line for _, line in self.lines)


def run(
    argv: Sequence[str],
    env: dict[str, str] | None = None,
    *,
    codes: Sequence[int] = (0,),
    longest_s: float = LONGEST_S,
) -> Ran:
    """Runs a program to its end. Raises `CommandFailed` for another exit code than `codes`."""
    started = time.monotonic()
    lines: list[tuple[float, str]] = []
    with TemporaryFile("w+") as err:
        process = subprocess.Popen(
            argv, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True
        )
        timer = threading.Timer(longest_s, process.kill)
        timer.start()
        assert process.stdout is not None
        with process.stdout:
            lines += ((time.monotonic() - started, line.rstrip("\n")) for line in process.stdout)
        # wait4, not wait: its usage is of this one program and of what it waited for itself.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        timer.cancel()
        err.seek(0)
        said = err.read()
    cost = Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    ran = Ran(code, lines, said, cost)
    if code not in codes:
        raise CommandFailed(f"{' '.join(argv)} ended with {code}: {said.strip() or ran.out[-2000:]}")
    return ran


@dataclass(frozen=True)
class Lab:
    """The demo site's lab, in a home of its own."""

    home: Path
    env: dict[str, str] = field(repr=False)

    @property
    def folder(self) -> Path:
        return self.home / "state" / "labs" / "demo"

    def pcloud(self, *argv: str, codes: Sequence[int] = (0,)) -> Ran:
        return run([PCLOUD, *argv], self.env, codes=codes)

    def program(self, module: str, *argv: str) -> Ran:
        """A module of these benchmarks, inside the lab's network."""
        fabric = find_parts(self.folder)["fabric"]
        inside = ["nsenter", f"--net=/proc/{fabric.pid}/ns/net", "--"]
        return run([*inside, sys.executable, "-m", f"benchmarks.{module}", *argv], self.env)

    def clear(self) -> None:
        """No server, no disk; the images stay on the hosts."""
        self.pcloud("destroy", "demo", "--yes", "--json")
        self.pcloud("purge", "demo", "--yes", "--json")

    def guests_cpu_s(self) -> dict[str, float]:
        """Seconds of CPU that each guest's emulator has used since its start, by server."""
        tick = os.sysconf("SC_CLK_TCK")
        found: dict[str, float] = {}
        for part in find_parts(self.folder).values():
            for pid in members(part):
                with suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                    guest = next((w for w in words if w.startswith("guest=demo.")), None)
                    if guest is not None and "qemu-system" in words[0]:
                        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                        found[guest.removeprefix("guest=demo.").partition(",")[0]] = (
                            int(stat[11]) + int(stat[12])
                        ) / tick
        return dict(sorted(found.items()))


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Builds the images where they are missing, brings a lab up, and takes it down whatever happens.

    The images are pinned at the start: a build that ends meanwhile changes nothing.
    """
    run([PCLOUD, "image", "build"])
    with TemporaryDirectory(prefix="pcloud-bench-") as folder:
        home = Path(folder)
        images = home / "cache" / "images"
        images.mkdir(parents=True)
        for ref in load_site(DEMO).images.values():
            image = find_image(ref.recipe or ref.digest or "", places.images_dir())
            assert image is not None
            (images / image.folder.name).symlink_to(image.folder)
        lab = Lab(home, {**os.environ, "PCLOUD_HOME": folder, "COLUMNS": "200"})
        try:
            lab.pcloud("lab", "up", "demo")
            yield lab
        finally:
            lab.pcloud("lab", "down", "demo", codes=(0, 1, 2, 3))
