"""Fencing in the lab: real hosts without guests, their real Redfish controllers, and `pcloud` as a person runs it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from pcloud import lab, places
from pcloud.inventory import defaults_dir, load_site
from pcloud.lab import bmc, processes
from pcloud.lab.namespaces import call_in_network
from pcloud.model import Host, Site
from tests.lab.bad_site import write_inventory
from tests.lab.conftest import Operator

pytestmark = pytest.mark.lab
DEMO = defaults_dir("inventory") / "demo.yaml"
WORD = "--i-have-powered-it-off"


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Somebody with a lab of his own, hosts without guests; whatever happens, it goes down."""
    before = os.environ.get("PCLOUD_HOME")
    one = Operator(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("folder"))
    os.environ["PCLOUD_HOME"] = str(one.home)
    yield one
    lab.down(load_site(DEMO))
    if before is None:
        del os.environ["PCLOUD_HOME"]
    else:
        os.environ["PCLOUD_HOME"] = before


@pytest.fixture
def site(person: Operator) -> Site:
    """The demonstration site, every host on, whole and awake, every controller well."""
    site = load_site(DEMO)
    lab.up(site)
    for host in lab.status(site):
        if host.power == "frozen":
            lab.thaw_host(site, host.name)
        if host.power == "off":
            lab.power_on(site, host.name)
        if host.link != "up":
            lab.mend(site, host.name)
        if host.bmc != "ok":
            lab.set_bmc(site, host.name, "ok")
    return site


def power_of(site: Site, host: str) -> str:
    return next(row.power for row in lab.status(site) if row.name == host)


def folder() -> Path:
    return places.lab_dir("demo")


@contextmanager
def unanswered(host: Host) -> Iterator[None]:
    """What we send to the host's address gets lost, so that nobody says that there is no way to it."""
    address = str(host.address)
    inside = ["nsenter", f"--net=/proc/{processes.find_parts(folder())['fabric'].pid}/ns/net", "--", "ip"]
    route = subprocess.run([*inside, "-json", "route", "get", address], capture_output=True, check=True).stdout
    neighbour = [address, "dev", json.loads(route)[0]["dev"]]
    subprocess.run([*inside, "neigh", "replace", *neighbour, "lladdr", "02:00:00:00:00:01"], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "neigh", "del", *neighbour], check=True)


def password() -> str:
    return str(yaml.safe_load((folder() / "secrets.yaml").read_text())["bmc/password"])


def report(person: Operator) -> dict[str, object]:
    """The last run's report, as `pcloud report` tells it."""
    found = json.loads(person.run("report", "demo", "--json").out)
    assert isinstance(found, dict)
    return found


# -- the power button


@pytest.mark.parametrize("state", ["awake", "frozen", "cut"])
def test_a_fence_ends_every_process_of_the_host_whatever_its_state(person: Operator, site: Site, state: str) -> None:
    part = processes.find_parts(folder())["h3"]
    inside = processes.members(part)
    assert len(inside) > 2
    if state == "frozen":
        lab.freeze_host(site, "h3")
    if state == "cut":
        lab.cut(site, "h3")
    ran = person.run("fence", "h3", "--yes")
    assert ran.code == 0, ran.err
    assert processes.members(part) == []
    assert power_of(site, "h3") == "off"
    assert all(power_of(site, f"h{n}") == "on" for n in (1, 2, 4, 5, 6, 7, 8))
    step = next(s for s in report(person)["steps"] if s["step"] == "h3/fence")  # type: ignore[attr-defined]
    assert step["changed"]
    assert step["facts"] == {
        "proof": "redfish: on, then off, read twice",
        "read": ["off", "off"],
        "by": "redfish",
        "asked": ["off at once, by redfish"],
    }


def test_a_fence_of_a_host_that_is_off_asks_nothing_and_is_ordered_all_the_same(person: Operator, site: Site) -> None:
    lab.power_off(site, "h3")
    ran = person.run("fence", "demo/h3")
    assert ran.code == 0, ran.err
    assert "Proven off" in ran.out
    assert report(person)["facts"] == {"changed": 1}


def test_a_rehearsal_cuts_and_restores_the_power_and_remembers_how_long_it_took(person: Operator, site: Site) -> None:
    inside = processes.members(processes.find_parts(folder())["h8"])
    ran = person.run("fence", "demo", "h8", "--rehearse", "--yes")
    assert ran.code == 0, ran.err
    assert not set(inside) & set(processes.members(processes.find_parts(folder())["h8"])), "all of it was started anew"
    assert all(power_of(site, f"h{n}") == "on" for n in range(1, 9))
    facts = next(s["facts"] for s in report(person)["steps"])  # type: ignore[attr-defined]
    assert facts["how"] == "redfish: on, then off, read twice"
    assert 1 <= facts["off_s"] < facts["off_s"] + facts["back_s"] < 120
    lab.cut(site, "h3")
    refused = person.run("fence", "demo", "h8", "--rehearse", "--yes")
    assert refused.code == 3
    assert "h3 does not answer, and may need it" in refused.err
    assert power_of(site, "h8") == "on"


def test_without_a_yes_nothing_is_cut(person: Operator, site: Site) -> None:
    for argv in (("fence", "h3"), ("power", "h3", "off")):
        ran = person.run(*argv)
        assert ran.code == 3
        assert "No server runs there" in ran.err
        assert f"next: pcloud {argv[0]} demo/h3" in ran.err
    assert power_of(site, "h3") == "on"


def test_power_is_asked_and_switched(person: Operator, site: Site) -> None:
    assert person.json("power", "demo/h3", "status") == {
        "site": "demo", "host": "h3", "power": "on", "by": "redfish"
    }  # fmt: skip
    assert person.run("power", "h3", "off", "--yes").code == 0
    assert person.json("power", "h3", "status")["power"] == "off"
    assert person.run("power", "h3", "on").code == 0
    assert power_of(site, "h3") == "on"
    assert person.run("power", "h3", "on").code == 0


def test_late_power_is_waited_for(person: Operator, site: Site) -> None:
    lab.set_bmc(site, "h3", "late")
    assert person.run("fence", "h3", "--yes").code == 0
    assert power_of(site, "h3") == "off"


def test_a_wrong_password_cuts_nothing(person: Operator, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCLOUD_SECRET_BMC_PASSWORD", "not this one")
    ran = person.run("fence", "h3", "--yes")
    assert ran.code == 3
    assert "refuses user admin with the password of the secret bmc/password" in " ".join(ran.out.split())
    assert "not this one" not in ran.out + ran.err
    assert power_of(site, "h3") == "on"


# -- no controller answers


@pytest.mark.parametrize(
    ("fault", "says"),
    [("refuse", "refuses the connection"), ("hang", "does not answer within"), ("dead", "does not answer within")],
)
def test_a_silent_controller_stops_with_the_command_that_goes_on(
    person: Operator, site: Site, fault: lab.Fault, says: str
) -> None:
    lab.set_bmc(site, "h3", fault)
    ran = person.run("fence", "h3", "--yes")
    assert ran.code == 3
    told = " ".join(ran.out.split())
    assert says in told
    assert f"next: pull its plug, then: pcloud fence confirm demo/h3 {WORD}; then pcloud recover demo" in told
    assert power_of(site, "h3") == "on"
    status = person.run("power", "h3", "status")
    assert status.code == 3
    assert says in status.err
    assert person.json("power", "h4", "status")["power"] == "on"
    lab.set_bmc(site, "h3", "ok")
    assert person.json("power", "h3", "status")["power"] == "on"


def test_a_persons_word_is_taken_only_where_nothing_contradicts_it(person: Operator, site: Site) -> None:
    assert person.run("fence", "confirm", "h3").code == 2
    lab.set_bmc(site, "h3", "dead")
    running = person.run("fence", "confirm", "h3", WORD)
    assert running.code == 3
    assert "accepts connections, so it has power" in running.out
    lab.freeze_host(site, "h3")
    assert person.run("fence", "confirm", "h3", WORD).code == 3  # its kernel still accepts connections
    lab.set_bmc(site, "h3", "ok")
    lab.cut(site, "h3")
    cut = person.run("fence", "confirm", "h3", WORD)
    assert cut.code == 3
    assert "redfish says that its power is on" in cut.out


def test_a_word_stands_until_the_host_is_heard_of_again(person: Operator, site: Site) -> None:
    lab.set_bmc(site, "h3", "refuse")
    lab.power_off(site, "h3")
    given = person.run("fence", "confirm", "demo/h3", WORD)
    assert given.code == 0, given.out
    fenced = person.run("fence", "h3", "--yes")
    assert fenced.code == 0, fenced.out
    assert "you, at " in fenced.out
    # The plug goes back in, somebody looks, and then the cable is cut: silence is no proof any more.
    lab.power_on(site, "h3")
    person.run("status", "demo")
    lab.cut(site, "h3")
    again = person.run("fence", "h3", "--yes")
    assert again.code == 3, again.out
    assert "you, at " not in again.out


def test_a_host_that_all_say_is_off_is_not_waited_for(person: Operator, site: Site) -> None:
    """Its controller says so, and two other hosts do not see it: SSH's own time-out would add nothing."""
    data = yaml.safe_load(DEMO.read_text())
    data["access"]["connect_timeout_s"] = 40
    data["database"].pop("dump")
    path = str(write_inventory(person.folder / "patient" / "demo.yaml", data))
    lab.power_off(site, "h3")
    with unanswered(site.host("h3")):
        seen = next(h for h in person.json("status", path)["hosts"] if h["host"] == "h3")
    assert "does not answer, and is off, says redfish" in seen["problem"], seen


# -- the controllers themselves


def test_a_controller_shows_its_own_host_to_those_who_know_the_password(person: Operator, site: Site) -> None:
    fabric = processes.find_parts(folder())["fabric"]
    page = f"https://{bmc.address_of(site.host('h4'))}/redfish/v1/Systems"

    def ask(*options: str) -> tuple[int, str]:
        argv = ["nsenter", f"--net=/proc/{fabric.pid}/ns/net", "--", sys.executable, "-c", CURL, page, *options]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        status, _, body = done.stdout.partition("\n")
        return int(status), body

    certificate = str(folder() / "bmc" / "cert.pem")
    assert ask(certificate)[0] == 401
    assert ask(certificate, "wrong")[0] == 401
    status, body = ask(certificate, password())
    assert status == 200
    assert json.loads(body)["Members@odata.count"] == 1


CURL = """
import sys, httpx, ssl
page, ca, *password = sys.argv[1:]
auth = ("admin", password[0]) if password else None
answer = httpx.get(page, auth=auth, verify=ssl.create_default_context(cafile=ca), trust_env=False)
print(answer.status_code)
print(answer.text)
"""


def test_a_client_that_says_nothing_holds_up_nobody(person: Operator, site: Site) -> None:
    fabric = processes.find_parts(folder())["fabric"]
    address = str(bmc.address_of(site.host("h3")))
    mute = [call_in_network(fabric.pid, lambda: socket.create_connection((address, 443), 5)) for _ in range(20)]
    assert person.json("power", "h3", "status")["power"] == "on"
    assert person.json("power", "h4", "status")["power"] == "on"
    for one in mute:
        one.close()


def test_keys_and_passwords_are_private(person: Operator, site: Site) -> None:
    for name in ("key.pem", "htpasswd", "cert.pem"):
        assert stat.S_IMODE((folder() / "bmc" / name).stat().st_mode) == 0o600
    one = processes.find_controllers(folder())[0]
    for name in ("cmdline", "environ"):
        assert password().encode() not in Path(f"/proc/{one.pid}/{name}").read_bytes()


def test_up_keeps_the_controllers_and_starts_those_that_died(person: Operator, site: Site) -> None:
    before = processes.find_controllers(folder())
    assert len(before) == 1
    lab.up(site)
    assert processes.find_controllers(folder()) == before
    os.kill(before[0].pid, signal.SIGKILL)
    lab.set_bmc(site, "h3", "refuse")
    assert person.run("power", "h4", "status").code == 3
    lab.up(site)
    assert person.json("power", "h4", "status")["power"] == "on"
    assert person.run("power", "h3", "status").code == 3  # its fault outlives the process


def test_the_controllers_hold_nothing_and_go_with_the_lab(person: Operator, site: Site) -> None:
    one = processes.find_controllers(folder())[0]
    held = [str(link.readlink()) for link in Path(f"/proc/{one.pid}/fd").iterdir()]
    assert not any(str(folder()) == path for path in held)
    assert Path(f"/proc/{one.pid}/cwd").readlink() == Path("/")
    os.kill(one.pid, signal.SIGSTOP)
    lab.down(site)
    assert processes.find_controllers(folder()) == []
    lab.down(site)
    lab.up(site)
    one = processes.find_controllers(folder())[0]
    with open(os.pidfd_open(one.pid), "rb", closefd=True) as gone:  # noqa: PTH123 - a descriptor
        os.kill(processes.find_parts(folder())["fabric"].pid, signal.SIGKILL)
        assert _ended(gone.fileno())
    assert lab.down(site).removed


def _ended(pidfd: int, timeout_s: float = 20) -> bool:
    return bool(select.select([pidfd], [], [], timeout_s)[0])


def test_hosts_that_join_have_controllers_too(person: Operator, site: Site) -> None:
    lab.up(site, hosts=9)
    fabric = processes.find_parts(folder())["fabric"]
    ninth = next(row for row in lab.status(site) if row.name == "h9")
    address = f"127.{ninth.address.partition('.')[2]}"
    assert call_in_network(fabric.pid, lambda: socket.create_connection((address, 443), 5).close()) is None
    lab.down(site)
