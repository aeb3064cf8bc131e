"""Recipes: hostile ones are refused with a line, and a hash covers all that makes an image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pcloud.errors import BadDocument, BadInput
from pcloud.images import find_leaves, find_recipes, load_recipe
from pcloud.inventory import defaults_dir

GOOD = """recipe: mine
suite: bookworm
kernel: {init: init}
packages: [nginx-light]
files:
  - {path: /etc/motd, source: motd}
"""

BAD = {
    "path-leaves": ("{path: /etc/../../x, content: a}", "must not contain .."),
    "path-relative": ("{path: etc/x, content: a}", "files[0].path"),
    "source-absolute": ("{path: /etc/x, source: /etc/shadow}", "files[0].source"),
    "two-origins": ("{path: /etc/x, content: a, link: /b}", "one of the three"),
    "no-origin": ("{path: /etc/x}", "one of the three"),
    "mode-number": ("{path: /etc/x, content: a, mode: 0755}", "quote"),
    "mode-odd": ('{path: /etc/x, content: a, mode: "999"}', "files[0].mode"),
    "owner-shell": ('{path: /etc/x, content: a, owner: "root:$(id)"}', "files[0].owner"),
}


def write(folder: Path, text: str, name: str = "mine") -> Path:
    (folder / "motd").write_text("welcome")
    (folder / "init").write_text("#!/bin/sh\n")
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    entry, what = BAD[case]
    path = write(tmp_path, GOOD.replace("{path: /etc/motd, source: motd}", entry))
    with pytest.raises(BadDocument) as raised:
        load_recipe(path)
    assert f"{path}:6:" in str(raised.value)
    assert what in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nginx-light", "'--allow-unauthenticated'"),
        ("nginx-light", "nginx; reboot"),
        ("suite: bookworm", "suite: ../../x"),
        ("recipe: mine", "recipe: other"),
        ("recipe: mine", "recipe: mine\nbase: mine"),
        ("recipe: mine", "recipe: mine\nbase: nowhere"),
        ("suite: bookworm\n", ""),
        ("kernel: {init: init}\n", ""),
        ("source: motd", "source: missing"),
        ("packages:", "commands: [reboot]\npackages:"),
        ("packages:", "mirror: http://example.org\npackages:"),
        ("packages:", "size_gib: 100000\npackages:"),
        ("packages:", "pypi: {target: /../../../opt/x, packages: [six]}\npackages:"),
        ("packages:", "remove: [/../../etc/*]\npackages:"),
        ("source: motd", "source: ../../../../proc/kmsg"),
        ("source: motd", "source: ../../../../dev/zero"),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(BadInput):
        load_recipe(write(tmp_path, GOOD.replace(old, new)))


def test_the_hash_covers_the_recipe_and_what_it_copies(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    first = load_recipe(path).digest
    assert load_recipe(path).digest == first
    (tmp_path / "motd").write_text("good night")
    second = load_recipe(path).digest
    path.write_text(GOOD.replace("nginx-light", "nginx"))
    assert len({first, second, load_recipe(path).digest}) == 3


def test_the_recipes_that_come_with_it_load_and_stand_on_one_base() -> None:
    recipes = find_recipes(defaults_dir("templates") / "images")
    assert set(find_leaves(recipes)) == {"frontend", "balancer", "database", "indexer"}
    assert {load_recipe(p).layers[0].recipe.recipe for p in recipes.values()} == {"base"}


def test_a_source_that_never_ends_is_refused_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    (tmp_path / "motd").unlink()
    os.mkfifo(tmp_path / "motd")
    with pytest.raises(BadInput, match="is not a regular file"):
        load_recipe(path)
