"""The application gunicorn serves. Importing it does all the work a first request would.

Collecting garbage while modules load only costs time (nothing is garbage yet), and freezing
afterwards keeps the collector, and copy-on-write, away from what was loaded.
"""

from __future__ import annotations

import gc
import os

gc.disable()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pepiniere.settings")

from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

import django  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.template.loader import get_template  # noqa: E402
from django.urls import get_resolver  # noqa: E402

from . import away  # noqa: E402

WARM = ("home.html", "away.html", "oscar/catalogue/category.html", "oscar/catalogue/detail.html")


def _warm() -> None:
    _ = get_resolver().url_patterns
    for name in WARM:
        get_template(name)


django.setup(set_prefix=False)
_shop = WSGIHandler()
_warm()
gc.freeze()
gc.enable()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/livez`: this process answers. `/readyz`: it could serve a shopper. All else: the shop."""
    path = environ["PATH_INFO"]
    if path == "/livez":
        return _plain(start_response, 200, "ok\n")
    if path == "/readyz":
        return _plain(start_response, *away.readiness())
    return _shop(environ, start_response)


def _plain(start_response: Callable[..., Any], status: int, text: str) -> list[bytes]:
    body = text.encode()
    reason = "OK" if status == 200 else "Service Unavailable"
    start_response(
        f"{status} {reason}",
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ],
    )
    return [body]
