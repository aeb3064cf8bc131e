"""The values of the inventory's fields: what a name, a path, a port or a command may be.

`wants` words say in `pcloud validate` what would have been right.
"""

from __future__ import annotations

import base64
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Annotated, Any, Literal

import soupsieve
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

NAME = r"^[a-z0-9][a-z0-9-]{0,30}$"
SECRET = r"^[a-z0-9][a-z0-9_-]{0,30}(/[a-z0-9][a-z0-9_-]{0,30}){0,3}$"  # noqa: S105 -- the pattern of a name
SAFE_PATH = r"^/[A-Za-z0-9._/-]{1,200}$"
URL_PATH = r"^/([^/\\\s\x00-\x1f][^\\\s\x00-\x1f]{0,499})?$"
HOST_NAME = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?){0,8}\.?"
DOMAIN = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?){0,5}$"


def wants(words: str, example: str) -> Any:
    """What a message and an editor say of the value, and one that would be right."""
    return Field(examples=[example], json_schema_extra={"x-wants": words})


def private(words: str, example: str) -> Any:
    """Like `wants`, where a person may write a password by mistake: messages do not repeat it."""
    return Field(examples=[example], json_schema_extra={"x-wants": words, "x-private": True})


def plain_folders(path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")[1:]):
        raise ValueError(f'"{path}" must not hold //, /./, /../ or end in /; write the folder itself')
    return path


def _usable(network: IPv4Network) -> IPv4Network:
    if not 8 <= network.prefixlen <= 30:
        raise ValueError(f"{network} has no fitting size; write a network from /8 to /30")
    if network.is_loopback or network.is_multicast or network.is_link_local or network.network_address.packed[0] == 0:
        raise ValueError(f"{network} is not for servers; write a private network such as 10.77.0.0/24")
    return network


def _ed25519(line: str) -> str:
    """RFC 8709: the key's blob is two strings, its type and 32 bytes."""
    try:
        blob = base64.b64decode(line.split()[1], validate=True)
    except ValueError:
        blob = b""
    if len(blob) != 51 or not blob.startswith(b"\0\0\0\x0bssh-ed25519\0\0\0\x20"):
        raise ValueError("is no whole ed25519 key; copy the line anew: ssh-keyscan -t ed25519 ADDRESS")
    return line


SYSTEM_SCHEMAS = frozenset({"mysql", "information_schema", "performance_schema", "sys", "pcloud", "test"})
_SYSTEM_FOLDERS = frozenset(
    ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr"]
)


def _not_a_system_schema(name: str) -> str:
    if name in SYSTEM_SCHEMAS:
        raise ValueError(f"\"{name}\" is MariaDB's own, or pcloud's; name the schema that the shop uses")
    return name


def _not_the_systems(path: str) -> str:
    """A pool's files are deleted by their names, and must be there after the next boot."""
    first, second = [*path.split("/"), ""][1:3]
    if first in _SYSTEM_FOLDERS or (first, second) in (("var", "tmp"), ("var", "run"), ("var", "lock")):
        where = f'"{path}" is the system\'s, or is emptied at its start'
        raise ValueError(f"{where}; write a folder such as /var/lib/pcloud/pool")
    return path


def _selector(text: str) -> str:
    try:
        soupsieve.compile(text)
    except (soupsieve.SelectorSyntaxError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'"{text}" is no CSS selector ({reason}); write one such as form.checkout') from None
    return text


def split_port(address: str, default: int) -> tuple[str, int]:
    """The machine and the port of `10.0.9.11`, `bmc-h3:6230`, `[fd00::9]:623` or `fd00::9`. Raises `ValueError`."""
    found = re.fullmatch(r"(\[(?P<six>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(:(?P<port>\d{1,5}))?", address)
    if found is None:
        return str(IPv6Address(address)), default
    port = int(found["port"] or default)
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no port")
    return (str(IPv6Address(found["six"])) if found["six"] else found["name"]), port


def _address_with_port(address: str) -> str:
    try:
        machine, _ = split_port(address, 623)
        if re.fullmatch(r"[0-9.]+", machine):
            IPv4Address(machine)
        elif ":" not in machine and not re.fullmatch(HOST_NAME, machine):
            raise ValueError
    except ValueError:
        wanted = "write an address or a name, such as 10.0.9.11, bmc-h3:6230 or [fd00::9]"
        raise ValueError(f'"{address}" is not where a controller can be; {wanted}') from None
    return address


Name = Annotated[str, StringConstraints(pattern=NAME), wants("small letters, digits and hyphens, at most 31", "web-1")]
AbsolutePath = Annotated[
    str,
    StringConstraints(pattern=SAFE_PATH),
    AfterValidator(plain_folders),
    wants("an absolute path of letters, digits and . _ - /", "/var/lib/pcloud/pool"),
]
UrlPath = Annotated[
    str,
    StringConstraints(pattern=URL_PATH),
    wants("a path on the shop itself: one leading slash, no spaces, no \\", "/search/?q=rose"),
]
DomainName = Annotated[str, StringConstraints(pattern=DOMAIN), wants("a domain name in small letters", "shop.example")]
SecretName = Annotated[str, StringConstraints(pattern=SECRET), private("the secret's name, never its value", "db/root")]
HostKey = Annotated[
    str,
    StringConstraints(pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]{40,200}$"),
    AfterValidator(_ed25519),
    wants("one line of ssh-keyscan -t ed25519, from the key's type on", "ssh-ed25519 AAAAC3Nza..."),
]
Identifier = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,60}$"), wants("small letters, digits and _", "products")
]
SqlName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$"), wants("small letters, digits and _", "shop")
]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
DatabaseName = Annotated[SqlName, AfterValidator(_not_a_system_schema)]
PoolFolder = Annotated[AbsolutePath, AfterValidator(_not_the_systems)]
Selector = Annotated[Text, AfterValidator(_selector)]
ServerNetwork = Annotated[IPv4Network, AfterValidator(_usable), wants("a network with its size", "10.77.0.0/24")]
AddressSpec = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9.]{7,15}(-[0-9.]{7,15})?$"),
    wants("an address, or a range with both ends", "10.77.0.21-10.77.0.24"),
]
Port = Annotated[int, Field(ge=1, le=65535)]
ControllerUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s/@?#\\]{1,200}(/[^\s@?#\\]{0,200})?$"),
    private("the controller's URL, without user or password", "https://10.0.9.11"),
]
ControllerUser = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.@+$][A-Za-z0-9_.@+$-]{0,62}$"),
    wants("the user as the controller knows it: letters, digits and . _ @ + $ -", "ADMIN"),
]
ControllerAddress = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, IPv4Address | IPv6Address) else value),
    AfterValidator(_address_with_port),
    wants("an address or a name, with or without a port", "10.0.9.11"),
]
HttpStatus = Annotated[int, Field(ge=100, le=599)]
Role = Literal["frontend", "balancer", "database", "indexer"]
Argv = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=4096)], ...],
    Field(min_length=1, max_length=64),
    wants("a command as a list of words", "[systemctl, is-active, nginx]"),
]
FilePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500),
    wants("a path, relative to the inventory's own folder or absolute", "../dumps/shop.sql.gz"),
]
