"""Orders are confirmed on the page; this shop sends no mail (its servers have no way out)."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("oscar.checkout")


class OrderDispatcher:
    def __init__(self, logger: Any = None, mail_connection: Any = None) -> None:
        self.logger = logger

    def send_order_placed_email_for_user(self, order: Any, extra_context: Any, attachments: Any = None) -> None:
        logger.info("Order #%s: placed, total %s", order.number, order.total_incl_tax)
