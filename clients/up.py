"""`mk9p up [FILE]` and `mk9p down`: start kernels and their namespace, and end them without a trace."""

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import trio

from mk9p.client import Client, connect
from mk9p.clients import lab as labs
from mk9p.clients.apply import read, settle
from mk9p.clients.common import SILENCE, say
from mk9p.itself import itself, typed
from mk9p.serving import one_error
from mk9p.usage import parsed

_WAITED: Final = {"progress": "is being fetched", "loaded": "is loaded", "started": "is booting", "active": ""}
_SHOWN: Final = {"progress", "started", "active", "panicked", "ended", "failed", "dead", "silent"}


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p up` or `mk9p down`."""
    chosen = parsed(arguments)
    if arguments[0] == "down":
        lab = labs.Lab()
        if not lab.end():
            say("no lab is up")
            return 1
        print("mk9p: down; nothing is left")
        return 0
    if chosen.print:
        print(labs.DEFAULT, end="")
        return 0
    lab = labs.Lab()
    text, kernels = labs.read_lab(chosen.file)
    running = up(lab, kernels, mount=not chosen.no_mount, text=text)
    try:
        print_hints(lab, running, mounted=not chosen.no_mount)
        while chosen.foreground and lab.run.exists():
            time.sleep(0.2)
    except KeyboardInterrupt:
        if not chosen.foreground:
            raise
        lab.end()
        return 130
    return 0


class Telling:
    """Lines that say when something happened; `hold` keeps them back while somebody else prints."""

    def __init__(self) -> None:
        self.begun = self.told = time.monotonic()
        self._held: list[str] | None = None

    def say(self, words: str) -> None:
        """Print a line with the seconds since the beginning."""
        self.told = time.monotonic()
        line = f"{self.told - self.begun:6.1f} s  {words}"
        if self._held is None:
            print(line, flush=True)
        else:
            self._held.append(line)

    @property
    def silent(self) -> bool:
        """Tell whether nothing was said for so long that somebody wonders."""
        return self._held is None and time.monotonic() >= self.told + SILENCE

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep lines until the block ends, and print them then."""
        self._held = []
        try:
            yield
        finally:
            held, self._held, self.told = self._held, None, time.monotonic()
            print("".join(f"{line}\n" for line in held), end="", flush=True)


def up(
    lab: labs.Lab,
    kernels: Mapping[str, Mapping[str, Any]],
    *,
    mount: bool,
    text: str = "",
    meanwhile: Callable[[], None] | None = None,
) -> list[str]:
    """Start a lab and return the kernels that run, when they serve; whatever goes wrong, and Ctrl-C, ends it again.

    `text` is its file, for what is beside the kernels. A thread runs `meanwhile` when the first kernel serves and the namespace is mounted, and
    others still boot.
    """
    wanted = read(text)
    process = lab.start(wanted.rules)
    telling = Telling()
    running = [name for name in kernels if wanted.kernels[name].runs] if text else list(kernels)
    waited = dict.fromkeys(running, "is not started yet")
    first = trio.Event()

    def tell(kernel: str, what: str, args: list[str]) -> None:
        if what in _SHOWN:
            telling.say(f"{kernel}: {' '.join(args) if what == 'progress' else ' '.join([what, *args])}")
        waited[kernel] = _WAITED.get(what, waited.get(kernel, ""))
        if what == "active":
            first.set()

    async def pass_the_time() -> None:
        """Say what is waited for, where nothing else was said for a while."""
        while True:
            await trio.sleep(max(telling.told + SILENCE - time.monotonic(), 0.1))
            if telling.silent:
                telling.say("; ".join(f"{name} {what}" for name, what in waited.items() if what) or "the kernels serve")

    async def beside() -> None:
        """Mount the namespace while the kernels boot, and do what can be done before all of them serve."""
        if mount:
            await _mount(lab)
        if meanwhile is not None:
            await first.wait()
            with telling.hold():
                await trio.to_thread.run_sync(meanwhile)

    async def run() -> None:
        async with trio.open_nursery() as clock:
            clock.start_soon(pass_the_time)
            await labs.composer(lab, process)
            async with trio.open_nursery() as both, connect(lab.address) as ns:
                both.start_soon(beside)
                async with trio.open_nursery() as nursery:
                    for name in running:
                        nursery.start_soon(labs.start_kernel, ns, name, kernels[name])
                    await labs.serving(ns, running, tell)
                    await all_answer(ns, ["k0", *running])
                    await settle(ns, wanted)
            clock.cancel_scope.cancel()

    try:
        one_error(run)
    except BaseException:
        lab.end()
        raise
    telling.say(
        f"the namespace is {lab.address}"
        + (f", mounted on {lab.mount}" if mount else "")
        + (f"; unix!{lab.usual} is another" if lab.socket != lab.usual else "")
    )
    return running


async def _mount(lab: labs.Lab) -> None:
    """Mount a lab's namespace in its place. Raises OSError; the command itself has said why."""
    lab.mount.mkdir()
    lab.remember_mount(lab.mount)
    done = await trio.run_process([*itself(), "mount", lab.address, str(lab.mount)], check=False)
    if done.returncode != 0:
        raise OSError(None, "the namespace could not be mounted")


async def all_answer(ns: Client, names: Sequence[str]) -> None:
    """Wait until each kernel's branch of the namespace answers."""
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(_answers, ns, name)


async def _answers(ns: Client, name: str) -> None:
    with trio.fail_after(labs.PATIENCE):
        while True:
            try:
                await ns.listdir(f"k/{name}")
                return
            except OSError:
                await trio.sleep(0.1)


def print_hints(lab: labs.Lab, names: Sequence[str], *, mounted: bool) -> None:
    """Print one-line commands to go on by hand, with the names of kernels of this lab. `typed` is how this very program is started."""
    # who says no address asks at the usual place
    address = [] if lab.socket == lab.usual else ["-a", f"unix:{lab.socket}"]
    mk9p = shlex.join([*typed(), *address])
    one = next(iter(names), "k0")
    print("\nGo on by hand:")
    if mounted:
        print(f"  ls {lab.mount}/k/{one}; cat {lab.mount}/k/{one}/cpu/status; cat {lab.mount}/ns")
    for words in (f"ls k/{one}", "ps", f"run {one} -- uname -a", *([f"console {one}"] if names else []), "events -f"):
        print(f"  {mk9p} {words}")
    print(f"  {shlex.join(typed())} down        ends it and leaves nothing behind", flush=True)  # with -f it stays
