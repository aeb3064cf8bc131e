"""What a dead copy of the data holds, read from its disk on its host; the copy itself is never started.

On the host, `salvage` does the work (templates/hosts/salvage.sh, which says how). It changes nothing but
a folder of its own, and takes as much room there as the binary log that it reads, twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pcloud.desired import Names
from pcloud.errors import CheckFailed, CommandFailed, PcloudError
from pcloud.salvage import DeadCopy, Reading, note_name, sentence
from pcloud.steps.base import GENTLY, Met, Report, Unmet, World, path_in
from pcloud.steps.hostscript import host_script
from pcloud.steps.replication import is_primary, sql

LOOK_S = 300
NOTES_S = 20
SALVAGE_S = 4 * 3600
UNKNOWN = "unknown"
_GTIDS = re.compile(r"(\d+-\d+-\d+(,\d+-\d+-\d+)*)?")


@dataclass(frozen=True)
class Living:
    """Where the living data are: the primary's position, and the last transaction of each server in each domain."""

    position: str
    state: str


def find_living(world: World, servers: Sequence[str]) -> Living:
    """Raises `CheckFailed` when none of the servers is a primary that answers."""
    said = []
    for server in servers:
        try:
            if is_primary(world, server):
                rows = sql(world, server, "SELECT CONCAT(@@gtid_current_pos, '/', @@gtid_binlog_state)")
                position, _, state = rows[0][0].partition("/")
                return Living(position, state)
        except PcloudError as error:
            said.append(error.what)
    raise CheckFailed(
        "no primary answers, so that nobody can say what the shop's data have not",
        where=" and ".join(servers),
        next=f"pcloud recover {world.site.site}",
    )


@dataclass
class Read:
    """What `salvage` said of one disk, and in what state its log is."""

    at: str = UNKNOWN
    missing: int = 0
    first: str = ""
    last: str = ""
    partial: bool = False
    damaged: list[str] = field(default_factory=list)

    def reading(self, living: Living) -> Reading:
        partial = self.partial or bool(self.damaged)
        return Reading(self.at, living.position, self.missing, self.first, self.last, partial)


@dataclass
class _Answer:
    """Takes apart what `salvage` prints: facts, then after `--` the transactions' text, line by line."""

    read: Read
    doing: Callable[[str], None]
    line: Callable[[bytes], None]
    rest: bytes = b""
    facts: bool = True
    whole: bool = False

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if not self.facts:
                self.line(line)
            elif line == b"--":
                self.facts = False
                self.whole = True
            else:
                self._fact(line.decode("utf-8", "replace"))

    def _fact(self, line: str) -> None:
        kind, _, text = line.partition(" ")
        match kind:
            case "doing":
                self.doing(text)
            case "at" if text == UNKNOWN or _GTIDS.fullmatch(text):
                self.read.at = text if text == UNKNOWN else sorted_gtids(text)
            case "missing":
                count, self.read.first, self.read.last = (*text.split(), "", "")[:3]
                self.read.missing = int(count)
            case "gap":
                self.read.partial = True
            case "damaged":
                self.read.damaged.append(text)


def sorted_gtids(text: str) -> str:
    words = filter(None, text.split(","))
    return ",".join(sorted(words, key=lambda gtid: int(gtid.partition("-")[0])))


def read_disk(
    world: World,
    host: str,
    file: str,
    living: Living,
    *,
    verb: str = "look",
    doing: Callable[[str], None] = lambda _: None,
    line: Callable[[bytes], None] = lambda _: None,
    deadline_s: float = LOOK_S,
) -> Read:
    """`verb`: `look`, `list` (the transactions without a value of any row) or `sql` (whole). Raises `CommandFailed`."""
    pool = world.host(host).pool
    script = host_script("salvage.sh")
    where = [path_in(pool, file), path_in(pool, f"salvage/{world.site.site}")]
    argv = [*GENTLY, "sh", "-c", script, "salvage", verb, *where, living.position, living.state or "-"]
    answer = _Answer(Read(), doing, line)
    ended = world.shell(host).run(argv, deadline_s=deadline_s, check=False, stdout=answer.take)
    if ended.exit_code != 0 or not answer.whole:
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("salvage: ")[:300]
        raise CommandFailed(f"{file}: {said}", where=host, next=_remedy(world, host, said))
    return answer.read


def _remedy(world: World, host: str, said: str) -> str:
    site = world.site.site
    if "not installed" in said:
        return f"pcloud hosts prepare {site} {host}"
    if "has room for" in said:
        return f"make room on {host}: pcloud ssh {site}/{host} -- df -h; pcloud purge {site} deletes tombstones"
    if '"write" lock' in said or "another one" in said:
        return f"somebody uses it; see pcloud status {site}, then the same command again"
    return f"read it by hand: on {host}, qemu-img convert it to another disk, and open that one; leave it as it is"


def leave_note(world: World, host: str, names: Names, reading: Reading) -> None:
    """Later plans know from the note's name what the copy holds, without looking again."""
    note = path_in(world.host(host).pool, note_name(names, reading.position))
    world.shell(host).write(note, reading.to_json().encode(), mode=0o600)


def read_notes(world: World, host: str, files: Sequence[str]) -> dict[str, str]:
    """File to text of a host's notes, in one call."""
    script = 'cd -- "$1" && shift && for note; do printf "%s %s\\n" "$note" "$(head -c 65536 -- "$note")"; done'
    said = world.shell(host).run(["sh", "-c", script, "sh", world.host(host).pool, *files], deadline_s=NOTES_S)
    return {name: text for name, _, text in (line.partition(" ") for line in said.stdout.splitlines())}


@dataclass(frozen=True)
class Inspect:
    """Beside a dead copy's disk stands a note of what it holds that the living data have not.

    Like a gate it changes nothing of the site, and waits until it has looked. What keeps it from that
    is told in its facts and is no failure of the run's: the copy stays where it is, and the next run looks again.
    """

    host: str
    names: Names
    servers: tuple[str, ...]
    """The servers that carry the data: one of them is the living primary."""
    waits: ClassVar[bool] = True

    def check(self, world: World) -> Met | Unmet:
        there = world.hypervisor(self.host).volumes(world.host(self.host).pool)
        noted = any(self.names.inspected(v) is not None for v in there)
        return Met() if noted else Unmet("nobody has read what it holds")

    def do(self, world: World, report: Report) -> Mapping[str, Any]:
        try:
            return self._look(world, report)
        except PcloudError as error:
            return {"unread": f"{error.where}: {error.what}", "next": error.next}

    def _look(self, world: World, report: Report) -> Mapping[str, Any]:
        living = find_living(world, self.servers)
        read = read_disk(world, self.host, self.names.disk, living, doing=report.progress)
        copy = DeadCopy(self.host, self.names.server, self.names.generation, self.names.disk)
        if read.at == UNKNOWN:
            return {
                "unread": f"{copy} holds data, and its binary log no transaction: nothing says how far they go",
                "next": f"pcloud restore {world.site.site} --help, or leave it as it is",
            }
        reading = read.reading(living)
        facts: dict[str, Any] = {"holds": read.at, "missing": reading.missing}  # no `position`: that is the primary's
        if said := sentence(world.site.site, copy, reading):
            facts["found"] = said
        if read.damaged:
            facts |= {"unread": f"{copy}: {read.damaged[0]}", "next": f"pcloud salvage {world.site.site}"}
        else:
            leave_note(world, self.host, self.names, reading)
        return facts
