"""Secrets: they do not show, they come from three places, and a missing one says what to do."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from pcloud import places
from pcloud.errors import BadDocument, BadInput
from pcloud.inventory import Inventory, load_inventory
from pcloud.secrets import Secret, Secrets, environment_name, load_secrets, secret_uses
from tests.data_cases import CASES

VALUE = "hunter2-Ünïcode"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PCLOUD_HOME", str(tmp_path / "home"))
    for name in list(os.environ):
        if name.startswith("PCLOUD_SECRET_"):
            monkeypatch.delenv(name)


def site(extra: str = "", *, lab: bool = False) -> Inventory:
    text = (CASES / "inventory" / "small.yaml").read_text() + extra
    path = Path("small.yaml")
    path.write_text(text if lab else text.replace("lab: {host_memory_mib: 4096}", "# no lab"))
    return load_inventory(path)


def secrets_of(inventory: Inventory, extra_file: Path | None = None) -> Secrets:
    return load_secrets(inventory.site, inventory.path, extra_file)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def printing(code: str) -> str:
    """A `secrets` section whose command runs `code`; the secret's name is `sys.argv[1]`."""
    return f"secrets: {json.dumps({'command': [sys.executable, '-c', 'import os, sys, time; ' + code]})}\n"


# -- a value that does not show


@dataclass(frozen=True)
class Holder:
    secret: Secret


def test_a_secret_does_not_show() -> None:
    secret = Secret(VALUE)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r}", f"{secret:>5}", "{}".format(secret), "%s" % secret]  # noqa: UP031, UP032
    shown += [str([secret]), str({"a": secret}), str(Holder(secret)), json.dumps({"a": secret}, default=str)]
    shown += [str(pickle.loads(pickle.dumps(secret)).reveal()), pickle.dumps(Holder(secret)).decode("latin-1")]
    shown += [str(ValueError(secret)), str(hash(secret)), str(dir(secret))]
    assert not [text for text in shown if "hunter2" in text or "n\xefcode" in text]
    assert shown[0] == "***"
    assert shown[4] == "  ***"
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == VALUE


def test_a_secret_is_not_a_text_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps(Secret(VALUE))
    with pytest.raises(TypeError):
        "".join([Secret(VALUE)])  # type: ignore[list-item]


def test_copies_of_a_secret_are_the_secret() -> None:
    secret = Secret(VALUE)
    assert copy.copy(secret).reveal() == VALUE
    assert asdict(Holder(secret))["secret"].reveal() == VALUE
    assert secret == Secret(VALUE)
    assert secret != Secret("other")
    assert secret != VALUE


# -- three places


def test_every_reference_of_a_site_is_known() -> None:
    uses = [(use.name, use.path) for use in secret_uses(site().site)]
    assert uses == [
        ("ssh/operator", ("access", "key")),
        ("db/monitor", ("groups", 0, "checks", 0, "sql", "password")),
    ]


def test_the_environment_comes_before_the_file_and_the_file_before_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("s.yaml"), "db/root: from the file\ndb/shop: from the file\n")
    section = printing("print('from the command, for ' + sys.argv[1])").replace("{", '{"file": "s.yaml", ', 1)
    monkeypatch.setenv("PCLOUD_SECRET_DB_ROOT", "from the environment")
    secrets = secrets_of(site(section))
    assert [secrets.reveal(name) for name in ("db/root", "db/shop", "db/other")] == [
        "from the environment",
        "from the file",
        "from the command, for db/other",
    ]


def test_names_in_the_environment() -> None:
    assert environment_name("db/root") == "PCLOUD_SECRET_DB_ROOT"
    assert environment_name("bmc/h-1_a") == "PCLOUD_SECRET_BMC_H_1_A"


def test_a_lab_has_its_own_file() -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n-----END OPENSSH PRIVATE KEY-----\n"
    block = "".join(f"  {line}\n" for line in key.splitlines())
    write(places.lab_dir("small") / "secrets.yaml", f'db/root: "from the lab"\nssh/operator: |\n{block}')
    secrets = secrets_of(site(lab=True))
    assert secrets.reveal("db/root") == "from the lab"
    assert secrets.reveal("ssh/operator") == key


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("pw\nssl=0\ninit-command=DROP DATABASE shop", "holds a line break"),
        ("pw\n", "ends with a line break"),
        ("pw\r\n", "ends with a line break"),
        ("a\tb", "holds a line break or a control character"),
        ("a\x1b[2Jb", "holds a line break or a control character"),
        ("a\u2028b", "holds a line break or a control character"),
        ("a\x85b", "holds a line break or a control character"),
        ("-----BEGIN X-----\n\x1b[2J\n-----END X-----\n", "holds a line break or a control character"),
        ("-----BEGIN X-----\ninit-command=DROP DATABASE shop", "holds a line break or a control character"),
    ],
)
def test_a_secret_cannot_be_two_lines(value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes into option files, where a line of its own is an order."""
    monkeypatch.setenv("PCLOUD_SECRET_DB_ROOT", value)
    with pytest.raises(BadInput, match=f"the secret db/root {says}"):
        secrets_of(site()).get("db/root")
    monkeypatch.setenv("PCLOUD_SECRET_DB_ROOT", "pâté 'n' \u00a0 \\ \" $(id) 🐟")
    assert secrets_of(site()).reveal("db/root") == "pâté 'n' \u00a0 \\ \" $(id) 🐟"


def test_a_file_given_by_a_person_takes_the_place_of_the_sites_own() -> None:
    write(Path("s.yaml"), "db/root: site's\n")
    extra = write(Path("extra.yaml"), "db/root: person's\n")
    inventory = site("secrets: {file: s.yaml}\n")
    assert secrets_of(inventory, extra).reveal("db/root") == "person's"
    with pytest.raises(BadInput, match="there is no such file"):
        secrets_of(inventory, Path("missing.yaml"))


# -- what is missing or wrong


def test_a_missing_secret_says_where_it_is_used_and_three_ways_to_give_it() -> None:
    inventory = site("access: {key: {secret: ssh/night-shift}}\n")
    with pytest.raises(BadInput) as caught:
        secrets_of(inventory).get("ssh/night-shift")
    assert str(caught.value) == (
        "small.yaml:56: access.key: the secret ssh/night-shift is nowhere to be found\n"
        '  next: set $PCLOUD_SECRET_SSH_NIGHT_SHIFT; or write `ssh/night-shift: "..."` in secrets.yaml (chmod 600), '
        "and name the file as secrets.file in the inventory; or give a command that prints it as secrets.command in "
        "the inventory"
    )


def test_a_default_reference_and_one_of_a_template_say_so() -> None:
    secrets = secrets_of(site("secrets: {file: s.yaml}\n"))
    with pytest.raises(
        BadInput, match=r"small.yaml:21: groups\[0\].checks\[0\].sql.password \(its default\): the secret"
    ):
        secrets.get("db/monitor")
    with pytest.raises(
        BadInput, match=r'^small.yaml \(asked for by a template\): .*\n.*`db/shop: "..."` in /.*/s.yaml'
    ):
        secrets.get("db/shop")


def test_all_missing_secrets_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = secrets_of(site())
    assert [error.what for error in secrets.check()] == [
        "the secret ssh/operator is nowhere to be found",
        "the secret db/monitor is nowhere to be found",
    ]
    monkeypatch.setenv("PCLOUD_SECRET_SSH_OPERATOR", "k")
    monkeypatch.setenv("PCLOUD_SECRET_DB_MONITOR", "m")
    assert secrets.check() == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_file_that_others_reach_is_refused(mode: int) -> None:
    write(Path("my secrets.yaml"), "db/root: x\n", mode)
    with pytest.raises(BadInput) as caught:
        secrets_of(site('secrets: {file: "my secrets.yaml"}\n'))
    path = Path("my secrets.yaml").absolute()
    assert str(caught.value) == (
        f"{path}: holds secrets and others may read or change it (mode {mode:04o})\n  next: chmod 600 '{path}'"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused() -> None:
    os.chown(write(Path("s.yaml"), "db/root: x\n"), 12345, 12345)
    with pytest.raises(BadInput, match=r"belongs to user 12345, not to you \(0\)\n  next: chown 0 /.*/s.yaml"):
        secrets_of(site("secrets: {file: s.yaml}\n"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "db/root: 0755\n",
            "s.yaml:1: db/root: this value is not a plain decimal number; write one (12 or 0.5), or quote it",
        ),
        ("db/root: 81234\n", "s.yaml:1: db/root: is not a text; write the value in quotes, on this line"),
        ("db: {root: x}\n", "s.yaml:1: db: is not a text; write the value in quotes, on this line"),
        ("db/root: ''\n", "s.yaml:1: db/root: is empty; write the value, or take the line out"),
        ("DB/root: x\n", "s.yaml:1: DB/root: is not a secret's name; write one such as db/root"),
        ("- x\n", 's.yaml:1: is not a mapping; write a line `db/root: "..."` for each secret'),
        ("db/root: *hunter2\n", "s.yaml:1: db/root: an alias (*) is not read here; write the value out, or quote it"),
        ("db/root: @hunter2\n", "s.yaml:1: a text that begins with a special character; quote it"),
    ],
)
def test_a_bad_file_is_told_without_its_values(text: str, says: str) -> None:
    write(Path("s.yaml"), text)
    with pytest.raises(BadDocument) as caught:
        secrets_of(site("secrets: {file: s.yaml}\n"))
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "81234" not in str(caught.value)


def test_an_empty_value_and_a_bad_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCLOUD_SECRET_DB_ROOT", "")
    with pytest.raises(BadInput, match=r"^\$PCLOUD_SECRET_DB_ROOT: the secret db/root is empty"):
        secrets_of(site()).get("db/root")
    with pytest.raises(BadInput, match="cannot be the name of a secret"):
        secrets_of(site()).get("../root")


# -- the command


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "print('hun' 'ter2'); print('no key', file=sys.stderr); sys.exit(3)",
            "ended with 3 for the secret db/root: no key",
        ),
        ("print('hun' 'ter2' * 100000)", "prints more than 64 KiB for the secret db/root"),
        ("sys.stdout.buffer.write(b'hun' b'ter2\\xff')", "prints no UTF-8 text for the secret db/root"),
        ("print()", "the secret db/root is empty"),
        ("print('hun' 'ter2\\0')", "the secret db/root holds a line break or a control character"),
        ("os.kill(os.getpid(), 9)", "ended with -9 for the secret db/root"),
    ],
)
def test_a_command_that_fails_does_not_show_its_output(code: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        secrets_of(site(printing(code))).get("db/root")
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(BadInput, match=r"no-such-command db/root: cannot be run for the secret db/root: No such file"):
        secrets_of(site("secrets: {command: [no-such-command]}\n")).get("db/root")


@pytest.mark.parametrize(
    "code", ["time.sleep(60)", "os.close(1); os.close(2); time.sleep(60)", "os.fork(); time.sleep(60)"]
)
def test_a_command_that_hangs_is_ended_with_all_it_started(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcloud.secrets.COMMAND_DEADLINE_S", 1.5)
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    started = time.monotonic()
    with pytest.raises(BadInput, match=r"did not print the secret db/root within 1\.5 s"):
        secrets_of(site(printing(f"'{mark}'; {code}"))).get("db/root")
    assert time.monotonic() - started < 5
    time.sleep(0.2)
    assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(path)] == []


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_a_child_that_a_command_leaves_behind_does_not_keep_us_waiting() -> None:
    started = time.monotonic()
    code = "print('value', flush=True); os.fork() or (time.sleep(8), os._exit(0)); os._exit(0)"
    assert secrets_of(site(printing(code))).reveal("db/root") == "value"
    assert time.monotonic() - started < 5


def test_a_command_sees_neither_other_secrets_nor_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCLOUD_SECRET_OTHER", VALUE)
    code = "print([k for k in os.environ if k.startswith('PCLOUD_SECRET')], repr(sys.stdin.read()))"
    assert secrets_of(site(printing(code))).reveal("db/root") == "[] ''"


def test_each_secret_is_looked_up_once_by_many_threads() -> None:
    code = "open('calls', 'a').write('x'); time.sleep(0.2); print('value')"
    secrets = secrets_of(site(printing(code)))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(secrets.reveal("db/root"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == ["value"] * 8
    assert Path("calls").read_text() == "x"
