"""The nights the project is for: one fault a test, on a small site of four servers.

The tests share one lab and run in this order; each mends what it broke. Every one looks at
the time it took, the message and its next action, the exit code, and what is left over.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcloud import lab
from pcloud.events import Event, StepProgress, StepStarted, from_json
from pcloud.images.manifest import describe, read_manifest
from pcloud.inventory import defaults_dir, load_site
from tests.lab.bad_site import (
    POOL,
    SERVERS,
    SITE,
    Inventory,
    Yard,
    group,
    home_of,
    inventory,
    link_images,
    page,
    timed,
    write_inventory,
)
from tests.lab.conftest import LONGEST_S, PCLOUD, Operator, Ran

pytestmark = pytest.mark.lab

BROKEN_SHOP = """def application(environ, start_response):
    start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
    return [b"broken"]
"""


@pytest.fixture(scope="module")
def yard(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The small site's lab, nothing on it yet; whatever happens, the lab goes down."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("bad_days")
    link_images(images, home)
    path = write_inventory(folder / "inventory" / f"{SITE}.yaml", inventory())
    yard = Yard(Operator(home, folder, SITE), load_site(path))
    try:
        up = yard.operator.run("lab", "up", SITE)
        assert up.code == 0, up.err
        yield yard
        if os.environ.get("PCLOUD_WRITE_BAD_DAYS"):
            Path(os.environ["PCLOUD_WRITE_BAD_DAYS"]).write_text(page(yard.rows))
    finally:
        with home_of(yard.operator):
            lab.down(yard.site)


def started(key: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, StepStarted) and event.step.endswith(key)


MID_RUN = [
    pytest.param("cut", "mend", "a host's cable is cut", id="cut"),
    pytest.param("freeze-host", "thaw-host", "a whole host freezes", id="freeze", marks=pytest.mark.chaos),
]

# -- before anything is built


Break = Callable[[Yard], None]


def of_lab(command: str) -> Break:
    def run(yard: Yard) -> None:
        assert yard.operator.run("lab", command, f"{SITE}/h2").code == 0

    return run


def unproven(harm: Break) -> Break:
    """The same, and nobody can prove the host off: its controller is dead."""

    def run(yard: Yard) -> None:
        with home_of(yard.operator):
            lab.set_bmc(yard.site, "h2", "dead")
        harm(yard)

    return run


def proven(mend: Break) -> Break:
    def run(yard: Yard) -> None:
        mend(yard)
        with home_of(yard.operator):
            lab.set_bmc(yard.site, "h2", "ok")

    return run


def signal_all(number: str, name: str) -> Break:
    def run(yard: Yard) -> None:
        yard.inside("h2", "pkill", f"-{number}", "-x", name)

    return run


def swap_pins(yard: Yard) -> None:
    """The key that is pinned for h2 becomes h3's, or is h2's own again."""
    path = yard.operator.home / "state" / "labs" / SITE / "known_hosts"
    keep = path.with_name("kept")
    if keep.exists():
        keep.replace(path)
        return
    shutil.copy(path, keep)
    keys = dict(line.split(" ", 1) for line in path.read_text().splitlines())
    keys["10.77.0.12"] = keys["10.77.0.13"]
    path.write_text("".join(f"{address} {key}\n" for address, key in keys.items()))


CONFIRM = "pcloud fence confirm bad/h2 --i-have-powered-it-off"
SILENT: list[tuple[str, Break, Break, str]] = [
    ("a host and its controller without power", unproven(of_lab("power-off")), proven(of_lab("power-on")), CONFIRM),
    ("a host's cables are cut", unproven(of_lab("cut")), proven(of_lab("mend")), CONFIRM),
    ("a whole host is frozen", unproven(of_lab("freeze-host")), proven(of_lab("thaw-host")), CONFIRM),
    ("sshd is frozen", unproven(signal_all("STOP", "sshd")), proven(signal_all("CONT", "sshd")), CONFIRM),
    ("libvirtd is frozen", signal_all("STOP", "libvirtd"), signal_all("CONT", "libvirtd"), "restart libvirtd"),
    ("a host shows another host key", swap_pins, swap_pins, "state/labs/bad/known_hosts by: 10.77.0.12 ssh-ed25519"),
]


LONG = ("a host and its controller without power", "a whole host is frozen")
"""Run by `make chaos`: a host whose cables are cut answers as little, and costs `make test` the same again."""


@pytest.mark.parametrize(
    ("fault", "harm", "mend", "words"),
    [pytest.param(*row, id=row[0], marks=[pytest.mark.chaos] if row[0] in LONG else []) for row in SILENT],
)
def test_a_host_that_may_run_servers_and_does_not_say(
    yard: Yard, fault: str, harm: Break, mend: Break, words: str
) -> None:
    """Unreachable is not dead: nothing is built, and the message says why and what goes on."""
    harm(yard)
    try:
        ran, seconds = timed(yard.operator.recover)
    finally:
        mend(yard)
    assert ran.code == 3, ran.out + ran.err
    blocked = {k for k, s in ran.state.steps.items() if s.status == "blocked"}
    assert blocked and blocked <= {"h2/fence", *(f"{s}/blocked" for s in SERVERS)}
    yard.tried(fault, ran, seconds, 40, "nothing was built; once it is mended, the same command goes on", words)
    assert yard.copies() == [] and yard.orphans() == []


def test_a_server_of_the_same_name_that_is_not_ours(yard: Yard) -> None:
    xml = (
        f"<domain type='qemu'><name>{SITE}.db-1</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
    )
    yard.inside("h3", "sh", "-c", f'echo "{xml}" > /root/f.xml && virsh -q -c qemu:///system define /root/f.xml')
    ran, seconds = timed(lambda: yard.operator.recover("--only", "database"))
    assert ran.code == 3, ran.out + ran.err
    yard.tried(
        "a host has a server of the same name that is not pcloud's",
        ran,
        seconds,
        15,
        "it was not touched; renamed by the command that is named, it stays",
        "that is not pcloud's",
        f"pcloud ssh {SITE}/h3 -- virsh domrename {SITE}.db-1",
    )
    yard.operator.on("h3", "virsh", "domrename", f"{SITE}.db-1", "somebody-elses")
    assert "somebody-elses" in yard.inside("h3", "virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name")


def test_a_full_pool(yard: Yard) -> None:
    yard.inside("h1", "mount", "-t", "tmpfs", "-o", "size=40m", "none", POOL)
    try:
        ran, seconds = timed(lambda: yard.operator.recover("--only", "database"))
        assert ran.code == 1, ran.out + ran.err
        yard.tried(
            "a host's pool is full",
            ran,
            seconds,
            40,
            "half a file is removed again; with room, the same command goes on",
            "No space left on device",
            f"pcloud ssh {SITE}/h1 -- df -h",
        )
    finally:
        yard.inside("h1", "mount", "-o", "remount,size=2g", POOL)


def test_a_pool_that_fills_up_under_a_server(yard: Yard) -> None:
    """Room for the image, not for what the database writes: it is paused, and goes on where it stopped."""
    yard.inside("h1", "mount", "-o", "remount,size=130m", POOL)
    try:
        ran, seconds = timed(lambda: yard.operator.recover("--only", "database"))
    finally:
        yard.inside("h1", "mount", "-o", "remount,size=2g", POOL)
    assert ran.code == 1, ran.out + ran.err
    yard.tried(
        "a host's pool fills up under a server that boots",
        ran,
        seconds,
        90,
        "it is paused, keeps what it wrote, and with room the same command lets it go on",
        "db-1 was paused by an error of its disk",
        "likely: the pool of its host is full",
        "make room on h1",
    )
    site = yard.variant("no-dump", lambda data: data["database"].pop("dump"))
    again = yard.operator.recover("--only", "db-1", site=site)
    assert again.changed() == {"h1/db-1/start"} and again.state.steps["db-1/ready"].status == "done", again.out


# -- the data


def _missing(folder: Path, _whole: bytes) -> Path:
    return folder / "nowhere.sql.gz"


def _cut(folder: Path, whole: bytes) -> Path:
    (folder / "cut.sql.gz").write_bytes(whole[: len(whole) // 2])
    return folder / "cut.sql.gz"


def _no_end(folder: Path, whole: bytes) -> Path:
    text = gzip.decompress(whole)
    path = folder / "no-end.sql.gz"
    path.write_bytes(gzip.compress(text[: text.rindex(b"INSERT INTO", 0, len(text) * 4 // 5)]))
    return path


DUMPS = [
    ("the dump is missing", _missing, "is not there"),
    ("the dump is cut off (half a .gz)", _cut, "is damaged or cut off"),
    ("the dump is cut off (packed whole, its last tables are missing)", _no_end, "is cut off"),
]


@pytest.mark.parametrize(("fault", "make", "words"), DUMPS, ids=[row[0] for row in DUMPS])
def test_a_dump_that_cannot_be_used(
    yard: Yard, fault: str, make: Callable[[Path, bytes], Path], words: str, tmp_path: Path
) -> None:
    whole = (defaults_dir("templates") / "shop/dump/shop.sql.gz").read_bytes()
    path = make(tmp_path, whole)
    site = yard.variant("dump", lambda data: data["database"].update(dump=str(path)))
    ran, seconds = timed(lambda: yard.operator.recover("--only", "database", site=site))
    assert ran.code == 3, ran.out + ran.err
    assert ran.state.steps["db-1/restore"].status == "blocked"
    yard.tried(
        fault, ran, seconds, 120, "the database runs, empty; the shop does not", words, "--empty-database", str(path)
    )
    assert yard.orphans() == []


def test_then_the_whole_site_recovers(yard: Yard) -> None:
    ran = yard.operator.recover()
    assert ran.code == 0, ran.out[-3000:] + ran.err
    yard.expect_whole()


# -- a server that never comes up, and an image that is not what it was


@pytest.fixture
def whole(yard: Yard) -> None:
    """Whatever came before, each server runs."""
    ran = yard.operator.recover()
    assert ran.code == 0, ran.out[-3000:] + ran.err


def make_stump(yard: Yard) -> None:
    """An image of the balancer whose initrd ends early, with a manifest that agrees."""
    images = yard.operator.home / "cache" / "images"
    real = next(images.glob("balancer-*"))
    broken = images / ".stump"
    shutil.copytree(real.resolve(), broken)
    initrd = broken / "initrd.img"
    initrd.write_bytes(initrd.read_bytes()[: initrd.stat().st_size // 2])
    manifest = json.loads((broken / "manifest.json").read_text())
    content = describe(initrd)
    manifest["recipe"] = "stump"
    manifest["files"]["initrd.img"] = {"sha256": content.sha256, "size": content.size}
    (broken / "manifest.json").write_text(json.dumps(manifest))
    broken.rename(images / read_manifest(broken).name)


@pytest.mark.usefixtures("whole")
def test_a_server_that_never_boots(yard: Yard) -> None:
    make_stump(yard)

    def change(data: Inventory) -> None:
        data["images"]["balancer"] = {"recipe": "stump"}
        group(data, "balancer")["boot_timeout_s"] = 12

    site = yard.variant("stump", change)
    ran, seconds = timed(lambda: yard.operator.recover(site=site))
    assert ran.code == 1, ran.out + ran.err
    yard.tried(
        "a server never boots (half an initrd)",
        ran,
        seconds,
        60,
        "the others run on; with a good image, the same command makes it anew",
        "lb-1 did not come up within 12 s",
        "its console ends with:\n  | ",
        "Kernel panic - not syncing: VFS: Unable to mount root fs",
        "likely: it could not mount its disk",
        "--rebuild lb-1",
    )
    assert yard.orphans() == []


@pytest.mark.usefixtures("whole")
def test_an_image_on_a_host_is_corrupt_or_missing(yard: Yard) -> None:
    """One byte is another (same size), and one file is gone: both are refused by name and copied anew."""
    host = yard.where("lb-1")
    digest = next((yard.operator.home / "cache" / "images").glob("balancer-*")).name.removeprefix("balancer-")
    stem = f"{POOL}/pcloud-image.balancer.{digest}"
    size = yard.inside(host, "stat", "-c", "%s", f"{stem}.initrd.img")
    yard.inside(host, "dd", "if=/dev/urandom", f"of={stem}.initrd.img", "bs=1", "count=64", "seek=4096", "conv=notrunc")
    yard.inside(host, "rm", f"{stem}.vmlinuz")
    assert yard.inside(host, "stat", "-c", "%s", f"{stem}.initrd.img") == size
    ran, seconds = timed(lambda: yard.operator.recover("--rebuild", "lb-1"))
    assert ran.code == 0, ran.out[-3000:] + ran.err
    refused = " ".join(ran.state.steps[f"{host}/image/balancer"].facts["refused"])
    assert f"{digest}.initrd.img is corrupt" in refused and f"{digest}.vmlinuz is missing" in refused
    yard.rows.append(
        f"| an image's copy on a host is corrupt (same size), another file of it missing | in the report: {refused} "
        f"| 0 | copied anew and verified before a server is made of it | {seconds:.0f} |"
    )
    yard.expect_whole()


# -- on the way


@pytest.mark.usefixtures("whole")
def test_a_frontend_that_boots_and_answers_500(yard: Yard) -> None:
    """Broken on its disk, so that a start does not help; then the command that the message names does."""
    host = yard.where("fe-1")
    shop = "/opt/shop/src/pepiniere"
    script = f"cat > {shop}/wsgi.py <<'END'\n{BROKEN_SHOP}END\nrm -f {shop}/__pycache__/wsgi.*; sync"
    yard.operator.on("fe-1", "sh", "-c", script)
    yard.inside(host, "virsh", "-c", "qemu:///system", "destroy", f"{SITE}.fe-1")
    site = yard.variant("short", lambda data: group(data, "frontend").update(boot_timeout_s=25))
    ran, seconds = timed(lambda: yard.operator.recover(site=site))
    assert ran.code == 1, ran.out + ran.err
    yard.tried(
        "a frontend boots and answers 500",
        ran,
        seconds,
        90,
        "the others run on; made anew by the command that is named, it answers",
        "500",
        "likely: it booted, but its service",
        f"pcloud recover {SITE} --rebuild fe-1",
    )
    assert yard.copies() == sorted(SERVERS)


def test_ctrl_c_twice(yard: Yard) -> None:
    """At once, and nothing is lost: the same command goes on. It mends the frontend of the test before."""
    process = yard.operator.start("recover", SITE, "--yes", "--json", "--rebuild", "fe-1")
    assert process.stdout is not None and process.stderr is not None
    events = []
    for line in process.stdout:
        events.append(from_json(line))
        if started("fe-1/ready")(events[-1]):
            break
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    seconds = time.monotonic() - began
    yard.rows.append(
        f"| Ctrl-C twice | {said.strip()} | {process.returncode} | at once; the same command goes on | {seconds:.0f} |"
    )
    assert process.returncode == 1 and seconds < 5
    assert f"Go on with: pcloud recover {SITE}" in said
    ran = yard.operator.recover()
    assert ran.code == 0, ran.out[-3000:] + ran.err
    yard.expect_whole()


@pytest.mark.usefixtures("whole")
@pytest.mark.chaos
def test_libvirtd_freezes_in_the_middle_of_a_run(yard: Yard) -> None:
    host = yard.where("lb-1")
    process = yard.operator.start("recover", SITE, "--yes", "--json", "--rebuild", "lb-1")
    assert process.stdout is not None
    events = []
    began = time.monotonic()
    try:
        for line in process.stdout:
            events.append(from_json(line))
            if started("lb-1/disk")(events[-1]):
                yard.inside(host, "pkill", "-STOP", "-x", "libvirtd")
        process.wait(timeout=120)
    finally:
        yard.inside(host, "pkill", "-CONT", "-x", "libvirtd")
    ran = Ran(process.returncode, "", "", events)
    assert ran.code == 1
    yard.tried(
        "libvirtd freezes in the middle of a run",
        ran,
        time.monotonic() - began,
        90,
        "nothing runs twice; once it goes on, the same command goes on",
        "restart libvirtd",
    )
    again = yard.operator.recover()
    assert again.code == 0, again.out[-3000:] + again.err
    yard.expect_whole()


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(("harm", "mend", "words"), MID_RUN)
def test_a_host_falls_silent_in_the_middle_of_a_run(yard: Yard, harm: str, mend: str, words: str) -> None:
    """The run ends in bounded time; the same command finds the host silent, fences it and goes on elsewhere."""
    host = yard.where("lb-1")
    process = yard.operator.start("recover", SITE, "--yes", "--json", "--rebuild", "lb-1")
    assert process.stdout is not None
    events = []
    began = time.monotonic()
    for line in process.stdout:
        events.append(from_json(line))
        if started("lb-1/disk")(events[-1]):
            assert yard.operator.run("lab", harm, f"{SITE}/{host}").code == 0
    process.wait(timeout=300)
    ran = Ran(process.returncode, "", "", events)
    assert ran.code == 1
    yard.tried(
        f"{words} in the middle of a run",
        ran,
        time.monotonic() - began,
        120,
        "the same command fences the host and goes on elsewhere",
    )
    again = yard.operator.recover()
    assert again.code == 0, again.out[-3000:] + again.err
    assert again.state.steps[f"{host}/fence"].facts["proof"] == "redfish: on, then off, read twice"
    assert yard.copies() == sorted(SERVERS)
    yard.operator.run("lab", mend, f"{SITE}/{host}")  # what is off is neither cut nor frozen any more
    assert yard.operator.run("lab", "power-on", f"{SITE}/{host}").code == 0
    back = yard.operator.recover()
    assert back.code == 0, back.out[-3000:] + back.err
    yard.expect_whole()


@pytest.mark.usefixtures("whole")
def test_sshd_freezes_under_a_server_that_sells(yard: Yard) -> None:
    """Its controller would cut the power at once, and with it a balancer that shoppers use."""
    host = yard.where("lb-1")
    yard.inside(host, "pkill", "-STOP", "-x", "sshd")
    try:
        ran, seconds = timed(yard.operator.recover)
    finally:
        yard.inside(host, "pkill", "-CONT", "-x", "sshd")
    assert ran.code == 3, ran.out + ran.err
    yard.tried(
        "sshd is frozen under a server that sells",
        ran,
        seconds,
        60,
        "its power is left alone, and the server goes on selling",
        "which no other has",
        f"pcloud failover {SITE} {host}",
    )
    assert yard.copies() == sorted(SERVERS)
    assert yard.operator.recover().changed() == set()


# -- the operator's own machine


def on_small_disk(yard: Yard, kib: int, *argv: str) -> Ran:
    """pcloud with its runs on a disk of this size that nobody else sees (a mount namespace of its own)."""
    sites = yard.operator.home / "state" / "sites"
    script = 'mount -t tmpfs -o "size=$1k" none "$2" && shift 2 && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(kib), str(sites), PCLOUD, *argv],
        env=yard.operator.env,
        cwd=yard.operator.folder,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        stdin=subprocess.DEVNULL,
    )
    ran = Ran(done.returncode, done.stdout, done.stderr)
    ran.events = [from_json(line) for line in ran.out.splitlines() if line.startswith("{")]
    return ran


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(("kib", "moment"), [(8, "before the run"), (16, "in the middle of a run")])
def test_the_operators_disk_is_full(yard: Yard, kib: int, moment: str) -> None:
    ran, seconds = timed(lambda: on_small_disk(yard, kib, "recover", SITE, "--yes", "--json", "--rebuild", "lb-1"))
    assert ran.code == 1, ran.out[-3000:] + ran.err
    assert ran.err.startswith("pcloud: "), ran.err
    assert bool(ran.events) == (moment != "before the run")
    yard.tried(
        f"the operator's disk is full {moment}",
        ran,
        seconds,
        60,
        "what had begun ends; with room, the same command goes on",
        "No space left on device",
        "make room",
    )
    again = yard.operator.recover()
    assert again.code == 0, again.out[-3000:] + again.err
    yard.expect_whole()


TINY = """mount -t tmpfs -o size=60m none "$1" && mkdir "$1/cache" && ln -s "$2" "$1/cache/images"
export PCLOUD_HOME="$1"; shift 2
"$0" lab up tiny >&2 || exit 90
"$0" recover tiny --yes --json; code=$?
"$0" status tiny >&2 || code=91
"$0" lab down tiny >&2 || code=92
exit $code
"""


def test_the_labs_own_machine_is_nearly_full(images: Path, yard: Yard, tmp_path: Path) -> None:
    """One disk for the lab's hosts and the operator's runs, with room for half an image."""
    write_inventory(tmp_path / "inventory" / "tiny.yaml", inventory(hosts=2, site="tiny"))
    (tmp_path / "home").mkdir()

    def run() -> Ran:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", TINY, PCLOUD, str(tmp_path / "home"), str(images)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        ran.events = [from_json(line) for line in ran.out.splitlines() if line.startswith("{")]
        return ran

    ran, seconds = timed(run)
    assert ran.code == 1, ran.out[-3000:] + ran.err
    yard.tried(
        "the lab's own machine has its disk nearly full",
        ran,
        seconds,
        120,
        "half files are removed again, and the lab goes down as ever",
        "No space left on device",
        "make room",
    )
    assert not list((tmp_path / "home").iterdir()), "the small disk was never seen outside"


# -- make chaos


def quiet(events: list[Event]) -> int:
    return sum(not isinstance(e, StepProgress) for e in events)


@pytest.mark.usefixtures("whole")
@pytest.mark.chaos
def test_killed_at_every_event_of_a_rebuild(yard: Yard) -> None:
    """-9 after the first event of the run, the second, the third, ..., and the same site is whole each time."""
    number, came = 0, True
    while came:  # until a run ends before its moment: runs differ by an event or two
        number += 1
        seen: list[Event] = []

        def when(event: Event, seen: list[Event] = seen, number: int = number) -> bool:
            seen.append(event)
            return quiet(seen) == number

        _, came = yard.operator.try_interrupt(["--rebuild", "fe-1"], when, signal.SIGKILL)
        ran = yard.operator.recover()
        assert ran.code == 0, (number, ran.out[-3000:] + ran.err)
        yard.expect_whole()
        assert yard.operator.recover().changed() == set(), number
    assert number > 15


@pytest.mark.usefixtures("whole")
@pytest.mark.chaos
def test_the_host_loses_power_at_every_event_of_a_rebuild(yard: Yard) -> None:
    """The run ends in bounded time and says so; with power again, the same site is whole."""
    host = yard.where("lb-1")
    rebuilt = yard.operator.recover("--rebuild", "lb-1")
    assert rebuilt.code == 0, rebuilt.out[-3000:] + rebuilt.err
    for number in range(1, quiet(rebuilt.events)):
        process = yard.operator.start("recover", SITE, "--yes", "--json", "--rebuild", "lb-1")
        assert process.stdout is not None
        seen: list[Event] = []
        began = time.monotonic()
        for line in process.stdout:
            seen.append(from_json(line))
            if quiet(seen) == number and not isinstance(seen[-1], StepProgress):
                with home_of(yard.operator):
                    lab.power_off(yard.site, host)
        assert process.wait(timeout=300) != 0 or quiet(seen) > quiet(rebuilt.events) - 3, number
        assert time.monotonic() - began < 300, number
        assert yard.operator.run("lab", "power-on", f"{SITE}/{host}").code == 0
        ran = yard.operator.recover()
        assert ran.code == 0, (number, ran.out[-3000:] + ran.err)
        yard.expect_whole()
