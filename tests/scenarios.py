"""The scenarios' files and their golden logs.

    python -m tests.scenarios --write [FAMILY]     the logs of today; read the difference
    python -m tests.scenarios --soak 10000         random ones, on every processor
    python -m tests.scenarios --seed 4711          one of them, with its log
    python -m tests.scenarios --wear 500           one site through as many failures, each of them mended
    python -m tests.scenarios --play 'STORY'       a story, its lines parted by `;`

A family is one file `cases/scenarios/FAMILY.yaml` with its log beside it. With `each`, a story is played
once for each of those words in place of X; with `sweep: effect` (or `event`), once for every number N
that the effects (events) of the command after it reach; with `seeds`, the stories come from dice.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.random_story import random_story
from tests.scenario import Scenario, Told, play
from tests.wear import wear

FAMILIES = sorted((Path(__file__).parent / "cases" / "scenarios").glob("*.yaml"))
MOST = 500
"""No command of a scenario has more effects or events."""


@dataclass
class Played:
    """A family's log, and what did not hold, by scenario."""

    log: str
    broken: dict[str, list[str]]
    count: int


def play_family(path: Path, image_file: Path) -> Played:
    """All scenarios of a file, in its order."""
    parts: list[str] = []
    played = Played("", {}, 0)
    for entry in yaml.safe_load(path.read_text()):
        parts.append(f"== {entry['name']}: {entry['what']}")
        if "sweep" in entry:
            for scenario in _sweep(entry, image_file):
                told = _count(played, scenario, image_file)
                parts.append(f"{scenario.name.rpartition(' ')[2]:>4}{told.last}")
        elif "seeds" in entry:
            first, _, last = str(entry["seeds"]).partition("-")
            for seed in range(int(first), int(last) + 1):
                scenario = Scenario(f"{entry['name']} {seed}", entry["what"], random_story(seed))
                parts += [f"-- seed {seed}", *_count(played, scenario, image_file).log]
        else:
            for scenario in _each(entry):
                parts += [
                    *([f"-- {scenario.name}"] if "each" in entry else []),
                    *_count(played, scenario, image_file).log,
                ]
        parts.append("")
    played.log = "\n".join(parts)
    return played


def _count(played: Played, scenario: Scenario, image_file: Path) -> Told:
    told = play(scenario, image_file)
    played.count += 1
    if told.broken:
        played.broken[scenario.name] = told.broken
    return told


def _scenario(entry: dict[str, Any]) -> Scenario:
    story = tuple(line.strip() for line in entry["story"].splitlines() if line.strip())
    return Scenario(entry["name"], entry["what"], story, entry.get("start", "whole"))


def _each(entry: dict[str, Any]) -> Iterator[Scenario]:
    """`X` in the story stands for each word of `each`, one after the other."""
    base = _scenario(entry)
    for word in entry.get("each", "-").split():
        story = tuple(re.sub(r"\bX\b", word, line) for line in base.story)
        yield replace(base, name=f"{base.name} {word}" if "each" in entry else base.name, story=story)


def _sweep(entry: dict[str, Any], image_file: Path) -> Iterator[Scenario]:
    """`N` in the story stands for each number up to the first that never comes."""
    base = _scenario(entry)
    never = tuple(line.replace("N ", f"{10**6} ") for line in base.story if not line.startswith("repair"))
    cut = next(n for n, line in enumerate(never) if str(10**6) in line) + 2
    told = play(replace(base, story=never[:cut]), image_file)
    for number in range(1, (told.effects if entry["sweep"] == "effect" else told.events) + 1):
        story = tuple(line.replace("N ", f"{number} ") for line in base.story)
        yield replace(base, name=f"{base.name} {number}", story=story)


def write(image_file: Path, only: str) -> int:
    total, bad = 0, 0
    for path in FAMILIES:
        if only in ("", path.stem):
            played = play_family(path, image_file)
            path.with_suffix(".log").write_text(played.log)
            total += played.count
            bad += len(played.broken)
            for name, broken in played.broken.items():
                print(f"{path.stem}: {name}: {'; '.join(broken)}")  # noqa: T201
    print(f"{total} scenarios, {bad} of them broken")  # noqa: T201
    return bool(bad)


def _soaked(seed: int, *, image_file: Path) -> tuple[int, str, list[str]]:
    try:
        told = play(Scenario(f"seed {seed}", "random", random_story(seed)), image_file)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is that seed's)
        return seed, "raised", [f"{type(error).__name__}: {error}"]
    return seed, told.outcome, told.broken


def soak(image_file: Path, number: int, first: int) -> int:
    """Random scenarios; a failing seed is printed with the command that plays it alone."""
    began, bad = time.monotonic(), 0
    outcomes: dict[str, int] = {}
    with multiprocessing.Pool() as pool:
        for seed, outcome, broken in pool.imap_unordered(
            partial(_soaked, image_file=image_file), range(first, first + number), chunksize=20
        ):
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if broken:
                bad += 1
                print(f"seed {seed}: {'; '.join(broken)}\n  python -m tests.scenarios --seed {seed}")  # noqa: T201
    ended = ", ".join(f"{n} {o}" for o, n in sorted(outcomes.items()))
    took = time.monotonic() - began
    print(f"{number} random scenarios in {took:.0f} s: {bad} broken; before their repair: {ended}")  # noqa: T201
    return bool(bad)


def worn_out(image_file: Path, failures: int, seed: int) -> int:
    """A site that lives through so many failures, and what it lost by them."""
    began, worn = time.monotonic(), wear(image_file, failures, seed)
    for line in worn.broken:
        print(f"wear {seed}: {line}")  # noqa: T201
    print(  # noqa: T201
        f"{failures} single failures, each mended, in {time.monotonic() - began:.0f} s: {len(worn.broken)} broken; "
        f"{worn.most_files} files on a host at most, and {worn.tombstones} tombstones that were purged"
    )
    return bool(worn.broken)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--write", nargs="?", const="", metavar="FAMILY")
    wish.add_argument("--soak", type=int, metavar="NUMBER")
    wish.add_argument("--seed", type=int)
    wish.add_argument("--wear", type=int, metavar="FAILURES")
    wish.add_argument("--play", metavar="STORY")
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        image_file = Path(folder) / "disk.qcow2"
        image_file.write_bytes(b"an image's bytes")
        if asked.write is not None:
            return write(image_file, asked.write)
        if asked.soak:
            return soak(image_file, asked.soak, asked.first)
        if asked.wear:
            return worn_out(image_file, asked.wear, asked.first)
        story = random_story(asked.seed) if asked.seed is not None else tuple(s.strip() for s in asked.play.split(";"))
        told = play(Scenario("asked for", "asked for", story), image_file)
        print("\n".join(["; ".join(story), *told.log, *(f"BROKEN: {b}" for b in told.broken)]))  # noqa: T201
        return bool(told.broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
