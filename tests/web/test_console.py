"""A kernel's console in the browser: what it says, and typing, with xterm.js and without."""

import os
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from mk9p.clients.web.consoles import path_of
from mk9p.errors import NineError
from mk9p.testing import SOON, child, hear, in_thread, serving_at, until_true
from mk9p.tree import Dir, Text
from tests.web.page import ME, Browser, Page
from tests.web.test_browser import CHROMIUM, chromium, shot

ROOT: Final = Path(__file__).parents[2]
__all__ = ["chromium"]


@attrs.define
class Machine:
    """A kernel that is a console: it says two lines, and keeps what is typed."""

    typed: list[str] = attrs.field(factory=list)

    def tree(self) -> Dir:
        def press(text: str) -> None:
            self.typed.append(text)

        life = {"status": Text("name k7\nstate active\n"), "config": Text("backend qemu\n")}
        console = Text(lambda: "\x1b[1mbooting\x1b[0m\r\nlogin: <b>\r\n", press, mode=0o600)
        return Dir(
            {
                "kernels": Dir(
                    {"status": Text("k7 active qemu 2 536870912 6.1\n"), "k7": Dir({**life, "console": console})}
                ),
                "k": Dir({}),
            }
        )


@contextmanager
def served(where: Path, *words: str) -> Iterator[tuple[Page, Machine]]:
    machine = Machine()
    with in_thread(serving_at(f"unix!{where}/s", machine.tree())) as (host, _):
        command = [*ME, "-a", host.address, "web", "-l", "127.0.0.1:0", *words]
        with child(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
            yield Page(hear(process, "http://").strip(), host.address, process), machine


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[tuple[Page, Machine]]:
    with served(tmp_path, "--write") as made:
        yield made


def test_what_a_console_says_comes_as_it_is(writing: tuple[Page, Machine]) -> None:
    browser = Browser(writing[0])
    browser.enter()
    status, headers, body = browser.ask("GET", "/console/stream?kernel=k7")
    browser.leave()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    data = b"".join(b64decode(each) for each in re.findall(rb"event: data\ndata: (\S+)\n", body))
    assert data == b"\x1b[1mbooting\x1b[0m\r\nlogin: <b>\r\n"
    assert body.endswith(b'event: end\ndata: "it has ended"\n\n')


@pytest.mark.parametrize("name", ["k9", "../k7", "k7/", "", "a b"])
def test_a_console_that_is_none_is_told(writing: tuple[Page, Machine], name: str) -> None:
    browser = Browser(writing[0])
    browser.enter()
    _, _, body = browser.ask("GET", "/console/stream?kernel=" + name.replace(" ", "%20"))
    browser.leave()
    assert b"event: data" not in body
    assert b"No such file" in body or b"is no name of a kernel" in body


def test_typing_is_a_change_like_others(writing: tuple[Page, Machine], tmp_path: Path) -> None:
    page, machine = writing
    browser = Browser(page)
    browser.enter()
    typed = {"kernel": "k7", "text": "ls\r"}
    for wrong in ({"origin": "http://evil.example"}, {"x_mk9p": ""}, {"cookie": ""}):
        assert browser.ask("POST", "/type", typed, **wrong)[0] == 403
    assert browser.ask("POST", "/type", {"kernel": "k7"})[0] == 400
    assert browser.ask("POST", "/type", {"kernel": "k7", "text": "x" * 5000})[0] == 409
    assert machine.typed == []
    assert browser.ask("POST", "/type", typed)[0] == 200
    assert machine.typed == ["ls\r"]
    browser.leave()
    (tmp_path / "r").mkdir()
    with served(tmp_path / "r") as (reading, still):
        browser = Browser(reading)
        browser.enter()
        assert browser.ask("POST", "/type", typed)[0] == 403
        browser.leave()
        assert still.typed == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize("kind", ["xterm", "plain"])
def test_a_console_is_shown_and_typed_on(chromium: Any, writing: tuple[Page, Machine], kind: str) -> None:
    page, machine = writing
    if kind == "xterm" and not (ROOT / "clients/web/static/xterm.js").exists():
        if shutil.which("npm") is None:
            pytest.skip("no npm, which brings xterm.js")
        subprocess.run(["sh", ".ci/terminal"], cwd=ROOT, check=True)
    wrong: list[str] = []
    context = chromium.new_context(viewport={"width": 900, "height": 700})
    context.set_default_timeout(SOON * 1000)
    try:
        if kind == "plain":
            context.route("**/xterm.js", lambda route: route.abort())
        opened = context.new_page()
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        opened.goto(page.url)
        opened.get_by_role("article", name="k7").get_by_role("link", name="console").click()
        opened.get_by_role("heading", name="k7").wait_for()
        if kind == "plain":
            opened.locator("#plain").get_by_text("login: <b>").wait_for()
            assert "\x1b" not in opened.inner_text("#plain")
            opened.get_by_label("Type a line").fill("ls")
            opened.keyboard.press("Enter")
        else:
            opened.locator(".xterm-rows").get_by_text("login: <b>").wait_for()
            assert opened.locator(".xterm-rows b").count() == 0
            assert opened.get_by_label("Type a line").is_hidden()
            opened.locator(".xterm-helper-textarea").focus()
            opened.keyboard.type("ls\n")
        until_true(lambda: "".join(machine.typed) == "ls\r")
        shot(opened, f"console-{kind}")
        assert wrong == []
    finally:
        context.close()


def test_names_of_kernels_are_no_paths() -> None:
    assert path_of("k-7.a") == "kernels/k-7.a/console"
    for name in ("..", "a/b", "", "-a", "a\0"):
        with pytest.raises(NineError):
            path_of(name)
