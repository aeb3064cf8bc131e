"""Data that are out of reach, and would be passed over for a backup or the dump: a person says so first.

Safety, as sentences:
- Off is not lost: what is on the disk of a host without power is there again once that has power.
- Nothing is restored in the place of data that may be whole on a host that does not answer, before a
  person accepts it by name. Who restores a time, or has everything made anew, has said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pcloud.backups import loss
from pcloud.decision import Decision
from pcloud.desired import Desired
from pcloud.generations import read_generations
from pcloud.identity import carrier_names
from pcloud.loss import UNKNOWN
from pcloud.observed import Observed
from pcloud.recall import find_choice, last_known, missing_backup


@dataclass(frozen=True)
class PassedOver:
    """`older` is what would be restored; `next` what a person does."""

    server: str
    problem: str
    next: str
    older: str


def find_passed_over(desired: Desired, observed: Observed, decisions: Mapping[str, Decision]) -> PassedOver | None:
    """What a restore now would pass over; None where nothing is known to be out of reach, or a person accepted it."""
    options, site = desired.options, desired.site.site
    if options.from_scratch or options.until is not None or options.accept_loss == UNKNOWN:
        return None
    carriers = carrier_names(desired.site)
    generations = read_generations(observed, site, carriers)
    held = [n for n in carriers if generations.held.get(n)]
    away = {host for name in carriers for host in decisions[name].fences}
    noted = {host for n in held for g in generations.held[n] for host, _ in generations.noted.get((n, g), ())}
    hosts = [h for h in observed.hosts if h.name in (away & noted or away)]
    if not hosts or not (held or not generations.sure):
        return None
    names, older = " or ".join(h.name for h in hosts), _older(desired, observed)
    # Whoever has a controller, as every host of a lab: one that was on is off by then, as it was fenced.
    switched = {h.name for h in desired.site.hosts if h.bmc is not None or desired.site.lab is not None}
    back = "; ".join(
        f"pcloud power {site}/{h.name} on" if h.name in switched else f"bring {h.name} back" for h in hosts
    )
    command = f"pcloud failover {site} {' '.join(options.lost)}" if options.lost else f"pcloud recover {site}"
    return PassedOver(
        carriers[0],
        f"the latest data of {' and '.join(held or carriers)} may be whole on {names}; older: {older}",
        f"{back}; then pcloud recover {site}; or take what is older: {command} --accept-loss {UNKNOWN}",
        older,
    )


def _older(desired: Desired, observed: Observed) -> str:
    choice = find_choice(desired, observed)
    if (missing := missing_backup(desired, observed, choice)) is not None:
        return missing[0]
    return f"{choice}; {loss(choice, last_known(observed))}" if choice is not None else "the latest dump"
