"""The lab's hosts, for real: namespaces, sshd, libvirtd, a guest on the bridge, and everything that breaks them."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml

from pcloud import lab, places
from pcloud.errors import BadInput, Blocked
from pcloud.inventory import load_site
from pcloud.lab import layout, processes
from pcloud.model import Site

DEMO = Path(__file__).parents[2] / "inventory" / "demo.yaml"
ADDRESS = {f"h{n}": f"10.77.0.{10 + n}" for n in range(1, 9)}
GUEST = """
<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface></devices>
</domain>
"""
# What a program of the operator begins with: the site, the lab's network, and libvirt over SSH with pinned keys.
PREAMBLE = """
import json, os, pathlib, sys, time
from pcloud import lab, places
from pcloud.lab import ready
from pcloud.inventory import load_site
site = load_site(pathlib.Path({demo!r}))
lab.enter(site)
folder = places.lab_dir(site.site)
def hypervisor(address):
    import libvirt
    libvirt.registerErrorHandler(lambda *_: None, None)
    wrapper = folder.parent / "ssh-wrapper"
    wrapper.write_text(f'''#!/bin/sh
exec ssh -i {{folder}}/operator_key -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=5 \\\\
  -o UserKnownHostsFile={{folder}}/known_hosts -o StrictHostKeyChecking=yes "$@"
''')
    wrapper.chmod(0o700)
    return libvirt.open(f"qemu+ssh://root@{{address}}/system?command={{wrapper}}")
"""


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site(DEMO)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own, so that nobody's lab is in the way; whatever happens, its lab goes down."""
    before = os.environ.get("PCLOUD_HOME")
    folder = tmp_path_factory.mktemp("home")
    os.environ["PCLOUD_HOME"] = str(folder)
    yield folder
    if os.geteuid() == 0:
        lab.down(load_site(DEMO))
    if before is None:
        del os.environ["PCLOUD_HOME"]
    else:
        os.environ["PCLOUD_HOME"] = before


@pytest.fixture
def running(site: Site) -> Site:
    """The lab of the demonstration site, every host on, whole and awake."""
    lab.up(site)
    for host in lab.status(site):
        if host.power == "frozen":
            lab.thaw_host(site, host.name)
        if host.power == "off":
            lab.power_on(site, host.name)
        if host.link != "up":
            lab.mend(site, host.name)
    return site


def operate(code: str, **environ: str) -> str:
    """Runs a program of the operator's in a process of its own, in the lab's network; its output."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE.format(demo=str(DEMO)) + code],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def inside(site: Site, host: str, *argv: str) -> str:
    done = subprocess.run(lab.shell(site, host, list(argv)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers(host: str) -> bool:
    return operate(f"print(ready.ssh_answers({ADDRESS[host]!r}, 1))").strip() == "True"


def eventually(true: Callable[[], bool], timeout_s: float = 10) -> bool:
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def state_of(site: Site, name: str) -> lab.HostStatus:
    return next(host for host in lab.status(site) if host.name == name)


def machine_facts() -> dict[str, str]:
    """What a lab must not change: the machine's interfaces, routes, rules, sysctls of the network, and mounts."""
    facts = {}
    for argv in (["ip", "-json", "link"], ["ip", "-json", "route", "show", "table", "all"], ["nft", "list", "ruleset"]):
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        facts[" ".join(argv)] = text
    addresses = subprocess.run(["ip", "-json", "address"], capture_output=True, text=True, check=True).stdout
    facts["addresses"] = str(
        [(link["ifname"], [a["local"] for a in link["addr_info"]]) for link in json.loads(addresses)]
    )
    for name in ("ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv6/conf/all/disable_ipv6"):
        path = Path("/proc/sys/net", name)
        facts[name] = path.read_text() if path.exists() else ""
    facts["mounts"] = "\n".join(line.split(" ", 1)[1] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return facts


@pytest.mark.lab
def test_eight_hosts_come_up_in_seconds_and_libvirt_answers_over_pinned_ssh(site: Site) -> None:
    lab.down(site)
    before = machine_facts()
    began = time.monotonic()
    report = lab.up(site)
    elapsed = time.monotonic() - began
    assert report.started == tuple(ADDRESS)
    assert (report.running, report.off, report.extra) == ((), (), ())
    assert elapsed < 30, f"{elapsed:.1f} s"
    code = """
found = {}
for host in site.hosts:
    connection = hypervisor(host.address)
    told = connection.getCapabilities()
    found[host.name] = [connection.getHostname(), connection.listAllDomains(), told.count("<uuid>")]
print(json.dumps(found))
"""
    found = json.loads(operate(code))
    assert found == {name: [f"{name}.internal", [], 1] for name in ADDRESS}
    assert machine_facts() == before


@pytest.mark.lab
def test_up_on_a_running_lab_changes_nothing(running: Site) -> None:
    folder = places.lab_dir("demo")
    files = {p: p.read_bytes() for p in (folder / "known_hosts", folder / "operator_key", folder / "secrets.yaml")}
    parts = processes.find_parts(folder)
    report = lab.up(running)
    assert (report.started, report.running) == ((), tuple(ADDRESS))
    assert processes.find_parts(folder) == parts
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.lab
def test_a_host_with_another_key_is_refused(running: Site) -> None:
    pins = places.lab_dir("demo") / "known_hosts"
    true = pins.read_text()
    lines = true.splitlines()
    keys = [line.split(" ", 1)[1] for line in lines]
    assert len(set(keys)) == len(keys) == 8
    try:
        pins.write_text(f"{ADDRESS['h1']} {keys[1]}\n")
        said = operate(
            f"import libvirt\ntry: hypervisor({ADDRESS['h1']!r})\nexcept libvirt.libvirtError as e: print(e)"
        )
    finally:
        pins.write_text(true)
    assert "verification failed" in said


@pytest.mark.lab
def test_hosts_are_each_their_own(running: Site) -> None:
    machine_ids = {inside(running, name, "cat", "/etc/machine-id") for name in ADDRESS}
    uuids = {re.search(r"<uuid>(.*?)</uuid>", inside(running, name, "virsh", "capabilities")) for name in ("h1", "h2")}
    assert len(machine_ids) == len(ADDRESS)
    assert len({match[1] for match in uuids if match}) == 2
    assert inside(running, "h3", "hostname") == "h3\n"
    assert inside(running, "h3", "cat", "/proc/1/cmdline") == "init\0"
    assert not [line for line in inside(running, "h3", "ps", "-eo", "stat").splitlines() if line.startswith("Z")]


@pytest.mark.lab
def test_a_host_sees_nothing_of_the_operator(running: Site, home: Path) -> None:
    secret = home / "cache" / "only-for-the-operator"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("x")
    seen = inside(running, "h1", "find", "/", "-xdev", "-name", "only-for-the-operator", "-o", "-name", "operator_key")
    assert seen == ""
    assert inside(running, "h1", "find", "/root", "/home", "/tmp", "-type", "f") == "/root/.ssh/authorized_keys\n"
    for path in (home, Path(__file__)):
        assert inside(running, "h1", "sh", "-c", 'test -e "$1" || echo none', "-", str(path)) == "none\n"
    assert sorted(inside(running, "h1", "ls", "/etc/ssh").split()) == [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
        "sshd_config",
    ]


@pytest.mark.lab
def test_a_power_cut_kills_the_guests_and_the_disk_survives(running: Site) -> None:
    operate(f"hypervisor({ADDRESS['h2']!r}).defineXML({GUEST.format(name='g1')!r}).create()")
    assert state_of(running, "h2").guests == 1
    assert "vnet0" in inside(running, "h2", "ls", "/sys/class/net/br0/brif")
    for path in ("/run/here", "/tmp/here", "/var/lib/pcloud/pool/here", "/usr/local/here"):
        inside(running, "h2", "touch", path)
    part = processes.find_parts(places.lab_dir("demo"))["h2"]
    assert len(processes.members(part)) >= 4

    assert lab.power_off(running, "h2") is True
    assert processes.members(part) == []
    assert (state_of(running, "h2").power, state_of(running, "h2").link) == ("off", "-")
    assert lab.power_off(running, "h2") is False
    assert lab.up(running).off == ("h2",)
    with pytest.raises(Blocked, match="it has no power"):
        lab.freeze_host(running, "h2")

    assert lab.power_on(running, "h2") is True
    assert lab.power_on(running, "h2") is False
    assert state_of(running, "h2").guests == 0
    states = operate(
        f"print([(d.name(), d.isActive(), d.autostart()) for d in hypervisor({ADDRESS['h2']!r}).listAllDomains()])"
    )
    assert states == "[('g1', 0, 0)]\n"
    left = inside(running, "h2", "find", "/run", "/tmp", "/var/lib/pcloud/pool", "/usr/local", "-name", "here")
    assert sorted(left.split()) == ["/usr/local/here", "/var/lib/pcloud/pool/here"]
    assert not Path("/usr/local/here").exists()


@pytest.mark.lab
def test_libvirtd_is_started_again_when_it_dies(running: Site) -> None:
    inside(running, "h5", "pkill", "-KILL", "-x", "libvirtd")
    assert eventually(
        lambda: (
            operate(f"try: print(hypervisor({ADDRESS['h5']!r}).getHostname())\nexcept Exception as e: print(e)").strip()
            == "h5.internal"
        )
    )


@pytest.mark.lab
@pytest.mark.parametrize(("direction", "link"), [("both", "cut"), ("in", "cut-in"), ("out", "cut-out")])
def test_a_cut_cable_stays_cut_until_it_is_mended(running: Site, direction: lab.Direction, link: str) -> None:
    lab.cut(running, "h3", direction)
    assert state_of(running, "h3").link == link
    assert not answers("h3")
    assert answers("h4")
    lab.power_off(running, "h3")
    lab.power_on(running, "h3")
    assert state_of(running, "h3").link == link
    lab.mend(running, "h3")
    assert state_of(running, "h3").link == "up"
    assert eventually(lambda: answers("h3"))


@pytest.mark.lab
@pytest.mark.parametrize("direction", ["both", "in", "out"])
def test_a_cable_can_be_mended_while_the_host_is_off(running: Site, direction: lab.Direction) -> None:
    lab.cut(running, "h3", direction)
    lab.power_off(running, "h3")
    lab.mend(running, "h3")
    lab.power_on(running, "h3", timeout_s=20)
    assert state_of(running, "h3").link == "up"


@pytest.mark.lab
def test_one_way_cuts_are_one_way(running: Site) -> None:
    counter = "/sys/class/net/eth0/statistics/rx_packets"
    before = int(inside(running, "h6", "cat", counter))
    lab.cut(running, "h6", "in")
    answers("h6")
    assert int(inside(running, "h6", "cat", counter)) - before == 0
    lab.cut(running, "h6", "out")
    answers("h6")
    assert int(inside(running, "h6", "cat", counter)) - before > 0
    lab.mend(running, "h6")


@pytest.mark.lab
def test_a_frozen_host_has_power_and_answers_nothing(running: Site) -> None:
    lab.freeze_host(running, "h4")
    assert state_of(running, "h4").power == "frozen"
    assert not answers("h4")
    lab.freeze_host(running, "h4")
    lab.thaw_host(running, "h4")
    assert state_of(running, "h4").power == "on"
    assert eventually(lambda: answers("h4"))
    lab.freeze_host(running, "h4")
    lab.power_off(running, "h4")
    assert state_of(running, "h4").power == "off"


@pytest.mark.lab
def test_secrets_are_made_once_and_private(running: Site) -> None:
    folder = places.lab_dir("demo")
    path = folder / "secrets.yaml"
    secrets = yaml.safe_load(path.read_text())
    assert {"ssh/operator", "site/identity", "db/shop", "db/monitor", "shop/django"} <= secrets.keys()
    assert secrets["ssh/operator"] == (folder / "operator_key").read_text()
    assert len(set(secrets.values())) == len(secrets)
    assert all(isinstance(value, str) and len(value) >= 32 for value in secrets.values())
    for file in (path, folder / "operator_key"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    path.write_text("# mine\ndb/shop: chosen\n")
    lab.up(running)
    again = yaml.safe_load(path.read_text())
    assert again.keys() == secrets.keys()
    assert again["db/shop"] == "chosen"
    assert path.read_text().startswith("# mine\n")


@pytest.mark.lab
def test_enter_keeps_everything_but_the_network(running: Site, tmp_path: Path) -> None:
    """With one thread the process moves; with two it starts again, and must not loop."""
    script = tmp_path / "program.py"
    script.write_text(
        "import os, sys, threading, time\n"
        "if sys.argv[1] == 'two': threading.Thread(target=time.sleep, args=(3,), daemon=True).start()\n"
        + PREAMBLE.format(demo=str(DEMO))
        + "print(os.getpid(), os.readlink('/proc/thread-self/ns/net'), os.getcwd(), sys.argv[1:], os.environ['MARK'])\n"
    )
    fabric = processes.find_fabric(places.lab_dir("demo"))
    assert fabric is not None
    for threads in ("one", "two"):
        started = subprocess.Popen(
            [sys.executable, str(script), threads, "a b"],
            cwd=tmp_path,
            env={**os.environ, "MARK": "kept"},
            stdout=subprocess.PIPE,
            text=True,
        )
        said, _ = started.communicate(timeout=60)
        assert said == f"{started.pid} {fabric.net_ns} {tmp_path} {[threads, 'a b']} kept\n"
    assert str(Path("/proc/self/ns/net").readlink()) != fabric.net_ns


@pytest.mark.lab
def test_two_labs_with_the_same_addresses_side_by_side(running: Site, tmp_path: Path) -> None:
    other = {"PCLOUD_HOME": str(tmp_path)}
    program = f"""
import pathlib, sys
from pcloud import lab
from pcloud.inventory import load_site
site = load_site(pathlib.Path({str(DEMO)!r}))
getattr(lab, sys.argv[1])(site, *map(int, sys.argv[2:]))
"""
    environ = {**os.environ, **other}
    subprocess.run([sys.executable, "-c", program, "up", "2"], env=environ, timeout=120, check=True)
    try:
        ids = {
            operate("print(hypervisor('10.77.0.11').getCapabilities().__len__(), folder)", **env) for env in (other, {})
        }
        assert len(ids) == 2
        assert len(processes.find_parts(tmp_path / "state/labs/demo")) == 3
    finally:
        subprocess.run([sys.executable, "-c", program, "down"], env=environ, timeout=60, check=True)
    assert processes.find_parts(tmp_path / "state/labs/demo") == {}
    assert all(host.power == "on" for host in lab.status(running))
    assert answers("h1")


@pytest.mark.lab
def test_the_storefront_is_opened_to_this_machine_until_ctrl_c(running: Site) -> None:
    inside(running, "h7", "ip", "address", "replace", "10.77.0.80/24", "dev", "br0")
    inside(running, "h7", "sh", "-c", "echo bonjour > /srv/index.html")
    server = subprocess.Popen(
        lab.shell(running, "h7", ["python3", "-m", "http.server", "80", "-d", "/srv"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    code = (
        "import pathlib, signal, sys\n"
        "from pcloud import lab\n"
        "from pcloud.inventory import load_site\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"site = load_site(pathlib.Path({str(DEMO)!r}))\n"
        "try: lab.open_storefront(site, 0, lambda url, target: print(url, flush=True))\n"
        "except KeyboardInterrupt: print('closed')\n"
    )
    door = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert door.stdout is not None
        url = door.stdout.readline().strip()

        def read() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return bool(answer.read() == b"bonjour\n")
            except OSError:
                return False

        assert eventually(read)
        assert all(read() for _ in range(20))
        door.send_signal(signal.SIGINT)
        assert door.communicate(timeout=10)[0] == "closed\n"
    finally:
        for child in (door, server):
            child.kill()
            child.wait(timeout=10)
        lab.power_off(running, "h7")


@pytest.mark.lab
def test_processes_that_only_look_like_the_lab_are_never_touched(running: Site) -> None:
    folder = places.lab_dir("demo")
    parts = processes.find_parts(folder)
    decoy = subprocess.Popen(["sleep", "60"], env={**os.environ, "PCLOUD_LAB": str(folder), "PCLOUD_LAB_PART": "h1"})
    try:
        assert eventually(lambda: b"PCLOUD_LAB_PART" in Path(f"/proc/{decoy.pid}/environ").read_bytes())
        assert processes.find_parts(folder) == parts
        lab.down(running)
        assert decoy.poll() is None
    finally:
        decoy.kill()
        decoy.wait(timeout=10)


@pytest.mark.lab
def test_down_leaves_nothing_behind(running: Site, home: Path) -> None:
    folder = places.lab_dir("demo")
    parts = processes.find_parts(folder)
    spaces = {part.net_ns for part in parts.values()}
    assert len(spaces) == 9
    assert lab.down(running).removed
    assert processes.find_parts(folder) == {}
    assert all(processes.in_network(space) == [] for space in spaces)
    assert list((home / "state/labs").iterdir()) == [] or not list((home / "state/labs").glob("*demo*"))
    assert str(home) not in Path("/proc/self/mountinfo").read_text()
    assert not lab.down(running).removed
    with pytest.raises(Blocked, match="the lab is not up"):
        lab.enter(running)
    with pytest.raises(Blocked, match="the lab is not up"):
        lab.power_on(running, "h1")
    assert {host.power for host in lab.status(running)} == {"absent"}


@pytest.mark.lab
@pytest.mark.parametrize("after_s", [0.1, 0.3, 0.5, 0.8])
def test_up_killed_half_way_is_gone_on_with_and_taken_down(site: Site, after_s: float) -> None:
    lab.down(site)
    code = (
        "import pathlib; from pcloud import lab; from pcloud.inventory import load_site\n"
        f"site = load_site(pathlib.Path({str(DEMO)!r})); print('go', flush=True); lab.up(site)\n"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    started.stdout.readline()
    time.sleep(after_s)
    started.kill()
    started.communicate(timeout=10)
    report = lab.up(site)
    assert {*report.started, *report.running} == {*ADDRESS}
    assert report.off == ()
    assert all(host.power == "on" for host in lab.status(site))
    assert answers("h1")
    assert answers("h8")
    assert lab.down(site).removed
    assert processes.find_parts(places.lab_dir("demo")) == {}


@pytest.mark.lab
def test_when_the_whole_lab_died_up_starts_it_from_its_disks(running: Site) -> None:
    folder = places.lab_dir("demo")
    inside(running, "h1", "touch", "/var/lib/pcloud/pool/kept")
    fabric = processes.find_fabric(folder)
    assert fabric is not None
    os.kill(fabric.pid, signal.SIGKILL)
    assert eventually(lambda: processes.find_parts(folder) == {})
    assert {host.power for host in lab.status(running)} == {"off"}
    assert lab.up(running).started == tuple(ADDRESS)
    assert inside(running, "h1", "ls", "/var/lib/pcloud/pool") == "kept\n"


@pytest.mark.lab
def test_more_hosts_join_a_running_lab(running: Site) -> None:
    report = lab.up(running, 10)
    assert report.started == ("h9", "h10")
    assert [lab.inventory_line(host) for host in report.extra] == [
        "  - {name: h9, address: 10.77.0.19, rack: c}",
        "  - {name: h10, address: 10.77.0.20, rack: a}",
    ]
    assert state_of(running, "h10").power == "on"
    assert lab.up(running).running[-2:] == ("h9", "h10")
    lab.down(running)


def test_new_hosts_take_the_next_free_names_and_addresses(site: Site) -> None:
    many = layout.extended(site, site.hosts, 30)
    assert [host.name for host in many] == [f"h{n}" for n in range(1, 31)]
    addresses = [int(host.address) for host in many]
    assert len(set(addresses)) == 30
    taken = {int(ip_address(f"10.77.0.{last}")) for last in (1, 21, 22, 23, 24, 60, 61, 71, 80, 81)}
    assert not taken & set(addresses)
    assert [host.name for host in layout.extended(site, site.hosts, 2)] == ["h1", "h2"]
    with pytest.raises(BadInput, match="has no free address"):
        layout.extended(site, site.hosts, 300)


def test_a_site_of_real_machines_is_no_lab(site: Site) -> None:
    real = site.model_copy(update={"lab": None})
    lab.enter(real)
    for function in (lab.up, lab.status):
        with pytest.raises(BadInput, match="not a lab"):
            function(real)


def test_an_unknown_host_is_named_with_the_known_ones(site: Site) -> None:
    with pytest.raises(BadInput, match="no host h99") as caught:
        layout.find_member(site, layout.LabFolder.of(site), "h99")
    assert "h1, h2" in caught.value.next
