"""Whole runs made up for the tests of what reads events: plans, and the events of running them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from hypothesis import strategies as st

from pcloud.events import (
    Event,
    Interrupted,
    JourneyStepPassed,
    Outcome,
    RunFinished,
    RunStarted,
    StepBlocked,
    StepDone,
    StepFailed,
    StepInfo,
    StepProgress,
    StepSkipped,
    StepStarted,
)

PHASES = ("clear", "data", "shop", "front", "prove")
VISITS = ("accueil", "catégorie", "produit", "recherche", "choix", "panier", "commande")
SECONDS = {
    "retire": 1.1,
    "image": 8.0,
    "disk": 0.3,
    "seed": 0.2,
    "define": 0.4,
    "start": 1.4,
    "ready": 42.0,
    "restore": 14.0,
    "index": 6.0,
    "journey": 3.5,
}
FAILURE = (
    "fe-2 did not come up within 300 s (no answer on port 80); likely: its disk is damaged\n"
    "its console ends with:\n  | \x1b[0;1;31m[FAILED]\x1b[0m Failed to mount \x07/ – root file system\n"
    "  | Kernel panic - not syncing"
)


def _server(name: str, host: str, phase: str, needs: tuple[str, ...]) -> list[StepInfo]:
    role = {"fe": "frontend", "lb": "balancer", "db": "database", "idx": "indexer"}[name.partition("-")[0]]
    steps = [
        StepInfo(f"{host}/{name}/retire", "clear", (), host, name, "retire", "generation 3 is unhealthy"),
        StepInfo(f"{host}/image/{role}", phase, (), host, None, "image", "not on this host"),
    ]
    last: tuple[str, ...] = (steps[0].key, steps[1].key, *needs)
    for action in ("disk", "seed", "define", "start"):
        key = f"{host}/{name}/{action}"
        steps.append(StepInfo(key, phase, last, host, name, action, "missing"))
        last = (key,)
    return [*steps, StepInfo(f"{name}/ready", phase, last, host, name, "ready", "missing")]


def plan(frontends: int = 4) -> tuple[StepInfo, ...]:
    """The steps of rebuilding a whole site."""
    steps = _server("db-1", "h1", "data", ())
    steps.append(StepInfo("db-1/restore", "data", ("db-1/ready",), "h1", "db-1", "restore", "the database is empty"))
    steps += _server("idx-1", "h2", "data", ())
    steps.append(StepInfo("idx-1/index", "data", ("idx-1/ready", "db-1/restore"), "h2", "idx-1", "index", "no index"))
    fronts = [f"fe-{n}" for n in range(1, frontends + 1)]
    for n, name in enumerate(fronts, 3):
        steps += _server(name, f"h{n}", "shop", ("db-1/restore",))
    steps += _server("lb-1", f"h{frontends + 3}", "front", ())
    needs = (*(f"{name}/ready" for name in fronts), "lb-1/ready", "idx-1/index")
    steps.append(StepInfo("journey", "prove", needs, None, None, "journey", "nobody walked it yet"))
    return tuple({step.key: step for step in steps}.values())


@dataclass
class Simulation:
    """Runs a plan with so many slots, in virtual time, and writes down its events."""

    steps: tuple[StepInfo, ...]
    slots: int = 8
    fails: str = ""
    kept: dict[str, str] | None = None

    def events(self) -> list[Event]:
        found: list[Event] = [
            RunStarted(
                "20250301-031502-recover", "demo", "recover", "d1g3st", "2025-03-01T03:15:02+00:00", PHASES,
                self.steps, kept=self.kept or {},
            )
        ]  # fmt: skip
        over: dict[str, float] = {}
        bad: dict[str, str] = {}
        running: dict[str, float] = {}
        waiting = list(self.steps)
        now = 0.1
        while waiting or running:
            for step in list(waiting):
                culprit = next((need for need in step.needs if need in bad), None)
                if culprit:
                    found.append(StepSkipped(step.key, now, culprit))
                    bad[step.key] = culprit
                    waiting.remove(step)
                elif all(need in over for need in step.needs) and len(running) < self.slots:
                    found.append(StepStarted(step.key, now))
                    found += self._middle(step, now)
                    running[step.key] = now + self._seconds(step)
                    waiting.remove(step)
            if running:
                key, now = min(running.items(), key=lambda item: item[1])
                del running[key]
                found.append(self._end(key, now))
                (bad if key == self.fails else over)[key] = now  # type: ignore[assignment]
        found.sort(key=lambda event: event.at)
        outcome: Outcome = "failed" if bad else "converged"
        found.append(RunFinished(outcome, now, "2025-03-01T03:18:00+00:00", {"storefront": "http://10.77.0.80/"}))
        return found

    def _seconds(self, step: StepInfo) -> float:
        spread = 1 + (sum(step.key.encode()) % 13) / 20
        return SECONDS[step.action] * spread

    def _middle(self, step: StepInfo, at: float) -> list[Event]:
        took = self._seconds(step)
        if step.action == "image":
            return [StepProgress(step.key, at + took * n / 10, 21e6 * n, 210e6, "B", "copying") for n in range(1, 10)]
        if step.action == "ready":
            why = "waiting: 10.77.0.21:80 refuses the connection"
            return [StepProgress(step.key, at + n, n, 300, "s", why) for n in range(1, int(took))]
        if step.action == "restore":
            return [StepProgress(step.key, at + n, n * 1.3e6, 0, "B", "restoring") for n in range(1, int(took))]
        if step.action == "journey":
            size = len(VISITS)
            return [
                JourneyStepPassed(step.key, visit, 0.08 + n / 30, at + took * (n + 1) / (size + 1))
                for n, visit in enumerate(VISITS)
            ]
        return []

    def _end(self, key: str, at: float) -> Event:
        if key == self.fails:
            return StepFailed(key, at, FAILURE, "fe-2 on h4", "pcloud console demo/fe-2")
        cpu = {"cpu_s": round(11 + sum(key.encode()) % 70 / 10, 1)} if key.endswith("/ready") else {}
        return StepDone(key, at, True, {**cpu})


_words = st.text(max_size=12)
_names = st.sampled_from(
    ["fe-1", "fe-2", "fe-10", "db-1", "lb-1", "h1", "h2", "日本-1", "é" * 40, "\x1b[2Jx", "a\nb", ""]
)
_seconds = st.floats(min_value=0, max_value=1e5)
_values = st.none() | st.booleans() | st.integers() | st.floats() | _words
_facts = st.dictionaries(st.sampled_from(["cpu_s", "waited_s", "bytes", "x"]), _values | st.lists(_values, max_size=2))


@st.composite
def plans(draw: st.DrawFn, most: int = 14) -> tuple[StepInfo, ...]:
    """Any plan: every step needs some of those before it."""
    steps: list[StepInfo] = []
    for n in range(draw(st.integers(0, most))):
        server = draw(st.none() | _names)
        action = draw(st.sampled_from([*SECONDS, "run", "ask", "", "odd"]) | _words)
        needs = draw(st.lists(st.sampled_from(steps), max_size=3)) if steps else []
        key = draw(st.sampled_from(["", "h1/fe-1/", "journey", "é\u2028/"])) + str(n)
        steps.append(
            StepInfo(
                key=key,
                phase=draw(st.sampled_from(PHASES) | _words),
                needs=tuple(dict.fromkeys(need.key for need in needs)),
                host=draw(st.none() | _names),
                server=server,
                action=action,
                reason=draw(_words),
            )
        )
    return tuple(steps)


@st.composite
def legal_runs(draw: st.DrawFn) -> list[Event]:
    """Any sequence of events that `fold` accepts, finished or not."""
    steps = draw(plans())
    phases = tuple(draw(st.permutations(PHASES))[: draw(st.integers(0, 5))])
    kept = draw(st.dictionaries(_names, _words, max_size=3))
    date = "2025-03-01T03:15:02+00:00"
    events: list[Event] = [RunStarted("run-1", draw(_names), draw(_words), "d", date, phases, steps, kept=kept)]
    waiting, running, at = [step.key for step in steps], list[str](), 0.0
    for _ in range(draw(st.integers(0, 50))):
        at += draw(st.floats(min_value=0, max_value=500))
        moves = ["interrupt"] if draw(st.integers(0, 20)) == 0 else []
        moves += ["start", "start", "skip"] * bool(waiting) + ["end", "progress", "visit"] * bool(running)
        if not moves:
            break
        move = draw(st.sampled_from(moves))
        if move == "interrupt":
            events.append(Interrupted(at))
        elif move in ("start", "skip"):
            key = waiting.pop(draw(st.integers(0, len(waiting) - 1)))
            because = draw(st.sampled_from(steps)).key
            events.append(StepStarted(key, at) if move == "start" else StepSkipped(key, at, because))
            running += [key] * (move == "start")
        else:
            key = draw(st.sampled_from(running))
            events.append(draw(_happenings(move, key, at)))
            if move == "end":
                running.remove(key)
    if draw(st.booleans()):
        outcome: Outcome = draw(st.sampled_from(get_args(Outcome)))
        events.append(RunFinished(outcome, at, date, draw(_facts)))
    return events


def _happenings(move: str, key: str, at: float) -> st.SearchStrategy[Event]:
    """What may happen to a running step."""
    text = _words | st.text(min_size=200, max_size=300) | st.just(FAILURE)
    if move == "progress":
        number = st.floats() | st.integers()
        return st.builds(
            StepProgress, st.just(key), st.just(at), number, number, st.sampled_from(["", "B", "s", "rows"]), text
        )
    if move == "visit":
        return st.builds(JourneyStepPassed, st.just(key), st.sampled_from(VISITS) | _words, _seconds, st.just(at))
    return st.one_of(
        st.builds(StepDone, st.just(key), st.just(at), st.booleans(), _facts),
        st.builds(StepFailed, st.just(key), st.just(at), text, _words, _words),
        st.builds(StepBlocked, st.just(key), st.just(at), text, _words, _words),
    )
