"""Whether `/dev/kvm` is worth showing to the hosts: only a kernel that boots proves it.

The device can exist, open and create a virtual machine and still never boot a Debian kernel;
libvirt's probes then cost minutes. So: one short trial, its answer kept for this machine.
"""

from __future__ import annotations

import hashlib
import json
import platform
import selectors
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pcloud import places
from pcloud.clock import Deadline
from pcloud.lab.requirements import find_program

DEVICE = Path("/dev/kvm")
TRIAL_S = 6
# With no root disk, a kernel that has come this far has set up everything of the processor it will ever use.
BOOTED = (b"Kernel panic - not syncing", b"Run /init as init process", b"Freeing unused kernel image")


def cache_dir() -> Path:
    """What labs of this machine share: nothing but measurements."""
    return places.images_dir().parent / "lab"


def usable() -> bool:
    """True when a kernel booted with KVM here. Without a kernel to try, false, and nothing is kept."""
    if not DEVICE.exists():
        return False
    emulator = find_program("qemu-system-x86_64")
    kernel = next(_kernels(), None)
    if emulator is None or kernel is None:
        return False
    machine = (platform.release(), Path(emulator).stat().st_mtime_ns, _processor())
    answer = cache_dir() / f"kvm-{hashlib.sha256(repr(machine).encode()).hexdigest()[:16]}.json"
    if answer.exists():
        return bool(json.loads(answer.read_text())["usable"])
    result = _boots(emulator, kernel)
    answer.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    answer.write_text(json.dumps({"usable": result, "kernel": str(kernel)}) + "\n")
    return result


def _kernels() -> Iterator[Path]:
    yield from sorted(Path("/boot").glob("vmlinuz-*"), reverse=True)
    yield from sorted(places.images_dir().glob("*/vmlinuz*"))
    yield from sorted(places.images_dir().glob("*/kernel"))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith("model name")), "")


def _boots(emulator: str, kernel: Path, accel: str = "kvm") -> bool:
    # A guest that never boots spins for ever: it must not outlive this process, even one that is killed.
    argv = ["setpriv", "--pdeathsig", "KILL", "--", emulator, "-accel", accel]
    argv += ["-m", "256", "-nodefaults", "-no-user-config", "-no-reboot"]
    argv += ["-display", "none", "-serial", "stdio", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
    deadline = Deadline.after(TRIAL_S)
    with (
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        ) as trial,
        selectors.DefaultSelector() as selector,
    ):
        assert trial.stdout is not None
        selector.register(trial.stdout, selectors.EVENT_READ)
        said = b""
        while not deadline.passed() and not any(sign in said for sign in BOOTED):
            if not selector.select(deadline.left()):
                continue
            piece = trial.stdout.read(4096)
            if not piece:
                break
            said = said[-65_536:] + piece
        trial.kill()
    return any(sign in said for sign in BOOTED)
