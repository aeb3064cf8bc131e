"""Random lives of two real MariaDBs: what a restore leads to is what the tables held there, by checksum."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.maria_histories import histories, live


@pytest.mark.chaos
@pytest.mark.parametrize("history", list(histories(seed=7, count=6)), ids=" ".join)
def test_a_restore_is_what_the_data_were(tmp_path: Path, data: Path, history: tuple[str, ...]) -> None:
    assert live(tmp_path, data, history).startswith(("reaches now", "names"))
