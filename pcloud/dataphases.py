"""What the phases about the data add to the graph: who is the primary, what fills it, who follows, the index.

`replicas.resolve` decides the roles; here they become steps, tied to what brings the servers up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pcloud.backups import loss
from pcloud.decision import MAKES, Act, Decision
from pcloud.desired import ServerSpec, liveness
from pcloud.graph import Draft
from pcloud.gtid import newest_domain
from pcloud.kept import Timeline
from pcloud.loss import UNKNOWN, DataLoss, latest_of, measure, witnesses_of
from pcloud.noteplan import note_filled, note_past
from pcloud.observed import Health
from pcloud.passedover import find_passed_over
from pcloud.playbook import Phase
from pcloud.recall import find_choice, find_streams, last_known, missing_backup
from pcloud.replicas import Carrier, Fate, How, Roles, carriers_of, others_of, resolve
from pcloud.sightings import all_notes, holders
from pcloud.steps.base import Step
from pcloud.steps.copying import Seed
from pcloud.steps.database import Restore
from pcloud.steps.gate import AwaitSale, Ready
from pcloud.steps.index import BuildIndex
from pcloud.steps.measuring import Basis
from pcloud.steps.promotion import Promote
from pcloud.steps.replication import Follow, SemiSync, Take, how_to_mend, wait_ms
from pcloud.steps.restoring import NoBackup, RestoreBackup
from pcloud.steps.sighting import NoteWaits
from pcloud.steps.stop import Consent, PassOver, Stop
from pcloud.steps.stream import TakeStream
from pcloud.suspicion import judge
from pcloud.timelines import next_domain

APPLY_S = 120
"""How long a replica has to apply what it has received, before it is promoted."""
DOWN = Health(ok=False)
SALE_S = 8
"""How long what is heavy waits for the shop to sell again."""


def ready(draft: Draft, phase: Phase, spec: ServerSpec, d: Decision) -> str:
    """The gate of one server; an indexer is up when it listens, its index comes later."""
    if d.act is Act.BLOCK:
        stop = Stop(spec.name, d.reason, d.next)
        return draft.add(phase, f"{spec.name}/blocked", stop, server=spec.name, action="blocked", reason=d.reason)
    group = draft.desired.site.group(spec.group)
    checks = liveness(group.checks)
    before = [f"{d.host}/{spec.name}/start", f"{d.host}/{spec.name}/cycle", *draft.rivals.get(spec.name, ())]
    step = Ready(spec.name, d.host, spec.address, draft.names(d), checks, group.boot_timeout_s)
    why = d.reason if d.act is Act.WAIT else ""  # all others have said it where they were started
    return draft.add(
        phase, f"{spec.name}/ready", step, needs=before, host=d.host, server=spec.name, action="ready", reason=why
    )


def restore(draft: Draft, phase: Phase) -> None:
    """The database has its primary, and that has its data."""
    roles = _roles(draft)
    blocked = [s for s in carriers_of(draft.desired) if draft.decisions[s.name].act is Act.BLOCK]
    for spec in blocked:
        if not roles.primary or draft.decisions[spec.name].no_room is None:  # else `replicate` says so: nobody waits
            ready(draft, phase, spec, draft.decisions[spec.name])
    name = carriers_of(draft.desired)[0].name
    if isinstance(roles, _Undecided):
        consent = Consent(roles.server, roles.problem, roles.next, roles.price)
        if roles.older:
            consent = PassOver(roles.server, roles.problem, roles.next, roles.price, roles.older)
        key, why = f"{roles.server}/consent", roles.problem
        draft.add(phase, key, consent, server=roles.server, action="blocked", reason=why)
    elif roles.problem and not blocked:
        stop = Stop(name, roles.problem, roles.next)
        draft.add(phase, f"{name}/role", stop, server=name, action="blocked", reason=roles.problem)
    for name in roles.filled:
        _fill(draft, phase, name, roles)
    if roles.primary:
        _enthrone(draft, phase, roles)


def _roles(draft: Draft) -> Roles:
    options, site = draft.desired.options, draft.desired.site
    carriers = [_carrier(draft, spec) for spec in carriers_of(draft.desired)]
    left = {c.name for c in carriers if draft.decisions[c.name].act is Act.LEAVE}
    if len(left) == len(carriers):
        return Roles()  # nobody asked for the data
    data, anew = draft.observed.data, options.from_scratch or options.until is not None
    roles = resolve(site.site, _address(draft), carriers, data.known, data.heard, anew=anew)
    if roles.how is How.PROMOTED and (legs := find_streams(draft.desired, draft.observed, roles.primary)):
        further = replace(data.databases[roles.primary], reach=legs[-1].reaches)
        roles = replace(roles, streams=legs, loss=measure(further, data.known, data.heard))
    if roles.loss is not None and not roles.loss.accepted(options.accept_loss):
        return _ask(site.site, options.lost, roles.primary, roles.loss, bool(data.databases[roles.primary].stuck))
    passed = find_passed_over(draft.desired, draft.observed, draft.decisions) if roles.how is How.FRESH else None
    if passed is not None:
        return _Undecided(
            problem=passed.problem, next=passed.next, server=passed.server, price=UNKNOWN, older=passed.older
        )
    seeded, joined = (tuple(n for n in names if n not in left) for names in (roles.seeded, roles.joined))
    return replace(roles, seeded=seeded, joined=joined)


@dataclass(frozen=True)
class _Undecided(Roles):
    """Nobody has the role before a person accepts what `server`'s taking of it gives up, by its `price`; or that
    `older` data are restored."""

    server: str = ""
    price: str = ""
    older: str = ""


def _ask(site: str, lost: tuple[str, ...], server: str, loss: DataLoss, stuck: bool) -> _Undecided:
    """A loss is a person's to accept: `--yes` is not enough. `lost` names the hosts that he leaves."""
    command = f"pcloud failover {site} {' '.join(lost)}" if lost else f"pcloud recover {site}"
    mended = f"{how_to_mend(site, server)}, or " if stuck else ""
    first = f"{mended}bring the primary's disk back, then pcloud recover {site}"
    return _Undecided(
        problem=f"{server} can take over, but {loss}",
        next=f"{first}; or accept the loss: {command} --accept-loss {loss.price}",
        server=server,
        price=loss.price,
    )


def _carrier(draft: Draft, spec: ServerSpec) -> Carrier:
    d, seen = draft.decisions[spec.name], draft.observed.data.databases.get(spec.name)
    if d.act in MAKES:
        return Carrier(spec.name, Fate.NEW, seen)
    if d.act is Act.LEAVE and not d.host:
        return Carrier(spec.name, Fate.AWAY if draft.observed.unreachable() else Fate.ABSENT)
    if d.no_room is not None:
        return Carrier(spec.name, Fate.GONE)
    if d.act is Act.BLOCK or (seen is None and d.act in (Act.KEEP, Act.LEAVE)):
        return Carrier(spec.name, Fate.AWAY, seen)
    returns = d.act in (Act.START, Act.CYCLE, Act.WAIT) or seen is None
    return Carrier(spec.name, Fate.RETURNS if returns else Fate.STAYS, seen)


def _address(draft: Draft) -> str:
    site = draft.desired.site
    return str(site.services[site.database.service].address)


def _add(draft: Draft, phase: Phase, name: str, verb: str, step: Step, needs: Iterable[str], reason: str) -> str:
    """A node of a carrier, after its gate where it is not simply there."""
    spec, d = draft.desired.server(name), draft.decisions[name]
    gate = [] if _up(draft, name) else [ready(draft, phase, spec, d)]
    return draft.add(
        phase, f"{name}/{verb}", step, needs=[*gate, *needs], host=d.host, server=name, action=verb, reason=reason
    )


def _fill(draft: Draft, phase: Phase, name: str, roles: Roles) -> None:
    """A backup or the dump; where servers come back whose disks nobody has read, only when none holds data."""
    others = tuple(n for n in roles.filled if n != name) if roles.how is How.SETTLES else ()
    gates = [ready(draft, phase, draft.desired.server(o), draft.decisions[o]) for o in others if not _up(draft, o)]
    gates += _proofs(draft, phase)
    choice, token = find_choice(draft.desired, draft.observed), _token(draft, name, roles)
    database, limit_s = draft.desired.site.database, draft.desired.site.database.restore_timeout_s
    undo = draft.can_undo(s.name for s in carriers_of(draft.desired))
    step: Step
    if (why := missing_backup(draft.desired, draft.observed, choice)) is not None:
        step, what = NoBackup(name, database.name, *why, others), why[0]
    elif choice is not None:
        begun = _timeline(draft, roles.primary, choice.end, f"restored from the backup {choice.backup.id}")
        step = RestoreBackup(name, database.name, choice, token, others, begun, undo)
        what = f"{choice}; {loss(choice, last_known(draft.observed))}"
    else:
        dump, problem, empty = draft.desired.dump, draft.desired.dump_problem, draft.desired.options.empty_database
        begun = _timeline(draft, roles.primary, "", "restored from the dump" if dump else "an empty database, as asked")
        step = Restore(name, database.name, dump, problem, token, empty, limit_s, others, begun, undo)
        what = "; ".join(["the latest dump, and nothing that came after it", *(dump.notes if dump else ())])
    reason = f"{what}, unless a server holds data" if others else f"no server holds the data: {what}"
    restored = _add(draft, phase, name, "restore", step, gates, reason)
    note_filled(draft, phase, name, "filled", [restored])


def _timeline(draft: Draft, server: str, branched: str, why: str) -> Timeline:
    """The one that begins at `branched`: higher than any that is known of, so that no two are ever taken for one."""
    data, site = draft.observed.data, draft.desired.site.site
    known: list[int | str] = [data.known.position, branched]
    known += [d.timeline for d in data.databases.values()] + [n.position for n in all_notes(site, draft.observed)]
    for shelf in data.shelves:
        known += (
            [b.position for b in shelf.backups] + [b.timeline for b in shelf.backups] + [t.end for t in shelf.stretches]
        )
    return Timeline(next_domain(draft.date, known), newest_domain(branched), branched, server, why)


def _proofs(draft: Draft, phase: Phase) -> list[str]:
    """The nodes after which no older copy of a carrier has the role, or what nobody else has, out of our reach."""
    hosts = sorted({h for spec in carriers_of(draft.desired) for h in draft.decisions[spec.name].fences})
    return [draft.fence(phase, h, judge(draft.desired, draft.observed, h).why) for h in hosts]


def _up(draft: Draft, name: str) -> bool:
    return draft.decisions[name].act in (Act.KEEP, Act.LEAVE)


def _token(draft: Draft, name: str, roles: Roles) -> str:
    """Names one restored state of the data: from what, and into which generation of the server.

    All who get it share the primary's: whoever is the primary later, it is one line of data.
    """
    dump, choice = draft.desired.dump, find_choice(draft.desired, draft.observed)
    source = f"backup-{choice.backup.id}" if choice is not None else dump.sha256[:16] if dump else "empty"
    generation = draft.decisions[roles.primary or name].generation
    return f"{draft.desired.site.site}.{source}.g{generation}"


def _enthrone(draft: Draft, phase: Phase, roles: Roles) -> None:
    """The primary accepts writes at the service address."""
    name, database = roles.primary, draft.desired.site.database.name
    if roles.how is How.IS and draft.observed.data.holder == name:
        return
    proofs = _proofs(draft, phase)
    if roles.loss is not None:
        others = (c.name for c in carriers_of(draft.desired) if c.name != name)
        needs = [*proofs, *(f"{draft.decisions[o].host}/{o}/retire" for o in others)]
        needs += _take_streams(draft, phase, name, roles, needs)
        noted = [*note_past(draft, phase, roles, needs), *note_filled(draft, phase, name, "filled", [])]
        what = f"{roles.loss} ({_positions(draft, name)})"
        begun = _timeline(draft, name, latest_of(draft.observed.data.databases[name]), f"promoted: {roles.loss}")
        leaves = draft.desired.options.accept_loss == UNKNOWN
        basis = _basis(draft, name, roles) if roles.how is How.PROMOTED else None
        promote = Promote(name, what, APPLY_S, begun, leaves, wait_ms(draft.desired.site.database.semi_sync), basis)
        key = _add(draft, phase, name, "promote", promote, needs, f"its primary is gone: {what}")
        _follow_all(draft, key, noted)
        _give_way(draft, _sale(draft, phase, key))
        return
    settles = roles.how is How.SETTLES
    servers = (name, *(n for n in roles.filled if n != name)) if settles else (name,)
    reason = "unless another one's disk says that it is" if settles else "it accepts writes at the address"
    gate = [] if _up(draft, name) else [ready(draft, phase, draft.desired.server(name), draft.decisions[name])]
    restored = [*gate, *(f"{n}/restore" for n in servers)]
    noted = note_filled(draft, phase, name, "filled", restored)  # also where an earlier run filled it, and was killed
    needs = [*proofs, *restored, *noted, *(f"{n}/filled" for n in servers)]
    past = note_past(draft, phase, roles, needs) if roles.how is not How.FRESH else []
    longest_ms, known = wait_ms(draft.desired.site.database.semi_sync), draft.observed.data.known.position
    take = Take(servers, database, longest_ms, alone=True, known=known if settles else "")
    alone = _note_waits(draft, phase, name, -1, needs) if roles.how is How.TAKES else []
    _follow_all(draft, _add(draft, phase, name, "primary", take, needs, reason), [*past, *alone])


def _basis(draft: Draft, name: str, roles: Roles) -> Basis:
    """What its loss is measured from once more, when its primary is proven gone."""
    observed, data = draft.observed, draft.observed.data
    well = [s.name for s in draft.desired.everyone if observed.health.get(s.name, DOWN).ok]
    witnesses = witnesses_of(draft.desired, well, (h.name for h in observed.hosts if h.reachable))
    seen = data.databases[name]
    if roles.streams:
        seen = replace(seen, reach=roles.streams[-1].reaches)
    assert roles.loss is not None
    return Basis(roles.loss, seen, data.known, witnesses, data.asked_at)


def _take_streams(draft: Draft, phase: Phase, name: str, roles: Roles, needs: list[str]) -> list[str]:
    """The server gets, before it is promoted, what hosts streamed of its primary further than it received."""
    limit_s, keys = draft.desired.site.database.restore_timeout_s, list[str]()
    for number, leg in enumerate(roles.streams):
        reason = f"{leg.host} streamed its primary's binary log up to {leg.reaches}"
        step, verb = TakeStream(name, leg, limit_s), f"stream-{number}"
        keys.append(_add(draft, phase, name, verb, step, [*needs, *keys[-1:]], reason))
    return keys


def _follow_all(draft: Draft, key: str, others: Iterable[str]) -> None:
    """Ties a node to the ends of others: a host that cannot be told does not keep the shop from selling."""
    for other in others:
        draft.follow(key, other)


def _positions(draft: Draft, name: str) -> str:
    data = draft.observed.data
    return f"received {latest_of(data.databases[name]) or 'nothing'}, last seen {data.known.position or 'nowhere'}"


def _sale(draft: Draft, phase: Phase, promotion: str) -> str:
    """The node of the first sale after a promotion; the promotion itself, where nobody could buy before more is up."""
    site = draft.desired.site
    if site.database.semi_sync.alone == "wait":
        return promotion  # nobody can order before a replica follows
    for group in site.groups:
        members = draft.desired.members(group.name)
        if group.name != site.database.group and not any(draft.decisions[s.name].act is Act.KEEP for s in members):
            return promotion
    step = AwaitSale(site.journey, SALE_S)
    return draft.add(
        phase, "sale", step, needs=[promotion], action="await a sale", reason="what is heavy waits until the shop sells"
    )


def _give_way(draft: Draft, sale: str) -> None:
    """Where hosts share processors and cables, what is copied and what boots would hold the shop's first order up."""
    heavy = {"copy image", "verify image", "start"}
    if any(n.info.action == "retire" for n in draft.nodes.values()):
        heavy = {"start"}  # who is put away first is not before the next one's image is there
    for key in [k for k, n in draft.nodes.items() if n.info.action in heavy]:
        draft.follow(key, sale)


def index(draft: Draft, phase: Phase) -> None:
    site, roles = draft.desired.site, _roles(draft)
    carriers = [c.name for c in carriers_of(draft.desired)]
    for spec in draft.desired.members(site.search.group):
        d = draft.decisions[spec.name]
        own = spec.name in carriers
        source = spec.name if own else roles.primary
        fresh = source in roles.filled
        if d.act is Act.LEAVE or (d.act is Act.KEEP and draft.observed.data.indexed and not fresh):
            continue
        before = [ready(draft, phase, spec, d)] if d.act is not Act.KEEP else []
        if d.act is Act.BLOCK or not roles.primary:
            continue
        if own and spec.name in roles.seeded:
            before.append(_seed(draft, phase, spec.name, roles))
        checks = tuple(c for c in site.group(spec.group).checks if c.search)
        token = _token(draft, source, roles) if fresh else ""
        step = BuildIndex(spec.name, spec.address, site.search.argv, checks, token, site.search.index_timeout_s)
        draft.add(
            phase,
            f"{spec.name}/index",
            step,
            needs=[*before, f"{source}/restore"],
            host=d.host,
            server=spec.name,
            action="index",
            reason="searches find what the database holds",
        )


def _seed(draft: Draft, phase: Phase, name: str, roles: Roles) -> str:
    others = others_of(draft.desired, name, roles.primary)
    step = Seed(name, draft.desired.site.database.name, others, _address(draft))
    needs = [f"{name}/restore", *(f"{roles.primary}/{verb}" for verb in ("promote", "primary"))]
    seeded = _add(draft, phase, name, "seed", step, needs, f"a copy of what {roles.primary} holds")
    return [seeded, *note_filled(draft, phase, name, "copied", [seeded])][-1]


def replicate(draft: Draft, phase: Phase) -> None:
    """Everybody follows the primary, and its commits wait for them; or for nobody, when nobody is left."""
    roles, policy = _roles(draft), draft.desired.site.database.semi_sync
    if roles.problem or not roles.primary:
        return
    for spec in carriers_of(draft.desired):
        if draft.decisions[spec.name].no_room is not None:
            ready(draft, phase, spec, draft.decisions[spec.name])
    longest_ms = wait_ms(policy)
    if roles.alone and policy.alone == "degrade":
        fences = [f"{h}/{verb}" for h in draft.observed.unreachable() for verb in ("fence", "leave")]
        noted = _note_waits(draft, phase, roles.primary, -1, fences)
        step, why = SemiSync(roles.primary, False, longest_ms), "its replica is gone: orders go on without one"
        _follow_all(draft, _add(draft, phase, roles.primary, "degrade", step, fences, why), noted)
    everybody = {roles.primary, *roles.joined}
    followed = [_follow(draft, phase, name, roles) for name in roles.joined if everybody - {name}]
    seen = draft.observed.data.databases.get(roles.primary)
    others = [c for c in carriers_of(draft.desired) if c.name != roles.primary]
    waits = seen is not None and seen.semi_sync and seen.writable and seen.waits_ms == longest_ms
    if followed or (others and not waits and any(_replicates(draft, c.name) for c in others)):
        before = [f"{roles.primary}/{verb}" for verb in ("degrade", "promote", "primary")]
        believed = seen.waits_ms if seen is not None and seen.writable else draft.observed.data.known.waits_ms
        noted = _note_waits(draft, phase, roles.primary, longest_ms, before) if longest_ms < believed else []
        for name in [roles.primary, *(roles.joined if roles.how is How.SETTLES else ())]:
            step = SemiSync(name, True, longest_ms)
            key = _add(draft, phase, name, "semi-sync", step, [*followed, *before], "an order counts when both have it")
            _follow_all(draft, key, noted)


def _note_waits(draft: Draft, phase: Phase, primary: str, waits_ms: int, needs: list[str]) -> list[str]:
    """Hosts know that its commits wait for nobody, or no longer than that, before the first one that does not."""
    told = holders(draft.desired.site, draft.observed, draft.decisions[primary].host)
    what = "wait for nobody" if waits_ms < 0 else f"wait no longer than {waits_ms / 1000:g} s"
    step, reason = NoteWaits(primary, told, waits_ms), f"{' and '.join(told)} remember that its commits {what}"
    return [_add(draft, phase, primary, "alone" if waits_ms < 0 else "waits", step, needs, reason)] if told else []


def _follow(draft: Draft, phase: Phase, name: str, roles: Roles) -> str:
    needs = [f"{name}/{verb}" for verb in ("restore", "filled")]
    needs += [f"{roles.primary}/promote", f"{roles.primary}/primary"]
    if name in roles.seeded:
        needs.append(_seed(draft, phase, name, roles))
    elif f"{name}/filled" not in draft.nodes:  # an earlier run filled it, and was killed
        note_filled(draft, phase, name, "holds", needs, aside=True)
    source = next(n for n in (roles.primary, *roles.joined) if n != name)
    step = Follow(name, source, _address(draft), draft.desired.site.database.restore_timeout_s)
    return _add(draft, phase, name, "follow", step, needs, f"it replicates from {roles.primary}")


def _replicates(draft: Draft, name: str) -> bool:
    return (seen := draft.observed.data.databases.get(name)) is not None and seen.replicating
