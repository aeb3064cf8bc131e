"""A seed holds what its server is given, reads back as NoCloud, and is the same for the same input."""

from __future__ import annotations

import io
import json
import tarfile

import pycdlib
import pytest

from pcloud.errors import BadInput
from pcloud.seed import NETWORK, SeedFile, build_seed

FILES = (
    SeedFile("/etc/hostname", b"fe-1\n"),
    SeedFile("/etc/shop/shop.json", b"{}", 0o600, "shop:shop"),
    SeedFile(NETWORK, b"[Match]\nMACAddress=52:00:00:00:00:01\n[Network]\nAddress=10.0.0.2/24\nGateway=10.0.0.1\n"),
)


def read(seed: bytes) -> dict[str, bytes]:
    disk = pycdlib.PyCdlib()
    disk.open_fp(io.BytesIO(seed))
    found = {}
    for child in disk.list_children(joliet_path="/"):
        if child is not None and not child.is_dir():
            name = child.file_identifier().decode("utf-16-be").partition(";")[0]
            out = io.BytesIO()
            disk.get_file_from_iso_fp(out, joliet_path=f"/{name}")
            found[name] = out.getvalue()
    assert disk.pvd.volume_identifier.strip() == b"cidata"
    disk.close()
    return found


def seed(*files: SeedFile, generation: int = 1) -> bytes:
    return build_seed(files or FILES, instance_id=f"abc-g{generation}", hostname="fe-1")


def test_it_reads_back() -> None:
    found = read(seed())
    assert b"instance-id: abc-g1\n" in found["meta-data"]
    assert found["user-data"].startswith(b"#cloud-config\n")
    with tarfile.open(fileobj=io.BytesIO(found["pcloud.tar"])) as tar:
        members = {m.name: m for m in tar}
        assert set(members) == {"etc/hostname", "etc/shop/shop.json", NETWORK[1:]}
        secret = members["etc/shop/shop.json"]
        assert (secret.mode, secret.uname, secret.gname) == (0o600, "shop", "shop")
    card = json.loads(found["network-config"])["ethernets"]["eth0"]
    assert card["addresses"] == ["10.0.0.2/24"]
    assert card["match"] == {"macaddress": "52:00:00:00:00:01"}


def test_equal_input_gives_equal_bytes_and_a_change_shows() -> None:
    assert seed() == seed(*reversed(FILES))
    assert seed() != seed(generation=2)
    assert seed() != seed(FILES[0])


@pytest.mark.parametrize(
    ("file", "what"),
    [
        (SeedFile("etc/x", b""), "no path for a server's file"),
        (SeedFile("/etc/../root/.ssh/authorized_keys", b""), "no path for a server's file"),
        (SeedFile("/etc/x y", b""), "no path for a server's file"),
        (SeedFile("/etc/hostname", b""), "in the seed twice"),
        (SeedFile("/etc/hostname/x", b""), "lies in what is a file"),
        (SeedFile("/etc/x", b"", 0o100644), "has the mode"),
        (SeedFile("/etc/x", b"", 0o644, "root"), "has the owner"),
        (SeedFile("/etc/x", b"", 0o644, "root:ro ot"), "has the owner"),
    ],
)
def test_a_file_that_cannot_be_is_refused(file: SeedFile, what: str) -> None:
    with pytest.raises(BadInput, match=what) as raised:
        seed(*FILES, file)
    assert raised.value.next


@pytest.mark.parametrize("name", ["", "fe 1", "fe-1\nuser-data: x", "../fe-1"])
def test_a_name_that_would_break_its_file_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        build_seed(FILES, instance_id="abc", hostname=name)
    with pytest.raises(BadInput):
        build_seed(FILES, instance_id=name, hostname="fe-1")
