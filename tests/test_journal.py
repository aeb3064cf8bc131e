"""Journals survive what kills their writers; locks die with their holders."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcloud.cli import make_app
from pcloud.cli.runs import app
from pcloud.errors import BadInput, Blocked, PcloudError
from pcloud.events import (
    Event,
    Interrupted,
    RunFinished,
    RunStarted,
    StepDone,
    StepFailed,
    StepInfo,
    StepProgress,
    StepStarted,
    to_json,
)
from pcloud.journal import (
    DAMAGED,
    KILLED,
    RUNNING,
    Journal,
    RunLock,
    find_holder,
    find_run,
    list_runs,
    new_run_id,
    read_events,
    read_run,
    sites,
)
from pcloud.places import runs_dir, site_dir
from tests.synthetic_runs import Simulation, plan


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCLOUD_HOME", str(tmp_path))


def _start(run: str = "r1", date: str = "2025-03-01T03:15:02+00:00") -> RunStarted:
    return RunStarted(run, "demo", "recover", "d", date, ("p",), (StepInfo("a", "p"), StepInfo("journey", "p", ("a",))))


def _write(*events: Event, run: str = "r1", site: str = "demo") -> Path:
    with Journal.create(runs_dir(site), run) as journal:
        for event in events:
            journal.append(event)
    return journal.path


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=Path.cwd())


def test_what_is_appended_reads_back() -> None:
    events = Simulation(plan(), fails="fe-2/ready").events()
    path = _write(*events)
    assert read_events(path) == events
    assert read_events(path, progress=False) == [e for e in events if not isinstance(e, StepProgress)]
    assert read_run(path).finished == events[-1]


def test_a_journal_is_for_its_owner_only() -> None:
    path = _write(_start())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(runs_dir("demo").stat().st_mode) == 0o700


def test_a_run_id_is_used_once_and_stays_in_its_folder() -> None:
    _write(_start())
    with pytest.raises(PcloudError, match="exists already"):
        Journal.create(runs_dir("demo"), "r1")
    for name in ("../r2", "", ".hidden", "a/b", "a\n"):
        with pytest.raises(BadInput):
            Journal.create(runs_dir("demo"), name)
        with pytest.raises(BadInput):
            find_run("demo", name)


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("stay")
    folder = runs_dir("demo").parent
    folder.mkdir(parents=True, mode=0o700)
    (folder / "lock").symlink_to(precious)
    with pytest.raises(BadInput, match="the lock is a link"):
        RunLock("demo", "r1").acquire()
    with pytest.raises(BadInput, match="the lock is a link"):
        find_holder("demo")
    assert precious.read_text() == "stay"


def test_a_folder_of_somebody_else_is_not_used() -> None:
    folder = runs_dir("demo").parent
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(BadInput, match="belongs to user 65534"):
        RunLock("demo", "r1").acquire()
    os.chown(folder, 0, 0)
    folder.chmod(0o777)
    with pytest.raises(BadInput, match="may be changed by others"):
        RunLock("demo", "r1").acquire()
    folder.chmod(0o755)
    with RunLock("demo", "r1"):
        pass


@pytest.mark.parametrize("site", ["../x", "a/b", "", ".", "/etc", "x\n"])
def test_a_sites_name_leads_out_of_no_folder(site: str) -> None:
    with pytest.raises(BadInput, match="cannot be the name of a site"):
        site_dir(site)
    if site:
        done = CliRunner().invoke(make_app(), ["runs", site])
        assert (done.exit_code, "cannot be the name of a site" in done.output) == (2, True)


def test_run_ids_sort_by_date() -> None:
    east = timezone(timedelta(hours=2))
    at = runs_dir("demo")
    assert new_run_id(at, datetime(2025, 3, 1, 5, 15, 2, tzinfo=east), "recover") == "20250301-031502-recover"
    assert new_run_id(at, datetime(2025, 12, 1, tzinfo=UTC), "a") > new_run_id(
        at, datetime(2025, 2, 1, tzinfo=UTC), "b"
    )


def test_runs_that_begin_within_one_second_each_have_their_own_journal() -> None:
    date, made = datetime(2025, 3, 1, 3, 15, 2, tzinfo=UTC), []
    for _ in range(3):
        made.append(new_run_id(runs_dir("demo"), date, "recover"))
        Journal.create(runs_dir("demo"), made[-1]).close()
    assert made == ["20250301-031502-recover", "20250301-031502-recover-2", "20250301-031502-recover-3"]
    assert made == sorted(made)
    assert new_run_id(runs_dir("demo"), datetime(2025, 3, 1, 3, 15, 3, tzinfo=UTC), "backup") > made[-1]


def test_a_journal_cut_anywhere_in_its_last_line_reads_as_if_that_line_were_not_there() -> None:
    path = _write(_start(), StepStarted("a", 1), StepDone("a", 2, facts={"texte": "é"}))
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(last, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert len(read_events(path)) == 2, length
    path.write_bytes(whole[:-1])  # only the newline is missing: nothing is lost
    assert len(read_events(path)) == 3


@pytest.mark.parametrize(
    "tail", [b"\0" * 512, b'{"event":"StepDone"}\n', b'{"event":"StepDone","step":"a","at":"x"}\n']
)
def test_a_last_line_that_is_no_event_is_dropped(tail: bytes) -> None:
    path = _write(_start(), StepStarted("a", 1))
    path.write_bytes(path.read_bytes() + tail)
    assert len(read_events(path)) == 2


@pytest.mark.parametrize(
    "line",
    [b"", b"\xff", b"{}", b'{"event":"StepDone","step":7,"at":1}', b'{"event":"StepDone","step":"a","at":"soon"}'],
)
def test_damage_in_the_middle_names_the_file_and_the_line(line: bytes) -> None:
    path = _write(_start(), StepStarted("a", 1))
    path.write_bytes(path.read_bytes() + line + b"\n" + to_json(StepDone("a", 2)).encode() + b"\n")
    with pytest.raises(PcloudError) as caught:
        read_events(path)
    assert caught.value.where == f"{path}:3"
    assert "damaged" in caught.value.what
    assert caught.value.next


def test_events_that_cannot_follow_each_other_name_the_line() -> None:
    path = _write(_start(), StepDone("a", 2), StepStarted("a", 3))
    with pytest.raises(PcloudError) as caught:
        read_run(path)
    assert caught.value.where == f"{path}:2"


def test_line_separators_and_lone_surrogates_in_a_text_do_no_harm() -> None:
    odd = "one\u2028two\x85three\udcff\n\x1b[0m"
    path = _write(_start(), StepStarted("a", 1), StepFailed("a", 2, odd))
    failed = read_events(path)[-1]
    assert isinstance(failed, StepFailed)
    assert failed.what == odd.replace("\udcff", "?")


def test_several_events_in_one_append() -> None:
    with Journal.create(runs_dir("demo"), "r1") as journal:
        journal.append(_start(), StepStarted("a", 1))
        assert len(read_events(journal.path)) == 2


def test_a_full_disk_is_an_error_and_leaves_no_half_line() -> None:
    code = """
import resource, sys
from pcloud.errors import PcloudError
from pcloud.events import RunFinished, StepFailed
from pcloud.journal import Journal, read_events
from pcloud.places import runs_dir
from tests.test_journal import _start
journal = Journal.create(runs_dir("demo"), "r1")
journal.append(_start())
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    journal.append(StepFailed("a", 1, "x" * 5000))
except PcloudError as error:
    print(error)
journal.append(RunFinished("failed", 2, ""))
print(len(read_events(journal.path)))
"""
    output, _ = _python(code).communicate(timeout=60)
    assert "cannot be written" in output
    assert output.splitlines()[-1] == "2"


def test_a_writer_killed_at_any_moment_leaves_a_journal_that_reads() -> None:
    code = """
import sys
from pcloud.events import StepProgress, StepStarted
from pcloud.journal import Journal
from pcloud.places import runs_dir
from tests.test_journal import _start
with Journal.create(runs_dir("demo"), sys.argv[1]) as journal:
    journal.append(_start(sys.argv[1]), StepStarted("a", 0))
    print("begun", flush=True)
    for n in range(1000000):
        journal.append(StepProgress("a", n, doing="x" * (n % 4000)))
"""
    for n in range(3):
        writer = _python(code, f"r{n}")
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        time.sleep(0.05 * n)
        writer.kill()
        writer.wait(timeout=30)
        assert read_run(find_run("demo", f"r{n}")).finished is None
    assert {run.outcome for run in list_runs("demo")} == {KILLED}


def test_the_last_run_is_the_one_that_began_last_and_has_begun() -> None:
    later = _write(_start("a-later", "2025-03-02T00:00:00+00:00"), run="a-later")
    _write(_start("z-earlier"), run="z-earlier")
    _write(run="zz-empty")
    (runs_dir("demo") / "notes").mkdir()
    assert find_run("demo") == later
    assert find_run("demo", "z-earlier").parent.name == "z-earlier"
    assert [run.run for run in list_runs("demo")] == ["z-earlier", "a-later"]
    assert [run.run for run in list_runs("demo", 1)] == ["a-later"]


def test_a_run_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(BadInput, match="no run on this machine") as caught:
        find_run("demo")
    assert caught.value.next == "pcloud recover demo"
    with pytest.raises(BadInput, match="has no run nope") as caught:
        find_run("demo", "nope")
    assert caught.value.next == "pcloud runs demo"
    with pytest.raises(PcloudError, match="before its first event"):
        read_run(_write(run="empty"))


def test_the_list_tells_how_each_run_ended() -> None:
    done: list[Event] = [StepStarted("a", 1), StepDone("a", 2), StepStarted("journey", 2), StepDone("journey", 5)]
    _write(_start("r1", "1"), *done, RunFinished("converged", 6, ""), run="r1")
    _write(_start("r2", "2"), StepStarted("a", 1), Interrupted(3), run="r2")
    _write(_start("r3", "3"), StepDone("a", 1), StepStarted("a", 3), run="r3")
    _write(_start("r4", "4"), StepStarted("a", 4), run="r4")
    with RunLock("demo", "r4"):
        runs = list_runs("demo")
    assert [run.outcome for run in runs] == ["converged", KILLED, DAMAGED, RUNNING]
    assert [run.journey_s for run in runs] == [5, None, None, None]
    assert [run.duration_s for run in runs] == [6, 3, 0, 4]
    assert list_runs("demo")[-1].outcome == KILLED
    assert sites() == ("demo",)


@pytest.fixture
def other_run() -> Iterator[subprocess.Popen[str]]:
    code = """
import sys
from pcloud.journal import RunLock
with RunLock("demo", "r-first"):
    print("held", flush=True)
    sys.stdin.read()
"""
    process = _python(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait(timeout=30)


def test_a_second_run_is_blocked_and_told_by_whom(other_run: subprocess.Popen[str]) -> None:
    with pytest.raises(Blocked) as caught:
        RunLock("demo", "r-second").acquire()
    assert f"process {other_run.pid}" in caught.value.what
    assert "r-first" in caught.value.what
    assert f"kill -INT {other_run.pid}" in caught.value.next
    with RunLock("other-site", "r-second"):
        pass


def test_a_lock_dies_with_its_process(other_run: subprocess.Popen[str]) -> None:
    holder = find_holder("demo")
    assert holder is not None
    assert (holder.pid, holder.run) == (other_run.pid, "r-first")
    os.kill(other_run.pid, signal.SIGKILL)
    other_run.wait(timeout=30)
    assert find_holder("demo") is None
    with RunLock("demo", "r-second"):
        mine = find_holder("demo")
        assert mine is not None
        assert mine.run == "r-second"


def test_a_child_does_not_inherit_the_lock() -> None:
    with RunLock("demo", "r1"):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        assert find_holder("demo") is None
        with RunLock("demo", "r2"):
            pass
    finally:
        child.kill()
        child.wait(timeout=10)


def test_asking_who_holds_a_lock_never_blocks_a_run() -> None:
    code = """
import sys
from pcloud.journal import find_holder
print("asking", flush=True)
while True:
    find_holder("demo")
"""
    site_dir("demo").mkdir(parents=True)
    (site_dir("demo") / "lock").touch()
    asker = _python(code)
    assert asker.stdout is not None
    asker.stdout.readline()
    try:
        for n in range(50):
            with RunLock("demo", f"r{n}"):
                pass
    finally:
        asker.kill()
        asker.wait(timeout=30)


def test_a_lock_without_a_readable_holder_still_blocks(other_run: subprocess.Popen[str]) -> None:
    (site_dir("demo") / "lock").write_text("{")
    with pytest.raises(Blocked, match="just starting"):
        RunLock("demo", "r2").acquire()
    assert other_run.poll() is None


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_show_what_ran() -> None:
    events = Simulation(plan()).events()
    _write(*events, run="20250301-031502-recover")
    listed = _run("runs", "demo")
    assert "20250301-031502-recover" in listed
    assert "✓ converged" in listed
    assert json.loads(_run("runs", "--json"))["outcome"] == "converged"
    assert "first full journey after" in _run("report", "demo")
    assert _run("report") == _run("report", "demo", "20250301-031502-recover")
    data = json.loads(_run("report", "demo", "--json"))
    assert data["first_journey_s"] == pytest.approx(data["journey"][-1]["at_s"], abs=5)
    assert len(data["steps"]) == len(plan())


def test_the_report_is_written_as_html(tmp_path: Path) -> None:
    _write(*Simulation(plan()).events()[:80], run="r1")
    target = tmp_path / "report.html"
    assert str(target) in _run("report", "--html", str(target))
    assert KILLED in target.read_text()
    assert not list(tmp_path.glob(".report*"))


def test_the_commands_say_what_to_do_when_there_is_nothing() -> None:
    for arguments in (["runs"], ["runs", "demo"], ["report"], ["report", "demo"]):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, BadInput), arguments
        assert result.exception.next.startswith("pcloud recover")
    _write(_start())
    result = CliRunner().invoke(app, ["report", "--html", "/proc/nowhere/x.html"])
    assert isinstance(result.exception, PcloudError)
