"""A plan before it runs: phase -> server -> actions, why, and what decides how long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text
from rich.tree import Tree

from pcloud.events import Status, StepInfo
from pcloud.render.overview import subjects_of
from pcloud.render.words import CRITICAL, STYLES, SYMBOLS, Folded, clean, one_line, rough, size
from pcloud.timing import critical_path, predicted_total_s

_CRITICAL_STYLE = "bold yellow"


class Obstacle(Protocol):
    """Something a person must clear first: a `StepBlocked`, or an error of pcloud's."""

    @property
    def what(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def next(self) -> str: ...


def render_plan(
    steps: Sequence[StepInfo],
    *,
    kept: Mapping[str, str] | None = None,
    durations: Mapping[str, float] | None = None,
    blocked: Sequence[Obstacle] = (),
    title: str = "",
    to_copy: int = 0,
    copy_rate: float | None = None,
) -> RenderableType:
    """A tree of the plan. `kept`: server -> why it is left alone; `durations`: `timing.durations_from`.

    `to_copy`: bytes of images that have to travel; `copy_rate`: `timing.copy_rate`.

    The forecast is shown only when past runs gave durations; without them the critical path
    is drawn from default proportions and carries no figure.
    """
    durations = durations or {}
    path = critical_path(steps, durations)
    tree = Tree(Text(title or _count(steps), "bold"), guide_style="dim")
    owners = subjects_of(steps)
    for phase in dict.fromkeys(step.phase for step in steps):
        mine = [step for step in steps if step.phase == phase]
        branch = tree.add(Text.assemble((one_line(phase), "bold"), (f"  {_count(mine)}", "dim")))
        for owner in dict.fromkeys(owners[step.key] for step in mine):
            branch.add(_owner_line(owner, [step for step in mine if owners[step.key] == owner], set(path)))
    if kept:
        branch = tree.add(Text.assemble(("kept", "bold"), (f"  healthy, left alone: {len(kept)}", "dim")))
        for server, why in kept.items():
            mark = (f"{SYMBOLS[Status.DONE]} ", STYLES[Status.DONE])
            branch.add(Text.assemble(mark, one_line(server), (f"  {one_line(why)}", "dim")))
    parts: list[RenderableType] = [tree]
    if path:
        parts += [Text(), *_path_lines(steps, path, durations)]
    if to_copy:
        took = f", {rough(to_copy / copy_rate)} going by past runs" if copy_rate else ""
        parts += [Text.assemble(("images to copy", "bold"), f"  {size(to_copy)}{took}")]
    for obstacle in blocked:
        parts += [Text(), _obstacle(obstacle)]
    return Folded(Group(*parts))


def _count(steps: Sequence[StepInfo]) -> str:
    return f"{len(steps)} step{'' if len(steps) == 1 else 's'}" if steps else "nothing to do"


def _owner_line(owner: tuple[str, str], steps: Sequence[StepInfo], critical: set[str]) -> Text:
    """`fe-1 on h3  missing` and below it `image → disk → ◆start → ◆ready`.

    The reason that most of its steps share stands beside the name, another one beside its step.
    """
    name, host = owner
    reasons = Counter(one_line(step.reason) for step in steps if step.reason)
    shared = reasons.most_common(1)[0][0] if reasons else ""
    line = Text.assemble((one_line(name), "bold"), (f" on {one_line(host)}" if host else "", ""))
    if len(steps) > 1:
        line.append(f"  {shared}\n" if shared else "\n", "italic")
    else:
        line.append("  ")
    for n, step in enumerate(steps):
        line.append(" → " if n else "", "dim")
        action = one_line(step.action) or one_line(step.key)
        if step.key in critical:
            line.append(f"{CRITICAL}{action}", _CRITICAL_STYLE)
        else:
            line.append(action)
        if step.reason and (len(steps) == 1 or one_line(step.reason) != shared):
            line.append(f" ({one_line(step.reason)})", "italic")
    return line


def _path_lines(steps: Sequence[StepInfo], path: Sequence[str], durations: Mapping[str, float]) -> list[RenderableType]:
    head = Text.assemble((f"{CRITICAL} critical path", _CRITICAL_STYLE), f"  {len(path)} of {len(steps)} steps")
    if durations:
        head.append(f", {rough(predicted_total_s(steps, durations))} going by past runs")
    chain = Text()
    for n, key in enumerate(path):
        chain.append(" → " if n else "", "dim").append(one_line(key))
    return [head, Padding(chain, (0, 0, 0, 2))]


def _obstacle(obstacle: Obstacle) -> Text:
    mark = SYMBOLS[Status.BLOCKED]
    where = f"{one_line(obstacle.where)}: " if obstacle.where else ""
    text = Text.assemble((f"{mark} blocked  ", STYLES[Status.BLOCKED]), f"{where}{clean(obstacle.what)}")
    if obstacle.next:
        text.append("\n  next: ", "bold").append(one_line(obstacle.next))
    return text
