"""What a shopper is told when the basket changes: offers won or lost, not the new total."""

from __future__ import annotations

from typing import Any

from oscar.apps.basket.utils import BasketMessageGenerator as CoreBasketMessageGenerator


class BasketMessageGenerator(CoreBasketMessageGenerator):
    def get_new_total_messages(self, basket: Any, include_buttons: bool = True) -> list[tuple[int, str]]:  # noqa: ARG002
        return []  # the page that follows shows the basket itself
