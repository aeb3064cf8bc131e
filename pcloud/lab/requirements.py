"""What a machine needs to hold a lab, checked before anything is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pcloud.errors import BadInput, Blocked
from pcloud.model import Site

# Program -> Debian package.
PROGRAMS = {
    "busybox": "busybox-static",
    "debugfs": "e2fsprogs",
    "ip": "iproute2",
    "libvirtd": "libvirt-daemon-system",
    "mariadb-binlog": "mariadb-client",
    "nft": "nftables",
    "nsenter": "util-linux",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "sshd": "openssh-server",
    "tini": "tini",
    "virsh": "libvirt-clients",
}
DRIVER = "libvirt/connection-driver/libvirt_driver_qemu.so"
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# File systems that cannot hold the upper layer of an overlay.
UNFIT = {"overlay", "nfs", "nfs4", "9p", "fuse", "fuseblk", "vfat", "exfat"}


def find_program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH)


def require_lab(site: Site) -> None:
    """Raises `BadInput` for a site of real machines."""
    if site.lab is None:
        raise BadInput(
            "this site is not a lab: its hosts are real machines", where=f"site {site.site}", next="add `lab: {}` to it"
        )
    for host in site.hosts:
        if (host.user or site.access.user) != "root":
            raise BadInput("a lab's hosts know only root", where=f"host {host.name}", next="take its `user` out")


def require_root() -> None:
    if os.geteuid() != 0:
        raise Blocked("a lab needs root: it makes namespaces and mounts", next="run the same command as root")


def require_machine(folder: Path) -> None:
    """Raises `Blocked` with everything that is missing, in one message."""
    require_root()
    missing = {program: package for program, package in PROGRAMS.items() if find_program(program) is None}
    if not any(Path("/usr/lib").glob("*/" + DRIVER)):
        missing["libvirt's QEMU driver"] = "libvirt-daemon-driver-qemu"
    if missing:
        raise Blocked(
            f"the lab needs {', '.join(sorted(missing))}",
            where="this machine",
            next=f"apt-get install {' '.join(sorted(set(missing.values())))}",
        )
    if not Path("/dev/net/tun").exists():
        raise Blocked("/dev/net/tun is missing", where="this machine", next="modprobe tun")
    kind = _file_system(folder)
    if kind in UNFIT:
        raise Blocked(
            f"a file system of kind {kind} cannot hold the disks of hosts",
            where=str(folder),
            next="set PCLOUD_HOME to a folder on a local disk, such as ext4 or xfs",
        )


def _file_system(folder: Path) -> str:
    """The kind of the mount that the folder, or its nearest parent that exists, is on."""
    while not folder.exists():
        folder = folder.parent
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        if fields.split()[2] == wanted:
            return tail.split()[0]
    return ""
