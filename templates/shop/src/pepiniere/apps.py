"""Oscar's applications as this shop uses them: no accounts, no dashboard, no offers' pages.

Each class keeps oscar's name and label, so models and migrations are oscar's; what changes is
which views are loaded at start and which addresses they get.
"""

from __future__ import annotations

from importlib import import_module

from django.urls import path, re_path
from oscar.apps.basket.apps import BasketConfig as CoreBasketConfig
from oscar.apps.catalogue.apps import CatalogueOnlyConfig
from oscar.apps.checkout.apps import CheckoutConfig as CoreCheckoutConfig
from oscar.apps.customer.apps import CustomerConfig as CoreCustomerConfig
from oscar.apps.offer.apps import OfferConfig as CoreOfferConfig
from oscar.apps.search.apps import SearchConfig as CoreSearchConfig
from oscar.core.application import OscarConfig
from oscar.core.loading import get_class


class ShopConfig(OscarConfig):
    """The shop's own templates and template tags."""

    name = "pepiniere"
    label = "pepiniere"


class CatalogueConfig(CatalogueOnlyConfig):
    def ready(self) -> None:
        import_module("oscar.apps.catalogue.receivers")
        self.detail_view = get_class("catalogue.views", "ProductDetailView")
        self.catalogue_view = get_class("search.views", "CatalogueView")
        self.category_view = get_class("search.views", "ProductCategoryView")

    def get_urls(self):
        urls = [
            path("", self.catalogue_view.as_view(), name="index"),
            re_path(r"^(?P<product_slug>[\w-]*)_(?P<pk>\d+)/$", self.detail_view.as_view(), name="detail"),
            re_path(
                r"^category/(?P<category_slug>[\w-]+(/[\w-]+)*)_(?P<pk>\d+)/$",
                self.category_view.as_view(),
                name="category",
            ),
        ]
        return self.post_process_urls(urls)


class SearchConfig(CoreSearchConfig):
    pass


class CustomerConfig(CoreCustomerConfig):
    """Only its models: shoppers order as guests."""

    def ready(self) -> None:
        pass

    def get_urls(self):
        return []


class OfferConfig(CoreOfferConfig):
    """Offers apply to baskets; they have no pages of their own."""

    def ready(self) -> None:
        import_module("oscar.apps.offer.receivers")

    def get_urls(self):
        return []


class BasketConfig(CoreBasketConfig):
    def ready(self) -> None:
        self.summary_view = get_class("basket.views", "BasketView")
        self.add_view = get_class("basket.views", "BasketAddView")

    def get_urls(self):
        urls = [
            path("", self.summary_view.as_view(), name="summary"),
            path("add/<int:pk>/", self.add_view.as_view(), name="add"),
        ]
        return self.post_process_urls(urls)


class CheckoutConfig(CoreCheckoutConfig):
    def ready(self) -> None:
        self.index_view = get_class("checkout.views", "IndexView")
        self.shipping_address_view = get_class("checkout.views", "ShippingAddressView")
        self.shipping_method_view = get_class("checkout.views", "ShippingMethodView")
        self.payment_method_view = get_class("checkout.views", "PaymentMethodView")
        self.payment_details_view = get_class("checkout.views", "PaymentDetailsView")
        self.thankyou_view = get_class("checkout.views", "ThankYouView")

    def get_urls(self):
        urls = [
            path("", self.index_view.as_view(), name="index"),
            path("shipping-address/", self.shipping_address_view.as_view(), name="shipping-address"),
            path("shipping-method/", self.shipping_method_view.as_view(), name="shipping-method"),
            path("payment-method/", self.payment_method_view.as_view(), name="payment-method"),
            path("payment-details/", self.payment_details_view.as_view(), name="payment-details"),
            path("preview/", self.payment_details_view.as_view(preview=True), name="preview"),
            path("thank-you/", self.thankyou_view.as_view(), name="thank-you"),
        ]
        return self.post_process_urls(urls)
