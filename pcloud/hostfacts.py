"""Asks hosts what they are like: a few commands over SSH each, all bounded, many hosts at once.

Nothing is changed, and nothing has to be installed there but coreutils. A host that does not
answer, shows another key or refuses the log-in is a fact (`Refused`), never an exception.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from pcloud.clock import Clock, Deadline, SystemClock
from pcloud.errors import Blocked, CommandFailed, DeadlineExceeded, PcloudError
from pcloud.hoststate import (
    GUESTS_UNIT,
    LIBVIRT_UNITS,
    NETWORKD_UNIT,
    PACKAGES,
    SYSTEMD,
    TOOLS,
    Access,
    Controller,
    FileSystem,
    Folder,
    HostFacts,
    Link,
    Refused,
    Unit,
)
from pcloud.hypervisor import read_mark
from pcloud.inventory import Inventory
from pcloud.model import Host, Site
from pcloud.observed import Power, SeenServer
from pcloud.pins import host_pins
from pcloud.shell import Shell

WORKERS = 32
HOST_S = 90.0
"""For everything that one host is asked."""
COMMAND_S = 10.0
PROBE_S = 45.0
"""For libvirt's look at QEMU, which starts it when it is asked for the first time."""
MAX_OUTPUT = 8 << 20
DOMAINS_A_CALL = 64
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")
DMI = "/sys/class/dmi/id"
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
ON_BOOT = (
    "/usr/libexec/libvirt-guests.sh",
    "/usr/lib/libvirt/libvirt-guests.sh",  # the default of this Debian, then the machine's own choice
    "/etc/default/libvirt-guests",
)


@contextmanager
def open_shells(inventory: Inventory, key: str) -> Iterator[Callable[[Host], Shell]]:
    """A way to every host's shell, by the pinned keys alone; closed at the end. `key` is a private key's text.

    Raises `BadInput` for a file of pins that cannot be read.
    """
    site = inventory.site
    shells: dict[str, Shell] = {}
    with TemporaryDirectory(prefix="pcloud-pins-") as folder:
        pins = Path(folder) / "known_hosts"
        pins.write_text("".join(f"{line}\n" for line in host_pins(inventory)))

        def shell(host: Host) -> Shell:
            if host.name not in shells:
                shells[host.name] = Shell.open(
                    str(host.address),
                    user=host.user or site.access.user,
                    key=key,
                    known_hosts=pins,
                    connect_timeout_s=site.access.connect_timeout_s,
                    name=host.name,
                )
            return shells[host.name]

        try:
            yield shell
        finally:
            for opened in shells.values():
                opened.close()


def ask_hosts(
    site: Site, hosts: Sequence[Host], shell: Callable[[Host], Shell], clock: Clock | None = None
) -> tuple[HostFacts, ...]:
    """The facts of every host, in the order given; takes as long as the slowest, at most about `HOST_S`."""
    if not hosts:
        return ()
    opened = [(host, shell(host)) for host in hosts]
    with ThreadPoolExecutor(max_workers=min(WORKERS, len(hosts)), thread_name_prefix="hosts") as pool:
        return tuple(pool.map(lambda pair: ask_host(site, pair[0], pair[1], clock), opened))


def ask_controllers(
    hosts: Sequence[Host], examine: Callable[[Host], tuple[Controller, ...]]
) -> dict[str, tuple[Controller, ...]]:
    """What each way to each host's controller says, many hosts at once, each question within its own deadline."""
    if not hosts:
        return {}
    with ThreadPoolExecutor(max_workers=min(WORKERS, len(hosts)), thread_name_prefix="controllers") as pool:
        return dict(zip((h.name for h in hosts), pool.map(examine, hosts), strict=True))


def ask_host(site: Site, host: Host, shell: Shell, clock: Clock | None = None) -> HostFacts:
    asked = _Asked(shell, clock or SystemClock())
    try:
        facts = _machine(asked, HostFacts(host.name))
        facts = _pool(asked, site, host, facts)
        facts = _network(asked, facts)
        facts = _services(asked, facts)
        facts = _libvirt(asked, facts) if VIRSH[0] in facts.tools else facts
        return replace(facts, late=tuple(asked.late))
    except PcloudError as error:
        return HostFacts(host.name, refused=_refused(error))


def _refused(error: PcloudError) -> Refused:
    if not isinstance(error, Blocked):
        return Refused("silent", error.what, error.next)
    kind: Access = (
        "unpinned" if "pins no" in error.what else "changed" if "shows the host key" in error.what else "login"
    )
    if kind == "login":
        return Refused(kind, error.what, error.next)
    key = re.search(r"(ssh-ed25519 [A-Za-z0-9+/=]{40,200})\s*$", error.next)
    shown = re.findall(r"SHA256:[A-Za-z0-9+/]+", error.what)
    if kind == "unpinned":
        what = f"no host key is pinned; it shows {', '.join(shown)}"
    else:
        what = f"it shows the host key {shown[0]}, but {', '.join(shown[1:])} is pinned"
    return Refused(kind, what, error.next, key[1] if key else "")


class _Asked:
    """One host under questions: each bounded, all together too; what was too late is remembered."""

    def __init__(self, shell: Shell, clock: Clock) -> None:
        self.shell = shell
        self.clock = clock
        self.deadline = Deadline.after(HOST_S, clock)
        self.late: list[str] = []

    def output(self, argv: Sequence[str], deadline_s: float = COMMAND_S) -> str:
        """What the command prints; "" when it fails, is not there, is late or prints without end."""
        return self.answer(argv, deadline_s)[0]

    def answer(self, argv: Sequence[str], deadline_s: float = COMMAND_S) -> tuple[str, str, bool]:
        """stdout, the last words of stderr, and whether it ended with 0. Raises what `Shell` raises for a lost host."""
        try:
            limit = max(0.1, self.deadline.within(deadline_s))
            done = self.shell.run(["env", "LC_ALL=C", *argv], deadline_s=limit, check=False, max_output=MAX_OUTPUT)
        except DeadlineExceeded:
            self.late.append(" ".join(argv[:6]))
            return "", "no answer in time", False
        except CommandFailed as error:
            return "", error.what, False
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return done.stdout, _printable(said[-1] if said else ""), done.exit_code == 0


def _machine(asked: _Asked, facts: HostFacts) -> HostFacts:
    uid = asked.output(["id", "-u"]).strip()
    before = asked.clock.wall().timestamp()
    date = asked.output(["date", "+%s.%N"]).strip()
    after = asked.clock.wall().timestamp()
    now = float(date) if re.fullmatch(r"\d{9,11}\.\d+", date) else None
    release = asked.output(["cat", "/etc/debian_version", "/etc/os-release"])
    about = asked.output(["grep", "-hm1", "-E", "^(MemTotal|flags)", "/proc/meminfo", "/proc/cpuinfo"])
    memory = re.search(r"^MemTotal:\s*(\d+) kB", about, re.MULTILINE)
    flags = re.search(r"^flags\s*:(.*)$", about, re.MULTILINE)
    cpus = asked.output(["nproc"]).strip()
    which = asked.output(["which", *TOOLS, VIRSH[0], "systemctl", "timedatectl", "ip"])
    return replace(
        facts,
        uid=int(uid) if uid.isdigit() else 0,
        offset_s=None if now is None else now - (before + after) / 2,
        system=read_system(release),
        memory_mib=int(memory[1]) // 1024 if memory else 0,
        flags=frozenset(flags[1].split() if flags else ()) & {"vmx", "svm", "hypervisor"},
        cpus=int(cpus) if cpus.isdigit() else 0,
        tools=frozenset(PurePosixPath(line).name for line in which.split()),
        init=_printable(asked.output(["cat", "/proc/1/comm"]).strip()),
        uuid=_printable(asked.output(["cat", f"{DMI}/product_uuid"]).strip().lower()),
        serial=_printable(asked.output(["cat", f"{DMI}/product_serial"]).strip().lower()),
    )


def read_system(text: str) -> str:
    """`Debian 12.5` from /etc/debian_version and os-release."""
    first = _printable(text.partition("\n")[0].strip())
    identity = re.search(r'^ID="?([^"\n]+)', text, re.MULTILINE)
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', text, re.MULTILINE)
    if identity is None or identity[1] != "debian":
        return _printable(name[1]) if name else ""
    number = re.search(r'^VERSION_ID="?(\d+)', text, re.MULTILINE)
    return f"Debian {first if re.match(r'[0-9.]+$', first) else number[1] if number else first}"


def _pool(asked: _Asked, site: Site, host: Host, facts: HostFacts) -> HostFacts:
    """The pool's folder, the ones above it, and the file system of the deepest one that exists."""
    pool = PurePosixPath(host.pool)
    paths = [str(pool), *map(str, pool.parents)]
    wanted = [*paths, *PACKAGES.values(), SYSTEMD]
    listed = asked.output(["stat", "-L", "-c", "%a %u %F %n", "--", *wanted])
    modes: dict[str, Folder] = {}
    files = set()
    for line in listed.splitlines():
        found = re.fullmatch(r"([0-7]+) (\d+) (.+?) (/.*)", line)
        if found:
            files.add(found[4])
            if found[3] == "directory":
                modes[found[4]] = Folder(int(found[1], 8), int(found[2]))
    closed = tuple(p for p in reversed(paths[1:]) if p in modes and not modes[p].mode & 0o001)
    used = 0
    if str(pool) in modes:
        own = [f"{site.site}.*", "pcloud-image.*"]
        named = ["(", "-name", own[0], "-o", "-name", own[1], ")", "!", "-name", "*.tombstone-*"]
        blocks = asked.output(["find", str(pool), "-maxdepth", "1", "-type", "f", *named, "-printf", r"%b\n"])
        used = 512 * sum(int(n) for n in blocks.split() if n.isdigit())
    return replace(
        facts,
        files=frozenset(files & {*PACKAGES.values(), SYSTEMD}),
        pool=modes.get(str(pool)),
        closed=closed,
        pool_bytes=used,
        file_system=_file_system(asked, [p for p in paths if p in modes]),
    )


def _file_system(asked: _Asked, paths: Sequence[str]) -> FileSystem | None:
    if not paths:
        return None
    columns = "--output=fstype,size,avail,itotal,iavail,target"
    lines = asked.output(["df", "-B1", columns, "--", paths[0]]).splitlines()
    fields = lines[-1].split(maxsplit=5) if len(lines) == 2 else []
    if len(fields) != 6 or not (fields[1].isdigit() and fields[2].isdigit()):
        return None
    inodes, left = (int(n) if n.isdigit() else 0 for n in fields[3:5])
    return FileSystem(_printable(fields[5]), fields[0], int(fields[1]), int(fields[2]), inodes, left)


def _network(asked: _Asked, facts: HostFacts) -> HostFacts:
    links = tuple(read_links(asked.output(["ip", "-details", "-json", "address", "show"])))
    routes = _json(asked.output(["ip", "-json", "-4", "route", "show", "default"]))
    gateway = next((str(r["gateway"]) for r in routes if "gateway" in r), "")
    return replace(facts, links=links, gateway=_printable(gateway))


def read_links(text: str) -> Iterator[Link]:
    """The interfaces in the JSON of `ip -details address`; none when it is not JSON."""
    for item in _json(text):
        name = str(item.get("ifname", ""))
        addresses = [a for a in item.get("addr_info", ()) if a.get("family") == "inet"]
        yield Link(
            name=_printable(name),
            kind=str(item.get("linkinfo", {}).get("info_kind", "")),
            # A bridge without traffic says UNKNOWN; a port whose cable is out has no LOWER_UP.
            up="UP" in item.get("flags", ()) and (name == "lo" or "LOWER_UP" in item.get("flags", ())),
            master=str(item.get("master", "")),
            addresses=tuple(f"{a.get('local')}/{a.get('prefixlen')}" for a in addresses),
        )


def _json(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _services(asked: _Asked, facts: HostFacts) -> HostFacts:
    listed = asked.output(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *PACKAGES])
    packages = {name: state for name, _, state in (line.partition(" ") for line in listed.splitlines())}
    boot = asked.output(["grep", "-hsE", r"^\s*ON_BOOT=", *ON_BOOT]).splitlines()
    on_boot = boot[-1].partition("=")[2].split("#")[0].strip().strip("\"'") if boot else ""
    facts = replace(facts, packages=packages, on_boot=_printable(on_boot))
    if not facts.systemd:
        return facts
    wanted = (*LIBVIRT_UNITS, GUESTS_UNIT, NETWORKD_UNIT)
    shown = asked.output(["systemctl", "show", "--property=Id,ActiveState,UnitFileState", "--", *wanted])
    clock = asked.output(["timedatectl", "show", "--property=NTPSynchronized", "--value"]).strip()
    return replace(facts, units=read_units(shown), synchronised=clock == "yes" if clock in ("yes", "no") else None)


def read_units(text: str) -> dict[str, Unit]:
    """The blocks of `systemctl show`, an empty line between them; a unit without a file is not there."""
    units = {}
    for block in text.split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        if fields.get("Id") and fields.get("UnitFileState"):
            units[fields["Id"]] = Unit(fields.get("ActiveState", ""), fields["UnitFileState"])
    return units


def _libvirt(asked: _Asked, facts: HostFacts) -> HostFacts:
    text, said, ok = asked.answer([*VIRSH, "version"])
    library = re.search(r"Using library: libvirt (\S+)", text)
    qemu = re.search(r"Running hypervisor: QEMU (\S+)", text)
    if not (ok and library and qemu):
        return replace(facts, libvirt_problem=said or "it does not say its version")
    # What a recovery reckons with; it can be less than the kernel's own figure.
    memory = re.search(r"^Memory size:\s*(\d+) KiB", asked.output([*VIRSH, "nodeinfo"]), re.MULTILINE)
    _, why, kvm = asked.answer([*VIRSH, "domcapabilities", "--virttype", "kvm", "--arch", "x86_64"], PROBE_S)
    uuids = _uuids(asked.output([*VIRSH, "list", "--all", "--uuid"]))
    return replace(
        facts,
        memory_mib=int(memory[1]) // 1024 if memory else facts.memory_mib,
        libvirt=_printable(library[1]),
        qemu=_printable(qemu[1]),
        kvm=None if why == "no answer in time" else kvm,
        servers=tuple(sorted(_servers(asked, uuids), key=lambda s: s.name)),
        autostarted=frozenset(_uuids(asked.output([*VIRSH, "list", "--all", "--autostart", "--uuid"]))),
    )


def _uuids(text: str) -> list[str]:
    return [word for word in text.split() if re.fullmatch(UUID, word)]


def _servers(asked: _Asked, uuids: Sequence[str]) -> Iterator[SeenServer]:
    """Every server of the host as it is defined, many in one call: virsh takes commands separated by `;`."""
    for start in range(0, len(uuids), DOMAINS_A_CALL):
        some = uuids[start : start + DOMAINS_A_CALL]
        text = asked.output([*VIRSH, "; ".join(f"dumpxml --inactive {uuid}" for uuid in some)], PROBE_S)
        for document in re.findall(r"^<domain\b.*?^</domain>", text, re.MULTILINE | re.DOTALL):
            try:
                yield _seen(ET.fromstring(document))  # noqa: S314 - libvirt's own XML, as in hypervisor.py
            except ET.ParseError:
                continue


def _seen(root: ET.Element) -> SeenServer:
    sources = (source.get("file") for source in root.findall("devices/disk/source"))
    return SeenServer(
        name=_printable(root.findtext("name", "")),
        uuid=root.findtext("uuid", ""),
        power=Power.OFF,
        mark=read_mark(root),
        memory_mib=int(root.findtext("memory", "0")) // 1024,
        macs=tuple(str(mac.get("address")) for mac in root.findall("devices/interface/mac")),
        files=tuple(file for file in sources if file),
    )


def _printable(text: str) -> str:
    """On one line, without what a far machine could do to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
