"""The management controllers of the lab's hosts: a real Redfish service each, whose power button is the lab's.

One process serves them all (`bmc_service`): sushy-tools' emulator with TLS and a password. It lives
in the fabric's network, where every host's controller has a loopback address of its own, the host's
with 127 in front: pcloud reaches it whatever becomes of the host and its cable, as on a management
network. What a controller does wrong on demand is a rule of the fabric's packet filter, or, where it
answers and lies, a line in the host's folder that the service reads with each question.

<lab folder>/bmc/cert.pem, key.pem   made whenever the service starts, for all its addresses
                 htpasswd            the user's password, as the emulator wants it
                 state/, log         the emulator's own
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal, get_args

import bcrypt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pcloud.clock import Deadline
from pcloud.errors import CommandFailed, DeadlineExceeded
from pcloud.files import write_atomically
from pcloud.lab import network, processes
from pcloud.lab.layout import LabFolder
from pcloud.lab.processes import BMC, Part
from pcloud.model import Bmc, Host, SecretRef, Site

Fault = Literal["ok", "refuse", "hang", "late", "dead", "boots", "boots-untold", "cached", "loses", "crossed"]
"""`refuse` connections; `hang`: accept them and never answer; `late`: answer at once and switch `LATE_S` later;
`dead`: no address at all; `boots`: it has just started, says off and drops orders for `LIES_S`; `boots-untold`: it
does not tell that it has; `cached`: it says off for `LIES_S`, and obeys; `loses` the first order; `crossed`: it is
the next host's."""
USER = "admin"
PASSWORD = SecretRef(secret="bmc/password")  # noqa: S106 -- a name
LATE_S = 5.0
"""How long after its answer a `late` controller does what it was told."""
LIES_S = 20.0
"""For how long after its start a controller that `boots` says off and drops orders, and one says off from its cache."""
START_S = 30.0
ASK_S = 5
"""For one question to a controller of the lab, which answers in milliseconds or not at all."""
START_S = 60
KILL_S = 10


def address_of(host: Host) -> IPv4Address:
    """Where the host's controller is: on the fabric's loopback, so nothing has to be configured.

    Unique in a network of /8 or smaller, and an inventory takes no larger one.
    """
    return IPv4Address(127 << 24 | int(host.address) & 0xFFFFFF)


def bmc_of(site: Site, host: Host) -> Bmc | None:
    """How the host's controller is reached; None where hosts are real machines.

    In a lab it is the lab's, also when the inventory names another one: a rehearsal must never
    cut the power of a real machine.
    """
    if site.lab is None:
        return None
    certificate = _folder(LabFolder.of(site)) / "cert.pem"
    return Bmc(
        redfish=f"https://{address_of(host)}",
        user=USER,
        password=PASSWORD,
        ca=str(certificate),
        timeout_s=ASK_S,
        start_s=START_S,
    )


def fault_of(folder: LabFolder, host: str) -> Fault:
    """What the host's controller does wrong at present."""
    try:
        text = folder.host(host).bmc.read_text().strip()
    except FileNotFoundError:
        return "ok"
    return next((f for f in get_args(Fault) if f == text), "ok")


def fault_age_s(folder: LabFolder, host: str) -> float:
    """For how long it has done so; without a fault, longer than any controller lies."""
    try:
        return max(0.0, time.time() - folder.host(host).bmc.stat().st_mtime)
    except FileNotFoundError:
        return math.inf


def set_fault(folder: LabFolder, fabric: Part, hosts: Sequence[Host], host: Host, fault: Fault) -> None:
    """From now on, until another one is set, also when the controllers start anew."""
    path = folder.host(host.name).bmc
    path.unlink(missing_ok=True) if fault == "ok" else path.write_text(f"{fault}\n")
    apply_faults(folder, fabric, hosts)


def apply_faults(folder: LabFolder, fabric: Part, hosts: Sequence[Host]) -> None:
    network.filter_controllers(fabric, {address_of(h): fault_of(folder, h.name) for h in hosts})


def start(site: Site, folder: LabFolder, fabric: Part, hosts: Sequence[Host]) -> subprocess.Popen[str] | None:
    """Starts the controllers of these hosts, unless just these run; `finish` waits for them."""
    secrets = yaml.safe_load(folder.secrets.read_text())
    password = str(secrets[PASSWORD.secret])
    hosts = sorted(hosts, key=lambda h: h.address)
    asked = site.model_dump_json(exclude_unset=True)  # with its defaults it would not pass its own checks
    what = json.dumps([asked, [h.model_dump_json() for h in hosts], password, fabric.net_ns])
    digest = hashlib.sha256(what.encode()).hexdigest()
    if [one.digest for one in processes.find_controllers(folder.path)] == [digest]:
        return None
    stop(folder)
    place = _folder(folder)
    (place / "state").mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_certificate(place, [address_of(h) for h in hosts])
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(rounds=4)).decode()
    write_atomically(place / "htpasswd", f"{USER}:{hashed}\n", 0o600)
    spec = {
        "site": asked,
        "hosts": {str(address_of(h)): h.name for h in hosts},
        "fabric": fabric.pid,
        "folder": str(place),
        "lab": str(folder.path),
    }
    mark = {"PCLOUD_LAB": str(folder.path), "PCLOUD_LAB_PART": BMC, "PCLOUD_LAB_BMC": digest}
    launch = subprocess.Popen(
        [sys.executable, "-P", "-m", "pcloud.lab.bmc_service"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, **mark},
        start_new_session=True,
    )
    assert launch.stdin is not None
    launch.stdin.write(json.dumps(spec))
    launch.stdin.close()
    launch.stdin = None
    return launch


def finish(launch: subprocess.Popen[str] | None) -> None:
    """Until the controllers listen. Raises `CommandFailed`, `DeadlineExceeded`."""
    if launch is None:
        return
    try:
        _, said = launch.communicate(timeout=START_S)
    except subprocess.TimeoutExpired as error:
        launch.kill()
        launch.communicate()
        raise DeadlineExceeded("they do not start", where="the lab's controllers", next="pcloud lab up") from error
    if launch.returncode != 0:
        last = " ".join(said.split())[-300:]
        raise CommandFailed(f"they do not start: {last}", where="the lab's controllers", next="pcloud lab up")


def stop(folder: LabFolder) -> None:
    """Ends the controllers of this lab, however many were left behind."""
    for one in processes.find_controllers(folder.path):
        processes.kill_controllers(folder.path, one, Deadline.after(KILL_S))


def _folder(folder: LabFolder) -> Path:
    return folder.path / "bmc"


def _write_certificate(place: Path, addresses: Sequence[IPv4Address]) -> None:
    """A certificate that nobody signed but itself, good for these addresses alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "controllers of a pcloud lab")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(a) for a in addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(place / "key.pem", private.decode(), 0o600)
    write_atomically(place / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM).decode(), 0o600)
