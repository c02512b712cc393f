"""What the live page's server answers, to a client that is no browser."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from mk9p import sync
from mk9p.testing import SOON, child
from tests.web.page import ME, Browser, Page, page


@pytest.fixture
def browser(reading: Page) -> Iterator[Browser]:
    made = Browser(reading)
    made.enter()
    yield made
    made.leave()


@pytest.fixture
def writer(writing: Page) -> Iterator[Browser]:
    made = Browser(writing)
    made.enter()
    yield made
    made.leave()


def test_without_the_token_there_is_nothing(reading: Page) -> None:
    stranger = Browser(reading)
    for path in ("/", "/app.js", "/events", "/file?path=/", "/nothing"):
        assert stranger.ask("GET", path)[0] == 403
    assert stranger.ask("POST", "/say", {"path": "/ctl", "words": "x"})[0] == 403


def test_a_head_has_no_body_and_a_websocket_is_refused(browser: Browser) -> None:
    status, headers, body = browser.ask("HEAD", "/app.js")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 1000
    key = {"upgrade": "websocket", "connection": "Upgrade", "sec_websocket_version": "13"}
    status, _, _ = browser.ask("GET", "/events", sec_websocket_key="AAAAAAAAAAAAAAAAAAAAAA==", **key)
    assert status == 403
    assert browser.ask("GET", "/")[0] == 200


def test_a_rebound_name_gets_nothing(browser: Browser) -> None:
    assert browser.ask("GET", "/", host="evil.example")[0] == 421


def test_every_answer_forbids_what_the_page_does_not_need(browser: Browser) -> None:
    for path in ("/", "/app.js", "/file?path=/", "/nothing"):
        _, headers, _ = browser.ask("GET", path)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_a_file_comes_with_its_page_of_the_manual(browser: Browser) -> None:
    status, _, body = browser.ask("GET", "/file?path=" + quote("/k/k0/cpu/ctl"))
    told = json.loads(body)
    assert status == 200
    assert told["text"].startswith("online ")
    assert "`online N…` bring CPUs into use" in told["manual"]
    assert {"usage": "online N…", "what": "bring CPUs into use"} in told["words"]
    assert [each["usage"].split(" ")[0] for each in told["words"]] == [
        "online",
        "offline",
        "isolate",
        "join",
        "governor",
    ]
    directory = json.loads(browser.ask("GET", "/file?path=/k")[2])
    assert directory["entries"] == [{"name": "k0", "directory": True}, {"name": "k1", "directory": True}]
    waits = json.loads(browser.ask("GET", "/file?path=/events")[2])
    assert waits["note"] == "this file waits for more"
    assert " mount " in waits["text"]


def test_a_file_that_reading_would_change_is_not_read(browser: Browser) -> None:
    told = json.loads(browser.ask("GET", "/file?path=/kernels/clone")[2])
    assert "the page does not" in told["note"]
    assert json.loads(browser.ask("GET", "/file?path=/kernels/status")[2])["text"] == ""


def test_a_file_that_does_not_exist_is_an_error_in_words(browser: Browser) -> None:
    status, _, body = browser.ask("GET", "/file?path=/k/k9")
    assert status == 404
    assert "No such file" in json.loads(body)["error"]


def test_a_page_is_read_only_unless_asked(browser: Browser) -> None:
    status, _, body = browser.ask("POST", "/say", {"path": "/ctl", "words": "unmount /n/processors"})
    assert (status, body) == (403, b"this page is read-only: start it with `mk9p web --write`\n")


def test_a_word_is_written_and_a_refusal_keeps_its_words(writer: Browser) -> None:
    assert writer.ask("POST", "/say", {"path": "/ctl", "words": "bind /k/k0/mem /n/memory"})[0] == 200
    with sync.connect(writer.page.address) as ns:
        assert "bind /k/k0/mem /n/memory\n" in ns.read("ns")
    status, _, body = writer.ask("POST", "/say", {"path": "/ctl", "words": "bund"})
    assert status == 409
    assert "usage: " in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("path", "words"),
    [("/k/k0/name", "x"), ("/ctl", ""), ("/ctl", "a\nb"), ("/k/k0/cpu/status", "x"), ("/ctl/", "x")],
)
def test_the_page_writes_one_line_to_a_ctl_and_nothing_else(writer: Browser, path: str, words: str) -> None:
    status, _, body = writer.ask("POST", "/say", {"path": path, "words": words})
    assert status == 409
    assert "one line, to files named ctl" in json.loads(body)["error"]


def test_another_site_changes_nothing(writer: Browser) -> None:
    said = {"path": "/ctl", "words": "bind /k/k0/mem /n/evil"}
    for wrong in (
        {"origin": "http://evil.example"},
        {"origin": ""},
        {"x_mk9p": ""},
        {"content_type": "text/plain"},
        {"cookie": ""},
    ):
        assert writer.ask("POST", "/say", said, **wrong)[0] in (403, 415)
    with sync.connect(writer.page.address) as ns:
        assert "evil" not in ns.read("ns")


@pytest.mark.parametrize("body", ["text", [], {}, {"path": "/ctl"}, {"path": 1, "words": "x"}])
def test_nonsense_is_refused(writer: Browser, body: Any) -> None:
    assert writer.ask("POST", "/say", body)[0] == 400


def test_too_much_is_refused(writer: Browser) -> None:
    assert writer.ask("POST", "/say", {"path": "/ctl", "words": "x" * 100_000})[0] == 413


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("0.0.0.0:9564", "the page is for this machine alone; from another one: ssh -L"),
        ("127.0.0.1:x", "want HOST:PORT"),
        ("127.0.0.1:70000", "want HOST:PORT"),
    ],
)
def test_it_listens_on_the_loopback_alone(tmp_path: Path, where: str, words: str) -> None:
    done = subprocess.run([*ME, "web", "-l", where], capture_output=True, text=True, timeout=SOON, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_in_use_and_no_namespace_are_one_line(reading: Page, tmp_path: Path) -> None:
    port = reading.base.rpartition(":")[2]
    for address, where, words in (
        (reading.address, f"127.0.0.1:{port}", "Address already in use: -l 127.0.0.1:0 takes a free one"),
        (f"unix!{tmp_path}/none", "127.0.0.1:0", "no such socket: is its server running?"),
    ):
        command = [*ME, "-a", address, "web", "-l", where]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SOON, check=False)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_it_ends_at_once_with_a_tab_open(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        browser = Browser(made)
        browser.enter()
    browser.leave()


def test_the_url_is_kept_in_a_file_of_this_user_alone_where_a_service_wants_it(tmp_path: Path) -> None:
    kept, hears = tmp_path / "url", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with hears, page(tmp_path) as served:
        hears.bind(f"{tmp_path}/notify")
        hears.settimeout(SOON)
        kept.write_text("an old one\n")
        command = [*ME, "-a", served.address, "web", "-l", "127.0.0.1:0", "--url", str(kept)]
        with child(
            command,
            "mk9p web: open the URL in",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": f"{tmp_path}/notify"},
        ) as process:
            assert hears.recv(100) == b"READY=1"
            assert kept.stat().st_mode & 0o777 == 0o600
            someone = Browser(attrs.evolve(served, url=kept.read_text().strip()))
            someone.enter()
            someone.leave()
            process.terminate()
            assert process.stdout is not None
            assert process.stdout.read() == ""
        assert not kept.exists()
