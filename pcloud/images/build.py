"""Building: locks, the cache by recipe hash, trees shared between recipes, several at once."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pcloud import places
from pcloud.errors import ImageError
from pcloud.images import boot, disk, store, tree
from pcloud.images.manifest import DISK, INITRD, KERNEL, MANIFEST, Image, Manifest, describe
from pcloud.images.recipe import Chain, load_recipe
from pcloud.images.sandbox import Sandbox

MEMORY_PER_BUILD = 1024**3
TREES, APT, LOGS = ".trees", ".apt", ".logs"

_PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "unshare": "util-linux",
    "apt-get": "apt",
}


@dataclass(frozen=True)
class Progress:
    """What a build is doing now. `done`: its image is there; `cached`: nothing had to be made."""

    recipe: str
    doing: str
    elapsed_s: float
    done: bool = False
    cached: bool = False


Tell = Callable[[Progress], None]


def build(
    recipe_path: Path,
    *,
    images_dir: Path | None = None,
    progress: Tell = lambda _: None,
    force: bool = False,
) -> Image:
    """The image of one recipe, made or found. Raises `ImageError`, `BadInput`, `DeadlineExceeded`.

    `force` makes it again from today's packages, bases included.
    """
    return build_all([recipe_path], images_dir=images_dir, progress=progress, force=force)[0]


def build_all(
    recipe_paths: Iterable[Path],
    *,
    images_dir: Path | None = None,
    progress: Tell = lambda _: None,
    force: bool = False,
    jobs: int | None = None,
) -> list[Image]:
    """The images of several recipes, in their order; as many at once as CPUs and memory allow.

    The first failure stops the others and is raised; so does Ctrl-C.
    """
    chains = [load_recipe(path) for path in recipe_paths]
    folder = images_dir or places.images_dir()
    store.sweep(folder)
    stop = threading.Event()
    oldest = time.time() if force else 0.0
    with ThreadPoolExecutor(jobs or _jobs(len(chains)), thread_name_prefix="image") as pool:
        try:
            builds = [pool.submit(_Build(chain, folder, progress, stop, oldest).image) for chain in chains]
            wait(builds, return_when=FIRST_EXCEPTION)
            for ended in builds:
                if ended.done() and ended.exception() is not None:
                    ended.result()
            return [ended.result() for ended in builds]
        except BaseException:
            stop.set()
            for waiting in builds:
                waiting.cancel()
            raise


@dataclass(frozen=True)
class _Build:
    """One recipe's build. Images and trees made before `oldest` (epoch seconds) do not count."""

    chain: Chain
    folder: Path
    progress: Tell
    stop: threading.Event
    oldest: float

    def image(self) -> Image:
        start = time.monotonic()

        def say(doing: str, *, done: bool = False, cached: bool = False) -> None:
            self.progress(Progress(self.chain.name, doing, time.monotonic() - start, done, cached))

        say("waiting for another build of it")
        with store.locked(self.chain.name, self.folder):
            found = None if self.oldest else store.find_built(self.chain.digest, self.folder)
            if found is not None:
                say("already built", done=True, cached=True)
                return found
            _require_programs()
            building = store.begin_building(self.chain.name, self.folder)
            try:
                made = self._make(building, say, start)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise
        say("done", done=True)
        return made

    def _make(self, building: Path, say: tree.Say, start: float) -> Image:
        chain, sandbox = self.chain, self._sandbox()
        root = building / "tree"
        self._fill(chain, root, sandbox, say)
        say("kernel and initrd")
        version = boot.find_kernel(root)
        boot.write_kernel(root, building / KERNEL)
        boot.write_initrd(root, chain.init, chain.modules, building / INITRD)
        packages, pypi = tree.list_packages(root), tree.list_pypi(chain, root)
        tree.finish(chain, root)
        say("file system")
        disk.write_disk(root, building / DISK, size_gib=chain.size_gib, identity=chain.digest, sandbox=sandbox, say=say)
        shutil.rmtree(root)
        say("digests")
        manifest = Manifest(
            recipe=chain.name,
            recipe_hash=chain.digest,
            suite=chain.suite,
            date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            kernel_version=version,
            cmdline=chain.cmdline,
            virtual_size=chain.size_gib * 1024**3,
            build_s=round(time.monotonic() - start, 1),
            files={name: describe(building / name) for name in (DISK, KERNEL, INITRD)},
            packages=packages,
            pypi=pypi,
        )
        (building / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return store.publish(building, manifest, self.folder)

    def _fill(self, chain: Chain, root: Path, sandbox: Sandbox, say: tree.Say) -> None:
        """The chain's tree, unfinished, in `root`; its base's tree is made once and kept."""
        if chain.base is None:
            tree.make_lowest(chain, root, sandbox, say)
            return
        say(f"waiting for {chain.base.name}")
        self._keep_tree(chain.base, say)
        with store.locked(f"tree-{chain.base.name}", self.folder, shared=True):
            say("copy of the base")
            sandbox.run(["cp", "-a", "--reflink=auto", str(self._kept(chain.base)), str(root)], timeout_s=900)
        tree.add_layer(chain.layers[-1], root, self.folder / APT, sandbox, say)

    def _keep_tree(self, chain: Chain, say: tree.Say) -> None:
        kept = self._kept(chain)
        with store.locked(f"tree-{chain.name}", self.folder):
            if kept.is_dir() and kept.stat().st_mtime >= self.oldest:
                return
            shutil.rmtree(self.folder / TREES / chain.name, ignore_errors=True)
            making = kept.with_name(f"making-{kept.name}")
            making.parent.mkdir(parents=True, exist_ok=True)
            self._fill(chain, making, self._sandbox(chain.name), lambda doing: say(f"{chain.name}: {doing}"))
            making.rename(kept)
            os.utime(kept)

    def _kept(self, chain: Chain) -> Path:
        return self.folder / TREES / chain.name / chain.digest[:12]

    def _sandbox(self, name: str = "") -> Sandbox:
        log = self.folder / LOGS / f"{name or self.chain.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        return Sandbox(name or self.chain.name, log, self.stop)


def _jobs(builds: int) -> int:
    """Builds at once: no more than there are CPUs, and 1 GiB of free memory for each."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = 0
    return max(1, min(builds, os.cpu_count() or 1, free // MEMORY_PER_BUILD))


def _require_programs() -> None:
    missing = sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        raise ImageError("this machine lacks what a build needs", next=f"apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        what = "building an image takes root: it makes device nodes and other users' files"
        raise ImageError(what, next="sudo pcloud image build")
