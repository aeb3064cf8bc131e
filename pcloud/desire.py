"""`desire`: an inventory, its images, templates and secrets become `Desired`.

The rendered files hold secrets, so they come back beside `Desired`, as `Material` that only
the `World` keeps. A server's `spec` is a keyed digest of all that makes it what it is: the
key is the site's identity secret, so that a digest on a host gives no password away.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pcloud.desired import Desired, Dump, ImageSpec, Names, Options, ServerSpec, spec_of
from pcloud.dumps import BadDump, glance, look
from pcloud.errors import BadInput
from pcloud.identity import carrier_names, server_mac, server_names, server_uuid, servers_of, substitutes_of
from pcloud.inventory import Inventory, defaults_dir
from pcloud.keys import SHORTEST, derive, keypair_from_seed, public_line
from pcloud.model import Group, Host, Site
from pcloud.playbook import Playbook
from pcloud.seed import SeedFile, judge_files
from pcloud.templating import OwnView, Secret, ServerView, Templates

IDENTITY = "site/identity"
"""The secret from which the servers' host keys and the key of all digests are derived."""

NO_DUMP = "the inventory names no dump"
ACCOUNTS = "/etc/mysql/accounts.sql"
_ACCOUNT = re.compile(r"CREATE USER IF NOT EXISTS '([^']+)'@'([^']+)'")


@dataclass(frozen=True)
class Material:
    """What the steps of a run need and a plan must not hold: rendered files, by server."""

    files: Mapping[str, tuple[SeedFile, ...]]
    host_keys: Mapping[str, str]
    """Server to its public host key, as a line of OpenSSH."""


def templates_of(inventory: Inventory) -> Templates:
    site = inventory.site
    own = [inventory.resolve(site.templates)] if site.templates else []
    return Templates([*own, defaults_dir("templates")], _shared(site))


def desire(
    inventory: Inventory, playbook: Playbook, images: Mapping[str, ImageSpec], secret: Secret, options: Options
) -> tuple[Desired, Material]:
    """`images` holds every image the groups name. Reads templates and the dump's first bytes, no host."""
    site = inventory.site
    identity = _identity(secret)
    authorized = public_line(secret(site.access.key.secret), f"pcloud@{site.site}")
    specs, files, host_keys = {}, {}, {}
    for own, made in _servers(inventory, identity, authorized, secret):
        specs[own.name] = _spec(site, own, images[site.group(own.group).image], made, identity)
        files[own.name], host_keys[own.name] = made, own.ssh_host_key_public
    dump, problem = _dump(inventory)
    members = tuple(specs[name] for _, name, _ in servers_of(site))
    stand_ins = tuple(specs[name] for _, name, _ in substitutes_of(site))
    accounts = _accounts(files.values())
    desired = Desired(site, playbook, members, dump, problem, options, stand_ins, accounts)
    return desired, Material(files, host_keys)


def check_templates(inventory: Inventory) -> None:
    """Renders every server's files with secrets that are none. Raises `BadInput`."""
    for _ in _servers(inventory, b"nobody's identity", "ssh-ed25519 AAAA nobody", lambda name: f"the secret {name}"):
        pass


def _servers(
    inventory: Inventory, identity: bytes, authorized: str, secret: Secret
) -> Iterator[tuple[OwnView, tuple[SeedFile, ...]]]:
    """Every server and substitute, with the files of its seed, which a seed can be made of."""
    site = inventory.site
    with contextlib.closing(templates_of(inventory)) as templates:
        for view in (*_views(servers_of(site)), *_views(substitutes_of(site))):
            seed = derive(identity, site.site, view.name, "ssh")
            private, public = keypair_from_seed(seed, f"{view.name}.{site.site}")
            own = _own(site, view, site.group(view.group), private, public, authorized)
            files = templates.render_server(own, secret)
            judge_files(files)
            yield own, files


def _identity(secret: Secret) -> bytes:
    identity = secret(IDENTITY).encode()
    if len(identity) < SHORTEST:
        what = f"the secret {IDENTITY} is shorter than {SHORTEST} bytes: the servers' keys could be guessed"
        raise BadInput(what, next="give it a long one: openssl rand -base64 32")
    return identity


def _views(addressed: Iterable[tuple[Group, str, IPv4Address]]) -> tuple[ServerView, ...]:
    return tuple(ServerView(name, group.role, group.name, str(address)) for group, name, address in addressed)


def _own(site: Site, view: ServerView, group: Group, private: str, public: str, authorized: str) -> OwnView:
    first = view.name == server_names(group)[0]
    held = tuple(
        str(s.address)
        for name, s in site.services.items()
        if first and s.group == group.name and name != site.database.service  # that one moves with the primary
    )
    return OwnView(
        name=view.name,
        role=view.role,
        group=view.group,
        address=view.address,
        mac=server_mac(site.site, view.name),
        gateway=str(site.network.gateway),
        prefixlen=site.network.cidr.prefixlen,
        service_addresses=held,
        carries=view.name in carrier_names(site),
        vcpus=group.vcpus,
        memory_mib=group.memory_mib,
        machine_id=server_uuid(site.site, view.name).hex,
        ssh_host_key=private,
        ssh_host_key_public=public,
        authorized_key=authorized,
    )


def _shared(site: Site) -> dict[str, Any]:
    return {
        "site": site,
        "network": {"address": str(site.network.cidr.network_address), "netmask": str(site.network.cidr.netmask)},
        "servers": _views(servers_of(site)),
        "substitutes": _views(substitutes_of(site)),
        "services": {
            name: {"address": str(s.address), "port": s.port, "group": s.group} for name, s in site.services.items()
        },
        "database": site.database.name,
        "search": site.search.index,
    }


def domain_context(spec: ServerSpec, names: Names, host: Host, accel: str) -> dict[str, Any]:
    """What libvirt's XML of a server on `host` is rendered from. `accel` is `kvm` or `tcg`."""
    image = spec.image
    return {
        "spec": spec,
        "names": {
            "site": names.site,
            "generation": names.generation,
            "domain": names.domain,
            "disk": names.disk,
            "seed": names.seed,
            "console": names.console,
        },
        "kernel": image.on_host(host.pool, image.kernel) if image.kernel else None,
        "initrd": image.on_host(host.pool, image.initrd) if image.initrd else None,
        "pool": host.pool,
        "bridge": host.bridge,
        "accel": accel,
    }


def _spec(site: Site, own: OwnView, image: ImageSpec, files: tuple[SeedFile, ...], identity: bytes) -> ServerSpec:
    group = site.group(own.group)
    content = [(f.path, f.mode, f.owner, hashlib.sha256(f.content).hexdigest()) for f in files]
    made_of = (str(server_uuid(site.site, own.name)), own.mac, group.vcpus, group.memory_mib, group.disk_gib, content)
    key = derive(identity, site.site, "spec")
    digest = hmac.new(key, json.dumps(made_of).encode(), hashlib.sha256).hexdigest()[:32]
    address = IPv4Address(own.address)
    return spec_of(site, group, own.name, address, image, digest, own.service_addresses)


def _dump(inventory: Inventory) -> tuple[Dump | None, str]:
    """The dump, not read through yet; or None and what is wrong with it already."""
    written = inventory.site.database.dump
    if written is None:
        return None, NO_DUMP
    path = inventory.resolve(written)
    try:
        glance(path)
    except BadDump as error:
        return None, f"the dump {path} {error}"
    return Dump(str(path), ""), ""


def _accounts(made: Iterable[tuple[SeedFile, ...]]) -> tuple[str, ...]:
    """The accounts that the servers' own files make, as `user@host`."""
    texts = [f.content.decode() for files in made for f in files if f.path == ACCOUNTS]
    return tuple(sorted({f"{user}@{host}" for text in texts for user, host in _ACCOUNT.findall(text)}))


def read_dump(desired: Desired) -> Desired:
    """The same with its dump read through: known to be whole and fit for this database, or what is wrong with it.

    It takes long where a dump is long, so only what restores it asks for it; once in a run, while the file stays.
    """
    if desired.dump is None or desired.dump.sha256:
        return desired
    path = Path(desired.dump.path)
    try:
        found = path.stat()
        dump = _look(path, desired.site.database.name, desired.accounts, found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError as error:
        return replace(desired, dump=None, dump_problem=f"the dump {path} cannot be read: {error.strerror}")
    except BadDump as error:
        return replace(desired, dump=None, dump_problem=f"the dump {path} {error}")
    return replace(desired, dump=dump)


@lru_cache(maxsize=1)
def _look(path: Path, database: str, accounts: tuple[str, ...], *_: int) -> Dump:
    return look(path, database, accounts)
