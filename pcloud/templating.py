"""Jinja2, fenced in: sandboxed, strict about undefined names, bounded in output.

Guest files are text and not escaped; libvirt XML is escaped. A sandbox stops code but not
`'x' * 10**9`, so multiplying and raising to a power are refused for anything but small
numbers, and a render ends at `OUTPUT_LIMIT` characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, StringConstraints

from pcloud.document import load_document, parse
from pcloud.errors import BadInput
from pcloud.model import Frozen
from pcloud.seed import SeedFile

OUTPUT_LIMIT = 1 << 20
_NUMBER_LIMIT = 1 << 40


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        numbers = all(isinstance(side, int | float) and abs(side) < _NUMBER_LIMIT for side in (left, right))
        if not numbers or (operator == "**" and abs(right) > 64):
            raise jinja2.exceptions.SecurityError(f"a template may not compute this with {operator}")
        return super().call_binop(context, operator, left, right)


class FileEntry(Frozen):
    """One file of a role's seed: where it goes in the guest, and the template that makes it."""

    path: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/@-]{1,200}$")]
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


class Templates:
    """The template folders of a site: its own first, then those that come with pcloud."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        loader = jinja2.FileSystemLoader([str(f) for f in folders])
        options: dict[str, Any] = {
            "loader": loader,
            "undefined": jinja2.StrictUndefined,
            "trim_blocks": True,
            "lstrip_blocks": True,
            "keep_trailing_newline": True,
        }
        self._text = _Sandbox(autoescape=False, **options)
        self._xml = _Sandbox(autoescape=True, **options)

    def render_text(self, template: str, context: Mapping[str, Any]) -> str:
        return self._render(self._text, template, context)

    def render_xml(self, template: str, context: Mapping[str, Any]) -> str:
        return self._render(self._xml, template, context)

    def _render(self, environment: jinja2.Environment, template: str, context: Mapping[str, Any]) -> str:
        try:
            parts: list[str] = []
            length = 0
            for part in environment.get_template(template).generate(**context):
                length += len(part)
                if length > OUTPUT_LIMIT:
                    raise BadInput(f"the template writes more than {OUTPUT_LIMIT} characters", where=template)
                parts.append(part)
            return "".join(parts)
        except jinja2.TemplateNotFound as error:
            folders = ", ".join(str(f) for f in self.folders)
            raise BadInput(f"there is no template {error.name} in {folders}", where=template) from error
        except jinja2.TemplateSyntaxError as error:
            raise BadInput(f"line {error.lineno}: {error.message}", where=error.name or template) from error
        except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as error:
            raise BadInput(f"cannot be rendered: {error}", where=template) from error

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

    def render_server(
        self, own: OwnView, shared: Mapping[str, Any], secret: Callable[[str], str]
    ) -> tuple[SeedFile, ...]:
        """Every file of one server. A template that asks for a secret must be private (0600-like)."""
        files = []
        for entry in self.index(own.role, carries=own.carries):
            asked: list[str] = []

            def reveal(name: str, asked: list[str] = asked) -> str:
                asked.append(name)
                return secret(name)

            text = self.render_text(f"servers/{entry.template}", {**shared, "server": own, "secret": reveal})
            mode = int(entry.mode, 8)
            if asked and mode & 0o007:
                raise BadInput(
                    f"{entry.path} holds the secret {asked[0]} but its mode {entry.mode} lets everybody read it",
                    where=entry.template,
                    next='give it mode: "0640" or "0600" where its servers/*.yaml lists it',
                )
            files.append(SeedFile(entry.path, text.encode(), mode, entry.owner))
        return tuple(files)
