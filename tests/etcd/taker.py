"""`python -m tests.etcd.taker ADDRESS PATH`: wait for a lease, append its token to the file, and print when that was, by CLOCK_MONOTONIC."""

import sys
import time

import mk9p.sync


def main() -> None:
    address, path = sys.argv[1:]
    with mk9p.sync.connect(address) as ns, ns.open("lease/clone", "r+") as ctl:
        n = int(ctl.pread(99, 0))
        ctl.pwrite(f"take {path} for 30 wait 60\n".encode(), 0)
        began = time.monotonic()
        with ns.open(path, "a") as file:
            file.write(f"{ns.read(f'lease/{n}/status').split()[5]}\n".encode())
        print(began)
        sys.stdout.flush()
        time.sleep(3)


if __name__ == "__main__":
    main()
