"""results.json -> docs/numbers.svg: drawn from the figures alone, no library, light and dark."""

from __future__ import annotations

from statistics import median
from typing import Any
from xml.sax.saxutils import escape

WIDTH = 760
LEFT, RIGHT = 150, 70
BAR, GAP = 20, 8
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 }
  .quiet { fill: #59636e; font-size: 12px }
  .right { text-anchor: end }
  .paper { fill: #ffffff }
  .rule { stroke: #d1d9e0 }
  .limit { stroke: #cf222e; stroke-width: 2 }
  .a { fill: #b6d3f2 } .b { fill: #6ea8e0 } .c { fill: #2f77bd } .d { fill: #17508a } .e { fill: #0b2f56 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .quiet { fill: #9198a1 }
    .paper { fill: #0d1117 }
    .rule { stroke: #3d444d }
    .limit { stroke: #ff7b72 }
    .a { fill: #16324f } .b { fill: #22588f } .c { fill: #3f88cf } .d { fill: #85b9ec } .e { fill: #cfe4f9 }
  }
"""
PARTS = (
    ("a", "servers started"),
    ("b", "database answers"),
    ("c", "dump restored"),
    ("d", "index built"),
    ("e", "journey passed"),
)


def draw(results: dict[str, Any]) -> str:
    """The whole picture: the recoveries as time lines, then each figure that has a target."""
    body, bottom = _recoveries(results["recovery"], 30)
    more, bottom = _targets(results, bottom + 34)
    machine = results["machine"]
    how = "KVM" if results["recovery"]["accel"] == "kvm" else "software emulation"
    foot = f"{results['date'][:10]}, one run: {machine['cpus']} CPUs, {how}, {machine['emulator']}"
    height = bottom + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' role="img" aria-label="pcloud beside its floor, and the figures that have a target">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>\n'
        f"{body}{more}{_text(20, height - 14, foot, 'quiet')}</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{escape(text)}</text>\n'


def _rect(x: float, y: float, width: float, kind: str, tip: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{BAR}">'
        f"<title>{escape(tip)}</title></rect>\n"
    )


def _recoveries(recovery: dict[str, Any], top: float) -> tuple[str, float]:
    """A bar a run, pcloud and its floor in the order they ran, on one scale of seconds."""
    turns = [
        (f"{name} {n + 1}", run)
        for n, pair in enumerate(zip(recovery["pcloud"], recovery["floor"], strict=True))
        for name, run in zip(("pcloud", "floor"), pair, strict=True)
    ]
    scale = (WIDTH - LEFT - RIGHT) / max(run["journey_s"] for _, run in turns)
    title = f"A cold recovery is {recovery['ratio']:.2f} times its floor (medians; at most 1.10 wanted)"
    made = [_text(20, top, title, "title")]
    x = 20.0
    for kind, name in PARTS:
        made.append(f'<rect class="{kind}" x="{x:.1f}" y="{top + 13:.1f}" width="11" height="11"/>\n')
        made.append(_text(x + 16, top + 23, name, "quiet"))
        x += 30 + 7.0 * len(name)
    y = top + 38
    for label, run in turns:
        made.append(_text(20, y + 15, label))
        at = 0.0
        for kind, name in PARTS:
            end = run["journey_s"] if name == "journey passed" else max(at, run["marks_s"][name])
            made.append(_rect(LEFT + at * scale, y, (end - at) * scale, kind, f"{label}: {name} at {end:g} s"))
            at = end
        made.append(_text(LEFT + at * scale + 8, y + 15, f"{run['journey_s']:.1f} s"))
        y += BAR + GAP
    return "".join(made), y


def _targets(results: dict[str, Any], top: float) -> tuple[str, float]:
    """Each figure as a share of what it may be at most; the line is the target."""
    ours = results["recovery"]["pcloud"]
    rows = [
        ("recovery over floor", results["recovery"]["ratio"], 1.10, ""),
        ("peak memory", max(run["peak_mib"] for run in ours), 150, " MiB"),
        ("plan from nothing", results["planning"]["nothing_s"], 5, " s"),
        ("plan, all healthy", results["planning"]["healthy_s"], 5, " s"),
        ("idle second run", median(results["idle"]["wall_s"]), 10, " s"),
        ("7 copies over 1", results["copying"]["cables"]["ratio"], 1.3, ""),
    ]
    room = WIDTH - LEFT - RIGHT - 100
    widest = max(1.25, *(value / limit for _, value, limit, _ in rows))
    at = LEFT + room / widest
    made = [_text(20, top, "Figures beside what they may be at most (the line)", "title")]
    y = top + 14
    first = y
    for label, value, limit, unit in rows:
        made.append(_text(20, y + 15, label))
        length = room * value / limit / widest
        made.append(_rect(LEFT, y, length, "c", f"{label}: {value:g}{unit}, at most {limit:g}{unit}"))
        x = max(LEFT + length, at if value <= limit else 0) + 8
        made.append(_text(x, y + 15, f"{value:.3g}{unit} of {limit:g}{unit}"))
        y += BAR + GAP
    made.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{first - 3:.1f}" y2="{y - GAP + 3:.1f}"/>\n')
    return "".join(made), y
