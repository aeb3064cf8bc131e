"""A real image: its build killed, interrupted and finished, and the guest that boots from it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pcloud.images import Image, find_image, verify
from pcloud.keys import keypair_from_seed
from pcloud.seed import NETWORK, SeedFile, build_seed

pytestmark = pytest.mark.lab

PCLOUD = str(Path(sys.executable).with_name("pcloud"))
BUILD = [PCLOUD, "image", "build", "base"]
MOST_CPU_S = 16.0
"""From start to the SSH banner, under emulation. Measured: about 3; plain Debian: 18."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def image(home: Path) -> Image:
    done = subprocess.run(BUILD, env=_env(home), capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = find_image("base", home / "cache/images")
    assert found is not None
    return found


def test_a_killed_build_leaves_nothing_that_runs_or_could_be_used(home: Path) -> None:
    building = _start_building(home)
    os.kill(building.pid, signal.SIGKILL)
    building.wait()
    _eventually(lambda: not _touching(home), "processes or mounts of the killed build to vanish")
    assert find_image("base", home / "cache/images") is None
    assert json.loads(_run(home, PCLOUD, "image", "list", "--json").stdout) == []


def test_an_interrupted_build_says_so_and_cleans_up(home: Path) -> None:
    building = _start_building(home)
    building.send_signal(signal.SIGINT)
    assert building.wait(timeout=30) != 0
    assert not _touching(home)
    assert list((home / "cache/images").glob(".building-*")) == [], "the killed build's is swept, too"


def test_the_finished_image_is_whole_and_built_once(home: Path, image: Image) -> None:
    verify(image)
    assert image.manifest.packages["openssh-server"]
    assert image.size < 150 * 1024**2
    started = time.monotonic()
    again = _run(home, *BUILD, "--json")
    assert json.loads(again.stdout)[0]["digest"] == image.digest
    assert time.monotonic() - started < 10


def test_a_guest_is_ready_with_little_cpu_once_seeded_and_ends_at_the_power_button(
    tmp_path: Path, image: Image
) -> None:
    overlay = _overlay(tmp_path, image)
    seed = tmp_path / "seed.iso"
    seed.write_bytes(_seed())
    with _boot(tmp_path, image, overlay, seed) as guest:
        assert guest.wait_for_ssh().startswith(b"SSH-2.0-OpenSSH")
        cpu_s = guest.cpu_s()
        assert "seed unpacked" in guest.console()
        assert "is now 1048576 (4k) blocks long" in guest.console(), "the file system has grown with its disk"
        _eventually(lambda: "fe-1 is up" in guest.console(), "the console")
        guest.press_power_button()
    print(f"CPU-seconds from start to the SSH banner: {cpu_s:.1f}")  # noqa: T201 - pytest -s shows it
    assert cpu_s < MOST_CPU_S
    with _boot(tmp_path, image, overlay, seed) as guest:
        guest.wait_for_ssh()
        assert "seed unpacked" not in guest.console(), "a seed is unpacked once"
        guest.press_power_button()


def test_a_server_without_a_seed_says_so_and_switches_itself_off(tmp_path: Path, image: Image) -> None:
    with _boot(tmp_path, image, _overlay(tmp_path, image), None) as guest:
        guest.process.wait(timeout=60)
        assert "pcloud: cannot start: there is no seed disk" in guest.console()


# -- builds


def _env(home: Path) -> dict[str, str]:
    return {**os.environ, "PCLOUD_HOME": str(home), "COLUMNS": "200"}


def _run(home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=_env(home), capture_output=True, text=True, timeout=600, check=True)


def _start_building(home: Path) -> subprocess.Popen[bytes]:
    """A build that is in the middle of installing packages."""
    images, quiet = home / "cache/images", subprocess.DEVNULL
    before = set(images.glob(".building-base-*/tree/usr/bin/dpkg"))
    building = subprocess.Popen(BUILD, env=_env(home), stdout=quiet, stderr=quiet, start_new_session=True)
    _eventually(lambda: set(images.glob(".building-base-*/tree/usr/bin/dpkg")) - before, "packages to be unpacked")
    assert _touching(home)
    return building


def _touching(home: Path) -> list[str]:
    """Programs and mounts that name the folder of images."""
    found = [line for line in Path("/proc/mounts").read_text().splitlines() if str(home) in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(home) in words and int(path.parent.name) != os.getpid():
            found.append(words)
    return found


def _eventually(is_so: object, what: str, deadline_s: float = 90) -> None:
    assert callable(is_so)
    until = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < until, f"waited {deadline_s:.0f} s for {what}"
        time.sleep(0.1)


# -- guests


@dataclass
class Guest:
    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def console(self) -> str:
        return (self.folder / "console").read_text(errors="replace")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_for_ssh(self) -> bytes:
        banner = b""

        def answers() -> bool:
            nonlocal banner
            assert self.process.poll() is None, self.console()
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.settimeout(2)
                    banner = connection.recv(100)
            except OSError:
                return False
            return bool(banner)

        _eventually(answers, "SSH to answer", 180)
        return banner

    def press_power_button(self) -> None:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.folder / "qmp"))
            monitor.sendall(b'{"execute": "qmp_capabilities"}\n{"execute": "system_powerdown"}\n')
            self.process.wait(timeout=60)


def _overlay(folder: Path, image: Image) -> Path:
    path = folder / "disk.qcow2"
    backing = ["-b", str(image.disk), "-F", "qcow2"]
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(path), "4G"]
    subprocess.run(argv, check=True, timeout=60)
    return path


def _seed() -> bytes:
    private, public = keypair_from_seed(bytes(32), "fe-1")
    files = [
        SeedFile("/etc/hostname", b"fe-1\n"),
        SeedFile("/etc/machine-id", b"0123456789abcdef0123456789abcdef\n", 0o444),
        SeedFile(
            NETWORK, b"[Match]\nMACAddress=52:54:00:12:34:56\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n"
        ),
        SeedFile("/etc/ssh/ssh_host_ed25519_key", private.encode(), 0o600),
        SeedFile("/etc/ssh/ssh_host_ed25519_key.pub", public.encode()),
    ]
    return build_seed(files, instance_id="fe-1", hostname="fe-1")


@contextmanager
def _boot(folder: Path, image: Image, disk: Path, seed: Path | None) -> Iterator[Guest]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    drives = [("disk", f"file={disk},cache=unsafe")]
    if seed is not None:
        drives.append(("seed", f"file={seed},format=raw,readonly=on"))
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "qemu64", "-m", "512", "-no-hpet"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-serial", f"file:{folder / 'console'}"]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.cmdline]
    argv += ["-qmp", f"unix:{folder / 'qmp'},server=on,wait=off", "-device", "virtio-rng-pci"]
    for name, options in drives:
        argv += ["-drive", f"{options},if=none,id={name}", "-device", f"virtio-blk-pci,drive={name}"]
    argv += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    argv += ["-device", "virtio-net-pci,netdev=net,romfile="]
    process = subprocess.Popen(argv)
    try:
        yield Guest(process, port, folder)
        assert re.search(r"panic|Oops", (folder / "console").read_text(errors="replace")) is None
    finally:
        process.kill()
        process.wait()
