"""The categories, read once a minute and kept in the process: no page asks for them again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from django.urls import reverse
from oscar.core.loading import get_model

KEEP_S = 60.0


@dataclass
class Node:
    """A public category; `url` is its page, `children` are in the catalogue's order."""

    pk: int
    name: str
    description: str
    path: str
    url: str
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)

    @property
    def trail(self) -> list[Node]:
        """From the top category down to this one."""
        return [*self.parent.trail, self] if self.parent else [self]

    @property
    def with_children(self) -> list[int]:
        """The keys of this category and of those below it."""
        return [self.pk, *(pk for child in self.children for pk in child.with_children)]


_kept: tuple[float, dict[int, Node]] = (float("-inf"), {})


def nodes() -> dict[int, Node]:
    """Every public category by its key, in the catalogue's order. One query a minute."""
    global _kept
    read_at, tree = _kept
    now = time.monotonic()
    if now - read_at > KEEP_S:
        tree = _read()
        _kept = (now, tree)
    return tree


def tops() -> list[Node]:
    """The top categories, for the navigation."""
    return [node for node in nodes().values() if node.parent is None]


def _read() -> dict[int, Node]:
    category = get_model("catalogue", "Category")
    rows = category.objects.filter(is_public=True, ancestors_are_public=True).order_by("path")
    tree: dict[int, Node] = {}
    by_path: dict[str, tuple[Node, str]] = {}
    for pk, name, slug, description, path in rows.values_list("pk", "name", "slug", "description", "path"):
        parent, above = by_path.get(path[: -category.steplen], (None, ""))
        full_slug = f"{above}/{slug}" if above else slug
        url = reverse("catalogue:category", kwargs={"category_slug": full_slug, "pk": pk})
        node = Node(pk, name, description, path, url, parent)
        if parent:
            parent.children.append(node)
        tree[pk] = node
        by_path[path] = (node, full_slug)
    return tree
