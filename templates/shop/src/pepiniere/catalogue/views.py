"""The product's page; the lists are in `search.views`, where oscar looks for them too."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.views.generic import TemplateView
from oscar.apps.catalogue.signals import product_viewed
from oscar.core.loading import get_class, get_model

from .. import menu, tiles

CatalogueView = get_class("search.views", "CatalogueView")
ProductCategoryView = get_class("search.views", "ProductCategoryView")

BESIDE = 4


class ProductDetailView(TemplateView):
    template_name = "oscar/catalogue/detail.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self.product = self._product(int(kwargs["pk"]))
        url = self.product.get_absolute_url()
        if request.path != url:
            return HttpResponsePermanentRedirect(url)
        response = super().get(request, *args, **kwargs)
        product_viewed.send(sender=self, product=self.product, user=request.user, request=request, response=response)
        return response

    def _product(self, pk: int) -> Any:
        product = get_model("catalogue", "Product")
        try:
            return product.objects.select_related("product_class").get(pk=pk, is_public=True)
        except product.DoesNotExist as error:
            raise Http404("no such product") from error

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        product = self.product
        link = get_model("catalogue", "ProductCategory").objects.filter(product=product)
        node = menu.nodes().get(link.values_list("category_id", flat=True).first())
        picture = get_model("catalogue", "ProductImage").objects.filter(product=product)
        original = picture.order_by("display_order").values_list("original", flat=True).first()
        context.update(
            product=product,
            purchase=self.request.strategy.fetch_for_product(product),
            picture=settings.MEDIA_URL + (original or "p/none.svg"),
            category=node,
            beside=self._beside(node),
        )
        return context

    def _beside(self, node: menu.Node | None) -> list[tiles.Tile]:
        """A few other products of the category, those that follow this one."""
        if node is None:
            return []
        near = tiles.public().filter(productcategory__category_id=node.pk, pk__gt=self.product.pk).order_by("pk")
        return tiles.tiles(near[:BESIDE])
