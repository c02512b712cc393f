"""One of those who contend: `python -m tests.lease.contender ADDRESS PATH SEED`. It takes a lease, appends its token to the file again and again,
also after it has lost the lease, and takes it anew, for ever. Whatever fails, it begins anew."""

import sys
import time
from contextlib import suppress
from random import Random

import mk9p.sync
from mk9p.errors import NineError


def once(address: str, path: str, random: Random) -> None:
    with mk9p.sync.connect(address) as ns, ns.open("lease/clone", "r+") as ctl:
        n = int(ctl.pread(99, 0))
        ctl.pwrite(f"take {path} for 1 wait 30\n".encode(), 0)
        token = ns.read(f"lease/{n}/status").split()[5]
        with ns.open(path, "a") as file:
            for _ in range(random.randrange(1, 30)):
                file.write(f"{token}\n".encode())
                time.sleep(random.random() * 0.12)
        if random.random() < 0.6:
            ctl.pwrite(b"give\n", 0)


def main() -> None:
    address, path, seed = sys.argv[1:]
    random = Random(int(seed))
    print("contends", flush=True)
    while True:
        with suppress(NineError, OSError):
            once(address, path, random)
        time.sleep(random.random() * 0.05)


if __name__ == "__main__":
    main()
