"""picture.py FILE.svg: draw the live page, as `mk9p web` serves it and Chromium shows it, into an SVG: README's picture.

The kernels in it are made up, so that the same page gives the same picture; everything else is the page itself. picture.js turns what Chromium shows
into shapes. Each has its colours of the light and of the dark scheme, and whoever looks sees their own.
"""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from playwright.sync_api import sync_playwright

from mk9p.testing import child, hear, in_thread, serving_at, until_true
from mk9p.tree import Ctl, Dir, Log, Node, Text

WIDTH: Final = 1180
SCHEMES: Final = ("light", "dark")
TITLE: Final = "The live page of mk9p web"
ABOUT: Final = "Four kernels with their processors, memory and devices, and what is mounted where. One kernel is down, with the reason."
MOUNTS: Final = """\
mount unix!/run/mk9p/serve /k/k0
mount vsock!3!564 /k/k1
mount 'exec!ssh box mk9p serve -l fd!0!1' /k/box
mount char!/dev/ttyS1 /k/usb
bind /k/usb/dev/usb /k/k0/dev/usb
"""


def cpus(words: str) -> str:
    """Return a cpu/status of words like `online:12`: a state and a load each."""
    pairs = (word.partition(":")[::2] for word in words.split())
    return "".join(f"{n} {state} 0 {n} {n} 2600 {load or '-'}\n" for n, (state, load) in enumerate(pairs))


def kernel(name: str, release: str, up: int, loads: str, memory: tuple[float, float], **devices: str) -> Node:
    """Return the tree of a made-up kernel: up for some hours, with GiB of memory, in use and in all."""
    used, total = (round(gib * (1 << 30)) for gib in memory)
    status = f"name {name}\nrelease {release}\narch x86_64\nuptime {up * 3600 * 10**9}\nload 0.42 0.30 0.20\n"
    return Dir(
        {
            "status": Text(status),
            "cpu": Dir({"status": Text(cpus(loads)), "ctl": Ctl({})}),
            "mem": Dir({"status": Text(f"MemTotal {total}\nMemAvailable {total - used}\n")}),
            "dev": Dir({bus: Dir({each: Dir({}) for each in names.split()}) for bus, names in devices.items()}),
        }
    )


def tree() -> Dir:
    """Return the namespace of the picture."""
    events = Log()
    events.emit("down", "usb", "no answer for 10 s")
    k0 = kernel(
        "k0", "6.12.30", 205, "online:31 online:12 isolated:100 isolated:97", (6.1, 15.6), block="nvme0n1", pci=""
    )
    return Dir(
        {
            "k": Dir(
                {
                    "k0": k0,
                    "k1": kernel(
                        "k1", "6.1.0-50-amd64", 5, "online:3 online:64 offline offline", (0.4, 0.7), block="vda"
                    ),
                    "box": kernel("box", "6.12.30", 1003, "online:8 " * 8, (11.8, 31.2), block="sda sdb"),
                    "usb": Text(
                        ""
                    ),  # it cannot be listed: the page shows it as down, with the reason that the events have
                }
            ),
            "ns": Text(MOUNTS),
            "events": events,
        }
    )


def shapes(chromium: Any, url: str, folder: str, scheme: str) -> Any:
    """Return what picture.js says of the page in a colour scheme, when all of it is there and nothing changes any more."""
    context = chromium.new_context(viewport={"width": WIDTH, "height": 1200}, color_scheme=scheme, timezone_id="UTC")
    page = context.new_page()
    page.goto(url)
    until_true(lambda: page.locator("article .cpus").count() == 3 and page.locator("#picture path").count() == 5)
    page.evaluate("stream.close()")
    page.evaluate(
        "folder => { const at = document.getElementById('server'); at.textContent = at.textContent.replace(folder, '/run/mk9p'); }",
        folder,
    )
    told = page.evaluate(Path(__file__).with_suffix(".js").read_text())
    context.close()
    return told


def drawn(light: Any, dark: Any) -> str:
    """Return the SVG of the shapes in both schemes."""
    classes: dict[tuple[str, str, str], str] = {}
    lines = []

    def named(what: str, one: str, other: str) -> str:
        return classes.setdefault((what, one, other), f"c{len(classes)}")

    for (kind, values, colours, text), (kind_too, _, others, text_too) in zip(
        light["shapes"], dark["shapes"], strict=True
    ):
        assert (kind, text) == (kind_too, text_too), "the schemes differ in more than their colours"
        if values.get("y", 0) > light["height"]:
            continue
        used = " ".join(named(what, colour, others[what]) for what, colour in colours.items())
        rest = "".join(f" {name}={quoteattr(str(value))}" for name, value in values.items())
        body = f">{escape(text)}</{kind}>" if text else "/>"
        lines.append(f'<{kind} class="{used}"{rest}{body}')
    ground = named("fill", light["ground"], dark["ground"])

    def rules(at: int) -> str:
        return " ".join(f".{name} {{ {key[0]}: {key[at]} }}" for key, name in classes.items())

    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {light["height"]}" role="img" aria-labelledby="title about"'
            ' font-family="system-ui, sans-serif">',
            f'<title id="title">{TITLE}</title>',
            f'<desc id="about">{ABOUT}</desc>',
            f"<style>rect, path {{ fill: none }} {rules(1)}",
            f"@media (prefers-color-scheme: dark) {{ {rules(2)} }}</style>",
            f'<rect class="{ground}" width="{WIDTH}" height="{light["height"]}"/>',
            *lines,
            "</svg>\n",
        ]
    )


def main(target: Path) -> None:
    """Draw the picture."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        host, _ = stack.enter_context(in_thread(serving_at(f"unix!{folder}/ns", tree())))
        words = [sys.executable, "-um", "mk9p", "-a", host.address, "web", "-l", "127.0.0.1:0"]
        url = hear(stack.enter_context(child(words, stdout=-1)), "http://").strip()
        started = stack.enter_context(sync_playwright())
        chromium = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        text = drawn(*(shapes(chromium, url, folder, scheme) for scheme in SCHEMES))
        target.write_text(text)
        chromium.close()
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
