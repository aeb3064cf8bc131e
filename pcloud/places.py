"""Where pcloud keeps its files on the operator's machine.

`$PCLOUD_HOME` holds everything when it is set (tests, side-by-side labs); otherwise the
user's own state, cache and configuration folders do. None of it is needed to recover a
site from another machine: the inventory, its secrets and its images are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from pcloud.errors import BadInput
from pcloud.values import NAME


def _base(kind: str) -> Path:
    home = os.environ.get("PCLOUD_HOME")
    if home:
        return Path(home).absolute() / kind
    dirs = platformdirs.PlatformDirs("pcloud", appauthor=False)
    return Path({"state": dirs.user_state_dir, "cache": dirs.user_cache_dir, "config": dirs.user_config_dir}[kind])


def _named(site: str) -> str:
    if not re.fullmatch(NAME, site):
        raise BadInput(f"{site!r} cannot be the name of a site", next="write small letters, digits and hyphens")
    return site


def images_dir() -> Path:
    """Built and imported images, one folder each, named by content."""
    return _base("cache") / "images"


def site_dir(site: str) -> Path:
    """One site's pinned host keys and runs. Folders are made 0700 by whoever writes."""
    return _base("state") / "sites" / _named(site)


def runs_dir(site: str) -> Path:
    """One folder a run, each with its `events.jsonl`."""
    return site_dir(site) / "runs"


def lab_dir(site: str) -> Path:
    """A lab's hosts (overlay, keys, known_hosts) and its state."""
    return _base("state") / "labs" / _named(site)


def config_dir() -> Path:
    """The user's own inventories, playbooks and templates."""
    return _base("config")
