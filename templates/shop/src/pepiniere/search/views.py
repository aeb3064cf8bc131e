"""Search through Sphinx, and the lists of products: what oscar leaves to haystack.

Oscar resolves these three classes through its class loader; they keep oscar's names, addresses
and templates' names. `FacetedSearchView` asks Sphinx for keys and the database for the products,
so a price or a stock is never older than the shop's. `oscar.apps.search.signals.user_search` is
sent as oscar does.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.paginator import EmptyPage, PageNotAnInteger, Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.views.generic import TemplateView
from oscar.apps.search.signals import user_search

from .. import menu, tiles
from . import sphinx
from .forms import SORTS, SearchForm


class FacetedSearchView(TemplateView):
    """`/search/?q=…`: the products that match, or a plain sentence when search is away."""

    template_name = "oscar/search/results.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        form = SearchForm(self.request.GET)
        asked = form.cleaned_data if form.is_valid() else {}
        text, sort, page = asked.get("q") or "", asked.get("sort_by") or "", asked.get("page") or 1
        user_search.send(sender=self, session=self.request.session, user=self.request.user, query=text)
        context.update(query=text, sort_by=sort, sorts=SORTS, products=[], total=0, page=page, pages=0)
        if text:
            self._search(context, text, sort, page)
        return context

    def _search(self, context: dict[str, Any], text: str, sort: str, page: int) -> None:
        size = settings.OSCAR_PRODUCTS_PER_PAGE
        try:
            hits = sphinx.find(text, offset=(page - 1) * size, limit=size, sort=sort)
        except sphinx.SearchAway:
            context["search_away"] = True
            return
        found = {tile.pk: tile for tile in tiles.tiles(tiles.public().filter(pk__in=hits.keys))} if hits.keys else {}
        context["products"] = [found[key] for key in hits.keys if key in found]
        context["total"] = hits.total
        context["pages"] = -(-hits.total // size)


class CatalogueView(TemplateView):
    """All the products, page by page."""

    template_name = "oscar/catalogue/browse.html"

    def products(self) -> Any:
        return tiles.public()

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        paginator = Paginator(self.products(), settings.OSCAR_PRODUCTS_PER_PAGE)
        try:
            page = paginator.page(self.request.GET.get("page", 1))
        except (PageNotAnInteger, EmptyPage):
            page = paginator.page(1)
        context.update(
            products=tiles.tiles(page.object_list), total=paginator.count, page=page.number, pages=paginator.num_pages
        )
        return context


class ProductCategoryView(CatalogueView):
    """A category with all that is below it."""

    template_name = "oscar/catalogue/category.html"
    category: menu.Node

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        found = menu.nodes().get(int(kwargs["pk"]))
        if found is None:
            raise Http404("no such category")
        if request.path != found.url:
            return HttpResponsePermanentRedirect(found.url)
        self.category = found
        return super().get(request, *args, **kwargs)

    def products(self) -> Any:
        return tiles.public().filter(productcategory__category_id__in=self.category.with_children)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(category=self.category, **kwargs)
