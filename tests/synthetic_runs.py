"""Whole runs made up for the tests of what reads events: plans, and the events of running them."""

from __future__ import annotations

from dataclasses import dataclass

from pcloud.events import (
    Event,
    JourneyStepPassed,
    RunFinished,
    RunStarted,
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
        outcome = "failed" if bad else "converged"
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
