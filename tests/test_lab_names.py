"""How lab commands name hosts: all of them are known before anything is done to one."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pcloud.cli import make_app
from pcloud.cli.lab import _hosts
from pcloud.errors import BadInput


def test_a_site_holds_for_the_names_after_it() -> None:
    assert [(site.site, name) for site, name in _hosts(["demo/h1", "h2", "h1", "h3"])] == [
        ("demo", "h1"),
        ("demo", "h2"),
        ("demo", "h3"),
    ]
    with pytest.raises(BadInput, match="there is no host h99"):
        _hosts(["demo/h1", "h99"])


@pytest.mark.parametrize("command", ["power-off", "power-on", "cut", "mend", "freeze-host", "thaw-host"])
def test_an_unknown_host_stops_a_command_before_it_begins(command: str) -> None:
    ran = CliRunner().invoke(make_app(), ["lab", command, "demo/h1", "h99"])
    assert ran.exit_code == 2
    assert "there is no host h99" in ran.output
