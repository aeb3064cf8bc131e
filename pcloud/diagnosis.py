"""From the tail of a server's console to the likely reason why it did not come up.

The first pattern found in the last lines wins; the order is from the most to the least
telling. A guess is worded as one.
"""

from __future__ import annotations

import re

_CAUSES: tuple[tuple[str, str], ...] = (
    (r"No space left on device", "its disk is full: give the group a larger disk_gib"),
    (r"Out of memory|oom-kill|Killed process", "it ran out of memory: give the group more memory_mib"),
    (
        r"seed.*(not found|missing|corrupt|damaged)|no seed",
        "it found no usable seed disk: recover again to write it anew",
    ),
    (
        r"VFS: Unable to mount root|Cannot open root device|root.*not found|mount.*/dev/vda.*failed",
        "it could not mount its disk: the image is damaged or has no driver for a virtio disk",
    ),
    (
        r"EXT4-fs error|I/O error|Buffer I/O|Structure needs cleaning|Corrupt",
        "its disk is damaged: rebuild it with --rebuild",
    ),
    (r"end Kernel panic|Kernel panic", "its kernel panicked: the line of the panic is in the console above"),
    (
        r"emergency mode|Dependency failed for (Local|Remote)",
        "systemd stopped in emergency mode: a mount or an early unit failed",
    ),
    (r"Failed to start ([^\n]{1,80})", r"the unit failed that should start \1"),
    (r"([\w@.-]+\.service): Failed with result", r"the unit \1 failed"),
    (
        r"No bootable device|Boot failed|not a bootable disk",
        "its firmware found nothing to boot: the image needs a kernel or GRUB",
    ),
)


def find_cause(console: str) -> str:
    """One sentence, without a final stop. `console` is the tail of the serial console's log."""
    if not console.strip():
        return "its console is empty: the emulator did not start the kernel, or the host has no CPU left for it"
    for pattern, cause in _CAUSES:
        found = list(re.finditer(pattern, console, re.IGNORECASE))
        if found:
            return found[-1].expand(cause).rstrip(".")
    if re.search(r"login:\s*$|is up; press Enter|Reached target|Startup finished", console):
        return "it booted, but its service or its network does not answer"
    return "it was still booting: a slow host, or boot_timeout_s is too short"


def find_remedy(what: str, site: str, where: str) -> str:
    """What to do about a failure that names no next action itself. `where` is a host or server, or empty."""
    machine = where.split()[-1] if where else ""
    if "No space left on device" in what and machine:
        return (
            f"make room on {machine}: pcloud ssh {site}/{machine} -- df -h; pcloud purge {site} deletes its "
            "tombstones; then the same command again goes on"
        )
    look = f"pcloud ssh {site}/{machine} to look; " if machine else ""
    return f"{look}the same command again goes on from here"
