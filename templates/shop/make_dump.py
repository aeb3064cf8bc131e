"""Makes `dump/shop.sql.gz`: oscar's migrations and the assortment, in a real MariaDB.

    apt-get install mariadb-server python3-mysqldb
    python3 -m venv --system-site-packages V
    V/bin/pip install django==5.2.19 django-oscar==4.2.1 django-extra-views==0.16.0
    V/bin/python templates/shop/make_dump.py

The versions are those of `templates/images/frontend.yaml`. The server is a private one in a
temporary folder, without network. The same assortment and versions give the same bytes.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "dump" / "shop.sql.gz"
START_S = 60.0


@contextmanager
def mariadb(folder: Path) -> Iterator[Path]:
    """A MariaDB server with an empty database `shop`; yields its socket."""
    data, socket = folder / "data", folder / "sock"
    user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            *user,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
    server = subprocess.Popen(
        ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking", *user, *quick],
        stderr=(folder / "log").open("wb"),
    )
    try:
        _await_socket(server, socket, folder / "log")
        subprocess.run(
            ["mariadb", "--no-defaults", "-u", "root", f"--socket={socket}"],
            input="CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
            text=True,
            check=True,
        )
        yield socket
    finally:
        server.terminate()
        server.wait(30)


def _await_socket(server: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    end = time.monotonic() + START_S
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"MariaDB did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def fill(socket: Path, folder: Path) -> list[str]:
    """Migrates and loads; returns the tables that the running shop does not use."""
    site = {
        "server": "",
        "secret_key": "only for making the dump",
        "database": {"host": str(socket), "port": 0, "name": "shop", "user": "root", "password": ""},
        "search": {"host": "127.0.0.1", "port": 9306, "index": "products"},
    }
    (folder / "shop.json").write_text(json.dumps(site))
    os.environ["SHOP_SETTINGS"] = str(folder / "shop.json")
    os.environ["DJANGO_SETTINGS_MODULE"] = "pepiniere.settings_dump"
    sys.path.insert(0, str(HERE / "src"))
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    call_command("migrate", verbosity=0, interactive=False)
    from assortment.load import load

    print(f"{load()} products")
    tables = connection.introspection.table_names()
    connection.close()
    return [table for table in tables if table.startswith(settings.LEFT_OUT)]


def dump(socket: Path, left_out: list[str]) -> bytes:
    return subprocess.run(
        [
            "mariadb-dump",
            "--no-defaults",
            "-u",
            "root",
            f"--socket={socket}",
            "--default-character-set=utf8mb4",
            "--single-transaction",
            "--skip-dump-date",
            "--order-by-primary",
            # Locks and index switches mean nothing to InnoDB, and each is a statement to wait for.
            "--skip-add-locks",
            "--skip-disable-keys",
            "--net-buffer-length=262144",
            *(f"--ignore-table=shop.{table}" for table in left_out),
            "shop",
        ],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def main() -> None:
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of migrations is that of a set
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with mariadb(folder) as socket:
            text = dump(socket, fill(socket, folder))
    if not text.rstrip().endswith(b"-- Dump completed"):
        raise SystemExit("mariadb-dump did not end as it should")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(text)} unpacked")


if __name__ == "__main__":
    main()
