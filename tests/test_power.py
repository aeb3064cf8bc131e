"""A host's power, asked of real services on 127.0.0.1: sushy-tools' Redfish with TLS, and OpenIPMI's simulator.

Times are the controllers' own or the deadlines given to pcloud; none is measured.
"""

from __future__ import annotations

import contextlib
import signal
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pcloud import confirmations
from pcloud.clock import SystemClock
from pcloud.desired import Desired
from pcloud.errors import BadInput, Blocked, HostUnreachable
from pcloud.events import RunFinished, RunStarted, StepBlocked, StepDone, StepInfo, StepStarted
from pcloud.journal import Journal, new_run_id
from pcloud.model import Bmc, SecretRef
from pcloud.observed import HostPower
from pcloud.places import runs_dir
from pcloud.power import PowerControl, Reading, power_control
from pcloud.steps.base import Met, Unmet
from pcloud.steps.fence import Fence, PowerProof, ask_power
from tests.controller import PASSWORD, Controller, controller, write_certificate, write_strange_certificate
from tests.redfish_server import RedfishServer
from tests.serving import serve_raw
from tests.simulation import SimWorld

ON, OFF = Reading(HostPower.ON, "redfish"), Reading(HostPower.OFF, "redfish")


def control(bmc: Bmc | None, password: str = PASSWORD) -> PowerControl:
    ca = Path(bmc.ca) if bmc is not None and bmc.ca is not None else None
    return power_control("h3", bmc, lambda _: password, ca, SystemClock())


def reason(question: Callable[[], object]) -> tuple[str, str]:
    """Why no way did it, and what to do: every failure has both."""
    with pytest.raises(HostUnreachable) as caught:
        question()
    assert caught.value.where == "h3"
    assert caught.value.next
    return caught.value.what, caught.value.next


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Controller]:
    with controller(tmp_path) as one:
        yield one


# -- what it does


def test_it_reads_and_switches_and_an_order_for_what_is_so_is_no_error(on: Controller) -> None:
    power = control(on.bmc())
    assert power.read() == ON
    assert power.force_off() == OFF
    assert power.force_off() == OFF  # the service answers 409
    assert power.read() == OFF
    assert power.force_on() == ON
    assert power.force_on() == ON


def test_off_is_forced_and_never_asked_for_politely(on: Controller) -> None:
    control(on.bmc()).force_off()
    ordered = [line for line in (on.folder / "log").read_text().splitlines() if line.startswith("ordered")]
    assert ordered == ["ordered ForceOff"]


def test_power_that_goes_off_late_is_waited_for(tmp_path: Path) -> None:
    with controller(tmp_path, late_s=1.5) as late:
        power = control(late.bmc())
        assert power.force_off() == OFF
        assert power.read() == OFF


def test_power_that_never_goes_off_is_told(tmp_path: Path) -> None:
    with controller(tmp_path, late_s=3600) as liar:
        what, next_step = reason(control(liar.bmc(off_timeout_s=1)).force_off)
    assert what == "redfish: took the order, and the power does not read off after 1 s"
    assert "off_timeout_s" in next_step


def test_one_of_several_systems_is_named_by_its_path(tmp_path: Path) -> None:
    with controller(tmp_path, systems=2) as two:
        what, next_step = reason(control(two.bmc()).read)
        assert "has 2 systems" in what
        second = next_step.split()[-1]
        assert second.endswith("/redfish/v1/Systems/uuid-1")
        assert control(two.bmc(redfish=second)).force_off() == OFF
        assert control(two.bmc(redfish=second.replace("uuid-1", "uuid-0"))).read() == ON


def test_several_threads_may_ask_at_once(on: Controller) -> None:
    power, found = control(on.bmc()), []
    threads = [threading.Thread(target=lambda: found.append(power.read())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [ON] * 6


# -- what goes wrong, and what is said


def test_a_wrong_password_names_the_secret_and_does_not_show_it(on: Controller) -> None:
    what, next_step = reason(control(on.bmc(password=SecretRef(secret="bmc/h3")), "not this one").force_off)
    assert "refuses user admin with the password of the secret bmc/h3" in what
    assert next_step == "correct the secret bmc/h3, or bmc.user"
    assert "not this one" not in what
    assert control(on.bmc()).read() == ON


def test_a_secret_that_is_nowhere_is_a_reason_too(on: Controller) -> None:
    def nowhere(_: SecretRef) -> str:
        raise BadInput("the secret bmc/password is nowhere to be found", next="set it")

    bmc = on.bmc()
    what, next_step = reason(power_control("h3", bmc, nowhere, Path(str(bmc.ca)), SystemClock()).read)
    assert (what, next_step) == ("redfish: the secret bmc/password is nowhere to be found", "set it")


def test_a_port_that_nobody_listens_on(on: Controller) -> None:
    on.stop()
    what, next_step = reason(control(on.bmc()).read)
    assert what == f"redfish: 127.0.0.1:{on.port} refuses the connection"
    assert f"curl -kI https://127.0.0.1:{on.port}" in next_step


def test_a_controller_that_hangs_is_given_up_and_asked_anew_when_it_is_back(on: Controller) -> None:
    power = control(on.bmc(timeout_s=1, off_timeout_s=2))
    assert power.read() == ON
    on.hang()
    for question in (power.read, power.force_off, power.force_on):
        what, _ = reason(question)
        assert what == f"redfish: 127.0.0.1:{on.port} does not answer within 1 s"
    on.process.send_signal(signal.SIGCONT)
    assert control(on.bmc(timeout_s=30)).read().power in (HostPower.ON, HostPower.OFF)


def test_a_certificate_that_is_not_pinned_is_refused(on: Controller, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write_certificate(other, "127.0.0.1")
    for bmc in (on.bmc().model_copy(update={"ca": str(other / "cert.pem")}), Bmc(redfish=on.bmc().redfish)):
        what, next_step = reason(control(bmc).force_off)
        assert "shows a certificate that is not trusted: unable to get local issuer certificate" in what
        assert f"openssl s_client -connect 127.0.0.1:{on.port}" in next_step
    assert control(on.bmc()).read() == ON


def test_a_certificate_for_another_address_is_refused(on: Controller) -> None:
    authority = on.bmc(redfish=f"https://127.0.0.2:{on.port}").model_copy(update={"ca": str(on.folder / "ca.pem")})
    what, next_step = reason(control(authority).read)
    assert "certificate is not valid for '127.0.0.2'" in what
    assert "write in bmc.redfish the name that its certificate has" in next_step


@pytest.mark.parametrize("kind", ["other name", "no name", "over", "not yet", "small key", "issued"])
def test_a_pinned_certificate_means_this_certificate_whatever_is_in_it(tmp_path: Path, kind: str) -> None:
    write_strange_certificate(tmp_path, kind)
    with RedfishServer({"tls": [tmp_path / "cert.pem", tmp_path / "key.pem"]}) as server:
        pinned = Bmc(redfish=server.url, ca=str(tmp_path / "cert.pem"))
        assert control(pinned).read() == ON
        assert control(pinned).force_off() == OFF
        (tmp_path / "more").mkdir()
        write_strange_certificate(tmp_path / "more", kind)
        what, _ = reason(control(Bmc(redfish=server.url, ca=str(tmp_path / "more" / "cert.pem"))).read)
        assert "is not trusted" in what
        assert not any(token in what for token in ("correct-horse", PASSWORD))


@pytest.mark.parametrize("target", ["{other}/", "http://127.0.0.1:{port}/elsewhere/", "{path}x/", "//127.0.0.1{path}/"])
def test_a_slash_at_the_end_is_all_that_a_redirect_may_add(target: str) -> None:
    asked: list[str] = []

    def talk(sock: Any) -> None:
        path = sock.recv(4096).decode().split()[1]
        asked.append(path)
        where = target.format(other="http://127.0.0.9" + path, port=port, path=path)
        sock.sendall(f"HTTP/1.1 308 X\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode())

    with serve_raw(talk) as port:
        what, _ = reason(control(Bmc(redfish=f"http://127.0.0.1:{port}", timeout_s=5)).read)
    assert "no redirect is followed" in what
    assert asked == ["/redfish/v1/SessionService/Sessions"]


def test_a_slash_without_end_is_given_up() -> None:
    def talk(sock: Any) -> None:
        path = sock.recv(4096).decode().split()[1]
        sock.sendall(f"HTTP/1.1 308 X\r\nLocation: {path}/\r\nContent-Length: 0\r\n\r\n".encode())

    with serve_raw(talk) as port:
        what, _ = reason(control(Bmc(redfish=f"http://127.0.0.1:{port}", timeout_s=5)).read)
    assert "no redirect is followed" in what


def test_nothing_is_sent_where_a_redirect_leads(tmp_path: Path) -> None:
    with RedfishServer({}) as other, RedfishServer({"redirect": other.url, "power": "On"}) as moved:
        what, next_step = reason(control(Bmc(redfish=moved.url)).read)
        assert "no redirect is followed" in what
        assert "bmc.redfish" in next_step
        assert other.requests == []


@pytest.mark.parametrize("form", ["DER", "CRLF", "text before it"])
def test_a_pinned_certificate_may_be_written_in_any_form(tmp_path: Path, form: str) -> None:
    write_strange_certificate(tmp_path, "other name")
    pem = (tmp_path / "cert.pem").read_text()
    pinned = tmp_path / "pinned"
    if form == "DER":
        pinned.write_bytes(ssl.PEM_cert_to_DER_cert(pem))
    elif form == "CRLF":
        pinned.write_bytes(pem.replace("\n", "\r\n").encode())
    else:
        pinned.write_text(f"subject=CN = bmc-factory-0001\n{pem}")
    with RedfishServer({"tls": [tmp_path / "cert.pem", tmp_path / "key.pem"]}) as server:
        assert control(Bmc(redfish=server.url, ca=str(pinned))).read() == ON


@pytest.mark.parametrize(
    "text", ["", "not a certificate", "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_holds_no_certificate_is_said_to_hold_none(tmp_path: Path, text: str) -> None:
    write_strange_certificate(tmp_path, "other name")
    (tmp_path / "pinned").write_text(text)
    with RedfishServer({"tls": [tmp_path / "cert.pem", tmp_path / "key.pem"]}) as server:
        what, next_step = reason(control(Bmc(redfish=server.url, ca=str(tmp_path / "pinned"))).read)
    assert what == f"redfish: cannot be trusted: {tmp_path / 'pinned'} holds no certificate"
    assert "openssl s_client" in next_step


def test_a_certificate_file_that_is_not_there(on: Controller) -> None:
    what, _ = reason(control(on.bmc().model_copy(update={"ca": str(on.folder / "none.pem")})).read)
    assert what == f"redfish: cannot be trusted: there is no certificate {on.folder / 'none.pem'}"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak TLS as we do"),
        (b"", "does not speak TLS as we do"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", "does not speak Redfish as we do"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", "does not speak Redfish as we do"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "answers 503"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "answers 404"),
    ],
)
def test_something_else_listens_there(answer: bytes, says: str) -> None:
    def talk(sock: object) -> None:
        sock.recv(4096)  # type: ignore[attr-defined]
        sock.sendall(answer)  # type: ignore[attr-defined]

    scheme = "http" if answer.startswith(b"HTTP") else "https"
    with serve_raw(talk) as port:
        what, _ = reason(control(Bmc(redfish=f"{scheme}://127.0.0.1:{port}", timeout_s=5)).read)
    assert says in what


def test_a_proxy_of_the_environment_is_not_asked(on: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert control(on.bmc()).read() == ON


def test_a_host_without_a_controller_says_so() -> None:
    for question in (control(None).read, control(None).force_off, control(None).force_on):
        what, next_step = reason(question)
        assert (what, next_step) == ("it has no management controller in the inventory", "add bmc to h3")


# -- IPMI


@contextlib.contextmanager
def ipmi_sim(folder: Path, address: str) -> Iterator[Path]:
    """OpenIPMI's simulator on UDP port 623 of an address; yields the file that is its host's power, 0 or 1."""
    power = folder / "power"
    power.write_text("1")
    script = folder / "chassis"
    script.write_text(
        f'#!/bin/sh\ncase "$1 $2" in\n"get power") echo "power:$(cat {power})";;\n'
        f'"set power") echo "$3" >{power};;\nesac\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    auths = "\n".join(f"    allowed_auths_{who} none md2 md5 straight" for who in ("user", "operator", "admin"))
    (folder / "lan.conf").write_text(
        f'name "h3"\nset_working_mc 0x20\n  startlan 1\n    addr {address} 623\n    priv_limit admin\n{auths}\n'
        f'    guid a123456789abcdefa123456789abcdef\n  endlan\n  chassis_control "{script}"\n'
        f'  user 2 true "admin" "{PASSWORD}" admin 10 none md2 md5 straight\n'
    )
    (folder / "sim.emu").write_text(
        "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n"
    )
    (folder / "state").mkdir()
    argv = ["ipmi_sim", "-c", "lan.conf", "-f", "sim.emu", "-s", "state", "-n"]
    with (folder / "sim.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield power
    finally:
        process.kill()
        process.wait()


def test_ipmi_does_it_alone(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path, "127.0.0.90") as power:
        one = control(Bmc(ipmi="127.0.0.90"))
        assert one.read() == Reading(HostPower.ON, "ipmi")
        assert one.force_off() == Reading(HostPower.OFF, "ipmi")
        assert power.read_text() == "0\n"
        assert one.force_off() == Reading(HostPower.OFF, "ipmi")
        assert one.force_on() == Reading(HostPower.ON, "ipmi")
        assert power.read_text() == "1\n"


def test_ipmi_refuses_a_wrong_password(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path, "127.0.0.91"):
        assert control(Bmc(ipmi="127.0.0.91")).read() == Reading(HostPower.ON, "ipmi")
        what, next_step = reason(control(Bmc(ipmi="127.0.0.91", timeout_s=20), "not this one").read)
    assert "refuses user admin with the secret bmc/password" in what
    assert "correct the secret bmc/password" in next_step
    assert "not this one" not in what


def test_ipmi_that_is_not_there_ends_at_its_deadline() -> None:
    what, _ = reason(control(Bmc(ipmi="127.0.0.92", timeout_s=1)).read)
    assert what == "ipmi: 127.0.0.92 does not answer within 1 s"


def test_ipmi_is_asked_when_redfish_fails_and_both_reasons_are_told(on: Controller, tmp_path: Path) -> None:
    (tmp_path / "ipmi").mkdir()
    on.stop()
    with ipmi_sim(tmp_path / "ipmi", "127.0.0.93"):
        assert control(on.bmc(ipmi="127.0.0.93")).force_off() == Reading(HostPower.OFF, "ipmi")
    what, next_step = reason(control(on.bmc(ipmi="127.0.0.94", timeout_s=1, off_timeout_s=2)).force_off)
    assert what == (f"redfish: 127.0.0.1:{on.port} refuses the connection; ipmi: 127.0.0.94 does not answer within 1 s")
    assert "curl" in next_step
    assert "IPMI over LAN" in next_step


def test_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.append(path.read_bytes())

    watcher = threading.Thread(target=watch)
    with ipmi_sim(tmp_path, "127.0.0.95"):
        watcher.start()
        for _ in range(5):
            assert control(Bmc(ipmi="127.0.0.95")).read().power is HostPower.ON
        done.set()
        watcher.join()
    assert any(b"ipmitool" in line and b"127.0.0.95" in line for line in seen)
    assert not any(PASSWORD.encode() in line for line in seen)


def test_a_machine_without_ipmitool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reason(control(Bmc(ipmi="127.0.0.96")).read) == (
        "ipmi: ipmitool is not on this machine",
        "apt-get install ipmitool",
    )


# -- the step that proves a host off


@dataclass
class Powered(SimWorld):
    """The simulated site, whose host h3 has the power of a real service."""

    control: PowerControl | None = None

    def power(self, host: str) -> Any:
        assert host == "h3"
        return self.control


class Silence:
    """A report to nobody."""

    def progress(self, doing: str, done: float = 0, total: float = 0, unit: str = "") -> None: ...
    def visit(self, name: str, elapsed_s: float) -> None: ...
    def stopping(self) -> bool:
        return False


@pytest.fixture
def powered(on: Controller, desired: Desired, image_file: Path) -> Powered:
    return Powered(desired, image_file, control=control(on.bmc(timeout_s=2, off_timeout_s=4)))


def test_the_fence_is_unmet_until_off_was_read_twice(powered: Powered) -> None:
    fence = Fence("h3")
    assert fence.check(powered) == Unmet("nothing proves that this run cut its power")
    assert fence.do(powered, Silence()) == {"asked": ["off at once, by redfish"]}
    how = "redfish: on, then off, read twice"
    assert fence.check(powered) == Met({"proof": how, "read": ["off", "off"], "by": "redfish"})
    assert ask_power(powered, "h3") == PowerProof(HostPower.OFF, how, "redfish")
    powered.control.force_on()  # type: ignore[union-attr]
    assert ask_power(powered, "h3") == PowerProof(HostPower.ON, "", "redfish")


def test_what_one_run_ordered_proves_nothing_to_the_next(on: Controller, powered: Powered) -> None:
    assert powered.control is not None
    powered.control.force_off()
    assert powered.control.proof
    powered.control = control(on.bmc())
    assert ask_power(powered, "h3") == PowerProof(HostPower.OFF, "", "redfish")
    assert Fence("h3").check(powered) == Unmet("nothing proves that this run cut its power")


def test_a_persons_word_counts_beside_a_controller_that_says_off(on: Controller, powered: Powered) -> None:
    assert powered.control is not None
    powered.control.force_off()
    powered.control = control(on.bmc())
    powered.confirmed["h3"] = "you, at 22:41"
    assert Fence("h3").check(powered) == Met({"proof": "you, at 22:41", "by": "person"})


def test_without_a_controller_the_fence_names_the_command_that_goes_on(on: Controller, powered: Powered) -> None:
    on.stop()
    unmet = Fence("h3").check(powered)
    assert isinstance(unmet, Unmet)
    with pytest.raises(Blocked) as caught:
        Fence("h3").do(powered, Silence())
    assert caught.value.exit_code == 3
    assert caught.value.what == (f"its power cannot be cut: redfish: 127.0.0.1:{on.port} refuses the connection")
    assert caught.value.next.startswith(
        "pull its plug, then: pcloud fence confirm demo/h3 --i-have-powered-it-off; then pcloud recover demo. Or "
    )


def test_a_persons_word_counts_only_while_no_controller_answers(on: Controller, powered: Powered) -> None:
    powered.confirmed["h3"] = "you, at 22:41"
    assert Fence("h3").check(powered) == Unmet("redfish says it is on")
    on.stop()
    assert Fence("h3").check(powered) == Met({"proof": "you, at 22:41", "by": "person"})


# -- a person's word in the journal

NOW = datetime(2012, 11, 16, 21, 40, tzinfo=UTC)


def give_word(host: str, at: datetime, *, blocked: bool = False, operation: str = confirmations.OPERATION) -> Path:
    """A run as `pcloud fence confirm` leaves it."""
    key = confirmations.step_key(host)
    run, date = new_run_id(runs_dir("demo"), at, operation), at.isoformat(timespec="seconds")
    with Journal.create(runs_dir("demo"), run) as journal:
        journal.append(RunStarted(run, "demo", operation, "", date, (operation,), (StepInfo(key, operation),)))
        journal.append(StepStarted(key, 0.1))
        journal.append(StepBlocked(key, 1, "it answers", host, "") if blocked else StepDone(key, 1))
        journal.append(RunFinished("blocked" if blocked else "converged", 1, date))
    return journal.path


def word(host: str, now: datetime = NOW) -> str:
    found = confirmations.find_confirmation("demo", host, now)
    return str(found) if found else ""


def test_a_word_counts_for_an_hour_and_for_its_host_alone() -> None:
    assert word("h3") == ""
    give_word("h3", NOW - timedelta(minutes=59))
    assert word("h3") == f"you, at {(NOW - timedelta(minutes=59)).astimezone():%H:%M}"
    assert word("h4") == ""
    assert word("h3", NOW + timedelta(minutes=1)) == ""
    assert word("h3", NOW - timedelta(hours=1)) == ""  # a clock that went back proves nothing


def test_the_newest_word_is_told() -> None:
    give_word("h3", NOW - timedelta(minutes=20))
    give_word("h3", NOW - timedelta(minutes=5))
    assert word("h3") == f"you, at {(NOW - timedelta(minutes=5)).astimezone():%H:%M}"


def test_a_refused_or_damaged_word_and_other_runs_are_none() -> None:
    give_word("h3", NOW - timedelta(minutes=4), blocked=True)
    give_word("h3", NOW - timedelta(minutes=3), operation="recover")
    damaged = give_word("h3", NOW - timedelta(minutes=2))
    damaged.write_text("nonsense\n" + damaged.read_text())
    assert word("h3") == ""


def test_a_host_that_is_heard_of_withdraws_every_word_about_it() -> None:
    give_word("h3", NOW - timedelta(minutes=20))
    give_word("h3", NOW - timedelta(minutes=5))
    give_word("h4", NOW - timedelta(minutes=6))
    confirmations.withdraw("demo", "h3", NOW)
    assert word("h3") == ""
    assert word("h4") != ""
    give_word("h3", NOW - timedelta(minutes=1))
    assert word("h3") != ""
