"""`mk9p up [FILE]` and `mk9p down`: start kernels and their namespace, and end them without a trace."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from mk9p.client import Client, connect
from mk9p.clients import lab as labs
from mk9p.clients.common import say
from mk9p.serving import one_error
from mk9p.usage import parsed

_SHOWN = {"progress", "started", "active", "panicked", "ended", "failed", "dead", "silent"}


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
    up(lab, labs.read_lab(chosen.file), mount=not chosen.no_mount)
    print_hints(lab, mounted=not chosen.no_mount)
    if chosen.foreground:
        try:
            while lab.run.exists():
                time.sleep(0.2)
        except KeyboardInterrupt:
            lab.end()
            return 130
    return 0


def up(lab: labs.Lab, kernels: Mapping[str, Mapping[str, Any]], *, mount: bool) -> None:
    """Start a lab and return when it serves; whatever goes wrong, and Ctrl-C, ends it again."""
    process = lab.start()
    begun = time.monotonic()

    def tell(kernel: str, what: str, args: list[str]) -> None:
        if what in _SHOWN:
            print(
                f"{time.monotonic() - begun:6.1f} s  {kernel}: {' '.join(args) if what == 'progress' else ' '.join([what, *args])}",
                flush=True,
            )

    async def run() -> None:
        await labs.composer(lab, process)
        async with connect(lab.address) as ns, trio.open_nursery() as nursery:
            for name, words in kernels.items():
                nursery.start_soon(labs.start_kernel, ns, name, words)
            await labs.serving(ns, list(kernels), tell)
            await all_answer(ns, ["k0", *kernels])

    try:
        one_error(run)
        if mount:
            lab.mount.mkdir()
            lab.remember_mount(lab.mount)
            subprocess.run([sys.executable, "-m", "mk9p", "mount", lab.address, str(lab.mount)], check=True)
    except BaseException as error:
        lab.end()
        if isinstance(error, subprocess.CalledProcessError):
            raise OSError(None, "the namespace could not be mounted") from None
        raise
    print(
        f"{time.monotonic() - begun:6.1f} s  the namespace is {lab.address}"
        + (f", mounted on {lab.mount}" if mount else ""),
        flush=True,
    )


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


def print_hints(lab: labs.Lab, *, mounted: bool) -> None:
    """Print the one-line commands to go on by hand."""
    print("\nGo on by hand:")
    if mounted:
        print(f"  ls {lab.mount}/k/k1; cat {lab.mount}/k/k1/cpu/status; echo offline 1 > {lab.mount}/k/k1/cpu/ctl")
    print("  mk9p ls k/k1 · mk9p ps · mk9p run k1 -- uname -a · mk9p console k1 · mk9p tail kernels/events")
    print("  mk9p down        ends it and leaves nothing behind", flush=True)  # with -f it stays
