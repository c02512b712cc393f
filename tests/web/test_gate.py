"""Who the live page lets in."""

import pytest

from mk9p.clients.web.gate import Asked, Denied, Gate

GATE = Gate(9564, "secret", "mark")
HOST = (b"host", b"127.0.0.1:9564")
COOKIE = (b"cookie", b"other=1; mk9p-9564=secret")
CHANGE = ((b"origin", b"http://127.0.0.1:9564"), (b"x-mk9p", b"mark"), (b"content-type", b"application/json"))


def ask(*headers: tuple[bytes, bytes], method: str = "GET", path: str = "/events", query: bytes = b"") -> bool:
    return GATE.check(Asked.of(method, path, query, headers))


def test_the_token_of_the_url_or_the_cookie_lets_in() -> None:
    assert ask(HOST, path="/", query=b"token=secret")
    assert not ask(HOST, COOKIE)
    assert not ask((b"host", b"localhost:9564"), COOKIE)
    assert not ask((b"host", b"[::1]:9564"), COOKIE)


@pytest.mark.parametrize(
    ("headers", "query", "path"),
    [
        ((HOST,), b"", "/"),
        ((HOST,), b"token=wrong", "/"),
        ((HOST,), b"token=", "/"),
        ((HOST,), b"token=secret", "/file"),  # a URL that is told on has no token
        ((HOST, (b"cookie", b"mk9p-9564=wrong")), b"", "/"),
        ((HOST, (b"cookie", b"mk9p-9565=secret")), b"", "/"),
        ((HOST, COOKIE, COOKIE), b"", "/"),
        ((HOST, (b"cookie", "mk9p-9564=sécret".encode())), b"", "/"),
    ],
)
def test_nothing_else_does(headers: tuple[tuple[bytes, bytes], ...], query: bytes, path: str) -> None:
    with pytest.raises(Denied) as denied:
        ask(*headers, query=query, path=path)
    assert denied.value.status == 403


@pytest.mark.parametrize(
    "host", [b"evil.example:9564", b"127.0.0.1", b"127.0.0.1:80", b"", b"localhost.evil.example:9564"]
)
def test_a_name_of_somebody_else_that_leads_here_is_refused_even_with_the_token(host: bytes) -> None:
    for headers, query in (((COOKIE,), b""), ((), b"token=secret")):
        with pytest.raises(Denied) as denied:
            ask((b"host", host), *headers, path="/", query=query)
        assert denied.value.status == 421
    with pytest.raises(Denied):
        ask(HOST, (b"host", host), COOKIE)


def test_a_change_wants_the_mark_and_our_own_origin_too() -> None:
    assert not ask(HOST, COOKIE, *CHANGE, method="POST", path="/say")
    for missing in range(len(CHANGE)):
        some = [each for n, each in enumerate(CHANGE) if n != missing]
        with pytest.raises(Denied):
            ask(HOST, COOKIE, *some, method="POST", path="/say")
    for name, value in ((b"origin", b"http://evil.example"), (b"origin", b"null"), (b"x-mk9p", b"other")):
        changed = [(key, value if key == name else old) for key, old in CHANGE]
        with pytest.raises(Denied):
            ask(HOST, COOKIE, *changed, method="POST", path="/say")
    with pytest.raises(Denied):
        ask(HOST, *CHANGE, method="POST", path="/say")


def test_the_cookie_is_for_no_script_and_no_other_site() -> None:
    name, value = GATE.set_cookie()
    assert name == b"set-cookie"
    assert value == b"mk9p-9564=secret; HttpOnly; SameSite=Strict; Path=/"
    assert "secret" not in repr(GATE)
