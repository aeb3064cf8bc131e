"""A story from a seed: faults that come in twos and threads, commands typed too early and too late, and a repair."""

from __future__ import annotations

from random import Random

HOSTS = tuple(f"h{n}" for n in range(1, 9))
SERVERS = ("db-1", "idx-1", "fe-1", "fe-2", "fe-3", "fe-4", "lb-1")
CARRIERS = ("db-1", "idx-1")
DATA_HOSTS = ("h1", "h4")
"""Where the site's database and its replica are when it is whole: hit more often than the others."""
BMCS: tuple[str, ...] = ("mute", "hangs", "password", "refuses", "late", "never", "flickers")
BMCS += ("boots", "boots", "boots-untold", "untold", "cached", "dark", "loses", "two-tongues", "crossed")
BMCS += ("dark-kept", "restarts", "restarts", "lying-ipmi", "stale-ipmi", "held-twice")


def random_story(seed: int) -> tuple[str, ...]:
    """The same story for the same seed."""
    dice = Random(seed)
    at, lines = 10.0, list[str]()
    for _ in range(dice.randint(1, 4)):
        lines += _trouble(dice, at)
        at += dice.choice([0, 5, 20, 60])
        lines += _typed(dice, at)
        at += dice.choice([1, 30, 120])
    return (*lines, "repair")


def _host(dice: Random) -> str:
    return dice.choice(DATA_HOSTS) if dice.random() < 0.4 else dice.choice(HOSTS)


def _trouble(dice: Random, at: float) -> list[str]:
    lines = []
    for _ in range(dice.choice([1, 1, 1, 2, 2, 3])):
        if dice.random() < 0.2:
            lines.append(f"{at:g} bmc {_host(dice)} {dice.choice(BMCS)}")
        lines.append(f"{at:g} {_fault(dice)}")
        at += dice.choice([0, 0, 2, 15])
    return lines


def _fault(dice: Random) -> str:
    kind = dice.random()
    if kind < 0.55:
        verb = dice.choice(["kill", "kill", "kill", "unplug", "freeze", "cut", "cut", "return", "mend", "cycle"])
        seen = " seen" if verb == "cut" and dice.random() < 0.5 else ""
        return f"{verb} {_host(dice)}{seen}"
    if kind < 0.8:
        verb = dice.choice(["crash", "crash", "hang", "disk-gone"])
        return f"{verb} {dice.choice(CARRIERS if dice.random() < 0.5 else SERVERS)}"
    return f"{dice.choice(['deaf', 'slow', 'semi-sync-off'])} {dice.choice(CARRIERS)}"


def _typed(dice: Random, at: float) -> list[str]:
    """A command, and perhaps what strikes while it works."""
    lines = []
    if dice.random() < 0.4:
        lines.append(f"effect {dice.randint(1, 40)} {'die' if dice.random() < 0.5 else _fault(dice)}")
    elif dice.random() < 0.2:
        lines.append(f"event {dice.randint(1, 60)} die")
    command = dice.choice(["recover"] * 6 + ["failback", f"failover {_host(dice)}", f"recover --rebuild {_one(dice)}"])
    return [*lines, f"{at:g} {command}"]


def _one(dice: Random) -> str:
    return dice.choice(SERVERS)
