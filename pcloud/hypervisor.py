"""libvirt, and nothing else: the only module that says "domain".

A connection has keepalive and an event loop behind it, without which a dead host would
hang a call for ever; libvirt then raises after about six seconds. Transport is the system's
ssh with pinned host keys (libvirt's own ssh transport ignores `known_hosts`).
"""

from __future__ import annotations

import queue
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import libvirt

from pcloud.errors import HostUnreachable, HypervisorError, LibvirtSilent
from pcloud.observed import Mark, Power, SeenServer

NAMESPACE = "https://pcloud.example/ns/server/1"
_POWER = {
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.PAUSED,
    libvirt.VIR_DOMAIN_CRASHED: Power.CRASHED,
}
_events_lock = threading.Lock()
_events_running = False


def _start_event_loop() -> None:
    """Once a process, before the first open: keepalive is answered from this thread."""
    global _events_running
    with _events_lock:
        if _events_running:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()

        def loop() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        threading.Thread(target=loop, name="libvirt-events", daemon=True).start()
        _events_running = True


def _open(uri: str, timeout_s: float) -> Any | str:
    """A connection, or why there is none.

    keepalive begins when open() has ended, so a frozen libvirtd, which the kernel still accepts
    connections for, would hold it for ever: it runs in a thread that can be left behind.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            connection = libvirt.open(uri)
            with suppress(libvirt.libvirtError):
                connection.setKeepAlive(2, 2)
            answers.put(connection)
        except libvirt.libvirtError as error:
            answers.put(_words(error))

    threading.Thread(target=run, name="libvirt-open", daemon=True).start()
    try:
        return answers.get(timeout=timeout_s)
    except queue.Empty:
        return f"it takes connections and is silent for {timeout_s:g} s"


def ssh_uri(address: str, *, user: str, ssh_command: Path, key: str) -> str:
    """The URI of a host's libvirt; `ssh_command` is a program that runs ssh with pinned keys, `key` a path."""
    return f"qemu+ssh://{user}@{address}/system?command={quote(str(ssh_command))}&keyfile={quote(key)}&no_tty=1"


@dataclass(frozen=True)
class Capacity:
    """What a host has: MiB of memory in all, and how its servers will run."""

    memory_mib: int
    cpus: int
    accel: str


_WITH_ALL = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA


class Hypervisor:
    """One host's libvirt. Calls may come from several threads."""

    def __init__(self, connection: Any, name: str) -> None:
        self._c = connection
        self.name = name
        self._stopped: dict[str, str] = {}
        self._watch: int | None = None

    @classmethod
    def open(cls, uri: str, name: str, *, timeout_s: float = 15) -> Hypervisor:
        """Connects, within `timeout_s`. Raises `LibvirtSilent`, which does not say whose fault it is."""
        _start_event_loop()
        opened = _open(uri, timeout_s)
        if not isinstance(opened, str):
            return cls(opened, name)
        raise LibvirtSilent(
            f"libvirt does not answer: {opened}",
            where=name,
            next=f"on {name}: systemctl restart libvirtd (its servers run on)",
        )

    def close(self) -> None:
        with suppress(libvirt.libvirtError):
            if self._watch is not None:
                self._c.domainEventDeregisterAny(self._watch)
            self._c.close()

    def _try(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except libvirt.libvirtError as error:
            if not self.alive():
                raise HostUnreachable(f"lost libvirt while it should {what}", where=self.name) from error
            raise HypervisorError(f"could not {what}: {_words(error)}", where=self.name) from error

    def alive(self) -> bool:
        """Whether the connection still is, as far as keepalive knows."""
        try:
            return bool(self._c.isAlive() == 1)
        except libvirt.libvirtError:
            return False

    # -- what is there

    def capacity(self, accel: str = "auto") -> Capacity:
        """`accel: auto` asks for KVM's domain capabilities, the one test that does not lie."""
        info = self._try("describe the host", self._c.getInfo)
        if accel == "auto":
            try:
                self._c.getDomainCapabilities(None, "x86_64", None, "kvm")
                accel = "kvm"
            except libvirt.libvirtError:
                accel = "tcg"
        return Capacity(memory_mib=int(info[1]), cpus=int(info[2]), accel=accel)

    def servers(self) -> tuple[SeenServer, ...]:
        domains = self._try("list its servers", self._c.listAllDomains)
        seen = (self._seen(domain) for domain in domains)
        return tuple(sorted((s for s in seen if s is not None), key=lambda s: s.name))

    def _seen(self, domain: Any) -> SeenServer | None:
        try:
            root = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))  # noqa: S314 (libvirt's own XML)
            state = domain.state()[0]
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None  # it vanished while we were looking
            # A connection that broke off must never look like a host without servers.
            raise HostUnreachable(f"libvirt: {_words(error)}", where=self.name) from error
        return SeenServer(
            name=domain.name(),
            uuid=domain.UUIDString(),
            power=_POWER.get(state, Power.OFF),
            mark=read_mark(root),
            memory_mib=int(root.findtext("memory", "0")) // 1024,
            macs=tuple(str(m.get("address")) for m in root.findall("devices/interface/mac")),
            files=tuple(str(s.get("file")) for s in root.findall("devices/disk/source") if s.get("file")),
        )

    def server(self, name: str) -> SeenServer | None:
        """One server by its libvirt name."""
        domain = self._find(name)
        return None if domain is None else self._seen(domain)

    def power(self, name: str) -> Power | None:
        """None when the host has no server of that name."""
        domain = self._find(name)
        if domain is None:
            return None
        return _POWER.get(self._try(f"say how {name} is", domain.state)[0], Power.OFF)

    def cpu_s(self, name: str) -> float:
        """Seconds of CPU that the server used since its start; 0 when it does not run."""
        domain = self._find(name)
        if domain is None:
            return 0.0
        with suppress(libvirt.libvirtError):
            return float(domain.info()[4]) / 1e9
        return 0.0

    def _find(self, name: str) -> Any | None:
        try:
            return self._c.lookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise HostUnreachable(f"libvirt: {_words(error)}", where=self.name) from error

    # -- servers

    def define(self, xml: str) -> None:
        self._try("define a server", lambda: self._c.defineXML(xml))

    def start(self, name: str) -> None:
        domain = self._find(name)
        if domain is None:
            raise HypervisorError(f"there is no server {name} to start", where=self.name)
        self._stopped.pop(name, None)
        if self.power(name) is Power.PAUSED:
            self._try(f"resume {name}", domain.resume)
        elif self.power(name) is not Power.RUNNING:
            self._try(f"start {name}", domain.create)

    def power_off(self, name: str) -> None:
        """Pulls the server's plug; done when it is off already."""
        domain = self._find(name)
        if domain is not None and self.power(name) is not Power.OFF:
            self._try(f"power {name} off", domain.destroy)

    def definition(self, name: str) -> str | None:
        """The server's whole XML, for a tombstone."""
        domain = self._find(name)
        if domain is None:
            return None
        return str(self._try(f"read {name}", lambda: domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))

    def undefine(self, name: str) -> None:
        """With its saved memory and what libvirt knows of its snapshots and checkpoints, which would keep it."""
        domain = self._find(name)
        if domain is not None:
            flags = _WITH_ALL
            with suppress(libvirt.libvirtError):  # a driver that knows no checkpoints knows no flag for them either
                flags |= libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA if domain.listAllCheckpoints() else 0
            self._try(f"undefine {name}", lambda: domain.undefineFlags(flags))

    def console(self, name: str) -> Any:
        """A libvirt stream on the server's serial console (for an interactive session)."""
        domain = self._find(name)
        if domain is None:
            raise HypervisorError(f"there is no server {name}", where=self.name)
        stream = self._try("open a stream", lambda: self._c.newStream(libvirt.VIR_STREAM_NONBLOCK))
        self._try(
            f"open the console of {name}", lambda: domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        )
        return stream

    # -- events

    def watch(self) -> None:
        """From here on `stopped()` knows, by libvirt's events, which servers went down."""
        if self._watch is not None:
            return

        def seen(_conn: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
            if event in (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED):
                self._stopped[domain.name()] = "stopped" if event == libvirt.VIR_DOMAIN_EVENT_STOPPED else "crashed"
            elif (event, detail) == (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR):
                self._stopped[domain.name()] = "was paused by an error of its disk"
            elif event in (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_RESUMED):
                self._stopped.pop(domain.name(), None)

        self._watch = self._try(
            "watch its servers",
            lambda: self._c.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, seen, None),
        )

    def stopped(self, name: str) -> str | None:
        """How the server went down since `watch`, or None while it has not."""
        return self._stopped.get(name)

    # -- volumes

    def _pool(self, path: str) -> Any:
        """The pool on this folder; a transient one is made where none is defined."""
        for pool in self._try("list its pools", self._c.listAllStoragePools):
            root = ET.fromstring(self._try("read a pool", pool.XMLDesc))  # noqa: S314
            if root.findtext("target/path") == path:
                if not self._try(f"ask for the pool {path}", pool.isActive):
                    self._try(f"open the pool {path}", pool.create)
                return pool
        name = "pcloud" + path.replace("/", "-")
        xml = f"<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
        try:
            return self._c.storagePoolCreateXML(xml, libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
        except libvirt.libvirtError:  # another thread was quicker
            return self._try(f"open the pool {path}", lambda: self._c.storagePoolLookupByName(name))

    def volumes(self, pool: str) -> tuple[str, ...]:
        """Names of the files in the pool, as they are now."""
        found = self._pool(pool)
        self._try("look into the pool", found.refresh)
        return tuple(sorted(self._try("list the pool", found.listVolumes)))

    def create_overlay(self, pool: str, name: str, *, backing: str, size_gib: int) -> None:
        """A qcow2 on top of the image `backing` (a path on the host)."""
        xml = (
            f"<volume><name>{name}</name><capacity unit='GiB'>{size_gib}</capacity>"
            "<target><format type='qcow2'/><permissions><mode>0600</mode></permissions></target>"
            f"<backingStore><path>{backing}</path><format type='qcow2'/></backingStore></volume>"
        )
        self._try(f"create the disk {name}", lambda: self._pool(pool).createXML(xml))


def read_mark(root: ET.Element) -> Mark | None:
    """pcloud's own metadata of a domain's XML; None when there is none that makes sense."""
    node = root.find(f"metadata/{{{NAMESPACE}}}server")
    if node is None:
        return None
    try:
        return Mark(
            site=node.attrib["site"],
            server=node.attrib["name"],
            role=node.attrib["role"],
            spec=node.attrib["spec"],
            image=node.attrib["image"],
            generation=int(node.attrib["generation"]),
            addresses=tuple(node.attrib.get("addresses", "").split()),
        )
    except (KeyError, ValueError):
        return None


def _words(error: Any) -> str:
    return " ".join(str(error.get_error_message() or error).split())
