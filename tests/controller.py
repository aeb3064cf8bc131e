"""A real Redfish service on 127.0.0.1 for tests: sushy-tools' own program, with power that tests can see.

Run as `python -m tests.controller CONFIG LATE_S POWER`: the emulator's fake driver, whose power goes off
LATE_S seconds after its answer (null: it refuses every order), and who refuses (409) what is so already. POWER is
a file that holds what was ordered last.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pcloud.model import Bmc

PASSWORD = "correct-horse"


@dataclass(frozen=True)
class Controller:
    """A running service: `signal(SIGSTOP)` hangs it, `stop` makes its port refuse."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def bmc(self, **changes: Any) -> Bmc:
        url = changes.pop("redfish", f"https://127.0.0.1:{self.port}")
        return Bmc(redfish=url, ca=str(self.folder / "cert.pem"), **changes)

    @property
    def power_file(self) -> Path:
        return self.folder / "power"

    def hang(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def controller(
    folder: Path, *, late_s: float = 0, power: str = "On", systems: int = 1, refuses: bool = False
) -> Iterator[Controller]:
    """A service with TLS (a certificate for 127.0.0.1 alone) and a password, until the block ends."""
    write_certificate(folder, "127.0.0.1")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(rounds=4)).decode()
    (folder / "htpasswd").write_text(f"admin:{hashed}\n")
    port = _free_port()
    fakes = [{"uuid": f"uuid-{n}", "name": f"node-{n}", "power_state": power, "nics": []} for n in range(systems)]
    settings = {
        "SUSHY_EMULATOR_LISTEN_IP": "0.0.0.0",
        "SUSHY_EMULATOR_LISTEN_PORT": port,
        "SUSHY_EMULATOR_SSL_CERT": str(folder / "cert.pem"),
        "SUSHY_EMULATOR_SSL_KEY": str(folder / "key.pem"),
        "SUSHY_EMULATOR_AUTH_FILE": str(folder / "htpasswd"),
        "SUSHY_EMULATOR_STATE_DIR": str(folder / "state"),
        "SUSHY_EMULATOR_FEATURE_SET": "minimum",
        "SUSHY_EMULATOR_FAKE_SYSTEMS": fakes,
    }
    config = folder / "emulator.conf"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    (folder / "power").write_text(power.lower())
    late = json.dumps(None if refuses else late_s)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.controller", str(config), late, str(folder / "power")],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(port, process, folder / "log")
        yield Controller(folder, port, process)
    finally:
        process.kill()
        process.wait()


def write_certificate(folder: Path, address: str) -> None:
    """cert.pem and key.pem, for this address alone; ca.pem is the authority that signed it."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority of the tests")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a controller of the tests")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    root = x509.CertificateBuilder(issuer, issuer, authority.public_key(), x509.random_serial_number())
    root = root.not_valid_before(now - day).not_valid_after(now + day)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    leaf = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
    leaf = leaf.not_valid_before(now - day).not_valid_after(now + day).add_extension(alternative, critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(root.sign(authority, hashes.SHA256()).public_bytes(pem))
    (folder / "cert.pem").write_bytes(leaf.sign(authority, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def write_strange_certificate(folder: Path, kind: str) -> None:
    """cert.pem and key.pem as factory controllers have them."""
    key = rsa.generate_private_key(65537, 1024 if kind == "small key" else 2048)
    signs = rsa.generate_private_key(65537, 2048) if kind == "issued" else key
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bmc-factory-0001")])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority that nobody has")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    start, end = {"over": (-9 * day, -day), "not yet": (day, 9 * day)}.get(kind, (-day, 9 * day))
    builder = x509.CertificateBuilder(
        issuer if kind == "issued" else name,
        name,
        key.public_key(),
        x509.random_serial_number(),
        now + start,
        now + end,
    )
    if kind != "no name":
        other = x509.DNSName("bmc-factory-0001") if kind == "other name" else x509.IPAddress(ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([other]), critical=False)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(builder.sign(signs, hashes.SHA256()).public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"the controller does not start: {log.read_text()}")


def _serve(config: str, late_s: float | None, power: Path) -> int:
    from sushy_tools import error
    from sushy_tools.emulator import main as emulator
    from sushy_tools.emulator.resources.systems import fakedriver

    class Button(fakedriver.FakeDriver):  # type: ignore[misc]  # sushy-tools has no types
        def set_power_state(self, identity: str, state: str) -> None:
            system = self._get(identity)
            wanted = "On" if state == "On" else "Off"
            if late_s is None or system["power_state"] == wanted:
                raise error.Conflict(f"it is {wanted} already")
            pending = {"power_state": wanted, "apply_time": time.time() + late_s}
            self._update(system, pending_power=pending)
            power.write_text(wanted.lower())
            sys.stderr.write(f"ordered {state}\n")

    fakedriver.FakeDriver = Button
    sys.argv = ["sushy-emulator", "--fake", "--config", config]
    status: int = emulator.main()
    return status


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])))
