"""How long until a change in the shop is found by its search: `python -m benchmarks.freshness`.

Inside the lab, the shop whole. A product gets a word that no other has, in the primary, its date
with it, as the shop does. Found is when the shop's search page shows it: replicated to the indexer,
seen there, indexed, taken up by the search daemon, asked for by a frontend.
"""

from __future__ import annotations

import json
import secrets
import time
import urllib.request
from html import escape
from typing import Any

from benchmarks.lab import DEMO
from pcloud.cli.session import Session, open_session
from pcloud.steps.replication import sql

TIMES = 5
WITHIN_S = 60
LOOK_S = 0.25
SERVER = "db-1"


def change(session: Session, word: str) -> str:
    """Puts the word into a product's description; its title."""
    product = "SELECT MIN(id) FROM shop.catalogue_product WHERE structure = 'standalone'"
    columns = f"description = CONCAT(description, ' {word}'), date_updated = UTC_TIMESTAMP(6)"
    statements = f"SET @id = ({product}); UPDATE shop.catalogue_product SET {columns} WHERE id = @id;"
    rows = sql(session.world, SERVER, f"{statements} SELECT title FROM shop.catalogue_product WHERE id = @id")
    return rows[-1][0]


def found_after_s(session: Session) -> float:
    """Seconds from the commit to the search page that shows the product. Raises `TimeoutError`."""
    word = "".join(secrets.choice("abcdefghijklmnoprstuvz") for _ in range(12))
    page = f"http://{session.site.services['storefront'].address}/search/?q={word}"
    title = change(session, word)
    began = time.monotonic()
    while time.monotonic() - began < WITHIN_S:
        with urllib.request.urlopen(page, timeout=10) as answer:
            if escape(title) in answer.read().decode():
                return time.monotonic() - began
        time.sleep(LOOK_S)
    raise TimeoutError(f"{title} is not found by {word} within {WITHIN_S} s")


def main() -> dict[str, Any]:
    with open_session(str(DEMO)) as session:
        every_s = session.site.search.changes_every_s
        return {"found_s": [round(found_after_s(session), 1) for _ in range(TIMES)], "every_s": every_s}


if __name__ == "__main__":
    print(json.dumps(main()))
