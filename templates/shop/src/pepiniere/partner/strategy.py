"""Prices as French shoppers see them: the stock record holds the price with tax.

10 % value added tax on plants, 20 % on goods, by the product's class.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from oscar.apps.partner import prices, strategy

RATES = {"plante": Decimal("0.10"), "accessoire": Decimal("0.20")}
CENT = Decimal("0.01")


def without_tax(price: Decimal, rate: Decimal) -> Decimal:
    return (price / (1 + rate)).quantize(CENT)


class FrenchPrices:
    """Mixin for a structured strategy."""

    def pricing_policy(self, product: Any, stockrecord: Any) -> Any:
        if stockrecord is None or stockrecord.price is None:
            return prices.Unavailable()
        rate = RATES.get(product.get_product_class().slug, RATES["accessoire"])
        bare = without_tax(stockrecord.price, rate)
        return prices.TaxInclusiveFixedPrice(
            currency=stockrecord.price_currency, excl_tax=bare, tax=stockrecord.price - bare
        )

    def parent_pricing_policy(self, product: Any, children_stock: Any) -> Any:  # noqa: ARG002
        return prices.Unavailable()


class French(strategy.UseFirstStockRecord, strategy.StockRequired, FrenchPrices, strategy.Structured):
    pass


class Selector:
    def strategy(self, request: Any = None, **_: Any) -> French:
        return French(request)
