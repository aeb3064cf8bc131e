"""The loader of hostile YAML: what it reads, what it refuses, and that nothing else can happen."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pcloud.document import MAX_PROBLEMS, Document, load_document, load_model, parse, parse_document
from pcloud.errors import BadDocument, BadInput, PcloudError
from pcloud.model import Site
from pcloud.playbook import PlaybookFile
from tests.data_cases import CASES

GOOD = (CASES / "inventory" / "small.yaml").read_text()


def problems(text: str) -> list[str]:
    with pytest.raises(BadDocument) as caught:
        parse_document(text, "f")
    return [str(problem) for problem in caught.value.problems]


def test_plain_values_are_read_as_what_they_look_like() -> None:
    text = """
a: true
b: [false, 0, -7, 12, 0.5, -1.25]
c: {address: 10.0.0.1, range: 10.0.0.1-10.0.0.9, cidr: 10.0.0.0/24, mac: 52:54:00:ab:cd:ef, version: 1.2.3}
d: "no"
e: '0755'
f: |
  first line
  \tsecond: line
g: []
h: {}
i: École, érable du Japon
"""
    assert parse_document(text, "f").data == {
        "a": True,
        "b": [False, 0, -7, 12, 0.5, -1.25],
        "c": {
            "address": "10.0.0.1",
            "range": "10.0.0.1-10.0.0.9",
            "cidr": "10.0.0.0/24",
            "mac": "52:54:00:ab:cd:ef",
            "version": "1.2.3",
        },
        "d": "no",
        "e": "0755",
        "f": "first line\n\tsecond: line\n",
        "g": [],
        "h": {},
        "i": "École, érable du Japon",
    }


def test_lines_are_those_of_keys_and_entries() -> None:
    document = parse_document("# a comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n", "f")
    assert dict(document.lines) == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
        ("a", "c", 1, "e"): 7,
    }
    assert document.line(("a", "c", 1, "missing", "deeper")) == 6


def test_windows_line_ends_and_a_byte_order_mark_change_nothing() -> None:
    document = parse_document("\ufeffa: 1\r\nb: 2\r\n", "f")
    assert (document.data, document.line(("b",))) == ({"a": 1, "b": 2}, 2)


ODD = """
no YES On off y N True FALSE
0755 00 -0 +1 0x1F 0o17 0b101 1_000 1e3 1.5E-3 .5 5. 1_0.5 .inf -.INF .nan 9999999999999999999
12:30 12:30:00 190:20:30.15 52:54:00:12:34:56 2031-05-05 2031-5-5 2031-05-05T12:00:00Z
""".split()  # noqa: SIM905 -- a list to read


@pytest.mark.parametrize("scalar", [*ODD, "2031-05-05 12:00:00"])
def test_an_odd_scalar_is_refused_unless_quoted(scalar: str) -> None:
    (problem,) = problems(f"key: {scalar}")
    assert problem.startswith("f:1: key: ")
    assert f'quote it: "{scalar}"' in problem
    assert parse_document(f"key: '{scalar}'", "f").data == {"key": scalar}


@pytest.mark.parametrize("scalar", ["", "~", "null", "Null", "NULL"])
def test_nothing_is_not_a_value(scalar: str) -> None:
    assert problems(f"key: {scalar}") == ["f:1: key: has no value; write one, or take the line out"]


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\r"])
def test_a_control_character_in_the_text_is_refused_with_its_line(character: str) -> None:
    code = f"U+{ord(character):04X}"
    assert problems(f"a: 1\nb: x{character}y\n") == [f"f:2: holds the control character {code}; take it out"]


def test_a_refused_value_does_not_hide_the_next_problem() -> None:
    assert problems("a: no\na: 1\nb: &x 0755\nc: *x\n") == [
        'f:1: a: "no" may mean a text or a yes/no; write true or false, or quote it: "no"',
        "f:2: a: is here twice, first on line 1; keep one",
        'f:3: b: "0755" is not a plain decimal number; write one (12 or 0.5), or quote it: "0755"',
        "f:3: b: an anchor (&) is not read here; take it out, or quote it if it is a text",
        "f:4: c: an alias (*) is not read here; write the value out, or quote it if it is a text",
    ]


def test_values_stay_out_of_private_messages() -> None:
    text = 'a: 0755\nb: no\nc: *hunter2\nd: !hunter2 x\ne: 12:30:00\nf: "hunter2\\0"\n'
    with pytest.raises(BadDocument) as caught:
        parse_document(text, "f", private=True)
    said = str(caught.value)
    assert len(caught.value.problems) == 6
    assert not any(value in said for value in ("0755", "hunter2", "12:30"))


def test_hundreds_of_problems_are_told_as_a_hundred() -> None:
    with pytest.raises(BadDocument) as caught:
        parse_document("- no\n" * 700, "f")
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert str(caught.value.problems[-1]) == "f:100: ~: and 600 more; mend the ones above first"


def test_strict_types_are_kept() -> None:
    document = parse_document('groups: [{count: "4"}, {count: true}, {count: 4.0}]\nhosts: [{spare: 1, rack: 1}]', "f")
    with pytest.raises(BadDocument) as caught:
        parse(document, Site)
    said = [str(problem) for problem in caught.value.problems]
    assert 'f:1: groups[0].count: "4" is not a whole number; take the quotes off' in said
    assert "f:1: groups[1].count: true is not a whole number; write one from 1 to 10000" in said
    assert 'f:2: hosts[0].rack: 1 is read as a number; quote it: "1"' in said


# -- files that are no files


def test_what_is_no_readable_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo, folder, loop, socketish = tmp_path / "fifo", tmp_path / "folder", tmp_path / "loop", Path("/dev/zero")
    os.mkfifo(fifo)
    folder.mkdir()
    loop.symlink_to(loop)
    started = time.monotonic()
    for path, what in (
        (fifo, "is not a regular file"),
        (folder, "is not a regular file"),
        (socketish, "is not a regular file"),
        (loop, "cannot be read: Too many levels of symbolic links"),
        (tmp_path / "missing.yaml", "there is no such file"),
        (tmp_path / "nul\0.yaml", "cannot be read: embedded null byte"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        (Path("/proc/self/mem"), "cannot be read: Input/output error"),
    ):
        with pytest.raises(BadInput, match=what):
            load_document(path)
    assert time.monotonic() - started < 1


def test_an_unreadable_file_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("a: 1")
    path.chmod(0)
    # Root reads everything, so root's reader gives that right away once everything is imported.
    code = "import os; from pathlib import Path; from pcloud.document import load_document\n"
    code += "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\nload_document(Path('secret.yaml'))"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "BadInput: secret.yaml: cannot be read: Permission denied" in done.stderr


def test_bytes_that_are_not_utf8_have_a_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(BadDocument, match=r"bad.yaml:2: byte 0xe9 is not UTF-8; save the file as UTF-8"):
        load_document(path)
    path.write_bytes("a: 1".encode("utf-16"))
    with pytest.raises(BadDocument, match=r"bad.yaml:1: byte 0xff is not UTF-8"):
        load_document(path)


def test_a_file_larger_than_a_mebibyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadInput, match="is larger than 1024 KiB"):
        load_document(path)


# -- bombs


BOMBS = {
    "entries": "- a\\n" * 260_000,
    "keys": "".join(f"k{n}: v\\n" for n in range(90_000)),
    "flow": "[" + "a," * 500_000,
    "nested flow": "[" * 1_000_000,
    "nested mappings": "{a: " * 250_000,
    "nested entries": "- " * 500_000,
    "question marks": "? " * 500_000,
    "aliases": "- *a\\n" * 200_000,
    "odd scalars": "- no\\n" * 90_000,
    "duplicates": "a: 1\\n" * 49_000,
    "folded text": "a:\\n" + " b\\n" * 340_000,
    "one long text": "a: " + "b" * 1_000_000,
    "long number": "a: " + "1" * 1_000_000,
    "long time": "a: " + "1:" * 500_000,
    "escapes": 'a: "' + "\\\\n" * 500_000 + '"',
    "long key": "a" * 1_000_000 + ": 1",
    "unclosed quote": "a: '" + "b" * 1_000_000,
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_takes_little_time_and_memory(name: str) -> None:
    """In a process of its own, with 512 MiB of address space and 20 s of processor."""
    code = "import sys; from pcloud.document import parse_document, BadDocument\n"
    code += "text = sys.stdin.read().replace('\\\\n', '\\n').replace('\\\\\\n', '\\\\n')\n"
    code += "try: parse_document(text, 'f')\nexcept BadDocument as error: print(len(str(error)))"

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))

    done = subprocess.run(
        [sys.executable, "-c", code],
        input=BOMBS[name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=bounded,
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- fuzzing: a Document or a BadDocument, in bounded time, whatever comes

WORDS = r"""
a b: - ? : [ ] { } , &x *x !!str !<x> | > |2- ' " # %YAML_1.1 --- ... <<: 0755 no ~ 12:30:00 \ \U00110000 \x00 @ ` = 1e9
""".split()  # noqa: SIM905 -- a list to read
BLANKS = [" ", "  ", "\n", "\n  ", "\n    ", "\r\n", "\t", "\u2028", "\ud800", "\0", "é", "9" * 30]
TOKENS = st.sampled_from([*WORDS, *(f"{word} " for word in WORDS), *BLANKS, *BLANKS])


def document_or_problems(text: str) -> Document | BadDocument:
    started = time.process_time()
    try:
        return parse_document(text, "f")
    except BadDocument as error:
        return error
    finally:
        assert time.process_time() - started < 2


def printable(error: PcloudError) -> bool:
    return all(c.isprintable() or c == "\n" for c in str(error))


FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(st.text(max_size=200))
@example("%YAML 1." + "9" * 5000 + "\n---\na")
@example('"\\U00110000"')
@example('"\\UFFFFFFFFF"')
def test_any_text(text: str) -> None:
    found = document_or_problems(text)
    assert isinstance(found, Document) or (found.problems and printable(found))


@FUZZ
@given(st.lists(TOKENS, max_size=40).map("".join))
def test_text_that_looks_like_yaml(text: str) -> None:
    found = document_or_problems(text)
    if isinstance(found, BadDocument):
        assert printable(found)
        return
    for model in (Site, PlaybookFile):
        with pytest.raises(BadDocument) as caught:  # no site is that short
            parse(found, model)
        assert caught.value.problems
        assert printable(caught.value)


@FUZZ
@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 60),
    st.one_of(TOKENS, st.text(max_size=20), st.sampled_from(GOOD.splitlines(keepends=True))),
)
def test_a_good_site_with_a_change_anywhere(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, put: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "small.yaml"
    path.write_bytes((GOOD[:at] + put + GOOD[at + cut :]).encode("utf-8", "surrogatepass"))
    error: PcloudError | None = None
    try:
        load_model(path, Site)
    except PcloudError as caught:
        error = caught
    assert error is None or (str(error).startswith(f"{path}:") and printable(error))


PLAIN = st.recursive(
    st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), inner, max_size=4)
    ),
    max_leaves=12,
)


@FUZZ
@given(st.dictionaries(st.from_regex(r"key_[a-z]{1,4}", fullmatch=True), PLAIN, min_size=1, max_size=5))
def test_plain_data_in_json_style_is_read_back(data: dict[str, object]) -> None:
    assert parse_document(json.dumps(data), "f").data == data
