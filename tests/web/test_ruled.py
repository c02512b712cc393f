"""The live page under the rules of a policy: it is the user who started it, and shows and writes what that user may by 9P, and nothing else."""

import json
import os
import pwd
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from mk9p import sync
from mk9p.testing import until_true
from tests.web.page import Browser, Page, page

ME = pwd.getpwuid(os.geteuid()).pw_name
RULES = f"""\
deny {ME} r /k/k1/mem/**
deny {ME} c /k/k0/cpu/**
deny {ME} rwc /kernels/closed/**
"""
# a path, and what is written there: what the rules leave, what they refuse, by its own name, by a bind and in `all`
READ = (
    "k/k0/mem/status",
    "k/k1/mem/status",
    "all/mem/k1.status",
    "k/k0/cpu/status",
    "k/k1/mem",
    "kernels/closed/config",
    "auth/whoami",
    "no/such",
)
WRITTEN = (
    ("k/k0/cpu/ctl", "online 0"),
    ("n/processors/ctl", "online 0"),
    ("all/cpu/k0.ctl", "online 0"),
    ("k/k1/cpu/ctl", "online 0"),
    ("kernels/closed/ctl", "cpus 1"),
    ("kernels/open/ctl", "cpus 1"),
)


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("web"), "--write", rules=RULES) as made, sync.connect(made.address) as client:
        client.write("kernels/ctl", "create closed\ncreate open\n")
        yield made


@pytest.fixture
def browser(ruled: Page) -> Iterator[Browser]:
    with sync.connect(ruled.address) as client:
        client.write("auth/policy", RULES)
    made = Browser(ruled)
    made.enter()
    yield made
    made.leave()


def file(browser: Browser, path: str) -> dict[str, str]:
    told: dict[str, str] = json.loads(browser.ask("GET", f"/file?path={quote(path)}")[2])
    return told


def by_9p(page: Page, path: str) -> str:
    """Return why a file or directory cannot be read, in words; "" if it can."""
    with sync.connect(page.address) as client:
        try:
            _ = client.listdir(path) if client.stat(path).is_dir else client.read(path)
        except OSError as error:
            return str(error)
    return ""


def test_the_page_shows_what_its_user_may_read_and_nothing_else(ruled: Page, browser: Browser) -> None:
    refused = {path: by_9p(ruled, path) for path in READ}
    assert [path for path in READ if refused[path]] == [
        "k/k1/mem/status",
        "all/mem/k1.status",
        "k/k1/mem",
        "kernels/closed/config",
        "no/such",
    ]
    for path, words in refused.items():
        told = file(browser, path)
        assert told.get("error", "") == words, path


def test_the_page_writes_where_its_user_may_and_nowhere_else(ruled: Page, browser: Browser) -> None:
    allowed = []
    with sync.connect(ruled.address) as client:
        for path, words in WRITTEN:
            try:
                client.write(path, words + "\n")
                said = ""
            except OSError as error:
                said = str(error)
            status, _, body = browser.ask("POST", "/say", {"path": path, "words": words})
            assert (status, json.loads(body).get("error", "")) == (409 if said else 200, said), path
            allowed += [] if said else [path]
    assert allowed == ["k/k1/cpu/ctl", "kernels/open/ctl"]


def test_a_console_is_neither_shown_nor_typed_on_against_the_rules(browser: Browser) -> None:
    _, _, body = browser.ask("GET", "/console/stream?kernel=closed")
    assert b"event: data" not in body
    assert b"ermission denied" in body
    status, _, words = browser.ask("POST", "/type", {"kernel": "closed", "text": "x"})
    assert (status, b"ermission denied" in words) == (409, True)


def kernels(browser: Browser) -> dict[str, dict[str, object]]:
    """Return the next picture of each kernel that was looked at."""
    seen: dict[str, dict[str, object]] = {}
    for data in browser.pictures("kernel"):
        told = json.loads(data)
        if told["state"] == "up":
            seen[told["name"]] = told
        if seen.keys() >= {"k0", "k1"}:
            break
    return seen


def test_the_picture_lacks_what_may_not_be_read_at_once_when_the_rules_change(ruled: Page, browser: Browser) -> None:
    nothing = {"total": None, "available": None}
    until_true(lambda: kernels(browser)["k0"]["memory"] != nothing)
    seen = kernels(browser)
    assert seen["k1"]["memory"] == nothing
    assert seen["k1"]["cpus"]
    with sync.connect(ruled.address) as client:
        client.write("auth/policy", f"deny {ME} r /k/k0/mem/**\n")
    until_true(lambda: kernels(browser)["k0"]["memory"] == nothing)


def test_a_file_that_an_operator_must_allow_waits_for_them(ruled: Page, browser: Browser) -> None:
    with sync.connect(ruled.address) as client:
        client.write("auth/policy", f"ask {ME} r /mounts\n")
        told: dict[str, str] = {}
        asking = threading.Thread(target=lambda: told.update(file(browser, "mounts")))
        asking.start()
        with client.open("auth/confirm") as confirm:
            number, *asked = confirm.read(8192).decode().split()
        assert asked == [ME, "r", "/mounts"]
        assert not told
        client.write("auth/confirm", f"allow {number} once\n")
        asking.join(20)
        assert "/k/k0" in told["text"]
