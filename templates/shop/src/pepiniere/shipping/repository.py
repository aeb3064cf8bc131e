"""The delivery choices at the checkout."""

from __future__ import annotations

from oscar.apps.shipping.repository import Repository as CoreRepository

from .methods import Carrier, Collect


class Repository(CoreRepository):
    methods = (Carrier(), Collect())
