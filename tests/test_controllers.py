"""Every case of cases/controllers: Redfish and IPMI controllers with faults, fenced over real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.controller_cases import FILES, play_file


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_comes_of_each_controller(path: Path) -> None:
    played = [(case["name"], list(came.faults(case))) for case, came in play_file(path)]
    assert {name: faults for name, faults in played if faults} == {}
