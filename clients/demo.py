"""`mk9p demo`: two real kernels beside the host's own, one namespace over all three, and a short session with it at a shell.

`bash` runs every command as it is printed, in the mounted namespace, so the demo shows what a person would see. The exit status says whether all
of it went as it should.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from mk9p.clients import lab as labs
from mk9p.clients.common import say
from mk9p.clients.up import print_hints, up
from mk9p.usage import parsed

SECONDS: Final = 60  # for one command: an emulated kernel on a busy machine takes one or two


@attrs.frozen
class Step:
    """One command, what to print before it, and what its output must contain."""

    about: str
    command: str
    holds: str


STEPS: Final = (
    Step("Three kernels, one tree:", "ls k", "k0\nk1\nk2"),
    Step("They are different kernels:", "grep -E '^(name|release|arch)' k/*/status", "k1/status:name k1"),
    Step("k1's processors:", "cat k/k1/cpu/status", "1 online"),
    Step("Take one away, from here:", "echo offline 1 > k/k1/cpu/ctl; cat k/k1/cpu/status", "1 offline"),
    Step("k1 itself says so:", "mk9p run k1 -- grep -c ^processor /proc/cpuinfo", "1"),
    Step("A mistake is told in words:", "echo offline 9 > k/k1/cpu/ctl; cat k/k1/cpu/error", "9"),
    Step("And back:", "echo online 1 > k/k1/cpu/ctl; cat k/k1/cpu/status", "1 online"),
    Step("A pipe between kernels:", "mk9p run k1 -- cat /proc/version | mk9p run k2 -- tr a-z A-Z", "LINUX VERSION"),
    Step(
        "A process in k2, seen and ended from here:",
        "mk9p run k2 -- sleep 1000 >/dev/null 2>&1 & sleep 1; mk9p ps k2 | grep sleep",
        "sleep",
    ),
    Step(
        "",
        "for p in k/k2/proc/[0-9]*; do if grep -q ^sleep $p/status; then echo kill > $p/ctl; fi; done; sleep 0.5; mk9p ps k2 | grep -c sleep",
        "0",
    ),
    Step(
        "What k1's kernel logs, as it happens:",
        "mk9p run k1 -- sh -c 'echo hello from k1 > /dev/kmsg' & grep -m1 hello k/k1/dev/kmsg",
        "hello from k1",
    ),
    Step("All kernels' processors in one directory:", "ls all/cpu", "k1.1"),
    Step("What is mounted, as a script that makes it again:", "cat ns", "/k/k1"),
)


def main(arguments: Sequence[str]) -> int:
    """Run the demo; `--keep` leaves the lab up."""
    chosen = parsed(arguments)
    lab = labs.Lab()
    begun = time.monotonic()
    print("Starting two kernels: k1 by QEMU (Debian's 6.1, two processors), k2 by user-mode Linux; k0 is this one.")
    up(lab, labs.read_lab(None), mount=True)
    try:
        seen = [show(lab, step) for step in STEPS]
        print(f"\nAll of it took {time.monotonic() - begun:.1f} seconds.")
    finally:
        if not chosen.keep:
            lab.end()
    if chosen.keep:
        print_hints(lab, mounted=True)
    else:
        print("The lab is down again and has left nothing behind. To have it up and go on by hand:\n")
        here = Path(sys.argv[0])
        hints = {
            f"{here} up": "start it again",
            f"cd {lab.mount}": f"and use ls, cat, echo; or {here.resolve()} ls, cat, write, run, ps, console, tail",
            f"{here} down": "end it and leave nothing behind",
        }
        for command, what in hints.items():
            print(f"  {command:<{max(map(len, hints))}}  {what}")
    return 0 if all(seen) else 1


def show(lab: labs.Lab, step: Step) -> bool:
    """Print a command, run it, print its output, and tell whether that is as it should be."""
    if step.about:
        print(f"\n# {step.about}")
    print(f"$ {step.command}", flush=True)
    environment = {
        **os.environ,
        "MK9P": lab.address,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    try:
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=lab.mount,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        say(f"no answer in {SECONDS} seconds")
        return False
    print(done.stdout.rstrip(), flush=True)
    if step.holds in done.stdout:
        return True
    say(f"expected to see {step.holds!r}")
    return False
