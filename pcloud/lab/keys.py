"""The lab's keys and secrets: made once, never overwritten, 0600, replaced whole or not at all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from pcloud.errors import BadInput
from pcloud.files import write_atomically
from pcloud.lab.disk import pinned_line, private_text, public_line
from pcloud.lab.layout import LabFolder
from pcloud.model import Host, SecretRef, Site

OPERATOR = "ssh/operator"
ALWAYS = ("site/identity", "db/shop", "db/sphinx", "db/monitor", "db/replica", "shop/django", "bmc/password")


def operator_line(folder: LabFolder) -> str:
    """The operator's public key line; the private key is made when there is none."""
    if folder.key.exists():
        key = serialization.load_ssh_private_key(folder.key.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise BadInput("not an ed25519 key", where=str(folder.key), next="remove the file, or the whole lab")
    else:
        key = Ed25519PrivateKey.generate()
        write_atomically(folder.key, private_text(key), 0o600)
    return public_line(key)


def write_known_hosts(folder: LabFolder, hosts: tuple[Host, ...]) -> None:
    """One plain line a host, `ADDRESS ssh-ed25519 KEY`, for the hosts that have a disk."""
    lines = [pinned_line(h, folder.host(h.name)) for h in hosts if folder.host(h.name).record.exists()]
    write_atomically(folder.known_hosts, "".join(lines), 0o600)


def references(value: object) -> Iterator[str]:
    """The name of every secret that a model speaks of."""
    if isinstance(value, SecretRef):
        yield value.secret
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from references(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from references(item)


def write_secrets(site: Site, folder: LabFolder) -> None:
    """Adds what `secrets.yaml` lacks: random values, and the operator's key under the name the site uses.

    Text that is there stays as it is, comments included.
    """
    path = folder.secrets
    text = path.read_text() if path.exists() else f"# Secrets of the lab {site.site}: made by `pcloud lab up`.\n"
    present = yaml.safe_load(text) or {}
    if not isinstance(present, dict):
        raise BadInput("not a mapping of names to values", where=str(path), next="correct it, or remove it")
    keys = {OPERATOR, site.access.key.secret}
    missing = [name for name in sorted({*ALWAYS, *keys, *references(site)}) if name not in present]
    if not missing:
        return
    for name in missing:
        if name in keys:
            block = "".join(f"  {line}\n" for line in folder.key.read_text().splitlines())
            text += f"{name}: |\n{block}"
        else:
            text += f"{name}: {json.dumps(secrets.token_urlsafe(24))}\n"
    write_atomically(path, text, 0o600)
