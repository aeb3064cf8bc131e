"""Files of pcloud's own: written whole or not at all, through no link, in no folder of somebody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcloud.cli import make_app
from pcloud.files import make_own_folder, write_atomically
from pcloud.inventory import defaults_dir


def test_a_file_is_whole_and_has_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_atomically(path, "é", 0o600)
    write_atomically(path, "two", 0o640)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_under_the_name_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("stay")
    path = tmp_path / "plan.json"
    path.symlink_to(precious)
    write_atomically(path, "new", 0o600)
    assert (precious.read_text(), path.is_symlink(), path.read_text()) == ("stay", False, "new")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new", 0o600)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_a_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    make_own_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_a_saved_plan_is_a_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "night.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    inventory = tmp_path / "demo.yaml"
    inventory.write_text((defaults_dir("inventory") / "demo.yaml").read_text())
    done = CliRunner().invoke(make_app(), ["recover", str(inventory), "--plan", str(path)])
    assert done.exit_code == 2, done.output
    assert "is not a regular file" in done.output
