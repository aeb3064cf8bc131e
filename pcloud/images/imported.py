"""A disk image that somebody already has -> an image of the store, which boots from its own disk.

The file may come from anywhere, so nothing is guessed from it by a program: its format is read
here from its first bytes, and qemu-img is told which one it is. A qcow2 file that names another
file (a backing file, an external data file) would make the host read that file: it is refused
from its header, before qemu-img opens it. What qemu-img then does is limited in time, memory
and CPU, on a copy of ours that nobody can change in between.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pcloud import places
from pcloud.errors import BadInput, DeadlineExceeded, ImageError
from pcloud.images import store
from pcloud.images.disk import qcow2_command
from pcloud.images.manifest import DISK, KERNEL, MANIFEST, Image, Manifest, describe, find_fault, folder_name
from pcloud.values import NAME

MIN_VIRTUAL, MAX_VIRTUAL = 1024**2, 4 * 1024**4
"""Bytes that a guest may see. More than 4 TiB is taken for a mistake or an attack."""

_ADDRESS_SPACE = 2 * 1024**3
_LOOK_CPU_S, _LOOK_S = 120, 180
_WORK_CPU_S, _WORK_S = 7200, 7200
_QCOW2 = b"QFI\xfb"
_DATA_FILE, _KNOWN_BITS = 1 << 2, 0b11111

# Offset, bytes, name: what else a file may be (libmagic's and qemu's own marks).
_OTHER = (
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK descriptor"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (-512, b"conectix", "VHD"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"QED\0", "QED"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"LUKS\xba\xbe", "LUKS-encrypted"),
    (0, b"\x1f\x8b", "gzip-compressed"),
    (0, b"\xfd7zXZ\0", "xz-compressed"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (0, b"BZh", "bzip2-compressed"),
    (0, b"PK\x03\x04", "zip"),
    (257, b"ustar", "tar"),
    (0x8001, b"CD001", "ISO 9660 (a CD or an installer)"),
)

Say = Callable[[str], None]


def import_image(file: Path, *, name: str = "", images_dir: Path | None = None, say: Say = lambda _: None) -> Image:
    """The image of `file`, a qcow2 or raw disk with a boot loader for BIOS; `say` hears what is being done.

    A raw disk becomes compressed qcow2; a qcow2 file stays as it is, bit for bit. An image of
    equal content is not made twice. Raises `BadInput` for a file or a name that will not do,
    `ImageError` and `DeadlineExceeded` for what went wrong on the way.
    """
    name = name or _name_of(file)
    _judge_name(name)
    _judge_file(file)
    folder = images_dir or places.images_dir()
    with store.locked(name, folder):
        if any(i.recipe == name and KERNEL in i.manifest.files for i in store.list_images(folder)):
            raise BadInput(
                f"{name} is the name of an image that was built", next="import it under another: --name NAME"
            )
        building = store.begin_building(name, folder)
        try:
            return _make(file, name, building, folder, say)
        except OSError as error:
            raise ImageError(
                f"the image cannot be written: {error.strerror}", where=str(folder), next="make room"
            ) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _make(file: Path, name: str, building: Path, folder: Path, say: Say) -> Image:
    disk = building / DISK
    form = _find_format(file)
    if form == "raw":
        _judge_boot(_read(file, 0, 512), file)
        _judge_size(file.stat().st_size, file)
        say("compressing")
        _run(qcow2_command(file.absolute(), disk), file, work=True)
    else:
        _judge_room(file, folder)
        _judge_header(_read(file, 0, 112), file)
        say("copying")
        _run(["cp", "--reflink=auto", "--sparse=always", "--", str(file.absolute()), str(disk)], file, work=True)
    say("checking")
    virtual = _judge_disk(disk, file)
    say("digests")
    content = describe(disk)
    manifest = Manifest(
        recipe=name,
        recipe_hash=content.sha256,
        suite="imported",
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        kernel_version="its own",
        cmdline="",
        virtual_size=virtual,
        files={DISK: content},
        packages={},
    )
    known = next((i for i in store.list_images(folder) if i.name == folder_name(name, manifest.digest)), None)
    if known is not None and find_fault(known) is None:
        return known
    (building / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return store.publish(building, manifest, folder)


# -- the file, before any program opens it


def _name_of(file: Path) -> str:
    stem = re.sub(r"\.(qcow2|img|raw|disk)$", "", file.name.lower())
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:31].strip("-")


def _judge_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise BadInput(f"{name!r} is no name for an image", next="use small letters, digits and hyphens: --name NAME")


def _judge_file(file: Path) -> None:
    try:
        status = file.stat()
        with_file = stat.S_ISREG(status.st_mode)
        if with_file:
            _read(file, 0, 1)
    except OSError as error:
        raise BadInput(
            f"it cannot be read: {error.strerror}", where=str(file), next="name a disk image's file"
        ) from None
    if not with_file:
        raise BadInput("it is no regular file", where=str(file), next="name a disk image's file")
    if status.st_size < 512:
        raise BadInput("it is too small for a disk", where=str(file), next="get the file again; it may be cut off")


def _read(file: Path, at: int, length: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(at, 2 if at < 0 else 0)
        return opened.read(length)


def _find_format(file: Path) -> str:
    """`qcow2` or `raw`; `BadInput` for all else that is known."""
    if _read(file, 0, 4) == _QCOW2:
        return "qcow2"
    for at, mark, form in _OTHER:
        if at + len(mark) <= file.stat().st_size and _read(file, at, len(mark)) == mark:
            unpack = (
                "unpack it" if form.endswith("compressed") or form in ("zip", "tar") else "qemu-img convert -O qcow2 it"
            )
            todo = f"{unpack} on a machine that you would trust it with, then import the result"
            if form.startswith(("ISO", "LUKS")):
                todo = "name the disk of an installed system, not encrypted"
            raise BadInput(f"it is a {form} file; only qcow2 and raw disks can be imported", where=str(file), next=todo)
    return "raw"


def _judge_header(head: bytes, file: Path) -> None:
    """The qcow2 header (qemu's docs/interop/qcow2.txt): nothing in it may lead out of the file."""
    if len(head) < 72:
        raise BadInput("its qcow2 header is cut off", where=str(file), next="get the file again")
    version, backing, _, cluster_bits, size, crypt = struct.unpack_from(">IQIIQI", head, 4)
    (snapshots,) = struct.unpack_from(">I", head, 60)
    incompatible = struct.unpack_from(">Q", head, 72)[0] if version == 3 and len(head) >= 80 else 0
    flat = "make it one whole file: qemu-img convert -O qcow2 FILE NEW, and import NEW"
    if version not in (2, 3) or not 9 <= cluster_bits <= 21:
        raise BadInput(
            f"its qcow2 header makes no sense (version {version})", where=str(file), next="get the file again"
        )
    if backing:
        raise BadInput("it has a backing file: it is only the difference to another image", where=str(file), next=flat)
    if incompatible & _DATA_FILE:
        raise BadInput("its data are in another file", where=str(file), next=flat)
    if incompatible & ~_KNOWN_BITS:
        raise BadInput("it uses qcow2 features that are not known here", where=str(file), next=flat)
    if crypt:
        raise BadInput("it is encrypted", where=str(file), next="import the disk decrypted")
    if snapshots:
        raise BadInput(f"it holds {snapshots} internal snapshots, which may hold secrets", where=str(file), next=flat)
    _judge_size(size, file)


def _judge_size(size: int, file: Path) -> None:
    if not MIN_VIRTUAL <= size <= MAX_VIRTUAL:
        limits = f"{MIN_VIRTUAL // 1024**2} MiB to {MAX_VIRTUAL // 1024**4} TiB"
        raise BadInput(
            f"its disk has {size} bytes; {limits} can be", where=str(file), next="import a disk of that size"
        )


def _judge_boot(sector: bytes, file: Path) -> None:
    """A boot record with code in it: a disk for UEFI alone has none, a bare file system no mark."""
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa" or not any(sector[:440]):
        raise BadInput(
            "its first sector holds no boot loader for BIOS, so it would not start by itself",
            where=str(file),
            next="import a whole disk with GRUB for BIOS (Debian's genericcloud images have it), not a file system",
        )


def _judge_room(file: Path, folder: Path) -> None:
    free, needed = shutil.disk_usage(folder).free, file.stat().st_blocks * 512
    if needed > free:
        what = f"{needed // 1024**2} MiB are needed and {free // 1024**2} MiB are free"
        raise ImageError(what, where=str(folder), next="make room, then import it again")


# -- what qemu-img says of our copy of it


def _judge_disk(disk: Path, file: Path) -> int:
    """The virtual size in bytes, after header, `info`, `check` and first sector were all found well."""
    _judge_header(_read(disk, 0, 112), file)
    info = _json(_run(["qemu-img", "info", "--output=json", "-f", "qcow2", str(disk)], file), file)
    extra = info.get("format-specific", {}).get("data", {})
    if info.get("backing-filename") or extra.get("data-file") or info.get("encrypted") or info.get("snapshots"):
        raise BadInput("it leads to another file, is encrypted, or holds snapshots", where=str(file), next="flatten it")
    if extra.get("corrupt"):
        raise BadInput("it is marked as corrupt", where=str(file), next="get the file again")
    size = int(info["virtual-size"])
    _judge_size(size, file)
    _run(["qemu-img", "check", "-q", "-f", "qcow2", str(disk)], file, allowed=(0, 3))  # 3: leaked clusters only
    first = disk.with_name("first-sector")
    _run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=1", f"if={disk}", f"of={first}"], file)
    sector = _read(first, 0, 512)
    first.unlink()
    _judge_boot(sector, file)
    return size


def _json(text: str, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("virtual-size"), int):
        raise ImageError("qemu-img does not say what it is", where=str(file), next="qemu-img info FILE")
    return found


def _run(argv: Sequence[str], file: Path, *, work: bool = False, allowed: tuple[int, ...] = (0,)) -> str:
    """A program's stdout, within limits that no honest image comes near."""
    cpu, seconds = (_WORK_CPU_S, _WORK_S) if work else (_LOOK_CPU_S, _LOOK_S)
    limited = ["prlimit", f"--cpu={cpu}", f"--as={_ADDRESS_SPACE}", "--core=0", "--", *argv]
    try:
        done = subprocess.run(limited, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"{argv[0]} did not end within {seconds} s", where=str(file), next="try again") from None
    except FileNotFoundError:
        raise ImageError("this machine lacks prlimit", next="apt-get install util-linux") from None
    if done.returncode == 127 and shutil.which(argv[0]) is None:
        raise ImageError(f"this machine lacks {argv[0]}", next="apt-get install qemu-utils")
    if done.returncode not in allowed:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
        said = "".join(c if c.isprintable() else "?" for c in said)[:300] or "it said nothing"
        raise BadInput(f"{argv[0]} {argv[1]} refuses it: {said}", where=str(file), next="get the file again")
    return done.stdout.decode(errors="replace")
