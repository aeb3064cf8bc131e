"""The plans about backups: one taken, proven and kept on hosts; and data restored beside those of a server."""

from __future__ import annotations

from collections.abc import Sequence

from pcloud.backups import keepers, loss
from pcloud.desired import Desired
from pcloud.errors import Blocked
from pcloud.events import StepInfo
from pcloud.graph import Need, PlanNode
from pcloud.kept import Target
from pcloud.observed import Observed
from pcloud.plan import Plan
from pcloud.proofs import QUICK_S
from pcloud.recall import choose_from, last_known, missing_backup
from pcloud.replicas import carriers_of
from pcloud.steps.backup import Drop, EndStream, Keep, Stream, Take
from pcloud.steps.base import Step
from pcloud.steps.keeping import NoteBackup, Reaches, Share, Thin
from pcloud.steps.proving import Compare
from pcloud.steps.restoring import Beside, Close


def _node(
    key: str, operation: str, step: Step, reason: str, needs: Sequence[str] = (), *, host: str = "", server: str = ""
) -> PlanNode:
    info = StepInfo(key, operation, tuple(sorted(needs)), host or None, server or None, key.rpartition("/")[2], reason)
    return PlanNode(info, step, frozenset(Need.all_of(k) for k in needs))


def plan_backup(desired: Desired, observed: Observed, id: str) -> Plan:
    """A backup `id` of the replica, where one follows, else of the primary. Raises `Blocked` without a primary."""
    site, policy = desired.site, desired.site.database.backups
    source, primary = source_of(desired, observed)
    answering = [(h.name, h.rack) for h in site.hosts if _answers(observed, h.name)]
    names = {s.name for s in carriers_of(desired)}
    carrying = {h.name for h in observed.hosts for s in h.servers if s.mark and s.mark.server in names}
    shelves = observed.data.shelves
    chosen = keepers(answering, carrying, [s.host for s in shelves if s.backups or s.streaming], policy.copies)
    if not chosen:
        raise Blocked("no host answers that could keep a backup", where=site.site, next=f"pcloud status {site.site}")
    few = "" if len(chosen) == policy.copies else f"; only {len(chosen)} of {policy.copies} hosts can keep it"
    why = "it follows the primary" if source != primary else "no replica follows that it could be compared with"
    nodes = [_node(f"{source}/backup", "backup", Take(source, primary, id), why + few, server=source)]
    peers = tuple(s.address for s in carriers_of(desired))
    streams = [f"{host}/stream" for host in chosen]
    asked = tuple(dict.fromkeys([*chosen, *(s.host for s in shelves if s.backups or s.stretches)]))
    for host in chosen:
        beside = "; it carries a copy of the data itself" if host in carrying else ""
        reason = f"the binary log, as it is written{beside}"
        nodes.append(_node(f"{host}/stream", "backup", Stream(host, primary, peers), reason, host=host))
        share = Share(host, asked, policy.timeout_s)
        reason = "what it missed, from others that keep it"
        nodes.append(_node(f"{host}/share", "backup", share, reason, streams, host=host))
        step = Keep(host, source, id)
        reason = f"copied, and hashed there{beside}"
        nodes.append(_node(f"{host}/keep", "backup", step, reason, [f"{source}/backup", f"{host}/stream"], host=host))
    kept = [f"{h}/{verb}" for h in chosen for verb in ("keep", "share")]
    reaches = Reaches(primary, asked)
    nodes.append(_node("reach", "backup", reaches, "a restore would reach where the primary is", kept))
    if source != primary:
        compare = Compare(source, asked, policy.timeout_s, QUICK_S)
        reason = f"replayed, and compared with {source}'s, where that takes less than a minute"
        nodes.append(_node("compare", "backup", compare, reason, ["reach"], server=source))
    proven = ["reach", *(["compare"] if source != primary else [])]
    near = tuple(h.name for h in observed.hosts if h.reachable)
    note, reason = NoteBackup(near, tuple(chosen), id), "every host that answers knows where the last backup is"
    nodes.append(_node("note", "backup", note, reason, kept))
    for shelf in shelves:
        if shelf.streaming and shelf.host not in chosen:
            reason = "another host does instead"
            end = EndStream(shelf.host)
            nodes.append(_node(f"{shelf.host}/end-stream", "backup", end, reason, ["reach"], host=shelf.host))
    for host in [s.host for s in shelves if s.backups or s.host in chosen]:
        reason, thin = f"the {policy.keep} latest stay", Thin(host, policy.keep, id)
        nodes.append(_node(f"{host}/thin", "backup", thin, reason, proven, host=host))
    nodes.append(_node(f"{source}/drop", "backup", Drop(source, id), "hosts have it", kept, server=source))
    return Plan(site.site, "backup", ("backup",), tuple(nodes), {}, desired.digest(), observed.digest())


def plan_prove(desired: Desired, observed: Observed) -> Plan:
    """The newest backup and all that follows, compared with the replica. Raises `Blocked` where there is none."""
    site, policy, shelves = desired.site, desired.site.database.backups, observed.data.shelves
    source, primary = source_of(desired, observed)
    if source == primary:
        what = "no replica follows the primary: there is nothing that a backup could be compared with"
        raise Blocked(what, where=site.site, next=f"pcloud recover {site.site}, which makes one")
    if not any(s.backups for s in shelves):
        what = "no host that answers keeps a backup"
        raise Blocked(what, where=site.site, next=f"pcloud backup {site.site}")
    peers = tuple(s.address for s in carriers_of(desired))
    reason = "the binary log, as it is written"
    streams = [s.host for s in shelves if s.streaming]
    nodes = [_node(f"{h}/stream", "backup", Stream(h, primary, peers), reason, host=h) for h in streams]
    asked = tuple(s.host for s in shelves if s.backups or s.stretches)
    step, needs = Compare(source, asked, policy.timeout_s), [n.key for n in nodes]
    nodes.append(_node("compare", "backup", step, f"replayed, and compared with {source}'s", needs, server=source))
    return Plan(site.site, "backup", ("backup",), tuple(nodes), {}, desired.digest(), observed.digest())


def _answers(observed: Observed, host: str) -> bool:
    seen = observed.host(host)
    return seen is not None and seen.reachable and any(s.host == host for s in observed.data.shelves)


def source_of(desired: Desired, observed: Observed) -> tuple[str, str]:
    """Whose data are copied, and the primary."""
    site, seen = desired.site, observed.data.databases
    address = str(site.services[site.database.service].address)
    primary = next((n for n, d in seen.items() if d.writable and d.restored), None)
    if primary is None or observed.data.holder != primary:
        raise Blocked("no database with data accepts writes", where=site.site, next=f"pcloud recover {site.site}")
    following = (n for n, d in seen.items() if d.replicating and d.source == address and d.restored)
    return next(following, primary), primary


def plan_beside(desired: Desired, observed: Observed, target: Target, token: str) -> Plan:
    """What is kept up to `target`, beside the data of the replica, or of whoever answers. Raises `Blocked`."""
    site, seen = desired.site, observed.data.databases
    choice = choose_from(desired, observed, target)
    if choice is None:
        what = f"no backup that is kept reaches {target}"
        raise Blocked(what, where=site.site, next=f"pcloud backup {site.site} --list")
    server = _looker(desired, observed)
    step = Beside(server, site.database.name, choice, token)
    node = _node(f"{server}/beside", "restore", step, f"{choice}; its own data are not touched", server=server)
    kept = dict.fromkeys(seen, "not touched")
    return Plan(site.site, "restore", ("restore",), (node,), kept, desired.digest(), observed.digest())


def plan_close(desired: Desired, observed: Observed) -> Plan:
    """Whatever was restored beside a server's data is deleted."""
    names = [s.name for s in carriers_of(desired) if s.name in observed.data.databases]
    nodes = tuple(_node(f"{n}/close", "restore", Close(n), "as you asked", server=n) for n in names)
    site = desired.site.site
    return Plan(site, "restore", ("restore",), nodes, {}, desired.digest(), observed.digest())


def _looker(desired: Desired, observed: Observed) -> str:
    seen, site = observed.data.databases, desired.site.site
    names = [s.name for s in carriers_of(desired) if s.name in seen]
    if not names:
        what = "no server with MariaDB answers, beside whose data others could be restored"
        raise Blocked(what, where=site, next=f"pcloud recover {site}, or into the site: pcloud restore {site}")
    return next((n for n in names if not seen[n].writable), names[0])


def question_of(desired: Desired, observed: Observed, target: Target) -> str:
    """What a restore into the site gives up, as the question before it. Raises `Blocked` when nothing reaches it."""
    site = desired.site.site
    choice = choose_from(desired, observed, target)
    if choice is None:
        raise Blocked(f"no backup that is kept reaches {target}", where=site, next=f"pcloud backup {site} --list")
    if (why := missing_backup(desired, observed, choice)) is not None:
        raise Blocked(why[0], where=site, next=why[1])
    names = " and ".join(s.name for s in carriers_of(desired))
    first = "" if desired.options.unproven else " The data are made and checked first, while the shop sells; then"
    return (
        f"restore {site} from {choice}; {loss(choice, last_known(observed))}.{first} {names} are made anew (their "
        f"disks stay as tombstones, and pcloud undo {site} brings them back) and nobody can order meanwhile. Restore?"
    )
