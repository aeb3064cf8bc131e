"""Where packages come from: the machine's own apt sources, keys, proxies and certificates.

A recipe names a suite and no mirror. What this machine uses for that suite is what its
images are made from; third-party archives are left out.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from pcloud.errors import ImageError

ETC = Path("/etc/apt")


def find_sources(suite: str, etc: Path = ETC) -> str:
    """The machine's sources of a Debian suite, as deb822 stanzas. Raises `ImageError` for none."""
    stanzas: list[str] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            stanzas += [s for line in path.read_text(errors="replace").splitlines() if (s := _from_line(line, suite))]
        elif path.suffix == ".sources" and path.is_file():
            stanzas += [s for text in _paragraphs(path) if (s := _from_stanza(text, suite))]
    if not stanzas:
        raise ImageError(
            f"this machine has no package source for Debian {suite}",
            where=str(etc),
            next=f"add one to {etc}/sources.list.d, then `apt-get update`, then build again",
        )
    return "\n".join(stanzas)


def read_apt_options(etc: Path = ETC) -> tuple[str, ...]:
    """apt configuration lines that make another tree fetch as this machine does."""
    found = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, timeout=30, check=False)
    kept = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv")
    lines = [line for line in found.stdout.splitlines() if line.startswith(kept) and not line.endswith('"";')]
    lines.append('Acquire::Languages "none";')
    lines.append(f'Dir::Etc::netrc "{etc}/auth.conf";')
    lines.append(f'Dir::Etc::netrcparts "{etc}/auth.conf.d/";')
    lines.append(f'Dir::Etc::trusted "{etc}/trusted.gpg";')
    lines.append(f'Dir::Etc::trustedparts "{etc}/trusted.gpg.d/";')
    return tuple(lines)


def _wanted(suites: list[str], suite: str) -> list[str]:
    return [s for s in suites if s in (suite, f"{suite}-updates", f"{suite}-security", f"{suite}/updates")]


def _from_line(line: str, suite: str) -> str | None:
    """A one-line source (`deb [signed-by=...] URI SUITE COMPONENT...`) as a stanza."""
    words = line.split("#", 1)[0].split()
    if not words or words[0] != "deb":
        return None
    options: list[str] = []
    rest = words[1:]
    if rest and rest[0].startswith("["):
        end = next((i for i, word in enumerate(rest) if word.endswith("]")), len(rest) - 1)
        options, rest = " ".join(rest[: end + 1]).strip("[] ").split(), rest[end + 1 :]
    if len(rest) < 3 or "main" not in rest[2:] or not _wanted([rest[1]], suite):
        return None
    names = {"signed-by": "Signed-By", "trusted": "Trusted", "arch": "Architectures"}
    extra = [f"{names[k]}: {v}" for k, _, v in (o.partition("=") for o in options) if k in names]
    return "\n".join(["Types: deb", f"URIs: {rest[0]}", f"Suites: {rest[1]}", "Components: main", *extra]) + "\n"


def _paragraphs(path: Path) -> list[str]:
    paragraphs: list[list[str]] = [[]]
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("#"):
            continue
        if line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return ["\n".join(lines) for lines in paragraphs if lines]


def _from_stanza(text: str, suite: str) -> str | None:
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[0].isspace():
            fields[name] = f"{fields.get(name, '')}\n{line}"
        else:
            name, _, value = line.partition(":")
            name = name.strip().title()
            fields[name] = value.strip()
    suites = _wanted(fields.get("Suites", "").split(), suite)
    usable = "deb" in fields.get("Types", "").split() and "main" in fields.get("Components", "").split()
    if not usable or not suites or fields.get("Enabled", "yes").lower() in ("no", "false"):
        return None
    kept = {k: v for k, v in fields.items() if k in ("Uris", "Signed-By", "Trusted", "Architectures")}
    lines = [f"{'URIs' if k == 'Uris' else k}: {v}" if not v.startswith("\n") else f"{k}:{v}" for k, v in kept.items()]
    return "\n".join(["Types: deb", f"Suites: {' '.join(suites)}", "Components: main", *lines]) + "\n"
