"""What mk9p's client reaches against a server: awaited getattr from 32 tasks, and 1 MiB reads one after the other. Prints one JSON object."""

import json
import sys
import time

import trio

from mk9p.client import Client, connect, requests
from mk9p.wire import messages as m

TASKS = 32
MIB = 1 << 20


async def getattrs(client: Client, seconds: float) -> float:
    """Return awaited getattr a second, from many tasks on one connection."""
    connection = client.connection
    fid, _ = await requests.walk(connection, client.root, ("small",))
    count = 0

    async def one() -> None:
        nonlocal count
        while True:
            await connection.rpc(m.Tgetattr, fid, 0x7FF)
            count += 1

    begun = time.perf_counter()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(one)
    return count / (time.perf_counter() - begun)


async def reads(client: Client, seconds: float) -> float:
    """Return MB a second of a file read in pieces of 1 MiB."""
    async with await client.open("big") as file:
        length = (await file.stat()).length
        begun, total = time.perf_counter(), 0
        while (took := time.perf_counter() - begun) < seconds:
            total += len(await file.pread(MIB, total % length))
        return total / took / 1e6


async def main(address: str, aname: str, seconds: float) -> None:
    async with connect(address, aname=aname) as client:
        print(json.dumps({"read": await reads(client, seconds), "getattr": await getattrs(client, seconds)}))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], float(sys.argv[3]))
