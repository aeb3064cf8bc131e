"""The nursery's assortment: what the reference shop sells, made the same way every time.

`generator.products()` turns the lines of `plants.txt` and `goods.txt` into products, `pictures.py`
draws one SVG for each. Pure Python, no Django: the dump, the image build and the tests use it.
"""
