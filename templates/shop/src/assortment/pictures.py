"""Draws one picture a product: an SVG of 1 to 4 KiB, the same one every time.

    python3 -m assortment.pictures FOLDER

writes `FOLDER/p/<slug>.svg` for every product and `FOLDER/p/none.svg`. Drawn when the frontend's
image is built, so no picture is in the repository and none is made while the shop runs. Scalable
pictures need no thumbnails: lists and product pages show the same file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from .generator import Product, products
from .shapes import COLOURS, SHAPES, SIZE, SOIL, between, ellipse, number

FLOWERS = {"bulb", "bush", "climber", "daisy", "iris", "perennial", "rose", "shrub", "spike"}


def picture(article: Product) -> str:
    """The article's SVG. Its colours are the species', its details depend on the title."""
    chance = Random(article.title)
    main, second = (COLOURS[name] for name in article.colours)
    if article.shape in FLOWERS and chance.random() < 0.5:
        main, second = second, main
    sky = between(chance, 70, 130)
    ground = ellipse(SIZE / 2, 210, 84, 12, SOIL)
    return _framed(f"hsl({number(sky)} 32% 93%)", [ground, *SHAPES[article.shape](chance, main, second)])


def _framed(background: str, parts: list[str]) -> str:
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}">'
    return f'{frame}<rect width="{SIZE}" height="{SIZE}" fill="{background}"/>{"".join(parts)}</svg>\n'


def main(folder: Path) -> int:
    """Writes every picture; returns how many bytes."""
    target = folder / "p"
    target.mkdir(parents=True, exist_ok=True)
    total = 0
    for article in products():
        total += (target / f"{article.slug}.svg").write_bytes(picture(article).encode())
    return total + (target / "none.svg").write_bytes(_framed("#eef2e6", []).encode())


if __name__ == "__main__":
    print(f"{main(Path(sys.argv[1]))} bytes of pictures")
