"""`hypervisor.py` against libvirt's own test driver: every connection its own simulated host.

The driver has no keepalive, no upload and no domain capabilities: those are tested in the lab.
"""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pcloud.desire import domain_context
from pcloud.desired import ImageFile, ImageSpec, Names, ServerSpec
from pcloud.errors import HostUnreachable, HypervisorError, LibvirtSilent
from pcloud.hypervisor import NAMESPACE, Hypervisor
from pcloud.inventory import defaults_dir
from pcloud.model import Host
from pcloud.observed import Mark, Power
from pcloud.steps.undo import renumbered
from pcloud.templating import Templates

NODE = """<node>
  <cpu><mhz>2000</mhz><model>x</model>
  <active>4</active><nodes>1</nodes><sockets>1</sockets><cores>4</cores><threads>1</threads></cpu>
  <memory>8388608</memory>
  <pool type='dir'><name>p</name><target><path>{pool}</path></target></pool>
  <domain type='test'><name>somebody-elses</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
    <memory>131072</memory><os><type>hvm</type></os></domain>
</node>"""

DISK = ImageFile("disk.qcow2", "a" * 64, 10)
KERNEL = ImageFile("vmlinuz", "b" * 64, 10)
INITRD = ImageFile("initrd", "c" * 64, 10)
IMAGE = ImageSpec("frontend", "frontend", "d" * 64, 'quiet a=<&">', DISK, KERNEL, INITRD)
SPEC = ServerSpec(
    "fe-1",
    "frontend",
    "frontend",
    IMAGE,
    1,
    512,
    4,
    "10.77.0.21",
    (),
    "52:00:00:00:00:01",
    "5c0f7b0e-2a51-5d3e-8c8e-6f1f6a9c9d01",
    "0123abcd",
)


HOST = Host(name="h1", address=IPv4Address("10.77.0.11"), rack="a", pool="/pool", bridge="br0")


def definition(generation: int = 1, kind: str = "test") -> str:
    templates = Templates([defaults_dir("templates")])
    context = domain_context(SPEC, Names("demo", "fe-1", generation), HOST, "tcg")
    xml = templates.render_xml("libvirt/domain.xml.j2", {**context, "namespace": NAMESPACE})
    return xml.replace("<domain type='qemu'>", f"<domain type='{kind}'>")


@pytest.fixture
def host(tmp_path: Path) -> Hypervisor:
    file = tmp_path / "node.xml"
    file.write_text(NODE.format(pool=tmp_path / "pool"))
    return Hypervisor.open(f"test://{file}", "h1")


def test_a_defined_server_is_seen_with_its_mark(host: Hypervisor) -> None:
    host.define(definition())
    seen = {s.name: s for s in host.servers()}
    assert seen["demo.fe-1"].mark == Mark("demo", "fe-1", "frontend", "0123abcd", "d" * 64, 1, ("10.77.0.21",))
    assert seen["demo.fe-1"].power is Power.OFF
    assert seen["demo.fe-1"].memory_mib == 512
    assert seen["demo.fe-1"].macs == ("52:00:00:00:00:01",)
    assert "/pool/demo.fe-1.g1.qcow2" in seen["demo.fe-1"].files
    assert seen["somebody-elses"].mark is None


def test_redefining_keeps_the_identity_and_takes_the_new_generation(host: Hypervisor) -> None:
    host.define(definition(1))
    host.define(definition(2))
    marks = [s.mark.generation for s in host.servers() if s.mark]
    assert marks == [2]


def test_what_was_put_away_is_defined_again_as_a_newer_generation(host: Hypervisor) -> None:
    """From the definition as libvirt prints it, which is what lies beside the tombstone."""
    host.define(definition(1))
    printed = host.definition("demo.fe-1")
    assert printed is not None
    host.undefine("demo.fe-1")
    host.define(renumbered(printed, Names("demo", "fe-1", 1), Names("demo", "fe-1", 12)))
    [seen] = [s for s in host.servers() if s.mark]
    assert seen.mark == Mark("demo", "fe-1", "frontend", "0123abcd", "d" * 64, 12, ("10.77.0.21",))
    assert "/pool/demo.fe-1.g12.qcow2" in seen.files
    assert "/pool/demo.fe-1.g12.seed.iso" in seen.files
    assert ".g1." not in (host.definition("demo.fe-1") or "")


def test_the_kernel_command_line_is_escaped(host: Hypervisor) -> None:
    host.define(definition())
    text = host.definition("demo.fe-1")
    assert text is not None
    assert "quiet a=&lt;&amp;" in text


def test_power(host: Hypervisor) -> None:
    host.watch()
    host.define(definition())
    host.start("demo.fe-1")
    host.start("demo.fe-1")
    assert host.power("demo.fe-1") is Power.RUNNING
    host.power_off("demo.fe-1")
    host.power_off("demo.fe-1")
    assert host.power("demo.fe-1") is Power.OFF
    host.undefine("demo.fe-1")
    host.undefine("demo.fe-1")
    assert host.power("demo.fe-1") is None


def test_what_is_not_there_is_said(host: Hypervisor) -> None:
    host.power_off("nobody")
    assert host.definition("nobody") is None
    assert host.cpu_s("nobody") == 0
    with pytest.raises(HypervisorError, match="no server nobody to start"):
        host.start("nobody")
    with pytest.raises(HypervisorError, match="could not define a server"):
        host.define("<domain")


def test_volumes(host: Hypervisor, tmp_path: Path) -> None:
    pool = str(tmp_path / "pool")
    host.create_overlay(pool, "demo.fe-1.g1.qcow2", backing="/pool/image.qcow2", size_gib=4)
    assert host.volumes(pool) == ("demo.fe-1.g1.qcow2",)
    with pytest.raises(HypervisorError, match="could not create the disk"):
        host.create_overlay(pool, "demo.fe-1.g1.qcow2", backing="/pool/image.qcow2", size_gib=4)


def test_a_host_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostUnreachable, match="h9: libvirt does not answer") as raised:
        Hypervisor.open(f"test://{tmp_path}/missing.xml", "h9")
    assert raised.value.next


def test_a_frozen_libvirtd_is_given_up(tmp_path: Path) -> None:
    """Its kernel still takes the connection, and nothing ever comes back."""
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(tmp_path / "sock"))
        frozen.listen()
        began = time.monotonic()
        with pytest.raises(LibvirtSilent, match="it takes connections and is silent") as raised:
            Hypervisor.open(f"qemu+unix:///system?socket={tmp_path}/sock", "h9", timeout_s=0.5)
        assert time.monotonic() - began < 5
        assert "restart libvirtd" in raised.value.next


def test_capacity(host: Hypervisor) -> None:
    found = host.capacity()
    assert found.memory_mib == 8192
    assert found.accel == "tcg"
