"""What a browser would send when a shopper presses a form's button (HTML's form submission).

Only what a page without scripts does: the values that are present, overridden by the shopper's.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
from bs4 import BeautifulSoup, Tag

_BUTTONS = ("submit", "image")
_NEVER_SENT = ("button", "reset", "file", *_BUTTONS)


class Unusable(Exception):
    """The page has not what the shopper needs; `str()` says what."""


@dataclass(frozen=True)
class Submission:
    method: str
    url: httpx.URL
    content: bytes = b""
    content_type: str = ""


def attribute(tag: Tag, name: str) -> str:
    """One attribute's text, "" when it is not there (the first of a list, as for `class`)."""
    value = tag.get(name)
    if value is None:
        return ""
    return value if isinstance(value, str) else " ".join(value)


def submission(page: BeautifulSoup, form: Tag, base: httpx.URL, fields: Mapping[str, str]) -> Submission:
    """The request of a form on a page at `base`. Raises `Unusable`, also for a field that the form lacks."""
    controls = _controls(page, form)
    button = next((c for c in controls if _is_button(c)), None)
    names = {attribute(c, "name") for c in controls} - {""}
    if missing := [name for name in fields if name not in names]:
        raise Unusable(f"the form has no field {', '.join(missing)}; it has {', '.join(sorted(names)) or 'none'}")
    pairs = _override(_present(controls, button), fields)
    url = base.join(_of(button, form, "action") or str(base.copy_with(fragment=None)))
    method = _of(button, form, "method").upper() or "GET"
    if method == "GET":
        return Submission("GET", url.copy_with(query=urllib.parse.urlencode(pairs).encode(), fragment=None))
    if method != "POST":
        raise Unusable(f"the form's method is {method}, which sends nothing")
    content_type, content = _encode(pairs, _of(button, form, "enctype").lower())
    return Submission("POST", url, content, content_type)


def _of(button: Tag | None, form: Tag, name: str) -> str:
    """A form's attribute, which its button may change (`formaction`, ...)."""
    own = attribute(button, f"form{name}") if button is not None else ""
    return (own or attribute(form, name)).strip()


def _controls(page: BeautifulSoup, form: Tag) -> list[Tag]:
    """The form's fields and buttons in the page's order, without the disabled ones."""
    inside = form.find_all(["input", "select", "textarea", "button"])
    controls = [tag for tag in inside if attribute(tag, "form") in ("", attribute(form, "id"))]
    if name := attribute(form, "id"):
        known = {id(tag) for tag in controls}
        outside = page.find_all(["input", "select", "textarea", "button"], attrs={"form": name})
        controls += [tag for tag in outside if id(tag) not in known]
    return [
        tag for tag in controls if not tag.has_attr("disabled") and tag.find_parent("fieldset", disabled=True) is None
    ]


def _kind(tag: Tag) -> str:
    if tag.name == "input":
        return attribute(tag, "type").lower() or "text"
    if tag.name == "button":
        return attribute(tag, "type").lower() or "submit"
    return tag.name


def _is_button(tag: Tag) -> bool:
    return _kind(tag) in _BUTTONS


def _present(controls: Sequence[Tag], button: Tag | None) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for tag in controls:
        name, kind = attribute(tag, "name"), _kind(tag)
        if not name or (kind in _NEVER_SENT and tag is not button):
            continue
        if kind in ("checkbox", "radio"):
            if tag.has_attr("checked"):
                pairs.append((name, attribute(tag, "value") if tag.has_attr("value") else "on"))
        elif kind == "select":
            pairs += [(name, value) for value in _selected(tag)]
        elif kind == "textarea":
            pairs.append((name, tag.get_text().removeprefix("\n").replace("\r\n", "\n").replace("\n", "\r\n")))
        elif kind != "image":
            pairs.append((name, attribute(tag, "value")))
    return pairs


def _selected(select: Tag) -> list[str]:
    options = [option for option in select.find_all("option") if not option.has_attr("disabled")]
    chosen = [option for option in options if option.has_attr("selected")]
    if not select.has_attr("multiple"):
        chosen = chosen[-1:] or options[:1]
    return [attribute(o, "value") if o.has_attr("value") else _label(o) for o in chosen]


def _label(option: Tag) -> str:
    # Its own text only: html.parser puts the next <option> inside one that was left open.
    return " ".join("".join(option.find_all(string=True, recursive=False)).split())


def _override(pairs: list[tuple[str, str]], fields: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each of the shopper's values once, in the place of the first value that it replaces."""
    sent: list[tuple[str, str]] = []
    left = dict(fields)
    for name, value in pairs:
        if name not in fields:
            sent.append((name, value))
        elif name in left:
            sent.append((name, left.pop(name)))
    return sent + list(left.items())


def _encode(pairs: list[tuple[str, str]], enctype: str) -> tuple[str, bytes]:
    if enctype == "multipart/form-data":
        parts = httpx.Request("POST", "http://x/", files=[(name, (None, value.encode())) for name, value in pairs])
        return parts.headers["content-type"], parts.read()
    if enctype == "text/plain":
        return "text/plain", "".join(f"{name}={value}\r\n" for name, value in pairs).encode()
    return "application/x-www-form-urlencoded", urllib.parse.urlencode(pairs).encode()
