"""How the pictures of plants and goods are drawn: a function a shape, parts of an SVG of 240 by 240."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

COLOURS = {
    "amber": "#d9952b",
    "blue": "#4a6fc4",
    "blush": "#f0bcc0",
    "cream": "#efe3bf",
    "crimson": "#b3223c",
    "forest": "#2f6b3a",
    "lilac": "#a98fd0",
    "lime": "#9dbb45",
    "orange": "#e2702a",
    "pine": "#3f6f52",
    "pink": "#e58fb0",
    "rose": "#cf4a7c",
    "steel": "#8696a5",
    "teal": "#4f8f8c",
    "terracotta": "#bf6b45",
    "violet": "#6b4a9e",
    "white": "#fbfaf4",
    "wine": "#6d2440",
    "wood": "#9a7145",
    "yellow": "#f0c93a",
}
LEAF, LEAF_DARK, TRUNK, SOIL = "#5f9148", "#3f7238", "#8a6a4c", "#cdb892"
SIZE = 240

Draw = Callable[[Random, str, str], list[str]]


def number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def circle(x: float, y: float, r: float, fill: str, more: str = "") -> str:
    return f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(r)}" fill="{fill}"{more}/>'


def ellipse(x: float, y: float, rx: float, ry: float, fill: str, turn: float = 0.0) -> str:
    turned = f' transform="rotate({number(turn)} {number(x)} {number(y)})"' if turn else ""
    return f'<ellipse cx="{number(x)}" cy="{number(y)}" rx="{number(rx)}" ry="{number(ry)}" fill="{fill}"{turned}/>'


def path(d: str, fill: str = "none", stroke: str = "", width: float = 0.0) -> str:
    line = f' stroke="{stroke}" stroke-width="{number(width)}" stroke-linecap="round"' if stroke else ""
    return f'<path d="{d}" fill="{fill}"{line}/>'


def trace(form: str, *values: float) -> str:
    """A path's data: each `{}` of `form` takes the next value."""
    return form.format(*map(number, values))


def between(chance: Random, low: float, high: float) -> float:
    return low + (high - low) * chance.random()


def _cloud(chance: Random, x: float, y: float, wide: float, high: float, colours: list[str], count: int) -> list[str]:
    """Round patches spread over an ellipse, the dark ones first and below."""
    spots = []
    for place in range(count):
        angle, reach = between(chance, 0, math.tau), math.sqrt(chance.random())
        colour = colours[place * len(colours) // count]
        at = (x + wide * reach * math.cos(angle), y + high * reach * math.sin(angle))
        spots.append(circle(*at, between(chance, 0.22, 0.38) * min(wide, high) + 8, colour))
    return spots


def _blossom(x: float, y: float, r: float, petals: int, fill: str, heart: str) -> list[str]:
    turn = 360 / petals
    ring = [ellipse(x, y - r * 0.62, r * 0.3, r * 0.5, fill)]
    flower = "".join(
        f'<g transform="rotate({number(turn * k)} {number(x)} {number(y)})">{ring[0]}</g>' for k in range(petals)
    )
    return [flower, circle(x, y, r * 0.28, heart)]


def _leaf(x: float, y: float, long: float, angle: float, fill: str) -> str:
    half = long * 0.28
    d = trace("M{} {}q{} {} {} 0q{} {} {} 0z", x, y, long / 2, -half, long, -long / 2, half, -long)
    return f'<path d="{d}" fill="{fill}" transform="rotate({number(angle)} {number(x)} {number(y)})"/>'


def tree(chance: Random, main: str, second: str) -> list[str]:
    trunk = path("M112 208q6-50 4-96l10 0q-4 46 6 96z", TRUNK)
    branch = path("M119 140q-16-18-26-36M121 132q14-16 26-34", stroke=TRUNK, width=5)
    return [trunk, branch, *_cloud(chance, 120, 88, 62, 48, [LEAF_DARK, main, main, second], 22)]


def conifer(chance: Random, main: str, second: str) -> list[str]:
    parts = [path("M114 210h12v-24h-12z", TRUNK)]
    for step in range(5):
        top, wide = 30 + step * 32, 26 + step * 13 + between(chance, -3, 3)
        form = "M120 {}q{} 34 {} 50q{} 12 {} 0q{} -16 {} -50z"
        d = trace(form, top, wide * 0.5, wide, -wide, -2 * wide, wide * 0.5, wide)
        parts.insert(0 if step else 1, path(d, main if step % 2 else second))
    return parts


def shrub(chance: Random, main: str, second: str) -> list[str]:
    stems = path("M120 206q-20-40-42-62M120 206q2-40 0-72M120 206q22-38 44-58", stroke=TRUNK, width=4)
    leaves = _cloud(chance, 120, 128, 66, 44, [LEAF_DARK, LEAF], 16)
    dots = [
        circle(between(chance, 58, 182), between(chance, 86, 168), between(chance, 5, 9), main if k % 3 else second)
        for k in range(22)
    ]
    return [stems, *leaves, *dots]


def bush(chance: Random, main: str, second: str) -> list[str]:
    parts = _cloud(chance, 120, 146, 70, 40, [LEAF_DARK, LEAF], 14)
    for k in range(7):
        x, y = 62 + (k % 4) * 38 + between(chance, -6, 6), 100 + (k // 4) * 40 + between(chance, -8, 8)
        ball = main if k % 2 else second
        parts += [
            circle(x, y, 23, ball),
            *(
                circle(x + 11 * math.cos(a), y + 11 * math.sin(a), 6, "#fff", ' opacity=".25"')
                for a in (0.5, 2.2, 3.9, 5.5)
            ),
        ]
    return parts


def hedge(chance: Random, main: str, second: str) -> list[str]:
    body = f'<rect x="46" y="74" width="148" height="132" rx="26" fill="{LEAF_DARK}"/>'
    leaves = [
        ellipse(
            between(chance, 56, 184),
            between(chance, 84, 198),
            9,
            5,
            (main, second, LEAF)[k % 3],
            between(chance, 0, 180),
        )
        for k in range(54)
    ]
    return [body, *leaves]


def climber(chance: Random, main: str, second: str) -> list[str]:
    bars = "".join(f"M{x} 34V208" for x in (76, 120, 164)) + "".join(f"M60 {y}H180" for y in (62, 108, 154))
    stem = path("M96 208q-30-46 14-76t8-84M132 208q36-60 2-96t24-70", stroke=LEAF_DARK, width=4)
    leaves = [
        _leaf(between(chance, 70, 170), between(chance, 48, 196), 24, between(chance, 0, 360), LEAF) for _ in range(16)
    ]
    parts = [path(bars, stroke=SOIL, width=5), stem, *leaves]
    for k in range(8):
        parts += _blossom(
            between(chance, 72, 168), between(chance, 50, 180), 17, 6, main if k % 3 else second, "#f5e9b0"
        )
    return parts


def rose(chance: Random, main: str, second: str) -> list[str]:
    parts = [path("M120 130q6 40-2 80", stroke=LEAF_DARK, width=6)]
    parts += [_leaf(119, y, 46, angle, LEAF) for y, angle in ((176, -28), (188, 205), (162, 215))]
    for ring, (count, reach) in enumerate(((7, 40), (6, 27), (5, 15))):
        for k in range(count):
            angle = math.tau * k / count + ring * 0.5 + between(chance, -0.1, 0.1)
            fill = main if (k + ring) % 2 else second
            parts.append(
                circle(
                    120 + reach * math.cos(angle), 96 + reach * math.sin(angle), 27 - ring * 5, fill, ' stroke="#0002"'
                )
            )
    return [*parts, path("M112 96q8-12 16 0t-10 8", stroke="#0003", width=3)]


def spike(chance: Random, main: str, second: str) -> list[str]:
    parts = []
    for k in range(7):
        foot, top = 84 + k * 12, between(chance, 44, 84)
        tip = foot + (k - 3) * 14
        parts.append(path(f"M{foot} 208Q{foot} 140 {number(tip)} {number(top)}", stroke=LEAF, width=3))
        for dot in range(9):
            share = dot / 16
            x = (1 - share) ** 2 * tip + 2 * share * (1 - share) * foot + share**2 * foot
            y = (1 - share) ** 2 * top + 2 * share * (1 - share) * 140 + share**2 * 208
            parts.append(circle(x + (-3 if dot % 2 else 3), y, 3 + dot * 0.35, main if dot % 3 else second))
    return parts


def daisy(chance: Random, main: str, second: str) -> list[str]:
    parts = []
    for x, y in ((82, 98), (158, 84), (118, 142)):
        parts.append(path(f"M{x} {y}q{number((120 - x) / 2)} 60 {120 - x} {210 - y}", stroke=LEAF_DARK, width=4))
        parts.append(_leaf(x + (120 - x) * 0.6, y + 66, 30, between(chance, 140, 220), LEAF))
    for x, y, r in ((82, 98, 34), (158, 84, 38), (118, 142, 32)):
        parts += _blossom(x, y, r, 13, main, second if second != main else "#e5b93c")
    return parts


def perennial(chance: Random, main: str, second: str) -> list[str]:
    leaves = [_leaf(120, 206, 74, -18 - k * 16, LEAF if k % 2 else LEAF_DARK) for k in range(10)]
    parts = list(leaves)
    for k in range(9):
        x, y = between(chance, 60, 180), between(chance, 66, 146)
        parts.insert(0, path(f"M{number(x)} {number(y)}Q{number((x + 120) / 2)} 170 120 206", stroke=LEAF, width=2.5))
        parts += _blossom(x, y, 19, 5, main if k % 2 else second, "#f5e9b0")
    return parts


def iris(chance: Random, main: str, second: str) -> list[str]:
    blades = []
    for k in (-4, -2, 2, 4):
        tall = 120 - abs(k) * 12
        d = trace("M{} 210q{} -70 {} {}q{} 60 {} {}z", 120 + k * 9, k * 8, k * 14, -tall, 10 - k * 4, 4 - k * 14, tall)
        blades.append(path(d, LEAF))
    stem = path("M120 120V210", stroke=LEAF_DARK, width=6)
    falls = [ellipse(x, 122, 17, 34, second, turn) for x, turn in ((88, 40), (152, -40), (120, 0))]
    standards = [ellipse(x, 78, 19, 36, main, turn) for x, turn in ((100, -18), (140, 18), (120, 0))]
    tilt = between(chance, -6, 6)
    return [
        *blades,
        stem,
        f'<g transform="rotate({number(tilt)} 120 110)">',
        *falls,
        *standards,
        ellipse(120, 112, 5, 16, "#f0c93a"),
        "</g>",
    ]


def leafy(chance: Random, main: str, second: str) -> list[str]:
    order = sorted(range(11), key=lambda k: -abs(k - 5))
    parts = []
    for k in order:
        long, angle = between(chance, 78, 104), -8 - k * 16.4
        parts.append(_leaf(120, 200, long, angle, main if k % 2 else second))
        x, y = 120 + long * 0.85 * math.cos(math.radians(angle)), 200 + long * 0.85 * math.sin(math.radians(angle))
        parts.append(path(f"M120 200L{number(x)} {number(y)}", stroke="#fff6", width=2))
    return parts


def grass(chance: Random, main: str, second: str) -> list[str]:
    parts = []
    for k in range(26):
        reach, top = between(chance, -84, 84), between(chance, 50, 130)
        end = (120 + reach, top + abs(reach) / 2)
        d = trace("M{} 208Q{} {} {} {}", 120 + reach / 8, 120 + reach / 4, top, *end)
        parts.append(path(d, stroke=(LEAF, second, LEAF_DARK)[k % 3], width=3))
    for k in range(6):
        x, y = 70 + k * 20 + between(chance, -5, 5), between(chance, 46, 84)
        parts += [
            path(f"M{number(x)} {number(y)}Q{number(x)} 140 120 206", stroke=second, width=1.5),
            ellipse(x, y, 6, 20, main, (k - 3) * 8),
        ]
    return parts


def bulb(chance: Random, main: str, second: str) -> list[str]:
    parts = []
    for x, y in ((76, 96), (164, 90), (120, 74)):
        y += between(chance, -8, 8)
        parts += [
            path(f"M{x} {number(y)}Q{x} 160 {number((x + 120) / 2)} 210", stroke=LEAF_DARK, width=5),
            _leaf((x + 120) / 2, 206, 80, -90 + (x - 120) * 0.5, LEAF),
        ]
        cup = f"M{x - 24} {number(y - 22)}q8 16 12 0q6-18 12-18t12 18q6 16 12 0q10 46-24 52q-34-6-24-52z"
        parts += [path(cup, main), ellipse(x, y + 4, 9, 22, second)]
    return parts


def fruit(chance: Random, main: str, second: str) -> list[str]:
    parts = [
        path("M112 208q6-50 4-96l10 0q-4 46 6 96z", TRUNK),
        *_cloud(chance, 120, 94, 66, 48, [LEAF_DARK, LEAF, LEAF], 20),
    ]
    for k in range(11):
        angle, reach = k * 2.4, 14 + k * 5
        x, y = 120 + reach * math.cos(angle), 96 + reach * 0.75 * math.sin(angle)
        parts += [circle(x, y, 10, main if k % 3 else second), circle(x - 3, y - 3, 2.5, "#fff", ' opacity=".6"')]
    return parts


def berry(chance: Random, main: str, second: str) -> list[str]:
    parts = [path("M60 60q60 10 84 60t-6 90", stroke=LEAF_DARK, width=5)]
    parts += [
        _leaf(x, y, 52, angle, LEAF)
        for x, y, angle in ((84, 68, -50), (118, 92, 160), (142, 130, -30), (144, 166, 190))
    ]
    for cluster, (x, y) in enumerate(((92, 126), (166, 158), (128, 182))):
        for k in range(8):
            at = (x + (k % 3 - 1) * 13 + between(chance, -2, 2), y + (k // 3 - 1) * 13)
            parts += [
                circle(*at, 9, main if (k + cluster) % 3 else second),
                circle(at[0] - 3, at[1] - 3, 2, "#fff", ' opacity=".7"'),
            ]
    return parts


def herb(chance: Random, main: str, second: str) -> list[str]:
    parts = []
    for k in range(11):
        x, y = 58 + k * 12.4, between(chance, 56, 96)
        parts.append(path(f"M{number(x)} {number(y)}Q{number(x)} 130 120 168", stroke=LEAF_DARK, width=2))
        parts += [
            _leaf(x + (120 - x) * s, y + (150 - y) * s, 17, a, main if a else second)
            for s in (0.05, 0.3, 0.55)
            for a in (-35, 0, 215)
        ]
    return [*parts, *pot(chance, COLOURS["terracotta"], COLOURS["cream"])[:4]]


def vegetable(chance: Random, main: str, second: str) -> list[str]:
    parts = [_leaf(120, 96, 76, a, LEAF if a % 2 else LEAF_DARK) for a in (-25, -60, -90, -121, -155)]
    for x, y, r in ((84, 156, 38), (156, 154, 40), (120 + between(chance, -4, 4), 138, 46)):
        parts += [
            circle(x, y, r, main if r > 39 else second),
            circle(x - r / 3, y - r / 3, r / 5, "#fff", ' opacity=".45"'),
            path(trace("M{} {}q-14-4-18 6M{} {}q14-4 18 6", x, y - r, x, y - r), stroke=LEAF_DARK, width=5),
        ]
    return parts


def tool(chance: Random, main: str, second: str) -> list[str]:
    tilt = between(chance, 20, 50)
    handle = f'<rect x="112" y="96" width="16" height="112" rx="8" fill="{second}"/>'
    blade = path("M120 26q34 20 28 72h-56q-6-52 28-72z", main)
    shine = path("M120 38q-12 22-12 54", stroke="#fff8", width=5)
    return [f'<g transform="rotate({number(tilt)} 120 120)">', handle, blade, shine, "</g>"]


def pot(chance: Random, main: str, second: str) -> list[str]:
    body = path("M72 134h96l-14 76h-68z", main)
    rim = f'<rect x="62" y="114" width="116" height="26" rx="6" fill="{main}"/>'
    shade = '<rect x="62" y="132" width="116" height="8" fill="#0002"/>'
    band = path("M77 162h86", stroke=second, width=7)
    sprout = [
        path("M120 114q-4-40 2-66", stroke=LEAF_DARK, width=4),
        *(_leaf(120, y, 44, a + between(chance, -6, 6), LEAF) for y, a in ((92, -30), (84, 205), (62, -50), (60, 225))),
    ]
    return [body, rim, shade, band, *sprout]


def bag(chance: Random, main: str, second: str) -> list[str]:
    body = path("M66 48q54 14 108 0l8 156q-62 16-124 0z", main)
    label = f'<rect x="84" y="92" width="72" height="76" rx="8" fill="{second}"/>'
    sprig = [
        path("M120 156V112", stroke="#fff", width=4),
        *(_leaf(120, y, 28, a + between(chance, -5, 5), "#fff") for y, a in ((140, -35), (132, 210), (120, -60))),
    ]
    return [body, path("M66 48q54 14 108 0l-2 14q-52 12-104 0z", "#0002"), label, *sprig]


def can(chance: Random, main: str, second: str) -> list[str]:
    body = path("M78 104h84l8 100h-100z", main)
    spout = path("M166 190L214 96", stroke=main, width=14)
    rose_head = ellipse(214, 92, 20, 9, second, 40 + between(chance, -6, 6))
    handle = path("M84 106q0-56 46-56t36 56", stroke=second, width=9)
    return [handle, spout, body, rose_head, path("M80 132h84M76 172h92", stroke="#fff5", width=4)]


SHAPES: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (
        tree, conifer, shrub, bush, hedge, climber, rose, spike, daisy, perennial, iris,
        leafy, grass, bulb, fruit, berry, herb, vegetable, tool, pot, bag, can,
    )
}  # fmt: skip
