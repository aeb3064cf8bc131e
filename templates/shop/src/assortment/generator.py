"""From the lines of `plants.txt` and `goods.txt` to products; the same products every time.

Whatever varies (price, stock, wording) is drawn from a hash of the product's title, so a new
species changes no other product. Prices include the French value added tax: 10 % on plants,
20 % on goods.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

PLANT, GOODS_KIND = "plante", "accessoire"


@dataclass(frozen=True)
class Product:
    """One article of the shop. `price` is in euros, tax included; `height_cm` is 0 for goods."""

    upc: str
    title: str
    slug: str
    description: str
    category: tuple[str, str]
    kind: str
    price: Decimal
    stock: int
    height_cm: int
    shape: str
    colours: tuple[str, str]

    @property
    def picture(self) -> str:
        """The picture's path below the media folder."""
        return f"p/{self.slug}.svg"


def draw(*words: str, below: int) -> int:
    """A number in `range(below)` that depends on the words alone."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def slugify(text: str) -> str:
    """ASCII words joined by dashes; `œ` and `×` are spelled out, accents dropped."""
    text = text.replace("œ", "oe").replace("Œ", "Oe").replace("×", "x").replace("'", " ")
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", folded).strip("-")


def ean13(number: int) -> str:
    """A French EAN-13 for the article's running number, check digit included."""
    body = f"376012{number:06d}"
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(body))
    return f"{body}{-total % 10}"


def _price(title: str, span: str) -> Decimal:
    low, high = (int(end) for end in span.split("-"))
    euros = low + draw(title, "price", below=high - low + 1)
    return Decimal(euros) - Decimal("0.10" if draw(title, "cents", below=2) else "0.05")


def _stock(title: str) -> int:
    return 200 + draw(title, "stock", below=1800)


HABITS = (
    "Une valeur sûre de nos planches d'essai, choisie pour sa vigueur.",
    "Élevé en pleine terre dans notre pépinière, puis mis en pot au printemps.",
    "Peu exigeant, il se plaît dans toute bonne terre de jardin.",
    "Remarqué pour la longueur de sa saison et la tenue de son feuillage.",
    "Une obtention ancienne, toujours appréciée des jardiniers.",
    "Reprise facile : plantez-le de préférence à l'automne et arrosez la première année.",
    "Cultivé sans tourbe ni désherbant, livré en pot avec sa motte.",
)
HARDY = ("jusqu'à -7 °C", "jusqu'à -12 °C", "jusqu'à -15 °C", "jusqu'à -20 °C", "jusqu'à -25 °C")


def _plant_text(title: str, botanical: str, section: tuple[str, str, str], height: int) -> str:
    exposure, season, use = section
    habit = HABITS[draw(title, "habit", below=len(HABITS))]
    hardy = HARDY[draw(title, "hardy", below=len(HARDY))]
    tall = f"{height / 100:.1f} m".replace(".", ",") if height >= 100 else f"{height} cm"
    return (
        f"{title} ({botanical}), à planter {use}. {habit} "
        f"Exposition : {exposure}. Intérêt : {season}. Hauteur adulte : {tall}. Rusticité : {hardy}."
    )


def _sections(file: str) -> Iterator[tuple[list[str], list[str]]]:
    """Each line's cells with the cells of the heading above it."""
    heading: list[str] = []
    for line in Path(__file__).with_name(file).read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.lstrip("# ").split("|")]
        if line.startswith("## "):
            heading = cells
        elif not line.startswith("#"):
            yield heading, cells


def _split(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(",") if part.strip()]


def _category(cell: str) -> tuple[str, str]:
    top, sub = (part.strip() for part in cell.split(">"))
    return top, sub


def _plants(first: int) -> Iterator[Product]:
    number = first
    for heading, (name, botanical, shape, colours, span, height, cultivars) in _sections("plants.txt"):
        for cultivar in _split(cultivars):
            title = f"{name} '{cultivar}'"
            yield Product(
                upc=ean13(number),
                title=title,
                slug=slugify(title),
                description=_plant_text(title, botanical, (heading[1], heading[2], heading[3]), int(height)),
                category=_category(heading[0]),
                kind=PLANT,
                price=_price(title, span),
                stock=_stock(title),
                height_cm=int(height),
                shape=shape,
                colours=(_split(colours)[0], _split(colours)[1]),
            )
            number += 1


def _goods(first: int) -> Iterator[Product]:
    number = first
    for heading, (name, shape, colours, span, text, variants) in _sections("goods.txt"):
        for variant in _split(variants):
            title = f"{name} {variant}"
            yield Product(
                upc=ean13(number),
                title=title,
                slug=slugify(title),
                description=f"{title}. {text}",
                category=_category(heading[0]),
                kind=GOODS_KIND,
                price=_price(title, span),
                stock=_stock(title),
                height_cm=0,
                shape=shape,
                colours=(_split(colours)[0], _split(colours)[1]),
            )
            number += 1


def products() -> list[Product]:
    """Every article, in the order of the categories."""
    plants = list(_plants(1))
    return plants + list(_goods(500_001))


def categories(articles: list[Product]) -> dict[str, list[str]]:
    """The categories of two levels, in order of appearance: top -> its subcategories."""
    tree: dict[str, list[str]] = {}
    for article in articles:
        top, sub = article.category
        subs = tree.setdefault(top, [])
        if sub not in subs:
            subs.append(sub)
    return tree
