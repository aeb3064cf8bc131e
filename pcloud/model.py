"""A site, as a person describes it: frozen data, no I/O.

These models are the inventory's schema. `inventory.py` fills them from YAML and adds what
no single model can see (duplicates, unknown names, capacity). Units end the names:
`_s` seconds, `_mib` MiB, `_gib` GiB. The text under a field is what editors show for it;
`wants` words say in `pcloud validate` what would have been right.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pcloud.values import (
    AbsolutePath,
    AddressSpec,
    Argv,
    ControllerAddress,
    ControllerUrl,
    ControllerUser,
    DatabaseName,
    DomainName,
    FilePath,
    HostKey,
    HttpStatus,
    Identifier,
    Name,
    PoolFolder,
    Port,
    Prefix,
    Role,
    SecretName,
    Selector,
    ServerNetwork,
    SqlName,
    Text,
    UrlPath,
    wants,
)

HOST_RESERVE_MIB = 256
"""Memory of a host that no server is given."""
SERVER_OVERHEAD_MIB = 64
"""Memory that a server's emulator takes beside the guest's own."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, use_attribute_docstrings=True)


class SecretRef(Frozen):
    """`{secret: db/root}`: a name, never a value."""

    model_config = ConfigDict(
        json_schema_extra={"x-wants": "a reference", "x-private": True, "examples": ["{secret: db/root}"]}
    )

    secret: SecretName


class Network(Frozen):
    """The one layer-2 network that hosts and servers share."""

    cidr: ServerNetwork
    gateway: IPv4Address
    """The router of the servers. In a lab, the lab itself."""
    dns: Annotated[tuple[IPv4Address, ...], Field(max_length=10)] = ()
    domain: DomainName = "internal"
    """Servers call each other `<server>.<domain>`."""


class Service(Frozen):
    """An address that belongs to a job, not to a server; the group's first server holds it."""

    address: IPv4Address
    port: Port
    group: Name


class Access(Frozen):
    """How pcloud logs in to hosts and servers: one key, and pinned host keys."""

    user: Name = "root"
    key: SecretRef = SecretRef(secret="ssh/operator")  # noqa: S106 -- a name
    """The private key, as a reference."""
    known_hosts: AbsolutePath | None = None
    """A file of pinned host keys; without it, the site's own."""
    connect_timeout_s: Annotated[float, Field(gt=0, le=120)] = 5


class SecretSources(Frozen):
    """Where references are looked up, after `$PCLOUD_SECRET_DB_ROOT` in the environment."""

    file: FilePath | None = None
    """A YAML file `db/root: "..."`, readable by its owner alone (0600)."""
    command: Argv | None = None
    """A command that prints the secret whose name is its last argument."""


class Bmc(Frozen):
    """The management controller that can cut a host's power: by Redfish, by IPMI, or first one, then the other."""

    redfish: ControllerUrl | None = None
    insecure: bool = False
    """`true`: the URL may begin with http://, so that whoever is in between reads the password."""
    ipmi: ControllerAddress | None = None
    """Asked beside Redfish, or alone: an address or a name, with a port where it is not 623."""
    user: ControllerUser = "admin"
    password: SecretRef = SecretRef(secret="bmc/password")  # noqa: S106 -- a name
    kg: SecretRef | None = None
    """IPMI's key of the whole controller (K_G), where one is set."""
    cipher: Annotated[int, Field(ge=1, le=17)] | None = None
    """IPMI's cipher suite, such as 3 or 17; without it, what the controller offers."""
    ca: FilePath | None = None
    """The controller's own certificate, whatever is in it, or its authority's (PEM or DER); else this machine's."""
    timeout_s: Annotated[float, Field(gt=0, le=120)] = 10
    """For one request to the controller."""
    off_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30
    """From the order until the power reads off; it is given again while it does not."""
    start_s: Annotated[float, Field(ge=1, le=3600)] = 60
    """For so long after its own start the controller may say off of a host that runs."""

    @model_validator(mode="after")
    def _some_way(self) -> Self:
        if self.redfish is None and self.ipmi is None:
            raise ValueError("a bmc is reached by redfish or by ipmi; write one of them, or both")
        return self


class Host(Frozen):
    """A physical server that runs libvirt."""

    name: Name
    address: IPv4Address
    rack: Name = "r1"
    """Servers of one group are spread over racks; the database and its replica stand in two."""
    spare: bool = False
    """Takes servers only when the others cannot, or would put too many of a kind into one rack."""
    user: Name | None = None
    """Instead of `access.user`."""
    host_key: HostKey | None = None
    """The host's public key, pinned."""
    bmc: Bmc | None = None
    pool: PoolFolder = "/var/lib/pcloud/pool"
    """The folder of the storage pool, on the host."""
    bridge: Annotated[
        str, StringConstraints(pattern=r"^[a-z][a-z0-9.-]{0,14}$"), wants("a network interface of the host", "br0")
    ] = "br0"
    memory_mib: Annotated[int, Field(ge=256, le=64 * 1024 * 1024)] | None = None
    """What servers may use together; without it, what the host says it has."""
    accel: Literal["auto", "kvm", "tcg"] = "auto"


class Witness(Frozen):
    """A machine beside the hosts, such as the gateway, that says whether it sees one that is silent."""

    name: Name
    address: IPv4Address
    user: Name | None = None
    host_key: HostKey | None = None


class ImageRef(Frozen):
    """Which prepared image a role boots: a recipe's latest build, or one exact digest."""

    recipe: Name | None = None
    digest: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[0-9a-f]{12,64}$"),
            wants("12 to 64 hexadecimal digits in quotes", '"3f1a9c0b77de"'),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.recipe is None) == (self.digest is None):
            raise ValueError("name a recipe or a digest, one of the two")
        return self


class TcpCheck(Frozen):
    """The port accepts a connection."""

    port: Port


class HttpCheck(Frozen):
    """An answer with this status, and this text in it."""

    port: Port = 80
    path: UrlPath = "/"
    status: HttpStatus = 200
    contains: Text | None = None
    host: DomainName | None = None
    """The Host header; without it, the address."""


class SqlCheck(Frozen):
    """A query that answers; `at_least` in its first column."""

    port: Port = 3306
    user: SqlName = "monitor"
    password: SecretRef = SecretRef(secret="db/monitor")  # noqa: S106 -- a name
    query: Text = "SELECT 1"
    at_least: int | None = None


class SearchCheck(Frozen):
    """A real `MATCH` over SphinxQL; `at_least` hits."""

    port: Port = 9306
    index: Identifier
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
    """What the servers are for; chooses the files they are given."""
    prefix: Prefix
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    image: Name
    """A name under `images`."""
    vcpus: Annotated[int, Field(ge=1, le=256)] = 1
    memory_mib: Annotated[int, Field(ge=128, le=4 * 1024 * 1024)]
    disk_gib: Annotated[int, Field(ge=1, le=64 * 1024)]
    addresses: Annotated[tuple[AddressSpec, ...], Field(min_length=1, max_length=1000)]
    """Given out in this order; more than `count` leaves room to grow."""
    needs: Annotated[tuple[Name, ...], Field(max_length=200)] = ()
    """Groups that must answer before this one can."""
    boot_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 300
    """From start until every check passes."""
    checks: Annotated[tuple[Check, ...], Field(min_length=1, max_length=50)]


class SemiSync(Frozen):
    """How the database answers a shopper while no replica acknowledges what he ordered."""

    alone: Literal["wait", "degrade"] = "degrade"
    """`wait`: no order is accepted that only one server holds. `degrade`: orders go on, and `status` says so."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 30
    """How long a commit waits for the replica before `degrade` goes on without it."""


class Backups(Frozen):
    """What `pcloud backup` keeps on hosts, beside the binary log that they stream."""

    keep: Annotated[int, Field(ge=1, le=1000)] = 7
    """How many full backups; binary logs older than the oldest of them go with what they continued."""
    copies: Annotated[int, Field(ge=1, le=10)] = 2
    """On how many hosts, each of which streams the binary log, too."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 3600
    """For what goes from one host to another; taking and copying a backup has no deadline while something moves."""


class Database(Frozen):
    """What the database holds, where its latest dump is, and which servers carry a replica of it."""

    group: Name
    name: DatabaseName
    service: Name = "db"
    """The service whose address moves with the primary."""
    replica: Name | None = None
    """The group whose first server carries a replica, and takes over when the primary's host is lost."""
    semi_sync: SemiSync = SemiSync()
    dump: FilePath | None = None
    """A `.sql` or `.sql.gz` file on this machine."""
    restore_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 900
    backups: Backups = Backups()


class Search(Frozen):
    """The index that is built from the database."""

    group: Name
    index: Identifier
    argv: Argv = ("/usr/lib/pcloud/index", "batch")
    """Builds the whole of it, on the indexer."""
    changes_argv: Argv = ("/usr/lib/pcloud/index", "changes")
    """Takes in what changed since it was built."""
    changes_every_s: Annotated[int, Field(ge=1, le=3600)] = 10
    """How often the indexer looks whether a product has changed."""
    batch: Annotated[
        str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"), wants("a time of day in quotes", '"03:30"')
    ] = "03:30"
    """When it builds the whole of it anew every day, by its own clock (UTC)."""
    index_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 900


class Visit(Frozen):
    """One step of a shopper's walk: open a page, follow a link, or send a form.

    `follow` and `submit` take a CSS selector of the page that the step before left open.
    What the page must then show: `status`, `contains` texts, `at_least` matches of `finds`.
    """

    name: Name
    get: UrlPath | None = None
    follow: Selector | None = None
    submit: Selector | None = None
    fields: dict[Text, Annotated[str, StringConstraints(max_length=2000)]] = Field(default_factory=dict, max_length=50)
    """What the form is filled with, as texts."""
    status: HttpStatus = 200
    contains: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    finds: Selector | None = None
    at_least: Annotated[int, Field(ge=1, le=10_000)] = 1

    @model_validator(mode="after")
    def _one_act(self) -> Self:
        if sum(act is not None for act in (self.get, self.follow, self.submit)) != 1:
            raise ValueError("a journey's step does one thing: get, follow or submit")
        if self.fields and self.submit is None:
            raise ValueError("fields are for a form; write submit instead of get or follow, or take fields out")
        if "at_least" in self.model_fields_set and self.finds is None:
            raise ValueError("at_least counts the matches of finds; add finds, or take at_least out")
        return self


class Journey(Frozen):
    """What proves that a shopper could buy again."""

    service: Name = "storefront"
    steps: Annotated[tuple[Visit, ...], Field(min_length=1, max_length=100)]
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60
    """For one walk."""
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 600
    """Until one walk passes."""


class Lab(Frozen):
    """This site lives in a lab: hosts are namespaces of this machine."""

    host_memory_mib: Annotated[int, Field(ge=256, le=64 * 1024 * 1024)] = 4096


class Site(Frozen):
    """One recoverable cluster: one file `inventory/<site>.yaml`."""

    site: Name
    """The same as the file's name."""
    lab: Lab | None = None
    network: Network
    services: dict[Name, Service] = Field(max_length=50)
    access: Access = Access()
    secrets: SecretSources = SecretSources()
    images: dict[Name, ImageRef] = Field(min_length=1, max_length=100)
    hosts: Annotated[tuple[Host, ...], Field(min_length=1, max_length=10_000)]
    witnesses: Annotated[tuple[Witness, ...], Field(max_length=10)] = ()
    """Who is asked where half of the hosts or more are silent at once."""
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=200)]
    database: Database
    search: Search
    journey: Journey
    playbooks: FilePath | None = None
    """A folder with this site's own playbooks."""
    templates: FilePath | None = None
    """A folder with this site's own templates."""

    def host(self, name: str) -> Host:
        return next(h for h in self.hosts if h.name == name)

    def group(self, name: str) -> Group:
        return next(g for g in self.groups if g.name == name)
