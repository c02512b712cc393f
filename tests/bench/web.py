"""What the live page costs: `python -m tests.bench.web [KERNELS...]`, with 10 and 1,000 kernels, in a real Chromium.

The kernels are made-up trees of one server, so what is measured is `mk9p web` and the browser: the time until the first kernels are painted, and
until all are there; then, over some seconds, the processor time of `mk9p web`.
"""

import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any, Final

from playwright.sync_api import sync_playwright

from mk9p.testing import child, hear, in_thread, serving_at, until_true
from mk9p.tree import Dir, Text
from tests.bench.figures import note

WATCHED: Final = 20.0  # seconds
CPUS: Final = 4


def tree(kernels: int) -> Dir:
    """Return a namespace of kernels whose loads change with the clock."""

    def cpus() -> str:
        load = int(time.time() * 10) % 100
        return "".join(f"{n} online 0 {n} {n} 2600 {load}\n" for n in range(CPUS))

    def one(name: str) -> Dir:
        return Dir(
            {
                "status": Text(f"name {name}\nrelease 6.1.0\narch x86_64\nuptime 100000000000\nload 0.10 0.20 0.30\n"),
                "cpu": Dir({"status": Text(cpus)}),
                "mem": Dir({"status": Text("MemTotal 1073741824\nMemAvailable 536870912\n")}),
                "stats": Dir(
                    {"status": Text(lambda: f"since 1\nops {int(time.time())}\nerrors 0\nin_bytes 1\nout_bytes 1\n")}
                ),
            }
        )

    return Dir({"k": Dir({f"k{n}": one(f"k{n}") for n in range(kernels)})})


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(") ")[2].split(" ")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(chromium: Any, kernels: int) -> None:
    """Measure one number of kernels and print a line."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        host, _ = stack.enter_context(in_thread(serving_at(f"unix!{folder}/s", tree(kernels))))
        words = [sys.executable, "-um", "mk9p", "-a", host.address, "web", "-l", "127.0.0.1:0"]
        process = stack.enter_context(child(words, stdout=-1))
        url = hear(process, "http://").strip()
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        begun = time.perf_counter()
        page.goto(url)
        page.locator("article .cpu").first.wait_for(timeout=120_000)
        first = time.perf_counter() - begun
        until_true(lambda: page.locator("article .cpus").count() == kernels, seconds=120)
        everything = time.perf_counter() - begun
        # the page has long been painted by now: who asks before that hears of none
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        before, started = cpu_seconds(process.pid), time.perf_counter()
        page.wait_for_timeout(WATCHED * 1000)
        share = (cpu_seconds(process.pid) - before) / (time.perf_counter() - started)
        with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
            rss = next(int(line.split(":")[1].strip().split(" ")[0]) for line in file if line.startswith("VmRSS"))
        page.close()
    note(f"web: {kernels} kernels, processor", share * 100, "%", lower=True)
    print(
        f"{kernels:5} kernels: first paint {paint:.0f} ms, first kernel {first:.2f} s, all {everything:.2f} s;"
        f" mk9p web {share * 100:.1f} % of a processor, {rss / 1024:.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Measure the numbers of the command line, or 10 and 1,000."""
    with sync_playwright() as started:
        path = shutil.which("chromium")
        chromium = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for kernels in [int(word) for word in sys.argv[1:]] or [10, 1000]:
            measure(chromium, kernels)
        chromium.close()


if __name__ == "__main__":
    main()
