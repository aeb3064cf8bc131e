"""From a site's name to a checked `Site`: where inventories are, and what is wrong with them.

Every problem is `file:line: path: what, and what to do`, all of them at once. Nothing here
touches a host; reading an inventory runs nothing and opens only that one file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pcloud import places
from pcloud.document import Document, load_model
from pcloud.errors import BadDocument, BadInput, Problem
from pcloud.model import Site
from pcloud.sitechecks import check_site
from pcloud.values import NAME
from pcloud.wording import did_you_mean, show

Kind = Literal["inventory", "templates", "playbooks"]

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Inventory:
    """A site and the file it came from."""

    site: Site
    path: Path
    document: Document = field(repr=False, compare=False)

    def resolve(self, value: str) -> Path:
        return resolve_path(self.path, value)


def load_inventory(path: Path) -> Inventory:
    """Read and check one inventory. Raises `BadDocument` with every problem, or `BadInput`."""
    document, site = load_model(path, Site)
    problems = [*check_site(site, document), *_missing_folders(site, path, document)]
    if path.stem != site.site:
        what = (
            f"the file {path.name} holds site {site.site}; name the file {site.site}.yaml, or write site: {path.stem}"
        )
        problems.append(document.problem(("site",), what))
    if problems:
        raise BadDocument(problems)
    return Inventory(site, path, document)


def _missing_folders(site: Site, path: Path, document: Document) -> Iterator[Problem]:
    """A folder that is named must be there: without it, the defaults would be used unnoticed."""
    for key, value in (("playbooks", site.playbooks), ("templates", site.templates)):
        if value is None:
            continue
        try:
            there = resolve_path(path, value).is_dir()
        except (OSError, ValueError, RuntimeError):
            there = False
        if not there:
            what = f"there is no folder {show(value)} beside this file; make it, or take the line out"
            yield document.problem((key,), what)


def load_site(path: Path) -> Site:
    return load_inventory(path).site


def resolve_path(inventory: Path, value: str) -> Path:
    """A path written in an inventory: absolute, `~/…`, or relative to the inventory's own folder."""
    written = Path(value)
    if value == "~" or value.startswith("~/"):
        written = Path.home() / value[2:]
    return (inventory.parent / written).resolve()


def find_inventory(name_or_path: str) -> Path:
    """The file of a site: a path (with a slash, or ending in .yaml), or the name of one.

    A name is looked for in `./inventory`, in the user's configuration and among the defaults.
    Raises `BadInput` with the sites that exist.
    """
    if "/" in name_or_path or name_or_path.endswith(".yaml"):
        return Path(name_or_path)
    sites = find_sites()
    if not re.fullmatch(NAME, name_or_path):
        next_step = f"write one of {', '.join(sites)}, or a path that ends in .yaml"
        raise BadInput(f"{show(name_or_path)} cannot be the name of a site", next=next_step)
    if name_or_path not in sites:
        hint = did_you_mean(name_or_path, list(sites), "the sites are")
        next_step = f"{hint} (`pcloud init {name_or_path}` makes a new one)"
        raise BadInput(f"there is no site {name_or_path}", next=next_step)
    return sites[name_or_path]


def find_sites() -> dict[str, Path]:
    """Every site that a name reaches, by name; the nearest file wins."""
    found: dict[str, Path] = {}
    for folder in (Path("inventory"), places.config_dir() / "inventory", defaults_dir("inventory")):
        try:
            files = sorted(folder.glob("*.yaml"))
        except OSError:
            continue
        for file in files:
            if re.fullmatch(NAME, file.stem):
                found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def find_playbook(inventory: Inventory, operation: str) -> Path:
    """The playbook of an operation: the site's own when it has one, else the default."""
    if not re.fullmatch(NAME, operation):
        raise BadInput(f"{show(operation)} cannot be the name of a playbook", next="write a name such as recover")
    if inventory.site.playbooks is not None:
        own = inventory.resolve(inventory.site.playbooks) / f"{operation}.yaml"
        try:
            if own.exists() or own.is_symlink():  # a link that leads nowhere is an error, not the default
                return own
        except OSError:
            return own  # it may be there: reading it will say why it cannot be read
    return find_default("playbooks", f"{operation}.yaml")


def defaults_dir(kind: Kind) -> Path:
    """The folder of what pcloud ships: inside the package when installed, else the checkout's."""
    shipped = _PACKAGE / "defaults" / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def find_default(kind: Kind, name: str) -> Path:
    """A file or folder that pcloud ships, such as ("templates", "images/frontend.yaml").

    Raises `BadInput` when there is none, or when the name leaves the folder.
    """
    folder = defaults_dir(kind).resolve()
    path = (folder / name.replace("\0", "?")).resolve()
    if not path.is_relative_to(folder) or not path.exists():
        there = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "nothing"
        raise BadInput(f"pcloud has no {kind} file {show(name)}", where=str(folder), next=f"there is: {there}")
    return path
