"""The word of a person for what is given up or made anew: typed beforehand, or asked for at the terminal."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from pcloud.desired import Desired
from pcloud.errors import BadInput
from pcloud.loss import UNKNOWN
from pcloud.plan import Plan
from pcloud.steps.stop import Consent
from pcloud.wording import show

AcceptLoss = Annotated[
    str,
    typer.Option(
        "--accept-loss",
        help="Accept that a promotion gives up this many transactions, or `unknown`. Without it a person is asked; "
        "--yes is not enough.",
        metavar="N|unknown",
    ),
]
FromScratch = Annotated[
    bool, typer.Option("--from-scratch", help="Make every server anew; old disks become tombstones.")
]
Empty = Annotated[bool, typer.Option("--empty-database", help="Accept a shop without data when there is no dump.")]
FromBackup = Annotated[
    str, typer.Option("--from-backup", help="Restore from this backup, as `backup --list` names it.", metavar="ID")
]
Unproven = Annotated[
    bool,
    typer.Option("--unproven", help="Though the data were not made, and checked, beside those that serve first."),
]


def price_of(text: str) -> str:
    """A loss that a person accepts, as it was typed. Raises `BadInput` for what is none."""
    if text and text != UNKNOWN and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadInput(
            f"--accept-loss {show(text)} is no number of transactions, nor `unknown`",
            next="name what the plan says: --accept-loss 12, or --accept-loss unknown",
        )
    return text


def find_question(made: Plan, *, asks: bool) -> Consent | None:
    """The loss that the person at the terminal is asked about; one that nobody can be asked about blocks."""
    if not asks or not sys.stdin.isatty():
        return None
    return next((n.step for n in made.nodes if isinstance(n.step, Consent)), None)


def accept(desired: Desired, price: str) -> Desired:
    return replace(desired, options=replace(desired.options, accept_loss=price))
