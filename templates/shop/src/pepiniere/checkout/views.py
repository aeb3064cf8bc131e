"""Oscar's checkout, paid on delivery: the order and how it will be paid go to the database."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse_lazy
from oscar.apps.checkout import views as core
from oscar.apps.checkout.utils import CheckoutSessionData
from oscar.apps.order.exceptions import UnableToPlaceOrder
from oscar.core.loading import get_model

from .. import context

IndexView = core.IndexView
ShippingAddressView = core.ShippingAddressView
ShippingMethodView = core.ShippingMethodView
ThankYouView = core.ThankYouView

ON_DELIVERY = "Paiement à la livraison"


class PaymentMethodView(core.PaymentMethodView):
    """There is one way to pay, nothing to choose: straight to the summary."""

    success_url = reverse_lazy("checkout:preview")


class PaymentDetailsView(core.PaymentDetailsView):
    """The order, all or nothing, and once: a basket makes one order, whoever sends it how often.

    Oscar commits an order in several parts and tidies up after an error; a database that goes away
    in between would leave a frozen basket, or an order that the shopper never hears of. Here all of
    it is one commit. A shopper who got no answer sends the same basket again, and is shown the order
    when there is one.
    """

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "POST" and request.POST.get("action") == "place_order":
            placed = self._order_of(context.basket_of(request))
            if placed is not None:
                self.checkout_session = CheckoutSessionData(request)
                return self.handle_successful_order(placed)
        return super().dispatch(request, *args, **kwargs)

    def submit(self, user: Any, basket: Any, order_total: Any, **submission: Any) -> HttpResponse:
        """Oscar's submission, without what only a payment elsewhere would need."""
        submission.pop("payment_kwargs", None)
        more = submission.pop("order_kwargs", None) or {}
        number = self.generate_order_number(basket)
        try:
            with transaction.atomic():
                get_model("basket", "Basket").objects.select_for_update().get(pk=basket.pk)
                order = self._order_of(basket.pk)
                if order is None:
                    self.handle_payment(number, order_total)
                    order = self.place_order(number, user, basket, order_total=order_total, **submission, **more)
                    basket.submit()
        except (UnableToPlaceOrder, ValueError) as error:
            return self.render_preview(self.request, error=str(error))
        return self.handle_successful_order(order)

    def handle_payment(self, order_number: str, total: Any, **kwargs: Any) -> None:  # noqa: ARG002
        kind, _ = get_model("payment", "SourceType").objects.get_or_create(
            code="livraison", defaults={"name": ON_DELIVERY}
        )
        source = get_model("payment", "Source")(
            source_type=kind, currency=total.currency, amount_allocated=total.incl_tax, reference=str(order_number)
        )
        self.add_payment_source(source)

    def _order_of(self, basket: int | None) -> Any:
        """The order that this basket has become, if it has."""
        return get_model("order", "Order").objects.filter(basket_id=basket).first() if basket else None
