"""Playbooks: the default one, one that a site brings, and the bad ones word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcloud.errors import BadDocument
from pcloud.inventory import find_default, load_site
from pcloud.model import Site
from pcloud.playbook import Phase, Playbook, check_playbook, load_playbook
from tests.data_cases import CASES, Case, load_cases

GOOD = CASES / "playbooks" / "recover.yaml"
BAD = load_cases(CASES / "playbooks", GOOD)


@pytest.fixture(scope="module")
def small() -> Site:
    return load_site(CASES / "inventory" / "small.yaml")


def test_the_default_playbook_fits_the_demonstration_site() -> None:
    playbook = load_playbook(find_default("playbooks", "recover.yaml"))
    assert check_playbook(playbook, load_site(find_default("inventory", "demo.yaml"))) == []
    assert [(phase.name, phase.does, phase.needs) for phase in playbook.phases] == [
        ("images", "images", ()),
        ("servers", "servers", ()),
        ("database", "restore", ("servers",)),
        ("search", "index", ("database",)),
        ("frontends", "ready", ("servers",)),
        ("balancer", "ready", ("servers",)),
        ("replication", "replicate", ("database",)),
        ("journey", "journey", ("database", "search", "frontends", "balancer")),
    ]


def test_needs_left_out_mean_the_phase_before(tmp_path: Path) -> None:
    path = tmp_path / "drill.yaml"
    phases = ['{name: one, ask: "Shall we?"}', "{name: two, does: servers}"]
    phases += ["{name: three, does: images, needs: []}", "{name: four, does: journey}"]
    path.write_text("playbook: drill\nphases:\n" + "".join(f"  - {phase}\n" for phase in phases))
    with pytest.raises(BadDocument, match=r"drill.yaml:3: phases\[0\]: the journey does not wait for phase one"):
        load_playbook(path)
    path.write_text(path.read_text().replace("needs: []", "needs: [two]"))
    playbook = load_playbook(path)
    assert [phase.needs for phase in playbook.phases] == [(), ("one",), ("two",), ("three",)]
    assert playbook.all_needs("four") == {"one", "two", "three"}
    assert playbook.phases[0] == Phase("one", "ask", ask="Shall we?")


def test_phases_know_their_groups(small: Site) -> None:
    playbook = load_playbook(GOOD)
    assert check_playbook(playbook, small) == []
    groups = {phase.name: [group.name for group in phase.groups_of(small)] for phase in playbook.phases}
    everything = ["database", "indexer", "frontend", "balancer"]
    assert groups == {
        "images": everything,
        "note": [],
        "servers": everything,
        "database": ["database"],
        "search": ["indexer"],
        "answers": ["frontend", "balancer"],
        "journey": [],
    }


def test_a_site_may_move_a_phase_and_add_a_command_and_a_question(small: Site, tmp_path: Path) -> None:
    path = tmp_path / "recover.yaml"
    text = GOOD.read_text()
    added = "  - {name: warm, needs: [database], run: {argv: [mariadb-check, shop], server: db-1, exit_code: 1}}\n"
    added += '  - {name: sure, ask: "Is the disk array back?", needs: []}\n'
    text = text.replace("  - {name: answers,", added + "  - {name: answers,").replace(
        "[search, answers]", "[search, answers, warm, sure]"
    )
    path.write_text(text)
    playbook = load_playbook(path)
    assert check_playbook(playbook, small) == []
    run = playbook.phase("warm").run
    assert run is not None
    assert (run.argv, run.host, run.server, run.deadline_s, run.exit_code, run.check) == (
        *(("mariadb-check", "shop"), None, "db-1", 60, 1, None),
    )


def test_a_playbook_looks_the_same_when_it_is_the_same() -> None:
    """Plans are compared by what they were made from: the file's name and lines are no part of it."""
    playbook = load_playbook(GOOD)
    assert playbook == Playbook(playbook.playbook, playbook.phases)
    assert repr(playbook) == repr(Playbook(playbook.playbook, playbook.phases))
    assert str(GOOD) not in repr(playbook)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_playbook_is_told_word_for_word(
    case: Case, small: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recover.yaml").write_text(case.text)
    try:
        problems = check_playbook(load_playbook(Path("recover.yaml")), small)
    except BadDocument as error:
        problems = list(error.problems)
    assert "\n".join(map(str, problems)) == case.says
