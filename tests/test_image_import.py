"""Importing a disk image: what is taken, and every way in which a file is refused."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pcloud.cli.session import image_spec
from pcloud.errors import BadInput, ImageError
from pcloud.images import find_image, list_images, read_manifest, verify
from pcloud.images.imported import import_image
from pcloud.images.manifest import DISK, Content, Manifest

MIB = 1024**2


def qemu_img(*argv: str) -> None:
    subprocess.run(["qemu-img", *argv], check=True, capture_output=True, timeout=60)


def raw_disk(path: Path, *, boots: bool = True, size: int = 8 * MIB) -> Path:
    """A disk with a boot record and some data."""
    with path.open("wb") as file:
        file.truncate(size)
        file.write(b"\xeb\x63\x90" + bytes(507) + b"\x55\xaa" if boots else b"")
        file.seek(size // 2)
        file.write(os.urandom(4096))
    return path


def qcow2(path: Path, *options: str, boots: bool = True) -> Path:
    raw = raw_disk(path.with_suffix(".source"), boots=boots)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path))
    raw.unlink()
    return path


def patched(path: Path, at: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "images"


def left_overs(store: Path) -> list[str]:
    return [p.name for p in store.glob(".*") if not p.name.startswith(".lock-")] if store.exists() else []


def test_a_raw_disk_becomes_a_compressed_image_with_the_same_content(tmp_path: Path, store: Path) -> None:
    disk = raw_disk(tmp_path / "My Cloud_12.img", size=64 * MIB)
    said: list[str] = []
    image = import_image(disk, images_dir=store, say=said.append)
    assert (image.recipe, image.kernel, image.initrd, image.cmdline) == ("my-cloud-12", None, None, "")
    assert image.manifest.virtual_size == 64 * MIB
    assert image.disk.stat().st_size < MIB
    qemu_img("compare", "-f", "raw", "-F", "qcow2", str(disk), str(image.disk))
    verify(image)
    assert [i.digest for i in list_images(store)] == [image.digest]
    assert find_image(image.digest[:12], store) == image
    assert said == ["compressing", "checking", "digests"]
    assert left_overs(store) == []
    spec = image_spec("mine", image)
    assert spec.kernel is None and spec.initrd is None and [f.name for f in spec.files] == [DISK]


def test_a_qcow2_image_stays_as_it_is(tmp_path: Path, store: Path) -> None:
    disk = qcow2(tmp_path / "d.qcow2", "-c")
    image = import_image(disk, name="stock", images_dir=store)
    assert image.disk.read_bytes() == disk.read_bytes()
    assert image.folder.stat().st_mode & 0o777 == 0o755


def test_the_same_file_twice_is_one_image(tmp_path: Path, store: Path) -> None:
    disk = qcow2(tmp_path / "d.qcow2")
    first = import_image(disk, name="stock", images_dir=store)
    inode = first.disk.stat().st_ino
    again = import_image(disk, name="stock", images_dir=store)
    assert again.digest == first.digest and again.disk.stat().st_ino == inode
    first.disk.write_bytes(b"damaged")
    import_image(disk, name="stock", images_dir=store)
    verify(read_manifest(first.folder))


Make = Callable[[Path], Path]


def _with_backing(path: Path) -> Path:
    base = qcow2(path.with_name("base.qcow2"))
    qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(path))
    return path


def _with_secret_backing(path: Path) -> Path:
    """What an attacker would send: an honest image whose header is made to name a file of the host."""
    name = b"/etc/shadow"
    patched(qcow2(path), 8, struct.pack(">QI", 0x200, len(name)))
    return patched(path, 0x200, name)


def _with_data_file(path: Path) -> Path:
    data = path.with_name("data.raw")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}", str(path), "8M")
    return path


def _with_snapshot(path: Path) -> Path:
    qcow2(path)
    qemu_img("snapshot", "-c", "before", str(path))
    return path


def _encrypted(path: Path) -> Path:
    return patched(qcow2(path), 32, struct.pack(">I", 2))


def _other(form: str) -> Make:
    def make(path: Path) -> Path:
        raw = raw_disk(path.with_suffix(".source"))
        qemu_img("convert", "-f", "raw", "-O", form, str(raw), str(path))
        return path

    return make


def _bytes(data: bytes, size: int = MIB) -> Make:
    def make(path: Path) -> Path:
        path.write_bytes(data.ljust(size, b"\0"))
        return path

    return make


def _corrupt(path: Path) -> Path:
    """Its table of clusters leads far out of the file."""
    head = qcow2(path).read_bytes()[:104]
    (table,) = struct.unpack_from(">Q", head, 40)
    return patched(path, table, struct.pack(">Q", 1 << 63 | 1 << 40))


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


CASES: dict[str, tuple[Make, str]] = {
    "backing file": (_with_backing, "it has a backing file: it is only the difference to another image"),
    "foreign backing file": (_with_secret_backing, "it has a backing file"),
    "external data file": (_with_data_file, "its data are in another file"),
    "snapshots": (_with_snapshot, "it holds 1 internal snapshots, which may hold secrets"),
    "encrypted": (_encrypted, "it is encrypted"),
    "vmdk": (_other("vmdk"), "it is a VMDK file; only qcow2 and raw disks can be imported"),
    "vdi": (_other("vdi"), "it is a VDI file"),
    "vhd": (_other("vpc"), "it is a VHD file"),
    "vhdx": (_other("vhdx"), "it is a VHDX file"),
    "qed": (_other("qed"), "it is a QED file"),
    "vmdk descriptor": (_bytes(b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0'), "it is a VMDK descriptor file"),
    "gzip": (_bytes(b"\x1f\x8b\x08"), "it is a gzip-compressed file"),
    "xz": (_bytes(b"\xfd7zXZ\0"), "it is a xz-compressed file"),
    "tar": (_bytes(bytes(257) + b"ustar"), "it is a tar file"),
    "iso": (_bytes(bytes(0x8001) + b"CD001"), "it is a ISO 9660 (a CD or an installer) file"),
    "luks": (_bytes(b"LUKS\xba\xbe"), "it is a LUKS-encrypted file"),
    "absurd size": (
        lambda p: patched(qcow2(p), 24, struct.pack(">Q", 1 << 55)),
        "its disk has 36028797018963968 bytes",
    ),
    "no size": (lambda p: patched(qcow2(p), 24, bytes(8)), "its disk has 0 bytes; 1 MiB to 4 TiB can be"),
    "sparse giant": (lambda p: raw_disk(p, size=5 * 1024**4), "its disk has 5497558138880 bytes"),
    "version 9": (lambda p: patched(qcow2(p), 4, struct.pack(">I", 9)), "its qcow2 header makes no sense (version 9)"),
    "unknown feature": (lambda p: patched(qcow2(p), 72, struct.pack(">Q", 1 << 40)), "it uses qcow2 features"),
    "cut header": (_bytes(b"QFI\xfb\0\0\0\3", 8), "it is too small for a disk"),
    "corrupt": (_corrupt, "qemu-img check refuses it"),
    "empty": (_bytes(b"", 0), "it is too small for a disk"),
    "raw without boot record": (lambda p: raw_disk(p, boots=False), "its first sector holds no boot loader for BIOS"),
    "qcow2 without boot record": (lambda p: qcow2(p, boots=False), "its first sector holds no boot loader for BIOS"),
    "fifo": (_fifo, "it is no regular file"),
    "folder": (_folder, "it is no regular file"),
    "missing": (lambda p: p, "it cannot be read: No such file or directory"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, tmp_path: Path, store: Path) -> None:
    make, what = CASES[case]
    try:
        file = make(tmp_path / "given.img")
    except OSError as error:
        pytest.fail(f"this machine cannot make the case: {error}")
    with pytest.raises(BadInput) as caught:
        import_image(file, name="stock", images_dir=store)
    assert what in caught.value.what
    assert caught.value.next and caught.value.where == str(file)
    assert list_images(store) == [] and left_overs(store) == []


@pytest.mark.parametrize("name", ["Stock", "../x", "-x", "x" * 32, "a b", "x/y"])
def test_names_that_are_none(name: str, tmp_path: Path, store: Path) -> None:
    with pytest.raises(BadInput, match="is no name for an image"):
        import_image(qcow2(tmp_path / "d.qcow2"), name=name, images_dir=store)


def test_an_import_never_takes_the_name_of_a_built_image(tmp_path: Path, store: Path) -> None:
    """`recipe: frontend` would mean the imported one, only because it is newer."""
    files = {n: Content(sha256="a" * 64, size=1) for n in (DISK, "vmlinuz", "initrd.img")}
    manifest = Manifest(
        recipe="frontend",
        recipe_hash="b" * 64,
        suite="bookworm",
        date="2012-11-16T21:40:00Z",
        kernel_version="6.1",
        cmdline="",
        virtual_size=MIB,
        files=files,
        packages={},
    )
    folder = store / f"frontend-{manifest.digest[:12]}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(BadInput, match="frontend is the name of an image that was built"):
        import_image(qcow2(tmp_path / "d.qcow2"), name="frontend", images_dir=store)


def test_a_kernel_without_its_initrd_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it lists no initrd\.img"):
        Manifest(
            recipe="x",
            recipe_hash="b" * 64,
            suite="bookworm",
            date="2012-11-16T21:40:00Z",
            kernel_version="6.1",
            cmdline="",
            virtual_size=MIB,
            files={n: Content(sha256="a" * 64, size=1) for n in (DISK, "vmlinuz")},
            packages={},
        )


def test_a_damaged_import_says_how_to_get_it_again(tmp_path: Path, store: Path) -> None:
    image = import_image(qcow2(tmp_path / "d.qcow2"), name="stock", images_dir=store)
    patched(image.disk, 4096, b"x")
    with pytest.raises(ImageError, match="is corrupt") as caught:
        verify(image)
    assert "pcloud image import FILE --name stock" in caught.value.next
