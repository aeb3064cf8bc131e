"""The reference shop: its assortment, its dump, and the files that make its servers.

The server files are rendered for the demo site and shown to the daemons themselves. The database
and search run for real in test_mariadb.py and test_indexing.py.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from pcloud.inventory import defaults_dir
from tests.guests import Files, program, rendered, secret

TEMPLATES = defaults_dir("templates")
SOURCE = TEMPLATES / "shop" / "src"
DUMP = TEMPLATES / "shop" / "dump" / "shop.sql.gz"
ACCENTED = re.compile(r"[À-ÿŒœ]")

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
    return rendered(tmp_path_factory.mktemp("image"))


def text_of(files: Files, server: str, path: str) -> str:
    return files[server][path].content.decode("utf-8")


def test_every_server_knows_itself(files: Files) -> None:
    assert set(files) == {*(f"fe-{n}" for n in range(1, 9)), "lb-1", "db-1", "idx-1"}, "and four that may stand in"
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
    for name in ("503.html", "state"):
        (tmp_path / name).write_text(text_of(files, "lb-1", f"/etc/haproxy/{name}"))
    config = text_of(files, "lb-1", "/etc/haproxy/haproxy.cfg")
    assert len(re.findall(r"^ +server fe-\d ", config, re.M)) == 16, "four frontends, four spares; to read and to send"
    path = tmp_path / "haproxy.cfg"
    path.write_text(config.replace("/etc/haproxy/", f"{tmp_path}/").replace("/run/haproxy/", f"{tmp_path}/"))
    checked = subprocess.run(
        [program("haproxy", "haproxy"), "-c", "-f", str(path)], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    warned = [line for line in checked.stderr.splitlines() if "[WARNING]" in line]
    assert [line for line in warned if " is DOWN" not in line] == [], "the spares begin as down, and nothing else"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_nginx_accepts_its_configuration(files: Files, tmp_path: Path) -> None:
    config = text_of(files, "fe-1", "/etc/nginx/nginx.conf")
    config = config.replace("listen 80", f"listen 127.0.0.1:{free_port()}").replace("/run/", f"{tmp_path}/")
    path = tmp_path / "nginx.conf"
    path.write_text(config)
    checked = subprocess.run(
        [program("nginx", "nginx-light"), "-t", "-c", str(path)], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr


def test_pages_are_framed_by_nobody_and_name_no_server(files: Files, tmp_path: Path) -> None:
    """Asked of nginx itself; the shop is not there, so its own error page has to carry them, too."""
    port = free_port()
    config = text_of(files, "fe-1", "/etc/nginx/nginx.conf").replace("listen 80", f"listen 127.0.0.1:{port}")
    (tmp_path / "nginx.conf").write_text(
        config.replace("/run/", f"{tmp_path}/").replace("user www-data;", "user root;")
    )
    argv = [program("nginx", "nginx-light"), "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as nginx:
        try:
            answer = ask(port)
        finally:
            nginx.terminate()
    assert answer.status_code == 502
    headers = answer.headers
    assert (headers["X-Frame-Options"], headers["X-Content-Type-Options"]) == ("DENY", "nosniff")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "same-origin"
    assert "fe-1" not in str(headers)


def ask(port: int) -> httpx.Response:
    for _ in range(100):
        with contextlib.suppress(httpx.ConnectError):
            return httpx.get(f"http://127.0.0.1:{port}/", timeout=10)
        time.sleep(0.1)
    raise AssertionError("nginx did not start")


def test_gunicorn_configuration_is_python(files: Files) -> None:
    settings: dict[str, Any] = {}
    exec(compile(text_of(files, "fe-1", "/etc/shop/gunicorn.conf.py"), "gunicorn.conf.py", "exec"), settings)
    assert settings["workers"] == 1
    assert settings["preload_app"] is True
