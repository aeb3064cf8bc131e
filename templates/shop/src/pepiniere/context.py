"""What every page's template can use."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.db.models import Sum
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject, empty
from oscar.core.loading import get_model

from . import menu


def shop(request: HttpRequest) -> dict[str, Any]:
    return {
        "shop_name": settings.OSCAR_SHOP_NAME,
        "server": settings.SERVER,
        "menu": SimpleLazyObject(menu.tops),
        "basket_count": SimpleLazyObject(lambda: Count(request)),
    }


def basket_of(request: HttpRequest) -> int | None:
    """The number of the basket that the shopper's cookie names, whatever has become of it."""
    cookie = request.COOKIES.get(settings.OSCAR_BASKET_COOKIE_OPEN, "")
    try:
        return int(Signer().unsign(cookie))
    except (BadSignature, ValueError):
        return None


class Count:
    """How many articles the shopper's basket holds, without loading the basket for it."""

    def __init__(self, request: HttpRequest) -> None:
        self.number = self._count(request)

    def __str__(self) -> str:
        return str(self.number)

    def _count(self, request: HttpRequest) -> int:
        basket = getattr(request, "basket", None)
        if basket is not None and basket._wrapped is not empty:
            return basket.num_items
        pk = basket_of(request)
        if pk is None:
            return 0
        lines = get_model("basket", "Line").objects.filter(basket_id=pk, basket__status="Open")
        return lines.aggregate(number=Sum("quantity"))["number"] or 0
