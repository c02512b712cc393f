"""`mk9p demo`: two real kernels beside the host's own, one namespace over all three, and a short session with it at a shell.

`bash` runs every command as it is printed, in the mounted namespace, so the demo shows what a person would see. The exit status says whether all
of it went as it should.
"""

import shlex
import time
from collections.abc import Sequence
from typing import Final

import trio

from mk9p.clients import demo_driver
from mk9p.clients import lab as labs
from mk9p.clients.demo_steps import Step, show
from mk9p.clients.up import print_hints, up
from mk9p.itself import typed
from mk9p.usage import parsed

# what k2 shows while k1 is still booting: an emulated kernel takes four times as long
MEANWHILE: Final = (
    Step(
        "k2 serves already, and k1 boots. A process in k2, seen from here:",
        "mk9p run k2 -- sleep 1000 >/dev/null 2>&1 & until mk9p ps k2 | grep 'sleep 1000'; do sleep 0.1; done",
        "sleep",
    ),
    Step(
        "And ended from here:",
        "for s in $(grep -l ^sleep k/k2/proc/*/status); do echo kill > ${s%status}ctl; done; "
        "while mk9p ps k2 | grep -q 'sleep 1000'; do :; done; echo gone",
        "gone",
    ),
    Step(
        "What k2's kernel logs, as it happens:",
        "mk9p run k2 -- sh -c 'echo hello from k2 > /dev/kmsg' & grep -m1 hello k/k2/dev/kmsg",
        "hello from k2",
    ),
)
STEPS: Final = (
    Step("Three kernels, one tree:", "ls k", "k0\nk1\nk2"),
    Step("They are different kernels:", "grep -E '^(name|release|arch)' k/*/status", "k1/status:name k1"),
    Step("k1's processors:", "cat k/k1/cpu/status", "1 online"),
    Step("Take one away, from here:", "echo offline 1 > k/k1/cpu/ctl; cat k/k1/cpu/status", "1 offline"),
    Step("k1 itself says so:", "mk9p run k1 -- grep -c ^processor /proc/cpuinfo", "1"),
    Step("A mistake is told in words:", "echo offline 9 > k/k1/cpu/ctl; cat k/k1/cpu/error", "9"),
    Step("And back:", "echo online 1 > k/k1/cpu/ctl; cat k/k1/cpu/status", "1 online"),
    Step("A pipe between kernels:", "mk9p run k1 -- cat /proc/version | mk9p run k2 -- tr a-z A-Z", "LINUX VERSION"),
    Step("All kernels' processors in one directory:", "ls all/cpu", "k1.1"),
    Step("What is mounted, as a script that makes it again:", "cat ns", "/k/k1"),
)


def main(arguments: Sequence[str]) -> int:
    """Run the demo; `--keep` leaves the lab up."""
    chosen = parsed(arguments)
    if chosen.which == "driver":
        return demo_driver.main(keep=chosen.keep)
    lab = labs.Lab()
    begun = time.monotonic()
    print("Starting two kernels: k1 by QEMU (Debian's 6.1, two processors), k2 by user-mode Linux; k0 is this one.")
    seen: list[bool] = []

    def meanwhile() -> None:
        for step in MEANWHILE:
            trio.from_thread.check_cancelled()  # no further step after Ctrl-C
            seen.append(show(lab, step))

    up(lab, labs.read_lab(None)[1], mount=True, meanwhile=meanwhile)
    try:
        seen += [show(lab, step) for step in STEPS]
        print(f"\nAll of it took {time.monotonic() - begun:.1f} seconds.")
    finally:
        if not chosen.keep:
            lab.end()
    if chosen.keep:
        print_hints(lab, ["k1", "k2"], mounted=True)
    else:
        print("The lab is down again and has left nothing behind. To have it up and go on by hand:\n")
        here, anywhere = shlex.join(typed()), shlex.join(typed(full=True))
        hints = {
            f"{here} up": "start it again",
            f"cd {lab.mount}": f"and use ls, cat, echo; or {anywhere} ls, cat, write, run, ps, console, tail",
            f"{here} down": "end it and leave nothing behind",
        }
        for command, what in hints.items():
            print(f"  {command:<{max(map(len, hints))}}  {what}")
    return 0 if all(seen) else 1
