"""A program of `mk9p demo driver`, for any Linux: it writes numbered lines to a file, one after the other, until SIGTERM.

`N lines` says that N lines are where they outlive the kernel behind the file. A sync that says that something may be lost is what Linux says after a
disk failed: the program writes that line again. It tells a gap.
"""

import errno
import os
import sys
import time
from typing import Final

LINE: Final = 32  # bytes
EACH: Final = 0.1  # s between two lines
GAP: Final = 2.0  # s after which somebody wonders


def line_of(number: int) -> bytes:
    """Return a line of the file."""
    return f"line {number}".ljust(LINE - 1, ".").encode() + b"\n"


def main(path: str) -> None:
    """Write until SIGTERM."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    number = again = 0
    while True:
        since = time.monotonic()
        os.pwrite(file, line_of(number), number * LINE)
        try:
            os.fsync(file)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            again += 1
        else:
            assert os.pread(file, LINE, number * LINE) == line_of(number)
            number += 1
            print(number, "lines", flush=True)
        took = time.monotonic() - since
        if took > GAP:
            print(f"a line took {took:.1f} s; written again: {again}", flush=True)
        time.sleep(EACH)


if __name__ == "__main__":
    main(sys.argv[1])
