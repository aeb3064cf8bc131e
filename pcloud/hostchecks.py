"""What is wrong with a host: frozen facts to findings, no I/O.

`HostFacts` is what `hostfacts` could learn of one host, `Need` what the inventory puts there
(`hostneeds`). Every finding says what was found, and how to mend it: as a command, or as a
sentence where a person must decide. What `pcloud hosts prepare` can do has that as its fix.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

from pcloud.controllerchecks import check_controllers
from pcloud.desired import Names
from pcloud.hostbridge import bridge_text
from pcloud.hostneeds import GIB, Need
from pcloud.hoststate import GUESTS_UNIT, LIBVIRT_UNITS, PACKAGES, TOOLS, Finding, HostFacts, Refused
from pcloud.identity import server_mac, server_names, server_uuid
from pcloud.model import HOST_RESERVE_MIB, Host, Site
from pcloud.observed import SeenServer

DEBIAN = 12
MAX_OFFSET_S = 2.0
LITTLE_INODES = 1000


_Check = Callable[[Site, Host, HostFacts, Need], Iterator[Finding]]


def check_host(site: Site, host: Host, facts: HostFacts, need: Need) -> tuple[Finding, ...]:
    """Every finding of one host, in the order in which they are best mended."""
    if facts.refused is not None:
        return (_refused(site, host, facts.refused), *check_controllers(site, host, facts))
    found = [Finding(host.name, "ssh", "ok", f"{host.address} answers with its pinned key")]
    checks: tuple[_Check, ...] = (_login, _late, _system, _tools, _memory, _packages, _libvirt, _accel)
    checks += (_autostart, _pool, _space, _bridge, _clock, _foreign)
    for check in checks:
        found += check(site, host, facts, need)
    return (*found, *check_controllers(site, host, facts))


def check_homes(homeless: Sequence[str]) -> tuple[Finding, ...]:
    """Servers for which no host that answers has the memory; the host of such a finding is `-`."""
    if not homeless:
        return ()
    names = ", ".join(homeless[:8]) + (f" and {len(homeless) - 8} more" if len(homeless) > 8 else "")
    fix = "add a host or memory, or mend the hosts that do not answer"
    return (Finding("-", "memory", "bad", f"no host that answers has room for {names}", fix),)


def missing_packages(facts: HostFacts) -> tuple[str, ...]:
    """Those of PACKAGES that are not there, or not wholly installed."""
    missing = []
    for name, file in PACKAGES.items():
        state = facts.packages.get(name, "")
        whole = state == "installed" or (state in ("", "not-installed", "config-files") and file in facts.files)
        if not whole:
            missing.append(name)
    return tuple(missing)


def pool_fault(facts: HostFacts) -> str:
    """What is wrong with the pool's folder itself; "" when nothing is."""
    if facts.pool is None:
        return "does not exist"
    if facts.pool.uid != 0:
        return f"belongs to user {facts.pool.uid}, not to root"
    if not facts.pool.mode & 0o001:
        return f"has mode {facts.pool.mode:04o}: the emulator's user cannot pass through"
    if facts.pool.mode & 0o022:
        return f"has mode {facts.pool.mode:04o}: others may put files there"
    return ""


def libvirt_enabled(facts: HostFacts) -> bool:
    return any(unit in facts.units and facts.units[unit].enabled == "enabled" for unit in LIBVIRT_UNITS)


def guests_started(facts: HostFacts) -> bool:
    """Whether libvirt-guests would start at boot what ran before. Debian's own setting is to ignore it."""
    unit = facts.units.get(GUESTS_UNIT)
    return unit is not None and unit.enabled == "enabled" and facts.on_boot != "ignore"


def autostarted(facts: HostFacts) -> tuple[SeenServer, ...]:
    """Servers that pcloud made, of any site, and that libvirt would start by itself."""
    return tuple(s for s in facts.servers if s.mark is not None and s.uuid in facts.autostarted)


def _prepare(site: Site, host: Host) -> str:
    return f"pcloud hosts prepare {site.site} {host.name}"


def _refused(site: Site, host: Host, refused: Refused) -> Finding:
    look = f"on the console of {host.name}: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
    write = f'host_key: "{refused.key}"' if refused.key else "its host_key"
    lab = site.lab is not None
    match refused.kind:
        case "unpinned":
            fix = f"{look}\nonly if it shows the same, write under {host.name} in the inventory:\n{write}"
        case "changed":
            fix = f"find out which machine answers, {look}\n"
            fix += f"only if {host.name} was reinstalled and it shows the same, write in the inventory:\n{write}"
        case _:
            fix = refused.next
    if lab and refused.kind in ("unpinned", "changed"):
        fix = f"a lab's keys are pinned by pcloud: pcloud lab down {site.site}, then pcloud lab up {site.site}"
    return Finding(host.name, "ssh", "bad", refused.what, fix, person=refused.kind != "silent")


def _login(_site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    if facts.uid != 0:
        yield Finding(
            host.name,
            "login",
            "bad",
            f"pcloud logs in as user {facts.uid}, not as root",
            "let root log in with this key (PermitRootLogin prohibit-password), and take `user` out of the inventory",
            person=True,
        )


def _late(_site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    for command in facts.late:
        what = f"`{command}` did not end in time"
        yield Finding(host.name, "answers", "bad", what, f"run it on {host.name}, and see what it waits for")


def _system(_site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    name, _, version = facts.system.partition(" ")
    number = int(version.partition(".")[0]) if version.partition(".")[0].isdigit() else 0
    if name != "Debian":
        fix = f"install Debian {DEBIAN} on it"
        yield Finding(host.name, "system", "bad", facts.system or "it does not say what it is", fix)
    elif number < DEBIAN:
        yield Finding(host.name, "system", "bad", facts.system, f"upgrade it to Debian {DEBIAN}")
    elif number > DEBIAN:
        fix = f"pcloud is tried on Debian {DEBIAN}: rehearse before you rely on it"
        yield Finding(host.name, "system", "warn", facts.system, fix)
    else:
        yield Finding(host.name, "system", "ok", facts.system)


def _tools(_site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    missing = [tool for tool in TOOLS if tool not in facts.tools]
    if missing:
        what = f"{', '.join(missing)} missing"
        yield Finding(host.name, "tools", "bad", what, f"on {host.name}: apt-get install coreutils findutils")
    else:
        yield Finding(host.name, "tools", "ok", ", ".join(TOOLS))


def _memory(site: Site, host: Host, facts: HostFacts, need: Need) -> Iterator[Finding]:
    has = f"{facts.cpus} CPUs, {facts.memory_mib} MiB"
    if not (facts.cpus and facts.memory_known):
        fix = f"on {host.name}: nproc; grep MemTotal /proc/meminfo"
        yield Finding(host.name, "memory", "bad", "it does not say how many CPUs and how much memory it has", fix)
        return
    wants = need.memory_mib + HOST_RESERVE_MIB
    promised = host.memory_mib or (site.lab.host_memory_mib if site.lab else 0)
    if promised > facts.memory_mib:
        where = "memory_mib" if host.memory_mib else "lab.host_memory_mib"
        what, fix = f"{has}; the inventory says {promised} MiB", f"write {where}: {facts.memory_mib} or less"
        # In a lab, the hosts share one machine's memory, and promise what a rehearsal may use.
        yield Finding(host.name, "memory", "bad" if site.lab is None else "warn", what, fix)
    elif wants > (promised or facts.memory_mib):
        fix = "give it more memory, or the group less memory_mib, or let another host be there"
        yield Finding(host.name, "memory", "warn" if not need.placed else "bad", f"{has}; {need}", fix)
    elif need.vcpus > facts.cpus:
        fix = "they will take turns; add CPUs or hosts if that is too slow"
        yield Finding(host.name, "memory", "warn", f"{has}; {need}", fix)
    else:
        yield Finding(host.name, "memory", "ok", f"{has}; {need}")


def _packages(site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    missing = missing_packages(facts)
    if missing:
        yield Finding(host.name, "packages", "bad", f"missing: {' '.join(missing)}", _prepare(site, host))
    else:
        yield Finding(host.name, "packages", "ok", "QEMU, libvirt and MariaDB's client are installed")


def _libvirt(site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    versions = f"libvirt {facts.libvirt}, QEMU {facts.qemu}"
    if not facts.libvirt and missing_packages(facts):
        yield Finding(host.name, "libvirt", "bad", "not there yet", _prepare(site, host))
    elif not facts.libvirt and facts.systemd and libvirt_enabled(facts):
        fix = f"on {host.name}: systemctl restart libvirtd; if that does not help: journalctl -u libvirtd -n 50"
        yield Finding(host.name, "libvirt", "bad", f"does not answer: {facts.libvirt_problem}", fix)
    elif not facts.libvirt and facts.systemd:
        yield Finding(host.name, "libvirt", "bad", f"does not answer: {facts.libvirt_problem}", _prepare(site, host))
    elif not facts.libvirt:
        fix = f"start libvirtd as PID 1 of {host.name} ({facts.init}, not systemd) starts its services"
        yield Finding(host.name, "libvirt", "bad", f"does not answer: {facts.libvirt_problem}", fix)
    elif facts.systemd and not libvirt_enabled(facts):
        what = f"{versions}; it would not be there after a reboot"
        yield Finding(host.name, "libvirt", "bad", what, _prepare(site, host))
    else:
        how = "" if facts.systemd else f"; started by {facts.init}, not by systemd"
        yield Finding(host.name, "libvirt", "ok", f"{versions} answers{how}")


def _accel(_site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    if not facts.libvirt:
        return
    module = "kvm_intel" if "vmx" in facts.flags else "kvm_amd" if "svm" in facts.flags else ""
    if module:
        fix = f"on {host.name}: modprobe {module}; if that fails, switch virtualization on in its firmware"
    elif "hypervisor" in facts.flags:
        fix = "it is a virtual machine itself: switch nested virtualization on where it runs"
    else:
        fix = "its processor does not show vmx or svm: switch virtualization on in its firmware"
    if host.accel == "tcg":
        yield Finding(host.name, "accel", "ok", "software emulation, as the inventory asks")
    elif facts.kvm:
        yield Finding(host.name, "accel", "ok", "KVM")
    elif facts.kvm is None:
        what = "libvirt did not say in time whether it has KVM"
        yield Finding(host.name, "accel", "warn", what, f"ask again; if it stays so, write accel: tcg for {host.name}")
    elif host.accel == "kvm":
        yield Finding(host.name, "accel", "bad", "no KVM, which the inventory asks for", fix)
    else:
        yield Finding(host.name, "accel", "warn", "no KVM: software emulation, about ten times slower", fix)


def _autostart(site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    wrong = [f"libvirt would start {s.name} by itself" for s in autostarted(facts)]
    if guests_started(facts):
        wrong.append("libvirt-guests would start at boot what ran before")
    if wrong:
        what = f"{'; '.join(wrong)}: a host that comes back must not"
        yield Finding(host.name, "autostart", "bad", what, _prepare(site, host))
    elif facts.libvirt:
        yield Finding(host.name, "autostart", "ok", "nothing of pcloud's is started at boot")


def _pool(site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    fault = pool_fault(facts)
    if fault:
        yield Finding(host.name, "pool", "bad", f"{host.pool} {fault}", _prepare(site, host))
    elif facts.closed:
        paths = " ".join(facts.closed)
        what = f"the emulator's user cannot pass through {paths}"
        yield Finding(host.name, "pool", "bad", what, f"on {host.name}: chmod o+x {paths}; or choose another pool")
    else:
        yield Finding(host.name, "pool", "ok", host.pool)


def _space(_site: Site, host: Host, facts: HostFacts, need: Need) -> Iterator[Finding]:
    disk = facts.file_system
    if disk is None:
        what = f"it does not say how much room {host.pool} has"
        yield Finding(host.name, "space", "bad", what, f"on {host.name}: df {host.pool}")
        return
    has = f"{disk.free / GIB:.1f} GiB free of {disk.size / GIB:.0f} on {disk.target} ({disk.kind})"
    room = disk.free + facts.pool_bytes
    fix = f"make room on {disk.target}, or name a pool on a larger disk"
    if disk.kind in ("tmpfs", "ramfs"):
        yield Finding(host.name, "space", "bad", f"{has}: it is gone after a reboot", "name a pool on a disk")
    elif disk.inodes and disk.inodes_free < LITTLE_INODES:
        yield Finding(host.name, "space", "bad", f"{has}, but only {disk.inodes_free} inodes", fix)
    elif room < need.least_bytes:
        what = f"{has}; images and fresh disks need {need.least_bytes / GIB:.1f} GiB"
        yield Finding(host.name, "space", "bad" if need.placed else "warn", what, fix)
    elif room < need.most_bytes:
        what = f"{has}; images and disks may grow to {need.most_bytes / GIB:.1f} GiB"
        yield Finding(host.name, "space", "warn", what, fix)
    else:
        yield Finding(host.name, "space", "ok", f"{has}; at most {need.most_bytes / GIB:.1f} are needed")


def _bridge(site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    by_name = {link.name: link for link in facts.links}
    bridge = by_name.get(host.bridge)
    ports = [link for link in facts.links if link.master == host.bridge and link.kind != "tun"]
    carrying = [link.name for link in ports if link.up]
    fix = bridge_text(site, host, facts)
    if bridge is None:
        yield Finding(host.name, "bridge", "bad", f"there is no {host.bridge}", fix)
    elif bridge.kind != "bridge":
        yield Finding(host.name, "bridge", "bad", f"{host.bridge} is no bridge but {bridge.kind or 'a card'}", fix)
    elif not ports:
        yield Finding(host.name, "bridge", "bad", f"{host.bridge} has no port: its servers reach nobody", fix)
    elif not bridge.up:
        yield Finding(
            host.name, "bridge", "bad", f"{host.bridge} is down", f"on {host.name}: ip link set {host.bridge} up"
        )
    elif not carrying:
        names = " ".join(port.name for port in ports)
        what = f"{host.bridge} carries {names}, which has no link"
        yield Finding(
            host.name, "bridge", "bad", what, f"on {host.name}: ip link set {ports[0].name} up; look at the cable"
        )
    else:
        yield Finding(host.name, "bridge", "ok", f"{host.bridge} over {' '.join(carrying)}")


def _clock(_site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    if facts.offset_s is None:
        yield Finding(host.name, "clock", "bad", "it does not say what time it is", f"on {host.name}: date")
        return
    off = f"{abs(facts.offset_s):.1f} s {'ahead of' if facts.offset_s > 0 else 'behind'} this machine"
    fix = f"on {host.name}: timedatectl set-ntp true (apt-get install systemd-timesyncd, if it has none)"
    if abs(facts.offset_s) > MAX_OFFSET_S:
        yield Finding(host.name, "clock", "warn", off, f"see which of the two is right: date -u; then {fix}")
    elif facts.synchronised is None:
        what = f"{off}; without systemd it does not say whether it follows a time server"
        yield Finding(host.name, "clock", "warn", what, "see that it follows one")
    elif not facts.synchronised:
        yield Finding(host.name, "clock", "warn", f"{off}, but it follows no time server", fix)
    else:
        yield Finding(host.name, "clock", "ok", f"{off}, and follows a time server")


def _foreign(site: Site, host: Host, facts: HostFacts, _need: Need) -> Iterator[Finding]:
    names = [name for group in site.groups for name in server_names(group)]
    domains = {Names(site.site, name).domain for name in names}
    uuids = {str(server_uuid(site.site, name)) for name in names}
    macs = {server_mac(site.site, name) for name in names}
    foreign = [s for s in facts.servers if s.mark is None or s.mark.site != site.site]
    keep = "it is not of this site, and pcloud never touches it"
    clash = False
    for seen in foreign:
        wrong = [mac for mac in seen.macs if mac.lower() in macs]
        name = shlex.quote(seen.name)
        if seen.name in domains:
            what, fix = f"somebody's server is called {name}", f"virsh domrename {name} other-{name}"
        elif seen.uuid in uuids:
            what = f"somebody's server {name} has a UUID of this site, {seen.uuid}"
            fix = f"virsh dumpxml {name} > it.xml; change its <uuid>; virsh undefine {name}; virsh define it.xml"
        elif wrong:
            what = f"somebody's server {name} has a MAC address of this site, {wrong[0]}"
            fix = f"virsh edit {name}, and write another <mac>"
        else:
            continue
        clash = True
        yield Finding(host.name, "servers", "bad", what, f"{keep}. On {host.name}, while it is off: {fix}")
    if not clash and facts.libvirt:
        ours = len(facts.servers) - len(foreign)
        yield Finding(host.name, "servers", "ok", f"{ours} of this site, {len(foreign)} others")
