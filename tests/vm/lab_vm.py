"""What the tests on real kernels share: a lab, commands in its kernels, and a served tree that the guests mount with v9fs.

A test says what it wants by `mk9p`'s own commands and files, and looks for the effect in the kernel itself: what /proc and /sys of the guest say,
what arrived in the served tree's state.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import trio

from mk9p.auth import Policy, Principal, Told
from mk9p.client import Client, connect
from mk9p.clients.lab import Lab
from mk9p.dial import TRANSPORTS, Peer
from mk9p.servers.kernels import images
from mk9p.testing import in_thread, serving_at
from mk9p.tree import Ctl, Dir, Log
from tests.interop.tree_interop import Everything

T = TypeVar("T")
PATIENCE = 90  # s for whatever must come: an emulated kernel on a busy machine takes seconds for what takes others milliseconds
OPTIONS = "cache=none,uname=root,access=any"
SHELLS = ("bash", "busybox")
READERS = ("cat", "head", "while", "pipe", "python")
ALL = {"grants": ["/ rw"]}  # for a guest that mounts the whole namespace: whoever is root in it is root of this machine
EMULATED = pytest.param("k1", marks=pytest.mark.minutes)  # where each command takes a second, if k2 is asked the same
TREES = ("/dev/hvc0", "/dev/hvc1")  # where a guest finds the served tree


def until(check: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Return the first true value of `check`; fail after a while, saying what did not come."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s"
        time.sleep(0.05)
    return found


@attrs.frozen
class Vm:
    """A lab that is up."""

    lab: Lab

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "mk9p", "-a", self.lab.address, *words]

    def mk9p(self, *words: str, stdin: bytes = b"", seconds: float = PATIENCE) -> subprocess.CompletedProcess[bytes]:
        """Run an mk9p command to its end, whatever that is."""
        return subprocess.run(self.words(*words), input=stdin, capture_output=True, timeout=seconds, check=False)

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start an mk9p command with pipes for all three of its streams; it is gone after the block."""
        process = subprocess.Popen(
            self.words(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # which `mk9p run` forwards, so that nothing goes on in the guest
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.communicate()

    def sh(self, kernel: str, script: str) -> str:
        """Run a script in a kernel and return what it printed; it must succeed."""
        done = self.mk9p("run", kernel, "--", "sh", "-c", script)
        assert done.returncode == 0, f"{script}: {done.returncode}: {(done.stdout + done.stderr).decode()}"
        return done.stdout.decode()

    def cat(self, path: str) -> str:
        done = self.mk9p("cat", path)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def write(self, path: str, text: str) -> None:
        done = self.mk9p("write", path, text)
        assert done.returncode == 0, done.stderr.decode()

    def field(self, path: str, key: str) -> str:
        """Return a value of a file of `key value` lines."""
        return dict(line.partition(" ")[::2] for line in self.cat(path).splitlines())[key]

    def client(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Run a task with a client of the namespace."""

        async def run() -> T:
            with trio.fail_after(PATIENCE):
                async with connect(self.lab.address) as ns:
                    return await work(ns)

        return trio.run(run)

    def pids(self, kernel: str, command: str) -> list[str]:
        """Return the processes of a kernel with these words in their command line, as its own /proc has them."""
        pattern = f"[{command[0]}]{command[1:]}".replace(" ", ".")  # which does not find the grep itself
        found = self.sh(kernel, f"grep -las '{pattern}' /proc/[0-9]*/cmdline; :")
        return [path.split("/")[2] for path in found.split()]

    def mount(
        self, kernel: str, where: str, *, line: str = "", version: str = "9p2000.L", attributes: bool = False
    ) -> None:
        """Mount with v9fs in a kernel what is behind a line of its: the namespace, or a tty; `attributes`: extended ones are asked for."""
        kind, *rest = (line or self.field(f"kernels/{kernel}/status", "guest_dial")).split("!")
        options = f"version={version},{OPTIONS}" + ("" if attributes else ",noxattr")
        if kind == "tcp":
            script = f"mount -t 9p -o trans=tcp,port={rest[1]},privport,msize=1048576,{options} {rest[0]} {where}"
        elif "vport" in rest[-1]:  # which is not for v9fs itself: a relay is needed
            words = ["--v9fs", "--user", "root", *(["--xattr"] if attributes else []), f"'char!{rest[-1]}'", where]
            script = f"{sys.executable} -m mk9p mount {' '.join(words)}"
        else:
            # A console (hvc): QEMU drops what the socket behind it does not take at once, so a message and what goes before it must fit in there.
            options += ",msize=16384"
            # in a subshell: a session's leader would get the tty as its controlling one, and the mount would be hung up with its end
            script = (
                f"(exec 3<>{rest[-1]}; stty raw -echo <&3; mount -t 9p -o trans=fd,rfdno=3,wfdno=3,{options} none {where})"
                " || exit 1"
            )
        self.sh(kernel, f"mkdir -p {where}; {script}")


class Pipe:
    """What a process prints, as it comes."""

    def __init__(self, file: Any) -> None:
        self.file, self.said = file, b""

    def expect(self, words: bytes) -> bytes:
        """Read until these words have come, and return what came before them; fails if the output ends, or nothing more comes."""
        import select

        while words not in self.said:
            ready, _, _ = select.select([self.file], [], [], PATIENCE)
            assert ready, f"{words!r} does not come after {self.said[-500:]!r}"
            data = os.read(self.file.fileno() if hasattr(self.file, "fileno") else self.file, 1 << 16)
            assert data, f"it ended before {words!r}: {self.said[-500:]!r}"
            self.said += data
        before, _, self.said = self.said.partition(words)
        return before


@attrs.define(eq=False)
class Shown:
    """The tree that guests mount: each kind of file, logs for each reader to be tried, and a ctl that answers."""

    everything: Everything = attrs.field(factory=Everything)
    logs: dict[str, Log] = attrs.field(factory=dict)
    call: Callable[..., Any] = lambda *_: None  # in the server's thread

    def tree(self) -> Dir:
        names = [f"{shell}-{reader}" for shell in SHELLS for reader in READERS]
        self.logs = {name: Log() for name in names}
        more = {"ask": Ctl({"double": self.double}), "logs": Dir(dict(self.logs))}
        return Dir(*self.everything.tree().children, more)

    def double(self, n: int) -> str:
        return f"{2 * n}\n"

    def emit(self, log: str, what: str) -> None:
        self.call(self.logs[log].emit, what)


def insmod(kernel: str, names: tuple[str, ...]) -> str:
    """Return the script that loads modules of a kernel; they are read where the host has them, for a guest's / is the host's."""
    image: Any = trio.run(images.get, kernel)
    paths = [str(image.modules[name]) for name in image.closure(names)]
    return "; ".join(f"/run/guest/busybox insmod {path} 2>/dev/null" for path in paths) + "; :"


UP = """
import functools, sys
from pathlib import Path
from mk9p.clients import lab
from mk9p.__main__ import main

lab.Lab = functools.partial(lab.Lab, Path(sys.argv[1]))  # a lab of its own, not the machine's
sys.exit(main(sys.argv[2:]))
"""


def up_or_down(lab: Lab, *words: str) -> list[str]:
    """Return the command for `mk9p up` and `mk9p down` of a lab in a place of its own."""
    return [sys.executable, "-c", UP, str(lab.run), *words]


def in_time(kernels: dict[str, dict[str, Any]], long: bool) -> dict[str, dict[str, Any]]:
    """Return the kernels of a lab for whose tests there is time: EMULATED is left out of the short run."""
    return {name: words for name, words in kernels.items() if long or words["backend"] != "qemu"}


def lab_file(path: Path, kernels: dict[str, dict[str, Any]]) -> Path:
    """Write a lab file."""
    lines = []
    for name, words in kernels.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in words.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def short_folder() -> Iterator[Path]:
    """Give a folder with a short name, since it holds sockets."""
    path = Path(tempfile.mkdtemp(prefix="mk9p-", dir="/run"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def lab_up(home: Path, kernels: dict[str, dict[str, Any]]) -> Iterator[Vm]:
    """Have a lab of these kernels up in a folder, whose name is short since it holds sockets."""
    with lab_of(home, lab_file(home / "lab.toml", kernels)) as vm:
        yield vm


@contextmanager
def lab_of(home: Path, file: Path) -> Iterator[Vm]:
    """Have the lab of a file up."""
    lab = Lab(home / "lab")
    try:
        words = up_or_down(lab, "up", "--no-mount", str(file))
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Vm(lab)
    finally:
        lab.end()  # also of one that was not up yet when somebody pressed Ctrl-C


@attrs.frozen
class Believed(Policy):
    """Believes the names that come by a guest's line: its socket's peer is the emulator, a user of its own, before the guest's users.

    The line is there long before somebody in the guest uses it, so `trust`: it may be silent. If v9fs asks while the emulator dials again, it never
    gets an answer.
    """

    trust: bool = True

    def attach(self, uname: str, n_uname: int, peer: Told) -> Principal:
        return super().attach(uname, n_uname, Peer(TRANSPORTS["fd"], ""))


@contextmanager
def served(home: Path, guests: Sequence[str]) -> Iterator[dict[str, Shown]]:
    """Serve a tree to each guest, on sockets that its QEMU dials (`devices`); the server runs in a thread."""
    shown = {guest: Shown() for guest in guests}

    @asynccontextmanager
    async def serve() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for guest, tree in shown.items():
                root = tree.tree()
                for tty in range(len(TREES)):
                    address = f"unix!{socket(home, guest, tty)}"
                    await stack.enter_async_context(serving_at(address, root, Believed()))
            yield

    with in_thread(serve()) as (_, call):
        for tree in shown.values():
            tree.call = call
        yield shown


def socket(home: Path, guest: str, tty: int) -> Path:
    return home / f"{guest}-{tty}"


def devices(home: Path, guest: str) -> list[str]:
    """Return the words that give a QEMU guest the lines of the served tree."""
    words: list[str] = []
    for tty in range(len(TREES)):
        words += ["-chardev", f"socket,id=tree{tty},path={socket(home, guest, tty)},reconnect=1"]
        words += ["-device", f"virtconsole,chardev=tree{tty}"]
    return words
