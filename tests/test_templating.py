"""A site's templates are a stranger's program: what they reach, how long they run, what they may take."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcloud import templating
from pcloud.cli import make_app
from pcloud.desire import templates_of
from pcloud.errors import BadInput
from pcloud.inventory import Inventory, defaults_dir, load_inventory
from pcloud.keys import keypair_from_seed
from pcloud.seed import SeedFile
from pcloud.templating import OwnView, Templates, plain

OWN = OwnView(
    *("fe-1", "frontend", "frontend", "10.77.0.21", "52:00:00:00:00:01", "10.77.0.1", 24, (), False, 1, 512),
    *("0" * 32, "a private key\n", "ssh-ed25519 AAAA", "ssh-ed25519 AAAA"),
)
ESCAPES = (
    r"""{{ site.parse_raw("cos\nsystem\n(S'touch HERE'\ntR.", proto='pickle', allow_pickle=True) }}""",
    "{{ site.__class__.__mro__ }}",
    "{{ site.model_copy }}{{ site.model_copy() }}",
    "{{ site.copy.__globals__ }}",
    "{{ server.__init__.__globals__['os'].system('touch HERE') }}",
    "{{ secret.__globals__ }}",
    "{{ secret.__code__ }}",
    "{{ secret.__closure__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch HERE') }}",
    "{{ self._TemplateReference__context }}{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ ''.format.__self__.__class__ }}{{ '{0.__class__.__mro__}'.format(site) }}",
    "{% set x = site.update({'a': 1}) %}",
    "{% include '../../../../etc/passwd' %}",
    "{% include '/etc/passwd' %}",
)
WITHOUT_END = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro again() %}{{ again() }}{{ again() }}{% endmacro %}{{ again() }}",
    "{{ ('a' * 10) | wordwrap(1) }}{% for i in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
)
TOO_MUCH = (
    "{{ 'x' * 1000000000 }}",
    "{{ 10 ** 100000 }}",
    "{{ 'x' | center(2000000000) }}",
    "{{ '%2000000000d' | format(1) }}",
    "{% set ns = namespace(a='x') %}{% for i in range(64) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a }}",
    "{% for i in range(9999) %}{{ 'x' | center(1000) }}{% endfor %}",
    "{% include 'servers/common/hostname.j2' %}",
)


def with_template(folder: Path, text: str, name: str = "common/hostname.j2") -> Inventory:
    """The demo site, with a template of its own."""
    path = folder / "own" / "servers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("HERE", str(folder / "run")))
    inventory = folder / "demo.yaml"
    inventory.write_text((defaults_dir("inventory") / "demo.yaml").read_text() + "\ntemplates: own\n")
    return load_inventory(inventory)


def secret(name: str) -> str:
    return keypair_from_seed(b"o" * 32, "operator")[0] if name == "ssh/operator" else f"of {name}"


def render(inventory: Inventory) -> dict[str, SeedFile]:
    return {file.path: file for file in templates_of(inventory).render_server(OWN, secret)}


@pytest.mark.parametrize("text", ESCAPES)
def test_a_template_reaches_data_and_nothing_else(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCLOUD_SECRET_DB_ROOT", "hunter2")
    inventory = with_template(tmp_path, text)
    try:
        made = render(inventory)["/etc/hostname"].content.decode()
    except BadInput as error:
        made = str(error)
    assert not (tmp_path / "run").exists()
    assert not any(word in made for word in ("hunter2", "root:x:0:0", "<class", "object at 0x", "__builtins__")), made


def test_what_a_template_sees_is_plain() -> None:
    @dataclass(frozen=True)
    class Place:
        at: tuple[str, ...]

    inventory = load_inventory(defaults_dir("inventory") / "demo.yaml")
    assert plain({"a": [Place(("x",))], "b": None}) == {"a": [{"at": ["x"]}], "b": None}
    assert plain(inventory.site)["hosts"][0]["address"] == "10.77.0.11"
    with pytest.raises(TypeError):
        plain({"a": IPv4Address("10.0.0.1")})


def test_validate_renders_what_the_servers_will_be_given(tmp_path: Path) -> None:
    inventory = with_template(tmp_path, "{{ secret('db/shop') }}{{ servers[0].nmae }}", "mariadb/accounts.sql.j2")
    run = CliRunner().invoke(make_app(), ["validate", str(inventory.path)])
    assert run.exit_code == 2
    assert "servers/mariadb/accounts.sql.j2: cannot be rendered: 'dict object' has no attribute 'nmae'" in run.output
    with_template(tmp_path, "-- {{ secret('db/shop') }}\n", "mariadb/accounts.sql.j2")
    assert CliRunner().invoke(make_app(), ["validate", str(inventory.path)]).exit_code == 0


def test_a_key_of_the_inventory_comes_before_a_method_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "a.j2").write_text("{{ thing.items }} {{ thing.values() | list }}")
    assert Templates([tmp_path]).render_xml("a.j2", {"thing": {"items": 7}}) == "7 [7]"


@pytest.mark.parametrize("text", WITHOUT_END)
def test_a_template_without_end_is_ended(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templating, "DEADLINE_S", 1.0)
    inventory = with_template(tmp_path, text)
    with pytest.raises(BadInput, match=r"take longer than 1 s|without end|more than \d+ MiB|cannot be rendered"):
        render(inventory)
    with_template(tmp_path, "{{ server.name }}\n")
    assert render(inventory)["/etc/hostname"].content == b"fe-1\n"


@pytest.mark.parametrize("text", TOO_MUCH)
def test_a_template_that_takes_too_much_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"hostname\.j2: |templates' process ended"):
        render(with_template(tmp_path, text))


def test_the_next_request_after_a_refused_one_is_answered(tmp_path: Path) -> None:
    templates = templates_of(with_template(tmp_path, "{{ nothing }}"))
    for _ in range(2):
        with pytest.raises(BadInput, match=r"hostname\.j2: cannot be rendered: 'nothing' is undefined"):
            templates.render_server(OWN, secret)
    (tmp_path / "own/servers/common/hostname.j2").write_text("{{ secret('db/shop') }}")
    with pytest.raises(BadInput, match="holds the secret db/shop but its mode 0644 lets everybody read it"):
        templates.render_server(OWN, secret)

    def locked(name: str) -> str:
        raise BadInput(f"the secret {name} is nowhere to be found")

    with pytest.raises(BadInput, match="the secret db/shop is nowhere to be found"):
        templates.render_server(OWN, locked)


@pytest.mark.parametrize("path", ["/etc/../../x", "/etc//x", "/etc/./x", "/etc/x/", "/.."])
def test_a_path_that_could_lie_elsewhere_is_found_when_it_is_read(path: str, tmp_path: Path) -> None:
    inventory = with_template(tmp_path, "x")
    index = tmp_path / "own/servers/common.yaml"
    index.write_text(f"files:\n  - {{path: {path}, template: common/hostname.j2}}\n")
    with pytest.raises(BadInput, match=r"common\.yaml:2: files\[0\]\.path"):
        render(inventory)
