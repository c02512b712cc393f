"""`python -m tests.bench.holder STORE TERM`: a composer whose user takes a lease; then it waits to be killed."""

import sys

import trio

from mk9p.etcd.address import parse
from mk9p.lease.leases import Leases
from mk9p.lease.opening import shared
from mk9p.lease.wish import SECOND, Wish


async def main(where: str, term: int) -> None:
    async with shared(parse(where)) as store:
        await Leases(store).take(Wish(0, "/k", ("k",), "exclusive", "bob", term * SECOND))
        print("holds", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
