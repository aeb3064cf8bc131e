"""A host that keeps backups and carries the data by now is no keeper: another one keeps them in its place."""

from __future__ import annotations

from pcloud.backups import keepers
from pcloud.decision import Act
from pcloud.graph import Draft
from pcloud.playbook import Phase
from pcloud.replicas import carriers_of
from pcloud.steps.backup import EndStream, Stream
from pcloud.steps.base import Step
from pcloud.steps.keeping import NoteBackup, Pass, Reaches, Share


def rekeep(draft: Draft, phase: Phase) -> None:
    """After the walk, while the primary is well; when it fails the recovery has not, and `status` says so still."""
    site, last, primary = draft.desired.site, draft.observed.data.last_backup, draft.observed.data.holder
    carriers = carriers_of(draft.desired)
    if last is None or not last.id or primary not in {c.name for c in carriers}:
        return
    if draft.decisions[primary].act is not Act.KEEP or "journey" not in draft.nodes:
        return
    carrying = {d.host for c in carriers if (d := draft.decisions[c.name]).host}
    near = tuple(h.name for h in draft.observed.hosts if h.reachable)
    sharing = [h for h in last.hosts if h in carrying and h in near]
    answering = [(h.name, h.rack) for h in site.hosts if h.name in near]
    policy = site.database.backups
    chosen = keepers(answering, carrying, [h for h in last.hosts if h not in carrying], policy.copies)
    new = [h for h in chosen if h not in last.hosts and h not in carrying]
    if not sharing or not new:
        return
    peers, old = tuple(c.address for c in carriers), tuple(h for h in last.hosts if h in near)
    everybody = tuple(dict.fromkeys((*old, *new)))

    def add(host: str, verb: str, step: Step, reason: str, *needs: str) -> str:
        key = f"{host}/{verb}" if host else f"backups/{verb}"
        return draft.add(phase, key, step, needs=["journey", *needs], host=host, action=verb, reason=reason, aside=True)

    kept = []
    for host in new:
        reason = f"{' and '.join(sharing)} carry the data themselves"
        streamed = add(host, "stream", Stream(host, primary, peers), f"the binary log, as it is written: {reason}")
        passed = add(host, "pass", Pass(host, old, last.id, policy.timeout_s), f"the last backup: {reason}", streamed)
        kept.append(add(host, "share", Share(host, old, policy.timeout_s), "what continues it", passed))
    reached = add("", "reach", Reaches(primary, everybody), "a restore would reach where the primary is", *kept)
    keeping = tuple(h for h in (*old, *new) if h not in sharing)
    noted = add("", "note", NoteBackup(near, keeping, last.id), "every host that answers knows where it is", reached)
    for host in sharing:
        add(host, "end-stream", EndStream(host), "another host does instead", noted)
