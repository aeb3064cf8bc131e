"""What each way to a controller tells of itself, asked of real services on loopback; nothing is switched."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pcloud.cli.hosts import _controllers as controllers_of
from pcloud.cli.hosts import _look as look
from pcloud.cli.hosts import _print_json as print_json
from pcloud.clock import SystemClock
from pcloud.hostfacts import open_shells
from pcloud.hoststate import Controller
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.model import Bmc, Site
from pcloud.power.examine import examine
from pcloud.power.ipmi import Ipmi
from pcloud.power.redfish import Redfish
from pcloud.secrets import environment_name, load_secrets
from tests.controller import write_certificate, write_strange_certificate
from tests.ipmi_server import IpmiServer
from tests.redfish_server import RedfishServer

UUID = "4c4c4544-0051-3610-8052-b4c04f4e3733"
PASSWORD = "correct-horse"
SERVICE = "/redfish/v1/AccountService"


def accounts(role: str, privileges: list[str] | None = None) -> dict[str, Any]:
    """The account service's documents, of a controller whose user admin has this role."""
    link = {"@odata.id": f"{SERVICE}/Roles/{role}"}
    tree: dict[str, Any] = {
        f"{SERVICE}/Accounts": {"Members": [{"@odata.id": f"{SERVICE}/Accounts/{n}"} for n in (1, 2)]},
        f"{SERVICE}/Accounts/1": {"UserName": "root", "RoleId": "Administrator"},
        f"{SERVICE}/Accounts/2": {"UserName": "admin", "RoleId": role, "Links": {"Role": link}},
    }
    return tree | ({f"{SERVICE}/Roles/{role}": {"AssignedPrivileges": privileges}} if privileges is not None else {})


def ask(server: RedfishServer, ca: Path | None = None, password: str = PASSWORD, **changes: Any) -> Controller:
    return examine(Redfish(Bmc(redfish=server.url, **changes), lambda _: password, ca), 10, SystemClock())


def ask_ipmi(server: IpmiServer, **changes: Any) -> Controller:
    return examine(Ipmi(Bmc(ipmi=server.address, **changes), lambda _: PASSWORD), 10, SystemClock())


def test_everything_that_fencing_needs_is_told_and_nothing_is_switched() -> None:
    faults = {"tree": accounts("Operator", ["Login", "ConfigureComponents"]), "running_s": 864_000}
    with RedfishServer(faults | {"body": {"UUID": UUID.upper()}, "late_s": 0.2}) as server:
        said = ask(server)
        assert server.orders == []
        assert not [r for r in server.requests if r.startswith("POST") and "Sessions" not in r]
        assert server.requests[-1].startswith("DELETE")
    assert (said.way, said.power, said.identity, said.problem) == ("redfish", "on", UUID, "")
    assert (said.login, said.role, said.may_switch) == ("a session", "Operator", True)
    assert said.resets == ("On", "ForceOff", "GracefulShutdown", "ForceRestart")
    assert said.answer_s is not None and 0.2 <= said.answer_s < 2
    assert said.running_s is not None and 864_000 <= said.running_s < 864_060
    assert said.offset_s is not None and abs(said.offset_s) < 2
    assert (said.certificate_ends, said.certificate_s, said.pinned) == (None, None, False)


@pytest.mark.parametrize(
    ("tree", "role", "may"),
    [
        (accounts("ReadOnly", ["Login", "ConfigureSelf"]), "ReadOnly", False),
        (accounts("ReadOnly"), "ReadOnly", False),
        (accounts("fence", ["Login", "ConfigureComponents"]), "fence", True),
        (accounts("fence"), "fence", None),
        (accounts("Administrator"), "Administrator", True),
        ({}, "", None),
        ({f"{SERVICE}/Accounts": {"Members": "no"}}, "", None),
        ({f"{SERVICE}/Accounts": {"Members": [{"@odata.id": "http://127.0.0.9/redfish/v1/x"}]}}, "", None),
        ({f"{SERVICE}/Accounts": {"Members": [None, {"@odata.id": f"{SERVICE}/Accounts/9"}]}}, "", None),
    ],
)
def test_the_role_is_the_accounts_own(tree: dict[str, Any], role: str, may: bool | None) -> None:
    with RedfishServer({"tree": tree}) as server:
        said = ask(server)
    assert (said.power, said.role, said.may_switch) == ("on", role, may)


def test_reset_types_by_actioninfo_and_a_service_without_sessions() -> None:
    with RedfishServer({"allowable": {"actioninfo": ["On", "PushPowerButton"]}, "auth": "basic"}) as server:
        said = ask(server)
    assert (said.resets, said.login) == (("On", "PushPowerButton"), "the password with each request")


def test_a_clock_that_is_wrong() -> None:
    then = (datetime.now(UTC) - timedelta(days=400)).isoformat()
    managers = {"/redfish/v1/Managers": {"Members": [{"@odata.id": "/redfish/v1/Managers/1"}]}}
    with RedfishServer({"tree": managers | {"/redfish/v1/Managers/1": {"DateTime": then}}}) as server:
        said = ask(server)
    assert said.offset_s is not None and abs(said.offset_s + 400 * 86_400) < 5
    assert said.running_s is None


def test_the_end_of_a_certificate(tmp_path: Path) -> None:
    write_certificate(tmp_path, "127.0.0.1")
    with RedfishServer({"tls": [tmp_path / "cert.pem", tmp_path / "key.pem"]}) as server:
        pinned, by_authority = ask(server, tmp_path / "cert.pem"), ask(server, tmp_path / "ca.pem")
    for said in (pinned, by_authority):
        assert said.certificate_s is not None and 86_000 < said.certificate_s <= 86_400
        assert said.certificate_ends is not None and abs(said.certificate_ends - time.time() - 86_400) < 60
    assert (pinned.pinned, by_authority.pinned) == (True, False)
    write_strange_certificate(tmp_path, "over")
    with RedfishServer({"tls": [tmp_path / "cert.pem", tmp_path / "key.pem"]}) as server:
        over = ask(server, tmp_path / "cert.pem")
    assert over.power == "on" and over.pinned
    assert over.certificate_s is not None and over.certificate_s < 0


def test_why_it_cannot_be_asked() -> None:
    with RedfishServer({}) as server:
        wrong = ask(server, password="zebra-staple")
    assert "refuses user admin with the password of the secret bmc/password" in wrong.problem
    assert wrong.next == "correct the secret bmc/password, or bmc.user"
    gone = ask(server)
    assert (gone.way, gone.power) == ("redfish", "")
    assert "refuses the connection" in gone.problem


def test_a_busy_controller_is_asked_again() -> None:
    with RedfishServer({"fail_first": 2, "fail_code": 503}) as server:
        assert ask(server).power == "on"


def test_what_ipmi_tells() -> None:
    backwards = bytes.fromhex(UUID.replace("-", ""))[::-1].hex()
    with IpmiServer({"suites": [17], "guid": backwards, "clock": time.time() - 86_400}, "127.0.0.101") as server:
        said = ask_ipmi(server)
        assert server.orders == []
    assert (said.way, said.power, said.login, said.role) == ("ipmi", "on", "cipher suite 17", "OPERATOR")
    assert (said.may_switch, said.limit_s) == (True, 40)
    assert sorted(said.identity.replace("-", "")) == sorted(UUID.replace("-", ""))
    assert said.offset_s is not None and abs(said.offset_s + 86_400) < 5


def test_ipmi_that_tells_nothing_and_a_user_who_may_only_read() -> None:
    with IpmiServer({}, "127.0.0.102") as server:
        said = ask_ipmi(server)
    assert (said.power, said.identity, said.offset_s) == ("on", "", None)
    with IpmiServer({"privilege": 2, "privilege_how": "set"}, "127.0.0.103") as server:
        said = ask_ipmi(server)
    assert "privilege" in said.problem.lower()
    assert "give user admin the privilege OPERATOR" in said.next


def test_hosts_check_asks_every_way_of_hosts_that_do_not_answer(
    demo_site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(environment_name("bmc/password"), PASSWORD)
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    with (
        RedfishServer({"role": "readonly", "tree": accounts("ReadOnly", ["Login"])}) as first,
        RedfishServer({"late_s": 0.1, "body": {"UUID": UUID}}) as second,
        IpmiServer({}, "127.0.0.104") as third,
    ):
        ways = (Bmc(redfish=first.url), Bmc(redfish=second.url, ipmi=third.address))
        hosts = tuple(
            host.model_copy(update={"bmc": bmc, "address": IPv4Address(f"127.77.0.{number}")})
            for number, (host, bmc) in enumerate(zip(demo_site.hosts, ways, strict=False), 1)
        )
        site = demo_site.model_copy(update={"lab": None, "hosts": hosts})
        inventory = replace(load_inventory(defaults_dir("inventory") / "demo.yaml"), site=site)
        with open_shells(inventory, key) as shell:
            asked = controllers_of(inventory, load_secrets(site, inventory.path, None))
            looked = look(site, shell, hosts, asked)
        assert [*first.orders, *second.orders, *third.orders] == []
    found = [(f.host, f.level, f.found) for f in looked.findings if f.check == "bmc"]
    assert found[0] == ("h1", "bad", "the user's role by redfish is ReadOnly, which may not switch the power")
    assert [f[:2] for f in found[1:]] == [("h1", "warn"), ("h2", "warn"), ("h2", "ok")]
    assert all("http://" in said for _, _, said in found[1:3])
    assert found[3][2].startswith("ipmi says that its power is on; cipher suite 3; role OPERATOR; an answer takes")
    print_json(site, looked)
    data = json.loads(capsys.readouterr().out)
    one, two = data["controllers"]["h1"], data["controllers"]["h2"]
    assert [(c["way"], c["role"], c["may_switch"]) for c in one] == [("redfish", "ReadOnly", False)]
    assert [(c["way"], c["power"], c["identity"]) for c in two] == [("redfish", "on", UUID), ("ipmi", "on", "")]
    assert all(c["answer_s"] > 0 for c in (*one, *two))


@pytest.mark.parametrize(
    ("body", "identity"),
    [
        ({"UUID": UUID.upper(), "SerialNumber": "CZJ90203XP"}, UUID),
        ({"UUID": "03000200-0400-0500-0006-000700080009", "SerialNumber": "CZJ90203XP"}, "czj90203xp"),
        ({"UUID": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "SerialNumber": "Default string"}, ""),
        ({"UUID": "00000000-0000-0000-0000-000000000000", "SerialNumber": "To be filled by O.E.M."}, ""),
        ({"UUID": "12345678-1234-5678-90ab-cddeefaabbcc", "SerialNumber": "0123456789"}, ""),
        ({"UUID": "Not Settable", "SerialNumber": "System Serial Number"}, ""),
        ({"SerialNumber": "........"}, ""),
        ({"UUID": 7, "SerialNumber": None}, ""),
    ],
)
def test_what_a_board_left_the_factory_with_names_no_machine(body: dict[str, Any], identity: str) -> None:
    """Else two hosts of one maker would seem to have one controller, and neither could be fenced."""
    with RedfishServer({"body": body}) as server:
        assert ask(server).identity == identity


def test_ipmis_factory_number_names_no_machine() -> None:
    with IpmiServer({"guid": "0" * 32}, "127.0.0.105") as server:
        assert ask_ipmi(server).identity == ""
