"""What a test run that is killed has started ends with it: labs, mounts, servers of strangers, which are made to outlive their starters.

All that a run starts has a word of its own in its environment. Beside the run stands a process, no child of it, that holds the end of a pipe: a byte
says that the run is over in good order; if the pipe ends without one, the run has died. Then whoever has the word and no parent that has it is asked
to end, for a lab's warden and a mount undo more than their own death; what is left after a while is killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WORD = "MK9P_TEST_RUN"
GRACE = 20.0  # seconds: halting guests has a bound of its own, below this


@contextmanager
def guarded() -> Iterator[None]:
    """Mark what is started in the block, and have it ended if this process dies in it."""
    word = f"{os.getpid()}-{os.urandom(8).hex()}"
    watch, alive = os.pipe()
    me = [sys.executable, "-ISE", __file__, word]
    # Through a shell that ends at once: tests look at which children there are. What it starts with & would have /dev/null as its input.
    script = 'exec 3<&0; "$@" <&3 3<&- >/dev/null 2>&1 &'
    subprocess.run(["sh", "-c", script, "sh", *me], stdin=watch, check=True)
    os.close(watch)
    os.environ[WORD] = word
    try:
        yield
        os.write(alive, b"x")
    finally:
        del os.environ[WORD]
        os.close(alive)


def marked(word: str) -> dict[int, int]:
    """Return the processes that have the word in their environment, and the parent of each."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{WORD}={word}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def end(word: str) -> None:
    """End all that has the word; returns when nothing is left."""
    deadline, asked = time.monotonic() + GRACE, set[int]()
    while found := marked(word):
        late = time.monotonic() > deadline
        for pid, parent in found.items():
            if late or (parent not in found and pid not in asked):
                asked.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(0.1)


if __name__ == "__main__":
    os.setsid()
    if not os.read(0, 1):
        end(sys.argv[1])
