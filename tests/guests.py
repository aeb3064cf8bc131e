"""A site's servers without their hypervisor: namespaces over this machine's own root, with a server's own files.

What a server is given (its seed), and the daemons that read it, are the real ones, at their real
paths and addresses; only kernel and systemd are this machine's. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from pcloud.desire import desire
from pcloud.desired import Options
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.keys import keypair_from_seed
from pcloud.playbook import load_playbook
from pcloud.seed import SeedFile
from tests.simulation import image_spec

Files = Mapping[str, Mapping[str, SeedFile]]

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNIT = """while :; do
    rm -f /run/mysqld/booted
    /usr/lib/pcloud/backup install || { sleep 0.5; continue; }
    /usr/lib/pcloud/replica keep
    /usr/sbin/mariadbd 7>&- 8>&- 9>&- & pid=$!
    until mariadb -e 'DO 1' 2>/dev/null; do kill -0 $pid 2>/dev/null || break; sleep 0.1; done
    /usr/lib/pcloud/primary boot
    /usr/lib/pcloud/backup begun
    touch /run/mysqld/booted
    wait $pid || [ "$1" = always ] || exit
    sleep 0.2
done
"""
"""What systemd does with mariadb.service; after a crash only where its argument is `always`."""
EMPTY = ("/run", "/var/lib/mysql", "/var/lib/pcloud", "/var/lib/sphinxsearch", "/var/log/sphinxsearch")
"""Folders that a fresh server has for itself."""


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is missing: apt-get install {package}"
    return found


def secret(name: str) -> str:
    """Passwords that show whether a file quotes them as its reader wants."""
    if name == "ssh/operator":
        return keypair_from_seed(b"o" * 32, "operator")[0]
    return f"it's a \\ # \" of {name}"


def rendered(folder: Path) -> Files:
    """Every file of every server of the demo site, as a recovery would render it."""
    disk = folder / "disk.qcow2"
    disk.write_bytes(b"an image")
    inventory = load_inventory(defaults_dir("inventory") / "demo.yaml")
    images = {name: image_spec(name, disk) for name in inventory.site.images}
    playbook = load_playbook(defaults_dir("playbooks") / "recover.yaml")
    material = desire(inventory, playbook, images, secret, Options())[1]
    return {server: {file.path: file for file in made} for server, made in material.files.items()}


def image_files(recipe: str) -> dict[str, str]:
    """The files that a recipe writes itself, by their path."""
    written = yaml.safe_load((defaults_dir("templates") / "images" / f"{recipe}.yaml").read_text("utf-8"))
    return {f["path"]: f["content"] for f in written["files"] if "content" in f}


@dataclass(frozen=True)
class Guest:
    """A running server; `pid` is its process 1 as this machine numbers it."""

    name: str
    pid: int

    def argv(self, *argv: str) -> list[str]:
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--root", "--wdns=/", "--"]
        return [*inside, "env", "-i", f"PATH={SYSTEM_PATH}", "HOME=/root", *argv]

    def run(
        self, *argv: str, stdin: str | bytes = b"", check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        text = stdin.decode() if isinstance(stdin, bytes) else stdin
        done = subprocess.run(self.argv(*argv), input=text, capture_output=True, text=True, timeout=timeout_s)
        assert not check or done.returncode == 0, f"{self.name}: {argv}: {done.stdout}{done.stderr}"
        return done

    def sql(self, text: str, *options: str) -> str:
        """What the server's own MariaDB answers to root."""
        client = ("mariadb", "--batch", "--skip-column-names", *options)
        return self.run(*client, stdin=text).stdout.strip()

    @contextmanager
    def daemon(self, *argv: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon in the server until the block ends; what it has not ended itself ends with the server."""
        with log.open("ab") as output, subprocess.Popen(self.argv(*argv), stdout=output, stderr=output) as process:
            try:
                yield process
            finally:
                process.kill()


def eventually(true: Callable[[], object], seconds: float = 30) -> None:
    """Waits until it is true. The limit only ends a test that would wait for ever."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


def mariadb_data(folder: Path) -> Path:
    """A data folder as the image of a database holds it."""
    for above in (folder, *folder.parents):  # of a user of its own, below folders that are the tester's
        above.chmod(above.stat().st_mode | 0o011)
    install = [program("mariadb-install-db", "mariadb-server"), "--no-defaults", "--user=mysql"]
    options = ["--skip-test-db", "--skip-log-bin", "--auth-root-authentication-method=socket"]
    made = [f"--datadir={folder}/mysql", "--innodb-log-file-size=48M"]
    subprocess.run([*install, *options, *made], check=True, capture_output=True, timeout=120)
    return folder / "mysql"


def start_mariadb(guest: Guest, stack: ExitStack, log: Path, data: Path | None = None) -> subprocess.Popen[bytes]:
    """MariaDB in the server, as its unit starts it; with a copy of `data` at the first time."""
    if data is not None:
        subprocess.run(["cp", "-a", f"{data}/.", f"/proc/{guest.pid}/root/var/lib/mysql"], check=True, timeout=60)
        guest.run("sh", "-c", "chown mysql:mysql /var/lib/mysql; install -d -o mysql -g mysql /run/mysqld")
    guest.run("rm", "-f", "/run/mysqld/booted")
    process = stack.enter_context(guest.daemon("bash", "-c", UNIT, log=log))
    eventually(lambda: guest.run("test", "-e", "/run/mysqld/booted", check=False).returncode == 0)
    return process


def host_key(guest: Guest) -> str:
    return guest.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout.strip()


@contextmanager
def logins(guest: Guest, log: Path) -> Iterator[None]:
    """The server's sshd, as its image and its seed configure it."""
    config = "/run/sshd_config"
    _write(guest, config, image_files("base")["/etc/ssh/sshd_config.d/pcloud.conf"].encode(), 0o600, "root:root")
    guest.run("mkdir", "-p", "/run/sshd")
    guest.run("rm", "-f", "/root/.ssh/authorized_keys2")
    with guest.daemon("/usr/sbin/sshd", "-D", "-e", "-f", config, "-o", "PidFile=none", log=log):
        yield


@contextmanager
def guests(folder: Path, files: Files, names: Sequence[str], recipes: Iterable[str]) -> Iterator[tuple[Guest, ...]]:
    """Servers of the site on one network of their own, with the files of these image recipes and their seeds."""
    extra = {path: text for recipe in recipes for path, text in image_files(recipe).items()}
    started: list[tuple[Guest, subprocess.Popen[bytes]]] = []
    try:
        started.extend(_start(folder / name, name, files[name], extra) for name in names)
        made = tuple(guest for guest, _ in started)
        _connect(made, files)
        yield made
    finally:
        for _, process in started:
            process.kill()
            process.wait(30)


def _start(
    folder: Path, name: str, files: Mapping[str, SeedFile], extra: Mapping[str, str]
) -> tuple[Guest, subprocess.Popen[bytes]]:
    root = folder / "root"
    for part in ("root", "upper", "work"):
        (folder / part).mkdir(parents=True)
    mounts = " && ".join(f"mount -t tmpfs -o mode=755 tmpfs {root}{path}" for path in EMPTY)
    for path in EMPTY:
        (folder / "upper" / path[1:]).mkdir(parents=True, exist_ok=True)
    script = (
        f"mount -t overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work overlay {root} && "
        f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && {mounts} && "
        f"echo ready && exec chroot {root} sleep infinity"
    )
    process = subprocess.Popen(
        ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "sh", "-c", script],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    guest = Guest(name, pid)
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
        assert time.monotonic() < end, "the namespace does not come up"
        time.sleep(0.01)
    for path, text in extra.items():
        _write(guest, path, text.encode(), 0o644, "root:root")
    for path, file in files.items():
        _write(guest, path, file.content, file.mode, file.owner)
    return guest, process


def _write(guest: Guest, path: str, content: bytes, mode: int, owner: str) -> None:
    target = Path(f"/proc/{guest.pid}/root{path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    target.chmod(mode)
    user, _, group = owner.partition(":")
    try:
        shutil.chown(target, user, group)
    except LookupError:  # a role's own user, on a machine that does not run that role
        shutil.chown(target, 0, 0)


def _connect(made: Sequence[Guest], files: Files) -> None:
    """A cable between two servers; the addresses are those of their network files."""
    first, second = made
    cable = f"ip link add eth0 netns {first.pid} type veth peer name eth0 netns {second.pid}"
    subprocess.run(cable.split(), check=True, timeout=10)
    for guest in made:
        network = files[guest.name]["/etc/systemd/network/10-pcloud.network"].content.decode()
        guest.run("ip", "link", "set", "lo", "up")
        guest.run("ip", "link", "set", "eth0", "up")
        for line in network.splitlines():
            if line.startswith("Address="):
                guest.run("ip", "address", "add", line.partition("=")[2], "dev", "eth0")
