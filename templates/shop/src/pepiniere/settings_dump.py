"""For migrations only: oscar's migrations name applications that the shop itself does not run."""

from __future__ import annotations

from .settings import *  # noqa: F403
from .settings import INSTALLED_APPS

INSTALLED_APPS = [
    *INSTALLED_APPS,
    "django.contrib.flatpages",
    "oscar.apps.analytics",
    "oscar.apps.catalogue.reviews",
    "oscar.apps.wishlists",
]
LEFT_OUT = ("django_flatpage", "analytics_", "reviews_", "wishlists_")
