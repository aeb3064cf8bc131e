"""The scripts that run on hosts (templates/hosts), each made whole: what several of them need is in one file."""

from __future__ import annotations

import re

from pcloud.inventory import defaults_dir


def host_script(name: str) -> str:
    """Its text, with the file of each line `#include FILE` in that line's place."""
    folder = defaults_dir("templates") / "hosts"
    text = (folder / name).read_text("utf-8")
    return re.sub(r"(?m)^#include (\S+)\n", lambda found: (folder / found[1]).read_text("utf-8"), text)
