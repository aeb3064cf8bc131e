"""How an order leaves the nursery. Prices in euros, tax included."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from oscar.apps.shipping.methods import Base
from oscar.core import prices

FREE_FROM = Decimal(150)


class Carrier(Base):
    code = "transporteur"
    name = "Livraison par transporteur"
    description = "Chez vous sous 3 à 5 jours ; offerte à partir de 150 € d'achats."

    def calculate(self, basket: Any) -> prices.Price:
        if basket.total_incl_tax >= FREE_FROM:
            return prices.Price(basket.currency, Decimal(0), tax=Decimal(0))
        return prices.Price(basket.currency, Decimal("7.42"), tax=Decimal("1.48"))


class Collect(Base):
    code = "retrait"
    name = "Retrait à la pépinière"
    description = "Prêt le lendemain, du mardi au samedi."

    def calculate(self, basket: Any) -> prices.Price:
        return prices.Price(basket.currency, Decimal(0), tax=Decimal(0))
