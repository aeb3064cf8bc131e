"""One host as it was found, and what is said of it: frozen, no I/O. `hostfacts` asks, `hostchecks` judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pcloud.observed import SeenServer

Access = Literal["silent", "unpinned", "changed", "login"]
Level = Literal["ok", "warn", "bad"]

# Debian package -> a file of it that something of pcloud or libvirt runs.
PACKAGES = {
    "qemu-system-x86": "/usr/bin/qemu-system-x86_64",
    "qemu-utils": "/usr/bin/qemu-img",
    "libvirt-daemon-system": "/usr/sbin/libvirtd",
    "libvirt-daemon-driver-qemu": "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
    "libvirt-clients": "/usr/bin/virsh",
    "mariadb-client": "/usr/bin/mariadb-binlog",
    "e2fsprogs": "/usr/sbin/debugfs",
}
TOOLS = ("sha256sum", "find", "stat")
SYSTEMD = "/run/systemd/system"  # the test of sd_booted(3)
LIBVIRT_UNITS = ("libvirtd.service", "libvirtd.socket", "virtqemud.service", "virtqemud.socket")
GUESTS_UNIT = "libvirt-guests.service"
NETWORKD_UNIT = "systemd-networkd.service"


@dataclass(frozen=True)
class Refused:
    """Why nothing is known of a host: it is silent, its key is not pinned, or it lets nobody in."""

    kind: Access
    what: str
    next: str
    key: str = ""
    """The public key that it showed, `ssh-ed25519 AAAA…`, when its key is the question."""


@dataclass(frozen=True)
class Folder:
    """A folder on the host: its permission bits and its owner's number."""

    mode: int
    uid: int


@dataclass(frozen=True)
class FileSystem:
    """What the pool is, or would be, on. Bytes and inodes; a file system without inodes says 0 of 0."""

    target: str
    kind: str
    size: int
    free: int
    inodes: int
    inodes_free: int


@dataclass(frozen=True)
class Link:
    """A network interface: `kind` is `bridge`, `tun`, `veth`, `vlan`, …, or "" for hardware."""

    name: str
    kind: str = ""
    up: bool = True
    master: str = ""
    addresses: tuple[str, ...] = ()
    """With their size, `10.77.0.11/24`."""


@dataclass(frozen=True)
class Unit:
    """A unit of systemd, in its own words: `active` (active, inactive, failed), `enabled` (enabled, disabled, …)."""

    active: str
    enabled: str


@dataclass(frozen=True)
class Controller:
    """What a host's management controller says by one way, `redfish` or `ipmi`; empty and None: it does not tell.

    `problem`: why this way cannot be used, and `next`: what to do about it.
    """

    way: str = ""
    power: str = ""
    identity: str = ""
    """The UUID, or else the serial number, of the machine behind it."""
    problem: str = ""
    next: str = ""
    answer_s: float | None = None
    """How long one question took, of `limit_s` that it may take."""
    limit_s: float = 10.0
    login: str = ""
    """How the user was let in: `a session`, `the password with each request`, `cipher suite 3`."""
    role: str = ""
    may_switch: bool | None = None
    resets: tuple[str, ...] = ()
    """The ResetTypes that it lists."""
    offset_s: float | None = None
    """Its clock less this machine's."""
    running_s: float | None = None
    """Since its own start."""
    certificate_ends: float | None = None
    """Unix time."""
    certificate_s: float | None = None
    """Until then; negative where it is over."""
    pinned: bool = False
    """Its certificate is the very one that the inventory names."""


@dataclass(frozen=True)
class HostFacts:
    """One host. Empty texts and None are what could not be learned."""

    host: str
    refused: Refused | None = None
    late: tuple[str, ...] = ()
    """Commands that did not end in time."""
    uid: int = 0
    system: str = ""
    """Such as `Debian 12.5`."""
    cpus: int = 0
    memory_mib: int = 0
    flags: frozenset[str] = frozenset()
    """Of the processor: vmx, svm, hypervisor."""
    init: str = ""
    """The name of PID 1."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Package to dpkg's word for its state; one that dpkg does not know is not here."""
    files: frozenset[str] = frozenset()
    """Which of the files in PACKAGES exist, and SYSTEMD."""
    tools: frozenset[str] = frozenset()
    libvirt: str = ""
    qemu: str = ""
    libvirt_problem: str = ""
    kvm: bool | None = None
    """What libvirt says of KVM, the one test that does not lie."""
    units: Mapping[str, Unit] = field(default_factory=dict)
    on_boot: str = ""
    """What libvirt-guests does at boot: `start` or `ignore`."""
    pool: Folder | None = None
    closed: tuple[str, ...] = ()
    """Folders above the pool that only root may pass through."""
    file_system: FileSystem | None = None
    pool_bytes: int = 0
    """What the site's files in the pool take already."""
    links: tuple[Link, ...] = ()
    gateway: str = ""
    servers: tuple[SeenServer, ...] = ()
    autostarted: frozenset[str] = frozenset()
    """UUIDs of servers that libvirt starts by itself."""
    offset_s: float | None = None
    """Its clock less this machine's; positive when it is ahead."""
    synchronised: bool | None = None
    uuid: str = ""
    """What its firmware (SMBIOS) calls it."""
    serial: str = ""
    controllers: tuple[Controller, ...] = ()
    """One for each way; none where there is no controller, or it was not asked."""

    @property
    def systemd(self) -> bool:
        return SYSTEMD in self.files

    @property
    def memory_known(self) -> bool:
        return self.memory_mib > 0


@dataclass(frozen=True)
class Finding:
    """What is said of a host. `person`: pcloud cannot look further until somebody has acted (host key, log-in)."""

    host: str
    check: str
    level: Level
    found: str
    fix: str = ""
    person: bool = False
