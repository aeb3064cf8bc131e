"""The connections and material of one run, opened when first needed and closed at the end.

The operator's private key never touches the disk: ssh and libvirt read it from an anonymous
file of this process (memfd_create). The site's own known_hosts is written anew each time
from what is pinned (hosts) and derived (servers), so any machine with the secrets has it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self
from xml.etree import ElementTree

from pcloud import confirmations, places
from pcloud.alive import Search
from pcloud.clock import Clock, SystemClock
from pcloud.desire import Material, domain_context, templates_of
from pcloud.desired import Desired, Names, ServerSpec
from pcloud.errors import BadInput, LibvirtSilent, PcloudError
from pcloud.files import make_own_folder, write_atomically
from pcloud.hypervisor import NAMESPACE, Hypervisor, ssh_uri
from pcloud.inventory import Inventory
from pcloud.journey import JourneyResult, walk
from pcloud.kept import Heard, Sighting, Witnesses
from pcloud.keys import known_hosts_line
from pcloud.last_answers import ask_all
from pcloud.model import Check, Host, Journey, SecretRef, Site, Visit, Witness
from pcloud.pins import find_pins_file, host_pins
from pcloud.power import PowerControl, control_of
from pcloud.probe import Verdict, probe
from pcloud.seed import build_seed
from pcloud.shell import Shell, ssh_argv
from pcloud.steps.backup import listen
from pcloud.templating import Secret

LOGIN_FACTOR = 3
"""A host has this many times `connect_timeout_s` until libvirt answers, as it has for a log-in."""

AT_ONCE = 64
"""So many are asked at the same time."""
_DEFINITION = "libvirt/domain.xml.j2"

_WRAPPER = """#!/bin/sh
# Written by pcloud: ssh that knows only this site's pinned keys (libvirt's transport runs it).
exec ssh -F none -o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=none \\
  -o StrictHostKeyChecking=yes -o PasswordAuthentication=no -o BatchMode=yes -o ConnectTimeout={timeout} \\
  -o ServerAliveInterval=2 -o ServerAliveCountMax=3 -o IdentitiesOnly=yes "$@"
"""


class World:
    """What the steps act through. Safe to use from several threads."""

    def __init__(
        self,
        inventory: Inventory,
        desired: Desired,
        material: Material,
        secret: Secret,
        image_folders: dict[str, Path],
        ask: Callable[[str], bool],
        clock: Clock | None = None,
    ) -> None:
        self.site: Site = inventory.site
        self._inventory = inventory.path
        self._source = inventory
        self.clock: Clock = clock or SystemClock()
        self._desired = desired
        self._material = material
        self._secret = secret
        self._image_folders = image_folders
        self._ask = ask
        self._templates = templates_of(inventory)
        self._rehearse()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._hypervisors: dict[str, Hypervisor] = {}
        self._shells: dict[str, Shell] = {}
        self._powers: dict[str, PowerControl] = {}
        self._accel: dict[str, str] = {}
        self._key = secret(self.site.access.key.secret)
        self._key_fd = _anonymous_file(self._key)
        folder = places.site_dir(self.site.site)
        make_own_folder(folder)
        self.known_hosts = folder / "known_hosts"
        self._pinned_in = str(find_pins_file(inventory) or inventory.path)
        _replace(self.known_hosts, "".join(f"{line}\n" for line in self._pins(inventory)), 0o600)
        self._wrapper = folder / "ssh"
        timeout = max(1, round(self.site.access.connect_timeout_s))
        _replace(self._wrapper, _WRAPPER.format(known_hosts=_quoted(self.known_hosts), timeout=timeout), 0o700)

    @property
    def key_path(self) -> str:
        """The operator's key, as a path that this process's children can read."""
        return f"/proc/{os.getpid()}/fd/{self._key_fd}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._templates.close()
        for hypervisor in list(self._hypervisors.values()):
            hypervisor.close()
        for shell in list(self._shells.values()):
            shell.close()
        for power in list(self._powers.values()):
            power.close()
        with suppress(OSError):
            os.close(self._key_fd)

    def _pins(self, inventory: Inventory) -> list[str]:
        """Every key this site may show: its hosts', as pinned; its servers', as derived."""
        servers = [known_hosts_line(s.address, self._material.host_keys[s.name]) for s in self._desired.everyone]
        return host_pins(inventory) + servers

    # -- connections

    def _once(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(name, threading.Lock())

    def host(self, name: str) -> Host:
        return self.site.host(name)

    def hypervisor(self, host: str) -> Hypervisor:
        with self._once(f"libvirt {host}"):
            if host not in self._hypervisors or not self._hypervisors[host].alive():
                spec = self.site.host(host)
                uri = ssh_uri(
                    str(spec.address),
                    user=spec.user or self.site.access.user,
                    ssh_command=self._wrapper,
                    key=self.key_path,
                )
                opened = self._open(uri, host)
                self.heard_of(host)
                opened.watch()
                self._hypervisors[host] = opened
            return self._hypervisors[host]

    def is_connected(self, host: str) -> bool:
        """Whether its libvirt answered already, and does."""
        return host in self._hypervisors and self._hypervisors[host].alive()

    def _open(self, uri: str, host: str) -> Hypervisor:
        """libvirt comes over ssh: where ssh alone fails too, its own error says what is wrong (a key, a cable)."""
        limit = LOGIN_FACTOR * self.site.access.connect_timeout_s
        try:
            return Hypervisor.open(uri, host, timeout_s=limit)
        except LibvirtSilent:
            self.shell(host).run(["true"], deadline_s=2 * self.site.access.connect_timeout_s)
            raise

    def shell(self, host: str) -> Shell:
        """Of a host, or of a witness."""
        machines: tuple[Host | Witness, ...] = (*self.site.hosts, *self.site.witnesses)
        spec = next(m for m in machines if m.name == host)
        pinned_in = f"{self._inventory} (host_key of {host})" if spec.host_key else self._pinned_in
        return self._shell(host, str(spec.address), spec.user or self.site.access.user, pinned_in)

    def server_shell(self, server: str) -> Shell:
        return self._shell(server, self._desired.server(server).address, "root", "")

    def _shell(self, name: str, address: str, user: str, pinned_in: str) -> Shell:
        with self._once(f"ssh {name}"):
            if name not in self._shells:
                self._shells[name] = Shell.open(
                    address,
                    user=user,
                    key=self._key,
                    known_hosts=self.known_hosts,
                    connect_timeout_s=self.site.access.connect_timeout_s,
                    name=name,
                    pinned_in=pinned_in,
                )
            return self._shells[name]

    def power(self, host: str) -> PowerControl:
        with self._once(f"power {host}"):
            if host not in self._powers:
                spec = self.site.host(host)
                search = Search(self._knock, str(spec.address), lambda: self._near(host))
                self._powers[host] = control_of(
                    self._source, spec, self.reveal, self.clock, search, lambda: dict(self._powers)
                )
            return self._powers[host]

    def _near(self, host: str) -> list[tuple[str, str, Shell]]:
        """Every other host that answered in this run."""
        near = [h for h in self.site.hosts if h.name != host and h.name in self._hypervisors]
        return [(h.name, str(h.address), self.shell(h.name)) for h in near]

    def _knock(self, check: Check, address: str) -> Verdict:
        return probe(check, address, secrets=self.reveal, timeout_s=check.timeout_s)

    def confirmed_off(self, host: str) -> str:
        found = confirmations.find_confirmation(self.site.site, host, self.clock.wall())
        return str(found) if found is not None else ""

    def heard_of(self, host: str) -> None:
        """It lives: no word that it has no power counts any longer."""
        confirmations.withdraw(self.site.site, host, self.clock.wall())

    def ssh_argv(self, machine: str, command: Sequence[str], *, tty: bool) -> list[str]:
        """The argv of the system's ssh to a host or a server, for a person to use."""
        hosts = {h.name: (str(h.address), h.user or self.site.access.user) for h in self.site.hosts}
        servers = {s.name: (s.address, "root") for s in self._desired.everyone}
        known = hosts | servers
        if machine not in known:
            raise BadInput(f"{self.site.site} has no host or server {machine}", next=f"one of {', '.join(known)}")
        address, user = known[machine]
        return ssh_argv(address, user, Path(self.key_path), self.known_hosts, tty=tty, command=command)

    # -- material

    def image_path(self, digest: str, file: str) -> Path:
        return self._image_folders[digest] / file

    def seed(self, server: str, generation: int) -> bytes:
        uuid = self._desired.server(server).uuid
        return build_seed(self._material.files[server], instance_id=f"{uuid}-g{generation}", hostname=server)

    def domain_xml(self, spec: ServerSpec, host: str, generation: int) -> str:
        place = self.site.host(host)
        accel = self._accel.setdefault(host, self.hypervisor(host).capacity(place.accel).accel)
        return self._definition(spec, place, accel, generation)

    def _definition(self, spec: ServerSpec, host: Host, accel: str, generation: int) -> str:
        context = domain_context(spec, Names(self.site.site, spec.name, generation), host, accel)
        return self._templates.render_xml(_DEFINITION, {**context, "namespace": NAMESPACE})

    def _rehearse(self) -> None:
        """A definition that cannot be rendered is found before a server is put away for its successor."""
        for spec in {s.group: s for s in self._desired.servers}.values():
            for accel in ("kvm", "tcg"):
                try:
                    ElementTree.fromstring(self._definition(spec, self.site.hosts[0], accel, 1))  # noqa: S314 (ours)
                except ElementTree.ParseError as error:
                    raise BadInput(f"is no XML once rendered: {error}", where=_DEFINITION) from error

    def address(self, server: str) -> str:
        return self._desired.server(server).address

    def host_key(self, server: str) -> str:
        return self._material.host_keys[server]

    # -- questions

    def hear(self, witnesses: Witnesses) -> tuple[Heard, tuple[Sighting, ...]]:
        w = witnesses
        with ThreadPoolExecutor(min(AT_ONCE, len((*w.frontends, *w.balancers, *w.hosts)) or 1)) as pool:
            frontends = ask_all(self._addresses(w.frontends), pool)
            balancers = ask_all(self._addresses(w.balancers), pool, http=True)
            hosts = zip(w.hosts, pool.map(self._listen, w.hosts), strict=True)
            said, told = frontends(), {host: answer for host, answer in hosts if answer is not None}
            unheard = (*w.gone, *(n for n in w.frontends if n not in said))
            heard = Heard(said, unheard, balancers(), {host: age for host, (age, _) in told.items()})
        return heard, tuple(sighting for _, sighting in told.values())

    def _addresses(self, servers: Iterable[str]) -> dict[str, str]:
        return {name: self._desired.server(name).address for name in servers}

    def _listen(self, host: str) -> tuple[float, Sighting] | None:
        """None where the host does not say."""
        try:
            return listen(self, host)
        except PcloudError:
            return None

    def reveal(self, reference: SecretRef) -> str:
        return self._secret(reference.secret)

    def probe(self, check: Check, server: str, address: str) -> Verdict:
        def run(argv: Sequence[str]) -> int:
            return self.server_shell(server).run(argv, deadline_s=check.timeout_s, check=False).exit_code

        return probe(check, address, secrets=self.reveal, run=run, timeout_s=check.timeout_s)

    def walk(self, journey: Journey, on_visit: Callable[[Visit, float], None]) -> JourneyResult:
        service = self.site.services[journey.service]
        port = "" if service.port == 80 else f":{service.port}"
        return walk(journey, f"http://{service.address}{port}", clock=self.clock, on_step=on_visit)

    def ask(self, question: str) -> bool:
        return self._ask(question)


def _anonymous_file(text: str) -> int:
    """A file descriptor on memory, readable by this user's processes alone."""
    fd = os.memfd_create("pcloud-key")
    os.fchmod(fd, 0o600)
    os.write(fd, text.encode() + (b"" if text.endswith("\n") else b"\n"))
    return fd


def _replace(path: Path, text: str, mode: int) -> None:
    try:
        write_atomically(path, text, mode)
    except OSError as error:
        raise PcloudError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            next="make room there (df -h), or set PCLOUD_HOME to another folder; then the same command again",
        ) from error


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"
