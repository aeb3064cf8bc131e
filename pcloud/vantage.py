"""What this machine sees of its own network, when it may be the one that is cut off."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

LIMIT_S = 2.0
"""What `ip` has for an answer: it asks the kernel, and nobody else."""
_FAILED = frozenset({"FAILED", "INCOMPLETE"})


def look_from_here(address: str, links: Path = Path("/sys/class/net")) -> str:
    """The link, the route and the gateway that lead to `address`, as a clause; empty where that cannot be told."""
    route = _ask("ip", "-json", "route", "get", address)
    if route is None:
        return ""
    if not route or "dev" not in route[0]:
        return f"this machine has no route to {address}"
    device, gateway = str(route[0]["dev"]), str(route[0].get("gateway", ""))
    link = f"this machine's way to {address} is {device}, which is {_state_of(links / device)}"
    if not gateway:
        return f"{link}, with no gateway between"
    neighbours = _ask("ip", "-json", "neigh", "show", gateway, "dev", device) or []
    failed = [n for n in neighbours if _FAILED & set(n.get("state", ()))]
    return f"{link}; its gateway {gateway} {'does not answer' if failed or not neighbours else 'answers'}"


def _state_of(link: Path) -> str:
    try:
        return (link / "operstate").read_text().strip()
    except OSError:
        return "unknown"


def _ask(*argv: str) -> list[dict[str, Any]] | None:
    """None where there is no such program, or no answer; without a route, nothing."""
    try:
        said = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if said.returncode != 0:
            return []
        answer = json.loads(said.stdout or "[]")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return [one for one in answer if isinstance(one, dict)]
