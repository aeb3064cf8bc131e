"""The folder of images: found by recipe or digest, added whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from pcloud import places
from pcloud.clock import Clock, Deadline, SystemClock
from pcloud.errors import DeadlineExceeded, ImageError
from pcloud.images.manifest import Image, Manifest, find_fault, folder_name, read_manifest

BUILDING, _OLD = ".building-", ".old-"
_LOCK_POLL_S = 0.2


def list_images(folder: Path | None = None) -> list[Image]:
    """Every readable image, by recipe and then oldest first; folders that are no image are left out."""
    found: list[Image] = []
    for path in sorted((folder or places.images_dir()).glob("[!.]*/")):
        try:
            found.append(read_manifest(path))
        except ImageError:
            continue
    return sorted(found, key=lambda image: (image.recipe, image.manifest.date, image.digest))


def find_broken(folder: Path | None = None) -> list[ImageError]:
    """Why each folder that is no usable image is none."""
    errors: list[ImageError] = []
    for path in sorted((folder or places.images_dir()).glob("[!.]*/")):
        try:
            read_manifest(path)
        except ImageError as error:
            errors.append(error)
    return errors


def find_image(name: str, folder: Path | None = None) -> Image | None:
    """A recipe's latest build, or the image of a digest (at least 12 digits of it)."""
    images = list_images(folder)
    by_recipe = [image for image in images if image.recipe == name]
    if by_recipe:
        return max(by_recipe, key=lambda image: (image.manifest.date, image.digest))
    if len(name) < 12:
        return None
    return next((i for i in images if i.digest.startswith(name) or i.name == name), None)


def find_built(recipe_hash: str, folder: Path) -> Image | None:
    """The latest whole image of exactly this recipe."""
    same = [i for i in list_images(folder) if i.manifest.recipe_hash == recipe_hash and find_fault(i) is None]
    return max(same, key=lambda image: (image.manifest.date, image.digest)) if same else None


def publish(building: Path, manifest: Manifest, folder: Path) -> Image:
    """Give a finished folder its name by content, in one rename. An equal image is kept as it is."""
    final = folder / folder_name(manifest.recipe, manifest.digest)
    for path in building.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if final.exists():
        # The same name may hold a damaged copy: this one, known to be whole, takes its place.
        shutil.rmtree(_aside(final))
    building.rename(final)
    return read_manifest(final)


def begin_building(recipe: str, folder: Path) -> Path:
    """A new folder to build in; what an interrupted build of this recipe left is removed first.

    The caller holds the recipe's lock.
    """
    for leftover in folder.glob(f"{BUILDING}{recipe}-*"):
        if "-" not in leftover.name.removeprefix(f"{BUILDING}{recipe}-"):  # else it is another recipe's
            shutil.rmtree(leftover, ignore_errors=True)
    building = Path(mkdtemp(prefix=f"{BUILDING}{recipe}-", dir=folder))
    building.chmod(0o755)
    return building


def sweep(folder: Path) -> None:
    """Remove what builds left that were killed; whatever is being built now is locked, and stays."""
    for leftover in folder.glob(f"{BUILDING}*"):
        recipe = leftover.name.removeprefix(BUILDING).rpartition("-")[0]
        with _locked_at_once(recipe, folder) as free:
            if free:
                shutil.rmtree(leftover, ignore_errors=True)
    for leftover in folder.glob(f"{_OLD}*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked_at_once(name: str, folder: Path) -> Iterator[bool]:
    with (folder / f".lock-{name}").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def locked(
    name: str, folder: Path, *, shared: bool = False, timeout_s: float = 3600, clock: Clock | None = None
) -> Iterator[None]:
    """Hold `.lock-NAME`. It ends with the process, so a killed build never leaves one behind."""
    clock = clock or SystemClock()
    folder.mkdir(parents=True, exist_ok=True)
    deadline = Deadline.after(timeout_s, clock)
    with (folder / f".lock-{name}").open("w") as file:
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.passed():
                    what = "another build of it has held its lock too long"
                    after = "end that build, then build again"
                    raise DeadlineExceeded(what, where=f"recipe {name}", next=after) from None
                clock.sleep(_LOCK_POLL_S)
        yield


def _aside(path: Path) -> Path:
    """Renamed out of sight first, so that no half-removed image is ever seen."""
    aside = Path(mkdtemp(prefix=_OLD, dir=path.parent))
    path.rename(aside / path.name)
    return aside
