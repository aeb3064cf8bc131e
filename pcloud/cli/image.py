"""Placeholder until the image commands land."""

from __future__ import annotations

import typer

from pcloud.images import build_all, find_leaves, find_recipes
from pcloud.inventory import defaults_dir

app = typer.Typer()


@app.command()
def build() -> None:
    build_all(
        find_leaves(find_recipes(defaults_dir("templates") / "images")).values(),
        progress=lambda p: print(p.recipe, p.doing),
    )


@app.command("list")
def list_command() -> None:
    """List."""
