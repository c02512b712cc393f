"""`python -m tests.sides [OPTION...]`: all tests, by two pytest processes side by side: those in guests wait for these most of the time.
With MK9P_LONG=1 there are more, for those that then take an hour and mostly wait: a hundred restarts of real kernels, a thousand moves; leases; etcd.
At most three run at once on two CPUs. `--side NAME` runs only that one, and may stand more than once.

Each process has its own session, its own cache, and, if root runs it, its own copy of the mounts: otherwise a guest of one side would keep what a
test of the other has unmounted. What the shorter side says comes as it says it, and then what the other says. The last lines are the counts of each
side, as pytest says them, and their sum. The options are pytest's, for both; both go into the one file of `--junit-xml`.

At most five failures of a side run once more, alone, when all sides have ended: two CPUs that emulate eight may have been late. What then passes is
unsteady: it is named, and counted as that. It is still a fault, of the test or of mk9p. With MK9P_LONG=1 nothing has a second chance.
"""

import argparse
import compileall
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final
from xml.etree import ElementTree

import attrs

TREE: Final = Path(__file__).parents[1]
GUESTS: Final = "tests/vm"
# name, the side that it is of otherwise, and what it runs
HAULS: Final = (
    ("restarts", "in guests", ("tests/vm/test_vm_recovery.py", "tests/vm/test_vm_leases.py")),
    ("moves and kills", "in guests", ("tests/vm/test_vm_moves.py", "tests/vm/test_vm_composer.py")),
    ("leases", "beside guests", ("tests/lease",)),
    ("etcd", "beside guests", ("tests/etcd",)),
)
NOTHING: Final = 5  # pytest's status if it has selected no test
_COUNTS: Final = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+|no tests ran) in [\d.:]+s.*$", re.MULTILINE)
_SHOWN: Final = ("passed", "failed", "unsteady", "skipped", "xfailed", "xpassed")
FAILED: Final = 1  # pytest's status if tests failed, and nothing else was wrong
TOGETHER: Final = max(
    2, len(os.sched_getaffinity(0)) + 1
)  # sides at once: each waits for guests, or for time, now and then
AGAIN: Final = 5  # failures of a side that may run once more: more of them are no accident


def sides(*, long: bool) -> Mapping[str, Sequence[str]]:
    """Return what pytest is to run on each side."""
    found: dict[str, Sequence[str]] = {
        "beside guests": ("tests", f"--ignore={GUESTS}"),
        "in guests": (GUESTS,),
    }
    if long:
        for name, side, those in HAULS:
            found[side] = (*found[side], *(f"--ignore={each}" for each in those))
            found[name] = those
    return found


@attrs.frozen
class Side:
    """One pytest process. `said`: the file that it writes to; `cache`: where pytest keeps what has failed."""

    name: str
    arguments: Sequence[str]
    process: "subprocess.Popen[bytes]"
    said: IO[bytes]
    junit: Path
    cache: Path

    def show(self, meanwhile: Callable[[], None]) -> None:
        """Print what it says until it has ended, and do `meanwhile` again and again."""
        while True:
            ended = self.process.poll() is not None
            meanwhile()
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

    def failed(self) -> Sequence[str]:
        """Return the names of the tests that have failed, if that is all that went wrong."""
        kept = self.cache / "v/cache/lastfailed"
        return sorted(json.loads(kept.read_text())) if self.process.returncode == FAILED and kept.exists() else ()


def start(name: str, arguments: Sequence[str], home: Path, cache: Path) -> Side:
    """Start one side, which ends if this process does."""
    file = home / name.replace(" ", "-")
    junit = file.with_suffix(".xml")
    apart = ["setpriv", "--pdeathsig", "TERM", "--"]
    alone = ["unshare", "--mount", "--propagation", "private", "--"]
    if os.geteuid() == 0 and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0:
        apart += alone
    command = [*apart, sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={cache}"]
    with file.open("wb") as said:
        process = subprocess.Popen(
            [*command, f"--junit-xml={junit}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
        )
    return Side(name, arguments, process, file.open("rb"), junit, cache)


def run(sides: Mapping[str, Sequence[str]], arguments: Sequence[str], *, again: bool) -> int:
    """Run all sides, with more arguments for each; print what they say, one after the other. Return the exit status.

    `again`: whether what has failed runs once more, alone.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--junit-xml", "--junitxml", type=Path)
    parser.add_argument("--side", action="append", choices=list(sides))
    chosen, more = parser.parse_known_args(arguments)
    waiting = deque((name, mine) for name, mine in sides.items() if name in (chosen.side or sides))
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mk9p-sides-")))
        started: list[Side] = []

        def begin(name: str, arguments: Sequence[str], cache: Path) -> Side:
            started.append(start(name, arguments, home, cache))
            stack.enter_context(started[-1].said)
            return started[-1]

        def begin_more() -> None:
            while waiting and sum(side.process.poll() is None for side in started) < TOGETHER:
                name, mine = waiting.popleft()
                begin(name, [*mine, *more], home / f"cache{len(started)}")

        def end(number: int, _: object) -> None:
            waiting.clear()
            for side in started:
                if side.process.poll() is None:
                    side.process.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.signal(number, end))
        begin_more()
        # each that is shown to its end lets the next begin
        for side in started:
            print(f"tests {side.name}:", flush=True)
            side.show(begin_more)
        ends = []
        for side in tuple(started):
            names, alone = side.failed(), None
            if again and 0 < len(names) <= AGAIN:
                print(f"\ntests that failed {side.name}, once more, alone:", flush=True)
                alone = begin(f"{side.name}, alone", ["--last-failed", *side.arguments], side.cache)
                alone.show(begin_more)
            ends.append(End.of(side, names, alone))
        if chosen.junit_xml is not None:
            _join([side.junit for side in started], chosen.junit_xml)
        return _close(ends)


@attrs.frozen
class End:
    """How a side has ended: its lines, its counts and its exit status; with what was run once more."""

    lines: Sequence[str]
    counts: Counter[str]
    code: int

    @classmethod
    def of(cls, side: Side, names: Sequence[str], alone: Side | None) -> "End":
        """Judge a side, whose tests of these names have failed, by what it said, and what it said alone."""
        line = side.closing()
        lines, counts = [f"{line}  ({side.name})"], _counts(line)
        if alone is None or alone.process.returncode not in (0, FAILED):
            return cls(lines, counts, side.process.returncode)
        still = alone.failed()
        unsteady = [name for name in names if name not in still]
        counts["failed"], counts["unsteady"] = len(still), len(unsteady)
        lines += [f"{alone.closing()}  ({alone.name})", *(f"unsteady: {name}" for name in unsteady)]
        return cls(lines, counts, alone.process.returncode)


def _counts(line: str) -> Counter[str]:
    """Return the numbers of a line of counts; an error is a failure."""
    counts: Counter[str] = Counter()
    for number, word in re.findall(r"(\d+) ([a-z]+)", line.partition(" in ")[0]):
        counts["failed" if word.startswith("error") else word] += int(number)
    return counts


def _close(ends: Sequence[End]) -> int:
    """Print how each side ended, and the sum; return the exit status."""
    total: Counter[str] = Counter()
    print()
    for end in ends:
        print(*end.lines, sep="\n")
        total += end.counts
    print(", ".join(f"{total[word]} {word}" for word in _SHOWN if total[word] or word in _SHOWN[:2]), flush=True)
    wrong = [end.code if end.code > 0 else 128 - end.code for end in ends if end.code not in (0, NOTHING)]
    return wrong[0] if wrong else min(end.code for end in ends)


def _join(files: Sequence[Path], to: Path) -> None:
    """Write the reports of all sides as one; a side that has died has none."""
    together = ElementTree.Element("testsuites")
    for file in files:
        if file.exists():
            together.extend(ElementTree.parse(file).getroot().findall("testsuite"))
    ElementTree.ElementTree(together).write(to, encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    # a thousand processes import these, those of guests by an emulated processor, and from where they cannot keep what they compiled
    for _folder in ("mk9p", "clients", "servers"):
        compileall.compile_dir(TREE / _folder, quiet=2)
    _long = bool(os.environ.get("MK9P_LONG"))
    sys.exit(run(sides(long=_long), sys.argv[1:], again=not _long))
