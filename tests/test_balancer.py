"""The balancer's own configuration in a real HAProxy: four frontends, and spare addresses where nobody lives."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pcloud.desire import desire
from pcloud.desired import Options
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.last_answers import ask_all
from pcloud.playbook import load_playbook
from tests.guests import secret
from tests.simulation import image_spec

NET, PORT = "127.0.79", 18080
"""Stand for 10.77.0 and the frontends' port 80."""
SPARE = range(5, 9)
PATIENCE_S = 2
"""Stands for how long a request of an earlier HAProxy may take."""
SHOPPING_S = 4.0
"""Longer than HAProxy needs to notice that nobody is at an address."""


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(500 if self.path == "/fails" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


class Frontend(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A balancer that closes its connections at the end is no error."""


@contextmanager
def frontend(address: str) -> Iterator[None]:
    with Frontend((address, PORT), Page) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield
        server.shutdown()


@contextmanager
def nobody(address: str) -> Iterator[None]:
    """An address that takes no connection and refuses none, as one without a machine: a full queue."""
    with ExitStack() as open_ones:
        door = open_ones.enter_context(socket.socket())
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((address, PORT))
        door.listen(0)
        for _ in range(3):
            waiting = open_ones.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, PORT))
        yield


@dataclass(frozen=True)
class Balancer:
    """A running HAProxy with the files that lb-1 would have: its runtime socket, and the spare addresses."""

    runtime: Path
    empty: dict[int, ExitStack]


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Balancer]:
    disk = tmp_path / "disk.qcow2"
    disk.write_bytes(b"an image")
    inventory = load_inventory(defaults_dir("inventory") / "demo.yaml")
    playbook = load_playbook(defaults_dir("playbooks") / "recover.yaml")
    images = {name: image_spec(name, disk) for name in inventory.site.images}
    material = desire(inventory, playbook, images, secret, Options())[1]
    for file in material.files["lb-1"]:
        if file.path.startswith("/etc/haproxy/"):
            text = file.content.decode().replace("10.77.0.", f"{NET}.").replace("/run/haproxy/", f"{tmp_path}/")
            text = text.replace("/etc/haproxy/", f"{tmp_path}/").replace(":80 check", f":{PORT} check")
            text = text.replace(":80 track", f":{PORT} track").replace("- 80 -", f"- {PORT} -")
            text = text.replace("bind :", f"bind {NET}.81:").replace("    chroot /var/lib/haproxy\n", "")
            text = text.replace("date(40000,", f"date({PATIENCE_S}000,")
            text = text.replace("    user haproxy\n    group haproxy\n", "")
            (tmp_path / Path(file.path).name).write_text(text)
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    assert program, "haproxy is missing: apt-get install haproxy"
    with ExitStack() as stack:
        for n in range(1, 5):
            stack.enter_context(frontend(f"{NET}.2{n}"))
        empty = {n: stack.enter_context(ExitStack()) for n in SPARE}
        for n, place in empty.items():
            place.enter_context(nobody(f"{NET}.2{n}"))
        running = subprocess.Popen([program, "-db", "-f", str(tmp_path / "haproxy.cfg")], stderr=subprocess.DEVNULL)
        stack.callback(running.wait, 10)
        stack.callback(running.kill)
        _wait_for(lambda: (tmp_path / "admin.sock").exists() and _asked() == 200)
        yield Balancer(tmp_path / "admin.sock", empty)


def _wait_for(what: object) -> None:
    deadline = time.monotonic() + 20
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def _asked(method: str = "GET", path: str = "/") -> int | str:
    try:
        connection = HTTPConnection(f"{NET}.81", 80, timeout=20)
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
    except (OSError, HTTPException) as error:
        return type(error).__name__
    return answer.status


def states(runtime: Path) -> dict[str, bool]:
    """`reading/fe-5` to whether HAProxy sends it anything."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(str(runtime))
        talk.sendall(b"show servers state\n")
        said = b"".join(iter(lambda: talk.recv(65536), b"")).decode()
    rows = [line.split() for line in said.splitlines() if line[:1].isdigit() and " " in line]
    return {f"{row[1]}/{row[3]}": row[5] != "0" for row in rows}


def test_spare_addresses_cost_no_shopper_anything_and_one_who_stands_in_is_in_at_once(balancer: Balancer) -> None:
    assert {n for n, up in states(balancer.runtime).items() if not up} == {
        f"{way}/fe-{n}" for way in ("reading", "sending") for n in SPARE
    }
    answers: Counter[int | str] = Counter()
    until = time.monotonic() + SHOPPING_S

    def shop(method: str) -> None:
        while time.monotonic() < until:
            answers[_asked(method)] += 1
            time.sleep(0.05)

    shoppers = [threading.Thread(target=shop, args=(method,)) for method in ("GET", "POST") * 4]
    for shopper in shoppers:
        shopper.start()
    for shopper in shoppers:
        shopper.join()
    assert set(answers) == {200}, answers
    balancer.empty[6].close()
    with frontend(f"{NET}.26"):
        _wait_for(lambda: all(states(balancer.runtime)[f"{way}/fe-6"] for way in ("reading", "sending")))


def heard() -> float | None:
    with ThreadPoolExecutor(1) as pool:
        return ask_all({"lb-1": f"{NET}.81"}, pool, http=True)().get("lb-1")


def test_it_says_when_it_last_passed_on_what_may_acknowledge_an_order(balancer: Balancer) -> None:
    """Pages that were only read and errors acknowledge nothing; of the time before its start it knows no more than
    that it is over."""
    assert heard() is None
    time.sleep(PATIENCE_S + 2)
    since_start = heard()
    assert since_start is not None
    assert 0 <= since_start <= PATIENCE_S + 2
    assert _asked("POST") == 200
    began = time.monotonic()
    assert heard() == 0
    time.sleep(3)
    assert (_asked("GET"), _asked("POST", "/fails")) == (200, 500)
    after = heard()
    assert after is not None
    assert 1 <= after <= time.monotonic() - began
