"""A saved plan's file."""

from __future__ import annotations

from pathlib import Path

from pcloud.document import decode_text, read_file, show_path
from pcloud.errors import BadInput
from pcloud.files import write_atomically
from pcloud.plan import Plan

LARGEST_PLAN = 64 << 20
"""Bytes of a saved plan; one of 7,000 servers is a tenth of it."""


def write_plan(path: Path, made: Plan) -> None:
    try:
        write_atomically(path, made.to_json(), 0o600)
    except OSError as error:
        raise BadInput(
            f"the plan cannot be written: {error.strerror}", where=str(path), next="name a file that can be"
        ) from error


def read_plan(path: Path) -> str:
    return decode_text(read_file(path, LARGEST_PLAN)[0], show_path(path))
