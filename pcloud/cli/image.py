"""image build, list, verify: the prepared images on this machine."""

from __future__ import annotations

import json as jsonlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from pcloud.cli.screen import say
from pcloud.cli.session import out
from pcloud.errors import BadInput, ImageError
from pcloud.images import (
    Image,
    Progress,
    build_all,
    find_broken,
    find_image,
    find_leaves,
    find_recipes,
    list_images,
    verify,
)
from pcloud.inventory import defaults_dir
from pcloud.render.words import Whole, aged

app = typer.Typer(no_args_is_help=True)

Names = Annotated[
    list[str] | None, typer.Argument(help="Recipes or images by name; left out, all of them.", metavar="[NAME...]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MIB = 1 << 20


@app.command(
    epilog="Examples: pcloud image build · pcloud image build frontend --force · pcloud image build ./recipes/mine.yaml"
)
def build(
    names: Names = None,
    force: Annotated[bool, typer.Option("--force", help="Make it again from today's packages.")] = False,
    json: Json = False,
) -> None:
    """Make images from their recipes; one that is there already is kept."""
    recipes = [_recipe(name) for name in names] if names else list(find_leaves(_recipes()).values())
    if json:
        images = build_all(recipes, force=force)
    else:
        with _Builds() as builds:
            images = build_all(recipes, force=force, progress=builds.tell)
    _show(images, json)


def _recipes() -> dict[str, Path]:
    return find_recipes(defaults_dir("templates") / "images")


def _recipe(name: str) -> Path:
    if name.endswith(".yaml"):
        return Path(name)
    recipes = _recipes()
    if name not in recipes:
        raise BadInput(
            f"there is no recipe {name}", next=f"one of {', '.join(sorted(recipes))}, or a path that ends in .yaml"
        )
    return recipes[name]


class _Builds:
    """What each build is doing: a live table on a terminal, a line a change elsewhere."""

    def __init__(self) -> None:
        self._now: dict[str, Progress] = {}
        self._live = Live(console=out, get_renderable=self._table, refresh_per_second=4, transient=True)

    def __enter__(self) -> _Builds:
        if out.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if out.is_terminal:
            self._live.stop()

    def tell(self, progress: Progress) -> None:
        self._now = {**self._now, progress.recipe: progress}
        if not out.is_terminal:
            out.print(f"{progress.elapsed_s:6.1f} s  {progress.recipe:<10} {progress.doing}", soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, at in sorted(self._now.items()):
            table.add_row("✓" if at.done else "·", name, f"{at.elapsed_s:.0f} s", at.doing)
        return table


@app.command("list", epilog="Example: pcloud image list --json")
def list_command(json: Json = False) -> None:
    """Show the images on this machine."""
    _show(list_images(), json)
    for error in find_broken():
        out.print(f"✗ {error}", soft_wrap=True)


def _show(images: list[Image], json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "image": i.name,
            "digest": i.digest,
            "mib": round(i.size / MIB, 1),
            "built": i.manifest.date,
            "build_s": round(i.manifest.build_s, 1),
            "packages": len(i.manifest.packages),
            "folder": str(i.folder),
        }
        for i in images
    ]
    if json:
        say(jsonlib.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("image", "MiB", "built", "took", "packages"):
        table.add_column(column, justify="left" if column in ("image", "built") else "right")
    now = datetime.now(UTC)
    for row in rows:
        built = aged(row["built"], now)
        table.add_row(row["image"], f"{row['mib']}", built, f"{row['build_s']} s", str(row["packages"]))
    out.print(Whole(table) if rows else "no image yet: pcloud image build", soft_wrap=True)


@app.command("verify", epilog="Examples: pcloud image verify · pcloud image verify frontend")
def verify_command(names: Names = None, json: Json = False) -> None:
    """Compare images with their manifests, bit for bit. Exit 1 when one is not as it was built."""
    images = [_image(name) for name in names] if names else list_images()
    faults: dict[str, str] = {str(n): str(e) for n, e in enumerate(find_broken())} if not names else {}
    for image in images:
        try:
            verify(image)
        except ImageError as error:
            faults[image.name] = str(error)
    if json:
        say(jsonlib.dumps({"verified": [i.name for i in images if i.name not in faults], "faults": faults}))
    else:
        for image in images:
            out.print(f"{'✗' if image.name in faults else '✓'} {image.name}")
        for fault in faults.values():
            out.print(fault, soft_wrap=True)
    raise typer.Exit(1 if faults else 0)


def _image(name: str) -> Image:
    found = find_image(name)
    if found is None:
        raise BadInput(f"there is no image {name} on this machine", next="pcloud image list")
    return found
