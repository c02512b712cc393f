"""What a guest does on its mount, for guests.py: `python3 guest_work.py ROW WHERE FILES`. It prints the seconds, and how many operations those were.

It runs in the guest, so it needs nothing but Python. Random places are the same in each run.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

PAGE, BIG = 4096, 32 << 20
CATS, PAGES = 200, 500
TAR = "/tmp/files.tar"
DBENCH_SECONDS = 3


def cats(where: str, files: int) -> int:
    """Read a small file as cat(1) does."""
    for _ in range(CATS):
        fd = os.open(f"{where}/status", os.O_RDONLY)
        while os.read(fd, 1 << 17):
            pass
        os.close(fd)
    return CATS


def read_pages(where: str, files: int) -> int:
    return _pages(f"{where}/big", os.O_RDONLY, lambda fd, at: os.pread(fd, PAGE, at))


def write_pages(where: str, files: int) -> int:
    data = bytes(PAGE)
    return _pages(f"{where}/big", os.O_WRONLY, lambda fd, at: os.pwrite(fd, data, at))


def _pages(path: str, flags: int, do: Callable[[int, int], object]) -> int:
    places = random.Random(9)
    fd = os.open(path, flags)
    for _ in range(PAGES):
        do(fd, places.randrange(BIG // PAGE) * PAGE)
    os.close(fd)
    return PAGES


def read_mib(where: str, files: int) -> int:
    fd = os.open(f"{where}/big", os.O_RDONLY)
    while os.read(fd, 1 << 20):
        pass
    os.close(fd)
    return BIG >> 20


def write_mib(where: str, files: int) -> int:
    data = bytes(1 << 20)
    fd = os.open(f"{where}/big", os.O_WRONLY)
    for _ in range(BIG >> 20):
        os.write(fd, data)
    os.close(fd)
    return BIG >> 20


def untar(where: str, files: int) -> int:
    _sh(f"mkdir {where}/tree && tar xf {TAR} -C {where}/tree")
    return files


def tar(where: str, files: int) -> int:
    # tar does not read what it would write to /dev/null
    _sh(f"tar cf - -C {where} tree | cat >/dev/null")
    return files


def find(where: str, files: int) -> int:
    _sh(f"find {where}/tree -ls >/dev/null")
    return files


def rm(where: str, files: int) -> int:
    _sh(f"rm -r {where}/tree")
    return files


def dbench(where: str, files: int) -> int:
    """Give the MB that dbench moved."""
    os.mkdir(f"{where}/db")
    said = _sh(f"dbench -D {where}/db -c /usr/share/dbench/client.txt -t {DBENCH_SECONDS} 1")
    shutil.rmtree(f"{where}/db")
    found = re.search(r"Throughput ([0-9.]+) MB/sec", said)
    assert found, said
    print(DBENCH_SECONDS, float(found[1]) * DBENCH_SECONDS)
    raise SystemExit


def _sh(script: str) -> str:
    done = subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def prepare(where: str, files: int) -> int:
    """Make the archive, if it is not there: files of 0 to 16 KiB, 100 in a directory."""
    if not os.path.exists(TAR):
        sizes = random.Random(9)
        for number in range(files):
            os.makedirs(f"/tmp/tree/d{number // 100}", exist_ok=True)
            with open(f"/tmp/tree/d{number // 100}/file{number}", "wb") as file:
                file.write(bytes(sizes.randrange(16384)))
        _sh(f"tar cf {TAR} -C /tmp/tree . && rm -r /tmp/tree")
    return files


ROWS = {
    "prepare": prepare,
    "cat of a status file": cats,
    "read 4 KiB anywhere": read_pages,
    "write 4 KiB anywhere": write_pages,
    "read 1 MiB": read_mib,
    "write 1 MiB": write_mib,
    "untar": untar,
    "tar c": tar,
    "find -ls": find,
    "rm -r": rm,
    "dbench": dbench,
}

if __name__ == "__main__":
    row, where, files = sys.argv[1:]
    begun = time.perf_counter()
    did = ROWS[row](where, int(files))
    print(time.perf_counter() - begun, did)
