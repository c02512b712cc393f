"""`python -m tests.sides [OPTION...]`: all tests, by two pytest processes side by side: those in guests wait for these most of the time.
With MK9P_LONG=1 there is a third for those that then take an hour: a hundred restarts of real kernels, a thousand moves, ten minutes of leases.

Each process has its own session, its own cache, and, if root runs it, its own copy of the mounts: otherwise a guest of one side would keep what a
test of the other has unmounted. What the shorter side says comes as it says it, and then what the other says. The last lines are the counts of each
side, as pytest says them, and their sum. The options are pytest's, for both; both go into the one file of `--junit-xml`.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final
from xml.etree import ElementTree

import attrs

GUESTS: Final = "tests/vm"
HAULS: Final = (
    "tests/vm/test_vm_leases.py",
    "tests/vm/test_vm_moves.py",
    "tests/vm/test_vm_recovery.py",
    "tests/vm/test_vm_composer.py",
)
NOTHING: Final = 5  # pytest's status if it has selected no test
_COUNTS: Final = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+|no tests ran) in [\d.:]+s.*$", re.MULTILINE)
_SHOWN: Final = ("passed", "failed", "skipped", "xfailed", "xpassed")


def sides(*, long: bool) -> Mapping[str, Sequence[str]]:
    """Return what pytest is to run on each side."""
    found: dict[str, Sequence[str]] = {
        "beside guests": ("tests", f"--ignore={GUESTS}"),
        "in guests": (GUESTS,),
    }
    if long:
        found["in guests"] = (*found["in guests"], *(f"--ignore={file}" for file in HAULS))
        found["long hauls"] = HAULS
    return found


@attrs.frozen
class Side:
    """One pytest process. `said`: the file that it writes to."""

    name: str
    process: "subprocess.Popen[bytes]"
    said: IO[bytes]
    junit: Path

    def show(self) -> None:
        """Print what it says until it has ended."""
        while True:
            ended = self.process.poll() is not None
            while data := self.said.read(1 << 16):
                sys.stdout.buffer.write(data)
            sys.stdout.flush()
            if ended:
                return
            time.sleep(0.1)

    def closing(self) -> str:
        """Return its line of counts; without one if it has died before the end."""
        self.said.seek(0)
        found = list(_COUNTS.finditer(self.said.read().decode(errors="replace")))
        return found[-1][0].strip("= ") if found else f"1 failed: ended with {self.process.returncode}, and no counts"


def start(name: str, arguments: Sequence[str], home: Path) -> Side:
    """Start one side, which ends if this process does."""
    file = home / name.replace(" ", "-")
    junit = file.with_suffix(".xml")
    apart = ["setpriv", "--pdeathsig", "TERM", "--"]
    alone = ["unshare", "--mount", "--propagation", "private", "--"]
    if os.geteuid() == 0 and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0:
        apart += alone
    command = [*apart, sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir=.pytest_cache/{file.name}"]
    with file.open("wb") as said:
        process = subprocess.Popen(
            [*command, f"--junit-xml={junit}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Side(name, process, file.open("rb"), junit)


def run(sides: Mapping[str, Sequence[str]], arguments: Sequence[str]) -> int:
    """Run all sides, with more arguments for each; print what they say, one after the other. Return the exit status."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--junit-xml", "--junitxml", type=Path)
    chosen, more = parser.parse_known_args(arguments)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mk9p-sides-")))
        started: list[Side] = []

        def end(number: int, _: object) -> None:
            for side in started:
                if side.process.poll() is None:
                    side.process.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.signal(number, end))
        for name, mine in sides.items():
            started.append(start(name, [*mine, *more], home))
            stack.enter_context(started[-1].said)
        for side in started:
            print(f"tests {side.name}:", flush=True)
            side.show()
        if chosen.junit_xml is not None:
            _join([side.junit for side in started], chosen.junit_xml)
        return _close(started)


def _close(sides: Sequence[Side]) -> int:
    """Print the counts of each side, and their sum; return the exit status."""
    total: Counter[str] = Counter()
    print()
    for side in sides:
        line = side.closing()
        print(f"{line}  ({side.name})")
        for number, word in re.findall(r"(\d+) ([a-z]+)", line.partition(" in ")[0]):
            total["failed" if word.startswith("error") else word] += int(number)
    print(", ".join(f"{total[word]} {word}" for word in _SHOWN if total[word] or word in _SHOWN[:2]), flush=True)
    codes = [side.process.returncode for side in sides]
    wrong = [code if code > 0 else 128 - code for code in codes if code not in (0, NOTHING)]
    return wrong[0] if wrong else min(codes)


def _join(files: Sequence[Path], to: Path) -> None:
    """Write the reports of all sides as one; a side that has died has none."""
    together = ElementTree.Element("testsuites")
    for file in files:
        if file.exists():
            together.extend(ElementTree.parse(file).getroot().findall("testsuite"))
    ElementTree.ElementTree(together).write(to, encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    sys.exit(run(sides(long=bool(os.environ.get("MK9P_LONG"))), sys.argv[1:]))
