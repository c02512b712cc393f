"""Ordinary use of a mount, or of the commands, whose server may say anything: `python ordinary_use.py files DIR SEED N`, or `commands DIAL SEED N`.

An OSError is what a program must expect, and a line on stderr what a person must. Whatever else comes of it is the end of this process.
"""

import contextlib
import os
import random
import sys
import threading
import traceback

NAMES = ("d1", "d2", "f1", "f2", "l1", "none")


def files(top: str, r: random.Random, times: int) -> None:
    for _ in range(times):
        path = os.path.join(top, *(r.choice(NAMES) for _ in range(r.randrange(1, 4))))
        with contextlib.suppress(OSError):
            match r.randrange(10):
                case 0 | 1:
                    os.lstat(path)
                case 2 | 3:
                    for entry in os.scandir(path):
                        assert "/" not in entry.name
                        assert entry.name not in ("", ".", "..")
                case 4 | 5:
                    with open(path, "rb") as file:
                        file.read(20_000)
                case 6:
                    with open(path, "r+b", buffering=0) as file:
                        file.write(b"x" * 100)
                        file.truncate(3)
                case 7:
                    r.choice((os.mkdir, os.unlink, os.rmdir, os.readlink))(path)
                case 8:
                    r.choice((os.statvfs, os.listxattr))(path)
                case 9:
                    r.choice((lambda p: os.utime(p, (1, 2)), lambda p: os.chmod(p, 0o600)))(path)


def commands(address: str, r: random.Random, times: int) -> None:
    from mk9p.__main__ import main

    os.environ["MK9P"] = address
    for _ in range(times):
        path = "/".join(r.choice(NAMES) for _ in range(r.randrange(1, 3)))
        words = r.choice(
            (
                ["ls", "-l", path],
                ["ls", "--json", path],
                ["cat", path],
                ["stat", path],
                ["tree", "-d", "2", path],
                ["cp", f":{path}", "/dev/null"],
                ["write", path, "word"],
            )
        )
        with contextlib.suppress(SystemExit):
            assert main(words) in (0, 1), words


def checked(work: object, *args: object) -> None:
    try:
        work(*args)  # type: ignore[operator]
    except BaseException:
        traceback.print_exc()
        os._exit(3)


if __name__ == "__main__":
    what, where, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if what == "commands":
        checked(commands, where, random.Random(seed), count)
    else:
        threads = [
            threading.Thread(target=checked, args=(files, where, random.Random(seed + i), count)) for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
