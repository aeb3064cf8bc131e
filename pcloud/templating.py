"""Templates: where they lie, what a role's servers are given, and the process that renders them.

A site's templates are a stranger's program: they run in `renderer.py`, a process of its own with
an empty environment, which is sent plain data (`plain`), answered the secrets that it asks for, and
ended after `DEADLINE_S`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from pcloud import renderer
from pcloud.clock import Deadline
from pcloud.document import load_document, parse
from pcloud.errors import BadInput
from pcloud.model import Frozen
from pcloud.seed import SeedFile
from pcloud.values import plain_folders

DEADLINE_S = 20.0
"""How long the templates of one server may take. A second would do, on a machine that does nothing else."""

Secret = Callable[[str], str]


class FileEntry(Frozen):
    """One file of a role's seed: where it goes in the guest, and the template that makes it."""

    path: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/@-]{1,200}$"), AfterValidator(plain_folders)]
    template: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{1,200}$")]
    mode: Annotated[str, StringConstraints(pattern=r"^0[0-7]{3}$")] = "0644"
    owner: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,30}:[a-z_][a-z0-9_-]{0,30}$")] = "root:root"


class FileIndex(Frozen):
    """`templates/servers/<role>.yaml`: the files that a role's servers are given."""

    files: Annotated[tuple[FileEntry, ...], Field(max_length=500)]


@dataclass(frozen=True)
class ServerView:
    """A server as the templates of every server may see it: nothing secret."""

    name: str
    role: str
    group: str
    address: str


@dataclass(frozen=True)
class OwnView(ServerView):
    """A server as its own templates see it. `ssh_host_key` is a private key."""

    mac: str
    gateway: str
    prefixlen: int
    service_addresses: tuple[str, ...]
    carries: bool
    """Whether it carries the shop's data, as the primary or as its replica."""
    vcpus: int
    memory_mib: int
    machine_id: str
    ssh_host_key: str
    ssh_host_key_public: str
    authorized_key: str


def plain(value: object) -> Any:
    """What JSON has: mappings, lists, texts, numbers. Models and dataclasses give their fields and no method."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a template cannot be given {type(value).__name__}")


class Renderer:
    """`renderer.py` as a process, started when it is first needed. One request at a time."""

    def __init__(self, folders: Sequence[Path], shared: Mapping[str, Any]) -> None:
        self._given = {"folders": [str(folder) for folder in folders], "shared": plain(shared)}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render(
        self, templates: Sequence[str], context: Mapping[str, Any], *, xml: bool = False, secret: Secret | None = None
    ) -> list[tuple[str, list[str]]]:
        """Each template's text, and the names of the secrets that it asked for. Raises `BadInput`."""
        request = {"templates": list(templates), "context": plain(context), "xml": xml}
        with self._lock:
            try:
                process = self._process = self._process or self._start()
                answer = self._converse(process, request, secret)
            except BaseException:
                self._end()
                raise
        if "error" in answer:
            raise BadInput(answer["error"], where=answer["where"])
        return list(zip(answer["texts"], answer["asked"], strict=True))

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-I", renderer.__file__]
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"LC_ALL": "C.UTF-8"}
        )
        _send(process, self._given)
        return process

    def _converse(
        self, process: subprocess.Popen[bytes], request: Mapping[str, Any], secret: Secret | None
    ) -> dict[str, Any]:
        limit = Deadline.after(DEADLINE_S)
        where = ", ".join(request["templates"][:1])
        try:
            _send(process, request)
            while "secret" in (answer := _receive(process, limit, where)):
                value = secret(answer["secret"]) if secret else ""
                limit = Deadline.after(DEADLINE_S)  # a secret may be a command's, or a person's
                _send(process, value)
        except (BrokenPipeError, EOFError, json.JSONDecodeError) as error:
            mib = renderer.MEMORY_LIMIT >> 20
            what = f"the templates' process ended: they may need more than {mib} MiB"
            mend = "look for what grows without end in what was changed last"
            raise BadInput(what, where=where, next=mend) from error
        return answer

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close() if pipe else None
            self._process.wait()
            self._process = None

    def __del__(self) -> None:
        self._end()


def _send(process: subprocess.Popen[bytes], document: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(document).encode() + b"\n")
    process.stdin.flush()


def _receive(process: subprocess.Popen[bytes], limit: Deadline, where: str) -> dict[str, Any]:
    assert process.stdout is not None
    line = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not ready.select(max(0.0, limit.left())):
                what = f"the templates take longer than {DEADLINE_S:g} s"
                raise BadInput(what, where=where, next="look for a loop without end in what was changed last")
            if not (part := os.read(process.stdout.fileno(), 1 << 20)):
                raise EOFError
            line += part
    return dict(json.loads(line))


class Templates:
    """The template folders of a site: its own first, then those that come with pcloud.

    `shared` is what the templates of every server may see.
    """

    def __init__(self, folders: Sequence[Path], shared: Mapping[str, Any] | None = None) -> None:
        self.folders = tuple(folders)
        self._renderer = Renderer(folders, shared or {})

    def close(self) -> None:
        self._renderer.close()

    def render_xml(self, template: str, context: Mapping[str, Any]) -> str:
        return self._renderer.render([template], context, xml=True)[0][0]

    def find_file(self, name: str) -> Path | None:
        """The first folder's file of that name."""
        return next((f / name for f in self.folders if (f / name).is_file()), None)

    def index(self, role: str, *, carries: bool) -> tuple[FileEntry, ...]:
        """A role's files: those of every role, MariaDB's where it `carries` the data, and its own, which win.

        Every frontend notes until when the database answered it, also where the role's own files are a site's.
        """
        entries: dict[str, FileEntry] = {}
        for name in ("common", *(["mariadb"] if carries else []), *(["heard"] if role == "frontend" else []), role):
            path = self.find_file(f"servers/{name}.yaml")
            if path is None:
                raise BadInput(f"there is no servers/{name}.yaml", where=str(self.folders[0]))
            entries |= {e.path: e for e in parse(load_document(path), FileIndex).files}
        return tuple(entries[path] for path in sorted(entries))

    def render_server(self, own: OwnView, secret: Secret) -> tuple[SeedFile, ...]:
        """Every file of one server. A template that asks for a secret must be private (0600-like)."""
        entries = self.index(own.role, carries=own.carries)
        names = [f"servers/{entry.template}" for entry in entries]
        rendered = self._renderer.render(names, {"server": own}, secret=secret)
        files = []
        for entry, (text, asked) in zip(entries, rendered, strict=True):
            mode = int(entry.mode, 8)
            if asked and mode & 0o007:
                raise BadInput(
                    f"{entry.path} holds the secret {asked[0]} but its mode {entry.mode} lets everybody read it",
                    where=entry.template,
                    next='give it mode: "0640" or "0600" where its servers/*.yaml lists it',
                )
            files.append(SeedFile(entry.path, text.encode(), mode, entry.owner))
        return tuple(files)
