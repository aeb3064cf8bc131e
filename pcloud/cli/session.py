"""What every command that works on a site begins with: from its name to a `World`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pcloud import lab, places
from pcloud.cli.screen import Screen
from pcloud.desire import desire, read_dump
from pcloud.desired import Desired, ImageFile, ImageSpec, Options
from pcloud.errors import BadDocument, BadInput, Blocked
from pcloud.images import Image, find_image
from pcloud.images.manifest import DISK, INITRD, KERNEL
from pcloud.inventory import Inventory, find_inventory, find_playbook, load_inventory
from pcloud.model import Site
from pcloud.observed import Observed
from pcloud.plan import Plan, plan
from pcloud.playbook import check_playbook, load_playbook
from pcloud.secrets import load_secrets
from pcloud.steps.database import Restore
from pcloud.wording import did_you_mean, show
from pcloud.world import World

out = Screen()
err = Screen(stderr=True)


PLAYBOOK = "recover"

UNKNOWN_IMAGE = ImageSpec("unknown", "unknown", "", "", ImageFile("disk.qcow2", "", 0), None, None)
"""Stands for an image that is not on this machine where nothing will be made of it."""


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
    name: str, options: Options = Options(), *, makes: bool = False, ask: Callable[[str], bool] | None = None
) -> Iterator[Session]:
    """The site `name`, resolved; enters its lab by itself when it lives in one.

    `makes`: servers may be made, so the images must be on this machine. To look, to log in and
    to put away, the inventory and its secrets are enough.
    """
    inventory = load_inventory(find_inventory(name))
    site = inventory.site
    _check_names(site, options)
    lab.enter(site)
    chosen = load_playbook(find_playbook(inventory, PLAYBOOK))
    problems = check_playbook(chosen, site)
    if problems:
        raise BadDocument(problems)
    extra = places.lab_dir(site.site) / "secrets.yaml" if site.lab is not None else None
    secrets = load_secrets(site, inventory.path, extra)

    found = {name: find_image(ref.digest or ref.recipe or name) for name, ref in site.images.items()}
    images = {name: image for name, image in found.items() if image is not None}
    if makes:
        _refuse_missing(site, images)
        refuse_small_disks(inventory, images)
    specs = {name: image_spec(name, images[name]) if name in images else UNKNOWN_IMAGE for name in site.images}
    desired, material = desire(inventory, chosen, specs, secrets.reveal, options)
    folders = {image.digest: image.folder for image in images.values()}
    with World(inventory, desired, material, secrets.reveal, folders, ask or _refuse) as world:
        yield Session(inventory, desired, world)


def _refuse(question: str) -> bool:  # noqa: ARG001
    return False


def confirm(question: str, *, yes: bool, command: str, declined: str = "nothing was done") -> None:
    """A person's yes; without a terminal, `--yes` is the only one. Raises `Blocked`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Blocked(f"{question} Nobody is here to say yes", next=f"{command} --yes")
    err.print(f"{question} [y/N] ", end="")
    if input().strip().lower() not in ("y", "yes"):
        raise Blocked(f"not confirmed; {declined}", next=command)


def stamp() -> str:
    """The date of a tombstone."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def plan_whole(desired: Desired, observed: Observed) -> Plan:
    """The plan; made again with the dump read through, where it would restore that."""
    made = plan(desired, observed, stamp())
    return plan(read_dump(desired), observed, stamp()) if any(isinstance(n.step, Restore) for n in made.nodes) else made


def _check_names(site: Site, options: Options) -> None:
    from pcloud.identity import server_names

    servers = {n for g in site.groups for n in server_names(g)}
    known = servers | {g.name for g in site.groups}
    for name in (*options.only, *options.rebuild):
        if name not in (known if name in options.only else servers):
            raise BadInput(f"{site.site} has no server {name}", next=f"one of {', '.join(sorted(known))}")
    check_hosts(site, options.lost)


def check_hosts(site: Site, names: Iterable[str]) -> None:
    """Raises `BadInput` for a name that is no host's of the site's."""
    known = [h.name for h in site.hosts]
    for name in names:
        if name not in known:
            raise BadInput(f"{site.site} has no host {show(name)}", next=did_you_mean(name, known, "the hosts are"))


def hosts_of(site: Site, names: Iterable[str], racks: Iterable[str]) -> tuple[str, ...]:
    """The hosts that a person named, and all of the racks, in the inventory's order. Raises `BadInput`."""
    names, racks = set(names), set(racks)
    check_hosts(site, sorted(names))
    known = list(dict.fromkeys(h.rack for h in site.hosts))
    for rack in sorted(racks.difference(known)):
        raise BadInput(f"{site.site} has no rack {show(rack)}", next=did_you_mean(rack, known, "the racks are"))
    return tuple(h.name for h in site.hosts if h.name in names or h.rack in racks)


def _refuse_missing(site: Site, images: Mapping[str, Image]) -> None:
    missing = {name: ref for name, ref in site.images.items() if name not in images}
    if missing:
        recipes = " ".join(dict.fromkeys(ref.recipe for ref in missing.values() if ref.recipe))
        raise BadInput(
            f"not on this machine: image {', '.join(missing)}",
            next=f"pcloud image build {recipes}" if recipes else "pcloud image list",
        )


def refuse_small_disks(inventory: Inventory, images: Mapping[str, Image]) -> None:
    """A disk smaller than its image would cut the file system off. Raises `BadDocument` with every such group."""
    problems = []
    for n, group in enumerate(inventory.site.groups):
        image = images[group.image]
        least_gib = -(-image.manifest.virtual_size // 2**30)
        if group.disk_gib < least_gib:
            what = f"image {image.name} holds a disk of {least_gib} GiB; write disk_gib: {least_gib} or more"
            problems.append(inventory.document.problem(("groups", n, "disk_gib"), what))
    if problems:
        raise BadDocument(problems)


def image_spec(name: str, image: Image) -> ImageSpec:
    """What the hosts need of an image, from its manifest."""
    files = {name: ImageFile(name, content.sha256, content.size) for name, content in image.manifest.files.items()}
    kernel, initrd = files.get(KERNEL), files.get(INITRD)
    return ImageSpec(name, image.recipe, image.digest, image.cmdline, files[DISK], kernel, initrd)


def site_of(target: str) -> tuple[str, str]:
    """`demo/fe-1` or `fe-1`: the site's name, and the host or server in it."""
    site, slash, machine = target.rpartition("/")
    if slash:
        return site, machine
    return default_site(), machine


LIVES = "The site that lives in the lab; left out: the only one in ./inventory, else demo."


def default_site() -> str:
    """The site a command means when none is named: the only one in ./inventory, else demo."""
    own = sorted(p.stem for p in Path("inventory").glob("*.yaml"))
    return own[0] if len(own) == 1 else "demo"
