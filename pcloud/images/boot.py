"""The kernel and our own small initrd: busybox, a few modules and one script.

initramfs-tools would put 15 MB, udev and a few hundred processes before the system; this
one mounts the root, unpacks the seed into it and hands over.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pcloud.errors import ImageError

_SIGNATURE = b"~Module signature appended~\n"


def find_kernel(tree: Path) -> str:
    """The version of the tree's one kernel. Raises `ImageError` for none or several."""
    versions = [path.name.removeprefix("vmlinuz-") for path in sorted((tree / "boot").glob("vmlinuz-*"))]
    if len(versions) != 1:
        what = f"the image has {len(versions)} kernels ({', '.join(versions) or 'none'}); it must have one"
        raise ImageError(what, next="name one kernel package in the recipe or its base")
    return versions[0]


def write_kernel(tree: Path, path: Path) -> None:
    shutil.copyfile(tree / f"boot/vmlinuz-{find_kernel(tree)}", path)


def write_initrd(tree: Path, init: Path, modules: tuple[str, ...], path: Path) -> None:
    """A cpio archive (newc) with the same bytes for the same content."""
    busybox = tree / "usr/bin/busybox"
    if not busybox.is_file():
        raise ImageError("the image has no /bin/busybox for its initrd", next="add busybox-static to its packages")
    archive = Cpio()
    for folder in ("bin", "dev", "modules", "proc", "root", "seed", "sys"):
        archive.add_folder(folder)
    archive.add_device("dev/console", 5, 1)
    archive.add_file("bin/busybox", busybox.read_bytes(), 0o755)
    archive.add_file("init", init.read_bytes(), 0o755)
    for number, module in enumerate(order_modules(tree / "lib/modules" / find_kernel(tree), modules)):
        # The signature is cut off: checking one costs an emulated guest more than loading the module.
        content = _without_signature(module.read_bytes())
        archive.add_file(f"modules/{number:02}-{module.name}", content, 0o644)
    path.write_bytes(archive.finish())


def order_modules(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Module files with what they depend on before them; what is built in is left out."""
    depends: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        file, _, needs = line.partition(":")
        depends[_module_name(file)] = (folder / file, tuple(_module_name(n) for n in needs.split()))
    built_in = {_module_name(line) for line in (folder / "modules.builtin").read_text().splitlines()}

    def walk(name: str) -> Iterator[Path]:
        if name in built_in:
            return
        if name not in depends:
            raise ImageError(f"the kernel {folder.name} has no module {name}", next="correct kernel.modules")
        file, needs = depends[name]
        for need in needs:
            yield from walk(need)
        yield file

    return list(dict.fromkeys(file for name in names for file in walk(name.replace("-", "_"))))


class Cpio:
    """Writes the `newc` format that the kernel unpacks (its Documentation: buffer-format)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._number = 0

    def add_folder(self, name: str) -> None:
        self._add(name, 0o040755, b"")

    def add_file(self, name: str, content: bytes, mode: int) -> None:
        self._add(name, 0o100000 | mode, content)

    def add_device(self, name: str, major: int, minor: int) -> None:
        self._add(name, 0o020600, b"", major, minor)

    def finish(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, content: bytes, major: int = 0, minor: int = 0) -> None:
        self._number += 1
        encoded = name.encode() + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % value for value in fields) + encoded
        self._parts += [_padded(head), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _module_name(file: str) -> str:
    return file.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _without_signature(module: bytes) -> bytes:
    """The module without the trailer that the kernel's build appended (`struct module_signature`)."""
    if not module.endswith(_SIGNATURE):
        return module
    end = len(module) - len(_SIGNATURE)
    return module[: end - 12 - int.from_bytes(module[end - 4 : end], "big")]
