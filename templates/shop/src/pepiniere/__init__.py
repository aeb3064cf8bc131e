"""Pépinière des Quatre Vents: a small django-oscar shop, trimmed to what a shopper needs.

`loading` finds the classes that replace oscar's own; `catalogue`, `search`, `checkout`,
`basket`, `partner`, `shipping` and `order` hold them. `away` answers for a database that does
not; `menu` keeps the categories at hand. Settings come from `/etc/shop/shop.json`.
"""
