"""What this machine says of its own network, by the answers of `ip`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcloud.vantage import look_from_here


@pytest.fixture
def ip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ip` that prints what lies beside it: `route` or `neigh`, and fails where that is not there."""
    program = tmp_path / "bin" / "ip"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncat {tmp_path}/"$2" 2>/dev/null\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (tmp_path / "eth0").mkdir()
    (tmp_path / "eth0" / "operstate").write_text("up\n")
    return tmp_path


@pytest.mark.parametrize(
    ("route", "neigh", "said"),
    [
        (
            '[{"dst":"10.7.0.9","gateway":"10.0.0.1","dev":"eth0"}]',
            '[{"dst":"10.0.0.1","state":["REACHABLE"]}]',
            "this machine's way to 10.7.0.9 is eth0, which is up; its gateway 10.0.0.1 answers",
        ),
        (
            '[{"dst":"10.7.0.9","gateway":"10.0.0.1","dev":"eth0"}]',
            '[{"dst":"10.0.0.1","state":["FAILED"]}]',
            "this machine's way to 10.7.0.9 is eth0, which is up; its gateway 10.0.0.1 does not answer",
        ),
        (
            '[{"dst":"10.7.0.9","dev":"eth1"}]',
            "[]",
            "this machine's way to 10.7.0.9 is eth1, which is unknown, with no gateway between",
        ),
        (None, None, "this machine has no route to 10.7.0.9"),
        ("nonsense", None, ""),
    ],
    ids=["well", "gateway gone", "no link", "no route", "nonsense"],
)
def test_link_route_and_gateway_are_named(ip: Path, route: str | None, neigh: str | None, said: str) -> None:
    for name, text in (("route", route), ("neigh", neigh)):
        if text is not None:
            (ip / name).write_text(text)
    assert look_from_here("10.7.0.9", ip) == said


def test_without_the_program_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look_from_here("10.7.0.9") == ""
