"""Fills an empty shop's database with the assortment. Needs Django set up (see `make_dump.py`).

Every date is fixed, so that the same assortment gives the same dump.
"""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connection, transaction
from oscar.core.loading import get_model

from .generator import Product, categories, draw, products, slugify

DATE = datetime(2025, 3, 1, 8, 0, tzinfo=UTC)
FORWARD = 12  # products that the home page shows
BATCH = 200

TOP_TEXT = {
    "Arbres": "Pour l'ombre, la fleur ou l'automne.",
    "Arbustes": "La charpente du jardin.",
    "Rosiers": "Buissons, grimpants et anciens.",
    "Vivaces": "Celles qui reviennent chaque année.",
    "Fruitiers": "Du verger au balcon.",
    "Potager": "À semer, à repiquer, à goûter.",
    "Jardin": "Outils, pots et terreaux.",
}


def load() -> int:
    """Writes the whole catalogue in one transaction; returns how many products."""
    articles = products()
    with transaction.atomic():
        _site_and_country()
        classes = _classes()
        nodes = _categories(articles)
        _products(articles, classes, nodes)
    _fix_dates()
    return len(articles)


def _site_and_country() -> None:
    get_model("sites", "Site").objects.update_or_create(
        pk=1, defaults={"domain": "pepiniere.example", "name": "Pépinière des Quatre Vents"}
    )
    get_model("address", "Country").objects.create(
        iso_3166_1_a2="FR",
        iso_3166_1_a3="FRA",
        iso_3166_1_numeric="250",
        printable_name="France",
        name="France",
        is_shipping_country=True,
    )
    get_model("payment", "SourceType").objects.create(code="livraison", name="Paiement à la livraison")


def _classes() -> dict[str, object]:
    product_class = get_model("catalogue", "ProductClass")
    names = {"plante": "Plante", "accessoire": "Accessoire"}
    return {slug: product_class.objects.create(name=name, slug=slug) for slug, name in names.items()}


def _categories(articles: list[Product]) -> dict[tuple[str, str], object]:
    category = get_model("catalogue", "Category")
    nodes: dict[tuple[str, str], object] = {}
    for top, subs in categories(articles).items():
        root = category.add_root(name=top, slug=slugify(top), description=TOP_TEXT[top])
        for sub in subs:
            root.refresh_from_db()
            nodes[top, sub] = root.add_child(name=sub, slug=slugify(sub))
    return nodes


def _put_forward(articles: list[Product]) -> set[str]:
    """A few articles, each of another subcategory, chosen once and for all."""
    first: dict[tuple[str, str], Product] = {}
    for article in sorted(articles, key=lambda a: draw(a.title, "forward", below=1_000_000)):
        if article.kind == "plante":
            first.setdefault(article.category, article)
    return {article.upc for article in list(first.values())[:FORWARD]}


def _products(articles: list[Product], classes: dict[str, object], nodes: dict[tuple[str, str], object]) -> None:
    product, stock = get_model("catalogue", "Product"), get_model("partner", "StockRecord")
    link, image = get_model("catalogue", "ProductCategory"), get_model("catalogue", "ProductImage")
    partner = get_model("partner", "Partner").objects.create(name="Pépinière des Quatre Vents", code="quatre-vents")
    forward = _put_forward(articles)
    rows = [
        product(
            pk=number,
            upc=article.upc,
            title=article.title,
            slug=article.slug,
            description=article.description,
            product_class=classes[article.kind],
            priority=10 if article.upc in forward else 0,
        )
        for number, article in enumerate(articles, 1)
    ]
    product.objects.bulk_create(rows, BATCH)
    pairs = list(enumerate(articles, 1))
    stock.objects.bulk_create(
        [
            stock(
                product_id=number,
                partner=partner,
                partner_sku=article.upc,
                price_currency="EUR",
                price=article.price,
                num_in_stock=article.stock,
            )
            for number, article in pairs
        ],
        BATCH,
    )
    link.objects.bulk_create(
        [link(product_id=number, category=nodes[article.category]) for number, article in pairs], BATCH
    )
    image.objects.bulk_create(
        [image(product_id=number, original=article.picture, caption="", display_order=0) for number, article in pairs],
        BATCH,
    )


def _fix_dates() -> None:
    product, stock = get_model("catalogue", "Product"), get_model("partner", "StockRecord")
    product.objects.update(date_created=DATE, date_updated=DATE)
    stock.objects.update(date_created=DATE, date_updated=DATE)
    get_model("catalogue", "ProductImage").objects.update(date_created=DATE)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_migrations SET applied = %s", [DATE.replace(tzinfo=None)])
