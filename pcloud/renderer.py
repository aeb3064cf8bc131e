"""The process in which templates run: Jinja2, sandboxed, strict about undefined names, bounded.

It is started by `templating.Renderer` as a program of its own, with an empty environment, and
sees plain data only: what JSON has. A sandbox stops code but not `'x' * 10**9`, so multiplying
and raising to a power are refused for anything but small numbers, a render ends at
`OUTPUT_LIMIT` characters and the process at `MEMORY_LIMIT` bytes; who started it ends it when
it takes too long.

One JSON document a line. In: `{"folders": [...], "shared": {...}}` first, then, for each request,
`{"templates": [name, ...], "context": {...}, "xml": bool}`. Out: `{"secret": name}`, which is
answered by one line, its text; then `{"texts": [...], "asked": [[secret, ...], ...]}`, an entry a
template, or `{"error": words, "where": template}`.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUTPUT_LIMIT = 1 << 20
MEMORY_LIMIT = 512 << 20
_NUMBER_LIMIT = 1 << 40


class _Refused(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(what)
        self.where = where


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        numbers = all(isinstance(side, int | float) and abs(side) < _NUMBER_LIMIT for side in (left, right))
        if not numbers or (operator == "**" and abs(right) > 64):
            raise jinja2.exceptions.SecurityError(f"a template may not compute this with {operator}")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`site.services` is a key of the inventory first, and only then a method of a mapping."""
        return obj[attribute] if isinstance(obj, dict) and attribute in obj else super().getattr(obj, attribute)


def _environments(folders: list[str]) -> dict[bool, jinja2.Environment]:
    """Guest files are text and not escaped; libvirt XML is escaped."""
    return {
        xml: _Sandbox(
            autoescape=xml,
            loader=jinja2.FileSystemLoader(folders),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        for xml in (False, True)
    }


def _render(environment: jinja2.Environment, template: str, context: Mapping[str, Any], folders: list[str]) -> str:
    parts: list[str] = []
    length = 0
    try:
        for part in environment.get_template(template).generate(**context):
            length += len(part)
            if length > OUTPUT_LIMIT:
                raise _Refused(f"the template writes more than {OUTPUT_LIMIT} characters", template)
            parts.append(part)
    except jinja2.TemplateNotFound as error:
        raise _Refused(f"there is no template {error.name} in {', '.join(folders)}", template) from error
    except jinja2.TemplateSyntaxError as error:
        raise _Refused(f"line {error.lineno}: {error.message}", error.name or template) from error
    except MemoryError as error:
        raise _Refused(f"the template needs more than {MEMORY_LIMIT >> 20} MiB of memory", template) from error
    except RecursionError as error:
        raise _Refused("the template includes itself, or calls itself, without end", template) from error
    except (jinja2.TemplateError, ArithmeticError, AttributeError, TypeError, ValueError, LookupError) as error:
        raise _Refused(f"cannot be rendered: {error}", template) from error
    return "".join(parts)


def _ask(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError("a secret is named by a text")
    _say({"secret": name})
    return str(json.loads(sys.stdin.readline()))


def _say(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _answer(request: Mapping[str, Any], environment: jinja2.Environment, given: Mapping[str, Any]) -> dict[str, Any]:
    texts, asked_by_each = [], []
    for template in request["templates"]:
        asked: list[str] = []

        def secret(name: object, asked: list[str] = asked) -> str:
            asked.append(str(name))
            return _ask(name)

        context = {**given["shared"], **request["context"], **({} if request["xml"] else {"secret": secret})}
        try:
            texts.append(_render(environment, template, context, given["folders"]))
        except _Refused as refused:
            return {"error": str(refused), "where": refused.where}
        asked_by_each.append(asked)
    return {"texts": texts, "asked": asked_by_each}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    given = json.loads(sys.stdin.readline())
    environments = _environments(given["folders"])
    while line := sys.stdin.readline():
        request = json.loads(line)
        _say(_answer(request, environments[request["xml"]], given))


if __name__ == "__main__":
    main()
