"""Real MariaDBs for tests: one on a data folder, or a primary and its replica in namespaces with their servers' files.

The fixture `data` (conftest.py) is the data folder that all of them begin with.
"""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from pcloud.clock import SystemClock
from pcloud.errors import CommandFailed, DeadlineExceeded
from pcloud.inventory import defaults_dir, load_site
from pcloud.model import SecretRef, Site
from pcloud.steps.backup import folder_of
from pcloud.steps.copying import Seed
from pcloud.world import World
from tests.guests import UNIT, Guest, eventually, guests, host_key, logins, program, rendered, secret, start_mariadb

DUMP = defaults_dir("templates") / "shop" / "dump" / "shop.sql.gz"
PRIMARY = "/usr/lib/pcloud/primary"
RESTORED = (
    "SET SESSION sql_log_bin=0; CREATE DATABASE IF NOT EXISTS pcloud; CREATE TABLE pcloud.restored"
    " (id INT PRIMARY KEY, state VARCHAR(16) NOT NULL, token VARCHAR(80) NOT NULL, at TIMESTAMP NOT NULL);"
    "INSERT INTO pcloud.restored VALUES (1, 'restored', 't', NOW());"
)
DB, IDX, SERVICE = "10.77.0.61", "10.77.0.71", "10.77.0.60"


@dataclass
class Mariadb:
    """A MariaDB of its own, with the settings of a server's that matter for its log."""

    folder: Path
    number: int
    process: subprocess.Popen[bytes]

    def sql(self, *statements: str) -> str:
        """Each in a session of its own."""
        said = ""
        for text in statements:
            argv = ["mariadb", "--no-defaults", "-BN", "--default-character-set=utf8mb4", "-S", self.socket]
            done = subprocess.run(argv, input=text.encode(), capture_output=True, timeout=60)
            assert done.returncode == 0, f"{text}: {done.stderr.decode()}"
            said = done.stdout.decode("utf-8", "surrogateescape").strip()
        return said

    @property
    def socket(self) -> str:
        return f"{self.folder}/s.sock"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@contextmanager
def mariadb(template: Path, folder: Path, number: int, *options: str) -> Iterator[Mariadb]:
    """Running on a copy of the data folder `template`, until the block ends or it is killed."""
    subprocess.run(["cp", "-a", str(template), str(folder)], check=True)
    argv = [program("mariadbd", "mariadb-server"), "--no-defaults", "--user=root", f"--datadir={folder}"]
    argv += [f"--socket={folder}/s.sock", f"--pid-file={folder}/p.pid", "--innodb-log-file-size=48M"]
    argv += [f"--server-id={number}", "--log-bin=binlog", "--binlog-format=ROW", "--sync-binlog=1"]
    argv += ["--log-slave-updates=ON", "--gtid-strict-mode=ON", "--relay-log=relay", "--skip-name-resolve"]
    argv += ["--character-set-server=utf8mb4", "--innodb-fast-shutdown=2", *options]
    argv += [] if any(o.startswith("--port") for o in options) else ["--skip-networking"]
    with (folder.parent / f"{folder.name}.log").open("wb") as log, subprocess.Popen(argv, stderr=log) as process:
        server = Mariadb(folder, number, process)
        ask = ["mariadb", "--no-defaults", "-S", server.socket, "-e", "SELECT 1"]
        try:
            eventually(lambda: subprocess.run(ask, capture_output=True).returncode == 0)
            yield server
        finally:
            process.kill()


@dataclass
class Pair:
    """db-1 and idx-1 with MariaDB running. `start` and `crash` are what happens to it."""

    db: Guest
    idx: Guest
    folder: Path
    stack: ExitStack
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def begin(self, data: Path) -> None:
        """Both for the first time: MariaDB on a copy of `data`, and whoever may log in does."""
        for guest in (self.db, self.idx):
            self.stack.enter_context(logins(guest, self.folder / f"{guest.name}.sshd"))
            self.start(guest, data)

    def start(self, guest: Guest, data: Path | None = None) -> None:
        self.running[guest.name] = start_mariadb(guest, self.stack, self.folder / f"{guest.name}.log", data)

    def crash(self, guest: Guest) -> None:
        guest.run("pkill", "-KILL", "-x", "mariadbd")
        self.running[guest.name].wait(30)


def restore(guest: Guest) -> None:
    dump = gzip.decompress(DUMP.read_bytes()).decode()
    guest.sql(f"SET SESSION sql_log_bin=0; USE shop;\n{dump}\n{RESTORED}")


def role(guest: Guest) -> str:
    return guest.run(PRIMARY, "status").stdout.strip()


def slave(guest: Guest) -> dict[str, str]:
    lines = guest.run("mariadb", "--vertical", stdin="SHOW SLAVE STATUS").stdout.splitlines()
    return dict(line.strip().partition(": ")[::2] for line in lines if ":" in line)


def left(guest: Guest) -> list[str]:
    """What is in the server's own folder, but the one for what a replica received."""
    return [name for name in guest.run("ls", "/var/lib/pcloud").stdout.split() if name != "relay"]


def place_order(guest: Guest, number: int, *, over: str = "") -> None:
    row = f"INSERT INTO shop.partner_partner (code, name) VALUES ('order-{number}', 'x')"
    guest.sql(row, *(["--host", over] if over else []))


def orders(guest: Guest) -> set[str]:
    return set(guest.sql("SELECT code FROM shop.partner_partner WHERE code LIKE 'order-%'").split())


def fill(guest: Guest, mib: int, schema: str = "shop") -> None:
    """Rows that do not compress."""
    guest.sql(
        f"USE {schema}; DROP TABLE IF EXISTS bulk;"
        "CREATE TABLE bulk (id INT PRIMARY KEY AUTO_INCREMENT, t VARBINARY(4096));"
        f"INSERT INTO bulk (t) SELECT CONCAT({', '.join(['RANDOM_BYTES(1000)'] * 4)}) FROM seq_1_to_{mib * 256};"
    )


def as_it_was(guest: Guest) -> None:
    """Without what a test put before its programs, and over its folder."""
    over = '[ "$(grep -c " /var/lib/pcloud " /proc/mounts)" -lt 2 ] || umount -l /var/lib/pcloud'
    guest.run("sh", "-c", f"cd /usr/local/bin && rm -f zstd ssh tail tee cat mbstream mariadb-backup; {over}")


def between(guest: Guest, program: str, change: str) -> None:
    """What the program prints passes through `change`, of `data`, the nth 64 KiB of it."""
    real = guest.run("sh", "-c", f"command -v {program}").stdout.strip()
    script = f"""#!/usr/bin/python3
import subprocess, sys, time
process = subprocess.Popen(["{real}", *sys.argv[1:]], stdout=subprocess.PIPE)
n = 0
while data := process.stdout.read(65536):
    n += 1
    {change}
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
sys.exit(process.wait())
"""
    guest.run("sh", "-c", f"cat >/usr/local/bin/{program}; chmod 755 /usr/local/bin/{program}", stdin=script)


@dataclass
class Said:
    exit_code: int
    stdout: str
    stderr: str


@dataclass
class Inside:
    """A server's or a host's shell, as `pcloud.shell.Shell` behaves, without SSH."""

    guest: Guest
    name: str
    passed: list[int] = field(default_factory=list)
    """How many bytes each command read and printed: what passed through this machine."""

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float,
        stdin: bytes | BinaryIO | None = None,
        check: bool = True,
        max_output: int = 0,
        progress: Callable[[int], None] | None = None,
        stdout: Callable[[bytes], None] | None = None,
    ) -> Said:
        data = stdin if isinstance(stdin, bytes) else stdin.read() if stdin is not None else b""
        try:
            done = subprocess.run(self.guest.argv(*argv), input=data, capture_output=True, timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded(f"{argv}: not within {deadline_s:g} s", where=self.name) from None
        self.passed.append(len(data) + len(done.stdout) + len(done.stderr))
        if check and done.returncode != 0:
            raise CommandFailed(f"{argv}: {done.stderr.decode()}", where=self.name)
        if stdout is not None:
            stdout(done.stdout)
        return Said(done.returncode, done.stdout.decode() if stdout is None else "", done.stderr.decode())

    def write(self, path: str, data: bytes, *, mode: int = 0o600, deadline_s: float = 30) -> None:
        script = 'umask 077; cat >"$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"'
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], stdin=data, deadline_s=deadline_s)

    def tail(self, path: str, *, lines: int = 40, limit: int = 0, deadline_s: float = 10) -> str:
        argv = ["sh", "-c", '[ ! -e "$1" ] || tail -n "$2" "$1"', "sh", path, str(lines)]
        return self.run(argv, deadline_s=deadline_s).stdout


@dataclass
class Quiet:
    said: list[str] = field(default_factory=list)

    def progress(self, doing: str, done: float = 0, total: float = 0, unit: str = "") -> None:
        self.said.append(doing)

    def visit(self, name: str, elapsed_s: float) -> None: ...

    def stopping(self) -> bool:
        return False


@dataclass
class Place:
    """db-1 (the primary) and idx-1 in their namespaces, and hosts that keep; as much of a World as these steps ask."""

    db: Guest
    idx: Guest
    log: Path
    site: Site
    clock: SystemClock = field(default_factory=SystemClock)
    passed: list[int] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def host(self, name: str) -> Any:
        return replace_pool(self.site, name)

    def shell(self, host: str) -> Inside:
        return Inside(self.idx, host, self.passed)

    def server_shell(self, server: str) -> Inside:
        return Inside({"db-1": self.db, "idx-1": self.idx}[server], server, self.passed)

    def address(self, server: str) -> str:
        return {"db-1": DB, "idx-1": IDX}[server]

    def host_key(self, server: str) -> str:
        return host_key({"db-1": self.db, "idx-1": self.idx}[server])

    def reveal(self, reference: SecretRef) -> str:
        return secret(reference.secret)

    def copy(self, taker: Guest) -> None:
        """As a recovery makes a replica: all that the primary has."""
        giver, address = (self.db, DB) if taker is self.idx else (self.idx, IDX)
        Seed(taker.name, "shop", ((giver.name, address),), SERVICE).do(cast(World, self), Quiet())

    @contextmanager
    def running(self, guest: Guest) -> Iterator[None]:
        """MariaDB under an init that starts it again, with what a restore left to be put in place."""
        with guest.daemon("setsid", "bash", "-c", UNIT, "bash", "always", log=self.log):
            eventually(lambda: guest.run("test", "-e", "/run/mysqld/booted", check=False).returncode == 0)
            yield
            guest.run("pkill", "-KILL", "-f", "backup install", check=False)
            guest.run("pkill", "-KILL", "-x", "mariadbd", check=False)

    @contextmanager
    def streaming(self, host: str) -> Iterator[None]:
        """What the host's init does with the stream: it starts it again and again."""
        keep = f"{folder_of(self, host)}/keep"  # type: ignore[arg-type]
        loop = f"while :; do sh {keep} stream; sleep 0.2; done"
        with self.idx.daemon("setsid", "sh", "-c", loop, log=self.log):
            yield
            self.idx.run("pkill", "-KILL", "-f", keep, check=False)
            self.idx.run("pkill", "-KILL", "-x", "mariadb-binlog", check=False)


@contextmanager
def two_servers(folder: Path, data: Path, before: Callable[[Guest], None] = lambda _: None) -> Iterator[Place]:
    """The primary with the shop's data; idx-1 as an image leaves it. `before`: done to each before MariaDB starts."""
    site = load_site(defaults_dir("inventory") / "demo.yaml")
    with ExitStack() as stack:
        db, idx = stack.enter_context(guests(folder, rendered(folder), ("db-1", "idx-1"), ("mariadb",)))
        made = Place(db, idx, folder / "log", site)
        for guest in (db, idx):
            before(guest)
            subprocess.run(["cp", "-a", f"{data}/.", f"/proc/{guest.pid}/root/var/lib/mysql"], check=True, timeout=60)
            guest.run("sh", "-c", "chown mysql:mysql /var/lib/mysql; install -d -o mysql -g mysql /run/mysqld")
            stack.enter_context(logins(guest, folder / f"{guest.name}.sshd"))
            stack.enter_context(made.running(guest))
        restore(db)
        db.run(PRIMARY, "take", "alone")
        yield made


def replace_pool(site: Site, name: str) -> Any:
    return site.host(name).model_copy(update={"pool": f"/var/lib/pcloud/{name}"})


def copy(pair: Pair, taker: Guest) -> None:
    site = load_site(defaults_dir("inventory") / "demo.yaml")
    Place(pair.db, pair.idx, pair.folder / "log", site).copy(taker)
