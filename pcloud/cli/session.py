"""What every command that works on a site begins with: from its name to a `World`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from pcloud import lab, places
from pcloud.desire import desire
from pcloud.desired import Desired, ImageFile, ImageSpec, Options
from pcloud.errors import BadDocument, BadInput, Blocked
from pcloud.images import Image, find_image
from pcloud.inventory import Inventory, find_inventory, find_playbook, load_inventory
from pcloud.model import Site
from pcloud.playbook import check_playbook, load_playbook
from pcloud.secrets import load_secrets
from pcloud.world import World

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


@dataclass(frozen=True)
class Session:
    inventory: Inventory
    desired: Desired
    world: World

    @property
    def site(self) -> Site:
        return self.inventory.site


@contextmanager
def open_session(
    name: str, options: Options = Options(), *, playbook: str = "recover", ask: Callable[[str], bool] | None = None
) -> Iterator[Session]:
    """The site `name`, resolved; enters its lab by itself when it lives in one."""
    inventory = load_inventory(find_inventory(name))
    site = inventory.site
    _check_names(site, options)
    lab.enter(site)
    chosen = load_playbook(find_playbook(inventory, playbook))
    problems = check_playbook(chosen, site)
    if problems:
        raise BadDocument(problems)
    extra = places.lab_dir(site.site) / "secrets.yaml" if site.lab is not None else None
    secrets = load_secrets(site, inventory.path, extra)

    images = {name: _find(name, ref.recipe, ref.digest) for name, ref in site.images.items()}
    specs = {name: image_spec(name, image) for name, image in images.items()}
    desired, material = desire(inventory, chosen, specs, secrets.reveal, options)
    folders = {specs[name].digest: image.folder for name, image in images.items()}
    with World(inventory, desired, material, secrets.reveal, folders, ask or _refuse) as world:
        yield Session(inventory, desired, world)


def _refuse(question: str) -> bool:  # noqa: ARG001
    return False


def confirm(question: str, *, yes: bool, command: str) -> None:
    """A person's yes; without a terminal, `--yes` is the only one. Raises `Blocked`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Blocked(f"{question} Nobody is here to say yes", next=f"{command} --yes")
    err.print(f"{question} [y/N] ", end="")
    if input().strip().lower() not in ("y", "yes"):
        raise Blocked("not confirmed; nothing was done", next=command)


def stamp() -> str:
    """The date of a tombstone."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def _check_names(site: Site, options: Options) -> None:
    from pcloud.identity import server_names

    servers = {n for g in site.groups for n in server_names(g)}
    known = servers | {g.name for g in site.groups}
    for name in (*options.only, *options.rebuild):
        if name not in (known if name in options.only else servers):
            raise BadInput(f"{site.site} has no server {name}", next=f"one of {', '.join(sorted(known))}")


def _find(name: str, recipe: str | None, digest: str | None) -> Image:
    found = find_image(digest or recipe or name)
    if found is None:
        raise BadInput(
            f"the image {name} ({digest or recipe}) is not on this machine",
            next=f"pcloud image build {recipe}" if recipe else "pcloud image list",
        )
    return found


def image_spec(name: str, image: Image) -> ImageSpec:
    """What the hosts need of an image, from its manifest."""
    disk, kernel, initrd = (
        ImageFile(path.name, image.manifest.files[path.name].sha256, image.manifest.files[path.name].size)
        for path in (image.disk, image.kernel, image.initrd)
    )
    return ImageSpec(name, image.recipe, image.digest, image.cmdline, disk, kernel, initrd)


def site_of(target: str) -> tuple[str, str]:
    """`demo/fe-1` or `fe-1`: the site's name, and the host or server in it."""
    site, slash, machine = target.rpartition("/")
    if slash:
        return site, machine
    return default_site(), machine


def default_site() -> str:
    """The site a command means when none is named: the only one in ./inventory, else demo."""
    own = sorted(p.stem for p in Path("inventory").glob("*.yaml"))
    return own[0] if len(own) == 1 else "demo"
