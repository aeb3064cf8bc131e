"""The plan that forgets a host which left the inventory: its copies' generations stay known, their place does not."""

from __future__ import annotations

from pcloud.errors import BadInput
from pcloud.events import StepInfo
from pcloud.graph import PlanNode
from pcloud.model import Site
from pcloud.notes import read_notes
from pcloud.observed import Observed
from pcloud.plan import Plan
from pcloud.steps.noting import ForgetHost
from pcloud.strangers import is_left
from pcloud.wording import did_you_mean, show


def plan_forget(site: Site, desired_digest: str, observed: Observed, host: str) -> Plan:
    """A step for each host that remembers where the copies of `host` were left; empty where none does.

    Raises `BadInput` for a host of the inventory's, and for one that no note knows.
    """
    notes = [n for n in read_notes(site.site, observed) if is_left(site, n)]
    answering = {h.name for h in observed.hosts if h.reachable}
    if host not in {n.at[0] for n in notes}:
        known = sorted({n.at[0] for n in notes})
        if any(h.name == host for h in site.hosts):
            what, following = f"{host} is a host of {site.site}'s inventory", f"pcloud failover {site.site} {host}"
        else:
            what, following = f"nothing is known of a host {show(host)}", did_you_mean(host, known, "those known are")
        raise BadInput(what, where=site.site, next=following)
    nodes = []
    for holder in sorted({n.holder for n in notes if n.at[0] == host and n.holder in answering}):
        mine = [n for n in notes if n.holder == holder and n.at[0] == host]
        files = tuple((n.file, f"{site.site}.{n.server}.g{n.generation}.note") for n in mine)
        addresses = tuple(sorted({n.at[1] for n in mine}))
        info = StepInfo(f"{holder}/forget", "forget", (), holder, None, "forget", f"{len(mine)} copies were on {host}")
        nodes.append(PlanNode(info, ForgetHost(holder, host, addresses, files)))
    return Plan(site.site, "forget", ("forget",), tuple(nodes), {}, desired_digest, observed.digest())
