"""`pcloud hosts` on a lab of two hosts from which this and that is taken away, as a fresh Debian lacks it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pcloud import lab, places
from pcloud.hypervisor import NAMESPACE
from pcloud.identity import server_mac, server_uuid
from pcloud.inventory import defaults_dir, load_site
from pcloud.model import Site

pytestmark = pytest.mark.lab

DEMO = defaults_dir("inventory") / "demo.yaml"
SITE = "fresh"
POOL = "/var/lib/pcloud/pool"
# The console script's own entry, with this family of commands alone.
PROGRAM = """
import sys
from pcloud.cli import hosts
from pcloud.errors import PcloudError
try:
    code = hosts.app(standalone_mode=False) or 0
except PcloudError as error:
    sys.stderr.write(f"pcloud: {error}\\n")
    code = error.exit_code
sys.exit(code)
"""
DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>{mark}
  <memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><interface type='bridge'><mac address='{mac}'/><source bridge='br0'/></interface></devices></domain>"""
MARK = (
    f"<metadata><p:server xmlns:p='{NAMESPACE}' site='{SITE}' name='fe-1' role='frontend' "
    "spec='s' image='i' generation='1'/></metadata>"
)
STRANGER = "AAAAC3NzaC1lZDI1NTE5AAAAIGJd8mG8cVh2Ykk9cHg0Rk1oYm9tYm9tYm9tYm9tYm9t"


def inventory(folder: Path, name: str = SITE, **changes: str) -> Path:
    """The demonstration site under another name, with two hosts; `changes` are replaced texts."""
    text = re.sub(r"  - \{name: h[3-8],.*\n", "", DEMO.read_text()).replace("site: demo", f"site: {name}")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Ended:
    exit_code: int
    out: str
    err: str
    elapsed_s: float

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.out)
        return data

    def findings(self, host: str) -> dict[str, dict[str, Any]]:
        return {f["check"]: f for f in self.data["findings"] if f["host"] == host}

    def bad(self, host: str) -> set[str]:
        return {check for check, finding in self.findings(host).items() if finding["level"] == "bad"}


def pcloud(*arguments: str) -> Ended:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab of two hosts in a home of its own, gone afterwards whatever happens."""
    before = os.environ.get("PCLOUD_HOME")
    folder = tmp_path_factory.mktemp("hosts")
    os.environ["PCLOUD_HOME"] = str(folder / "home")
    file = inventory(folder / "inventory")
    site = load_site(file)
    try:
        lab.up(site)
        yield file
    finally:
        lab.down(site)
        if before is None:
            del os.environ["PCLOUD_HOME"]
        else:
            os.environ["PCLOUD_HOME"] = before


@pytest.fixture
def site(path: Path) -> Site:
    return load_site(path)


def on(site: Site, host: str, *command: str, given: str = "") -> str:
    done = subprocess.run(
        lab.shell(site, host, list(command)), input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def define(site: Site, host: str, name: str, uuid: str, mac: str, mark: str) -> None:
    xml = DOMAIN.format(name=name, uuid=uuid, mac=mac, mark=mark)
    on(site, host, "virsh", "--connect", "qemu:///system", "define", "/dev/stdin", given=xml)


def test_a_lab_host_is_ready(path: Path) -> None:
    done = pcloud("check", str(path), "--json")
    assert done.exit_code == 0, done.out
    assert done.data["ok"]
    for host in ("h1", "h2"):
        findings = done.findings(host)
        assert findings["libvirt"]["found"].startswith("libvirt ")
        assert findings["bridge"]["found"] == "br0 over eth0"
        assert float(findings["clock"]["found"].split()[0]) < 2
        assert "would run here" in findings["memory"]["found"]
    assert pcloud("prepare", str(path)).out.startswith("nothing to do; fresh: 2 hosts ready")


def test_what_was_taken_away_is_found_and_put_back(path: Path, site: Site) -> None:
    on(site, "h1", "rm", "-rf", "/etc/libvirt", POOL, "/var/lib/libvirt")
    on(site, "h1", "pkill", "-x", "libvirtd")  # its init starts it again, now without a configuration
    deadline = time.monotonic() + 30
    while "libvirt" in pcloud("check", str(path), "--json").bad("h1"):
        assert time.monotonic() < deadline
    define(site, "h1", f"{SITE}.fe-1", str(server_uuid(SITE, "fe-1")), server_mac(SITE, "fe-1"), MARK)
    on(site, "h1", "virsh", "--connect", "qemu:///system", "autostart", f"{SITE}.fe-1")

    found = pcloud("check", str(path), "--json")
    assert found.exit_code == 1
    assert found.bad("h1") == {"pool", "autostart"}
    assert found.findings("h1")["pool"]["fix"] == f"pcloud hosts prepare {SITE} h1"
    assert found.bad("h2") == set()

    asked = pcloud("prepare", str(path))
    assert asked.exit_code == 3
    assert f"pcloud hosts prepare {SITE} --yes" in asked.err
    assert f"h1: make the folder {POOL} (0711, root): it does not exist\n    install --directory" in asked.out
    assert pcloud("check", str(path), "--json").bad("h1") == {"pool", "autostart"}

    planned = pcloud("prepare", str(path), "--json")
    assert planned.exit_code == 3
    assert [(a["host"], a["argv"][0]) for a in planned.data["planned"]] == [("h1", "install"), ("h1", "virsh")]
    assert planned.data["done"] == []

    done = pcloud("prepare", str(path), "--yes")
    assert done.exit_code == 0, done.out + done.err
    assert "fresh: 2 hosts ready" in done.out
    assert on(site, "h1", "stat", "-c", "%a %U %F", POOL).strip() == "711 root directory"
    assert pcloud("check", str(path), "--json").exit_code == 0

    again = pcloud("prepare", str(path), "h1", "--yes")
    assert (again.exit_code, again.out.split(";")[0]) == (0, "nothing to do")
    on(site, "h1", "virsh", "--connect", "qemu:///system", "undefine", f"{SITE}.fe-1")


def test_a_host_without_packages_is_told_what_would_be_installed(path: Path, site: Site) -> None:
    on(site, "h2", "rm", "/usr/bin/qemu-img", "/usr/bin/virsh")
    try:
        planned = pcloud("prepare", str(path), "h2", "--json")
        update, install = (action["argv"] for action in planned.data["planned"])
        assert update[-1] == "update"
        assert install[-2:] == ["qemu-utils", "libvirt-clients"]
        assert "--no-remove" in install
        assert planned.bad("h2") == {"packages", "libvirt"}
        # This host has no package sources at all: it fails soon, says so, and the rest is as it was.
        done = pcloud("prepare", str(path), "h2", "--yes")
        assert done.exit_code == 1
        assert "failed after" in done.out and "next:" in done.out
        assert "not all of it was done; fresh: 0 of 1 host ready; not ready: h2" in done.out
        assert done.elapsed_s < 60
    finally:
        # The overlay's upper folder holds only the two marks of deletion.
        upper = places.lab_dir(SITE) / "hosts/h2/disk/usr.upper/bin"
        lab.power_off(site, "h2")
        for name in ("qemu-img", "virsh"):
            (upper / name).unlink()
        lab.power_on(site, "h2")
    assert pcloud("check", str(path), "--json").exit_code == 0


def test_somebody_elses_server_is_named_and_left_alone(path: Path, site: Site) -> None:
    mac = server_mac(SITE, "db-1")
    define(site, "h2", f"{SITE}.lb-1", "11111111-2222-3333-4444-555555555551", "52:54:00:00:00:01", "")
    define(site, "h2", "web", "11111111-2222-3333-4444-555555555552", mac, "")
    try:
        done = pcloud("check", str(path), "--json")
        wrong = [f for f in done.data["findings"] if f["check"] == "servers" and f["level"] == "bad"]
        assert done.exit_code == 1
        assert [f["host"] for f in wrong] == ["h2", "h2"]
        assert "is called fresh.lb-1" in wrong[0]["found"] and "virsh domrename" in wrong[0]["fix"]
        assert mac in wrong[1]["found"]
        assert pcloud("prepare", str(path), "--json").data["planned"] == []
    finally:
        for name in (f"{SITE}.lb-1", "web"):
            on(site, "h2", "virsh", "--connect", "qemu:///system", "undefine", name)


def test_a_bridge_that_is_not_there_is_a_text_to_apply(path: Path, tmp_path: Path) -> None:
    other = inventory(tmp_path, **{"10.77.0.12, rack: a": "10.77.0.12, rack: a, bridge: br9"})
    done = pcloud("check", str(other), "--json")
    assert (done.exit_code, done.bad("h1"), done.bad("h2")) == (1, set(), {"bridge"})
    fix = done.findings("h2")["bridge"]["fix"]
    assert "iface br9 inet static" in fix and "address 10.77.0.12/24" in fix and "gateway 10.77.0.1" in fix
    prepared = pcloud("prepare", str(other), "--yes")
    assert prepared.exit_code == 1
    assert "nothing to do; fresh: 1 of 2 hosts ready; not ready: h2" in prepared.out


def test_keys_that_are_not_pinned_wait_for_a_person(path: Path) -> None:
    file = places.lab_dir(SITE) / "known_hosts"
    good = file.read_text()
    try:
        file.write_text("".join(f"{line}\n" for line in good.splitlines() if not line.startswith("10.77.0.12 ")))
        unpinned = pcloud("check", str(path), "--json")
        assert unpinned.exit_code == 3
        assert "no host key is pinned; it shows SHA256:" in unpinned.findings("h2")["ssh"]["found"]
        assert unpinned.bad("h1") == set()
        file.write_text(re.sub(r"(10\.77\.0\.12 ssh-ed25519) \S+", rf"\1 {STRANGER}", good))
        changed = pcloud("prepare", str(path), "--yes", "--json")
        assert changed.exit_code == 3
        assert "it shows the host key SHA256:" in changed.findings("h2")["ssh"]["found"]
        assert changed.data["planned"] == []
    finally:
        file.write_text(good)


def test_a_hung_libvirt_is_a_finding_in_bounded_time(path: Path, site: Site) -> None:
    on(site, "h1", "pkill", "-STOP", "-x", "libvirtd")
    try:
        done = pcloud("check", str(path), "--json")
        assert done.exit_code == 1
        assert done.bad("h1") == {"answers", "libvirt"}
        assert "virsh" in done.findings("h1")["answers"]["found"]
        assert done.bad("h2") == set()
        assert done.elapsed_s < 30
    finally:
        on(site, "h1", "pkill", "-CONT", "-x", "libvirtd")


def test_a_host_without_power_and_a_frozen_one(path: Path, site: Site) -> None:
    lab.power_off(site, "h2")
    lab.freeze_host(site, "h1")
    try:
        done = pcloud("check", str(path), "--json")
        assert done.exit_code == 1
        assert done.bad("h1") == done.bad("h2") == {"ssh"}
        assert done.elapsed_s < 40
    finally:
        lab.thaw_host(site, "h1")
        lab.power_on(site, "h2")
    assert pcloud("check", str(path), "--json").exit_code == 0
