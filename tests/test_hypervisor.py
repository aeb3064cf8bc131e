"""libvirt as it is, on its own test driver."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from pcloud.hypervisor import Hypervisor

NODE = """<node><domain type="test"><name>demo.fe-1</name><memory>65536</memory><os><type>hvm</type></os>
<devices/></domain></node>"""


@pytest.fixture
def connection(tmp_path: Path) -> libvirt.virConnect:
    """A hypervisor of its own, with one server that runs."""
    (tmp_path / "node.xml").write_text(NODE)
    return libvirt.open(f"test://{tmp_path}/node.xml")


def test_a_server_with_saved_memory_and_snapshots_can_be_undefined(connection: libvirt.virConnect) -> None:
    """libvirt-guests saves all servers where a host shuts down; a person makes snapshots."""
    domain = connection.lookupByName("demo.fe-1")
    domain.snapshotCreateXML("<domainsnapshot/>", 0)
    domain.managedSave()
    hypervisor = Hypervisor(connection, "h1")
    hypervisor.power_off("demo.fe-1")
    hypervisor.undefine("demo.fe-1")
    assert connection.listAllDomains() == []
    hypervisor.undefine("demo.fe-1")
