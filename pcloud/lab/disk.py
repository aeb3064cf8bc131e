"""A new host's disk: what is the host's own, before it starts for the first time.

The host reads the machine's programs (`/usr`, through an overlay) and a few files of `/etc`
that name users and libraries. Everything else of the machine, and so every key, cache and
inventory of the operator, simply does not exist in it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pcloud.lab.boot import PATH
from pcloud.lab.layout import HostFolder
from pcloud.model import Host, Site

EMPTY = """
boot dev etc/libvirt/qemu/networks etc/ssh home media mnt opt proc root/.ssh run srv sys tmp var/cache/libvirt/qemu
var/lib/libvirt/images var/local var/log/libvirt/qemu var/mail var/opt var/spool var/tmp
"""
COPIED = """
bash.bashrc debian_version environment ethertypes group host.conf inputrc ld.so.cache ld.so.conf ld.so.conf.d
localtime login.defs nsswitch.conf passwd profile protocols rpc services shells timezone xattr.conf
"""
# Hundreds of links, the same everywhere: shown read-only rather than copied for every host.
SHOWN = ("etc/alternatives",)
LINKS = {
    "var/run": "/run",
    "var/lock": "/run/lock",
    "etc/mtab": "/proc/self/mounts",
    "etc/os-release": "../usr/lib/os-release",
}
SYSTEM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

# Measured: libvirt without cgroups, mount namespaces, security labels or virtlogd, as a host without systemd needs it.
QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
remember_owner = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
LIBVIRTD_CONF = """\
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
host_uuid = "{uuid}"
"""
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
X11Forwarding no
PrintMotd no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""
# An init that reaps, and starts its services again when they end; its own search path would name QEMU `/bin/…`.
INITTAB = """\
::sysinit:/bin/mkdir -p {pool}
::respawn:/usr/bin/env PATH={search} /usr/sbin/sshd -D -e
::respawn:/usr/bin/env PATH={search} /usr/sbin/libvirtd
"""


def host_uuid(site: Site, host: Host) -> uuid.UUID:
    """Derived, so that the same host keeps its identity; libvirt would read the machine's, the same for all."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"{host.name}.{site.site}.lab.pcloud")


def layers() -> list[str]:
    """The machine's folders that a host reads through its own overlay; on a merged-usr Debian only `usr`."""
    return ["usr", *(name for name in SYSTEM_FOLDERS if Path("/", name).is_dir() and not Path("/", name).is_symlink())]


def shown() -> list[str]:
    """The machine's folders that a host sees as they are."""
    return [path for path in SHOWN if Path("/", path).is_dir()]


def make(site: Site, host: Host, folder: HostFolder, neighbours: tuple[Host, ...], operator: str) -> None:
    """Makes the disk anew; `operator` is the public key line that may log in as root."""
    if folder.path.exists():
        shutil.rmtree(folder.path)
    root = folder.root
    for path in EMPTY.split():
        (root / path).mkdir(parents=True, exist_ok=True)
    for path in ("tmp", "var/tmp"):
        (root / path).chmod(0o1777)
    for path in ("root", "root/.ssh", "etc/libvirt"):
        (root / path).chmod(0o700)
    for path in shown():
        (root / path).mkdir()
    for layer in layers():
        for part in (root / layer, folder.disk / f"{layer}.upper", folder.disk / f"{layer}.work"):
            part.mkdir(exist_ok=True)
    _copy(root)
    _write_etc(root / "etc", site, host, neighbours)
    _write(root / "root/.ssh/authorized_keys", operator + "\n", 0o600)
    (root / host.pool.lstrip("/")).mkdir(parents=True, exist_ok=True)
    _write_host_key(root / "etc/ssh/ssh_host_ed25519_key", host)
    _write(folder.record, host.model_dump_json() + "\n")


def _copy(root: Path) -> None:
    for name in COPIED.split():
        source, target = Path("/etc", name), root / "etc" / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.exists():
            shutil.copy2(source, target, follow_symlinks=False)
    for name, to in LINKS.items():
        (root / name).symlink_to(to)
    for name in SYSTEM_FOLDERS:
        if Path("/", name).is_symlink():
            (root / name).symlink_to(Path("/", name).readlink())


def _write_etc(etc: Path, site: Site, host: Host, neighbours: tuple[Host, ...]) -> None:
    identity = host_uuid(site, host)
    domain = site.network.domain
    names = "".join(f"{other.address} {other.name}.{domain} {other.name}\n" for other in neighbours)
    _write(etc / "hostname", f"{host.name}\n")
    _write(etc / "hosts", f"127.0.0.1 localhost\n{names}")
    _write(etc / "resolv.conf", f"search {domain}\n" + "".join(f"nameserver {dns}\n" for dns in site.network.dns))
    _write(etc / "machine-id", f"{identity.hex}\n", 0o444)
    # No password opens it, and sshd takes `*`, unlike `!`, for an account that is not locked.
    _write(etc / "shadow", "root:*:19000:0:99999:7:::\n", 0o600)
    _write(etc / "inittab", INITTAB.format(pool=host.pool, search=PATH))
    _write(etc / "ssh/sshd_config", SSHD_CONFIG)
    _write(etc / "libvirt/qemu.conf", QEMU_CONF, 0o600)
    _write(etc / "libvirt/libvirtd.conf", LIBVIRTD_CONF.format(uuid=identity))


def _write_host_key(path: Path, host: Host) -> None:
    key = Ed25519PrivateKey.generate()
    _write(path, private_text(key), 0o600)
    _write(path.with_suffix(".pub"), f"{public_line(key)} root@{host.name}\n")


def private_text(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()


def public_line(key: Ed25519PrivateKey) -> str:
    """`ssh-ed25519 AAAA…`, without a comment."""
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def pinned_line(host: Host, folder: HostFolder) -> str:
    """The host's line of known_hosts; the key is read from its disk."""
    kind, key, *_ = (folder.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
    return f"{host.address} {kind} {key}\n"


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
