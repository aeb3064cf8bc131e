"""image import, image push: an image from elsewhere, and every image to every host."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from pcloud.cli.recover import Json, run
from pcloud.cli.screen import say
from pcloud.cli.session import Session, err, out
from pcloud.desired import Options
from pcloud.images.imported import import_image
from pcloud.observe import observe
from pcloud.plan import Plan
from pcloud.push import plan_push

app = typer.Typer()


@app.command("import", epilog="Example: pcloud image import debian-12-genericcloud-amd64.qcow2 --name stock")
def import_command(
    file: Annotated[Path, typer.Argument(help="A qcow2 or raw disk with GRUB for BIOS on it.", metavar="FILE")],
    name: Annotated[str, typer.Option("--name", help="What to call it; left out, the file's own name.")] = "",
    json: Json = False,
) -> None:
    """Check a disk image that boots by itself, and take it into the store."""
    image = import_image(file, name=name, say=lambda doing: err.print(f"{file.name}: {doing}") if not json else None)
    if json:
        data = {"name": image.name, "recipe": image.recipe, "digest": image.digest, "size": image.size}
        say(jsonlib.dumps({**data, "virtual_size": image.manifest.virtual_size, "folder": str(image.folder)}))
        return
    gib = -(-image.manifest.virtual_size // 2**30)
    out.print(f"{image.name}  {image.size / 1e6:.0f} MB, for servers with a disk_gib of {gib} or more")
    out.print(f'in an inventory:  images: {{{image.recipe}: {{digest: "{image.digest[:12]}"}}}}')


@app.command(epilog="Examples: pcloud image push · pcloud image push shop · pcloud image push shop frontend balancer")
def push(
    site: Annotated[str, typer.Argument(help="The site, or the file of one.")] = "demo",
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Images as the inventory names them; left out, all.", metavar="[IMAGE]..."),
    ] = None,
    json: Json = False,
) -> None:
    """Copy the site's images to every host that lacks them, and verify them on all.

    Each host passes on what it gets, so that many hosts take little longer than one. What was
    interrupted goes on where it stopped. A recovery does the same for the hosts that it needs.
    """

    def make(session: Session) -> Plan:
        return plan_push(session.desired, observe(session.desired, session.world), images or ())

    run(site, Options(), make, "image push", yes=True, json=json)
