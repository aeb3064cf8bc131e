"""Who keeps the notes of a copy, and that no copy starts unnoted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcloud.desired import Names
from pcloud.errors import PcloudError
from pcloud.execute import _Reporter
from pcloud.generations import LEAP, read_generations
from pcloud.model import Site
from pcloud.notes import Keepers
from pcloud.observed import Observed, SeenHost
from pcloud.plan import plan
from pcloud.steps.base import Met
from pcloud.steps.noting import NoteGeneration
from pcloud.steps.server import Cycle, Start
from tests.faults import strike
from tests.plan_cases import DATE, arrange
from tests.scenario import new_world
from tests.simulation import SimWorld

WHOLE = {
    "db-1": "h1 g1 running",
    "idx-1": "h4 g1 running",
    "fe-1": "h2 g1 running",
    "fe-2": "h5 g1 running",
    "fe-3": "h7 g1 running",
    "fe-4": "h3 g1 running",
    "lb-1": "h6 g1 running",
}
FILE = "demo.db-1.g1.on-h1.10.77.0.11.note"


def keepers(site: Site, away: str = "", **files: str) -> Keepers:
    problem = dict.fromkeys(away.split(), "away")
    seen = (
        SeenHost(n, problem.get(n, ""), volumes=tuple(files.get(n, "").split())) for n in (h.name for h in site.hosts)
    )
    return Keepers.of(site, Observed(tuple(seen)))


@pytest.mark.parametrize(
    ("away", "there", "chosen"),
    [
        ("", {}, ("h4", "h7")),
        ("", {"h5": FILE, "h8": FILE}, ("h5", "h8")),
        ("", {"h2": FILE, "h3": FILE}, ("h4", "h7")),  # in its own rack they fall with it
        ("", {"h4": FILE, "h5": FILE}, ("h4", "h7")),  # and these with one another
        ("h7 h8", {}, ("h4", "h5")),
        ("h4 h5 h6", {"h8": FILE}, ("h8", "h7")),
        ("h4 h5 h6 h7 h8", {}, ("h2", "h3")),
        ("h2 h3 h4 h5 h6 h7", {}, ("h8",)),
    ],
)
def test_a_note_lies_in_two_other_racks_where_it_can(
    demo_site: Site, away: str, there: dict[str, str], chosen: tuple[str, ...]
) -> None:
    assert keepers(demo_site, away, **there).find("h1", FILE) == chosen


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    racks=st.lists(st.sampled_from("abcd"), min_size=1, max_size=7),
    away=st.frozensets(st.integers(0, 6)),
    there=st.frozensets(st.integers(0, 6)),
)
def test_whoever_is_chosen_has_it_and_nothing_is_left_to_do(
    demo_site: Site, racks: list[str], away: frozenset[int], there: frozenset[int]
) -> None:
    hosts = tuple(demo_site.hosts[0].model_copy(update={"name": f"h{n}", "rack": r}) for n, r in enumerate(racks))
    site = demo_site.model_copy(update={"hosts": hosts})

    def look(having: set[str]) -> Keepers:
        problem = {f"h{n}": "away" for n in away}
        seen = (SeenHost(h.name, problem.get(h.name, ""), volumes=(FILE,) if h.name in having else ()) for h in hosts)
        return Keepers.of(site, Observed(tuple(seen)))

    before = {f"h{n}" for n in there}
    chosen = look(before).find("h0", FILE)
    assert not look(before | set(chosen)).lacks("h0", FILE)
    others = {h.rack for h in hosts[1:] if h.name not in {f"h{n}" for n in away}} - {racks[0]}
    assert len({racks[int(h[1:])] for h in chosen} - {racks[0]}) == min(2, len(others))


def test_no_two_leaps_come_to_the_same(demo_site: Site) -> None:
    hosts = tuple(SeenHost(h.name, "away" if h.name < "h4" else "") for h in demo_site.hosts)
    leaps = [read_generations(Observed(hosts, at=at), "demo").next("fe-1") for at in (1353099610.2, 1353099611.4)]
    assert leaps == [1353099610, 1353099611]
    later = SeenHost("h8", volumes=("demo.fe-1.g1353099610.note",))
    slow = read_generations(Observed((*hosts[:-1], later), at=5.0), "demo")
    assert slow.next("fe-1") == 1353099610 + LEAP


@pytest.mark.parametrize("how", ["off", "running broken"])
def test_no_copy_starts_that_others_do_not_know_of(world: SimWorld, how: str) -> None:
    arrange(world, {"servers": WHOLE | {"db-1": f"h1 g1 {how}"}, "restored": True, "unnoted": True})
    nodes = plan(world.desired, world.observe(), DATE).nodes
    start = next(n for n in nodes if isinstance(n.step, Start | Cycle))
    note = next(n.step for n in nodes if n.key in start.info.needs and isinstance(n.step, NoteGeneration))
    assert start.info.server == "db-1"
    assert note.hosts == ("h4", "h7")


def test_a_deputy_keeps_what_a_full_host_cannot(image_file: Path) -> None:
    world, _ = new_world(image_file, whole=True)
    for host in ("h4", "h2"):
        strike(world, f"full {host}")
    step = NoteGeneration(("h4", "h7"), Names("demo", "db-1", 9), "h1", ("h2", "h3", "h5"))

    report = _Reporter("db-1/note", lambda _: None, world.clock.now, threading.Event())
    step.do(world, report)
    kept = [h for h, at in world.hosts.items() if any("db-1.g9.on-h1.10.77.0.11.note" in f for f in at.files)]
    assert kept == ["h3", "h7"]
    assert isinstance(step.check(world), Met)
    for host in world.hosts:
        strike(world, f"full {host}")
    with pytest.raises(PcloudError, match="No space left"):
        NoteGeneration(("h4", "h7"), Names("demo", "db-1", 10), "h1", ("h2",)).do(world, report)
