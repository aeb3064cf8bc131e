"""The shop's addresses."""

from __future__ import annotations

from django.apps import apps
from django.urls import path

from .views import HomeView

urlpatterns = [
    path("", HomeView.as_view(), name="home"),
    path("catalogue/", apps.get_app_config("catalogue").urls),
    path("basket/", apps.get_app_config("basket").urls),
    path("checkout/", apps.get_app_config("checkout").urls),
    path("search/", apps.get_app_config("search").urls),
]
handler404 = "pepiniere.views.not_found"
handler500 = "pepiniere.views.broken"
