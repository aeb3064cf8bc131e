from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pcloud.desired import Desired, ServerSpec, spec_of
from pcloud.identity import servers_of, substitutes_of
from pcloud.inventory import defaults_dir, load_site
from pcloud.model import Group, Site
from pcloud.playbook import Playbook, load_playbook
from tests.guests import mariadb_data
from tests.simulation import DEMO_DUMP, SimWorld, image_spec

# What decides whether a change lands is the same each time; `HYPOTHESIS_PROFILE=default` looks further.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# A shell starts what runs in the background with SIGINT ignored, and every child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every test but the lab's keeps its files to itself."""
    if request.node.get_closest_marker("lab") is None:
        monkeypatch.setenv("PCLOUD_HOME", str(tmp_path / "home"))


def make_desired(site: Site, playbook: Playbook, image_file: Path) -> Desired:
    """What the demo's inventory asks for, with stand-in digests where images and templates come in."""
    images = {name: image_spec(name, image_file) for name in site.images}

    def specs(addressed: Iterable[tuple[Group, str, IPv4Address]]) -> tuple[ServerSpec, ...]:
        return tuple(spec_of(site, g, name, at, images[g.image], f"spec-{name}-{at}") for g, name, at in addressed)

    return Desired(site, playbook, specs(servers_of(site)), DEMO_DUMP, substitutes=specs(substitutes_of(site)))


def regroup(world: SimWorld, group: str, change: dict[str, Any]) -> None:
    """A person changes a group of the inventory; nothing that is there changes."""
    site = world.site
    groups = tuple(Group(**{**g.model_dump(), **change}) if g.name == group else g for g in site.groups)
    changed = make_desired(site.model_copy(update={"groups": groups}), world.desired.playbook, world.image_file)
    world.desired = replace(changed, options=world.desired.options)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as the image of a database holds it; copied, never changed."""
    return mariadb_data(tmp_path_factory.mktemp("mariadb"))


@pytest.fixture
def demo_site() -> Site:
    return load_site(defaults_dir("inventory") / "demo.yaml")


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"an image's bytes")
    return path


@pytest.fixture
def desired(demo_site: Site, image_file: Path) -> Desired:
    return make_desired(demo_site, load_playbook(defaults_dir("playbooks") / "recover.yaml"), image_file)


@pytest.fixture
def world(desired: Desired, image_file: Path) -> SimWorld:
    return SimWorld(desired, image_file)
