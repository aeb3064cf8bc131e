"""What keeps servers that serve from being put away: nothing is, for what cannot be made or filled. Pure.

Safety, as sentences:
- Where a person wants servers made anew, each of them must be one that can be: a host in the way that is silent
  and may not be fenced, a missing place, a foreign server block before anything is touched.
- Data servers are not put away for a dump that is known to be bad, nor for backups that nobody can ask.
"""

from __future__ import annotations

from pcloud.decision import Act, Decision
from pcloud.graph import Draft
from pcloud.identity import carrier_names
from pcloud.steps.database import Restore
from pcloud.steps.restoring import NoBackup
from pcloud.steps.stop import Stop

NOTHING = "nothing was touched"


def find_obstacles(draft: Draft) -> tuple[Stop, ...]:
    """Why the plan must not begin, where it puts servers away in favour of others; empty where it may."""
    carriers = carrier_names(draft.desired.site)
    options = draft.desired.options
    anew = draft.decisions if options.from_scratch else dict.fromkeys(carriers) if options.until is not None else ()
    going = [draft.decisions[n] for n in draft.decisions if n in anew or n in options.rebuild]
    if not any(_puts_away(d) for d in going):
        return ()
    blocked = [d for d in going if d.act is Act.BLOCK and (options.from_scratch or options.until is not None)]
    if blocked:
        return tuple(Stop(d.server, f"{d.reason}; {NOTHING}", d.next) for d in blocked)
    if not any(_puts_away(d) and d.server in carriers for d in going):
        return ()
    return tuple(stop for n in draft.nodes.values() if (stop := _unfilled(draft, n.step)) is not None)


def _puts_away(d: Decision) -> bool:
    return d.act is Act.REBUILD and d.old is not None


def _unfilled(draft: Draft, step: object) -> Stop | None:
    """For a data server that would stay empty."""
    site = draft.desired.site.site
    if isinstance(step, NoBackup):
        return Stop(step.server, f"{step.what}; {NOTHING}", step.next)
    if isinstance(step, Restore) and step.dump is None and not step.empty:
        return Stop(
            step.server,
            f"{step.problem}; {NOTHING}",
            f"set database.dump to a dump that is whole, then pcloud recover {site} --from-scratch; or leave the "
            f"databases as they are: pcloud recover {site}",
        )
    return None
