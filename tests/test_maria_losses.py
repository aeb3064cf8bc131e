"""What `status` says would be lost is no less than what a loss of both servers then costs; real MariaDBs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pcloud.desired import Desired
from tests.maria_losses import TROUBLES, lose


@pytest.mark.chaos
@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_more_is_lost_than_was_said(tmp_path: Path, data: Path, desired: Desired, trouble: str) -> None:
    found = lose(tmp_path, data, desired, random.Random(7), trouble)
    assert found.orders > 5
    assert (found.said > 0) == (trouble == "both stand")
