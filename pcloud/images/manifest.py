"""An image as its folder says it is: `manifest.json`, and whether the files agree with it.

A manifest may come from another machine, so it is read as hostile input: wrong types, names
that leave the folder and oversized files are refused by name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError, field_validator

from pcloud.errors import ImageError
from pcloud.model import Frozen
from pcloud.values import Name

MANIFEST = "manifest.json"
FORMAT = 2
DISK, KERNEL, INITRD = "disk.qcow2", "vmlinuz", "initrd.img"

_MAX_MANIFEST = 4 * 1024**2
_CHUNK = 4 * 1024**2

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}$")]
Version = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Content(Frozen):
    """One file of an image: what it must hash to, and its length in bytes."""

    sha256: Digest
    size: Annotated[int, Field(ge=0, le=2**50)]


class Manifest(Frozen):
    """`manifest.json`. `virtual_size` is the disk's size in bytes as a guest sees it."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    """1: made before the kernel's command line was part of the digest."""
    recipe: Name
    recipe_hash: Digest
    suite: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,20}$")]
    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    kernel_version: Version
    cmdline: Annotated[str, StringConstraints(pattern=r"^[ -~]{0,2000}$")]
    virtual_size: Annotated[int, Field(ge=1024**2, le=2**50)]
    build_s: Annotated[float, Field(ge=0)] = 0.0
    files: Annotated[dict[FileName, Content], Field(min_length=1, max_length=20)]
    packages: dict[str, Version]
    pypi: dict[str, Version] = Field(default_factory=dict)

    @field_validator("files")
    @classmethod
    def _complete(cls, files: dict[str, Content]) -> dict[str, Content]:
        # A kernel comes with its initrd; an image with neither boots from its own disk.
        wanted = {DISK, KERNEL, INITRD} if {KERNEL, INITRD} & set(files) else {DISK}
        if missing := wanted - set(files):
            raise ValueError(f"it lists no {', '.join(sorted(missing))}")
        if MANIFEST in files:
            raise ValueError("a manifest cannot list itself")
        return files

    @property
    def digest(self) -> str:
        """The image's name by content: a sha256 over its files' digests and its command line, 64 hex digits."""
        return content_digest(self.files, self.cmdline if self.format > 1 else "")


@dataclass(frozen=True)
class Image:
    """A prepared image: immutable, named by content."""

    recipe: str
    digest: str
    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return folder_name(self.recipe, self.digest)

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    @property
    def kernel(self) -> Path | None:
        """None, as is `initrd`, for an image that boots from its own disk."""
        return self.folder / KERNEL if KERNEL in self.manifest.files else None

    @property
    def initrd(self) -> Path | None:
        return self.folder / INITRD if INITRD in self.manifest.files else None

    @property
    def cmdline(self) -> str:
        return self.manifest.cmdline

    @property
    def size(self) -> int:
        """Bytes to distribute."""
        return sum(content.size for content in self.manifest.files.values())


def folder_name(recipe: str, digest: str) -> str:
    return f"{recipe}-{digest[:12]}"


def content_digest(files: Mapping[str, Content], cmdline: str) -> str:
    lines = [f"{files[name].sha256}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join([*lines, f"cmdline {cmdline}\n" if cmdline else ""]).encode()).hexdigest()


def hash_file(path: Path, tell: Callable[[int], None] = lambda _: None) -> str:
    """sha256 of a file; `tell` gets the number of bytes of each part read."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            whole.update(part)
            tell(len(part))
    return whole.hexdigest()


def describe(path: Path) -> Content:
    return Content(sha256=hash_file(path), size=path.stat().st_size)


def read_manifest(folder: Path) -> Image:
    """The image of a folder, its manifest read and judged; the files are not. Raises `ImageError`."""
    path = folder / MANIFEST
    try:
        if not path.is_file() or path.is_symlink():
            raise _broken(folder, "there is no manifest.json")
        if path.stat().st_size > _MAX_MANIFEST:
            raise _broken(folder, "manifest.json is too large to be one")
        data = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(_printable(str(part)) for part in first["loc"])
        raise _broken(folder, f"manifest.json: {at}: {_printable(first['msg'])}") from None
    except (ValueError, RecursionError) as error:
        raise _broken(folder, f"manifest.json is not JSON: {_printable(str(error))}") from None
    except OSError as error:
        raise _broken(folder, f"manifest.json cannot be read: {error.strerror}") from None
    image = Image(manifest.recipe, manifest.digest, folder, manifest)
    if folder.name != image.name and not folder.name.startswith("."):
        raise _broken(folder, f"its files are those of {image.name}, not of {_printable(folder.name)}")
    return image


def find_fault(image: Image) -> str | None:
    """What a quick look (names and sizes) finds wrong, or None."""
    for name, content in sorted(image.manifest.files.items()):
        path = image.folder / name
        if path.is_symlink() or not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size < content.size:
            return f"{name} is truncated: {size} of {content.size} bytes"
        if size > content.size:
            return f"{name} has {size} bytes instead of {content.size}"
    return None


def verify(image: Image, tell: Callable[[int], None] = lambda _: None) -> None:
    """Compare every file with the manifest, bit for bit. Raises `ImageError` naming the file and why."""
    if fault := find_fault(image):
        raise _broken(image.folder, fault, imported=image.kernel is None)
    for name, content in sorted(image.manifest.files.items()):
        try:
            digest = hash_file(image.folder / name, tell)
        except OSError as error:
            raise _broken(
                image.folder, f"{name} cannot be read: {error.strerror}", imported=image.kernel is None
            ) from None
        if digest != content.sha256:
            what = f"{name} is corrupt: its sha256 is {digest[:12]}…, not {content.sha256[:12]}…"
            raise _broken(image.folder, what, imported=image.kernel is None)


def _broken(folder: Path, what: str, *, imported: bool = False) -> ImageError:
    recipe = re.sub(r"-[0-9a-f]{12}$", "", folder.name)
    known = re.fullmatch(r"[a-z0-9][a-z0-9-]*", recipe)
    build = f"pcloud image build {recipe} --force" if known else "pcloud image build"
    if imported:
        build = f"pcloud image import FILE --name {recipe}"
    return ImageError(
        what, where=f"image {_printable(folder.name)}", next=f"it will not be used; make it again: {build}"
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
