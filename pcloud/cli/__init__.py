"""The command line. The only place that exits."""

from __future__ import annotations

import sys

import typer
from click import ClickException

from pcloud.errors import PcloudError

HELP = """Rebuild a broken shop's servers from prepared images, and do not stop before a shopper could buy again.

Exit codes: 0 converged, 1 failed, 2 bad input, 3 blocked, waiting for a person.
"""


def make_app() -> typer.Typer:
    """Every command. Imports live here so that `--version` and completion need no libvirt."""
    from pcloud.cli import image, inventory, lab, look, recover, runs

    app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
    for family in (recover, look, runs, inventory):
        app.registered_commands += family.app.registered_commands
    app.add_typer(image.app, name="image", help="Build, list and verify prepared images.")
    app.add_typer(lab.app, name="lab", help="A data centre on this machine, to rehearse in.")
    return app


def main() -> None:
    """The console script: an explained error on stderr, never a traceback for a user's mistake."""
    try:
        code = make_app()(standalone_mode=False) or 0
    except ClickException as error:
        error.show()
        code = 2
    except PcloudError as error:
        sys.stderr.write(f"pcloud: {error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("pcloud: stopped; nothing was left half done\n")
        code = 1
    sys.exit(code)
