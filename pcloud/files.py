"""Files of pcloud's own on this machine: written whole, in folders that are the operator's alone.

Who else may write to such a folder could put a link there, or another wrapper for ssh: a folder
of somebody else, or one that others may change, is refused, and no link is followed on writing.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from pcloud.errors import BadInput


def write_atomically(path: Path, text: str, mode: int) -> None:
    """The whole text, on the disk, under its name at once. Raises `OSError`, and leaves nothing behind then."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, mode)
            file.write(text)
            file.flush()
            os.fsync(fd)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def make_own_folder(path: Path) -> None:
    """The folder, made 0700 with its parents where it is not there. Raises `BadInput` when it is not ours alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.geteuid():
        what = f"belongs to user {status.st_uid}, not to you ({os.geteuid()})"
    elif stat.S_IMODE(status.st_mode) & 0o022:
        what = f"may be changed by others (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        return
    fix = f"chown {os.geteuid()} and chmod 700 it once you know what is in it, or set PCLOUD_HOME to another folder"
    raise BadInput(f"{what}: pcloud's files would not be safe there", where=str(path), next=fix)
