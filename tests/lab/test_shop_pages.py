"""The shop's pages, and what a shopper meets when the database or search goes away.

A frontend and a database as the site runs them, in namespaces: nginx, gunicorn and the shop with
the libraries of the frontend's image, and a real MariaDB. No guest is started.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from bs4 import BeautifulSoup, Tag

from pcloud.inventory import defaults_dir
from pcloud.lab.namespaces import call_in_network
from tests.guests import SYSTEM_PATH, Guest, eventually, guests, mariadb_data, rendered, start_mariadb

pytestmark = pytest.mark.lab

TEMPLATES = defaults_dir("templates")
DUMP = TEMPLATES / "shop" / "dump" / "shop.sql.gz"
FRONTEND = "http://10.77.0.21"
ADDRESS = {
    "first_name": "Jeanne",
    "last_name": "Dupré",
    "line1": "3 rue des Lilas",
    "postcode": "45000",
    "line4": "Orléans",
}
T = TypeVar("T")


@dataclass
class Shop:
    """A frontend and its database, both running; `mariadb` is the latter's process."""

    frontend: Guest
    db: Guest
    stack: ExitStack
    folder: Path

    def as_shopper(self, act: Callable[[Shopper], T]) -> T:
        """What a shopper with a browser of her own finds."""

        def visit() -> T:
            with httpx.Client(base_url=FRONTEND, follow_redirects=True, timeout=30) as client:
                return act(Shopper(client))

        return call_in_network(self.frontend.pid, visit)

    def orders(self) -> list[str]:
        return self.db.sql("SELECT number FROM shop.order_order").split()

    def start_database(self, data: Path | None = None) -> None:
        start_mariadb(self.db, self.stack, self.folder / "mariadb.log", data)


class Shopper:
    """A browser: cookies, and the page that is open."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.page = httpx.Response(204)

    def get(self, path: str) -> BeautifulSoup:
        return self._open(self.client.get(path))

    def submit(self, selector: str, **fields: str) -> BeautifulSoup:
        form = self.soup().select_one(selector)
        assert form is not None, (
            f"{self.page.status_code} {self.page.url} has no {selector}: {self.soup().get_text(' ')[:500]}"
        )
        filled = {str(i["name"]): str(i.get("value", "")) for i in form.select("input[name]") if isinstance(i, Tag)}
        return self._open(self.client.post(str(form["action"]), data={**filled, **fields}))

    def soup(self) -> BeautifulSoup:
        return BeautifulSoup(self.page.text, "html.parser")

    def to_the_order(self) -> Shopper:
        """Up to the page that asks for the order."""
        self.get("/search/?q=x")
        tile = self.get("/catalogue/").select_one("article.product a")
        assert tile is not None
        self.get(str(tile["href"]))
        self.submit("form.add-to-basket", quantity="1")
        self.get("/checkout/")
        self.submit("form.checkout", username="jeanne@example.org")
        self.submit("form.checkout-address", **ADDRESS)
        self.submit("form.checkout-shipping")
        assert self.soup().select_one("form.checkout-order"), self.soup().get_text(" ")[:500]
        return self

    def order(self) -> str:
        """Sends it; the number of the order, or nothing."""
        number = self.submit("form.checkout-order").select_one(".order-number")
        return number.get_text() if number is not None and "Merci pour votre commande" in self.page.text else ""

    def _open(self, page: httpx.Response) -> BeautifulSoup:
        self.page = page
        return self.soup()


def is_alive() -> bool:
    try:
        return httpx.get(f"{FRONTEND}/livez", timeout=30).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def libraries(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the frontend's image has of Python, without booting it."""
    folder = tmp_path_factory.mktemp("image")
    newest = max(images.glob("frontend-*"), key=lambda path: path.stat().st_mtime)
    subprocess.run(["qemu-img", "convert", "-O", "raw", newest / "disk.qcow2", folder / "raw"], check=True, timeout=120)
    for path in ("/opt/shop/lib", "/usr/lib/python3/dist-packages"):
        subprocess.run(["debugfs", "-R", f"rdump {path} {folder}", folder / "raw"], check=True, timeout=120)
    (folder / "raw").unlink()
    return folder


@pytest.fixture(scope="module")
def shop(libraries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with ExitStack() as stack:
        recipes = ("mariadb", "frontend")
        frontend, db = stack.enter_context(guests(folder, rendered(folder), ("fe-1", "db-1"), recipes))
        made = Shop(frontend, db, stack, folder)
        made.start_database(mariadb_data(tmp_path_factory.mktemp("data")))
        db.sql(f"SET sql_log_bin=0; USE shop;\n{gzip.decompress(DUMP.read_bytes()).decode()}")
        db.run("/usr/lib/pcloud/primary", "take", "alone")
        opt = Path(f"/proc/{frontend.pid}/root/opt/shop")
        shutil.copytree(libraries / "lib", opt / "lib")
        shutil.copytree(libraries / "dist-packages", opt / "dist")
        shutil.copytree(TEMPLATES / "shop" / "src", opt / "src", ignore=shutil.ignore_patterns("__pycache__"))
        frontend.run("mkdir", "-p", "/run/shop")
        paths = "PYTHONPATH=/opt/shop/src:/opt/shop/lib:/opt/shop/dist"
        group = ("setpriv", "--regid", "www-data", "--clear-groups")
        gunicorn = (*group, "/usr/bin/python3", "-S", "-m", "gunicorn", "--config", "/etc/shop/gunicorn.conf.py")
        environment = ("env", f"PATH={SYSTEM_PATH}", paths, "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1")
        stack.enter_context(frontend.daemon(*environment, *gunicorn, log=folder / "gunicorn.log"))
        stack.enter_context(frontend.daemon("/usr/sbin/nginx", "-g", "daemon off;", log=folder / "nginx.log"))
        eventually(lambda: call_in_network(frontend.pid, is_alive), 60)
        yield made


def test_a_guest_orders_from_start_to_end(shop: Shop) -> None:
    before = shop.orders()
    number = shop.as_shopper(lambda shopper: shopper.to_the_order().order())
    assert shop.orders() == [*before, number]
    assert shop.db.sql(f"SELECT guest_email FROM shop.order_order WHERE number='{number}'") == "jeanne@example.org"
    assert shop.db.sql("SELECT COUNT(*) FROM shop.basket_basket WHERE status NOT IN ('Open', 'Submitted')") == "0"


def test_an_order_that_is_sent_again_is_the_same_order(shop: Shop) -> None:
    def twice(shopper: Shopper) -> tuple[str, str]:
        asking = shopper.to_the_order().page
        first = shopper.order()
        shopper.page = asking
        return first, shopper.order()

    before = shop.orders()
    first, second = shop.as_shopper(twice)
    assert first == second
    assert shop.orders() == [*before, first]


def test_an_order_that_is_sent_many_times_at_once_is_one_order(shop: Shop) -> None:
    def hurried(shopper: Shopper) -> set[str]:
        asking, cookies = shopper.to_the_order().page, dict(shopper.client.cookies)

        def send(_: int) -> str:
            def visit() -> str:
                with httpx.Client(base_url=FRONTEND, follow_redirects=True, timeout=30, cookies=cookies) as client:
                    again = Shopper(client)
                    again.page = asking
                    return again.order()

            return call_in_network(shop.frontend.pid, visit)

        with ThreadPoolExecutor(5) as pool:
            return set(pool.map(send, range(5)))

    before = shop.orders()
    told = shop.as_shopper(hurried)
    assert len(shop.orders()) == len(before) + 1
    assert told - {""} == {shop.orders()[-1]}


def test_while_no_change_is_taken_shoppers_look_around_and_no_order_is_doubled(shop: Shop) -> None:
    """The primary waits for a replica that is gone: semi-sync, as after the loss of the indexer's host."""
    before = shop.orders()
    seen: list[int] = []
    ended = threading.Event()

    def look_around() -> None:
        while not ended.is_set():
            seen.append(shop.as_shopper(lambda other: (other.get("/catalogue/"), other.page.status_code)[1]))
            time.sleep(0.2)

    def wait_for_it(shopper: Shopper) -> tuple[int, int, str]:
        shopper.to_the_order()
        shop.db.sql("SET GLOBAL rpl_semi_sync_master_timeout=60000; SET GLOBAL rpl_semi_sync_master_enabled=ON")
        other = threading.Thread(target=look_around)
        other.start()
        shopper.order()
        unsure = shopper.page.status_code
        time.sleep(2.5)
        shopper.order()
        still = shopper.page.status_code
        shop.db.sql("SET GLOBAL rpl_semi_sync_master_enabled=OFF")
        time.sleep(2.5)
        number = shopper.order()
        ended.set()
        other.join(30)
        return unsure, still, number

    unsure, still, number = shop.as_shopper(wait_for_it)
    assert unsure == 504
    assert still in (503, 504)
    assert shop.orders() == [*before, number]
    assert len(seen) > 5
    assert set(seen) == {200}


def test_a_database_that_comes_back_is_found_without_help(shop: Shop) -> None:
    def meet(shopper: Shopper) -> tuple[int, str, str]:
        shopper.to_the_order()
        shop.db.run("pkill", "-KILL", "-x", "mariadbd")
        shopper.order()
        gone, words = shopper.page.status_code, shopper.page.text
        shop.start_database()
        eventually(lambda: shopper.get("/") and shopper.page.status_code == 200)
        shopper.get("/checkout/preview/")
        numbers: list[str] = []

        def send() -> bool:
            numbers.append(shopper.order())
            return bool(numbers[-1])

        eventually(send)  # who failed a moment ago holds changes back for a second: its page says to send it again
        return gone, words, numbers[-1]

    before = shop.orders()
    gone, words, number = shop.as_shopper(meet)
    assert gone == 503
    assert "jamais passée deux fois" in words
    assert shop.orders() == [*before, number], "the basket outlived it"


def test_search_that_is_away_is_said_and_the_rest_goes_on(shop: Shop) -> None:
    def ask(shopper: Shopper) -> tuple[int, bool, int]:
        page = shopper.get("/search/?q=érable")
        status = shopper.page.status_code
        shopper.get("/catalogue/")
        return status, page.select_one(".search-away") is not None, shopper.page.status_code

    assert shop.as_shopper(ask) == (200, True, 200)
