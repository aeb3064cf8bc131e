"""Oscar's own seam for replacing its classes, `OSCAR_DYNAMIC_CLASS_LOADER`, local first.

Oscar's default loader imports its own module even when a shop replaces all of it; for search
that would pull in haystack, for the catalogue the customers' forms. Here a class of `LOCAL` is
taken from the shop, and oscar's module is imported for the others only.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from oscar.core.exceptions import ClassNotFoundError

LOCAL = frozenset(
    {
        "basket.utils",
        "catalogue.views",
        "checkout.forms",
        "checkout.views",
        "order.utils",
        "partner.strategy",
        "search.forms",
        "search.views",
        "shipping.repository",
    }
)


def local_first(label: str, names: list[str], prefix: str) -> list[Any]:
    """The classes `names` of module `label` ("search.views"), the shop's own before oscar's."""
    modules = [f"pepiniere.{label}"] if label in LOCAL else []
    return [_find(name, [*modules, f"{prefix}.{label}"]) for name in names]


def _find(name: str, modules: list[str]) -> Any:
    for module in modules:
        found = getattr(import_module(module), name, None)
        if found is not None:
            return found
    raise ClassNotFoundError(f"No class {name!r} in {' or '.join(modules)}")
