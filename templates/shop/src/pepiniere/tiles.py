"""Products as lists show them: one query, no model instances, no thumbnails."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings
from django.db.models import QuerySet
from oscar.core.loading import get_model

COLUMNS = (
    "pk",
    "slug",
    "title",
    "stockrecords__price",
    "stockrecords__num_in_stock",
    "stockrecords__num_allocated",
    "images__original",
)


@dataclass(frozen=True)
class Tile:
    """`price` is in euros, tax included; None when the product has no stock record."""

    pk: int
    title: str
    url: str
    price: Decimal | None
    in_stock: bool
    picture: str


def public() -> QuerySet:
    """The products a shopper may see in a list, the ones put forward first."""
    return get_model("catalogue", "Product").objects.filter(is_public=True).order_by("-priority", "pk")


def tiles(products: QuerySet) -> list[Tile]:
    """One tile a product, in the query's order; further stock records or pictures are left out."""
    found: dict[int, Tile] = {}
    for pk, slug, title, price, stock, allocated, picture in products.values_list(*COLUMNS):
        if pk not in found:
            left = (stock or 0) - (allocated or 0)
            url = f"/catalogue/{slug}_{pk}/"
            found[pk] = Tile(pk, title, url, price, left > 0, settings.MEDIA_URL + (picture or "p/none.svg"))
    return list(found.values())
