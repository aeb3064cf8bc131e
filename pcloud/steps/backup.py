"""Backups: taken and proven on a server, kept on hosts; and the binary log that hosts stream.

On a server `/usr/lib/pcloud/backup` does the work (templates/servers/mariadb/backup.sh.j2), on a
host `keep`, in the folder of what it keeps (templates/hosts/keep.sh). A backup is there when its
manifest is, which is written last, on a host that has hashed what arrived.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any, ClassVar

from pcloud.backups import TIME, read_shelf
from pcloud.clock import Deadline
from pcloud.errors import CheckFailed, CommandFailed
from pcloud.gtid import behind
from pcloud.kept import Backup, Shelf, Sighting, Timeline
from pcloud.model import SecretRef
from pcloud.sightings import read_heard
from pcloud.steps.base import Machine, Met, Report, Unmet, World, path_in
from pcloud.steps.door import order
from pcloud.steps.hostscript import host_script
from pcloud.steps.job import ask, done, words_of, work
from pcloud.steps.replication import position, sql

BACKUP = "/usr/lib/pcloud/backup"
REPLICA = "db/replica"
"""The secret of the account that may read the binary log."""
LIST_S = 120
FRESH_S = 12 * 3600
"""A backup that was begun longer ago is not gone on with: another one is made."""
SHORT_S = 60
HEARD_S = 2
"""A host that takes longer is not waited for: a shop stands still meanwhile."""
STREAM_S = 60
"""Within this a stream has brought what the primary had when it was asked."""
CATCH_UP_S = 5
POLL_S = 1.0
_CLOCK = "SELECT DATE_FORMAT(UTC_TIMESTAMP() - INTERVAL {ago_s} SECOND, '%Y-%m-%dT%H:%i:%sZ')"
"""The primary's: the binary log has its times from there, and a restore to a time compares them."""


def folder_of(world: World, host: str) -> str:
    """Where a host keeps the site's backups."""
    return path_in(world.host(host).pool, f"backups/{world.site.site}")


def look(world: World, host: str) -> Shelf:
    """What the host keeps; nothing where it never kept any."""
    script = '[ ! -x "$1/keep" ] || exec "$1/keep" list'
    argv = ["sh", "-c", script, "sh", folder_of(world, host)]
    return read_shelf(host, world.shell(host).run(argv, deadline_s=LIST_S, max_output=16 << 20).stdout)


def listen(world: World, host: str) -> tuple[float, Sighting] | None:
    """Until when the primary answered the host, in seconds ago, and where it was; None where it streams nothing."""
    script = '[ ! -x "$1/keep" ] || exec "$1/keep" heard'
    argv = ["sh", "-c", script, "sh", folder_of(world, host)]
    answer = world.shell(host).run(argv, deadline_s=HEARD_S, check=False)
    return read_heard(answer.stdout)


def keep(world: World, host: str, *words: str, deadline_s: float) -> str:
    return world.shell(host).run([f"{folder_of(world, host)}/keep", *words], deadline_s=deadline_s).stdout


def _option(text: str) -> str:
    """A value of an option file."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True)
class Stream:
    """The host follows the primary's binary log, under its own init, and has what the primary had just now."""

    host: str
    primary: str
    peers: tuple[str, ...] = ()
    """The addresses of the servers that carry the data: who is asked for what the host missed, and while the primary is
    silent."""
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        shelf = look(world, self.host)
        if not shelf.streaming:
            return Unmet("it does not stream the binary log")
        shell, folder = world.shell(self.host), folder_of(world, self.host)
        if not is_current(world, self.host) or self._peers() != shell.tail(f"{folder}/peers"):
            return Unmet("its program is another one")
        # Orders go on: what counts is that it gets to where the primary was, not that it stands where that is now.
        wanted, deadline = position(world, self.primary), Deadline.after(CATCH_UP_S, world.clock)
        while late := behind(_streamed(look(world, self.host)), wanted):
            if deadline.passed():
                return Unmet(f"it is {late} transactions behind")
            world.clock.sleep(POLL_S)
        return Met({"position": wanted})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        shell, folder, site = world.shell(self.host), folder_of(world, self.host), world.site
        shell.run(["install", "-d", "-m", "0700", "--", folder], deadline_s=SHORT_S)
        service = site.services[site.database.service]
        password = world.reveal(SecretRef(secret=REPLICA))
        account = {"user": "replica", "password": _option(password), "host": service.address, "port": service.port}
        config = "[client]\n" + "".join(f"{name} = {value}\n" for name, value in account.items())
        number = int(IPv4Address(world.host(self.host).address))
        shell.write(f"{folder}/client.cnf", config.encode(), mode=0o600)
        shell.write(f"{folder}/server-id", f"{number}\n".encode(), mode=0o600)
        shell.write(f"{folder}/peers", self._peers().encode(), mode=0o600)
        renew(world, self.host)
        try:
            keep(world, self.host, "install", deadline_s=SHORT_S)
        except CommandFailed as error:
            remedy = f"pcloud hosts prepare {site.site}" if "not installed" in error.what else ""
            raise CommandFailed(error.what, where=error.where, next=remedy) from error
        deadline = Deadline.after(STREAM_S, world.clock)
        while isinstance(found := self.check(world), Unmet):
            if deadline.passed() or report.stopping():
                break
            report.progress(found.why)
            world.clock.sleep(POLL_S)
        return {}

    def _peers(self) -> str:
        return "".join(f"{address}\n" for address in self.peers)


def _streamed(shelf: Shelf) -> str:
    """How far the connection of now came."""
    return next((t.end for t in shelf.stretches if shelf.streaming and t.session == shelf.session), "")


def find_backup(world: World, host: str, id: str) -> Backup | None:
    """The backup of this id that the host keeps."""
    return next((b for b in look(world, host).backups if b.id == id), None)


def is_current(world: World, host: str) -> bool:
    """Whether the host's program is this pcloud's."""
    return world.shell(host).tail(f"{folder_of(world, host)}/keep", lines=10_000) == host_script("keep.sh")


def renew(world: World, host: str) -> str:
    """The host's program, which is this pcloud's from now on."""
    path = f"{folder_of(world, host)}/keep"
    if not is_current(world, host):
        world.shell(host).write(path, host_script("keep.sh").encode(), mode=0o700)
    return path


@dataclass(frozen=True)
class EndStream:
    """The host streams no longer; what it keeps stays."""

    host: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        return Unmet("another host streams instead") if look(world, self.host).streaming else Met()

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        keep(world, self.host, "remove", deadline_s=SHORT_S)
        return {}


@dataclass(frozen=True)
class Take:
    """The server holds a full backup `id` of its data, compressed, that was proven good.

    Proven: a MariaDB of its own, beside the server's, was started from those bytes and read every
    table through. What it found is the manifest, left on the server until hosts have the backup.
    """

    server: str
    primary: str
    id: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        found = read_manifest(world, self.server, self.id)
        if found is None:
            return Unmet("there is no proven backup yet")
        return Met({"backup": found.id, "position": found.position, "size": found.size, "rows": found.rows})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        machine, again = server_with_jobs(world, self.server), f"pcloud backup {world.site.site}"
        words = ("take", self.id)
        text = done(machine, BACKUP, words)
        if not text:
            sql(world, self.primary, "FLUSH BINARY LOGS")  # streams that begin again do so with a small file
            text = work(world, machine, BACKUP, words, report, where=self.server, next=again)
        lines = text.splitlines()
        said = dict(line.partition(" ")[::2] for line in lines)
        now = machine.run(["date", "+%s"], deadline_s=SHORT_S).stdout
        taken = sql(world, self.primary, _CLOCK.format(ago_s=max(0, int(now) - int(said["copied"]))))[0][0]
        manifest = Backup(
            id=self.id,
            line=said["token"] or "unmarked",
            position=said["position"],
            taken=taken,
            size=int(said["size"]),
            sha256=said["sha256"],
            server=self.server,
            version=said["version"],
            tables=int(said["tables"]),
            rows=int(said["rows"]),
            tested=_now(world),
            data=int(said["data"]),
            timelines=tuple(_timeline(line.split()) for line in lines if line.startswith("timeline ")),
        )
        machine.write(_manifest_path(self.id), json.dumps(asdict(manifest)).encode())
        return {}


def server_with_jobs(world: World, server: str) -> Machine:
    """The server, whose program does its work as jobs. Raises `CheckFailed` of one that an earlier pcloud made."""
    machine = world.server_shell(server)
    if machine.run([BACKUP, "words"], deadline_s=SHORT_S, check=False).exit_code != 0:
        remedy = f"make it anew: pcloud recover {world.site.site} --rebuild {server}"
        raise CheckFailed("it was made by an earlier pcloud, whose backups are others", where=server, next=remedy)
    return machine


def find_begun(world: World, server: str) -> str | None:
    """The id of a backup that the server takes at this moment, or has and no host got yet; none that is old."""
    machine = world.server_shell(server)
    if machine.run([BACKUP, "words"], deadline_s=SHORT_S, check=False).exit_code != 0:
        return None
    verb, _, name = words_of(machine, BACKUP).partition(" ")
    if verb != "take" or ask(machine, [BACKUP, "ask"]).code not in (None, 0):
        return None
    try:
        age = world.clock.wall() - datetime.strptime(name, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:  # somebody's own
        return None
    return name if age.total_seconds() < FRESH_S else None


def _timeline(words: list[str]) -> Timeline:
    """From `timeline DOMAIN PARENT BRANCHED SERVER BEGAN`."""
    _, domain, parent, branched, server, began = words
    return Timeline(int(domain), int(parent), "" if branched == "-" else branched, server, began=began)


def _now(world: World) -> str:
    return world.clock.wall().strftime(TIME)


def _manifest_path(id: str) -> str:
    return f"/var/lib/pcloud/backup/{id}.json"


def read_manifest(world: World, server: str, id: str) -> Backup | None:
    """What is said of a proven backup that the server still holds."""
    text = world.server_shell(server).tail(_manifest_path(id))
    shelf = read_shelf("", f"backup {json.loads(text)['size']} {text}") if text else Shelf("")
    return next((b for b in shelf.backups if b.id == id), None)


@dataclass(frozen=True)
class Keep:
    """The host has the backup, straight from the server, hashed there after it arrived, and its manifest."""

    host: str
    server: str
    id: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        found = find_backup(world, self.host, self.id)
        if found is None:
            return Unmet("the backup is not there")
        return Met({"backup": found.id, "position": found.position, "sha256": found.sha256, "tested": found.tested})

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        manifest = read_manifest(world, self.server, self.id)
        if manifest is None:
            raise CheckFailed("its backup is gone", where=self.server, next=f"pcloud backup {world.site.site}")
        words = ("fetch", self.id, str(manifest.size), manifest.sha256, world.address(self.server))
        door, first = f"keep-{self.host}", json.dumps(asdict(manifest))
        work(
            world,
            world.shell(self.host),
            f"{folder_of(world, self.host)}/keep",
            words,
            report,
            where=self.host,
            next=f"pcloud backup {world.site.site}",
            order=lambda: order(world, self.server, door, "backup", "give", self.id, first=first),
        )
        return {}


@dataclass(frozen=True)
class Drop:
    """The server holds no backup any more: hosts do."""

    server: str
    id: str
    waits: ClassVar[bool] = False

    def check(self, world: World) -> Met | Unmet:
        return Met() if read_manifest(world, self.server, self.id) is None else Unmet("it still holds the backup")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:  # noqa: ARG002
        world.server_shell(self.server).run([BACKUP, "drop"], deadline_s=SHORT_S)
        return {}
