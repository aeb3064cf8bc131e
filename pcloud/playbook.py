"""The phases and gates of one operation: what is done, in which order, where a person is asked.

A playbook has no loops, no conditions and no templates. Steps bring their own order (a server
needs its image, a restore needs its database); a phase only adds `needs` edges: each of its
steps waits for every step of the phases it needs. `needs` names only phases further up, and a
group's phases stand in the order of their steps (images, servers, what waits for them): the
order in the file always works, and no circle can be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pcloud.document import Document, load_model
from pcloud.errors import BadDocument, Problem
from pcloud.identity import server_names
from pcloud.model import Frozen, Group, Site
from pcloud.values import Argv, Name, Text
from pcloud.wording import Key, did_you_mean

Does = Literal["images", "servers", "ready", "restore", "index", "replicate", "journey", "run", "ask"]
GROUPED = ("images", "servers", "ready")
WAITS = ("ready", "restore", "index")
"""What makes sure that a group answers."""


class Run(Frozen):
    """A command of this site's own, on one host or one server."""

    argv: Argv
    host: Name | None = None
    server: Name | None = None
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 60
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    """What the command must end with."""
    check: Argv | None = None
    """A command that ends with 0 when there is nothing left to do."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.host is None) == (self.server is None):
            raise ValueError("a command runs in one place; write host: NAME or server: NAME, one of the two")
        return self


class PhaseFile(Frozen):
    """One phase as it is written."""

    name: Name
    does: Does | None = None
    """What happens; left out, it is run or ask, whichever is written."""
    groups: Annotated[tuple[Name, ...], Field(min_length=1, max_length=200)] | None = None
    """Whose images, servers or checks; left out, every group's."""
    needs: Annotated[tuple[Name, ...], Field(max_length=100)] | None = None
    """Phases to wait for; left out, the one before; [] is none."""
    run: Run | None = None
    ask: Text | None = None
    """What a person must say yes to before anything goes on."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        kind = self.kind
        if (self.run is not None) != (kind == "run") or (self.ask is not None) != (kind == "ask"):
            raise ValueError("a phase does one thing; write does, or run, or ask")
        if self.groups is not None and kind not in GROUPED:
            raise ValueError(f"a phase that does {kind} takes no groups; take them out")
        return self

    @property
    def kind(self) -> Does:
        if self.does is not None:
            return self.does
        return "run" if self.run is not None else "ask"


class PlaybookFile(Frozen):
    """The phases and gates of one operation: one file `playbooks/<operation>.yaml`."""

    playbook: Name
    """The operation; the same as the file's name."""
    phases: Annotated[tuple[PhaseFile, ...], Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class Phase:
    """One phase, with its `needs` spelled out. No `groups` means every group."""

    name: str
    does: Does
    groups: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    run: Run | None = None
    ask: str | None = None

    def groups_of(self, site: Site) -> tuple[Group, ...]:
        """The groups whose servers this phase is about, in the site's order."""
        match self.does:
            case "restore":
                wanted: tuple[str, ...] = (site.database.group,)
            case "index":
                wanted = (site.search.group,)
            case "images" | "servers" | "ready":
                wanted = self.groups or tuple(group.name for group in site.groups)
            case _:
                wanted = ()
        return tuple(group for group in site.groups if group.name in wanted)


@dataclass(frozen=True)
class Playbook:
    """An operation's phases, each after the ones it needs. The journey is the last."""

    playbook: str
    phases: tuple[Phase, ...]
    document: Document = field(default=Document("playbook", {}, {}), repr=False, compare=False)

    def phase(self, name: str) -> Phase:
        return next(p for p in self.phases if p.name == name)

    def all_needs(self, name: str) -> frozenset[str]:
        """Every phase that comes before `name`, through any number of needs."""
        found: set[str] = set()
        for phase in reversed(self.phases):
            if phase.name == name or phase.name in found:
                found.update(phase.needs)
        return frozenset(found)


def load_playbook(path: Path) -> Playbook:
    """Read a playbook and check all that needs no site. Raises `BadDocument` or `BadInput`."""
    document, written = load_model(path, PlaybookFile)
    playbook = Playbook(written.playbook, tuple(_phases(written)), document)
    problems = list(_order_problems(playbook))
    if path.stem != playbook.playbook:
        what = f"the file {path.name} holds playbook {playbook.playbook}; "
        what += f"name the file {playbook.playbook}.yaml, or write playbook: {path.stem}"
        problems.append(document.problem(("playbook",), what))
    if problems:
        raise BadDocument(problems)
    return playbook


def check_playbook(playbook: Playbook, site: Site) -> list[Problem]:
    """What is wrong when a loaded playbook meets this site: unknown names, gaps, circles."""
    return sorted(set(_site_problems(playbook, site)))


def _phases(written: PlaybookFile) -> Iterator[Phase]:
    before: tuple[str, ...] = ()
    for phase in written.phases:
        needs = before if phase.needs is None else phase.needs
        yield Phase(phase.name, phase.kind, phase.groups or (), needs, phase.run, phase.ask)
        before = (phase.name,)


def _order_problems(playbook: Playbook) -> Iterator[Problem]:
    """Duplicates, needs of unknown or later phases, and a journey that comes last and proves all."""
    document, names = playbook.document, [phase.name for phase in playbook.phases]
    first: dict[str, int] = {}
    for n, phase in enumerate(playbook.phases):
        if phase.name in first:
            line = document.line(("phases", first[phase.name], "name"))
            what = f"phase {phase.name} is here twice, first on line {line}; rename one"
            yield document.problem(("phases", n, "name"), what)
        first.setdefault(phase.name, n)
    for n, phase in enumerate(playbook.phases):
        for m, need in enumerate(phase.needs):
            path = ("phases", n, "needs", m)
            if need not in names:
                what = f"there is no phase {need}; {did_you_mean(need, names[:n], 'the phases before are')}"
                yield document.problem(path, what)
            elif first[need] >= n:
                what = "itself" if need == phase.name else f"{need}, which comes later"
                yield document.problem(path, f"phase {phase.name} needs {what}; needs name phases further up")
        yield from _repeated(playbook, ("phases", n), "needs", phase.needs)
        yield from _repeated(playbook, ("phases", n), "groups", phase.groups)
    yield from _once(playbook)
    yield from _journey_last(playbook)


def _repeated(playbook: Playbook, at: Key, key: str, names: tuple[str, ...]) -> Iterator[Problem]:
    for m, name in enumerate(names):
        if name in names[:m]:
            yield playbook.document.problem((*at, key, m), f"{name} is in this list twice; take one out")


def _once(playbook: Playbook) -> Iterator[Problem]:
    for kind in ("restore", "index", "replicate", "journey"):
        found = [n for n, phase in enumerate(playbook.phases) if phase.does == kind]
        for n in found[1:]:
            line = playbook.document.line(("phases", found[0]))
            what = f"a second phase does {kind}, the first is on line {line}; keep one"
            yield playbook.document.problem(("phases", n), what)


def _journey_last(playbook: Playbook) -> Iterator[Problem]:
    document, last = playbook.document, playbook.phases[-1]
    journey = next((p for p in playbook.phases if p.does == "journey"), None)
    if journey is None:
        what = "no phase walks the shopper's journey; end with {name: journey, does: journey}"
        yield document.problem(("phases",), what)
        return
    if last is not journey:
        n = playbook.phases.index(last)
        yield document.problem(("phases", n), f"phase {last.name} comes after the journey; the journey must be last")
        return
    waited = playbook.all_needs(journey.name)
    for n, phase in enumerate(playbook.phases[:-1]):
        if phase.does in ("images", "servers", "replicate"):
            continue  # what waits for the servers waits for the first two; a shopper does not wait for a replica
        if phase.name not in waited and phase.name != journey.name:
            what = f"the journey does not wait for phase {phase.name}; add it to the needs of phase {journey.name}"
            yield document.problem(("phases", n), what)


def _site_problems(playbook: Playbook, site: Site) -> Iterator[Problem]:
    """What only this site's groups, hosts and servers can tell."""
    problems = [*_unknown(playbook, site)]
    yield from problems
    if problems:
        return  # an unknown name would only show up again as a gap
    yield from _overlaps(playbook, site)
    yield from _gaps(playbook, site)
    yield from _early_commands(playbook, site)
    yield from _backwards(playbook, site)


def _unknown(playbook: Playbook, site: Site) -> Iterator[Problem]:
    document = playbook.document
    groups, hosts = [g.name for g in site.groups], [h.name for h in site.hosts]
    servers = [name for group in site.groups for name in server_names(group)]
    for n, phase in enumerate(playbook.phases):
        for m, name in enumerate(phase.groups):
            if name not in groups:
                what = f"site {site.site} has no group {name}; {did_you_mean(name, groups, 'its groups are')}"
                yield document.problem(("phases", n, "groups", m), what)
        if phase.run is None:
            continue
        places = (("host", phase.run.host, hosts), ("server", phase.run.server, servers))
        for kind, wanted, known in places:
            if wanted is not None and wanted not in known:
                hint = did_you_mean(wanted, known[:50], f"its {kind}s are")
                what = f"site {site.site} has no {kind} {wanted}; {hint}"
                yield document.problem(("phases", n, "run", kind), what)


def _overlaps(playbook: Playbook, site: Site) -> Iterator[Problem]:
    """A group is imaged, started and waited for in one place, or its steps would exist twice."""
    document = playbook.document
    seen: dict[tuple[str, str], int] = {}
    for n, phase in enumerate(playbook.phases):
        if phase.does not in ("images", "servers", "ready"):
            continue
        for group in phase.groups_of(site):
            first = seen.setdefault((phase.does, group.name), n)
            if first != n:
                line = document.line(("phases", first))
                what = f"group {group.name} is already in a phase that does {phase.does} (line {line}); "
                yield document.problem(("phases", n, "groups"), what + "take it out of one")


def _gaps(playbook: Playbook, site: Site) -> Iterator[Problem]:
    """Every group gets its images, is started and waited for; what is rebuilt is filled."""
    for group in site.groups:
        kinds = {phase.does for phase in playbook.phases if group in phase.groups_of(site)}
        missing = [kind for kind in ("images", "servers") if kind not in kinds]
        if group.name == site.database.group and "restore" not in kinds:
            missing.append("restore")  # a rebuilt database is empty, and nobody would be told
        elif group.name == site.search.group and "index" not in kinds:
            missing.append("index")
        elif not kinds & set(WAITS):
            missing.append("ready")
        for kind in missing:
            what = f"no phase does {kind} for group {group.name} of site {site.site}; add "
            what += f"a phase that does {kind}{', or the group to one' if kind in GROUPED else ''}"
            yield playbook.document.problem(("phases",), what)


def _early_commands(playbook: Playbook, site: Site) -> Iterator[Problem]:
    """A command on a server needs a phase that waits for that server."""
    for n, phase in enumerate(playbook.phases):
        if phase.run is None or phase.run.server is None:
            continue
        group = next(g for g in site.groups if phase.run.server in server_names(g))
        waits = [p.name for p in playbook.phases if p.does in WAITS and group in p.groups_of(site)]
        if not set(waits) & playbook.all_needs(phase.name):
            what = f"{phase.run.server} may not be up yet; add {' or '.join(waits) or 'a ready phase'} to needs"
            yield playbook.document.problem(("phases", n, "run", "server"), what)


def _backwards(playbook: Playbook, site: Site) -> Iterator[Problem]:
    """The order in the file is an order that works: nothing stands above what it waits for."""
    before = {"servers": ("images",), "ready": ("servers",), "restore": ("servers",), "index": ("servers",)}
    for n, phase in enumerate(playbook.phases):
        for later in playbook.phases[n + 1 :]:
            shared = [g.name for g in later.groups_of(site) if g in phase.groups_of(site)]
            if later.does in before.get(phase.does, ()) and shared:
                what = f"phase {phase.name} ({phase.does}) stands above phase {later.name}, which does {later.does} "
                what += f"for group {shared[0]}; move {later.name} further up"
                yield playbook.document.problem(("phases", n), what)
            elif (phase.does, later.does) == ("index", "restore"):
                what = f"phase {phase.name} would index the database before phase {later.name} restores it; "
                yield playbook.document.problem(("phases", n), f"{what}move {later.name} further up")
