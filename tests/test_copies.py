"""Handing an image's file from host to host: the real program, on hosts that are folders and loopback addresses."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from pcloud.desired import ImageFile, ImageSpec
from pcloud.errors import CommandFailed, ImageError, Transient
from pcloud.model import Host
from pcloud.steps import copies, relay
from pcloud.steps.base import World
from pcloud.steps.copies import copy_file
from pcloud.steps.relay import PROGRAM, SENDER_GONE, Hop, Order

SIZE = 5_000_123


@dataclass
class Ended:
    exit_code: int
    stdout: str
    stderr: str


@dataclass
class Machines:
    """Hosts on this machine: a folder and an address of the loopback network each."""

    folder: Path
    source: Path

    def host(self, name: str) -> Host:
        pool = self.folder / name
        pool.mkdir(exist_ok=True)
        host = Host.model_validate({"name": name, "address": f"127.0.77.{int(name[1:])}"})
        return host.model_copy(update={"pool": str(pool)})  # a pool under /tmp is refused in an inventory

    def shell(self, host: str) -> Machines:
        return self

    def image_path(self, digest: str, file: str) -> Path:
        return self.source

    def run(
        self, argv: Sequence[str], *, deadline_s: float, stdin: bytes | BinaryIO | None = None, **rest: Any
    ) -> Ended:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        sent = 0
        source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        try:
            while source is not None and (data := source.read(1 << 16)):
                process.stdin.write(data)
                sent += len(data)
                if rest.get("progress"):
                    rest["progress"](sent)
        except BrokenPipeError:
            pass
        out, err = process.communicate(timeout=deadline_s)
        return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SIZE))
    return Machines(tmp_path, source)


@pytest.fixture
def file(machines: Machines) -> ImageFile:
    return ImageFile("disk.qcow2", hashlib.sha256(machines.source.read_bytes()).hexdigest(), SIZE)


def image(file: ImageFile) -> ImageSpec:
    return ImageSpec("shop", "shop", file.sha256, "", file, None, None)


def path_on(machines: Machines, file: ImageFile, host: str) -> Path:
    return Path(image(file).on_host(machines.host(host).pool, file))


def put_part(machines: Machines, file: ImageFile, host: str, data: bytes) -> Path:
    path = path_on(machines, file, host)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    return part


def copy(machines: Machines, file: ImageFile, hosts: list[str], **more: Any) -> tuple[dict[str, Any], list[int]]:
    sent: list[int] = []
    problems = copy_file(cast(World, machines), image(file), file, hosts, sent=sent.append, **more)
    return dict(problems), sent


def is_whole(machines: Machines, file: ImageFile, host: str) -> bool:
    names = sorted(p.name for p in (machines.folder / host).iterdir())
    path = path_on(machines, file, host)
    return names == [path.name] and path.read_bytes() == machines.source.read_bytes()


def names(count: int) -> list[str]:
    return [f"h{n}" for n in range(1, count + 1)]


def test_every_host_of_a_chain_gets_it_and_the_operator_sends_it_once(machines: Machines, file: ImageFile) -> None:
    problems, sent = copy(machines, file, names(7))
    assert problems == {} and all(is_whole(machines, file, h) for h in names(7))
    assert sent == sorted(sent) and sent[-1] == SIZE
    assert path_on(machines, file, "h7").stat().st_mode & 0o777 == 0o644


def test_a_host_that_has_it_is_the_source(machines: Machines, file: ImageFile) -> None:
    copy(machines, file, ["h9"])
    machines.source = machines.source.rename(machines.folder / "moved")
    problems, sent = copy(machines, file, names(3), have=["h9"])
    assert problems == {} and sent == [] and all(is_whole(machines, file, h) for h in names(3))


def test_each_host_goes_on_from_what_it_has(machines: Machines, file: ImageFile) -> None:
    data = machines.source.read_bytes()
    lengths = {"h1": 3_000_000, "h2": 1_000_000, "h3": 4_000_000, "h5": SIZE, "h6": 0}
    for host, length in lengths.items():
        put_part(machines, file, host, data[:length])
    problems, sent = copy(machines, file, names(6))
    assert problems == {} and all(is_whole(machines, file, h) for h in names(6))
    assert sent[0] >= 3_000_000, "the first host's part was not sent again"


def test_a_part_that_is_too_long_is_begun_anew(machines: Machines, file: ImageFile) -> None:
    put_part(machines, file, "h1", bytes(SIZE + 1))
    put_part(machines, file, "h2", bytes(SIZE + 1))
    assert copy(machines, file, names(2))[0] == {} and is_whole(machines, file, "h2")


def test_a_wrong_part_is_thrown_away_and_begun_anew(machines: Machines, file: ImageFile) -> None:
    put_part(machines, file, "h1", os.urandom(1000))
    problems, sent = copy(machines, file, names(3))
    assert problems == {} and all(is_whole(machines, file, h) for h in names(3))
    assert sent.count(SIZE) == 2, "what came from h1 was wrong for all, and thrown away"


def test_an_image_that_is_corrupt_here_gets_its_name_nowhere(machines: Machines, file: ImageFile) -> None:
    data = bytearray(machines.source.read_bytes())
    data[100] ^= 1
    machines.source.write_bytes(data)
    problems, _ = copy(machines, file, names(2))
    assert isinstance(problems["h1"], ImageError) and problems["h1"].next == "pcloud image verify shop"
    assert not path_on(machines, file, "h1").exists() and not path_on(machines, file, "h2").exists()


def test_a_truncated_image_here_is_kept_as_a_part_and_never_named(machines: Machines, file: ImageFile) -> None:
    machines.source.write_bytes(machines.source.read_bytes()[:2_000_000])
    problems, _ = copy(machines, file, names(2))
    assert all(isinstance(p, Transient) and "at 2000000 of 5000123 bytes" in p.what for p in problems.values())
    assert not path_on(machines, file, "h1").exists() and not path_on(machines, file, "h2").exists()


def test_a_host_that_cannot_write_is_left_out_and_those_behind_it_are_served(
    machines: Machines, file: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LISTEN_S", 3)
    path = path_on(machines, file, "h3")
    path.with_name(f"{path.name}.part").mkdir()
    problems, _ = copy(machines, file, names(4))
    assert set(problems) == {"h3"}
    assert isinstance(problems["h3"], CommandFailed) and "Is a directory" in problems["h3"].what
    assert all(is_whole(machines, file, h) for h in ("h1", "h2", "h4"))


def test_two_copies_to_one_host_at_once_are_refused(machines: Machines, file: ImageFile) -> None:
    part = put_part(machines, file, "h1", b"")
    with part.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        problems, _ = copy(machines, file, ["h1"])
    assert isinstance(problems["h1"], Transient) and "another copy of it is on its way" in problems["h1"].what
    assert copy(machines, file, ["h1"])[0] == {}


def test_more_hosts_than_a_chain_holds(machines: Machines, file: ImageFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "LONGEST", 3)
    many = names(8)
    problems, sent = copy(machines, file, many)
    assert problems == {} and all(is_whole(machines, file, h) for h in many)
    assert max(sent) == SIZE and sent == sorted(sent), "one copy left the operator, hosts served the others"


def test_old_parts_are_cleared_away(machines: Machines, file: ImageFile) -> None:
    old = put_part(machines, file, "h1", b"x").rename(machines.folder / "h1" / "pcloud-image.gone.0.disk.qcow2.part")
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    assert copy(machines, file, ["h1"])[0] == {} and is_whole(machines, file, "h1")


@pytest.fixture
def receiver(machines: Machines, file: ImageFile) -> Iterator[tuple[subprocess.Popen[bytes], Hop]]:
    """One host that listens, by itself."""
    hop = Hop("127.0.77.1", 29_876, "the-right-word")
    order = Order(str(path_on(machines, file, "h1")), SIZE, file.sha256, hop, None, 10)
    process = subprocess.Popen(order.argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(order.line)
    process.stdin.flush()
    yield process, hop
    process.kill()
    process.communicate()


def dial(hop: Hop) -> socket.socket:
    for _ in range(100):
        try:
            return socket.create_connection((hop.address, hop.port), timeout=10)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("it never listened")


def test_who_has_not_the_token_is_hung_up_on(
    machines: Machines, file: ImageFile, receiver: tuple[subprocess.Popen[bytes], Hop]
) -> None:
    process, hop = receiver
    for said in (b"the-wrong-word\n", b"\n", b"x" * 3000):
        with dial(hop) as stranger, suppress(ConnectionResetError):
            stranger.sendall(said)
            assert stranger.recv(100) == b""
    with dial(hop) as friend:
        friend.sendall(b"the-right-word\n")
        assert friend.recv(100) == b"0\n"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((hop.address, hop.port), timeout=5)
        friend.sendall(machines.source.read_bytes())
        assert process.wait(timeout=30) == 0
    assert is_whole(machines, file, "h1")


def test_a_sender_that_goes_away_leaves_a_part(
    machines: Machines, file: ImageFile, receiver: tuple[subprocess.Popen[bytes], Hop]
) -> None:
    process, hop = receiver
    with dial(hop) as friend:
        friend.sendall(b"the-right-word\n")
        friend.recv(100)
        friend.sendall(machines.source.read_bytes()[:1_234_567])
    assert process.wait(timeout=30) == SENDER_GONE
    path = path_on(machines, file, "h1")
    assert path.with_name(f"{path.name}.part").stat().st_size == 1_234_567 and not path.exists()


def test_a_next_host_that_takes_nothing_is_left_behind(machines: Machines, file: ImageFile) -> None:
    """It accepts, answers, and then stands still, as a frozen machine does."""
    with socket.create_server(("127.0.77.2", 0)) as server:
        server.settimeout(20)
        stuck: list[socket.socket] = []

        def accept() -> None:
            caller, _ = server.accept()
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.recv(100)
            caller.sendall(b"0\n")
            stuck.append(caller)

        threading.Thread(target=accept, daemon=True).start()
        after = Hop("127.0.77.2", server.getsockname()[1], "word")
        order = Order(str(path_on(machines, file, "h1")), SIZE, file.sha256, "stdin", after, 1)
        feed = order.line + machines.source.read_bytes()
        done = machines.run(order.argv, deadline_s=60, stdin=feed)
        for one in stuck:
            one.close()
    assert done.exit_code == 0, done.stderr
    assert is_whole(machines, file, "h1")
    assert "it took nothing for 1 s" in done.stdout or not done.stdout


def test_the_program_fits_a_command_line_and_perl_accepts_it() -> None:
    assert len(PROGRAM) < 32_000
    done = subprocess.run(["perl", "-c", "-e", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 and "syntax OK" in done.stderr
