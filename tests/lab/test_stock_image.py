"""An image that somebody already had: Debian's way of making it, nothing of pcloud in it, recovered by the same seed.

The stock image is the balancer's, with HAProxy installed as its owner would have it; cloud-init
reads the seed. It takes a minute of processor time to boot under emulation, so one server of it is made.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pcloud import lab, places
from pcloud.inventory import defaults_dir, load_site
from tests.lab.conftest import DEMO, Operator
from tests.lab.stock import stock_image

pytestmark = pytest.mark.lab


OURS = (b"/pcloud", b"pcloud.tar", b"pcloud-", b"10-pcloud")
"""Whatever of ours a disk could hold; UpCloud and tcpcloud, which it knows of, are somebody else."""


def users_images() -> Path:
    """The user's own folder of images: what is made once is kept there."""
    home = os.environ.pop("PCLOUD_HOME", None)
    try:
        return places.images_dir()
    finally:
        if home is not None:
            os.environ["PCLOUD_HOME"] = home


@pytest.fixture(scope="module")
def stock() -> Path:
    return stock_image(users_images())


@pytest.fixture(scope="module")
def operator(stock: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator with no image but the stock one, and a lab of the demo's first host."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("folder")
    one = Operator(home, folder)
    imported = one.json("image", "import", str(stock), "--name", "stock")
    write_site(folder, imported["digest"])
    up = one.run("lab", "up", site(one))
    assert up.code == 0, up.err
    yield one
    before = os.environ.get("PCLOUD_HOME")
    os.environ["PCLOUD_HOME"] = str(home)
    try:
        lab.down(load_site(Path(site(one))))
    finally:
        del os.environ["PCLOUD_HOME"]
        if before is not None:
            os.environ["PCLOUD_HOME"] = before


def write_site(folder: Path, digest: str) -> None:
    data = yaml.safe_load(DEMO.read_text())
    data["images"] = {"stock": {"digest": digest[:12]}}
    data["hosts"] = data["hosts"][:2]
    data["database"]["dump"] = str(defaults_dir("templates") / "shop" / "dump" / "shop.sql.gz")
    for group in data["groups"]:
        group |= {"image": "stock", "memory_mib": 512, "disk_gib": 3}
        group["count"] = 1
        if group["role"] == "balancer":
            group["boot_timeout_s"] = 600
    (folder / "demo.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def site(operator: Operator) -> str:
    return str(operator.folder / "demo.yaml")


def on(operator: Operator, *argv: str) -> str:
    ran = operator.run("ssh", f"{site(operator)}/lb-1", "--", *argv)
    assert ran.code == 0, ran.err
    return ran.out


def test_there_is_nothing_of_ours_in_the_image(stock: Path, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(stock), str(raw)], check=True, timeout=120)
    with raw.open("rb") as file:
        parts = iter(lambda: file.read(64 << 20), b"")
        assert not {m for part in parts for m in OURS if m in part}


def test_a_server_of_a_stock_image_recovers_by_the_same_seed(operator: Operator) -> None:
    ran = operator.recover("--only", "balancer", site=site(operator))
    assert ran.state.steps["lb-1/ready"].status == "done", ran.out[-4000:] + ran.err
    assert ran.state.steps["lb-1/ready"].facts["cpu_s"] < 150, "43 to 60 CPU-s to the first answer were measured"
    again = operator.json("plan", site(operator), "--only", "balancer")
    assert again["kept"]["lb-1"] == "healthy"
    assert operator.run("check", site(operator)).code == 1, "a shop without frontends sells nothing"


def test_it_became_itself(operator: Operator) -> None:
    assert on(operator, "hostname").strip() == "lb-1"
    assert set(re.findall(r"10\.77\.0\.\d+/24", on(operator, "ip", "-br", "address"))) == {
        "10.77.0.81/24",
        "10.77.0.80/24",
    }
    assert "10.77.0.60 db" in on(operator, "cat", "/etc/hosts")
    assert re.fullmatch(r"[0-9a-f]{32}\n", on(operator, "cat", "/etc/machine-id"))
    assert on(operator, "systemctl", "is-active", "haproxy").strip() == "active"
    assert on(operator, "systemctl", "--failed", "--no-legend").strip() == ""
    assert json.loads(on(operator, "cat", "/run/cloud-init/result.json"))["v1"]["errors"] == []
    size = int(on(operator, "df", "--output=size", "-BM", "/").split()[1].rstrip("M"))
    assert size > 2600, "the disk grew to what the inventory gives it"
    assert "secret" not in on(operator, "cat", "/var/lib/cloud/instance/user-data.txt")
