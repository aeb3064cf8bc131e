"""The reference shop: its assortment, its dump, and the files that make its servers.

The server files are rendered for the demo site and shown to the daemons themselves; the database
and search run for real, on loopback, with the configuration a server would have. The shop's pages
are tested by the lab, in real guests.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pymysql
import pytest
import yaml

from pcloud.desire import desire
from pcloud.desired import Options
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.keys import keypair_from_seed
from pcloud.playbook import load_playbook
from pcloud.seed import SeedFile
from tests.simulation import image_spec

TEMPLATES = defaults_dir("templates")
SOURCE = TEMPLATES / "shop" / "src"
DUMP = TEMPLATES / "shop" / "dump" / "shop.sql.gz"
ACCENTED = re.compile(r"[À-ÿŒœ]")

Files = Mapping[str, Mapping[str, SeedFile]]


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is missing: apt-get install {package}"
    return found


def secret(name: str) -> str:
    if name == "ssh/operator":
        return keypair_from_seed(b"o" * 32, "operator")[0]
    return f"it's a \\ # \" of {name}"


# --- the assortment -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def assortment() -> Callable[[str], Any]:
    sys.path.insert(0, str(SOURCE))
    try:
        modules = {name: importlib.import_module(f"assortment.{name}") for name in ("generator", "pictures")}
    finally:
        sys.path.remove(str(SOURCE))
    return modules.__getitem__


@pytest.fixture(scope="module")
def articles(assortment: Callable[[str], Any]) -> list[Any]:
    found: list[Any] = assortment("generator").products()
    return found


def test_a_catalogue_of_a_real_nursery(assortment: Callable[[str], Any], articles: list[Any]) -> None:
    assert len(articles) >= 500
    tree = assortment("generator").categories(articles)
    assert len(tree) >= 6
    assert sum(map(len, tree.values())) >= 12
    assert all(sum(a.category[0] == top for a in articles) >= 4 for top in tree)
    assert sum(bool(ACCENTED.search(a.title)) for a in articles) >= 150
    assert sum("Érable du Japon" in a.title for a in articles) >= 3
    for article in articles:
        assert len(article.title) <= 120
        assert len(article.description) > 30
        assert Decimal(1) < article.price < Decimal(200)
        assert article.stock > 0


def test_names_and_numbers_are_unique(articles: list[Any]) -> None:
    for attribute in ("title", "slug", "upc", "picture"):
        assert len({getattr(a, attribute) for a in articles}) == len(articles), attribute
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", a.slug) for a in articles)


def test_article_numbers_have_their_check_digit(articles: list[Any]) -> None:
    for article in articles:
        assert re.fullmatch(r"376\d{10}", article.upc)
        digits = [int(d) for d in article.upc]
        assert (sum(digits[::2]) + 3 * sum(digits[1::2])) % 10 == 0


def test_the_same_shop_in_every_process() -> None:
    code = (
        "import hashlib; from assortment import generator, pictures; p = generator.products();"
        "print(hashlib.sha256(repr([(a, pictures.picture(a)) for a in p]).encode()).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(SOURCE), "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_pictures_are_small_and_stand_alone(
    assortment: Callable[[str], Any], articles: list[Any], tmp_path: Path
) -> None:
    total = assortment("pictures").main(tmp_path)
    assert total < 6 * 1024 * 1024
    for article in articles:
        text = (tmp_path / article.picture).read_text("utf-8")
        assert len(text) < 16 * 1024
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter())) > 5
        assert text.count("http") == 1, "nothing is fetched from elsewhere"
    assert len({(tmp_path / a.picture).read_bytes() for a in articles}) == len(articles)


def test_the_dump_is_whole_and_holds_this_catalogue(articles: list[Any]) -> None:
    assert DUMP.stat().st_size < 1_500_000
    text = gzip.decompress(DUMP.read_bytes()).decode("utf-8")
    assert text.rstrip().endswith("-- Dump completed")
    assert "utf8mb4" in text
    for article in articles:
        assert article.title.replace("'", "\\'") in text
        assert f"'{article.upc}'" in text
    assert "CREATE TABLE `basket_line`" in text
    assert "CREATE TABLE `analytics_" not in text


# --- the server files -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Every file of every server of the demo site, as the recovery would render it."""
    disk = tmp_path_factory.mktemp("image") / "disk.qcow2"
    disk.write_bytes(b"an image")
    inventory = load_inventory(defaults_dir("inventory") / "demo.yaml")
    images = {name: image_spec(name, disk) for name in inventory.site.images}
    playbook = load_playbook(defaults_dir("playbooks") / "recover.yaml")
    material = desire(inventory, playbook, images, secret, Options())[1]
    return {server: {file.path: file for file in made} for server, made in material.files.items()}


def text_of(files: Files, server: str, path: str) -> str:
    return files[server][path].content.decode("utf-8")


def test_every_server_knows_itself(files: Files) -> None:
    assert set(files) == {"fe-1", "fe-2", "fe-3", "fe-4", "lb-1", "db-1", "idx-1"}
    for server in files:
        assert text_of(files, server, "/etc/hostname") == f"{server}\n"
        assert re.fullmatch(r"[0-9a-f]{32}\n", text_of(files, server, "/etc/machine-id"))
        assert server in text_of(files, server, "/etc/hosts")
    assert len({text_of(files, server, "/etc/machine-id") for server in files}) == len(files)
    network = text_of(files, "lb-1", "/etc/systemd/network/10-pcloud.network")
    assert network.count("Address=10.77.0.81/24") == network.count("Address=10.77.0.80/24") == 1
    assert "Gateway=10.77.0.1" in network


def test_secrets_are_in_private_files_only(files: Files) -> None:
    for server, made in files.items():
        for path, file in made.items():
            hidden = b" of db/" in file.content or b" of shop/" in file.content or b"PRIVATE KEY" in file.content
            assert not (hidden and file.mode & 0o077), f"{server}:{path}"
    settings = json.loads(text_of(files, "fe-1", "/etc/shop/shop.json"))
    assert settings["database"]["password"] == secret("db/shop")
    assert settings["secret_key"] == secret("shop/django")
    assert settings["search"]["host"] == "10.77.0.71"


def test_haproxy_accepts_its_configuration(files: Files, tmp_path: Path) -> None:
    page = tmp_path / "503.html"
    page.write_text(text_of(files, "lb-1", "/etc/haproxy/503.html"))
    config = text_of(files, "lb-1", "/etc/haproxy/haproxy.cfg")
    assert len(re.findall(r"^ +server fe-\d ", config, re.M)) == 8, "four frontends, to read and to send"
    path = tmp_path / "haproxy.cfg"
    path.write_text(config.replace("/etc/haproxy/503.html", str(page)).replace("/run/haproxy/", f"{tmp_path}/"))
    checked = subprocess.run(
        [program("haproxy", "haproxy"), "-c", "-f", str(path)], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_nginx_accepts_its_configuration(files: Files, tmp_path: Path) -> None:
    config = text_of(files, "fe-1", "/etc/nginx/nginx.conf")
    config = config.replace("listen 80", f"listen 127.0.0.1:{free_port()}").replace("/run/", f"{tmp_path}/")
    path = tmp_path / "nginx.conf"
    path.write_text(config)
    checked = subprocess.run(
        [program("nginx", "nginx-light"), "-t", "-c", str(path)], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr


def test_gunicorn_configuration_is_python(files: Files) -> None:
    settings: dict[str, Any] = {}
    exec(compile(text_of(files, "fe-1", "/etc/shop/gunicorn.conf.py"), "gunicorn.conf.py", "exec"), settings)
    assert settings["workers"] == 1
    assert settings["preload_app"] is True


# --- database and search, for real ------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def await_port(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing answers on port {port}:\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def database(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """MariaDB as db-1 would run it, with the dump restored; yields its port."""
    folder, port = tmp_path_factory.mktemp("database"), free_port()
    recipe = yaml.safe_load((TEMPLATES / "images" / "database.yaml").read_text("utf-8"))
    config = next(f["content"] for f in recipe["files"] if f["path"].endswith("70-pcloud.cnf"))
    config += text_of(files, "db-1", "/etc/mysql/mariadb.conf.d/80-site.cnf")
    accounts = folder / "accounts.sql"
    accounts.write_text(
        text_of(files, "db-1", "/etc/mysql/accounts.sql").replace("10.77.0.0/255.255.255.0", "127.0.0.1")
    )
    for old, new in (
        ("/var/lib/mysql", f"{folder}/data"),
        ("/run/mysqld", str(folder)),
        ("/etc/mysql/accounts.sql", str(accounts)),
        ("port = 3306", f"port = {port}"),
        ("0.0.0.0", "127.0.0.1"),
        ("user = mysql\n", ""),
    ):
        assert old in config
        config = config.replace(old, new)
    (folder / "my.cnf").write_text(config)
    root = ["--user=root"] if os.geteuid() == 0 else []
    install = [program("mariadb-install-db", "mariadb-server"), f"--defaults-file={folder}/my.cnf", *root]
    subprocess.run([*install, "--skip-test-db", "--skip-log-bin"], check=True, capture_output=True, timeout=120)
    log = folder / "log"
    server = [program("mariadbd", "mariadb-server"), f"--defaults-file={folder}/my.cnf", *root]
    with log.open("wb") as output, subprocess.Popen(server, stderr=output) as process:
        try:
            await_port(port, process, log)
            client = ["mariadb", "--no-defaults", f"--socket={folder}/mysqld.sock", "--user=root", "shop"]
            subprocess.run(client, input=gzip.decompress(DUMP.read_bytes()), check=True, timeout=120)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def ask(port: int, user: str, query: str) -> list[tuple[Any, ...]]:
    with (
        pymysql.connect(host="127.0.0.1", port=port, user=user, password=secret(f"db/{user}"), database="shop") as link,
        link.cursor() as cursor,
    ):
        cursor.execute(query)
        return list(cursor.fetchall())


def test_the_database_takes_the_dump_and_lets_in_whom_it_should(database: int, articles: list[Any]) -> None:
    for user in ("shop", "sphinx", "monitor"):
        assert ask(database, user, "SELECT COUNT(*) FROM catalogue_product") == [(len(articles),)]
    assert ask(database, "shop", "SELECT title FROM catalogue_product WHERE title = 'Érable du Japon ''Bloodgood'''")
    assert ask(database, "shop", "SELECT COUNT(*) FROM order_order") == [(0,)]
    for user in ("sphinx", "monitor"):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            ask(database, user, "DELETE FROM catalogue_product")
    variables = dict(
        ask(database, "shop", "SHOW GLOBAL VARIABLES WHERE Variable_name REGEXP 'gtid_strict|log_bin$|wait_point'")
    )
    assert variables["gtid_strict_mode"] == variables["log_bin"] == "ON"
    assert variables["rpl_semi_sync_master_wait_point"] == "AFTER_SYNC"


@pytest.fixture(scope="module")
def search(files: Files, database: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Sphinx as idx-1 would run it: started with no index, then indexed and rotated; yields its port."""
    folder, port = tmp_path_factory.mktemp("search"), free_port()
    config = text_of(files, "idx-1", "/etc/sphinxsearch/sphinx.conf")
    for old, new in (
        ("10.77.0.60", "127.0.0.1"),
        ("sql_port = 3306", f"sql_port = {database}"),
        ("listen = 9306", f"listen = 127.0.0.1:{port}"),
        ("/var/lib/sphinxsearch/data", str(folder)),
        ("/var/log/sphinxsearch", str(folder)),
        ("/run/sphinxsearch", str(folder)),
    ):
        assert old in config
        config = config.replace(old, new)
    path, log = folder / "sphinx.conf", folder / "out"
    path.write_text(config)
    server = [program("searchd", "sphinxsearch"), "--nodetach", "--config", str(path)]
    with log.open("wb") as output, subprocess.Popen(server, stdout=output, stderr=output) as process:
        try:
            await_port(port, process, log)
            indexed = subprocess.run(
                [program("indexer", "sphinxsearch"), "--config", str(path), "--all", "--rotate"],
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert indexed.returncode == 0, indexed.stdout
            yield port
        finally:
            process.terminate()
            process.wait(60)


def hits(port: int, words: str) -> list[int]:
    """Product numbers that match, once the new index is served: it takes a second to be swapped in."""
    end = time.monotonic() + 20
    while True:
        try:
            with pymysql.connect(host="127.0.0.1", port=port, charset="utf8") as link, link.cursor() as cursor:
                cursor.execute("SELECT id FROM products WHERE MATCH(%s) LIMIT 0, 1000", (words,))
                return [int(row[0]) for row in cursor.fetchall()]
        except pymysql.MySQLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ("érable", "erable"),
        ("érable", "ÉRABLES"),
        ("œillet", "oeillet"),
        ("hortensia", "Hortensias"),
        ("chêne", "chene"),
        ("pêcher", "PECHER"),
    ],
)
def test_search_folds_accents_capitals_and_plurals(search: int, asked: str, same: str) -> None:
    found = hits(search, asked)
    assert found
    assert set(hits(search, same)) == set(found)


def test_search_finds_what_a_shopper_means(search: int, articles: list[Any]) -> None:
    maples = [number for number, a in enumerate(articles, 1) if "Érable du Japon" in a.title]
    assert set(hits(search, "érable japon")) >= set(maples)
    bloodgood = next(number for number, a in enumerate(articles, 1) if "Bloodgood" in a.title)
    assert hits(search, "bloodg") == [bloodgood], "three letters or more find what begins so"
    assert hits(search, articles[0].upc) == [1]
    assert hits(search, "xylophone") == []
