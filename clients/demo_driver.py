"""`mk9p demo driver`: a kernel that has only the devices panics, and who uses them goes on.

k3 has a USB stick and a network card, and nothing else of this machine. k2 has neither: it uses k3's files. A program in k2 writes to the stick, by
k2's own v9fs, and another one fetches a file through k3's network. k3 panics and starts again by itself. The first program sees a gap, and nothing
is lost. The second one's connection ends with an error that says so, and it fetches the rest through another one. The exit status says whether all
of it went as it should.
"""

import errno
import hashlib
import http.server
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

import mk9p
from mk9p.clients import lab as labs
from mk9p.clients.common import say
from mk9p.clients.demo_steps import Step, show
from mk9p.clients.demo_writer import LINE, line_of
from mk9p.clients.up import print_hints, up
from mk9p.errors import NineError
from mk9p.itself import itself
from mk9p.ktext import split_lines
from mk9p.servers.kernels import tools

STICK: Final = 32 << 20  # bytes of the stick
PIECE: Final = 256 << 10  # bytes that the web server sends at once
PIECES: Final = 64  # of the file that is fetched
PACE: Final = 0.25  # s between two pieces, so that the kernel panics in the middle on any machine
BEFORE: Final = 20  # lines that are on the stick, and
FETCHED: Final = 8 * PIECE  # bytes that have come, when the kernel panics
PATIENCE: Final = 150.0  # s for what must come: a kernel boots in ten, on a busy machine in forty
HOST: Final = "10.0.2.2"  # this machine, behind k3's card
FILE: Final = "/mnt/n/k/k3/fs/stick/notes"

LAB: Final = """\
[k2]                      # the user: no card, no stick
backend = "uml"
kernel = "uml"
memory = "256M"
serve = ["host", "cmd"]
grants = ["/k/k3/fs/stick rw", "/k/k3/net rw"]      # of the whole namespace: this, and its own k/k2

[k3]                      # the drivers: the stick and the card, and no right to anything of the namespace
backend = "qemu"
kernel = "6.1"
memory = "512M"
cmdline = "mk9p.net=10.0.2.15"
device = ["-device", "qemu-xhci", "-drive", "file={stick},if=none,id=stick,format=raw", "-device", "usb-storage,drive=stick",
          "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"]
modules = ["crc32c_generic", "ext4"]
boot = "sh /run/guest/load; until [ -e /dev/sda ]; do sleep 0.1; done; mkdir -p /mnt/stick; mount /dev/sda /mnt/stick"
serve = ["host", "fs:/mnt/stick", "net"]
restart = "on-failure"
watch = "10 restart"
wait = 60                 # who asks it for something while it is down, waits so long
"""

PANIC: Final = "(echo panic > k/k3/ctl) 2>/dev/null & sed -un '/ panicked/,/^$/{s/^[0-9]* [0-9]* //p; /^active/q}' kernels/k3/events"


@attrs.frozen
class Programs:
    """What the two programs in k2 have said."""

    said: list[str] = attrs.Factory(list)
    lock: threading.Condition = attrs.Factory(threading.Condition)

    def hear(self, who: str, process: subprocess.Popen[str]) -> None:
        """Take what a program says, until it ends."""
        assert process.stdout is not None
        for line in process.stdout:
            with self.lock:
                self.said.append(f"{who}: {line.rstrip()}")
                if not re.search(r" (lines|bytes)$", line):  # those come all the time
                    print(f"  {self.said[-1]}", flush=True)
                self.lock.notify_all()

    def last(self, pattern: str) -> re.Match[str] | None:
        """Return the last line that fits a pattern, None if there is none."""
        return next((found for line in reversed(self.said) if (found := re.fullmatch(pattern, line))), None)

    def number(self, pattern: str) -> int:
        """Return the number in the last such line, 0 if there is none."""
        found = self.last(pattern)
        return int(found[1]) if found else 0

    @property
    def lines(self) -> int:
        return self.number(r"writer: (\d+) lines")

    @property
    def fetched(self) -> int:
        return self.number(r"fetcher: (\d+) bytes")

    @property
    def whole(self) -> bool:
        return self.last(r"fetcher: whole .*") is not None

    def wait(self, what: str, lines: int, fetched: int, *, whole: bool = False) -> None:
        """Wait until so many lines and bytes are told. Raises ETIMEDOUT."""
        with self.lock:
            good = self.lock.wait_for(
                lambda: self.lines >= lines and self.fetched >= fetched and (self.whole or not whole), PATIENCE
            )
        if not good:
            raise NineError(errno.ETIMEDOUT, f"{what} did not come in {PATIENCE:.0f} s")


def main(*, keep: bool) -> int:
    """Run the demo."""
    begun = time.monotonic()
    lab = labs.Lab()
    print(
        "Starting two kernels: k2 by user-mode Linux; k3 by QEMU, with a USB stick and a network card. The lab file:\n"
    )
    good = run(lab, keep=keep)
    print(f"\nAll of it took {time.monotonic() - begun:.1f} seconds.")
    return 0 if good else 1


def run(lab: labs.Lab, *, keep: bool) -> bool:
    """Start the lab, let k3 panic, and tell whether everybody went on."""
    stick = lab.run.with_name("stick.img")
    text = LAB.format(stick=stick)
    print(text)
    format_stick(stick)
    try:
        up(lab, labs.kernels_of(text), mount=True, text=text)
        try:
            with web() as (port, digest):
                good = session(lab, port, digest)
        finally:
            if not keep:
                lab.end()
    finally:
        if not keep:
            stick.unlink()
            with suppress(OSError):  # a lab of this machine, beside which there is nothing else
                stick.parent.rmdir()
    if keep:
        print_hints(lab, ["k2", "k3"], mounted=True)
    return good


def format_stick(stick: Path) -> None:
    """Make a file with an ext4 on it, like a stick."""
    mkfs = tools.need("mke2fs")
    stick.parent.mkdir(parents=True, exist_ok=True)
    with stick.open("wb") as file:
        file.truncate(STICK)
    subprocess.run([mkfs, "-q", "-F", "-t", "ext4", str(stick)], check=True, capture_output=True)


@contextmanager
def web() -> Iterator[tuple[int, str]]:
    """Serve a file by HTTP to this machine, slowly; give the port, and the file's SHA-256."""
    data = random.Random(1).randbytes(PIECE * PIECES)

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = min(int(found[1]), len(data)) if found else 0
            self.send_response(206 if found else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            with suppress(OSError):  # who fetched it has gone
                for at in range(start, len(data), PIECE):
                    self.wfile.write(data[at : at + PIECE])
                    time.sleep(PACE)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.daemon_threads = True  # one may send into a connection whose other end has panicked
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, hashlib.sha256(data).hexdigest()
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def program(lab: labs.Lab, programs: Programs, who: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of ours in k2. It ends with the block."""
    home = Path(mk9p.__file__).parent.parent
    command = [*itself(), "-a", lab.address, "run", "-n", "-e", f"PYTHONPATH={home}", "k2", "--"]
    python = [sys.executable, "-u", "-m", f"mk9p.clients.demo_{who}", *words]
    process = subprocess.Popen(
        [*command, *python], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    hearing = threading.Thread(target=programs.hear, args=(who, process))
    hearing.start()
    try:
        yield process
    finally:
        process.terminate()  # `mk9p run` forwards it
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        hearing.join()
        assert process.stdout is not None
        process.stdout.close()


def session(lab: labs.Lab, port: int, digest: str) -> bool:
    """Show it all; False if something was not as it should be."""
    status = subprocess.run(
        [*itself(), "-a", lab.address, "cat", "kernels/k2/status"], capture_output=True, text=True, check=True
    )
    dial = dict(line.partition(" ")[::2] for line in split_lines(status.stdout))["guest_dial"]
    mount = f"mk9p run k2 -- sh -c 'mkdir -p /mnt/n && {' '.join(itself())} mount -w 60 {dial} /mnt/n && grep /mnt/n /proc/mounts'"
    before = (
        Step("k3 has the stick mounted, and serves it with its network:", "ls k/k3/fs k/k3/net", "stick"),
        Step("k2 mounts the namespace with its own v9fs. It sees what it was granted:", mount, " 9p "),
        Step("", "mk9p run k2 -- ls /mnt/n/k /mnt/n/k/k3", "fs\nnet"),
        Step("", "mk9p run k2 -- cat /mnt/n/k/k3/ctl", "No such file"),
        Step("k3 itself may use nothing of the namespace:", "grep -E '^(grants|wait)' kernels/k3/status", "grants"),
    )
    good = [show(lab, step) for step in before]
    boots = [boot_id(lab, name) for name in ("k2", "k3")]
    print(
        "\n# Two programs in k2: one writes to the stick, the other fetches a file of this machine through k3's card:"
    )
    programs = Programs()
    with (
        program(lab, programs, "writer", FILE) as writer,
        program(lab, programs, "fetcher", dial, "k/k3/net", f"{HOST}!{port}", str(PIECE * PIECES)) as fetcher,
    ):
        programs.wait("what the programs do", BEFORE, FETCHED)
        good.append(show(lab, Step("k3 panics:", PANIC, "active"), seconds=PATIENCE))
        programs.wait("the rest of the file", programs.lines + BEFORE, 0, whole=True)
        good.append(fetcher.wait(PATIENCE) == 0 and writer.poll() is None)
    lines = programs.lines
    good.append(show(lab, Step("k3 was away, k2 was not:", "grep -H ^ends kernels/k[23]/status", "k3/status:ends 1")))
    now = [boot_id(lab, name) for name in ("k2", "k3")]
    checks = {
        "k2 is the same life of the same kernel": boots[0] == now[0],
        "k3 is a new life": boots[1] != now[1],
        "the connection ended with words that say so": programs.last(r"fetcher: .* conversation ended with k3\b.*")
        is not None,
        "the whole file came, and it is right": programs.last(rf"fetcher: whole {digest}") is not None,
        f"all {lines} lines that were written are on the stick": on_stick(lab, lines),
    }
    print()
    for what, right in checks.items():
        print(f"  {'yes' if right else 'NO '}  {what}")
        if not right:
            say(f"expected that {what}")
    return all(good) and all(checks.values())


def boot_id(lab: labs.Lab, name: str) -> str:
    """Return what is another one in each life of a kernel."""
    words = [*itself(), "-a", lab.address, "cat", f"k/{name}/status"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return dict(line.partition(" ")[::2] for line in split_lines(said))["boot"]


def on_stick(lab: labs.Lab, lines: int) -> bool:
    """Say whether the stick has so many lines, each as it was written."""
    words = [*itself(), "-a", lab.address, "cat", "k/k3/fs/stick/notes"]
    said = subprocess.run(words, capture_output=True, check=True).stdout
    return said[: lines * LINE] == b"".join(map(line_of, range(lines)))
