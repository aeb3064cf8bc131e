"""What a site should be: frozen facts resolved from an inventory, its images and templates.

`Desired` is the other half of a plan's input (see `observed.py`). It holds digests where
there are secrets: the rendered files themselves stay with the `World` that will need them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import PurePosixPath

from pcloud.identity import server_mac, server_uuid
from pcloud.kept import Target
from pcloud.model import Check, Group, Site, TcpCheck
from pcloud.playbook import Playbook


@dataclass(frozen=True)
class ImageFile:
    """One file of an image: its name in the image's folder, its digest and size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class ImageSpec:
    """An image as the hosts need it. `digest` names its content; `cmdline` is the kernel's."""

    name: str
    recipe: str
    digest: str
    cmdline: str
    disk: ImageFile
    kernel: ImageFile | None
    initrd: ImageFile | None

    @property
    def files(self) -> tuple[ImageFile, ...]:
        return tuple(f for f in (self.disk, self.kernel, self.initrd) if f is not None)

    @property
    def size(self) -> int:
        """Bytes that a host must be sent."""
        return sum(f.size for f in self.files)

    def on_host(self, pool: str, file: ImageFile) -> str:
        """The path of a file's copy: named by content, so that two builds never mix."""
        return str(PurePosixPath(pool) / f"pcloud-image.{self.recipe}.{self.digest[:12]}.{file.name}")


@dataclass(frozen=True)
class ServerSpec:
    """One server as it should be, wherever it runs. `spec` changes when any of it does."""

    name: str
    group: str
    role: str
    image: ImageSpec
    vcpus: int
    memory_mib: int
    disk_gib: int
    address: str
    service_addresses: tuple[str, ...]
    mac: str
    uuid: str
    spec: str

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its own, and those of the services that it holds; the database's moves, and belongs to nobody."""
        return self.address, *self.service_addresses


def spec_of(
    site: Site,
    group: Group,
    name: str,
    address: IPv4Address,
    image: ImageSpec,
    spec: str = "",
    service_addresses: tuple[str, ...] = (),
) -> ServerSpec:
    """A server of the group: what its name and the inventory alone say of it, and what is made of them."""
    return ServerSpec(
        name=name,
        group=group.name,
        role=group.role,
        image=image,
        vcpus=group.vcpus,
        memory_mib=group.memory_mib,
        disk_gib=group.disk_gib,
        address=str(address),
        service_addresses=service_addresses,
        mac=server_mac(site.site, name),
        uuid=str(server_uuid(site.site, name)),
        spec=spec,
    )


@dataclass(frozen=True)
class Dump:
    """The database's latest dump: a path on this machine, and the digest of its bytes."""

    path: str
    sha256: str
    """Empty until it was read through, which only a plan that restores it wants (`desire.read_dump`)."""
    size: int = 0
    """Bytes of its SQL."""
    notes: tuple[str, ...] = ()
    """What a person should know of it, though it can be restored."""


@dataclass(frozen=True)
class Options:
    """What the person asked of this one run."""

    from_scratch: bool = False
    rebuild: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    empty_database: bool = False
    lost: tuple[str, ...] = ()
    """Hosts that the person gives up: fenced whether they answer or not, and their servers moved."""
    kept: bool = False
    """What hosts keep of the database is looked at, also where a server holds it."""
    until: Target | None = None
    """The servers that carry the data are made anew, from a backup and the binary log up to here."""
    unproven: bool = False
    """The servers with the data are put away though what replaces them was never made beside them."""
    without: tuple[str, ...] = ()
    """Hosts whose backups and binary logs are not to be used."""
    from_backup: str = ""
    """The backup that is restored, by its id; empty for the one that reaches furthest."""
    unfenced: tuple[str, ...] = ()
    """Hosts that could not be fenced in this run: what must stay stays, stateless servers get substitutes."""
    accept_loss: str = ""
    """The loss that a person accepts with a promotion: a number of transactions, or `unknown`."""


@dataclass(frozen=True)
class Desired:
    site: Site
    playbook: Playbook
    servers: tuple[ServerSpec, ...]
    dump: Dump | None
    dump_problem: str = ""
    options: Options = Options()
    substitutes: tuple[ServerSpec, ...] = ()
    """Stateless servers at the spare addresses of their groups, made only while a member cannot be."""
    accounts: tuple[str, ...] = ()
    """The accounts that the data servers make themselves, as `user@host`."""

    @property
    def everyone(self) -> tuple[ServerSpec, ...]:
        """The servers, and those that may stand in for one."""
        return self.servers + self.substitutes

    @cached_property
    def _by_name(self) -> dict[str, ServerSpec]:
        return {s.name: s for s in self.everyone}

    @cached_property
    def _by_group(self) -> dict[str, tuple[ServerSpec, ...]]:
        groups: dict[str, list[ServerSpec]] = {}
        for spec in self.servers:
            groups.setdefault(spec.group, []).append(spec)
        return {name: tuple(specs) for name, specs in groups.items()}

    def server(self, name: str) -> ServerSpec:
        return self._by_name[name]

    def members(self, group: str) -> tuple[ServerSpec, ...]:
        return self._by_group.get(group, ())

    def digest(self) -> str:
        """Changes when a plan made from this would."""
        parts = {
            "site": self.site.model_dump(mode="json"),
            "playbook": repr(self.playbook.phases),
            "servers": {s.name: (s.spec, s.image.digest) for s in self.everyone},
            "dump": self.dump.sha256 if self.dump else self.dump_problem,
            "options": asdict(self.options),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Names:
    """How one generation of one server is called on its host."""

    site: str
    server: str
    generation: int = 0

    @property
    def domain(self) -> str:
        return f"{self.site}.{self.server}"

    @property
    def _stem(self) -> str:
        return f"{self.site}.{self.server}.g{self.generation}"

    @property
    def disk(self) -> str:
        return f"{self._stem}.qcow2"

    @property
    def seed(self) -> str:
        return f"{self._stem}.seed.iso"

    @property
    def console(self) -> str:
        return f"{self._stem}.console.log"

    @property
    def note(self) -> str:
        """What other hosts keep of this generation where nobody knows its host any more (`generations.py`)."""
        return f"{self._stem}.note"

    def noted(self, host: str, address: str) -> str:
        """What other hosts keep of this generation: that it is there, and on which host."""
        return f"{self._stem}.on-{host}.{address}.note"

    def inspection(self, at: str) -> str:
        """What is kept beside a copy of the data whose disk was read: the position that it got to (`past.py`)."""
        return f"{self._stem}.at-{at}.note"

    def inspected(self, file: str) -> str | None:
        """The position in the name of such a note of this copy's; None for any other file."""
        found = re.fullmatch(rf"{re.escape(self._stem)}\.at-([0-9,-]*)\.note", file)
        return found[1] if found else None

    @property
    def filled(self) -> str:
        """The same once this generation of a data server has had its data."""
        return f"{self._stem}.filled.note"

    @property
    def past(self) -> str:
        """The same when another server takes the role over while this generation is empty yet."""
        return f"{self._stem}.past.note"

    @property
    def void(self) -> str:
        """The same once it is seen that nobody took it over."""
        return f"{self._stem}.void.note"

    def tombstone(self, date: str) -> str:
        return f"{self._stem}.tombstone-{date}"


def liveness(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that blame a server alone: a search without its index only has to listen."""
    return tuple(
        Check(name=c.name, tcp=TcpCheck(port=c.search.port), timeout_s=c.timeout_s) if c.search else c for c in checks
    )
