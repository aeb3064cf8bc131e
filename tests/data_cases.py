"""Bad files as data: `tests/cases/<kind>/<name>.case` holds a change to a good file, and what is said.

    A sentence: what this case is about.
    === replace
    a text that stands in the good file exactly once
    === by
    what stands there instead
    === says
    every problem, word for word

`=== file` instead of the pairs gives the whole bad file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    says: str


def load_cases(folder: Path, good: Path) -> list[Case]:
    """Every case of a folder, by name. Raises `AssertionError` when a case does not fit its good file."""
    return [load_case(path, good.read_text()) for path in sorted(folder.glob("*.case"))]


def load_case(path: Path, good: str) -> Case:
    sections = [part.partition("\n") for part in path.read_text().split("\n=== ")[1:]]
    text, wanted, says = good, None, None
    for kind, _, body in sections:
        match kind:
            case "file":
                text = body
            case "replace":
                wanted = body
            case "by":
                assert wanted is not None, path
                assert text.count(wanted) == 1, f"{path}: {wanted!r} stands {text.count(wanted)} times in the good file"
                text = text.replace(wanted, body)
            case "says":
                says = body.rstrip("\n")
            case _:
                raise AssertionError(f"{path}: a section {kind}")
    assert says is not None, f"{path}: says nothing"
    assert text != good, f"{path}: changes nothing"
    return Case(path.stem, text, says)
