"""A stock Debian cloud image, made from the machine's own package sources, with nothing of pcloud in it.

It is what a user may already have: cloud-init with netplan, OpenSSH, Debian's cloud kernel with
its own initramfs, GRUB in the master boot record of a partitioned disk, and HAProxy as they
installed it. No mount and no loop device: `mke2fs -d` fills the partition at its offset, and
GRUB's core image goes into the gap behind the boot record, where its blocklist already looks
for it (sector 1; the method is the one GRUB's manual names under "BIOS installation").
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from pcloud.images.sources import find_sources, read_apt_options

SUITE = "bookworm"
SIZE_MIB = 2048
START = 2048
"""The partition's first sector: the usual 1 MiB."""
_SECTOR = 512

_PACKAGES = (
    "cloud-guest-utils",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "grub-pc",
    "haproxy",
    "init",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "netbase",
    "netplan.io",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd-resolved",
    "systemd-timesyncd",
    "tzdata",
    "udev",
)

_CLOUD = """# as in Debian's own cloud images
datasource_list: [ NoCloud, ConfigDrive, OpenStack, Ec2, None ]
manage_etc_hosts: true
system_info:
  network:
    renderers: ['netplan', 'eni', 'sysconfig', 'networkd']
"""

_GRUB = """set timeout=0
search --no-floppy --set=root --label cloudimg
linux /vmlinuz root=LABEL=cloudimg ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
"""

_SCRIPT = r"""set -eu
cd "$1"
rm -f etc/ssh/ssh_host_* etc/hostname etc/resolv.conf var/cache/apt/*.bin
: > etc/machine-id
ln -s ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
echo 'LABEL=cloudimg / ext4 rw,discard,errors=remount-ro 0 1' > etc/fstab
cp "$2/grub.cfg" boot/grub/grub.cfg
cp "$2/01_debian_cloud.cfg" etc/cloud/cloud.cfg.d/
chroot . systemctl enable systemd-networkd systemd-resolved
chroot . grub-mkimage -O i386-pc -p '(,msdos1)/boot/grub' -o /boot/grub/core.img \
  biosdisk part_msdos ext2 normal linux search search_label echo test
cp usr/lib/grub/i386-pc/boot.img boot/grub/core.img "$2/"
rm -rf tmp/* run/*
"""


def _recipe() -> str:
    parts = [SUITE, str(SIZE_MIB), *_PACKAGES, _CLOUD, _GRUB, _SCRIPT]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def stock_image(cache: Path) -> Path:
    """The image, made at the first call and kept in `cache` under the hash of what it is made of."""
    final = cache / ".stock" / f"debian-{_recipe()}.qcow2"
    if not final.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".making-", dir=final.parent) as folder:
            _make(Path(folder)).replace(final)
    return final


def _make(folder: Path) -> Path:
    tree, raw, made = folder / "tree", folder / "disk.raw", folder / "disk.qcow2"
    (folder / "debian.sources").write_text(find_sources(SUITE))
    (folder / "grub.cfg").write_text(_GRUB)
    (folder / "01_debian_cloud.cfg").write_text(_CLOUD)
    (folder / "finish").write_text(_SCRIPT)
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--skip=check/empty"]
    argv += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--include={','.join(_PACKAGES)}"]
    argv += [f"--aptopt={option}" for option in (*read_apt_options(), 'APT::Install-Recommends "false";')]
    argv += ["--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*"]
    argv += [f'--customize-hook=sh {folder}/finish "$1" {folder}']
    _run([*argv, SUITE, str(tree), str(folder / "debian.sources")])
    with raw.open("wb") as file:
        file.truncate(SIZE_MIB << 20)
        _write_boot(file.fileno(), folder)
    argv = ["mke2fs", "-q", "-t", "ext4", "-F", "-L", "cloudimg", "-O", "^orphan_file,^metadata_csum_seed"]
    argv += ["-E", f"offset={START * _SECTOR},lazy_itable_init=0,nodiscard", "-d", str(tree)]
    _run([*argv, str(raw), f"{SIZE_MIB - 1}M"])
    shutil.rmtree(tree)
    argv = ["qemu-img", "convert", "-c", "-W", "-m", "2", "-O", "qcow2", "-o", "compression_type=zstd"]
    _run([*argv, str(raw), str(made)])
    return made


def _write_boot(fd: int, folder: Path) -> None:
    """GRUB's first stage with a partition table of one bootable Linux partition, and its core behind it."""
    boot, core = (folder / "boot.img").read_bytes(), (folder / "core.img").read_bytes()
    assert len(boot) == _SECTOR and len(core) < (START - 1) * _SECTOR
    length = (SIZE_MIB << 20) // _SECTOR - START
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", START, length)
    os.pwrite(fd, boot[:440] + struct.pack("<IH", 0x70636C64, 0) + entry.ljust(64, b"\0") + b"\x55\xaa", 0)
    os.pwrite(fd, core, _SECTOR)


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=900, check=False)
    assert done.returncode == 0, f"{argv[0]}: {done.stderr[-3000:]}"
