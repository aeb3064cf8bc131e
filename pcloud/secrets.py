"""Values that only references name: the environment, then a 0600 file, then a command.

A `Secret` shows as `***` wherever it is printed, formatted, copied into JSON text or pickled;
only `reveal()` gives the value. No message of this module holds one.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import select
import shlex
import signal
import stat
import subprocess
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from pcloud import places
from pcloud.clock import Deadline
from pcloud.document import decode_text, load_document, parse_document, read_file, show_path
from pcloud.errors import BadDocument, BadInput, PcloudError, Problem
from pcloud.inventory import resolve_path
from pcloud.model import SecretRef, Site
from pcloud.values import SECRET
from pcloud.wording import Key, format_path, show

HIDDEN = "***"
COMMAND_DEADLINE_S = 30.0
MAX_OUTPUT = 64 * 1024
"""Bytes of a secret command's output; a key is a few hundred."""


class Secret:
    """A value that does not show. Not a `str`: where a text is wanted, somebody must say `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(Secret)  # a hash of the value would tell a little about it

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (HIDDEN,)


@dataclass(frozen=True)
class SecretUse:
    """A place in the site that names a secret."""

    name: str
    path: Key


def secret_uses(site: Site) -> tuple[SecretUse, ...]:
    """Every reference of a site, those of defaults included, in the order of the model."""
    return tuple(_uses(site, ()))


def _uses(value: object, path: Key) -> Iterator[SecretUse]:
    if isinstance(value, SecretRef):
        yield SecretUse(value.secret, path)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _uses(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _uses(item, (*path, name))
    elif isinstance(value, tuple):
        for n, item in enumerate(value):
            yield from _uses(item, (*path, n))


def environment_name(name: str) -> str:
    """`db/root` as `PCLOUD_SECRET_DB_ROOT`."""
    return "PCLOUD_SECRET_" + re.sub(r"[/-]", "_", name).upper()


class Secrets:
    """Looks references up, each once. May be used by several threads."""

    def __init__(
        self, site: Site, inventory: Path, file: Path | None, values: Mapping[str, str], command: tuple[str, ...] | None
    ) -> None:
        self._site = site
        self._inventory = inventory
        self._file = file
        self._values = values
        self._command = command
        self._found: dict[str, Secret] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Secret:
        """Raises `BadInput` when no source has the secret, or has something unusable."""
        with self._lock:
            if name not in self._found:
                self._found[name] = Secret(self._look_up(name))
            return self._found[name]

    def reveal(self, name: str) -> str:
        return self.get(name).reveal()

    def check(self) -> list[PcloudError]:
        """What the site refers to and no source has, all of it at once; empty when all is there."""
        problems: list[PcloudError] = []
        for name in dict.fromkeys(use.name for use in secret_uses(self._site)):
            try:
                self.get(name)
            except PcloudError as error:
                problems.append(error)
        return problems

    def _look_up(self, name: str) -> str:
        if not re.fullmatch(SECRET, name):
            raise BadInput(f"{show(name)} cannot be the name of a secret", next="write one such as db/root")
        variable = environment_name(name)
        if variable in os.environ:
            return _usable(os.environ[variable], name, f"${variable}")
        if name in self._values:
            return _usable(self._values[name], name, show_path(self._file or Path()))
        if self._command is not None:
            return _usable(_run(self._command, name), name, f"the command {self._command[0]}")
        raise BadInput(f"the secret {name} is nowhere to be found", where=self._used(name), next=self._ways(name))

    def _used(self, name: str) -> str:
        """Where the inventory asks for it, as `file:line: path`."""
        use = next((use for use in secret_uses(self._site) if use.name == name), None)
        if use is None:
            return f"{show_path(self._inventory)} (asked for by a template)"
        try:
            document = load_document(self._inventory)
        except BadInput:
            return f"{show_path(self._inventory)}: {format_path(use.path)}"
        default = "" if use.path in document.lines else " (its default)"
        return f"{document.name}:{document.line(use.path)}: {format_path(use.path)}{default}"

    def _ways(self, name: str) -> str:
        file = shlex.quote(show_path(self._file)) if self._file else "secrets.yaml"
        named = "" if self._file else ", and name the file as secrets.file in the inventory"
        return (
            f'set ${environment_name(name)}; or write `{name}: "..."` in {file} (chmod 600){named}; '
            "or give a command that prints it as secrets.command in the inventory"
        )


def load_secrets(site: Site, inventory_path: Path, extra_file: Path | None = None) -> Secrets:
    """The resolver of a site. Its file is `extra_file`, else `secrets.file`, else the lab's own.

    A file that is there must be readable by its owner alone; one that is not there is no error
    until a secret is wanted. Raises `BadInput`.
    """
    named = site.secrets.file
    file = extra_file
    if file is None and named is not None:
        file = resolve_path(inventory_path, named)
    if file is None and site.lab is not None:
        file = places.lab_dir(site.site) / "secrets.yaml"
    values: Mapping[str, str] = {}
    if file is not None and (extra_file is not None or _is_there(file)):
        values = _read_secrets_file(file)
    return Secrets(site, inventory_path, file, values, site.secrets.command)


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # perhaps: reading it will say why it cannot be read
    return True


def _read_secrets_file(path: Path) -> dict[str, str]:
    """A flat YAML mapping of names to texts."""
    name = show_path(path)
    data, status = read_file(path)
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        what = f"holds secrets and others may read or change it (mode {mode:04o})"
        raise BadInput(what, where=name, next=f"chmod 600 {shlex.quote(name)}")
    if status.st_uid != os.geteuid():
        what = f"holds secrets and belongs to user {status.st_uid}, not to you ({os.geteuid()})"
        raise BadInput(what, where=name, next=f"chown {os.geteuid()} {shlex.quote(name)}")
    document = parse_document(decode_text(data, name), name, private=True)
    if not isinstance(document.data, dict):
        what = 'is not a mapping; write a line `db/root: "..."` for each secret'
        raise BadDocument([Problem(name, 1, "", what)])
    problems = []
    for key, value in document.data.items():
        if not re.fullmatch(SECRET, key):
            problems.append(document.problem((key,), "is not a secret's name; write one such as db/root"))
        elif not isinstance(value, str):
            problems.append(document.problem((key,), "is not a text; write the value in quotes, on this line"))
        elif not value:
            problems.append(document.problem((key,), "is empty; write the value, or take the line out"))
    if problems:
        raise BadDocument(problems)
    return dict(document.data)


def _usable(value: str, name: str, source: str) -> str:
    if not value:
        raise BadInput(f"the secret {name} is empty", where=source, next="give it a value there")
    if _is_key(value):
        return value
    if _is_one_line(value):
        return value
    # It is written into option files and statements, where a line of its own would be an order.
    how = (
        "ends with a line break" if _is_one_line(value.rstrip("\r\n")) else "holds a line break or a control character"
    )
    raise BadInput(f"the secret {name} {how}", where=source, next="write it on one line, in quotes")


def _is_one_line(value: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in value)


def _is_key(value: str) -> bool:
    """A private key's file, which has lines, and nothing but text in them."""
    lines = value.splitlines()
    armoured = lines[0].startswith("-----BEGIN ") and lines[-1].startswith("-----END ")
    return armoured and all(line.isascii() and line.isprintable() for line in lines)


def _run(command: tuple[str, ...], name: str) -> str:
    """What the site's command prints, without the line's end. Its output is never shown."""
    argv = [*command, name]
    shown = shlex.join(argv)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PCLOUD_SECRET_")}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadInput(f"cannot be run for the secret {name}: {reason}", where=shown, next=_MEND) from None
    with process:
        output, errors = _listen(process, Deadline.after(COMMAND_DEADLINE_S))
    match output:
        case None:
            what = f"did not print the secret {name} within {COMMAND_DEADLINE_S:g} s"
            raise BadInput(what, where=shown, next="run it yourself; it must not ask anything")
        case _ if len(output) > MAX_OUTPUT:
            raise BadInput(f"prints more than {MAX_OUTPUT // 1024} KiB for the secret {name}", where=shown, next=_MEND)
    if process.returncode != 0:
        said = _last_line(errors)
        what = f"ended with {process.returncode} for the secret {name}{': ' + said if said else ''}"
        raise BadInput(what, where=shown, next=_MEND)
    try:
        return output.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise BadInput(f"prints no UTF-8 text for the secret {name}", where=shown, next=_MEND) from None


_MEND = "run it yourself, or mend secrets.command in the inventory"


def _listen(process: subprocess.Popen[bytes], deadline: Deadline) -> tuple[bytes | None, bytes]:
    """What a command prints until it ends, and on its error output; None when its time ran out.

    The end is the process's own, not the pipes': a child left behind may keep those open.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    heard = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    with contextlib.closing(select.epoll()) as ready, contextlib.ExitStack() as stack:
        end = os.pidfd_open(process.pid)
        stack.callback(os.close, end)
        for descriptor in (end, *heard):
            ready.register(descriptor, select.EPOLLIN)
        while True:
            found = [descriptor for descriptor, _ in ready.poll(deadline.left())]
            for descriptor in (d for d in found if d != end):
                data = os.read(descriptor, MAX_OUTPUT)
                heard[descriptor] += data
                if not data:
                    ready.unregister(descriptor)
            output, errors = heard.values()
            too_much = len(output) > MAX_OUTPUT or len(errors) > MAX_OUTPUT
            if too_much or deadline.passed():
                os.killpg(process.pid, signal.SIGKILL)
                return (output if too_much else None), errors
            if found == [end]:  # it has ended, and everything it said has been read
                return output, errors


def _last_line(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return "".join(c for c in lines[-1] if c.isprintable())[:200] if lines else ""
