"""What leaves for the person's terminal: no text of anybody else's may steer it.

File names, arguments, controllers and hosts put bytes into messages. A terminal obeys some of
them (ECMA-48: move, rename the window, answer as if typed), so what is printed has its control
characters shown as `?`, here and nowhere else. Colours are rich's own and are added after that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Unicode's orders of direction: a file's name may show as another one."""


def clean(text: str) -> str:
    """`text` without what a terminal obeys, but for line breaks and tabs, nor what turns its direction around."""
    return "".join("?" if _steers(c) else c for c in text)


def _steers(character: str) -> bool:
    return (unicodedata.category(character) == "Cc" and character not in "\n\t") or character in _TURNING


class Screen(Console):
    """A console whose texts are cleaned once they are laid out, before they are coloured."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(clean(segment.text), segment.style)


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """A line, as it is; for what other programs read."""
    typer.echo(clean(text), err=err, nl=nl)


def find_unprintable(arguments: Iterable[str]) -> str | None:
    """The first argument that a terminal would obey, shown clean."""
    return next((clean(argument) for argument in arguments if clean(argument) != argument), None)
