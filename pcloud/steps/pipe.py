"""Bytes from one machine to another through this one, as they come: never whole in memory, nor on this disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pcloud.errors import PcloudError
from pcloud.steps.base import Answer, Machine


class _TakerGoneError(Exception):
    """The machine that takes the bytes ended before they did."""


def pipe(
    giver: Machine,
    give: Sequence[str],
    taker: Machine,
    take: Sequence[str],
    *,
    deadline_s: float,
    sent: Callable[[int], None] = lambda _: None,
) -> tuple[Answer, str]:
    """What `give` prints is what `take` reads; what that answered, and the SHA-256 of what passed.

    `sent` hears how many bytes have. Raises what either command's `run` does; the taker's failure
    goes before the giver's, which it causes. When the giver fails, the taker has read an end that
    is none: what it makes of the bytes counts only once this function has returned.
    """
    reading, writing = os.pipe()
    digest, passed = hashlib.sha256(), 0

    def put(data: bytes) -> None:
        nonlocal passed
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(writing, left) :]
            except OSError as error:
                raise _TakerGoneError from error
        digest.update(data)
        passed += len(data)
        sent(passed)

    def taking() -> Answer:
        with os.fdopen(reading, "rb") as source:
            return taker.run(take, deadline_s=deadline_s, stdin=source)

    with ThreadPoolExecutor(max_workers=1) as pool:
        taken = pool.submit(taking)
        failed: PcloudError | None = None
        try:
            giver.run(give, deadline_s=deadline_s, stdout=put)
        except PcloudError as error:
            failed = error
        except _TakerGoneError:
            pass
        finally:
            with suppress(OSError):
                os.close(writing)
        answer = _answer(taken.result, failed)
    return answer, digest.hexdigest()


def _answer(taken: Callable[[], Answer], failed: PcloudError | None) -> Answer:
    try:
        answer = taken()
    except PcloudError:
        if failed is not None:
            raise failed from None
        raise
    if failed is not None:
        raise failed
    return answer
