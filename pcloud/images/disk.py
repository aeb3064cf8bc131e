"""A tree -> an ext4 file system in a compressed qcow2 file, with no mount and no loop device."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from pcloud.errors import ImageError
from pcloud.images.sandbox import Sandbox

_GIB = 1024**3
# What ext4 itself takes (journal, inode tables, 5 % left free for root), roughly.
_OVERHEAD = 1.15


def write_disk(
    tree: Path, path: Path, *, size_gib: int, identity: str, sandbox: Sandbox, say: Callable[[str], None]
) -> None:
    """The disk image at `path`; `identity` (a hash) becomes the file system's UUID."""
    used = measure(tree)
    if used * _OVERHEAD > size_gib * _GIB:
        raise ImageError(
            f"the system's {used / _GIB:.1f} GiB do not fit a file system of {size_gib} GiB",
            where=f"recipe {sandbox.recipe}",
            next="raise size_gib, or remove more",
        )
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(size_gib * _GIB)
    name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"pcloud:image:{identity}"))
    argv = ["mke2fs", "-q", "-t", "ext4", "-F", "-L", "root", "-U", name, "-m", "1"]
    argv += ["-O", "^orphan_file,^metadata_csum_seed"]  # any Debian's e2fsprogs can check and grow it
    argv += ["-E", f"hash_seed={name},lazy_itable_init=0,lazy_journal_init=1,nodiscard"]
    sandbox.run([*argv, "-d", str(tree), str(raw)], timeout_s=900)
    say("compressing")
    sandbox.run(qcow2_command(raw, path), timeout_s=1800)
    raw.unlink()


def qcow2_command(raw: Path, path: Path) -> list[str]:
    """Compressed with zstd: a third of the size to distribute, and cheap to read (docs/images.md)."""
    compressed = ["-c", "-m", "2", "-W", "-O", "qcow2", "-o", "compression_type=zstd"]
    return ["qemu-img", "convert", "-f", "raw", *compressed, str(raw), str(path)]


def measure(tree: Path) -> int:
    """Bytes that the tree's files take in blocks of 4 KiB, each file once."""
    total = 0
    seen: set[int] = set()
    for folder, names, files in os.walk(tree):
        for name in (*names, *files):
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - a Path per file doubles the time
            if status.st_nlink == 1 or status.st_ino not in seen:
                seen.add(status.st_ino)
                total += (status.st_size + 4095) // 4096 * 4096 + 256
    return total
