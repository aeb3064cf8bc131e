"""The boring part of YAML, read from a text that may be hostile.

One document of mappings, lists, texts, `true`, `false` and plain decimal numbers. Everything
else is a problem with its line: what readers of YAML disagree about (`no`, `0755`,
`12:30:00`), what hides values (anchors, aliases, tags, merge keys), and bombs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from pcloud.errors import Problem
from pcloud.wording import Key, format_path, show

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
MAX_NODES = 100_000

# C0 and C1 controls, DEL, Unicode line separators (editors and YAML count lines differently with
# them), bidirectional overrides (text that reads as something else), surrogates, non-characters.
_HOSTILE = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff"
_BAD_SOURCE = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f{_HOSTILE}]|\r(?!\n)")
_BAD_VALUE = re.compile(rf"[\x00-\x08\x0b-\x1f{_HOSTILE}]")

_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_NOTHING = re.compile(r"|~|null", re.IGNORECASE)
_BOOLISH = re.compile(r"y|n|yes|no|on|off|true|false", re.IGNORECASE)
_NUMBERISH = re.compile(
    r"[-+]?(0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+|\.inf|\.nan|(?=\.?[0-9])[0-9_]*(\.[0-9_]*)?(e[-+]?[0-9]+)?)", re.IGNORECASE
)
_TIMEISH = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt\s].*)?")
_LONG_NUMBER = re.compile(r"[-+]?[0-9]{19,}|[-+.0-9_:eE]{65,}")


class _StopError(Exception):
    """What follows cannot be trusted or is too much: the problem that says so is the last."""


@dataclass
class _Frame:
    """A mapping or list that is still open. `key` is the mapping's key that waits for its value."""

    path: Key
    holder: dict[str, Any] | list[Any]
    key: str | None = None
    doubled: bool = False

    def child(self) -> Key:
        return (*self.path, len(self.holder) if isinstance(self.holder, list) else self.key or "")


@dataclass
class Reader:
    """Builds data from PyYAML's events with a stack of its own: no recursion, nothing constructed.

    A refused value keeps its text in `data`, so that all problems are found in one reading.
    """

    name: str
    private: bool
    data: Any = None
    lines: dict[Key, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    frames: list[_Frame] = field(default_factory=list)
    doubtful: set[Key] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    last_line: int = 1
    nodes: int = 0
    documents: int = 0
    stopped: bool = False

    def show(self, value: str) -> str:
        return "this value" if self.private else show(value)

    def refuse(self, path: Key, line: int, what: str) -> None:
        self.doubtful.add(path)
        self.problems.append(Problem(self.name, line, format_path(path), what))

    def refuse_once(self, path: Key, line: int, what: str) -> None:
        """For what comes in hundreds when it comes: the first one tells."""
        self.doubtful.add(path)
        if what not in self.told:
            self.told.add(what)
            self.refuse(path, line, what)

    def stop(self, path: Key, line: int, what: str) -> None:
        self.refuse(path, line, what)
        raise _StopError

    def take(self, event: yaml.Event) -> None:
        line = self.last_line = event.start_mark.line + 1 if event.start_mark else 1
        match event:
            case yaml.DocumentStartEvent():
                self.begin(event, line)
            case yaml.NodeEvent():
                self.node(event, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.frames.pop()
            case _:
                pass

    def begin(self, event: yaml.DocumentStartEvent, line: int) -> None:
        self.documents += 1
        if self.documents > 1:
            self.stop((), line, "a second document begins here; keep one a file")
        if event.version or event.tags:
            self.stop((), line, "begins with a % directive; take it out")
        self.lines[()] = line

    def node(self, event: yaml.NodeEvent, line: int) -> None:
        self.nodes += 1
        frame = self.frames[-1] if self.frames else None
        if self.nodes > MAX_NODES:
            self.stop((), line, f"holds more than {MAX_NODES} values; split it or name the right file")
        if frame is not None and isinstance(frame.holder, dict) and frame.key is None:
            self.take_key(frame, event, line)
            return
        path = frame.child() if frame else ()
        if not (frame and frame.doubled):
            # A mapping's entry keeps the line of its key, which take_key has set.
            self.lines.setdefault(path, line)
        if frame is None:
            self.lines[()] = line
        value = self.value(event, path, line)
        self.place(frame, value)
        if isinstance(event, yaml.CollectionStartEvent):
            self.frames.append(_Frame(path, value))

    def place(self, frame: _Frame | None, value: Any) -> None:
        if frame is None:
            self.data = value
        elif isinstance(frame.holder, list):
            frame.holder.append(value)
        else:
            if not frame.doubled:
                frame.holder[frame.key or ""] = value
            frame.key, frame.doubled = None, False

    def take_key(self, frame: _Frame, event: yaml.NodeEvent, line: int) -> None:
        at = frame.path
        if event.anchor or not isinstance(event, yaml.ScalarEvent) or event.tag:
            self.stop(at, line, "a key must be a plain word; write it as `word: value`")
            return
        key = event.value
        if event.style is None and key == "<<":
            self.refuse((*at, key), line, "a merge key is not read here; write the values out")
        elif event.style is None and (_INT.fullmatch(key) or _FLOAT.fullmatch(key) or self.doubt(key)):
            self.refuse((*at, key), line, f"a key must be a text; quote it: {show(key)}")
        elif _BAD_VALUE.search(key) or "\n" in key or len(key) > 200:
            self.stop(at, line, "a key must be a short word, without line breaks or control characters")
        frame.key, frame.doubled = key, key in frame.holder
        if frame.doubled:
            first = self.lines[*at, key]
            self.refuse((*at, key), line, f"is here twice, first on line {first}; keep one")
        else:
            self.lines[*at, key] = line

    def value(self, event: yaml.NodeEvent, path: Key, line: int) -> Any:
        """What stands for this node; a refused one keeps its text, so that reading can go on."""
        if isinstance(event, yaml.AliasEvent):
            what = "an alias (*) is not read here; write the value out, or quote it if it is a text"
            self.refuse_once(path, line, what)
            return ""
        if event.anchor:
            what = "an anchor (&) is not read here; take it out, or quote it if it is a text"
            self.refuse_once(path, line, what)
        tag = getattr(event, "tag", None)
        if tag:
            self.refuse_once(path, line, "a tag (!) is not read here; take it out, or quote it if it is a text")
        if isinstance(event, yaml.CollectionStartEvent):
            if len(self.frames) >= MAX_DEPTH:
                self.stop(path[:3], line, f"is nested deeper than {MAX_DEPTH} levels; flatten it")
            return {} if isinstance(event, yaml.MappingStartEvent) else []
        assert isinstance(event, yaml.ScalarEvent)
        text = event.value
        if bad := _BAD_VALUE.search(text):
            self.refuse(path, line, f"holds the control character U+{ord(bad[0]):04X}; take it out")
            return ""
        return self.plain(text, path, line) if event.style is None and not tag else text

    def plain(self, text: str, path: Key, line: int) -> Any:
        """An unquoted scalar: true, false, a plain decimal number, or a text without surprise."""
        if text in ("true", "false"):
            return text == "true"
        if _INT.fullmatch(text) and text != "-0":
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if doubt := self.doubt(text):
            self.refuse(path, line, doubt)
        return text

    def doubt(self, text: str) -> str | None:
        """Why readers of YAML would not agree on this unquoted text."""
        if _NOTHING.fullmatch(text):
            return "has no value; write one, or take the line out"
        shown = "it" if self.private else f"it: {show(text)}"
        if _BOOLISH.fullmatch(text):
            # true and false themselves are values, and no doubt; as a key they get here.
            return f"{self.show(text)} may mean a text or a yes/no; write true or false, or quote {shown}"
        if _LONG_NUMBER.fullmatch(text):
            return f"{self.show(text)} is too long for a number; write a smaller one, or quote {shown}"
        if len(text) > 64:
            return None
        if _TIMEISH.fullmatch(text):
            return f"{self.show(text)} may mean a text, a time or a number in base 60; quote {shown}"
        if _NUMBERISH.fullmatch(text):
            return f"{self.show(text)} is not a plain decimal number; write one (12 or 0.5), or quote {shown}"
        return None


def read(text: str, name: str, *, private: bool = False) -> Reader:
    """Read a whole text; `problems` says what was refused, `stopped` whether the rest was read."""
    reader = Reader(name, private)
    text = text.removeprefix("\ufeff")
    try:
        if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            reader.stop((), 1, f"is larger than {MAX_BYTES // 1024} KiB; name the right file, or take something out")
        if bad := _BAD_SOURCE.search(text):
            line = text.count("\n", 0, bad.start()) + 1
            reader.stop((), line, f"holds the control character U+{ord(bad[0]):04X}; take it out")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            reader.take(event)
        if not reader.documents:
            reader.stop((), 1, "is empty; `pcloud init` writes a file to start from")
    except _StopError:
        reader.stopped = True
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _refuse_syntax(reader, mark.line + 1 if mark else reader.last_line, error)
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets int() and chr() fail: a %YAML version or a \U escape out of bounds.
        reader.stopped = True
        what = "from here, a number or a \\ escape is out of range"
        reader.problems.append(Problem(name, reader.last_line, "", what))
    return reader


def _refuse_syntax(reader: Reader, line: int, error: yaml.MarkedYAMLError) -> None:
    """A place where the text stops being YAML: nothing after it can be read."""
    reader.stopped = True
    said, around = error.problem or "", error.context or ""
    begins = error.context_mark.line + 1 if error.context_mark else line
    if "'\\t'" in said:
        what = "a tab stands where only spaces may; replace it by spaces"
    elif "mapping values are not allowed" in said:
        what = "a `: ` where none can be: quote the text it is in, add the `:` missing before it, or mend the indent"
    elif "found character" in said:
        what = "a text that begins with a special character; quote it"
    elif "quoted scalar" in around and "end of stream" in said:
        line, what = begins, "the quote that begins here does not end; close it"
    elif "quoted scalar" in around:
        what = "a \\ in double quotes that is not an escape; write \\\\, or use single quotes"
    elif "flow" in around:
        line, what = begins, "the [ or { that begins here does not end well; close it, or quote the texts in it"
    else:
        what = "is not YAML from here; look at the indent, a missing `:`, an open bracket or quote"
    reader.problems.append(Problem(reader.name, line, "", what))
