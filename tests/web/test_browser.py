"""The live page in a real Chromium: what a person sees, clicks, types and hears of it. Screenshots are kept in build/web."""

import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from mk9p import sync
from mk9p.testing import SOON, until_true
from tests.web.page import Page, page

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
CHROMIUM: Final = shutil.which("chromium")
SHOTS: Final = Path(__file__).parents[2] / "build" / "web"
PHONE: Final = {"width": 360, "height": 740}
DESK: Final = {"width": 1280, "height": 900}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def tab(chromium: Any, served: Page, **options: Any) -> Iterator[Any]:
    """Open the page in a browser of its own; nothing may go wrong in its scripts."""
    wrong: list[str] = []

    def dismiss(dialog: Any) -> None:
        dialog.dismiss()
        wrong.append("dialog")

    context = chromium.new_context(**{"viewport": DESK, **options})
    context.set_default_timeout(SOON * 1000)
    try:
        opened = context.new_page()
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("dialog", dismiss)
        opened.goto(served.url)
        opened.get_by_role("article", name="k0").get_by_role("button", name=re.compile("^CPU 0 of k0: ")).wait_for()
        yield opened
        assert wrong == []
    finally:
        context.close()


def shot(opened: Any, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    opened.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def test_it_shows_kernels_and_their_parts_by_roles(chromium: Any, reading: Page) -> None:
    with tab(chromium, reading) as opened:
        assert opened.url == reading.base + "/", "the token is not left in the URL"
        assert opened.title() == "mk9p"
        card = opened.get_by_role("article", name="k0")
        assert card.get_by_role("list", name="CPUs of k0").get_by_role("button").count() >= 1
        assert card.locator("meter").get_attribute("aria-label").startswith("Memory of k0: ")
        assert opened.get_by_role("article", name="k1").get_by_role("list", name="CPUs of k1").count() == 1
        assert "3 mounts and binds" in opened.get_by_role("img").get_attribute("aria-label")
        assert "read-only" in opened.get_by_role("status").first.inner_text()
        for name in ("Kernels", "Pool and leases", "Mounts and binds", "Traffic", "Events"):
            assert opened.get_by_role("heading", name=name).count() == 1
        opened.get_by_role("log").get_by_text("mount unix!").first.wait_for()
        for control in opened.locator("button, input, a").all():
            name = control.evaluate(
                "e => e.innerText || e.getAttribute('aria-label') || e.labels?.[0]?.innerText || ''"
            )
            assert name.strip() or not control.is_visible(), control.evaluate("e => e.outerHTML")
        shot(opened, "desk-light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK], ids=["phone", "desk"])
def test_it_fits_and_can_be_read(chromium: Any, reading: Page, scheme: str, width: dict[str, int]) -> None:
    with tab(chromium, reading, viewport=width, color_scheme=scheme) as opened:
        assert opened.evaluate("document.documentElement.scrollWidth") <= width["width"], "no sideways scrolling"
        assert opened.evaluate(CONTRAST) == []
        shot(opened, f"{'phone' if width is PHONE else 'desk'}-{scheme}")
        opened.get_by_role("article", name="k0").get_by_role("button", name="CPUs", exact=True).click()
        opened.get_by_role("dialog").get_by_text("From `mk9p help cpu`.").wait_for()
        assert opened.evaluate("document.documentElement.scrollWidth") <= width["width"]
        assert opened.evaluate(CONTRAST) == []
        shot(opened, f"file-{'phone' if width is PHONE else 'desk'}-{scheme}")


# WCAG 2, 1.4.3: text has a contrast of 4.5 to what is behind it
CONTRAST: Final = """() => {
  const lum = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const parse = s => (s.match(/[\\d.]+/g) || []).map(Number);
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const bad = [];
  const dialog = document.querySelector('dialog[open]');
  for (const e of (dialog || document.body).querySelectorAll('p, button, h1, h2, h3, li, td, th, a, pre, label, summary')) {
    if (!e.innerText?.trim() || !e.checkVisibility() || e.disabled) continue;
    const a = lum(parse(getComputedStyle(e).color).slice(0, 3)), b = lum(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(1)} ${e.outerHTML.slice(0, 80)}`);
  }
  return bad;
}"""


def test_a_click_shows_the_file_behind_with_its_content_and_manual(chromium: Any, reading: Page) -> None:
    with tab(chromium, reading) as opened:
        opened.get_by_role("article", name="k0").get_by_role("button", name=re.compile("^CPU 0 of k0: ")).click()
        dialog = opened.get_by_role("dialog", name="/k/k0/cpu/0/status")
        dialog.locator("#file-content pre").get_by_text(re.compile(r"\w")).wait_for()
        dialog.get_by_text("From `mk9p help cpu`.").wait_for()
        dialog.get_by_role("button", name="Close").click()
        opened.get_by_label("Path").fill("/k")
        opened.keyboard.press("Enter")
        opened.get_by_role("dialog").get_by_role("button", name="k1/").click()
        opened.get_by_role("dialog", name="/k/k1").get_by_role("button", name="cpu/").wait_for()


def test_all_can_be_done_by_keyboard(chromium: Any, reading: Page) -> None:
    with tab(chromium, reading) as opened:
        opened.keyboard.press("Tab")
        assert opened.evaluate("document.activeElement.innerText") == "To the kernels"
        opened.keyboard.press("Enter")
        for _ in range(40):
            opened.keyboard.press("Tab")
            if opened.evaluate("document.activeElement.dataset.path") == "/k/k0/cpu/status":
                break
        assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", (
            "it shows where it is"
        )
        # the page is drawn anew every few seconds, and the keyboard stays where it is
        drawn = opened.evaluate("document.querySelector('#kernel-list article').__old = 1")
        assert drawn == 1
        # not by wait_for_function, whose eval the page forbids
        until_true(lambda: opened.evaluate("document.querySelector('#kernel-list article').__old !== 1"))
        assert opened.evaluate("document.activeElement.dataset.path") == "/k/k0/cpu/status"
        opened.keyboard.press("Enter")
        opened.get_by_role("dialog", name="/k/k0/cpu/status").wait_for()
        opened.keyboard.press("Escape")
        opened.get_by_role("dialog").wait_for(state="hidden")


def test_what_happens_is_seen_as_it_comes(chromium: Any, tmp_path: Path) -> None:
    with page(tmp_path) as served, tab(chromium, served) as opened:
        with sync.connect(served.address) as ns:
            ns.write("ctl", "bind /k/k0/mem /n/memory")
        opened.get_by_role("log").get_by_text("bind /k/k0/mem /n/memory").wait_for()
        opened.get_by_role("region", name="Mounts and binds").locator("[data-path='/n/memory']").first.wait_for()
        with sync.connect(served.address) as ns, ns.open("lease/clone", "r+") as lease:
            ns.write("kernels/ctl", "create k9")
            opened.get_by_role("article", name="k9").get_by_text("empty").first.wait_for()
            ns.write("kernels/pool/ctl", "cpu add 4-5")
            opened.get_by_text("CPUs 4-5, memory 0 B").wait_for()
            lease.write(b"take /k/k0/mem for 600")
            row = opened.get_by_role("region", name="Leases").get_by_role("row", name="/k/k0/mem exclusive held")
            row.wait_for()
        with sync.connect(served.address) as ns, ns.open("lease/clone", "r+") as lease:
            lease.write(b"take /k/k0/cpu/0 for 600")
            opened.get_by_role("button", name=re.compile("^CPU 0 of k0: .*, leased to ")).wait_for()
            opened.get_by_role("article", name="k0").get_by_text("Leased: CPU 0 to").wait_for()
            lease.write(b"give")
        opened.get_by_text("Leased: CPU 0 to").wait_for(state="detached")
        served.k1.terminate()
        opened.get_by_role("article", name="k1").get_by_text("down").wait_for()
        assert opened.get_by_role("article", name="k0").get_by_text("up", exact=True).count() == 1
        shot(opened, "a-kernel-is-down")


def test_a_page_that_may_not_write_offers_nothing_to_write(chromium: Any, reading: Page) -> None:
    with tab(chromium, reading) as opened:
        opened.get_by_role("article", name="k0").get_by_role("button", name="ctl").first.click()
        dialog = opened.get_by_role("dialog", name="/k/k0/cpu/ctl")
        dialog.get_by_text("This page is read-only: start it with mk9p web --write").wait_for()
        assert dialog.get_by_role("button", name="Write").is_disabled()


def test_a_word_is_written_with_its_usage_beside(chromium: Any, writing: Page) -> None:
    with tab(chromium, writing) as opened:
        opened.get_by_label("Path").fill("/ctl")
        opened.get_by_role("button", name="Open").click()
        dialog = opened.get_by_role("dialog", name="/ctl")
        dialog.get_by_role("button", name="bind [-abcr] NEW OLD").click()
        assert dialog.get_by_label("Write a word").input_value() == "bind "
        dialog.get_by_label("Write a word").fill("bund /k/k0/mem /n/x")
        dialog.get_by_role("button", name="Write").click()
        dialog.get_by_text("usage: ").wait_for()
        shot(opened, "a-refused-word")
        dialog.get_by_label("Write a word").fill("bind /k/k0/mem /n/written")
        opened.keyboard.press("Enter")
        dialog.get_by_text("written: bind /k/k0/mem /n/written").wait_for()
        with sync.connect(writing.address) as ns:
            assert "bind /k/k0/mem /n/written\n" in ns.read("ns")


def test_names_are_only_ever_text(chromium: Any, writing: Page) -> None:
    name = "<img src=x onerror=alert(1)>"
    with sync.connect(writing.address) as ns:
        ns.write("ctl", f"bind /k/k0/mem '/n/{name}'")
    with tab(chromium, writing) as opened:
        opened.get_by_role("log").get_by_text(name).wait_for()
        opened.locator("#picture").get_by_text(name).wait_for()
        assert opened.locator("img").count() == 0
    with sync.connect(writing.address) as ns:
        ns.write("ctl", f"unmount '/n/{name}'")


EVIL: Final = b"""<!doctype html><title>evil</title><form method=post action="%s/say" enctype="text/plain"
 target=out><input name='{"path":"/ctl","words":"bind /k/k0/mem /n/evil","x":"' value='"}'></form><iframe name=out></iframe><p id=said></p><script>
document.forms[0].submit();
const tries = [
  fetch("%s/say", {method: "POST", mode: "no-cors", credentials: "include", body: '{"path":"/ctl","words":"bind /k/k0/mem /n/evil"}'}),
  fetch("%s/file?path=/ns", {credentials: "include"}).then(r => r.text()).then(t => { throw new Error("read: " + t) }),
];
Promise.allSettled(tries).then(all => { said.textContent = all.map(a => a.status + " " + (a.reason || "")).join(" | ") });
</script>"""


def test_another_page_of_the_same_browser_reads_and_changes_nothing(chromium: Any, writing: Page) -> None:
    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(EVIL.replace(b"%s", writing.base.encode()))

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with tab(chromium, writing) as opened:  # its cookie is in this browser now
                other = opened.context.new_page()
                other.goto(f"http://127.0.0.1:{server.server_port}/")
                other.wait_for_function("document.getElementById('said').textContent")
                said = other.inner_text("#said")
                assert "read: " not in said
                assert "rejected" in said, "the browser kept the answer from it"
        finally:
            server.shutdown()
            thread.join()
    with sync.connect(writing.address) as ns:
        assert "evil" not in ns.read("ns")


def test_a_tab_that_goes_away_is_noticed(chromium: Any, tmp_path: Path) -> None:
    with page(tmp_path) as served:
        with tab(chromium, served), sync.connect(served.address) as ns:
            assert _clients(ns) >= 2
        with sync.connect(served.address) as ns:
            until_true(lambda: _clients(ns) == 1)


def _clients(ns: sync.Client) -> int:
    return ns.read("stats/clients").count("\n")
