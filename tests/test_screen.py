"""What others put into a message reaches the terminal as text, never as an order."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from pcloud.cli import make_app
from pcloud.cli.screen import Screen, clean

PCLOUD = str(Path(sys.executable).with_name("pcloud"))
ORDERS = ("\x1b]0;PWNED\x07", "\x1b[2J", "\x9b2J", "\x90q", "\r", "\x08", "\x0b", "\u202etxt.exe", "\x00", "\x7f")


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_that_is_printed_steers_the_terminal(order: str) -> None:
    text = f"host{order}name"
    table = Table(title=text)
    table.add_column(text)
    table.add_row(Text(text, style="red"))
    for renderable in (text, Text(text, style="bold red"), table):
        screen = Screen()
        screen.file = io.StringIO()
        screen._color_system = None
        screen.print(renderable)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", screen.file.getvalue())
        assert "host" in screen.file.getvalue()


def test_colours_and_live_tables_are_still_there() -> None:
    screen = Screen()
    screen.file = io.StringIO()
    screen._force_terminal, screen.legacy_windows = True, False
    with Live(Text("busy \x1b[2J", style="red"), console=screen, auto_refresh=False) as live:
        live.update(Text("done \x1b[2J", style="red"), refresh=True)
    shown = screen.file.getvalue()
    assert "\x1b[2J" not in shown
    assert "done ?[2J" in shown
    assert "\x1b[" in shown  # the cursor, and the colour where the terminal has any


def test_line_breaks_tabs_and_other_scripts_stay() -> None:
    assert clean("a\tb\nérable 楓 🐟 \u00a0") == "a\tb\nérable 楓 🐟 \u00a0"


def test_a_files_name_and_an_argument_are_shown_clean(tmp_path: Path) -> None:
    odd = tmp_path / "\x1b]0;PWNED\x07.yaml"
    odd.write_text("site: x\n")
    done = CliRunner().invoke(make_app(), ["validate", str(odd)])
    assert done.exit_code == 2
    assert "\x1b" not in done.output
    for argv in (["validate", str(odd)], ["recover", "--\x1b[2J"], ["\x9b2J"]):
        ran = subprocess.run([PCLOUD, *argv], capture_output=True, text=True)
        assert ran.returncode == 2, argv
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ran.stdout + ran.stderr), argv
        assert "holds a control character" in ran.stderr


def test_json_is_json_and_clean(tmp_path: Path) -> None:
    odd = tmp_path / "\x9b2J.yaml"
    odd.write_text("site: x\n")
    done = CliRunner().invoke(make_app(), ["validate", str(odd), "--json"])
    assert json.loads(done.output)["ok"] is False
    assert "\x9b" not in done.output
