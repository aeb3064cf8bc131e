"""What was put away: how old it is, what it costs, and what a purge deletes."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcloud.cli import make_app
from pcloud.observed import Observed, SeenHost
from pcloud.teardown import plan_purge
from pcloud.tombstones import cutoff, find_cost, find_tombstones, parse_age, read_weight, weigh_command

STONE = "demo.fe-2.g1.tombstone-20261001-030000"
LATER = "demo.db-1.g4.tombstone-20261120-0300"
"""As earlier versions wrote it, without seconds."""
FILES = (
    *(f"{STONE}.{end}" for end in ("console.log", "qcow2", "xml")),
    *(f"{LATER}.{end}" for end in ("at-0-1-9.note", "qcow2", "xml")),
    "demo.fe-2.g1.qcow2",
    "demo.fe-2.g2.note",
    "demo2.fe-2.g1.tombstone-20261001-030000.qcow2",
)


@pytest.mark.parametrize(
    ("text", "age"),
    [("30d", timedelta(30)), ("12h", timedelta(hours=12)), ("2w", timedelta(14)), ("99999w", timedelta(699993))],
)
def test_an_age_is_a_number_and_a_unit(text: str, age: timedelta) -> None:
    assert parse_age(text) == age


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5d", "30 d", "30D", "30m", "1d12h", "٣d", "100000d"])
def test_anything_else_is_wrong_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 12h, 30d or 2w"):
        parse_age(text)
    ran = CliRunner().invoke(make_app(), ["purge", "demo", f"--older-than={text}"])
    assert ran.exit_code == 2
    assert "next: pcloud purge demo --older-than 30d" in ran.output


def test_an_age_before_the_first_year_is_as_old_as_it_gets() -> None:
    assert cutoff(datetime(2026, 11, 28, tzinfo=UTC), parse_age("99999w")).startswith("0110")


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ("", FILES[:6]),
        ("20261001-030000", ()),
        ("20261001-030001", FILES[:3]),
        ("20261120-030000", FILES[:6]),
        ("20261120-025959", FILES[:3]),
    ],
)
def test_a_tombstone_goes_with_all_of_it(before: str, left: tuple[str, ...]) -> None:
    assert find_tombstones("demo", FILES, before) == left


def test_one_without_a_date_that_can_be_read_goes_only_with_all() -> None:
    odd = ("demo.fe-2.g1.tombstone-by-hand.qcow2",)
    assert find_tombstones("demo", odd) == odd
    assert find_tombstones("demo", odd, "20300101-000000") == ()


def test_the_cutoff_is_in_the_time_of_the_names() -> None:
    noon = datetime(2026, 11, 28, 12, tzinfo=timezone(timedelta(hours=2)))
    assert cutoff(noon, parse_age("12h")) == "20261127-220000"


def test_a_purge_names_what_is_old_enough_on_hosts_that_answer() -> None:
    observed = Observed((SeenHost("h1", volumes=FILES), SeenHost("h2", "silent", volumes=FILES), SeenHost("h3")))
    made = plan_purge("demo", "", observed, "20261101-000000")
    assert [(n.key, n.info.reason) for n in made.nodes] == [("h1/tombstones/purge", "1 tombstone")]
    assert [n.info.reason for n in plan_purge("demo", "", observed).nodes] == ["2 tombstones"]
    assert plan_purge("demo", "", observed, "20260101-000000").nodes == ()


def test_a_host_says_what_its_tombstones_take_of_its_disk(tmp_path: Path) -> None:
    """Of a disk that is mostly holes, what is there."""
    for name in FILES:
        (tmp_path / name).write_bytes(b"")
    disk = tmp_path / f"{STONE}.qcow2"
    disk.write_bytes(os.urandom(1 << 16))
    os.truncate(disk, 1 << 30)
    (tmp_path / FILES[6]).write_bytes(os.urandom(1 << 20))
    (tmp_path / FILES[8]).write_bytes(os.urandom(1 << 20))
    printed = subprocess.run(weigh_command("demo", str(tmp_path)), capture_output=True, text=True, check=True).stdout
    assert len(printed.splitlines()) == 6
    assert 1 << 16 <= read_weight("demo", printed) < 1 << 17


def test_what_they_cost_is_one_figure() -> None:
    observed = Observed(
        (SeenHost("h1", volumes=FILES), SeenHost("h2", volumes=FILES[:3]), SeenHost("h3", "silent", volumes=FILES))
    )
    cost = find_cost("demo", observed, {"h1": 3 << 30, "h2": 1 << 29})
    assert cost is not None
    assert cost.words("demo") == ("3 tombstones, 3.5 GiB, the oldest of 2026-10-01; pcloud purge demo --older-than 30d")
    unsure = find_cost("demo", observed, {"h1": None, "h2": 1 << 29})
    assert unsure is not None and unsure.unknown == ("h1",)
    assert unsure.words("demo").startswith("3 tombstones, at least 0.5 GiB")
    assert find_cost("demo", Observed((SeenHost("h1"),)), {}) is None


def test_help_has_an_example() -> None:
    told = CliRunner().invoke(make_app(), ["purge", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert "pcloud purge demo --older-than 30d" in told
