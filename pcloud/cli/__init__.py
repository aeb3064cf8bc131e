"""The command line. The only place that exits."""

from __future__ import annotations

import errno
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from pcloud.cli.screen import find_unprintable, say
from pcloud.errors import BadInput, PcloudError

HELP = """Rebuild a broken shop's servers from prepared images, and do not stop before a shopper could buy again.

Exit codes: 0 converged, 1 failed, 2 bad input, 3 blocked, waiting for a person.
"""


_OF_THE_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
_ROOM = (
    "make room there (df -h) or fix the folder's rights, or set PCLOUD_HOME to another folder; "
    "then the same command again"
)


class _Explained(TyperGroup):
    """An error that pcloud can explain ends as its text and its exit code, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PcloudError as error:
            say(f"pcloud: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:  # whoever read the output has left
            raise typer.Exit(1) from None
        except OSError as error:
            if error.errno not in _OF_THE_MACHINE:
                raise
            say(f"pcloud: {error.filename or 'this machine'}: {error.strerror}\n  next: {_ROOM}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            say("pcloud: stopped", err=True)
            raise typer.Exit(1) from None


def make_app() -> typer.Typer:
    """Every command, by families: a file each."""
    from pcloud.cli import (
        backup,
        destroy,
        failback,
        failover,
        forget,
        hosts,
        image,
        image_more,
        inventory,
        lab,
        look,
        power,
        recover,
        reindex,
        runs,
        salvage,
        shoppers,
        undo,
        whatif,
    )

    app = typer.Typer(
        cls=_Explained, help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
    )
    for family in (
        recover,
        destroy,
        whatif,
        failover,
        failback,
        backup,
        undo,
        salvage,
        reindex,
        power,
        look,
        runs,
        inventory,
    ):
        app.registered_commands += family.app.registered_commands
    images = typer.Typer(no_args_is_help=True)
    images.registered_commands = [*image.app.registered_commands, *image_more.app.registered_commands]
    app.add_typer(images, name="image", help="Build, import, verify and distribute images.")
    machines = typer.Typer(no_args_is_help=True)
    machines.registered_commands = [*hosts.app.registered_commands, *forget.app.registered_commands]
    app.add_typer(machines, name="hosts", help="Whether your hosts are ready, and what makes them so.")
    labs = typer.Typer(no_args_is_help=True)
    labs.registered_commands = [*lab.app.registered_commands, *shoppers.app.registered_commands]
    app.add_typer(labs, name="lab", help="A data centre on this machine, to rehearse in.")
    return app


def main() -> None:
    """The console script."""
    if (odd := find_unprintable(sys.argv[1:])) is not None:
        say(f"pcloud: the argument {odd} holds a control character\n  next: type it again", err=True)
        raise SystemExit(BadInput.exit_code)
    make_app()()
