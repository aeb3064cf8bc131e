"""What a shopper may ask of search."""

from __future__ import annotations

from django import forms

SORTS = [
    ("", "Pertinence"),
    ("price-asc", "Prix croissant"),
    ("price-desc", "Prix décroissant"),
    ("title-asc", "Nom de A à Z"),
]


class SearchForm(forms.Form):
    q = forms.CharField(required=False, max_length=100, strip=True)
    sort_by = forms.ChoiceField(required=False, choices=SORTS)
    page = forms.IntegerField(required=False, min_value=1, max_value=500)
