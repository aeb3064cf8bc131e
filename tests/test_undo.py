"""What was put away comes back, and nothing that serves is put away for what cannot be made (see family `undo`)."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from pcloud.desired import Names, Options
from pcloud.errors import Blocked, CheckFailed
from pcloud.execute import execute
from pcloud.kept import Target
from pcloud.observed import Observed, SeenHost
from pcloud.plan import Plan, plan
from pcloud.steps.base import Met
from pcloud.steps.restoring import Prove, ProveDump, RestoreBackup
from pcloud.steps.stop import Stop
from pcloud.steps.undo import _WHOLE, renumbered
from pcloud.teardown import plan_destroy, plan_purge
from pcloud.tombstones import find_graves
from pcloud.undo import last_put_away, plan_undo, question_of
from tests.plan_cases import DATE
from tests.scenario import Scenario, play
from tests.simulation import SimWorld, with_options
from tests.test_backupplan import ONE, whole  # noqa: F401 (a fixture)
from tests.test_plan import Memory, is_whole, run_all

OLD, NEW = "20261120-040000", "20261127-223100"


def files(server: str, generation: int, date: str, *extra: str) -> tuple[str, ...]:
    stem = f"demo.{server}.g{generation}.tombstone-{date}"
    return tuple(f"{stem}.{end}" for end in ("qcow2", "xml", *extra))


def put_away(observed: Observed, **volumes: tuple[str, ...]) -> Observed:
    hosts = tuple(replace(h, volumes=(*h.volumes, *volumes.get(h.name, ()))) for h in observed.hosts)
    return replace(observed, hosts=hosts)


def carry_out(made: Plan, world: SimWorld) -> None:
    state = execute(made, world, Memory(), Memory(), "run", world.clock)
    assert state.finished is not None
    assert state.finished.outcome == "converged"


def retired(made: Plan) -> set[str | None]:
    return {n.info.server for n in made.nodes if n.info.action == "retire"}


def test_the_last_command_is_taken_back_unless_another_is_named(whole: SimWorld) -> None:  # noqa: F811
    found = put_away(whole.observe(), h1=(*files("db-1", 1, NEW), *files("db-1", 1, OLD)), h4=files("idx-1", 1, NEW))
    assert [str(g) for g in last_put_away(whole.desired, found)] == [
        "db-1 (generation 1, on h1)",
        "idx-1 (generation 1, on h4)",
    ]
    assert [g.date for g in last_put_away(whole.desired, found, OLD)] == [OLD]
    with pytest.raises(Blocked, match=f"nothing to bring back of 20200101-000000: .* {OLD}, {NEW}") as caught:
        last_put_away(whole.desired, found, "20200101-000000")
    assert caught.value.next == f"pcloud undo demo --of {NEW}"


@pytest.mark.parametrize(
    "there",
    [
        (),
        files("db-1", 1, NEW)[:1],  # a disk that belonged to no server
        files("db-1", 1, NEW, "past.note"),  # another copy had taken its place before
        files("fe-9", 1, NEW),  # no server of the inventory's
    ],
)
def test_what_was_no_whole_server_is_not_brought_back(whole: SimWorld, there: tuple[str, ...]) -> None:  # noqa: F811
    with pytest.raises(Blocked, match="nothing to bring back"):
        last_put_away(whole.desired, put_away(whole.observe(), h1=there))


def test_all_is_looked_at_before_anything_is_put_away(whole: SimWorld) -> None:  # noqa: F811
    found = put_away(whole.observe(), h1=files("db-1", 1, NEW), h4=files("idx-1", 1, NEW))
    made = plan_undo(whole.desired, found, DATE)
    looks = {n.key for n in made.nodes if n.info.action == "look"}
    assert looks == {"h1/db-1/whole", "h4/idx-1/whole"}
    assert all(looks <= set(n.info.needs) for n in made.nodes if n.info.action == "retire")
    assert retired(made) == {"db-1", "idx-1"}


def test_a_primary_does_not_give_way_to_older_data_while_its_replica_goes_on(whole: SimWorld) -> None:  # noqa: F811
    with pytest.raises(Blocked, match=r"db-1 is the primary .* while idx-1 goes on"):
        plan_undo(whole.desired, put_away(whole.observe(), h1=files("db-1", 1, NEW)), DATE)


def test_a_host_without_memory_for_it_blocks(whole: SimWorld) -> None:  # noqa: F811
    found = put_away(whole.observe(), h2=files("fe-2", 1, NEW))
    full = replace(found, hosts=tuple(replace(h, memory_mib=900) if h.name == "h2" else h for h in found.hosts))
    with pytest.raises(Blocked, match="h2 has no memory"):
        plan_undo(whole.desired, full, DATE)


def test_purge_ends_it(whole: SimWorld) -> None:  # noqa: F811
    carry_out(plan_destroy("demo", "", whole.observe(), NEW), whole)
    assert len(find_graves("demo", whole.observe())) == 7
    carry_out(plan_purge("demo", "", whole.observe()), whole)
    with pytest.raises(Blocked, match="no server was put away whole"):
        plan_undo(whole.desired, whole.observe(), DATE)


def test_each_step_done_twice_is_met_the_second_time(whole: SimWorld) -> None:  # noqa: F811
    carry_out(plan_destroy("demo", "", whole.observe(), NEW), whole)
    made = plan_undo(whole.desired, whole.observe(), DATE)
    carry_out(made, whole)
    done = [n.step.check(cast(Any, whole)) for n in made.nodes if n.info.action != "look"]
    assert all(isinstance(found, Met) for found in done)
    run_all(whole)
    assert is_whole(whole)


def test_the_question_says_what_is_lost_either_way(whole: SimWorld) -> None:  # noqa: F811
    graves = find_graves("demo", put_away(whole.observe(), h1=files("db-1", 1, NEW), h4=files("idx-1", 1, NEW)))
    text = question_of("demo", graves, {"db-1": "0-1-90", "idx-1": ""}, "0-1-80,1417-1-12", {"db-1": 10})
    assert "put away at 2026-11-27 22:31:00 UTC" in text
    assert "The data of db-1 go to 0-1-90, 10 transactions that the shop has not now" in text
    assert "what was written since, 12 transactions up to 0-1-80,1417-1-12, is given up" in text
    assert "How far the data of idx-1 go could not be read" in text


def test_a_definition_gets_the_new_generation_everywhere() -> None:
    """As libvirt prints it; the image's own files keep their names."""
    xml = (
        '<domain><pcloud:server xmlns:pcloud="urn:x" site="demo" name="db-1" image="0f1" generation="1"/>'
        "<kernel>/p/0f1.g1.vmlinuz</kernel><source file='/p/demo.db-1.g1.qcow2'/>"
        "<source file='/p/demo.db-1.g1.seed.iso'/>"
        "<log file='/p/demo.db-1.g1.console.log' append='off'/></domain>"
    )
    made = renumbered(xml, Names("demo", "db-1", 1), Names("demo", "db-1", 12))
    assert 'generation="12"' in made
    assert made.count("demo.db-1.g12.") == 3
    assert "/p/0f1.g1.vmlinuz" in made
    with pytest.raises(CheckFailed, match="no mark"):
        renumbered("<domain/>", Names("demo", "db-1", 1), Names("demo", "db-1", 2))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: None, ""),
        (lambda d: (d / "base.qcow2").unlink(), "stands on .*base.qcow2, which is gone"),
        (lambda d: (d / "vmlinuz").unlink(), "boots from .*vmlinuz, which is gone"),
        (lambda d: (d / "x.xml").write_text(""), "its definition is empty"),
        (lambda d: (d / "x.qcow2").write_bytes(b""), "its disk is empty"),
    ],
)
def test_what_a_disk_stands_on_is_looked_at_on_its_host(tmp_path: Path, spoil: object, said: str) -> None:
    assert callable(spoil)
    make = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*make, "base.qcow2", "1M"], check=True, cwd=tmp_path)
    subprocess.run([*make, "-b", f"{tmp_path}/base.qcow2", "-F", "qcow2", "x.qcow2"], check=True, cwd=tmp_path)
    (tmp_path / "vmlinuz").write_text("kernel")
    (tmp_path / "x.xml").write_text(f"<os>\n  <kernel>{tmp_path}/vmlinuz</kernel>\n</os>\n")
    spoil(tmp_path)
    argv = ["sh", "-c", _WHOLE, "whole", f"{tmp_path}/x.qcow2", f"{tmp_path}/x.xml"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    if not said:
        assert (ended.returncode, ended.stdout) == (0, "")
    else:
        assert ended.returncode == 1
        assert re.search(said, ended.stdout), ended.stdout


# -- nothing that serves is put away for what cannot be made


def stopped(made: Plan) -> str:
    assert not made.changes
    assert made.nodes
    return "; ".join(f"{n.step.where}: {n.step.what}" for n in made.nodes if isinstance(n.step, Stop))


@pytest.mark.parametrize(
    "options", [{"from_scratch": True}, {"rebuild": ("db-1", "idx-1")}, {"rebuild": ("idx-1",)}], ids=str
)
def test_no_server_goes_for_a_dump_that_is_known_to_be_bad(whole: SimWorld, options: dict[str, object]) -> None:  # noqa: F811
    bad = with_options(replace(whole.desired, dump=None, dump_problem="the dump is cut off"), **options)
    made = plan(bad, whole.observe(), DATE)
    if "from_scratch" in options:
        assert "the dump is cut off; nothing was touched" in stopped(made)
        assert retired(plan(with_options(bad, **options, empty_database=True), whole.observe(), DATE)) != set()
    else:
        assert retired(made) <= {"idx-1"}, "the primary stays, and fills the replica"


@pytest.mark.parametrize("options", [Options(from_scratch=True), Options(kept=True, until=Target())], ids=str)
def test_a_silent_host_in_the_way_blocks_before_anything_is_touched(whole: SimWorld, options: Options) -> None:  # noqa: F811
    whole.shelves = (ONE,)
    whole.hosts["h1"].away, whole.hosts["h1"].seen = True, True
    whole.desired = replace(whole.desired, options=options)
    made = plan(whole.desired, whole.observe(), DATE)
    assert "db-1: it may be running on h1" in stopped(made)
    assert "nothing was touched" in stopped(made)


def test_a_host_is_proven_off_and_images_are_there_before_any_data_server_goes(whole: SimWorld) -> None:  # noqa: F811
    whole.shelves = (ONE,)
    whole.cut("h1")
    whole.desired = replace(whole.desired, options=Options(kept=True, until=Target()))
    made = plan(whole.desired, whole.observe(), DATE)
    [gone] = [n for n in made.nodes if n.info.action == "retire"]
    assert gone.info.server == "idx-1"
    assert {"h1/fence", "idx-1/prove"} < set(gone.info.needs)
    assert {k for k in gone.info.needs if "/image/" in k} == {n.key for n in made.nodes if "/image/" in n.key}


def test_a_restore_first_makes_the_data_beside_those_that_serve(whole: SimWorld) -> None:  # noqa: F811
    whole.shelves = (ONE,)
    plain = whole.desired
    for unproven in (False, True):
        whole.desired = replace(plain, options=Options(kept=True, until=Target(), unproven=unproven))
        made = plan(whole.desired, whole.observe(), DATE)
        proofs = [n.key for n in made.nodes if isinstance(n.step, Prove)]
        assert proofs == ([] if unproven else ["idx-1/prove"]), "on the replica: the primary sells"
        assert all(set(proofs) <= set(n.info.needs) for n in made.nodes if n.info.action == "retire")
        assert retired(made) == {"db-1", "idx-1"}
        restores = [n.step for n in made.nodes if isinstance(n.step, RestoreBackup)]
        assert [s.undo for s in restores] == [True, True]


def test_everything_anew_first_loads_the_dump_beside_those_that_serve(whole: SimWorld) -> None:  # noqa: F811
    plain = whole.desired
    for options in (Options(from_scratch=True), Options(from_scratch=True, unproven=True)):
        made = plan(replace(plain, options=options), whole.observe(), DATE)
        proofs = {n.key for n in made.nodes if isinstance(n.step, ProveDump)}
        assert proofs == (set() if options.unproven else {"idx-1/prove"})
        gone = [n for n in made.nodes if n.info.action == "retire"]
        assert len(gone) == 7
        assert all(proofs <= set(n.info.needs) for n in gone)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(rebuild=("fe-1",)), True),
        (Options(from_scratch=True), True),
        (Options(kept=True, until=Target()), True),
        (Options(), False),
    ],
)
def test_whoever_has_servers_put_away_is_told_how_they_come_back(
    whole: SimWorld,  # noqa: F811
    options: Options,
    said: bool,
) -> None:
    whole.shelves = (ONE,)
    whole.desired = replace(whole.desired, options=options)
    made = plan(whole.desired, whole.observe(), DATE)
    assert any("pcloud undo demo" in sentence for sentence in made.advice) == said
    assert any("pcloud undo demo" in sentence for sentence in plan_destroy("demo", "", whole.observe(), NEW).advice)


def test_what_serves_nobody_is_replaced_at_once(whole: SimWorld) -> None:  # noqa: F811
    whole.shelves = (ONE,)
    for server in ("db-1", "idx-1"):
        data = whole.find_data(server)
        assert data is not None
        data.state = data.token = ""
    whole.desired = replace(whole.desired, options=Options(kept=True, until=Target()))
    made = plan(whole.desired, whole.observe(), DATE)
    assert not any(isinstance(n.step, Prove) for n in made.nodes)


@pytest.mark.chaos
def test_an_undo_that_is_killed_anywhere_goes_on(image_file: Path) -> None:
    for effect in range(1, 260):
        story = ("40 recover --from-scratch", f"effect {effect} die", "140 undo", "180 undo", "260 recover")
        told = play(Scenario("killed", "killed", story), image_file)
        assert not told.broken, (effect, told.broken)
        assert told.outcome == "converged", effect


def test_no_host_at_all() -> None:
    assert find_graves("demo", Observed((SeenHost("h1", problem="silent"),))) == ()
