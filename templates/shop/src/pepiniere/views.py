"""The home page and the pages for what went wrong."""

from __future__ import annotations

import sys

from django.db.utils import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.generic import TemplateView

from . import away, tiles

PUT_FORWARD = 12


class HomeView(TemplateView):
    template_name = "home.html"

    def get_context_data(self, **kwargs):
        context = super().get_context_data(**kwargs)
        context["products"] = tiles.tiles(tiles.public()[:PUT_FORWARD])
        return context


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    try:
        return render(request, "404.html", status=404)
    except DatabaseError:
        return away.after(request)


def broken(request: HttpRequest) -> HttpResponse:
    """Also where a database error ends that a middleware met (the session, the basket)."""
    error = sys.exc_info()[1]
    if error is not None and away.is_away(error):
        return away.after(request)
    return HttpResponse(render_to_string("away.html"), status=500)
