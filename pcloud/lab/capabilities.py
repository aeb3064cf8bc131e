"""What libvirt learned about this machine's QEMU, handed to every new host.

A libvirtd that sees a QEMU for the first time starts it several times to learn what it can do.
All hosts of a lab run the same program, so the first answer of this machine serves them all;
libvirt itself compares it with the program's date, and asks again where it no longer fits.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
from pathlib import Path

from pcloud.lab.kvm import cache_dir
from pcloud.lab.layout import HostFolder
from pcloud.lab.requirements import find_program

INSIDE = Path("var/cache/libvirt/qemu/capabilities")


def kept(kvm: bool) -> Path:
    """The folder of what is known about this very QEMU, libvirt and kernel, with or without KVM."""
    programs = [Path(path) for name in ("qemu-system-x86_64", "libvirtd") if (path := find_program(name))]
    facts = (platform.release(), kvm, [(p.resolve().stat().st_ctime_ns, p.resolve().stat().st_size) for p in programs])
    return cache_dir() / f"capabilities-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def give(source: Path, host: HostFolder) -> None:
    target = host.root / INSIDE
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.xml"):
        shutil.copy2(path, target / path.name)


def keep(host: HostFolder, target: Path) -> bool:
    """Keeps what a warmed host has learned. False when it has learned nothing."""
    found = sorted((host.root / INSIDE).glob("*.xml"))
    if not found:
        return False
    beside = target.with_name(f".{target.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700, parents=True)
    for path in found:
        shutil.copy2(path, beside / path.name)
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)
    return True
