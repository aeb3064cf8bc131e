"""Inventories: the good ones, the bad ones word for word, where they are found, and their life before a run."""

from __future__ import annotations

import json
import shutil
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from pcloud.cli.inventory import app
from pcloud.errors import BadDocument, BadInput, PcloudError
from pcloud.identity import expand_addresses, server_mac, server_names, server_uuid
from pcloud.inventory import (
    defaults_dir,
    find_default,
    find_inventory,
    find_playbook,
    find_sites,
    load_inventory,
    load_site,
    resolve_path,
)
from pcloud.model import Site
from pcloud.playbook import PlaybookFile, load_playbook
from pcloud.wording import editor_schema
from tests.data_cases import CASES, Case, load_cases

SMALL = CASES / "inventory" / "small.yaml"
BAD = load_cases(CASES / "inventory", SMALL)
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PCLOUD_HOME", str(tmp_path / "home"))


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), catch_exceptions=True)


# -- good and bad inventories


def test_the_demonstration_site_is_right() -> None:
    inventory = load_inventory(find_inventory("demo"))
    site = inventory.site
    assert [name for group in site.groups for name in server_names(group)] == [
        *("db-1", "idx-1", "fe-1", "fe-2", "fe-3", "fe-4", "lb-1"),
    ]
    assert (len(site.hosts), sum(host.spare for host in site.hosts)) == (8, 1)
    assert site.lab is not None
    assert inventory.resolve("../x.gz") == ROOT / "x.gz"


def test_there_are_at_least_sixty_bad_inventories() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_inventory_is_told_word_for_word(case: Case) -> None:
    Path("small.yaml").write_bytes(case.text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadDocument) as caught:
        load_inventory(Path("small.yaml"))
    assert str(caught.value) == case.says
    assert caught.value.exit_code == 2


def test_a_thousand_hosts_and_seven_thousand_servers_are_read_quickly() -> None:
    hosts = "\n".join(
        f"  - {{name: n{n}, address: 10.80.{n // 250}.{n % 250 + 1}, memory_mib: 65536}}" for n in range(1000)
    )
    text = SMALL.read_text()
    text = text[: text.index("hosts:")] + "hosts:\n" + hosts + "\n" + text[text.index("groups:") :]
    text = text.replace("10.9.0.0/24", "10.0.0.0/8").replace("count: 2", "count: 6997")
    Path("small.yaml").write_text(text.replace("10.9.0.21-10.9.0.22", "10.90.0.1-10.90.40.0").replace("lab:", "# lab:"))
    assert len(load_site(Path("small.yaml")).hosts) == 1000


def test_hosts_that_do_not_say_their_memory_are_not_judged() -> None:
    text = SMALL.read_text().replace("lab: {host_memory_mib: 4096}\n", "")
    Path("small.yaml").write_text(text.replace("memory_mib: 512", "memory_mib: 65536"))
    load_site(Path("small.yaml"))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("dump.gz", "/sites/inventory/dump.gz"),
        ("../dump.gz", "/sites/dump.gz"),
        ("/srv/dump.gz", "/srv/dump.gz"),
        ("~/dump.gz", "/root-of-somebody/dump.gz"),
    ],
)
def test_paths_are_relative_to_the_inventory(value: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root-of-somebody")
    assert resolve_path(Path("/sites/inventory/demo.yaml"), value) == Path(path)


# -- finding


def put(folder: Path, site: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{site}.yaml"
    path.write_text(SMALL.read_text().replace("site: small", f"site: {site}"))
    return path


def test_the_nearest_inventory_wins(tmp_path: Path) -> None:
    assert find_inventory("demo") == ROOT / "inventory" / "demo.yaml"
    configured = put(tmp_path / "home" / "config" / "inventory", "demo")
    assert find_inventory("demo") == configured
    put(tmp_path / "inventory", "demo")
    assert find_inventory("demo") == Path("inventory/demo.yaml")
    put(tmp_path / "inventory", "Not-A-Site")
    assert list(find_sites()) == ["demo"]


def test_a_path_is_taken_as_it_is() -> None:
    assert find_inventory("./elsewhere/shop") == Path("elsewhere/shop")
    assert find_inventory("shop.yaml") == Path("shop.yaml")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("demoo", "there is no site demoo\n  next: did you mean demo? (`pcloud init demoo` makes a new one)"),
        ("shop", "there is no site shop\n  next: the sites are demo (`pcloud init shop` makes a new one)"),
        ("..", '".." cannot be the name of a site\n  next: write one of demo, or a path that ends in .yaml'),
        (
            "a\x1b[2J",
            '"a\\u001b[2J" cannot be the name of a site\n  next: write one of demo, or a path that ends in .yaml',
        ),
    ],
)
def test_a_site_that_is_not_there(name: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        find_inventory(name)
    assert str(caught.value) == says


def test_defaults_do_not_lead_out_of_their_folder() -> None:
    assert find_default("playbooks", "recover.yaml") == ROOT / "playbooks" / "recover.yaml"
    assert find_default("templates", "images").is_dir()
    for name in ("../pyproject.toml", "/etc/passwd", "missing.yaml", "a\0b"):
        with pytest.raises(BadInput, match="pcloud has no playbooks file"):
            find_default("playbooks", name)


def test_an_installed_package_carries_its_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "pcloud"
    shutil.copytree(ROOT / "inventory", package / "defaults" / "inventory")
    monkeypatch.setattr("pcloud.inventory._PACKAGE", package)
    assert find_inventory("demo") == package / "defaults" / "inventory" / "demo.yaml"
    assert defaults_dir("playbooks") == package.parent / "playbooks"


def test_a_site_may_bring_its_own_playbook(tmp_path: Path) -> None:
    path = put(tmp_path / "inventory", "shop")
    assert find_playbook(load_inventory(path), "recover") == ROOT / "playbooks" / "recover.yaml"
    path.write_text(path.read_text() + "playbooks: ../ours\n")
    (tmp_path / "ours").mkdir()
    assert find_playbook(load_inventory(path), "recover") == ROOT / "playbooks" / "recover.yaml"
    (tmp_path / "ours" / "recover.yaml").touch()
    assert find_playbook(load_inventory(path), "recover") == tmp_path / "ours" / "recover.yaml"
    with pytest.raises(BadInput, match="cannot be the name of a playbook"):
        find_playbook(load_inventory(path), "../recover")
    (tmp_path / "ours" / "recover.yaml").unlink()
    (tmp_path / "ours" / "recover.yaml").symlink_to("nowhere.yaml")
    assert find_playbook(load_inventory(path), "recover") == tmp_path / "ours" / "recover.yaml"
    with pytest.raises(BadInput, match="there is no such file"):
        load_playbook(find_playbook(load_inventory(path), "recover"))


# -- identity


def test_an_identity_never_changes() -> None:
    """A rebuilt server must be who it was: these values are a promise."""
    assert str(server_uuid("demo", "fe-1")) == "d6f17566-747a-51dc-85f7-e14b237dc369"
    assert server_mac("demo", "fe-1") == "52:4b:23:7d:c3:69"


def test_ten_thousand_servers_share_no_mac() -> None:
    assert len({server_mac("demo", f"fe-{n}") for n in range(10_000)}) == 10_000


@given(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True), st.from_regex(r"[a-z]{1,8}-[0-9]{1,4}", fullmatch=True)
)
def test_a_mac_is_local_and_of_one_card(site: str, server: str) -> None:
    first = int(server_mac(site, server)[:2], 16)
    assert first & 0b10  # locally administered
    assert not first & 0b01  # not multicast
    assert first != 0xFE  # libvirt keeps that one for its own side
    assert server_mac(site, server) == server_mac(site, server)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**32 - 200), st.integers(0, 199)), max_size=5))
def test_ranges_hold_both_ends_and_all_between(ranges: list[tuple[int, int]]) -> None:
    specs = [f"{IPv4Address(low)}-{IPv4Address(low + size)}" for low, size in ranges]
    assert expand_addresses(specs) == tuple(IPv4Address(low + n) for low, size in ranges for n in range(size + 1))


@pytest.mark.parametrize("spec", ["0.0.0.0-255.255.255.255", "10.0.0.1-", "-", "x", "10.0.0.1-2", ""])
def test_a_bad_range_is_a_value_error(spec: str) -> None:
    with pytest.raises(ValueError, match="address"):
        expand_addresses([spec])


# -- validate, schema, init


def test_validate_says_what_a_site_holds() -> None:
    result = invoke("validate", "demo")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == (
        "OK demo: 7 servers in 4 groups, 8 hosts (1 spare) in a lab, a journey of 7 steps, 8 phases to recover"
    )


def test_validate_tells_all_problems_of_all_sites(tmp_path: Path) -> None:
    path = put(tmp_path / "inventory", "shop")
    path.write_text(path.read_text().replace("count: 2", "count: no").replace("role: balancer", "role: balance"))
    result = invoke("validate", "shop", "nowhere", "demo")
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert lines[0].startswith('inventory/shop.yaml:34: groups[2].count: "no" may mean')
    assert lines[1].startswith('inventory/shop.yaml:42: groups[3].role: "balance" is not possible here')
    assert lines[2] == "there is no site nowhere"
    assert lines[4].startswith("OK demo: ")


def test_validate_knows_what_kind_of_file_it_reads(tmp_path: Path) -> None:
    (tmp_path / "recover.yaml").write_text("playbook: recover\nphases: []\n")
    result = invoke("validate", "./recover.yaml", str(ROOT / "playbooks" / "recover.yaml"))
    assert result.exit_code == 2
    assert result.stdout.splitlines()[0] == "recover.yaml:2: phases: is empty; write at least one entry"
    assert result.stdout.splitlines()[1].endswith("playbook recover, 8 phases")


def test_validate_checks_the_playbook_that_would_run(tmp_path: Path) -> None:
    path = put(tmp_path / "inventory", "shop")
    path.write_text(path.read_text() + "playbooks: .\n")
    text = (ROOT / "playbooks" / "recover.yaml").read_text().replace("groups: [frontend]", "groups: [fronted]")
    (tmp_path / "inventory" / "recover.yaml").write_text(text)
    result = invoke("validate", "shop")
    assert result.exit_code == 2
    assert "site shop has no group fronted; did you mean frontend?" in result.stdout


def test_validate_speaks_json(tmp_path: Path) -> None:
    put(tmp_path / "inventory", "shop")
    (tmp_path / "inventory" / "bad.yaml").write_text("site: bad")
    result = invoke("validate", "--json")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["ok"]) == (2, False)
    assert [(found["name"], found["ok"]) for found in answer["results"]] == [
        ("bad", False),
        ("demo", True),
        ("shop", True),
    ]
    assert answer["results"][0]["problems"][0] == {
        "file": "inventory/bad.yaml",
        "line": 1,
        "path": "database",
        "what": "is missing; add it (a mapping)",
    }
    assert answer["results"][2]["notes"] == [
        'inventory/shop.yaml:50: database.dump "shop.sql.gz" is not there; a recovery without a backup would wait'
    ]


@pytest.mark.parametrize("kind", ["site", "playbook", "recipe"])
def test_a_schema_is_printed_for_editors(kind: str) -> None:
    schema = json.loads(invoke("schema", kind).stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert kind in schema["required"]
    assert "x-wants" not in json.dumps(schema)
    assert '"null"' not in json.dumps(schema)


def properties(schema: dict[str, Any]) -> set[str]:
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}


@pytest.mark.parametrize(("model", "page"), [(Site, "inventory.md"), (PlaybookFile, "playbooks.md")])
def test_every_key_is_explained(model: type[Any], page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert [name for name in sorted(properties(editor_schema(model))) if f"`{name}`" not in text] == []


def test_init_copies_a_site_for_real_hosts() -> None:
    result = invoke("init", "shop")
    assert result.exit_code == 0
    inventory = load_inventory(find_inventory("shop"))
    origin = load_inventory(ROOT / "inventory" / "demo.yaml")
    assert (inventory.site.site, inventory.site.lab) == ("shop", None)
    assert inventory.site.groups == origin.site.groups
    assert inventory.resolve(inventory.site.database.dump or "") == origin.resolve(origin.site.database.dump or "")
    assert "# what proves that a shopper could buy again" in inventory.path.read_text()
    assert invoke("validate", "shop").exit_code == 0


def test_init_copies_a_site_for_a_lab(tmp_path: Path) -> None:
    assert invoke("init", "second", "--lab").exit_code == 0
    assert load_inventory(find_inventory("second")).site.lab is not None
    invoke("init", "third")
    assert invoke("init", "fourth", "--from", "third", "--lab").exit_code == 0
    assert load_inventory(tmp_path / "inventory" / "fourth.yaml").site.lab is not None


def test_init_keeps_relative_paths_inside_one_project(tmp_path: Path) -> None:
    origin = put(tmp_path / "old" / "deep", "small")
    origin.write_text(origin.read_text().replace("shop.sql.gz", '"../my dump.sql.gz"'))
    assert invoke("init", "shop", "--from", "old/deep/small.yaml").exit_code == 0
    assert 'dump: "../old/my dump.sql.gz"' in (tmp_path / "inventory" / "shop.yaml").read_text()


def test_init_never_overwrites_and_never_leaves_its_folder(tmp_path: Path) -> None:
    path = put(tmp_path / "inventory", "shop")
    before = path.read_bytes()
    for name, what in (("shop", "is there already"), ("../shop", "cannot be the name"), ("Shop", "cannot be the name")):
        result = invoke("init", name)
        assert isinstance(result.exception, BadInput)
        assert what in str(result.exception)
    assert path.read_bytes() == before
    assert [file.name for file in (tmp_path / "inventory").iterdir()] == ["shop.yaml"]


def test_init_refuses_to_guess(tmp_path: Path) -> None:
    """A site in one line of braces is right, and is not rewritten blindly."""
    text = json.dumps(load_inventory(SMALL).document.data)
    (tmp_path / "small.yaml").write_text(text)
    result = invoke("init", "shop", "--from", "small.yaml")
    assert isinstance(result.exception, PcloudError)
    assert "copy it by hand" in str(result.exception)
    assert not (tmp_path / "inventory").exists()
