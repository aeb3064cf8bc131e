"""Recipes, sources, the initrd, manifests and the store: everything that needs no network."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pcloud.cli.session import refuse_small_disks
from pcloud.errors import BadDocument, BadInput, DeadlineExceeded, ImageError
from pcloud.images import boot, find_broken, find_image, find_leaves, find_recipes, list_images, store, tree, verify
from pcloud.images.manifest import (
    DISK,
    INITRD,
    KERNEL,
    MANIFEST,
    Image,
    Manifest,
    content_digest,
    describe,
    read_manifest,
)
from pcloud.images.recipe import Chain, load_recipe
from pcloud.images.sandbox import Interrupted, Sandbox
from pcloud.images.sources import find_sources
from pcloud.images.tree import pip_environment
from pcloud.inventory import defaults_dir, find_inventory, load_inventory

BASE = "recipe: base\nsuite: bookworm\nkernel: {init: init, modules: [virtio_blk], cmdline: quiet}\n"


def write(folder: Path, **recipes: str) -> Path:
    (folder / "init").write_text("#!/bin/busybox sh\n")
    for name, text in recipes.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


# -- recipes


def test_a_chain_adds_up_its_layers(tmp_path: Path) -> None:
    write(
        tmp_path, base=BASE, middle="recipe: middle\nbase: base\nsize_gib: 3\nkernel: {cmdline: a=b}\nmask: [x.timer]\n"
    )
    write(tmp_path, top="recipe: top\nbase: middle\nkernel: {modules: [overlay, virtio_blk]}\nmask: [y.service]\n")
    chain = load_recipe(tmp_path / "top.yaml")
    assert [layer.recipe.recipe for layer in chain.layers] == ["base", "middle", "top"]
    assert (chain.suite, chain.size_gib, chain.cmdline) == ("bookworm", 3, "quiet a=b")
    assert chain.modules == ("virtio_blk", "overlay")
    assert chain.masked == ("x.timer", "y.service")
    assert list(find_leaves(find_recipes(tmp_path))) == ["top"]


def _digest(folder: Path, name: str = "top") -> str:
    return load_recipe(folder / f"{name}.yaml").digest


def _edit(path: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).write_text(text)


@pytest.mark.parametrize(
    "change",
    [
        _edit("base.yaml", BASE + "packages: [nano]\n"),
        _edit("top.yaml", "recipe: top\nbase: base\nfiles: [{path: /opt/src, source: src}]\nsize_gib: 3\n"),
        _edit("src/sub/a", "another"),
        _edit("src/new", ""),
        _edit("init", "#!/bin/busybox sh\necho\n"),
        lambda folder: (folder / "src/sub/a").chmod(0o755),
        lambda folder: (folder / "src/sub/a").rename(folder / "src/sub/b"),
        lambda folder: (folder / "src/link").symlink_to("sub/a"),
    ],
)
def test_whatever_ends_up_in_the_image_changes_the_hash(tmp_path: Path, change: Callable[[Path], object]) -> None:
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/sub/a").write_text("one")
    write(tmp_path, base=BASE, top="recipe: top\nbase: base\nfiles: [{path: /opt/src, source: src}]\n")
    before = _digest(tmp_path)
    assert _digest(tmp_path) == before
    (tmp_path / "src/__pycache__").mkdir()
    (tmp_path / "src/__pycache__/x.pyc").write_bytes(b"")
    assert _digest(tmp_path) == before, "what is left out of the image is left out of its hash"
    change(tmp_path)
    assert _digest(tmp_path) != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe: other\nsuite: bookworm\n", "calls itself other"),
        ("recipe: top\n", "names a suite"),
        ("recipe: top\nsuite: bookworm\n", "initrd's script"),
        ("recipe: top\nbase: top\n", "circle: top -> top"),
        ("recipe: top\nbase: nowhere\n", "no such file"),
        ("recipe: top\nbase: base\nfiles: [{path: /x, source: gone}]\n", "beside the recipe"),
        ("recipe: top\nbase: base\nfiles: [{path: /x}]\n", "content, source or link"),
        ("recipe: top\nbase: base\nfiles: [{path: /x, content: a, link: b}]\n", "content, source or link"),
        ("recipe: top\nbase: base\nfiles: [{path: /etc/../x, content: a}]\n", "must not contain"),
        ("recipe: top\nbase: base\nfiles: [{path: x, content: a}]\n", "top.yaml:3: files"),
        ("recipe: top\nbase: base\nfiles: [{path: /x, content: a, mode: 0644}]\n", "0644"),
        ("recipe: top\nbase: base\npackages: [--yes]\n", "packages"),
        ("recipe: top\nbase: base\npackages: ['a,b']\n", "packages"),
        ("recipe: top\nbase: base\npypi: {target: /opt/x, packages: [--index-url=http://x]}\n", "pypi"),
        ("recipe: top\nbase: base\nmirror: http://x\n", "mirror"),
        ("recipe: top\nbase: base\ncommands: [rm -rf /]\n", "commands"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, base=BASE, top=text)
    with pytest.raises((BadInput, BadDocument)) as caught:
        load_recipe(tmp_path / "top.yaml")
    assert words in str(caught.value)


def test_the_shipped_recipes_are_four_roles_on_one_base() -> None:
    recipes = find_recipes(defaults_dir("templates") / "images")
    assert list(find_leaves(recipes)) == ["balancer", "database", "frontend", "indexer"]
    for path in recipes.values():
        assert load_recipe(path).layers[0].recipe.recipe == "base"
        assert "://" not in path.read_text(), "a recipe names no mirror"


# -- the machine's package sources


def sources(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / "sources.list.d").mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    return find_sources("bookworm", tmp_path)


def test_one_line_sources_become_stanzas(tmp_path: Path) -> None:
    found = sources(
        tmp_path,
        "sources.list",
        "# deb http://no.example bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm main contrib # here\n"
        "deb-src http://a.example/debian bookworm main\n"
        "deb http://a.example/security bookworm-security main\n"
        "deb http://a.example/debian trixie main\n"
        "deb https://third.example/linux bookworm stable\n",
    )
    assert found.count("Types: deb\n") == 2
    assert "URIs: http://a.example/debian\nSuites: bookworm\nComponents: main\nArchitectures: amd64\n" in found
    assert "Signed-By: /k.gpg" in found
    assert "third.example" not in found
    assert "no.example" not in found


def test_deb822_sources_keep_their_key(tmp_path: Path) -> None:
    found = sources(
        tmp_path,
        "sources.list.d/debian.sources",
        "Types: deb deb-src\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates bookworm-backports\n"
        "# a remark\nComponents: main non-free\nSigned-By:\n -----BEGIN PGP-----\n .\n xyz\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb\nURIs: http://node.example\nSuites: nodistro\nComponents: main\n",
    )
    assert "Suites: bookworm bookworm-updates\n" in found
    assert "Signed-By:\n -----BEGIN PGP-----\n .\n xyz" in found
    assert "off.example" not in found
    assert "node.example" not in found


def test_a_machine_without_the_suite_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no package source for Debian bookworm"):
        sources(tmp_path, "sources.list", "deb http://a.example/debian sid main\n")


# -- the initrd


def kernel_tree(root: Path) -> Path:
    modules = root / "lib/modules/6.1"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(
        "kernel/virtio-pci.ko: kernel/ring.ko kernel/virtio.ko\nkernel/virtio.ko: kernel/ring.ko\nkernel/ring.ko:\n"
    )
    (modules / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (modules / "kernel").mkdir()
    for name in ("virtio-pci", "virtio", "ring"):
        signature = b"S" * 50 + bytes(8) + (50).to_bytes(4, "big") + b"~Module signature appended~\n"
        (modules / f"kernel/{name}.ko").write_bytes(b"\x7fELF" + name.encode() + signature)
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-6.1").write_bytes(b"kernel")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/busybox").write_bytes(b"busybox")
    return root


def test_modules_come_after_what_they_need_and_built_in_ones_are_left_out(tmp_path: Path) -> None:
    modules = kernel_tree(tmp_path) / "lib/modules/6.1"
    found = [path.name for path in boot.order_modules(modules, ("virtio_pci", "ext4"))]
    assert found == ["ring.ko", "virtio.ko", "virtio-pci.ko"]
    with pytest.raises(ImageError, match="no module nothing"):
        boot.order_modules(modules, ("nothing",))


def test_the_initrd_is_what_cpio_reads_and_the_same_each_time(tmp_path: Path) -> None:
    root = kernel_tree(tmp_path / "tree")
    init = tmp_path / "init"
    init.write_text("#!/bin/busybox sh\n")
    boot.write_initrd(root, init, ("virtio_pci",), tmp_path / "one")
    boot.write_initrd(root, init, ("virtio_pci",), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    argv = ["cpio", "--extract", "--quiet", "--make-directories", "--no-preserve-owner", f"--file={tmp_path / 'one'}"]
    subprocess.run([*argv, "bin/*", "init", "modules/*"], cwd=out, check=True, timeout=30)
    assert sorted(p.name for p in (out / "modules").iterdir()) == ["00-ring.ko", "01-virtio.ko", "02-virtio-pci.ko"]
    assert (out / "modules/00-ring.ko").read_bytes() == b"\x7fELFring", "the signature is cut off"
    assert stat.S_IMODE((out / "init").stat().st_mode) == 0o755


def test_an_image_has_one_kernel(tmp_path: Path) -> None:
    root = kernel_tree(tmp_path)
    (root / "boot/vmlinuz-6.2").write_bytes(b"")
    with pytest.raises(ImageError, match=r"2 kernels \(6.1, 6.2\)"):
        boot.find_kernel(root)


# -- the tree: nothing may reach this machine's own files


def _chain(tmp_path: Path, text: str) -> Chain:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    return load_recipe(write(recipes, base=BASE + text) / "base.yaml")


def _a_tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return root


def test_remove_and_mask_stay_inside_the_tree(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_text("x")
    root = _a_tree(tmp_path)
    (root / "run").symlink_to(mine)
    (root / "usr").mkdir()
    (root / "usr/.hidden").write_text("")
    tree.finish(_chain(tmp_path, "remove: [/usr/*, /nowhere/*]\nmask: [a.timer]\n"), root)
    assert not (root / "usr/.hidden").exists()
    assert (root / "etc/systemd/system/a.timer").readlink() == Path("/dev/null")
    shutil.rmtree(tmp_path / "recipes")
    with pytest.raises(ImageError, match="/run/precious leads out of the image"):
        tree.finish(_chain(tmp_path, "remove: [/run/*]\n"), root)
    assert (mine / "precious").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root")
def test_a_file_is_never_written_through_a_link_that_leaves_the_tree(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    root = _a_tree(tmp_path)
    (root / "run").symlink_to(mine)
    sandbox = Sandbox("base", tmp_path / "log")
    chain = _chain(tmp_path, "files: [{path: /etc/a, content: hello, mode: '0600'}, {path: /run/x/y, content: a}]\n")
    with pytest.raises(ImageError, match="/run/x/y leads out"):
        tree.add_layer(chain.layers[0], root, tmp_path / "cache", sandbox, lambda _: None)
    assert list(mine.iterdir()) == []
    assert (root / "etc/a").read_text() == "hello"
    assert stat.S_IMODE((root / "etc/a").stat().st_mode) == 0o600


# -- programs


@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_a_program_that_fails_shows_its_last_lines(tmp_path: Path) -> None:
    sandbox = Sandbox("frontend", tmp_path / "log")
    with pytest.raises(ImageError) as caught:
        sandbox.run(["sh", "-c", "echo it went wrong here; exit 3"])
    assert "recipe frontend" in str(caught.value)
    assert "ended with 3" in str(caught.value)
    assert "it went wrong here" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_a_program_that_hangs_or_is_not_wanted_any_more_is_ended(tmp_path: Path) -> None:
    stop = threading.Event()
    sandbox = Sandbox("frontend", tmp_path / "log", stop)
    with pytest.raises(DeadlineExceeded):
        sandbox.run(["sh", "-c", "sleep 60 & sleep 60"], timeout_s=0.3)
    stop.set()
    with pytest.raises(Interrupted):
        sandbox.run(["sleep", "60"])


def test_pip_sees_no_secret() -> None:
    ours = {"PCLOUD_SECRET_DB_SHOP": "hunter2", "PIP_INDEX_URL": "http://x", "PIP_USER": "1", "PATH": "/bin"}
    assert set(pip_environment(ours)) == {
        "PIP_INDEX_URL",
        "PATH",
        "PIP_ROOT_USER_ACTION",
        "PIP_DISABLE_PIP_VERSION_CHECK",
    }


# -- manifests and the store


def make_image(
    folder: Path, recipe: str = "frontend", *, date: str = "2025-01-02T03:04:05Z", text: bytes = b"disk"
) -> Image:
    with store.locked(recipe, folder):
        building = store.begin_building(recipe, folder)
        for name, content in ((DISK, text), (KERNEL, b"kernel"), (INITRD, b"initrd")):
            (building / name).write_bytes(content)
        manifest = Manifest(
            recipe=recipe,
            recipe_hash="0" * 64,
            suite="bookworm",
            date=date,
            kernel_version="6.1",
            cmdline="quiet",
            virtual_size=1024**3,
            files={name: describe(building / name) for name in (DISK, KERNEL, INITRD)},
            packages={"nginx": "1.22"},
        )
        (building / MANIFEST).write_text(manifest.model_dump_json())
        return store.publish(building, manifest, folder)


def test_the_kernels_command_line_is_part_of_an_image(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    path = image.folder / MANIFEST
    path.write_text(path.read_text().replace('"cmdline":"quiet"', '"cmdline":"quiet init=/bin/sh"'))
    with pytest.raises(ImageError, match="its files are those of"):
        read_manifest(image.folder)


def test_an_image_from_before_keeps_its_name(tmp_path: Path) -> None:
    """Else an upgrade would make every server anew: its digest stands in the mark of each."""
    image = make_image(tmp_path)
    before = image.manifest.model_copy(update={"format": 1})
    assert before.digest == content_digest(before.files, "")
    assert before.digest != image.digest
    folder = image.folder.rename(tmp_path / f"frontend-{before.digest[:12]}")
    (folder / MANIFEST).write_text(before.model_dump_json())
    assert read_manifest(folder).digest == before.digest


def test_an_image_is_found_by_recipe_digest_and_name(tmp_path: Path) -> None:
    old = make_image(tmp_path, text=b"old", date="2025-01-01T00:00:00Z")
    new = make_image(tmp_path, text=b"new", date="2025-02-01T00:00:00Z")
    other = make_image(tmp_path, "indexer")
    assert find_image("frontend", tmp_path) == new
    assert find_image(old.digest[:12], tmp_path) == old
    assert find_image(old.name, tmp_path) == old
    assert find_image(old.digest[:8], tmp_path) is None
    assert find_image("nothing", tmp_path) is None
    assert list_images(tmp_path) == [old, new, other]
    verify(old)


def test_a_disk_smaller_than_its_image_is_refused_with_the_line(tmp_path: Path) -> None:
    inventory = load_inventory(find_inventory("demo"))
    small = make_image(tmp_path, "small")
    big = replace(small, manifest=small.manifest.model_copy(update={"virtual_size": 5 * 1024**3 + 1}))
    images = {name: big if name == "frontend" else small for name in inventory.site.images}
    with pytest.raises(BadDocument) as caught:
        refuse_small_disks(inventory, images)
    line = 1 + inventory.path.read_text().splitlines().index("    disk_gib: 4")
    assert str(caught.value).endswith("holds a disk of 6 GiB; write disk_gib: 6 or more")
    assert f"demo.yaml:{line}: groups[2].disk_gib: " in str(caught.value)
    refuse_small_disks(inventory, dict.fromkeys(images, small))


def test_equal_content_is_one_image_and_repairs_a_damaged_one(tmp_path: Path) -> None:
    first = make_image(tmp_path)
    first.disk.write_bytes(b"dusk")
    again = make_image(tmp_path)
    assert again == first
    verify(again)
    assert [p.name for p in tmp_path.glob("[!.]*")] == [first.name]


def _cut(image: Image) -> None:
    image.disk.write_bytes(b"dis")


def _flip(image: Image) -> None:
    image.disk.write_bytes(b"disc")


def _link(image: Image) -> None:
    image.disk.rename(image.folder.parent / "away")
    image.disk.symlink_to(image.folder.parent / "away")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda image: image.disk.unlink(), "disk.qcow2 is missing"),
        (_link, "disk.qcow2 is missing"),
        (_cut, "disk.qcow2 is truncated: 3 of 4 bytes"),
        (lambda image: image.disk.write_bytes(b"disks"), "5 bytes instead of 4"),
        (_flip, "disk.qcow2 is corrupt: its sha256 is"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Image], object], words: str) -> None:
    image = make_image(tmp_path)
    damage(image)
    with pytest.raises(ImageError) as caught:
        verify(image)
    assert words in str(caught.value)
    assert image.name in str(caught.value)
    assert "pcloud image build frontend --force" in str(caught.value)


def _set(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda data: json.dumps({**data, **changes})


def _content(name: str) -> dict[str, Any]:
    return {name: {"sha256": "0" * 64, "size": 1}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lambda _: "", "not JSON"),
        (lambda _: "[" * 100_000, "not JSON"),
        (lambda _: "[]", "manifest.json"),
        (lambda _: '{"recipe": "\\ud800"}', "manifest.json"),
        (lambda _: "\xff", "manifest.json"),
        (_set(recipe="../etc"), "recipe"),
        (_set(files={}), "files"),
        (_set(files=_content(DISK) | _content(KERNEL)), "lists no initrd.img"),
        (_set(files={"../../etc/passwd": {"sha256": "0" * 64, "size": 1}}), "files"),
        (_set(files={"/etc/passwd": {"sha256": "0" * 64, "size": 1}}), "files"),
        (_set(files={"disk.qcow2": {"sha256": "0" * 64, "size": "4"}}), "files"),
        (_set(files={"disk.qcow2": {"sha256": "zz", "size": 4}}), "files"),
        (_set(cmdline="a\nb"), "cmdline"),
        (_set(surprise=1), "surprise"),
        (_set(virtual_size=True), "virtual_size"),
        (_set(recipe="indexer"), "its files are those of indexer-"),
    ],
)
def test_a_hostile_manifest_is_refused(tmp_path: Path, text: Callable[[dict[str, Any]], str], words: str) -> None:
    image = make_image(tmp_path)
    path = image.folder / MANIFEST
    path.write_bytes(text(json.loads(path.read_text())).encode("latin-1", "replace"))
    with pytest.raises(ImageError) as caught:
        read_manifest(image.folder)
    assert words in str(caught.value)
    assert list_images(tmp_path) == []
    assert [type(error) for error in find_broken(tmp_path)] == [ImageError]


def test_a_renamed_folder_and_one_without_manifest_are_no_images(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    image.folder.rename(tmp_path / "frontend-000000000000")
    with pytest.raises(ImageError, match="its files are those of frontend-"):
        read_manifest(tmp_path / "frontend-000000000000")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no manifest"):
        read_manifest(tmp_path / "empty")


def test_what_a_killed_build_left_is_swept_and_a_running_one_is_not(tmp_path: Path) -> None:
    dead = store.begin_building("frontend", tmp_path)
    (dead / DISK).write_bytes(b"half")
    with store.locked("indexer", tmp_path):
        alive = store.begin_building("indexer", tmp_path)
        store.sweep(tmp_path)
        assert not dead.exists()
        assert alive.exists()
        assert list_images(tmp_path) == []
    underlined = tmp_path / ".building-indexer-a_b_c_d1"  # as the library may name it
    underlined.mkdir()
    again = store.begin_building("indexer", tmp_path)
    assert not alive.exists()
    assert not underlined.exists()
    assert again.exists()


def test_one_build_of_a_recipe_at_a_time(tmp_path: Path) -> None:
    with store.locked("frontend", tmp_path):
        with (
            pytest.raises(DeadlineExceeded, match="recipe frontend"),
            store.locked("frontend", tmp_path, timeout_s=0.3),
        ):
            pass
        with store.locked("indexer", tmp_path, timeout_s=0.3):
            pass
    with store.locked("frontend", tmp_path, timeout_s=0.3):
        pass
