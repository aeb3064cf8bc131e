"""Seeds: what is on the disk, that equal input gives equal bytes, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
import time

import pycdlib
import pytest
import yaml

from pcloud.errors import BadInput
from pcloud.seed import NETWORK, SeedFile, build_seed

FILES = (
    SeedFile("/etc/hostname", b"fe-1\n"),
    SeedFile("/etc/shop/shop.json", b"{}", 0o600, "shop:shop"),
    SeedFile("/etc/systemd/system/shop.service.d/10.conf", b"[Service]\n"),
)
CARD = b"""[Match]
MACAddress=52:54:00:00:00:01
[Network]
Address=10.77.0.21/24
Address=10.77.0.80/32
Gateway=10.77.0.1
"""


def read(image: bytes) -> dict[str, bytes]:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    found: dict[str, bytes] = {}
    for child in iso.list_children(joliet_path="/"):
        name = child.file_identifier().decode("utf-16-be")
        if child.is_file():
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, joliet_path=f"/{name}")
            found[name] = out.getvalue()
    iso.close()
    return found


def seed(*files: SeedFile) -> bytes:
    return build_seed(files, instance_id="demo-fe-1-g1", hostname="fe-1")


def test_the_disk_holds_what_cloud_init_and_the_initrd_look_for() -> None:
    image = seed(*FILES)
    assert image[16 * 2048 + 40 : 16 * 2048 + 72].decode().strip() == "cidata"
    found = read(image)
    assert sorted(found) == ["meta-data", "pcloud.tar", "user-data"]
    meta = yaml.safe_load(found["meta-data"])
    assert meta["instance-id"] == "demo-fe-1-g1"
    assert meta["local-hostname"] == "fe-1"
    assert found["user-data"].startswith(b"#cloud-config\n")
    assert "pcloud.tar" in yaml.safe_load(found["user-data"])["bootcmd"][0][2]


def test_files_keep_content_mode_and_the_owner_by_name() -> None:
    with tarfile.open(fileobj=io.BytesIO(read(seed(*FILES))["pcloud.tar"])) as tar:
        members = {m.name: m for m in tar.getmembers()}
        assert sorted(members) == sorted(f.path.lstrip("/") for f in FILES)
        for file in FILES:
            member = members[file.path.lstrip("/")]
            content = tar.extractfile(member)
            assert content is not None
            assert content.read() == file.content
            assert member.mode == file.mode
            assert f"{member.uname}:{member.gname}" == file.owner


def test_a_stock_image_gets_its_addresses_from_the_same_file() -> None:
    found = read(seed(*FILES, SeedFile(NETWORK, CARD)))
    (card,) = json.loads(found["network-config"])["ethernets"].values()
    assert card["match"] == {"macaddress": "52:54:00:00:00:01"}
    assert card["addresses"] == ["10.77.0.21/24", "10.77.0.80/32"]
    assert card["routes"] == [{"to": "0.0.0.0/0", "via": "10.77.0.1"}]


def test_equal_input_gives_equal_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = seed(*FILES, SeedFile(NETWORK, CARD))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400 * 400)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert seed(SeedFile(NETWORK, CARD), *reversed(FILES)) == before
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_another_content_is_another_seed_to_the_guest() -> None:
    one, other = read(seed(*FILES)), read(seed(SeedFile("/etc/hostname", b"fe-2\n"), *FILES[1:]))
    assert one["meta-data"] != other["meta-data"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([SeedFile("etc/x", b"")], "no path"),
        ([SeedFile("/etc/../root/x", b"")], "no path"),
        ([SeedFile("/etc//x", b"")], "no path"),
        ([SeedFile("/etc/", b"")], "no path"),
        ([SeedFile("/", b"")], "no path"),
        ([SeedFile("/etc/a\nb", b"")], "no path"),
        ([SeedFile("/etc/x", b"1"), SeedFile("/etc/x", b"2")], "twice"),
        ([SeedFile("/etc/x", b"1"), SeedFile("/etc/x/y", b"2")], "is a file"),
        ([SeedFile("/etc/x", b"", mode=-1)], "mode"),
        ([SeedFile("/etc/x", b"", mode=0o100644)], "mode"),
        ([SeedFile("/etc/x", b"", owner="root")], "owner"),
        ([SeedFile("/etc/x", b"", owner="0:0")], "owner"),
    ],
)
def test_what_could_land_elsewhere_is_refused(files: list[SeedFile], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        seed(*files)


@pytest.mark.parametrize(("instance", "host"), [("", "fe-1"), ("a b", "fe-1"), ("x", "fe_1"), ("x", "fe-1\nuser: y")])
def test_names_cannot_smuggle_lines_into_the_meta_data(instance: str, host: str) -> None:
    with pytest.raises(BadInput):
        build_seed(FILES, instance_id=instance, hostname=host)
