"""Oscar's checkout, paid on delivery: the order and how it will be paid go to the database."""

from __future__ import annotations

from typing import Any

from django.urls import reverse_lazy
from oscar.apps.checkout import views as core
from oscar.core.loading import get_model

IndexView = core.IndexView
ShippingAddressView = core.ShippingAddressView
ShippingMethodView = core.ShippingMethodView
ThankYouView = core.ThankYouView

ON_DELIVERY = "Paiement à la livraison"


class PaymentMethodView(core.PaymentMethodView):
    """There is one way to pay, nothing to choose: straight to the summary."""

    success_url = reverse_lazy("checkout:preview")


class PaymentDetailsView(core.PaymentDetailsView):
    def handle_payment(self, order_number: str, total: Any, **kwargs: Any) -> None:  # noqa: ARG002
        kind, _ = get_model("payment", "SourceType").objects.get_or_create(
            code="livraison", defaults={"name": ON_DELIVERY}
        )
        source = get_model("payment", "Source")(
            source_type=kind, currency=total.currency, amount_allocated=total.incl_tax, reference=str(order_number)
        )
        self.add_payment_source(source)
