"""The checkout's forms: an e-mail address, then where to deliver."""

from __future__ import annotations

from typing import ClassVar

from django import forms
from oscar.apps.checkout.forms import GatewayForm as CoreGatewayForm
from oscar.apps.checkout.forms import ShippingAddressForm as CoreShippingAddressForm


class GatewayForm(CoreGatewayForm):
    """Oscar's gateway with one choice left: a guest and an e-mail address."""

    username = forms.EmailField(label="Votre adresse électronique")
    options = forms.ChoiceField(
        widget=forms.HiddenInput, choices=CoreGatewayForm.CHOICES[:1], initial=CoreGatewayForm.GUEST
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.fields["password"]


class ShippingAddressForm(CoreShippingAddressForm):
    LABELS: ClassVar[dict[str, str]] = {
        "first_name": "Prénom",
        "last_name": "Nom",
        "line1": "Adresse",
        "line2": "Complément d'adresse",
        "postcode": "Code postal",
        "line4": "Ville",
        "phone_number": "Téléphone",
        "notes": "Indications pour le livreur",
    }

    class Meta(CoreShippingAddressForm.Meta):
        fields = ("first_name", "last_name", "line1", "line2", "postcode", "line4", "country", "phone_number", "notes")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name, label in self.LABELS.items():
            self.fields[name].label = label
        self.fields["notes"].widget.attrs["rows"] = 2
