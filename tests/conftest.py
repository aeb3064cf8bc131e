from __future__ import annotations

from pathlib import Path

import pytest

from pcloud.desired import Desired, Dump, Options, ServerSpec
from pcloud.identity import expand_addresses, server_mac, server_names, server_uuid
from pcloud.inventory import defaults_dir, load_site
from pcloud.model import Site
from pcloud.playbook import Playbook, load_playbook
from tests.simulation import SimWorld, image_spec


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every test but the lab's keeps its files to itself."""
    if request.node.get_closest_marker("lab") is None:
        monkeypatch.setenv("PCLOUD_HOME", str(tmp_path / "home"))


def make_desired(site: Site, playbook: Playbook, image_file: Path) -> Desired:
    """What the demo's inventory asks for, with stand-in digests where images and templates come in."""
    images = {name: image_spec(name, image_file) for name in site.images}
    servers = tuple(
        ServerSpec(
            name=name,
            group=group.name,
            role=group.role,
            image=images[group.image],
            vcpus=group.vcpus,
            memory_mib=group.memory_mib,
            disk_gib=group.disk_gib,
            address=str(address),
            service_addresses=(),
            mac=server_mac(site.site, name),
            uuid=str(server_uuid(site.site, name)),
            spec=f"spec-{name}",
        )
        for group in site.groups
        for name, address in zip(server_names(group), expand_addresses(group.addresses), strict=False)
    )
    return Desired(site, playbook, servers, Dump(str(image_file), "d" * 64), "", Options())


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
