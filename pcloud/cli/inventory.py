"""`pcloud validate`, `pcloud schema` and `pcloud init`: an inventory's life before the first run."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from pcloud.cli.screen import say
from pcloud.desire import check_templates
from pcloud.document import Document, load_document, parse, parse_document, show_path
from pcloud.dumps import BadDump, glance
from pcloud.errors import BadDocument, BadInput, Problem
from pcloud.images.recipe import Recipe, load_recipe
from pcloud.inventory import (
    Inventory,
    find_inventory,
    find_playbook,
    find_sites,
    load_inventory,
    resolve_path,
)
from pcloud.model import Site
from pcloud.playbook import PlaybookFile, check_playbook, load_playbook
from pcloud.values import NAME
from pcloud.wording import Key, editor_schema, show

app = typer.Typer(no_args_is_help=True)


class SchemaKind(StrEnum):
    SITE = "site"
    PLAYBOOK = "playbook"
    RECIPE = "recipe"


_MODELS: dict[SchemaKind, type[BaseModel]] = {
    SchemaKind.SITE: Site,
    SchemaKind.PLAYBOOK: PlaybookFile,
    SchemaKind.RECIPE: Recipe,
}


@app.command()
def validate(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SITE|FILE]...", help="Sites, or files of sites, playbooks or recipes. Default: every site."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say everything that is wrong with a site and its playbook, or with a file. Touches no host."""
    results = [_validate(name) for name in names or list(find_sites())]
    ok = all(result["ok"] for result in results)
    if as_json:
        say(json.dumps({"ok": ok, "results": results}, ensure_ascii=False, indent=2))
    else:
        for result in results:
            _show(result)
    if not ok:
        raise typer.Exit(BadInput.exit_code)


def _show(result: dict[str, Any]) -> None:
    if result["ok"]:
        say(f"OK {result['name']}: {result['summary']}")
    elif result["error"]:
        say(result["error"])
    for problem in result["problems"]:
        say(str(Problem(**problem)))
    for note in result["notes"]:
        say(f"  note: {note}")


def _validate(name: str) -> dict[str, Any]:
    result: dict[str, Any] = {"name": name, "ok": False, "summary": "", "error": "", "problems": [], "notes": []}
    try:
        path = find_inventory(name)
        result["file"] = show_path(path)
        result["summary"], result["notes"] = _summary(path)
        result["ok"] = True
    except BadDocument as error:
        result["problems"] = [asdict(problem) for problem in error.problems]
    except BadInput as error:
        result["error"] = str(error)
    return result


def _summary(path: Path) -> tuple[str, list[str]]:
    """What a good file holds, in a line, and what a person should know. Raises `BadInput`."""
    if _kind(path) is SchemaKind.PLAYBOOK:
        playbook = load_playbook(path)
        return f"playbook {playbook.playbook}, {_count(len(playbook.phases), 'phase')}", []
    if _kind(path) is SchemaKind.RECIPE:
        chain = load_recipe(path)
        return f"recipe {chain.name}, {_count(len(chain.layers), 'layer')}", []
    inventory = load_inventory(path)
    site = inventory.site
    playbook = load_playbook(find_playbook(inventory, "recover"))
    problems = check_playbook(playbook, site)
    if problems:
        raise BadDocument(problems)
    check_templates(inventory)
    spare = sum(host.spare for host in site.hosts)
    parts = [
        f"{_count(sum(group.count for group in site.groups), 'server')} in {_count(len(site.groups), 'group')}",
        f"{_count(len(site.hosts), 'host')}{f' ({spare} spare)' if spare else ''}{' in a lab' if site.lab else ''}",
        f"a journey of {_count(len(site.journey.steps), 'step')}",
        f"{_count(len(playbook.phases), 'phase')} to recover",
    ]
    return ", ".join(parts), _notes(inventory)


def _kind(path: Path) -> SchemaKind:
    """What a file is, by its own first word; a file in doubt is a site."""
    try:
        data = load_document(path).data
    except BadInput:
        return SchemaKind.SITE
    kinds = [kind for kind in SchemaKind if isinstance(data, dict) and kind in data]
    return kinds[0] if len(kinds) == 1 else SchemaKind.SITE


def _notes(inventory: Inventory) -> list[str]:
    dump = inventory.site.database.dump
    where = f"{inventory.document.name}:{inventory.document.line(('database', 'dump'))}"
    if dump is None:
        return [f"{where}: database.dump is not given: a recovery waits for a person, or starts empty when told to"]
    try:
        glance(inventory.resolve(dump))
    except BadDump as error:
        return [f"{where}: database.dump {show(dump)} {error}; a recovery without a backup would wait"]
    return []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@app.command()
def schema(
    kind: Annotated[SchemaKind, typer.Argument(help="Which kind of file.")] = SchemaKind.SITE,
) -> None:
    """Print the JSON Schema of a kind of file, for editors."""
    say(json.dumps(editor_schema(_MODELS[kind]), ensure_ascii=False, indent=2))


@app.command()
def init(
    site: Annotated[str, typer.Argument(help="The new site's name.")],
    source: Annotated[str, typer.Option("--from", metavar="SITE|FILE", help="The inventory to copy.")] = "demo",
    lab: Annotated[
        bool, typer.Option("--lab/--no-lab", help="Hosts are made on this machine, or are real ones.")
    ] = False,
) -> None:
    """Copy an inventory to ./inventory/SITE.yaml, to be edited. Never overwrites."""
    if not re.fullmatch(NAME, site):
        raise BadInput(f"{show(site)} cannot be the name of a site", next="write small letters, digits and hyphens")
    origin = load_inventory(find_inventory(source))
    path = Path("inventory") / f"{site}.yaml"
    text = _copied(origin, path, site, lab)
    _check_copy(origin, text, path, site)
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        next_step = f"edit it, or choose another name, or remove it first: rm {path}"
        raise BadInput("is there already, and is not overwritten", where=str(path), next=next_step) from None
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", where=str(path), next="choose another folder") from None
    say(f"{path}: site {site}, copied from {show_path(origin.path)}")
    if lab:
        say(f"next: pcloud validate {site}, then pcloud recover {site}; or edit it first")
    else:
        say("next: edit network, services, hosts (address, host_key, pool, bridge), the groups' addresses and")
        say(f"      database.dump in {path}; then pcloud validate {site}")


def _copied(origin: Inventory, path: Path, site: str, lab: bool) -> str:
    """The origin's text with its name, its lab and its relative paths made right; comments stay."""
    document = origin.document
    lines = origin.path.read_text(encoding="utf-8").splitlines()
    number = document.line(("site",)) - 1
    lines[number] = re.sub(r"^site:\s*[^\s#]+", f"site: {site}", lines[number])
    for key in _PATHS:
        _move_path(origin, lines, key, path)
    if ("lab",) in document.lines and not lab:
        _comment_out(lines, document, "lab")
    if ("lab",) not in document.lines and lab:
        lines.insert(number + 1, "lab: {}")
    return "\n".join(lines) + "\n"


_PATHS: tuple[Key, ...] = (("database", "dump"), ("playbooks",), ("templates",), ("secrets", "file"))


def _check_copy(origin: Inventory, text: str, path: Path, site: str) -> None:
    """An origin written in an unusual style is not guessed at."""
    try:
        copy = parse_document(text, show_path(path))
        right = parse(copy, Site).site == site and _paths(copy, path.absolute()) == _paths(origin.document, origin.path)
    except BadDocument:
        right = False
    if not right:
        what = "is written in a style that cannot be copied by itself"
        raise BadInput(what, where=show_path(origin.path), next=f"copy it by hand to {path}, and change site and paths")


def _paths(document: Document, path: Path) -> list[Path | None]:
    written = [_written(document.data, key) for key in _PATHS]
    return [None if value is None else resolve_path(path, value) for value in written]


def _written(data: Any, key: Key) -> str | None:
    for part in key:
        data = data.get(part, {})
    return data if isinstance(data, str) else None


def _move_path(origin: Inventory, lines: list[str], key: Key, path: Path) -> None:
    """Makes a relative path mean the same file from the copy's folder."""
    value = _written(origin.document.data, key)
    if value is None:
        return
    target = origin.resolve(value)
    if target == resolve_path(path.absolute(), value):
        return
    near = target.is_relative_to(Path.cwd())
    written = os.path.relpath(target, path.absolute().parent) if near else str(target)
    number = origin.document.line(key) - 1
    before, name, after = lines[number].partition(f"{key[-1]}:")
    lines[number] = before + name + after.replace(value, written, 1)


def _comment_out(lines: list[str], document: Document, key: str) -> None:
    """Turns a top-level key and all that is indented below it into comments."""
    number = document.line((key,)) - 1
    lines[number] = f"# {lines[number]}"
    for below in range(number + 1, len(lines)):
        if not re.match(r"\s+\S", lines[below]):
            break
        lines[below] = f"# {lines[below]}"
