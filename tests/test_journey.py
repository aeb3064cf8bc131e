"""The shopper's walk through small real shops, the broken ones included."""

from __future__ import annotations

import itertools
import time
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pcloud.clock import SystemClock
from pcloud.journey import BODY_LIMIT, JourneyResult, walk
from pcloud.model import Journey, Visit
from tests.serving import Answer, Request, page, redirect, serve


def go(answer: Callable[[Request], Answer], *steps: dict[str, Any], timeout_s: float = 10) -> JourneyResult:
    """Walks the steps in a shop that answers so; the result's details have PORT for the port."""
    journey = Journey.model_validate(
        {"steps": [{"name": f"s{n}", **s} for n, s in enumerate(steps, 1)], "timeout_s": timeout_s}
    )
    with serve(answer) as port:
        result = walk(journey, f"http://127.0.0.1:{port}", clock=SystemClock())
        steps_ = tuple(type(s)(s.name, s.ok, s.elapsed_s, s.detail.replace(str(port), "PORT")) for s in result.steps)
        return JourneyResult(result.ok, steps_)


def html(body: str, **more: Any) -> bytes:
    return page(f"<!doctype html><html><head><title>Pépinière</title></head><body>{body}</body></html>", **more)


class Shop:
    """A shop small enough to read: cookies, a token against forged forms, accents, a basket."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.basket: dict[str, str] = {}

    def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        url = urllib.parse.urlsplit(request.path)
        match request.method, url.path:
            case "GET", "/":
                return html('<nav><a href="/about">?</a><a data-category=1 href="./trees/">Arbres</a></nav>')
            case "GET", "/trees/":
                cards = "".join(
                    f'<article class="product"><h3><a href="/p/{n}/">Érable {n}</a></h3></article>' for n in "1234"
                )
                return html(cards)
            case "GET", "/search/":
                (wanted,) = urllib.parse.parse_qs(url.query)["q"]
                return html(f'<article class="product"><a href="/p/2/"><img alt=x></a>{wanted} du Japon</article>')
            case "GET", "/p/2/":
                form = """<form class="add-to-basket" method="post" action="../../basket/add/2/">
                  <input type=hidden name=csrf value="t0k3n"><input name=quantity value=9>
                  <input type=submit name=go value=Acheter>
                  </form>"""
                return html(form, headers=("Set-Cookie: csrf=t0k3n; Path=/; HttpOnly",))
            case "POST", "/basket/add/2/":
                sent = dict(urllib.parse.parse_qsl(request.body.decode()))
                if request.headers.get("cookie") != "csrf=t0k3n" or sent.pop("csrf", "") != "t0k3n":
                    return html("Forbidden", status=403)
                self.basket = sent
                return redirect("/basket/")
            case "GET", "/basket/" if self.basket:
                return html(f'<p class="basket-item">Prix : 24,50\u00a0€ × {self.basket["quantity"]}</p>')
        return html("nothing here", status=404)


BUY: tuple[dict[str, Any], ...] = (
    {"get": "/", "contains": ["Arbres"]},
    {"follow": "nav a[data-category]", "finds": "article.product", "at_least": 4},
    {"get": "/search/?q=érable", "contains": ["érable du Japon"], "finds": "article.product"},
    {"follow": "article.product", "finds": "form.add-to-basket"},
    {"submit": "form.add-to-basket", "fields": {"quantity": "1"}, "finds": ".basket-item", "contains": ["24,50 € × 1"]},
)


def test_a_shopper_buys() -> None:
    shop = Shop()
    heard: list[tuple[str, float]] = []
    journey = Journey.model_validate({"steps": [{"name": f"s{n}", **step} for n, step in enumerate(BUY)]})
    with serve(shop) as port:
        result = walk(
            journey, f"http://127.0.0.1:{port}/", clock=SystemClock(), on_step=lambda v, s: heard.append((v.name, s))
        )
    assert result.ok, result.failed
    assert result.failed is None
    assert heard == [(step.name, step.elapsed_s) for step in result.steps]
    assert [name for name, _ in heard] == ["s0", "s1", "s2", "s3", "s4"]
    assert sum(s for _, s in heard) == pytest.approx(result.elapsed_s)
    assert shop.basket == {"quantity": "1", "go": "Acheter"}
    post = next(r for r in shop.requests if r.method == "POST")
    assert post.headers["referer"] == f"http://127.0.0.1:{port}/p/2/"
    assert post.headers["content-type"] == "application/x-www-form-urlencoded"
    assert result.steps[2].detail == f"GET http://127.0.0.1:{port}/search/?q=érable: 200, 1 of 'article.product'"


def test_it_stops_at_the_first_step_that_fails() -> None:
    heard: list[Visit] = []
    journey = Journey.model_validate(
        {"steps": [{"name": "home", "get": "/"}, {"name": "gone", "get": "/x"}, {"name": "never", "get": "/"}]}
    )
    with serve(Shop()) as port:
        result = walk(journey, f"http://127.0.0.1:{port}", clock=SystemClock(), on_step=lambda v, _: heard.append(v))
    assert not result.ok
    assert [(s.name, s.ok) for s in result.steps] == [("home", True), ("gone", False)]
    assert [v.name for v in heard] == ["home"]
    assert result.failed
    assert result.failed.detail == f"GET http://127.0.0.1:{port}/x: 404 instead of 200 (titled 'Pépinière')"


def drip() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    for _ in range(600):
        yield b"x"
        time.sleep(0.1)


def drip_headers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Slow: "
    for _ in range(600):
        yield b"x"
        time.sleep(0.1)


def silence() -> Iterator[bytes]:
    time.sleep(60)
    yield b""


def never_ends() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    while True:
        yield b"x" * 65536


def many_redirects() -> Callable[[Request], Answer]:
    numbers = itertools.count()
    return lambda request: redirect(f"/{next(numbers)}")


BAD_SERVERS: dict[str, tuple[Callable[[Request], Answer], str]] = {
    "500": (lambda r: html("oops", status=500), "GET http://127.0.0.1:PORT/: 500 instead of 200 (titled 'Pépinière')"),
    "drips": (lambda r: drip(), "GET http://127.0.0.1:PORT/: its answer (200) did not end within 2 s, "),
    "drips its head": (lambda r: drip_headers(), "GET http://127.0.0.1:PORT/: no answer within 2 s"),
    "is silent": (lambda r: silence(), "GET http://127.0.0.1:PORT/: no answer within 2 s"),
    "has no end": (lambda r: never_ends(), "GET http://127.0.0.1:PORT/: its answer has more than 4 MiB"),
    "is huge": (lambda r: page(b"x" * (BODY_LIMIT + 1)), "GET http://127.0.0.1:PORT/: its answer has more than 4 MiB"),
    "hangs up": (
        lambda r: b"",
        "GET http://127.0.0.1:PORT/: not a proper HTTP answer (Server disconnected without sending a response.)",
    ),
    "is cut": (
        lambda r: page("whole")[:-2],
        "GET http://127.0.0.1:PORT/: not a proper HTTP answer "
        "(peer closed connection without sending complete message body (received 3 bytes, expected 5))",
    ),
    "speaks SSH": (
        lambda r: b"SSH-2.0-x\r\n\r\n",
        "GET http://127.0.0.1:PORT/: not a proper HTTP answer (illegal status line:",
    ),
    "is encoded": (
        lambda r: page(b"\x1f\x8b", headers=("Content-Encoding: gzip",)),
        "GET http://127.0.0.1:PORT/: its answer is encoded, which was not asked for",
    ),
    "redirects for ever": (
        many_redirects(),
        "GET http://127.0.0.1:PORT/: more than 10 redirects, the last to http://127.0.0.1:PORT/10",
    ),
    "redirects to itself": (
        lambda r: redirect("/"),
        "GET http://127.0.0.1:PORT/: more than 10 redirects, the last to http://127.0.0.1:PORT/",
    ),
    "redirects elsewhere": (
        lambda r: redirect("http://elsewhere.example/login"),
        "GET http://127.0.0.1:PORT/: redirects to http://elsewhere.example/login, which is not on http://127.0.0.1:PORT",
    ),
    "redirects to another port": (
        lambda r: redirect("http://127.0.0.1:1/"),
        "GET http://127.0.0.1:PORT/: redirects to http://127.0.0.1:1/, which is not on http://127.0.0.1:PORT",
    ),
    "redirects to TLS": (
        lambda r: redirect("https://127.0.0.1/"),
        "GET http://127.0.0.1:PORT/: redirects to https://127.0.0.1/, which is not on http://127.0.0.1:PORT",
    ),
    "redirects to nonsense": (
        lambda r: redirect("http://[::1"),
        "GET http://127.0.0.1:PORT/: not a proper HTTP answer (Invalid URL",
    ),
    "is quadratic": (
        lambda r: page("<a " * 500_000),
        "GET http://127.0.0.1:PORT/: the page is too strange to be read in time",
    ),
    "is deep": (
        lambda r: page("<div>" * 5000),
        "GET http://127.0.0.1:PORT/: the page's elements are nested more than 2000 deep",
    ),
}


@pytest.mark.parametrize("case", BAD_SERVERS)
def test_a_bad_server_is_a_failed_step_in_time(case: str) -> None:
    answer, detail = BAD_SERVERS[case]
    started = time.monotonic()
    result = go(answer, {"get": "/"}, timeout_s=2)
    assert time.monotonic() - started < 10
    assert not result.ok
    assert result.steps[0].detail.startswith(detail)


def test_a_refused_port_is_a_failed_step() -> None:
    with serve(Shop()) as port:
        pass
    journey = Journey.model_validate({"steps": [{"name": "home", "get": "/"}]})
    result = walk(journey, f"http://127.0.0.1:{port}", clock=SystemClock())
    assert result.steps[0].detail == f"GET http://127.0.0.1:{port}/: connection refused"


def test_the_step_s_time_covers_its_redirects() -> None:
    def slow(request: Request) -> Iterator[bytes]:
        time.sleep(0.7)
        yield redirect(request.path + "x")

    started = time.monotonic()
    result = go(slow, {"get": "/"}, timeout_s=2)
    assert time.monotonic() - started < 6
    assert result.steps[0].detail == "GET http://127.0.0.1:PORT/xx: no answer within 2 s"


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    assert go(Shop(), {"get": "/"}).ok


NFD = unicodedata.normalize("NFD", "Érable")
CONTAINS: tuple[tuple[str, str, bool], ...] = (
    (f"<p>{NFD} du Japon</p>", "Érable du Japon", True),
    ("<p>Érable du Japon</p>", f"{NFD} du Japon", True),
    ("<p>Érable\n   <b>du</b>\tJapon</p>", "Érable du Japon", True),
    ("<p>Éra<b>ble</b></p>", "Érable", True),
    ("<li>Érable</li><li>Japon</li>", "Érable Japon", True),
    ("<p>&Eacute;rable &amp; C&#x6f;</p>", "Érable & Co", True),
    ("<p>24,50&nbsp;\u202f€</p>", "24,50 €", True),
    ('<input data-sku="ACER-1">', 'data-sku="ACER-1"', True),
    ("<p>érable</p>", "Érable", False),
    ("<p>Erable</p>", "Érable", False),
)


@pytest.mark.parametrize(("body", "wanted", "ok"), CONTAINS)
def test_what_a_page_shows(body: str, wanted: str, ok: bool) -> None:
    result = go(lambda r: html(body), {"get": "/", "contains": [wanted]})
    assert result.ok is ok
    if not ok:
        assert f"200, but '{wanted}' is not on the page (titled 'Pépinière')" in result.steps[0].detail


@pytest.mark.parametrize(
    "head", ["text/html; charset=ISO-8859-1", 'text/html; charset="latin1"', "text/html", "text/html; charset=bogus"]
)
def test_pages_in_other_charsets(head: str) -> None:
    body = '<html><head><meta charset="iso-8859-1"></head><p>Érable à sucre</p>'.encode("latin-1")
    assert go(lambda r: page(body, content_type=head), {"get": "/", "contains": ["Érable à sucre"]}).ok


def test_json_is_looked_at_as_it_is() -> None:
    assert go(
        lambda r: page('{"a": "<b>"}', content_type="application/json"), {"get": "/", "contains": ['{"a": "<b>"}']}
    ).ok


def test_a_redirect_can_be_what_is_asked_for() -> None:
    result = go(lambda r: redirect("https://pay.example/"), {"get": "/pay", "status": 302})
    assert result.ok, result.failed


FOLLOW: tuple[tuple[str, str, str], ...] = (
    ('<a href="/x">x</a>', "a", "/x"),
    ('<a href="/x"><b><i>x</i></b></a>', "i", "/x"),
    ('<div class=card><p><a>no</a><a href="x?a=1&amp;b=é#top">x</a></p></div>', "div.card", "/x?a=1&b=%C3%A9"),
    ('<base href="/deep/er/"><a href="x">x</a>', "a", "/deep/er/x"),
    ('<a href=" //127.0.0.1:PORT/x ">x</a>', "a", "/x"),
    ('<a href="http://127.0.0.1:PORT/x">x</a>', "a", "/x"),
    ('<a href="">x</a>', "a", "/"),
)


@pytest.mark.parametrize(("body", "selector", "path"), FOLLOW)
def test_follow(body: str, selector: str, path: str) -> None:
    seen: list[str] = []

    def answer(request: Request) -> bytes:
        seen.append(request.path)
        return html(body.replace("PORT", request.headers["host"].split(":")[1]))

    result = go(answer, {"get": "/"}, {"follow": selector})
    assert result.ok, result.failed
    assert seen == ["/", path]


LEADS_NOWHERE: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("", {"follow": "a.buy"}, "nothing matches 'a.buy'"),
    ("<p>x</p>", {"follow": "p"}, "'p': the first match is a <p> with no link in or around it"),
    ('<a href="http://other.example/x">', {"follow": "a"}, "'a' leads to http://other.example/x, which is not on"),
    ('<a href="//127.0.0.2/x">', {"follow": "a"}, "'a' leads to http://127.0.0.2/x, which is not on"),
    ('<a href="mailto:a@b.example">', {"follow": "a"}, "'a' leads to mailto:a@b.example, which is not on"),
    ('<a href="javascript:void(0)">', {"follow": "a"}, "'a' leads to javascript:void(0), which is not on"),
    ('<a href="http://[::1">', {"follow": "a"}, "Invalid port"),
    ('<base href="http://other.example/"><a href="x">', {"follow": "a"}, "leads to http://other.example/x, which"),
    ("", {"submit": "form"}, "nothing matches 'form'"),
    ("<p>x</p>", {"submit": "p"}, "'p': it matches no form, nor anything in or around one"),
    (
        '<form action="http://other.example/pay" method=post>',
        {"submit": "form"},
        "leads to http://other.example/pay, which is not",
    ),
    ("<form method=dialog>", {"submit": "form"}, "the form's method is DIALOG, which sends nothing"),
    (
        "<form><input name=b><input name=a disabled><select name=c></select></form>",
        {"submit": "form", "fields": {"a": "1", "zz": "1"}},
        "the form has no field a, zz; it has b, c",
    ),
)


@pytest.mark.parametrize(("body", "step", "detail"), LEADS_NOWHERE)
def test_a_page_without_what_is_needed(body: str, step: dict[str, Any], detail: str) -> None:
    result = go(lambda r: html(body), {"get": "/"}, step)
    assert [s.ok for s in result.steps] == [True, False]
    assert detail in result.steps[1].detail


def test_a_journey_that_starts_in_the_middle() -> None:
    assert "no page is open in which to find 'a'" in go(Shop(), {"follow": "a"}).steps[0].detail


FORM = """
<form id=f class=order method={method} enctype="{enctype}" action="/send?old=1#x">
 <input type=hidden name=csrf value="é&amp;1"><input name=empty><input value=nameless>
 <input type=checkbox name=gift><input type=checkbox name=news checked><input type=checkbox name=tag value=a checked>
 <input type=checkbox name=tag value=b checked>
 <input type=radio name=ship value=post><input type=radio name=ship value=bike checked>
 <select name=size><option>S<option value=m selected>M</select>
 <select name=first><option value=1>one<option value=2>two</select>
 <select name=several multiple><option selected>x<option selected> y  z <option>n</select>
 <textarea name=note>
 two
lines</textarea>
 <input name=off disabled value=1><fieldset disabled><input name=off2 value=1></fieldset>
 <input type=file name=photo><input type=reset name=r value=1><button type=button name=b value=1></button>
 <button name=do value=buy>Buy</button><button name=do value=quote>Quote</button>
</form>
<input form=f name=coupon value=SPRING><input name=stranger value=1>
"""
SENT = [
    ("csrf", "é&1"),
    ("empty", ""),
    ("news", "on"),
    ("tag", "a"),
    ("tag", "b"),
    ("ship", "bike"),
    ("size", "m"),
    ("first", "1"),
    ("several", "x"),
    ("several", "y z"),
    ("note", " two\r\nlines"),
    ("do", "buy"),
    ("coupon", "SPRING"),
]


def submitted(method: str, enctype: str = "", fields: dict[str, str] | None = None) -> Request:
    seen: list[Request] = []

    def answer(request: Request) -> bytes:
        seen.append(request)
        return html(FORM.format(method=method, enctype=enctype))

    result = go(answer, {"get": "/"}, {"submit": "form.order", "fields": fields or {}})
    assert result.ok, result.failed
    return seen[-1]


def test_a_form_sends_what_a_browser_would() -> None:
    sent = submitted("post")
    assert (sent.method, sent.path) == ("POST", "/send?old=1")
    assert urllib.parse.parse_qsl(sent.body.decode(), keep_blank_values=True) == SENT


def test_a_get_form_replaces_the_query() -> None:
    sent = submitted("GET")
    assert (sent.method, sent.body) == ("GET", b"")
    assert sent.path == "/send?" + urllib.parse.urlencode(SENT)


def test_the_shoppers_fields_replace_the_forms() -> None:
    sent = submitted("post", fields={"tag": "c", "gift": "on", "ship": "post", "size": "S", "do": "quote"})
    pairs = urllib.parse.parse_qsl(sent.body.decode(), keep_blank_values=True)
    replaced = {"tag": "c", "ship": "post", "size": "S", "do": "quote"}
    expected = [(name, replaced.get(name, value)) for name, value in SENT if (name, value) != ("tag", "b")]
    assert pairs == [*expected, ("gift", "on")]


def test_multipart_and_plain_forms() -> None:
    sent = submitted("post", "multipart/form-data")
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert sent.body.count(b"Content-Disposition: form-data; name=") == len(SENT)
    assert 'name="csrf"\r\n\r\né&1\r\n'.encode() in sent.body
    assert b"filename" not in sent.body
    plain = submitted("post", "text/plain")
    assert plain.headers["content-type"] == "text/plain"
    assert plain.body.decode().startswith("csrf=é&1\r\nempty=\r\nnews=on\r\n")


def test_a_button_may_send_the_form_elsewhere() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> bytes:
        seen.append(request)
        return html("<form action=/a><input name=q><button formaction=/b formmethod=post name=x value=y></form>")

    assert go(answer, {"get": "/"}, {"submit": "input", "fields": {"q": "é"}}).ok
    assert (seen[1].method, seen[1].path, seen[1].body) == ("POST", "/b", b"q=%C3%A9&x=y")


@pytest.mark.parametrize(
    ("status", "method", "body"), [(302, "GET", b""), (303, "GET", b""), (307, "POST", b"q=1"), (308, "POST", b"q=1")]
)
def test_redirects_after_a_form(status: int, method: str, body: bytes) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> bytes:
        seen.append(request)
        if request.path == "/send":
            return redirect("/done", status=status, headers=("Set-Cookie: s=1",))
        return html("<form method=post action=/send><input name=q value=1></form>")

    assert go(answer, {"get": "/"}, {"submit": "form"}).ok
    assert (seen[-1].method, seen[-1].path, seen[-1].body) == (method, "/done", body)
    assert seen[-1].headers["cookie"] == "s=1"


def test_one_line_of_detail_whatever_the_page_says() -> None:
    result = go(lambda r: page(f"<title>\x1b[31m{'x' * 500}\n</title>", status=500), {"get": "/"})
    detail = result.steps[0].detail
    assert detail.isprintable()
    assert len(detail) <= 300
