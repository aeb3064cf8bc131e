"""What a model found wrong, in plain words: what it is, and what to write instead.

The words come from the model's own JSON Schema (ranges, choices, descriptions, examples), so
an editor that reads the schema and `pcloud validate` say the same.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, NetmaskValueError, ip_network
from typing import Any

from pydantic import BaseModel, ValidationError

Key = tuple[str | int, ...]
Schema = Mapping[str, Any]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_/-]{1,80}")
_FORMATS = {
    "ipv4": "an IPv4 address; write one such as 10.77.0.11",
    "ipv4network": "an IPv4 network; write its first address and its size, such as 10.77.0.0/24",
}
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,17})?")


def format_path(path: Key) -> str:
    """`("groups", 0, "checks")` as `groups[0].checks`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            shown += f".{part}" if shown else part
        else:
            shown += f"[{show(part)}]"
    return shown


def show(value: object, limit: int = 60) -> str:
    """A value as YAML would write it, in quotes when it is a text; cut when it is long."""
    match value:
        case str():
            text = value if len(value) <= limit else value[: limit - 1] + "…"
            quoted = json.dumps(text, ensure_ascii=False)
            return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case None:
            return "nothing"
        case _:
            text = str(value)
            return text if len(text) <= limit else text[: limit - 1] + "…"


def explain(error: ValidationError, model: type[BaseModel], data: object) -> Iterator[tuple[Key, str]]:
    """Each problem's path in `data` and its words."""
    schema = _schema(model)
    for found in error.errors(include_url=False):
        if found["type"] == "too_short" and len(found["input"]) >= found["ctx"]["min_length"]:
            continue  # an entry is wrong, and is told about by itself
        path = tuple(part for part in found["loc"] if part != "[key]")
        if "[key]" in found["loc"]:
            yield path, _explain_key(path, schema)
            continue
        path = _written(path, data)
        here = _schema_at(schema, path)
        yield path, _explain_one(dict(found), here, path, schema)


def _written(path: Key, data: object) -> Key:
    """The part of a path that names keys and entries, without pydantic's names of union branches."""
    kept: list[str | int] = []
    for n, part in enumerate(path):
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and part in range(len(data))):
            data = data[part]  # type: ignore[index]
            kept.append(part)
        elif n == len(path) - 1 and isinstance(data, dict):
            kept.append(part)
    return tuple(kept)


def editor_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON Schema for editors: what to write as its text, and no null, which is never read."""
    schema: dict[str, Any] = _for_editor(_schema(model))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _for_editor(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_for_editor(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _for_editor(value) for key, value in schema.items() if key not in ("x-wants", "anyOf")}
    if isinstance(kept.get("title"), str):
        del kept["title"]
    if kept.get("default", "") is None:
        del kept["default"]
    branches = [_for_editor(s) for s in schema.get("anyOf", ()) if s.get("type") != "null"]
    if len(branches) == 1:
        kept = {**branches[0], **kept}
    elif branches:
        kept["anyOf"] = branches
    if isinstance(schema.get("x-wants"), str):
        said = kept.get("description")
        kept["description"] = f"{said} ({schema['x-wants']})" if said else schema["x-wants"]
    return kept


@lru_cache(maxsize=16)
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _resolve(schema: Schema, root: Schema) -> Schema:
    """Follow `$ref`, and leave an optional's null aside; descriptions of the outer one win."""
    for _ in range(10):
        if "$ref" in schema:
            inner = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in schema:
            inner = next((s for s in schema["anyOf"] if s.get("type") != "null"), {})
        else:
            break
        schema = {**inner, **{k: v for k, v in schema.items() if k not in ("$ref", "anyOf")}}
    return schema


def _schema_at(root: Schema, path: Key) -> Schema:
    here = _resolve(root, root)
    for part in path:
        if isinstance(part, int):
            inner = here.get("items", {})
        else:
            inner = here.get("properties", {}).get(part, here.get("additionalProperties", {}))
            if not isinstance(inner, Mapping) or not inner:
                # Keys with a pattern: a dict[Name, X] becomes patternProperties.
                inner = next(iter(here.get("patternProperties", {}).values()), {})
        here = _resolve(inner, root)
    return here


def _explain_key(path: Key, root: Schema) -> str:
    names = _schema_at(root, path[:-1]).get("propertyNames", {})
    wants = _wants({"type": "string", **_resolve(names, root)})
    return f"the name {show(path[-1])} is not right; write {wants}"


def _explain_one(found: Mapping[str, Any], here: Schema, path: Key, root: Schema) -> str:
    kind, value, said, context = found["type"], found.get("input"), found["msg"], found.get("ctx", {})
    if here.get("x-private") and kind not in ("missing", "extra_forbidden"):
        return f"is not right here (what is written is not shown); write {_wants(here)}"
    shown = show(value)
    match kind:
        case "missing":
            return f"is missing; add it{_dash(_wants(here))}"
        case "extra_forbidden":
            keys = tuple(_schema_at(root, path[:-1]).get("properties", ()))
            return f"is not a key here; {did_you_mean(str(path[-1]), keys)}"
        case "literal_error" | "enum":
            return f"{shown} is not possible here; {did_you_mean(str(value), here.get('enum', ()), 'write one of')}"
        case "string_pattern_mismatch":
            return f"{shown} is not right here; write {_wants(here)}"
        case "string_too_short" | "string_too_long" | "too_short" | "too_long":
            return _explain_size(kind, value, here, context)
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return f"{shown} is out of range; write {_range(here)}"
        case "value_error":
            return _explain_own(value, context["error"], here)
        case "string_type" if here.get("format") in _FORMATS:
            return f"{shown} is not {_FORMATS[here['format']]}"
    return _explain_type(kind, value, here) or f"{shown}: {said[:1].lower()}{said[1:]}"


def _explain_own(value: object, error: Exception, here: Schema) -> str:
    """A `ValueError` of our own models says it all; those of `ipaddress` do not say what to write."""
    if str(error).endswith("has host bits set"):
        return f"{show(value)} is the address of a host; write {ip_network(str(value), strict=False)} for its network"
    if isinstance(error, AddressValueError | NetmaskValueError):
        return f"{show(value)} is not {_FORMATS.get(here.get('format', ''), 'an address')}"
    return str(error)


def _explain_type(kind: str, value: object, here: Schema) -> str:
    shown = show(value)
    number = isinstance(value, str) and _NUMBER.fullmatch(value)
    match kind:
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return f"{shown} is not a whole number; {'take the quotes off' if number else _write_one(here)}"
        case "float_type" | "float_parsing" | "finite_number":
            return f"{shown} is not a number; {'take the quotes off' if number else _write_one(here)}"
        case "bool_type" | "bool_parsing":
            return f"{shown} is not a yes/no; write true or false"
        case "string_type":
            if isinstance(value, dict | list):
                return f"is {shown} where a text should be{_semicolon(_wants(here))}"
            return f'{shown} is read as a {"yes/no" if isinstance(value, bool) else "number"}; quote it: "{shown}"'
        case "tuple_type" | "list_type" | "set_type" | "frozen_set_type":
            return f"is {shown} where a list should be; write [one, two], or a line `- one` for each"
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type" | "dataclass_type":
            keys = ", ".join(here.get("required", ()) or here.get("properties", ()))
            return f"is {shown} where a mapping should be; write `key: value` lines{' (' + keys + ')' if keys else ''}"
    return ""


def _explain_size(kind: str, value: object, here: Schema, context: Mapping[str, Any]) -> str:
    least = here.get("minLength", here.get("minItems", here.get("minProperties", context.get("min_length"))))
    most = here.get("maxLength", here.get("maxItems", here.get("maxProperties", context.get("max_length"))))
    unit = "characters" if kind.startswith("string") else "entries"
    has = len(value) if isinstance(value, str | list | tuple | dict) else context.get("actual_length", "?")
    if not has:
        return f"is empty; write {_wants(here) if unit == 'characters' else 'at least one entry'}"
    limit = f"at least {least}" if kind.endswith("short") else f"at most {most}"
    return f"has {has} {unit}; {limit} fit here"


def _range(here: Schema) -> str:
    """The numbers that fit, in words."""
    noun = "a whole number" if here.get("type") == "integer" else "a number"
    low, above = here.get("minimum"), here.get("exclusiveMinimum")
    high, below = here.get("maximum"), here.get("exclusiveMaximum")
    parts = []
    if low is not None and high is not None:
        return f"{noun} from {low:g} to {high:g}" if high < 10**6 else f"{noun} from {low} to {high}"
    if low is not None:
        parts.append(f"at least {low}")
    if above is not None:
        parts.append(f"above {above:g}")
    if high is not None:
        parts.append(f"at most {high:g}" if high < 10**6 else f"at most {high}")
    if below is not None:
        parts.append(f"below {below:g}")
    return f"{noun} {' and '.join(parts)}".strip()


def _write_one(here: Schema) -> str:
    return "write " + _range(here).replace("a whole number", "one", 1).replace("a number", "one", 1)


def _wants(here: Schema) -> str:
    """What belongs here, from the schema's description and example."""
    kind = here.get("type")
    example = f", such as {here['examples'][0]}" if here.get("examples") else ""
    if kind in ("integer", "number"):
        return _range(here) + example
    if "enum" in here:
        return f"one of {', '.join(map(str, here['enum']))}"
    if kind == "boolean":
        return "true or false"
    if here.get("x-wants"):
        return f"{here['x-wants']}{example}"
    if example:
        return f"a text{example}"
    return {"array": "a list", "object": "a mapping", "string": "a text"}.get(str(kind), "")


def did_you_mean(word: str, choices: Sequence[object], lead: str = "the keys are") -> str:
    names = list(dict.fromkeys(str(c) for c in choices))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"{lead} {', '.join(names)}" if names else "take it out"


def _dash(words: str) -> str:
    return f" ({words})" if words else ""


def _semicolon(words: str) -> str:
    return f"; write {words}" if words else ""
