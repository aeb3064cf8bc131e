"""Disks as servers leave them whose power was cut: real data folders in file systems, with no mount and no loop."""

from __future__ import annotations

import binascii
import shutil
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from pcloud.images.disk import qcow2_command
from tests.guests import program

BLOCK = 4096
SECTOR = 512
FEATURES = ["-O", "^orphan_file,^metadata_csum_seed", "-E", "lazy_itable_init=0,lazy_journal_init=1,nodiscard"]
"""Those of an image's file system (`images/disk.py`)."""


def file_system(data: Path | None, path: Path, size: int = 64 << 20, block: int = BLOCK) -> Path:
    """An ext4 file system with the data folder at its place; without one, with nothing."""
    tree = path.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "var/lib").mkdir(parents=True)
    if data is not None:
        names = [f for f in data.iterdir() if f.name not in ("s.sock", "ibdata1", "ib_logfile0", "mysql", "sys")]
        (tree / "var/lib/mysql").mkdir()
        subprocess.run(["cp", "-a", *map(str, names), str(tree / "var/lib/mysql")], check=True)
    with path.open("wb") as file:
        file.truncate(size)
    argv = [
        program("mke2fs", "e2fsprogs"),
        "-q",
        "-t",
        "ext4",
        "-F",
        "-L",
        "root",
        "-m",
        "1",
        "-b",
        str(block),
        *FEATURES,
    ]
    subprocess.run([*argv, "-d", str(tree), str(path)], check=True, capture_output=True)
    shutil.rmtree(tree)
    return path


def with_dirty_journal(raw: Path, added: Sequence[Path]) -> Path:
    """The file system after more files were written into the data folder, as a power cut leaves it.

    Their content is in its place; every block of metadata that it changed is in the journal only.
    """
    debugfs = program("debugfs", "e2fsprogs")
    after = raw.with_suffix(".after")
    shutil.copyfile(raw, after)
    commands = ["cd /var/lib/mysql"] + [f"write {file} {file.name}" for file in added]
    subprocess.run([debugfs, "-w", "-f", "-", str(after)], input="\n".join(commands), text=True, check=True)
    said = "".join(
        subprocess.run(
            [debugfs, "-R", f"blocks /var/lib/mysql/{file.name}", str(after)], capture_output=True, text=True
        ).stdout
        for file in added
    )
    content = set(map(int, said.split()))
    old, new = _blocks(raw), _blocks(after)
    metadata = [n for n in range(len(new)) if old[n] != new[n] and n not in content]
    with raw.open("r+b") as file:
        for n in content:
            file.seek(n * BLOCK)
            file.write(new[n])
    blocks = raw.with_suffix(".blocks")
    blocks.write_bytes(b"".join(new[n] for n in metadata))
    numbers = ",".join(map(str, metadata))
    commands = ["journal_open -c -v 3", f"journal_write -b {numbers} {blocks}", "journal_close"]
    subprocess.run([debugfs, "-w", "-f", "-", str(raw)], input="\n".join(commands), text=True, check=True)
    shown = subprocess.run([program("dumpe2fs", "e2fsprogs"), "-h", str(raw)], capture_output=True, text=True).stdout
    assert "needs_recovery" in shown
    after.unlink()
    blocks.unlink()
    return raw


def _blocks(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]


def partitioned(parts: Sequence[Path], path: Path) -> Path:
    """A disk with a GUID partition table and these partitions, as a stock cloud image has one."""
    start, entries, places = 2048, b"", []
    kind = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4").bytes_le
    for number, part in enumerate(parts):
        sectors = part.stat().st_size // SECTOR
        places.append((start, part))
        last = start + sectors - 1
        name = f"part-{number}".encode("utf-16-le").ljust(72, b"\0")
        entries += struct.pack("<16s16sQQQ72s", kind, uuid.UUID(int=number + 1).bytes_le, start, last, 0, name)
        start = (last // 2048 + 1) * 2048
    entries = entries.ljust(128 * 128, b"\0")
    total = start + 2048
    table = (total - 2048, uuid.UUID(int=99).bytes_le, 2, 128, 128, binascii.crc32(entries))
    fields = (b"EFI PART", 0x10000, 92, 0, 0, 1, total - 1, 34, *table)
    packed = struct.pack("<8sIIIIQQQQ16sQIII", *fields)
    packed = packed[:16] + struct.pack("<I", binascii.crc32(packed)) + packed[20:]
    protective = bytearray(SECTOR)
    protective[446:462] = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, total - 1)
    protective[510:] = b"\x55\xaa"
    with path.open("wb") as file:
        file.truncate(total * SECTOR)
        file.write(bytes(protective) + packed.ljust(SECTOR, b"\0") + entries)
        for where, part in places:
            file.seek(where * SECTOR)
            file.write(part.read_bytes())
    return path


def as_disk(raw: Path, disk: Path, base: Path | None = None) -> Path:
    """A qcow2 of it; over a compressed image of `base`, only what differs."""
    if base is None:
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(disk)], check=True)
        return disk
    image = disk.with_suffix(".image")
    subprocess.run(qcow2_command(base, image), check=True, capture_output=True)
    over = ["-O", "qcow2", "-B", str(image), "-F", "qcow2"]
    subprocess.run(["qemu-img", "convert", "-f", "raw", *over, str(raw), str(disk)], check=True)
    return disk
