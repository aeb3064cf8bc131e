"""What the lab's tests share: the prepared images, and `pcloud` as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pcloud import lab, places
from pcloud.events import Event, RunStarted, RunState, fold, from_json
from pcloud.inventory import defaults_dir, load_site

PCLOUD = str(Path(sys.executable).with_name("pcloud"))
DEMO = defaults_dir("inventory") / "demo.yaml"
LONGEST_S = 900


@dataclass
class Ran:
    """One call of the command line."""

    code: int
    out: str
    err: str
    events: list[Event] = field(default_factory=list)

    @property
    def states(self) -> list[RunState]:
        """Of its runs, one after the other: a recovery may go on without the hosts that it could not fence."""
        return [fold(run) for run in split(self.events)]

    @property
    def state(self) -> RunState:
        """Of its last run."""
        return self.states[-1]

    def changed(self) -> set[str]:
        """Keys of the steps that changed something; gates only look."""
        gates = ("/ready", "journey", "sale")
        return {k for k, s in self.state.steps.items() if s.changed and not k.endswith(gates)}


def split(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each run that a command made."""
    begun = [n for n, event in enumerate(events) if isinstance(event, RunStarted)]
    return [list(events[a:b]) for a, b in zip(begun, [*begun[1:], len(events)], strict=True)]


@dataclass(frozen=True)
class Operator:
    """Somebody with a home of their own, at a shell."""

    home: Path
    folder: Path
    site: str = "demo"

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PCLOUD_HOME": str(self.home), "COLUMNS": "200"}

    def run(self, *argv: str) -> Ran:
        done = subprocess.run(
            [PCLOUD, *argv],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            stdin=subprocess.DEVNULL,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def recover(self, *argv: str, site: str | None = None) -> Ran:
        ran = self.run("recover", site or self.site, "--yes", "--json", *argv)
        ran.events = [from_json(line) for line in ran.out.splitlines() if line.startswith("{")]
        return ran

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PCLOUD, *argv],
            env=self.env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def interrupt(self, argv: Sequence[str], when: Callable[[Event], bool], number: int) -> list[Event]:
        """Runs a recovery and sends it a signal at the first event that `when` likes; fails when none comes."""
        seen, sent = self.try_interrupt(argv, when, number)
        assert sent, "the moment never came"
        return seen

    def try_interrupt(
        self, argv: Sequence[str], when: Callable[[Event], bool], number: int
    ) -> tuple[list[Event], bool]:
        """The same; the events, and whether the moment came before the run's end."""
        process = self.start("recover", self.site, "--yes", "--json", *argv)
        assert process.stdout is not None
        seen: list[Event] = []
        sent = False
        for line in process.stdout:
            seen.append(from_json(line))
            if not sent and when(seen[-1]):
                process.send_signal(number)
                sent = True
                if number == signal.SIGKILL:
                    break
        process.wait(timeout=LONGEST_S)
        return seen, sent

    def json(self, *argv: str) -> Any:
        ran = self.run(*argv, "--json")
        assert ran.out, ran.err
        return json.loads(ran.out)

    def on(self, machine: str, *argv: str) -> str:
        """What a command prints on a host or a server."""
        ran = self.run("ssh", f"{self.site}/{machine}", "--", *argv)
        assert ran.code == 0, ran.err
        return ran.out


@pytest.fixture(scope="session")
def images() -> Path:
    """The folder of the prepared images, built where they are missing."""
    env = {k: v for k, v in os.environ.items() if k != "PCLOUD_HOME"}
    subprocess.run([PCLOUD, "image", "build"], env=env, check=True, timeout=LONGEST_S, stdin=subprocess.DEVNULL)
    home = os.environ.pop("PCLOUD_HOME", None)
    folder = places.images_dir()
    if home is not None:
        os.environ["PCLOUD_HOME"] = home
    return folder


@pytest.fixture(scope="module")
def operator(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator with a running lab of the demo site; whatever happens, the lab goes down."""
    home = tmp_path_factory.mktemp("home")
    (home / "cache").mkdir()
    (home / "cache" / "images").symlink_to(images)
    one = Operator(home, tmp_path_factory.mktemp("folder"))
    up = one.run("lab", "up", "demo")
    assert up.code == 0, up.err
    yield one
    before = os.environ.get("PCLOUD_HOME")
    os.environ["PCLOUD_HOME"] = str(home)
    try:
        lab.down(load_site(DEMO))
    finally:
        if before is None:
            del os.environ["PCLOUD_HOME"]
        else:
            os.environ["PCLOUD_HOME"] = before
