"""What is said of a host, and what would be done to it: facts as data, no host anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pcloud.controllerchecks import check_shared
from pcloud.controllers import is_same_machine
from pcloud.hostchecks import check_homes, check_host, missing_packages
from pcloud.hostfacts import read_links, read_system, read_units
from pcloud.hostneeds import GIB, Need, needs_of
from pcloud.hoststate import PACKAGES, SYSTEMD, Controller, FileSystem, Finding, Folder, HostFacts, Link, Refused, Unit
from pcloud.identity import server_mac, server_uuid
from pcloud.model import Bmc, Site
from pcloud.observed import Mark, Power, SeenHost, SeenServer
from pcloud.prepare import plan_prepare

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
OTHER = SeenServer("web", "11111111-2222-3333-4444-555555555555", Power.OFF, None, 512, ("52:54:00:00:00:01",))
OURS = SeenServer(
    "demo.fe-1",
    str(server_uuid("demo", "fe-1")),
    Power.OFF,
    Mark("demo", "fe-1", "frontend", "s", "i", 3),
    512,
    (server_mac("demo", "fe-1"),),
)
UNITS = {"libvirtd.service": Unit("active", "enabled"), "libvirt-guests.service": Unit("active", "enabled")}
DISK = FileSystem("/var", "ext4", 100 * GIB, 60 * GIB, 6_000_000, 5_000_000)
LINKS = (
    Link("lo", up=True),
    Link("eno1", master="br0"),
    Link("br0", "bridge", addresses=("10.77.0.11/24",)),
    Link("vnet0", "tun", master="br0"),
)
GOOD = HostFacts(
    host="h1",
    system="Debian 12.5",
    cpus=8,
    memory_mib=16_000,
    flags=frozenset({"vmx"}),
    init="systemd",
    packages=dict.fromkeys(PACKAGES, "installed"),
    files=frozenset({*PACKAGES.values(), SYSTEMD}),
    tools=frozenset({"sha256sum", "find", "stat", "virsh"}),
    libvirt="9.0.0",
    qemu="7.2.22",
    kvm=True,
    units=UNITS,
    on_boot="ignore",
    pool=Folder(0o711, 0),
    file_system=DISK,
    links=LINKS,
    gateway="10.77.0.254",
    servers=(OURS, OTHER),
    offset_s=-0.02,
    synchronised=True,
)
FRESH = replace(
    GOOD,
    packages={},
    files=frozenset({SYSTEMD}),
    tools=frozenset({"sha256sum", "find", "stat"}),
    libvirt="",
    qemu="",
    kvm=None,
    units={},
    on_boot="",
    pool=None,
    servers=(),
)
NEED = Need(("db-1", "fe-1"), True, 1408, 2, 3 * GIB, 13 * GIB)

# name, what is different from the good host, check, level, found (part), fix (part)
CASES: list[tuple[str, dict[str, Any], str, str, str, str]] = [
    ("old Debian", {"system": "Debian 11.9"}, "system", "bad", "Debian 11.9", "upgrade it to Debian 12"),
    ("new Debian", {"system": "Debian 13.1"}, "system", "warn", "Debian 13.1", "rehearse"),
    ("no Debian", {"system": "Fedora Linux 40"}, "system", "bad", "Fedora Linux 40", "install Debian 12"),
    ("no find", {"tools": frozenset({"stat", "sha256sum"})}, "tools", "bad", "find missing", "apt-get install"),
    ("little memory", {"memory_mib": 1500}, "memory", "bad", "db-1, fe-1 would run here: 2 CPUs, 1408 MiB", "memory"),
    ("few CPUs", {"cpus": 1}, "memory", "warn", "1 CPUs, 16000 MiB", "take turns"),
    ("unknown memory", {"memory_mib": 0}, "memory", "bad", "does not say", "MemTotal"),
    (
        "half an installation",
        {"packages": {**GOOD.packages, "qemu-utils": "half-configured"}},
        "packages",
        "bad",
        "missing: qemu-utils",
        "pcloud hosts prepare demo h1",
    ),
    (
        "libvirtd silent",
        {"libvirt": "", "libvirt_problem": "Failed to connect socket"},
        "libvirt",
        "bad",
        "does not answer: Failed to connect socket",
        "systemctl restart libvirtd",
    ),
    (
        "libvirtd silent, another init",
        {"libvirt": "", "libvirt_problem": "no", "files": frozenset(PACKAGES.values()), "init": "runit"},
        "libvirt",
        "bad",
        "does not answer",
        "PID 1 of h1 (runit, not systemd)",
    ),
    (
        "libvirtd not at boot",
        {"units": {"libvirtd.service": Unit("active", "disabled")}},
        "libvirt",
        "bad",
        "after a reboot",
        "pcloud hosts prepare demo h1",
    ),
    ("no KVM, Intel", {"kvm": False}, "accel", "warn", "ten times slower", "modprobe kvm_intel"),
    ("no KVM, AMD", {"kvm": False, "flags": frozenset({"svm"})}, "accel", "warn", "no KVM", "modprobe kvm_amd"),
    ("no KVM, a guest", {"kvm": False, "flags": frozenset({"hypervisor"})}, "accel", "warn", "no KVM", "nested"),
    ("no KVM, firmware", {"kvm": False, "flags": frozenset()}, "accel", "warn", "no KVM", "firmware"),
    ("KVM unknown", {"kvm": None}, "accel", "warn", "did not say in time", "accel: tcg"),
    ("autostart", {"autostarted": frozenset({OURS.uuid})}, "autostart", "bad", "demo.fe-1", "pcloud hosts prepare"),
    ("libvirt-guests", {"on_boot": "start"}, "autostart", "bad", "libvirt-guests", "pcloud hosts prepare"),
    ("no pool", {"pool": None}, "pool", "bad", "/var/lib/pcloud/pool does not exist", "pcloud hosts prepare"),
    (
        "pool shut",
        {"pool": Folder(0o700, 0)},
        "pool",
        "bad",
        "0700: the emulator's user cannot",
        "pcloud hosts prepare",
    ),
    ("pool open", {"pool": Folder(0o777, 0)}, "pool", "bad", "0777: others may put files", "pcloud hosts prepare"),
    ("pool of another", {"pool": Folder(0o711, 1000)}, "pool", "bad", "belongs to user 1000", "pcloud hosts prepare"),
    ("closed above", {"closed": ("/var/lib/pcloud",)}, "pool", "bad", "/var/lib/pcloud", "chmod o+x /var/lib/pcloud"),
    ("no df", {"file_system": None}, "space", "bad", "does not say how much", "df /var/lib/pcloud/pool"),
    ("full", {"file_system": replace(DISK, free=GIB)}, "space", "bad", "fresh disks need 3.0 GiB", "make room"),
    ("tight", {"file_system": replace(DISK, free=9 * GIB)}, "space", "warn", "may grow to 13.0 GiB", "make room"),
    ("no inodes", {"file_system": replace(DISK, inodes_free=9)}, "space", "bad", "only 9 inodes", "make room"),
    ("in memory", {"file_system": replace(DISK, kind="tmpfs")}, "space", "bad", "after a reboot", "on a disk"),
    ("no bridge", {"links": (Link("eno1", addresses=("10.77.0.11/24",)),)}, "bridge", "bad", "no br0", "ports eno1"),
    ("no port", {"links": (LINKS[2], LINKS[3])}, "bridge", "bad", "has no port", "bridge_fd 0"),
    ("no card", {"links": (Link("br0"),)}, "bridge", "bad", "br0 is no bridge", "iface br0 inet static"),
    ("bridge down", {"links": (LINKS[1], Link("br0", "bridge", False))}, "bridge", "bad", "is down", "ip link set br0"),
    (
        "no cable",
        {"links": (Link("eno1", up=False, master="br0"), LINKS[2])},
        "bridge",
        "bad",
        "eno1, which has no link",
        "cable",
    ),
    ("clock wrong", {"offset_s": 7.5}, "clock", "warn", "7.5 s ahead of this machine", "timedatectl set-ntp true"),
    ("clock free", {"synchronised": False}, "clock", "warn", "follows no time server", "timedatectl set-ntp true"),
    ("clock unknown", {"offset_s": None}, "clock", "bad", "what time it is", "date"),
    (
        "our name",
        {"servers": (replace(OTHER, name="demo.db-1"),)},
        "servers",
        "bad",
        "somebody's server is called demo.db-1",
        "virsh domrename demo.db-1 other-demo.db-1",
    ),
    ("our UUID", {"servers": (replace(OTHER, uuid=OURS.uuid),)}, "servers", "bad", "UUID of this site", "<uuid>"),
    ("our MAC", {"servers": (replace(OTHER, macs=OURS.macs),)}, "servers", "bad", "MAC address of this", "virsh edit"),
    (
        "a name for a shell",
        {"servers": (replace(OTHER, name="a; rm -rf /", macs=OURS.macs),)},
        "servers",
        "bad",
        "'a; rm -rf /'",
        "virsh edit 'a; rm -rf /'",
    ),
    ("another user", {"uid": 1000}, "login", "bad", "as user 1000", "let root log in"),
    ("a hung command", {"late": ("df -B1",)}, "answers", "bad", "`df -B1` did not end in time", "run it on h1"),
]


def found(site: Site, facts: HostFacts, need: Need = NEED) -> dict[str, Finding]:
    return {f.check: f for f in check_host(site, site.host("h1"), facts, need)}


@pytest.fixture
def real(demo_site: Site) -> Site:
    """The demonstration site on real machines."""
    return demo_site.model_copy(update={"lab": None})


def test_a_good_host_is_good_and_needs_nothing(real: Site) -> None:
    findings = found(real, GOOD)
    assert {f.level for f in findings.values()} == {"ok"}
    assert all(not f.fix for f in findings.values())
    assert "1 of this site, 1 others" in findings["servers"].found
    assert "not configured" in findings["bmc"].found
    assert plan_prepare(real.host("h1"), GOOD) == ()


@pytest.mark.parametrize(("change", "check", "level", "what", "fix"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_wrong_is_said_with_its_fix(
    real: Site, change: dict[str, Any], check: str, level: str, what: str, fix: str
) -> None:
    finding = found(real, replace(GOOD, **change))[check]
    assert finding.level == level
    assert what in finding.found
    assert fix in finding.fix


def test_nothing_else_is_blamed(real: Site) -> None:
    for name, change, check, *_ in CASES:
        others = [
            f.check for f in found(real, replace(GOOD, **change)).values() if f.level != "ok" and f.check != check
        ]
        assert others == [], name


REFUSED = [
    ("unpinned", "write under h1 in the inventory", f'host_key: "{KEY}"', True),
    ("changed", "only if h1 was reinstalled", f'host_key: "{KEY}"', True),
    ("login", "add this line", "add this line", True),
    ("silent", "add this line", "add this line", False),
]


@pytest.mark.parametrize(("kind", "fix", "more", "person"), REFUSED, ids=[r[0] for r in REFUSED])
def test_a_host_that_lets_nobody_in(real: Site, kind: Any, fix: str, more: str, person: bool) -> None:
    facts = HostFacts("h1", refused=Refused(kind, "it is so", "add this line", KEY))
    (finding,) = check_host(real, real.host("h1"), facts, NEED)
    assert (finding.check, finding.level, finding.person) == ("ssh", "bad", person)
    assert fix in finding.fix and more in finding.fix
    assert plan_prepare(real.host("h1"), facts) == ()


def test_accel_as_the_inventory_asks(real: Site) -> None:
    facts = replace(GOOD, kvm=False)
    kvm, tcg = (real.host("h1").model_copy(update={"accel": accel}) for accel in ("kvm", "tcg"))
    assert {f.check: f.level for f in check_host(real, kvm, facts, NEED)}["accel"] == "bad"
    assert {f.check: f.level for f in check_host(real, tcg, facts, NEED)}["accel"] == "ok"


def test_promised_memory_and_a_controller(real: Site) -> None:
    host = real.host("h1").model_copy(update={"memory_mib": 32_000, "bmc": Bmc(redfish="https://10.0.9.11")})
    findings = {f.check: f for f in check_host(real, host, GOOD, NEED)}
    assert "the inventory says 32000 MiB" in findings["memory"].found
    assert "bmc" not in findings


WELL = Controller(
    "redfish", "on", answer_s=0.2, login="a session", role="Operator", may_switch=True, resets=("On", "ForceOff")
)
DEAD = Controller("redfish", problem="refuses", next="look there")


@pytest.mark.parametrize(
    ("said", "level", "what", "fix"),
    [
        ((WELL,), "ok", "redfish says that its power is on; a session; role Operator; it does not tell when", ""),
        ((replace(WELL, running_s=864_000.0),), "ok", "started 10 days ago; an answer takes 0.2 s", ""),
        ((replace(WELL, role="", may_switch=None),), "ok", "it does not tell the user's role", ""),
        ((replace(WELL, power="off"),), "bad", "another machine's controller", "correct bmc of h1"),
        ((DEAD,), "bad", "cannot cut its power by redfish: refuses", "look there"),
        ((DEAD, replace(WELL, way="ipmi")), "warn", "cannot cut its power by redfish: refuses", "look there"),
        ((replace(WELL, role="ReadOnly", may_switch=False),), "bad", "ReadOnly, which may not switch", "Operator"),
        ((replace(WELL, resets=("On", "PowerCycle")),), "warn", "lists On, PowerCycle, and no ForceOff", "--rehearse"),
        ((replace(WELL, answer_s=7.0),), "warn", "an answer takes 7.0 s", "raise bmc.timeout_s of h1"),
        ((replace(WELL, way="ipmi", answer_s=7.0, limit_s=40.0),), "ok", "an answer takes 7.0 s", ""),
        ((replace(WELL, offset_s=-86_400 * 365.0),), "warn", "its clock is 365 days behind", "time server"),
        ((replace(WELL, way="ipmi", offset_s=7200.0),), "ok", "ipmi says that its power is on", ""),
        ((replace(WELL, certificate_ends=1.8e9, certificate_s=86_400.0),), "warn", "ends on 2027-01-15", "renew it"),
        ((replace(WELL, certificate_ends=1.8e9, certificate_s=-9.0, pinned=True),), "ok", "is pinned and ends on", ""),
        ((replace(WELL, identity="11111111-2222-3333-4444-555555555555"),), "bad", "leads to the machine 1111", "bmc"),
        (
            (replace(WELL, way="ipmi", identity="11111111-2222-3333-4444-555555555555"),),
            "warn",
            "leads to the machine 1111",
            "correct bmc",
        ),
    ],
)
def test_what_a_controller_says(real: Site, said: tuple[Controller, ...], level: str, what: str, fix: str) -> None:
    host = real.host("h1").model_copy(update={"bmc": Bmc(redfish="https://10.0.9.11")})
    findings = check_host(real, host, replace(GOOD, uuid=UUID, controllers=said), NEED)
    finding, *others = [f for f in findings if f.check == "bmc"]
    assert (finding.level, finding.person) == (level, False)
    assert what in finding.found and fix in finding.fix
    assert [f.level for f in others] == ["ok"] * (len(said) - 1)


def test_a_controller_speaks_for_a_host_that_does_not_answer(real: Site) -> None:
    host = real.host("h1").model_copy(update={"bmc": Bmc(redfish="https://10.0.9.11")})
    facts = HostFacts("h1", Refused("silent", "no answer", "look"), controllers=(replace(WELL, power="off"),))
    ssh, bmc = check_host(real, host, facts, NEED)
    assert (ssh.level, bmc.level) == ("bad", "ok")
    assert bmc.found.startswith("redfish says that its power is off")


def test_the_bridge_is_written_for_this_host(real: Site) -> None:
    facts = replace(GOOD, links=(Link("lo"), Link("enp3s0", addresses=("10.77.0.11/22",))))
    fix = found(real, facts)["bridge"].fix
    for line in ("address 10.77.0.11/22", "gateway 10.77.0.254", "bridge_ports enp3s0", "iface enp3s0 inet manual"):
        assert line in fix
    units = {**UNITS, "systemd-networkd.service": Unit("active", "enabled")}
    fix = found(real, replace(facts, units=units))["bridge"].fix
    for line in ("Kind=bridge", "Name=enp3s0", "Bridge=br0", "Address=10.77.0.11/22", "Gateway=10.77.0.254"):
        assert line in fix
    assert "interfaces" not in fix


UNITS_TEXT = """\
ActiveState=inactive
UnitFileState=enabled
Id=libvirtd.service

ActiveState=active
UnitFileState=enabled
Id=libvirtd.socket

ActiveState=inactive
UnitFileState=
Id=virtqemud.service
"""


def test_units_are_read_as_systemd_prints_them() -> None:
    enabled = {"libvirtd.service": Unit("inactive", "enabled"), "libvirtd.socket": Unit("active", "enabled")}
    assert read_units(UNITS_TEXT) == enabled
    assert read_units("") == read_units("Failed to connect to bus: No such file or directory\n") == {}


RELEASES = [
    ('12.11\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n', "Debian 12.11"),
    ('trixie/sid\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n', "Debian 13"),
    ('bookworm/sid\nPRETTY_NAME="Ubuntu 24.04"\nID=ubuntu\nID_LIKE=debian\n', "Ubuntu 24.04"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "system"), RELEASES)
def test_the_system_is_read(text: str, system: str) -> None:
    assert read_system(text) == system


def test_links_are_read_as_iproute2_prints_them() -> None:
    text = """[{"ifname":"br0","flags":["BROADCAST","UP","LOWER_UP"],"linkinfo":{"info_kind":"bridge"},
        "addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24},{"family":"inet6","local":"fe80::1"}]},
        {"ifname":"eno1","flags":["NO-CARRIER","BROADCAST","UP"],"master":"br0"}]"""
    assert list(read_links(text)) == [
        Link("br0", "bridge", True, "", ("10.0.0.1/24",)),
        Link("eno1", "", False, "br0"),
    ]
    assert list(read_links("{")) == list(read_links('{"a": 1}')) == list(read_links("[1]")) == []


PLANS: list[tuple[str, HostFacts, list[str]]] = [
    (
        "fresh",
        FRESH,
        [
            "read the package lists",
            "install qemu-system-x86 qemu-utils libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients "
            "mariadb-client e2fsprogs",
            "make the folder /var/lib/pcloud/pool (0711, root)",
            "start libvirtd, now and at boot",
        ],
    ),
    (
        "fresh, another init",
        replace(FRESH, files=frozenset(), packages=dict.fromkeys(PACKAGES, "installed")),
        ["make the folder /var/lib/pcloud/pool (0711, root)"],
    ),
    (
        "not at boot",
        replace(GOOD, units={"libvirtd.socket": Unit("active", "disabled")}),
        ["start libvirtd, now and at boot"],
    ),
    (
        "started by itself",
        replace(GOOD, on_boot="start", autostarted=frozenset({OURS.uuid, OTHER.uuid})),
        ["let libvirt-guests start nothing at boot", "let libvirt not start demo.fe-1 at boot"],
    ),
    ("pool shut", replace(GOOD, pool=Folder(0o700, 0)), ["correct the folder /var/lib/pcloud/pool (0711, root)"]),
    ("no bridge", replace(GOOD, links=()), []),
    ("not root", replace(FRESH, uid=1000), []),
    ("something hangs", replace(FRESH, late=("stat",)), []),
    ("no Debian", replace(FRESH, system="Fedora Linux 40"), []),
]


@pytest.mark.parametrize(("facts", "whats"), [p[1:] for p in PLANS], ids=[p[0] for p in PLANS])
def test_what_would_be_done(real: Site, facts: HostFacts, whats: list[str]) -> None:
    assert [action.what for action in plan_prepare(real.host("h1"), facts)] == whats


def test_no_plan_touches_the_network_removes_or_reboots(real: Site) -> None:
    actions = [action for _, facts, _ in PLANS for action in plan_prepare(real.host("h1"), facts)]
    words = {word for action in actions for word in action.argv}
    assert not words & {
        "ip",
        "reboot",
        "remove",
        "purge",
        "autoremove",
        "stop",
        "rm",
        "networkctl",
        "destroy",
        "undefine",
    }
    installs = [action.argv for action in actions if "install" in action.argv and "apt-get" in action.argv]
    assert installs and all("--no-remove" in argv for argv in installs)
    assert not [a.argv for a in actions if "disable" in a.argv and "--now" in a.argv]
    assert all(0 < action.deadline_s <= 1800 for action in actions)


def test_what_others_lose_is_said(real: Site) -> None:
    (action,) = plan_prepare(real.host("h1"), replace(GOOD, on_boot="start"))
    assert "no longer started either: web" in action.why


def test_a_package_is_there_when_dpkg_or_its_program_says_so() -> None:
    by_hand = replace(GOOD, packages={})
    assert missing_packages(by_hand) == ()
    assert missing_packages(FRESH) == tuple(PACKAGES)
    removed = replace(FRESH, packages=dict.fromkeys(PACKAGES, "config-files"))
    assert missing_packages(removed) == tuple(PACKAGES)


def test_needs_follow_the_placement(demo_site: Site) -> None:
    hosts = [SeenHost(h.name, "", 16_000, "", ()) for h in demo_site.hosts]
    needs, homeless = needs_of(demo_site, hosts, {"frontend": 300, "database": 500})
    assert homeless == ()
    assert sorted(name for need in needs.values() if need.placed for name in need.servers) == [
        *("db-1", "fe-1", "fe-2", "fe-3", "fe-4", "idx-1", "lb-1")
    ]
    spare = needs["h8"]
    assert (spare.placed, spare.servers) == (False, ("db-1",))
    assert spare.least_bytes == GIB + 500 and spare.most_bytes == 8 * GIB + 500


def test_a_server_counts_where_it_is(demo_site: Site) -> None:
    hosts = [SeenHost(h.name, "", 16_000, "", (OURS,) if h.name == "h5" else ()) for h in demo_site.hosts]
    needs, _ = needs_of(demo_site, hosts, {})
    assert "fe-1" in needs["h5"].servers


def test_servers_that_fit_nowhere(demo_site: Site) -> None:
    _, homeless = needs_of(demo_site, [SeenHost("h1", "", 2_000, "", ())], {})
    (finding,) = check_homes(homeless)
    assert (finding.host, finding.level) == ("-", "bad")
    assert "fe-4" in finding.found
    assert check_homes(()) == ()


# -- whose controller it is

UUID, SWAPPED = "4c4c4544-0051-3610-8052-b4c04f4e3733", "44454c4c-5100-1036-8052-b4c04f4e3733"
BACKWARDS = "33374e4f-c0b4-5280-1036-510044454c4c"


@pytest.mark.parametrize(
    ("identity", "facts", "same"),
    [
        (UUID, HostFacts("h1", uuid=UUID), True),
        (SWAPPED, HostFacts("h1", uuid=UUID), True),
        (BACKWARDS, HostFacts("h1", uuid=UUID), True),
        (BACKWARDS, HostFacts("h1", uuid=SWAPPED), True),
        (UUID.replace("3733", "3734"), HostFacts("h1", uuid=UUID), False),
        ("czj90203xp", HostFacts("h1", uuid=UUID, serial="czj90203xp"), True),
        ("czj90203xp", HostFacts("h1", uuid=UUID, serial="czj90203xq"), False),
        ("czj90203xp", HostFacts("h1", uuid=UUID, serial="default string"), True),
        (UUID, HostFacts("h1", uuid="03000200-0400-0500-0006-000700080009"), True),
        ("", HostFacts("h1", uuid=UUID), True),
        (UUID, HostFacts("h1"), True),
    ],
)
def test_a_controller_is_compared_with_what_the_firmware_says(identity: str, facts: HostFacts, same: bool) -> None:
    assert is_same_machine(identity, facts.uuid, facts.serial) is same


def test_two_hosts_with_one_controller_are_named_both() -> None:
    facts = [
        HostFacts(f"h{n}", controllers=(Controller("redfish", "on", i),) * 2)
        for n, i in enumerate([UUID, "", UUID, "x", ""])
    ]
    found = check_shared(facts)
    assert [(f.host, f.level, f.found) for f in found] == [
        ("h0", "bad", "it has one controller with h2"),
        ("h2", "bad", "it has one controller with h0"),
    ]
