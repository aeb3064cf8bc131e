"""A site, as a person describes it: frozen data, no I/O.

These models are the inventory's schema. `inventory.py` fills them from YAML and adds what
no single model can see (duplicates, unknown names, capacity). Units end the names:
`_s` seconds, `_mib` MiB, `_gib` GiB.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

NAME = r"^[a-z0-9][a-z0-9-]{0,30}$"
SECRET = r"^[a-z0-9][a-z0-9_-]{0,30}(/[a-z0-9][a-z0-9_-]{0,30}){0,3}$"
SAFE_PATH = r"^/[A-Za-z0-9._/-]{1,200}$"
URL_PATH = r"^/[^\s\x00-\x1f]{0,500}$"

Name = Annotated[str, StringConstraints(pattern=NAME)]
AbsolutePath = Annotated[str, StringConstraints(pattern=SAFE_PATH)]
UrlPath = Annotated[str, StringConstraints(pattern=URL_PATH)]
Port = Annotated[int, Field(ge=1, le=65535)]
Role = Literal["frontend", "balancer", "database", "indexer"]
Argv = Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=4096)], ...], Field(min_length=1, max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class SecretRef(Frozen):
    """`{secret: db/root}`: a name, never a value."""

    secret: Annotated[str, StringConstraints(pattern=SECRET)]


class Network(Frozen):
    """The one layer-2 network that hosts and servers share."""

    cidr: IPv4Network
    gateway: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    domain: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,60}$")] = "internal"


class Service(Frozen):
    """An address that belongs to a job, not to a server; the group's first server holds it."""

    address: IPv4Address
    port: Port
    group: Name


class Access(Frozen):
    """How pcloud logs in to hosts and servers: one key, and pinned host keys."""

    user: Name = "root"
    key: SecretRef = SecretRef(secret="ssh/operator")
    known_hosts: AbsolutePath | None = None
    connect_timeout_s: Annotated[float, Field(gt=0, le=120)] = 5


class SecretSources(Frozen):
    """Where references are looked up, after `$PCLOUD_SECRET_DB_ROOT` in the environment."""

    file: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    command: Argv | None = None


class Bmc(Frozen):
    """The management controller that can cut a host's power."""

    redfish: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]{1,200}$")]
    user: Name = "admin"
    password: SecretRef = SecretRef(secret="bmc/password")


class Host(Frozen):
    """A physical server that runs libvirt."""

    name: Name
    address: IPv4Address
    rack: Name = "r1"
    spare: bool = False
    user: Name | None = None
    host_key: Annotated[str, StringConstraints(pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]{40,200}$")] | None = None
    bmc: Bmc | None = None
    pool: AbsolutePath = "/var/lib/pcloud/pool"
    bridge: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9.-]{0,14}$")] = "br0"
    memory_mib: Annotated[int, Field(ge=256, le=64 * 1024 * 1024)] | None = None
    accel: Literal["auto", "kvm", "tcg"] = "auto"


class ImageRef(Frozen):
    """Which prepared image a role boots: a recipe's latest build, or one exact digest."""

    recipe: Name | None = None
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12,64}$")] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.recipe is None) == (self.digest is None):
            raise ValueError("name a recipe or a digest, one of the two")
        return self


class TcpCheck(Frozen):
    port: Port


class HttpCheck(Frozen):
    port: Port = 80
    path: UrlPath = "/"
    status: Annotated[int, Field(ge=100, le=599)] = 200
    contains: Text | None = None
    host: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,100}$")] | None = None


class SqlCheck(Frozen):
    port: Port = 3306
    user: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")] = "monitor"
    password: SecretRef = SecretRef(secret="db/monitor")
    query: Text = "SELECT 1"
    at_least: int | None = None


class SearchCheck(Frozen):
    """A real `MATCH` over SphinxQL; `at_least` hits."""

    port: Port = 9306
    index: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,60}$")]
    match: Text
    at_least: Annotated[int, Field(ge=0)] = 1


class CommandCheck(Frozen):
    """A command on the server, over SSH: costs a log-in, so a last resort."""

    argv: Argv
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0


class Check(Frozen):
    """One health question, of exactly one kind, to every server of its group."""

    name: Name
    tcp: TcpCheck | None = None
    http: HttpCheck | None = None
    sql: SqlCheck | None = None
    search: SearchCheck | None = None
    command: CommandCheck | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [k for k in ("tcp", "http", "sql", "search", "command") if getattr(self, k) is not None]
        if len(kinds) != 1:
            raise ValueError("a check asks one question: tcp, http, sql, search or command")
        return self

    @property
    def kind(self) -> str:
        return next(k for k in ("tcp", "http", "sql", "search", "command") if getattr(self, k) is not None)


class Group(Frozen):
    """Servers alike: `<prefix>-1` to `<prefix>-<count>`, one address each."""

    name: Name
    role: Role
    prefix: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,19}$")]
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    image: Name
    vcpus: Annotated[int, Field(ge=1, le=256)] = 1
    memory_mib: Annotated[int, Field(ge=128, le=4 * 1024 * 1024)]
    disk_gib: Annotated[int, Field(ge=1, le=64 * 1024)]
    addresses: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    needs: tuple[Name, ...] = ()
    boot_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 300
    checks: Annotated[tuple[Check, ...], Field(min_length=1, max_length=50)]


class Database(Frozen):
    """What the database holds, and where its latest dump is."""

    group: Name
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
    dump: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    restore_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 900


class Search(Frozen):
    """The index that is built from the database."""

    group: Name
    index: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,60}$")]
    index_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 900


class Visit(Frozen):
    """One step of a shopper's walk: open a page, follow a link, or send a form.

    `follow` and `submit` take a CSS selector of the page that the step before left open.
    What the page must then show: `status`, `contains` texts, `at_least` matches of `finds`.
    """

    name: Name
    get: UrlPath | None = None
    follow: Text | None = None
    submit: Text | None = None
    fields: dict[str, str] = Field(default_factory=dict, max_length=50)
    status: Annotated[int, Field(ge=100, le=599)] = 200
    contains: tuple[Text, ...] = ()
    finds: Text | None = None
    at_least: Annotated[int, Field(ge=1, le=10_000)] = 1

    @model_validator(mode="after")
    def _one_act(self) -> Self:
        if sum(act is not None for act in (self.get, self.follow, self.submit)) != 1:
            raise ValueError("a journey's step does one thing: get, follow or submit")
        return self


class Journey(Frozen):
    service: Name = "storefront"
    steps: Annotated[tuple[Visit, ...], Field(min_length=1, max_length=100)]
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 600


class Lab(Frozen):
    """This site lives in a lab: hosts are namespaces of this machine."""

    host_memory_mib: Annotated[int, Field(ge=256)] = 4096


class Site(Frozen):
    """One recoverable cluster: one file `inventory/<site>.yaml`."""

    site: Name
    lab: Lab | None = None
    network: Network
    services: dict[Name, Service] = Field(max_length=50)
    access: Access = Access()
    secrets: SecretSources = SecretSources()
    images: dict[Name, ImageRef] = Field(min_length=1, max_length=100)
    hosts: Annotated[tuple[Host, ...], Field(min_length=1, max_length=10_000)]
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=200)]
    database: Database
    search: Search
    journey: Journey
    playbooks: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    templates: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None

    def host(self, name: str) -> Host:
        return next(h for h in self.hosts if h.name == name)

    def group(self, name: str) -> Group:
        return next(g for g in self.groups if g.name == name)
