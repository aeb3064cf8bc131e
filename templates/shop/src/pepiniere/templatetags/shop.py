"""Filters for the shop's templates."""

from __future__ import annotations

from decimal import Decimal

from django import template

register = template.Library()
THIN, HARD = "\N{NARROW NO-BREAK SPACE}", "\N{NO-BREAK SPACE}"


@register.filter
def euros(amount: Decimal | None) -> str:
    """`1234.5` as `1 234,50 €`; nothing for no price. Cheaper than a locale's whole machinery."""
    if amount is None:
        return ""
    return f"{amount:,.2f}".replace(",", THIN).replace(".", ",") + HARD + "€"
